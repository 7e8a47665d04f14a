package domains

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/code"
	"github.com/terselink/terse/internal/forward"
)

// Domain is an immutable snapshot of a domain with its permutations computed. A
// change makes a new snapshot with a larger Version; the counters are shared by all.
type Domain struct {
	terse.Domain

	alphabet *code.Alphabet
	perms    [terse.MaxSpace + 1]*code.Permutation // by length; every usable length of the alphabet whose space is, or would be, permuted
	spaces   [terse.MaxSpace + 1]*terse.Space      // by length; only those that are open
	broken   error
	base     string // Base()
	utm      *forward.UTM
	mode     forward.Mode
	live     *live
}

// live is what all snapshots of a domain share.
type live struct {
	next [terse.MaxSpace + 1]atomic.Uint64 // no index at or above it has been leased
	// unknown says that next could not be read: every index may have been leased.
	unknown  atomic.Bool
	reserved reservations
	// shared says that other nodes lease, too: next is what this one knows.
	shared bool

	mu         sync.Mutex
	allocators [terse.MaxSpace + 1]*code.Allocator // opened when first needed
}

// raise makes the mark of a space at least end.
func (l *live) raise(s terse.SpaceID, end uint64) {
	for {
		cur := l.next[s].Load()
		if cur >= end || l.next[s].CompareAndSwap(cur, end) {
			return
		}
	}
}

// compile computes the permutations of a domain and checks its key against the
// check codes of every space. A domain whose key is wrong is returned broken:
// it answers 503, because another key leads codes to other people's links.
func compile(d terse.Domain, l *live) (*Domain, error) {
	a, err := code.Lookup(d.Alphabet)
	if err != nil {
		return nil, fmt.Errorf("compile domain %s: %w", d.Host, err)
	}
	if len(d.Spaces) == 0 {
		return nil, fmt.Errorf("compile domain %s: it has no code space", d.Host)
	}
	c := &Domain{Domain: d, alphabet: a, base: d.Base(), live: l, utm: forward.CompileUTM(d.UTM), mode: forward.ParseMode(d.QueryMode)}
	for i := range c.Spaces {
		c.spaces[c.Spaces[i].Space] = &c.Spaces[i]
	}
	for n := a.MinLength(); n <= a.MaxLength(); n++ {
		p, err := code.NewPermutation(d.PermKey, a, n)
		if err != nil {
			c.broken = fmt.Errorf("permutation key of %s: %w", d.Host, err)
			return c, nil
		}
		c.perms[n] = p
	}
	for i := range c.Spaces {
		s := &c.Spaces[i]
		if s.Strategy != StrategyPermuted {
			if err := checkSpace(s); err != nil {
				c.broken = fmt.Errorf("space %d of %s: %w", s.Space, d.Host, err)
				return c, nil
			}
			c.perms[s.Space] = nil // no code of this length is permuted, now or later
			continue
		}
		if s.PermVersion != code.PermVersion || s.Alphabet != d.Alphabet {
			c.broken = fmt.Errorf("space %d of %s: made by permutation version %d, alphabet %s", s.Space, d.Host, s.PermVersion, s.Alphabet)
			return c, nil
		}
		p := c.perms[s.Space]
		if p == nil || !equal(p.CheckCodes(), s.CheckCodes) {
			c.broken = fmt.Errorf("space %d of %s: the permutation key does not give the codes it was made with", s.Space, d.Host)
			return c, nil
		}
	}
	return c, nil
}

