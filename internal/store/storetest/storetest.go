// Package storetest is the conformance suite of terse.Store: every engine passes
// it unchanged. Run checks the contract topic by topic, RunModel compares an
// engine with memstore over random histories with and without faults, Bench
// measures what engines are compared by.
//
// The suite knows no engine. What engines may differ in is in Opts, and nothing
// else is: if an engine cannot pass, either the engine is wrong or the contract
// is, and the contract is changed for all.
//
// Where the contract leaves room, the suite fixes it so:
//
//   - A link is in the way of its chunk if it could not be inserted after all
//     links before it that are not. Of two links with one alias or one number the
//     first is not in the way, so the chunk without the named rows would go in.
//   - If both links and documents of a chunk are in the way, the error is about the links.
//   - A number whose link was deleted by DeleteLink is in use for ever: inserting it again is a conflict.
//   - Newest first means that CreatedAt never rises along a listing whose inserts
//     came in order of CreatedAt, and that the numbers of one space fall within a chunk.
//   - Nil and empty slices, maps and settings are the same.
//   - Strings are valid UTF-8 without NUL; engines need not take others.
//   - A closed store answers ErrUnavailable.
//   - One chunk may carry the links of several workspaces, spaces and domains;
//     each workspace gets changes of its own.
package storetest

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/terselink/terse"
)

// Opts says how to make the stores under test and what is special about them.
type Opts struct {
	// New returns an empty store. The suite closes it; New registers what else
	// must be cleaned up with t.Cleanup.
	New func(t testing.TB) terse.Store
	// Reopen closes the store as a clean stop does and opens its data again. Nil:
	// the store is not durable, and the tests of durability are skipped.
	Reopen func(t testing.TB, s terse.Store) terse.Store
	// Retry is asked before a read that has not shown the expected answer is
	// repeated, with attempt = 1, 2, …: it waits as the engine needs and says whether
	// to go on. Listings and the change feed of a store with Retry may lag;
	// nothing else may. Nil: every read sees every write at once.
	Retry func(attempt int) bool
	// Forget makes the store forget every change there is, but maybe the last few. Nil: it never forgets one.
	Forget func(t testing.TB, s terse.Store)
	// MaxAtomicChunk is the largest number of links and documents that one
	// InsertLinks can write atomically, at least 100. 0: no limit.
	MaxAtomicChunk int
	// Decorator says that the store wraps an engine for those who use it. It need not be a terse.Portable: what is
	// copied is the engine.
	Decorator bool
	// SkipLarge leaves out the tests with thousands of links.
	SkipLarge bool
}

// hangs is how long a test of the suite may take before its calls are taken to hang. It bounds all calls of a test
// together, on an engine that shares a busy machine with the race detector.
const hangs = 10 * time.Minute

// largeChunk is the chunk that goes over the limits of backends: parameters of a
// statement, items of a transaction, bytes of a message.
const largeChunk = 10_000

// Run checks that the stores made by o.New keep the contract.
func Run(t *testing.T, o Opts) {
	t.Helper()
	topics := []struct {
		name string
		run  func(*testing.T, *suite)
	}{
		{"Leases", testLeases},
		{"Insert", testInsert},
		{"Chunks", testChunks},
		{"Alias", testAlias},
		{"ByCode", testByCode},
		{"Versions", testVersions},
		{"List", testList},
		{"Count", testCount},
		{"Purge", testPurge},
		{"Plain", testPlain},
		{"Documents", testDocuments},
		{"Text", testText},
		{"Changes", testChanges},
		{"Forget", testForget},
		{"Context", testContext},
		{"Retry", testRetry},
		{"Lifecycle", testLifecycle},
		{"Portable", testPortable},
		{"Reopen", testReopen},
	}
	for _, topic := range topics {
		if topic.name == "Portable" && o.Decorator {
			continue
		}
		t.Run(topic.name, func(t *testing.T) { topic.run(t, newSuite(t, o)) })
	}
}

// suite is one store under test. Tests that share a store work in scopes of
// their own, so they do not see each other.
type suite struct {
	o      Opts
	store  terse.Store
	scopes atomic.Uint32
	ticks  atomic.Int64
}