func equal(a, b []string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// Broken returns why the domain must not redirect or create: its permutation key
// is missing or is not the one its codes were made with. nil if all is well.
func (d *Domain) Broken() error { return d.broken }

// UTMPairs returns the UTM parameters of the domain, nil if it has none.
func (d *Domain) UTMPairs() *forward.UTM { return d.utm }

// ForwardMode returns how queries are added that are forwarded.
func (d *Domain) ForwardMode() forward.Mode { return d.mode }

// Fold returns the alphabet whose folding applies to codes and aliases of the
// domain; nil if upper and lower case differ.
func (d *Domain) Fold() *code.Alphabet {
	if d.alphabet.Fold() {
		return d.alphabet
	}
	return nil
}

// AppendCode appends the generated code of n, which must be of this domain and
// Permuted.
func (d *Domain) AppendCode(dst []byte, n terse.LinkNumber) []byte {
	return d.perms[n.Space()].AppendCode(dst, n.Index())
}

// ShortURL returns the short URL of a canonical code or alias, percent-encoded
// where a URL needs it.
func (d *Domain) ShortURL(canonical string) string {
	return string(d.AppendShortURL(nil, canonical))
}

// AppendShortURL appends the short URL of a canonical code or alias.
// Hot path of bulk: 0 allocs/op.
func (d *Domain) AppendShortURL(dst []byte, canonical string) []byte {
	dst = append(dst, d.base...)
	return code.AppendPath(dst, canonical)
}

// Generated returns the number that a canonical code would have if it were a
// permuted one; ok is false if no permuted code of the domain looks so, now
// or after it has grown, or if its index is above MaxIndex, so that it is never issued.
func (d *Domain) Generated(canonical []byte) (n terse.LinkNumber, ok bool) {
	x, ok := d.index(canonical)
	if !ok || x > terse.MaxIndex {
		return 0, false
	}
	return terse.NewLinkNumber(d.Number, terse.SpaceID(len(canonical)), x), true
}

// index returns the index of a code that looks like a permuted one.
func (d *Domain) index(canonical []byte) (x uint64, ok bool) {
	length := len(canonical)
	if length > int(terse.MaxSpace) || d.perms[length] == nil || !d.alphabet.Fits(canonical) {
		return 0, false
	}
	return d.perms[length].Index(canonical)
}

// Issued reports whether the index of n may have been leased. False means that no generated link has the
// number. Where other nodes lease, too, every index may that is below the cap of its space.
func (d *Domain) Issued(n terse.LinkNumber) bool {
	return n.Index() < d.live.next[n.Space()].Load() || d.live.unknown.Load() || d.live.shared && n.Index() < d.capOf(n.Space())
}

// capOf returns the number of indexes of a space that may ever be leased; for one that this node does not know to be open it is
// that which it would be opened with.
func (d *Domain) capOf(s terse.SpaceID) uint64 {
	if sp := d.spaces[s]; sp != nil {
		return sp.Cap
	}
	if p := d.perms[s]; p != nil {
		return code.Cap(p.N(), density(d.alphabet))
	}
	return 0
}

// Reader is what Find needs of a store.
type Reader interface {
	GetLinks(ctx context.Context, keys []terse.LinkKey, dst []terse.Link) error
	GetAlias(ctx context.Context, d terse.DomainID, alias string) (terse.Link, error)
}

// Find resolves a canonical code: the index gate by arithmetic (Refuses), then the store by
// number, then by alias or any other name. Returns terse.ErrNotFound if the code is known not to
// exist; every other error means that it is not known.
func (d *Domain) Find(ctx context.Context, store Reader, canonical []byte) (terse.Link, error) {
	if d.broken != nil {
		return terse.Link{}, &terse.Error{Code: terse.CodeUnavailable, Message: "the codes of this domain cannot be resolved", Err: d.broken}
	}
	if d.Refuses(canonical) {
		return terse.Link{}, terse.ErrNotFound
	}
	s := string(canonical)
	if n, ok := d.Generated(canonical); ok && d.Issued(n) {
		keys, dst := [1]terse.LinkKey{{Number: n, Code: s}}, [1]terse.Link{}
		if err := store.GetLinks(ctx, keys[:], dst[:]); err != nil {
			return terse.Link{}, fmt.Errorf("find code: %w", err)
		}
		if dst[0].Number != 0 {
			dst[0].Code = s
			return dst[0], nil
		}
	}
	l, err := store.GetAlias(ctx, d.Number, s)
	if err != nil {
		if errors.Is(err, terse.ErrNotFound) {
			return terse.Link{}, terse.ErrNotFound
		}
		return terse.Link{}, fmt.Errorf("find alias: %w", err)
	}
	return l, nil
}