func newSuite(t testing.TB, o Opts) *suite {
	t.Helper()
	if o.New == nil {
		t.Fatal("storetest: Opts.New is nil")
	}
	s := &suite{o: o, store: o.New(t)}
	t.Cleanup(func() {
		if err := s.store.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

// epoch is when the links of the suite begin to be made.
const epoch terse.Millis = 1_790_000_000_000

// now returns a time later than every one it returned before.
func (s *suite) now() terse.Millis { return epoch + terse.Millis(s.ticks.Add(1)) }

// tb is what the checks need of a test; *testing.T and *rapid.T have it.
type tb interface {
	Helper()
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// scope is a workspace and a domain that no other test uses.
type scope struct {
	tb
	*suite
	ctx context.Context
	w   terse.WorkspaceID
	d   terse.DomainID
}

// scope returns a new scope for one test.
func (s *suite) scope(t testing.TB) *scope {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), hangs)
	t.Cleanup(cancel)
	n := s.scopes.Add(1)
	return &scope{tb: t, suite: s, ctx: ctx, w: terse.WorkspaceID(n), d: terse.DomainID(n)}
}

// other returns a scope of the same test with another workspace and domain.
func (c *scope) other() *scope {
	n := c.scopes.Add(1)
	o := *c
	o.w, o.d = terse.WorkspaceID(n), terse.DomainID(n)
	return &o
}

// chunkSize returns the largest chunk of at most want links that the store takes
// atomically.
func (c *scope) chunkSize(want int) int {
	if c.o.MaxAtomicChunk > 0 {
		return min(want, c.o.MaxAtomicChunk)
	}
	return want
}

// eventually fails the test unless check comes to return "", at once for most
// stores. The text says what is wrong.
func (c *scope) eventually(check func() string) {
	c.Helper()
	for attempt := 1; ; attempt++ {
		problem := check()
		if problem == "" {
			return
		}
		if c.o.Retry == nil || !c.o.Retry(attempt) {
			c.Fatal(problem)
		}
	}
}

// codeOf is the code of an index in the spaces of the suite: base 36, as long as
// the number of the space says. An alias that looks like one reserves its index.
func codeOf(s terse.SpaceID, index uint64) string {
	b := make([]byte, s)
	if putDigits(b, index, 36) != 0 {
		panic(fmt.Sprintf("storetest: no code of %d characters is left", s))
	}
	return string(b)
}

// putDigits fills dst with the digits of n and returns what did not fit.
func putDigits(dst []byte, n, base uint64) uint64 {
	for i := len(dst) - 1; i >= 0; i-- {
		dst[i] = "0123456789abcdefghijklmnopqrstuvwxyz"[n%base]
		n /= base
	}
	return n
}

// genSpace is the space that most generated links of the suite live in.
const genSpace terse.SpaceID = 7

// numbers leases n numbers of a space.
func (c *scope) numbers(space terse.SpaceID, n int) []terse.LinkNumber {
	c.Helper()
	out := make([]terse.LinkNumber, 0, n)
	for len(out) < n {
		l, err := c.store.Lease(c.ctx, terse.LeaseRequest{Domain: c.d, Space: space, Count: uint64(n - len(out))})
		if err != nil {
			c.Fatalf("Lease: %v", err)
		}
		out = append(out, usable(l)...)
	}
	return out
}

// usable returns the numbers of a lease that are not reserved.
func usable(l terse.Lease) []terse.LinkNumber {
	var out []terse.LinkNumber
	skip := l.Reserved
	for i := l.Start; i < l.End; i++ {
		if len(skip) > 0 && skip[0] == i {
			skip = skip[1:]
			continue
		}
		out = append(out, terse.NewLinkNumber(l.Domain, l.Space, i))
	}
	return out
}

// links returns n generated links with numbers of their own, not yet inserted.
func (c *scope) links(n int) []terse.Link {
	c.Helper()
	at := c.now()
	out := make([]terse.Link, n)
	for i, number := range c.numbers(genSpace, n) {
		out[i] = terse.Link{
			Number: number, Workspace: c.w, Version: 1, CreatedAt: at, UpdatedAt: at,
			Code:        codeOf(genSpace, number.Index()),
			Destination: fmt.Sprintf("https://example.com/%d/%d?utm_source=sms", c.d, number.Index()),
		}
	}
	return out
}

// alias returns a link with an alias, not yet inserted.
func (c *scope) alias(code string) terse.Link {
	c.Helper()
	at := c.now()
	return terse.Link{
		Number: c.numbers(terse.AliasSpace, 1)[0], Workspace: c.w, Version: 1, CreatedAt: at, UpdatedAt: at,
		Code: code, Destination: "https://example.com/alias",
	}
}

// reserving returns a link whose alias looks like the generated code of n.
func (c *scope) reserving(n terse.LinkNumber) terse.Link {
	c.Helper()
	l := c.alias(codeOf(n.Space(), n.Index()))
	l.Reserves = n
	return l
}

// stamp makes now the time at which all the links are made, so that they can be
// inserted after every link that has been stamped before.
func (c *scope) stamp(links []terse.Link) {
	at := c.now()
	for i := range links {
		links[i].CreatedAt, links[i].UpdatedAt = at, at
	}
}

// insert inserts the links as one chunk.
func (c *scope) insert(links ...terse.Link) error {
	return c.store.InsertLinks(c.ctx, &terse.Chunk{Links: links})
}

// mustInsert inserts the links, in as few chunks as the store allows.
func (c *scope) mustInsert(links ...terse.Link) {
	c.Helper()
	for len(links) > 0 {
		n := c.chunkSize(len(links))
		if err := c.insert(links[:n]...); err != nil {
			c.Fatalf("InsertLinks of %d links: %v", n, err)
		}
		links = links[n:]
	}
}
