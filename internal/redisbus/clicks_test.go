package redisbus

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/clickstream"
	"github.com/terselink/terse/internal/testengine"
)

var _ clickstream.Watched = (*Clicks)(nil)

func clicksOptions(url, prefix string) ClicksOptions {
	secret := make([]byte, 32)
	for i := range secret {
		secret[i] = byte(i)
	}
	return ClicksOptions{Options: Options{URL: url, Prefix: prefix, Instance: "i"}, Secret: secret, Log: slog.New(slog.DiscardHandler)}
}

func newClicks(t *testing.T, url, prefix string) *Clicks {
	t.Helper()
	s, err := NewClicks(clicksOptions(url, prefix))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func texts(list []clickstream.Message) (out []string) {
	for _, m := range list {
		out = append(out, fmt.Sprintf("%s/%d", m.Entry, m.Deliveries))
	}
	return out
}

func (s *Clicks) mustRead(t *testing.T, want string) []clickstream.Message {
	t.Helper()
	list, err := s.Read(t.Context(), 10)
	if got := strings.Join(texts(list), " "); err != nil || got != want {
		t.Fatalf("read %q, %v; want %q", got, err, want)
	}
	return list
}

func (s *Clicks) mustHave(t *testing.T, after, want string) []clickstream.Message {
	t.Helper()
	pending, err := s.Pending(t.Context(), after, 10)
	must(t, err)
	list, err := s.Unfinished(t.Context(), after, 10)
	for i := range list {
		if i < len(pending) && pending[i].ID == list[i].ID {
			list[i].Deliveries = pending[i].Deliveries
		}
	}
	if got := strings.Join(texts(list), " "); err != nil || got != want {
		t.Fatalf("unfinished %q, %v; want %q", got, err, want)
	}
	return list
}

// TestClicks: entries are handed out once and in order; what is not done is handed out again to the next process, with how often; what is done is
// trimmed and nothing else; an emptied server begins anew.
func TestClicks(t *testing.T) {
	url, prefix := testengine.Address(t, testengine.Redis), fmt.Sprintf("clicks%x", rand.Uint64())
	ctx := t.Context()
	s, next := newClicks(t, url, prefix), newClicks(t, url, prefix)
	s.mustRead(t, "") // makes the group
	for i := range 4 {
		must(t, s.Add(ctx, fmt.Append(nil, "e", i)))
	}
	list := s.mustRead(t, "e0/0 e1/0 e2/0 e3/0")
	s.mustRead(t, "")
	must(t, s.Done(ctx, []string{list[0].ID, list[2].ID}))
	st, err := s.State(ctx)
	if err != nil || st.Pending != 2 || st.Entries != 2 || st.Lag != 0 {
		t.Errorf("%+v, %v: e0 and e2, behind e1 which is not done, are to be dropped", st, err)
	}
	next.mustHave(t, "", "e1/1 e3/1")
	again := next.mustHave(t, "", "e1/2 e3/2")
	next.mustHave(t, again[0].ID, "e3/3")
	must(t, next.Excuse(ctx, map[string]bool{list[3].ID: true}))
	next.mustHave(t, "", "e1/0 e3/4")
	must(t, next.Excuse(ctx, map[string]bool{list[1].ID: true, list[3].ID: true}))
	next.mustHave(t, "", "e1/1 e3/5")
	must(t, next.Add(ctx, []byte("e4")))
	if st, err := next.State(ctx); err != nil || st.Lag != 1 {
		t.Errorf("%+v, %v: e4 was not handed out", st, err)
	}
	last := next.mustRead(t, "e4/0")
	must(t, next.Done(ctx, []string{list[1].ID, list[3].ID, last[0].ID}))
	if st, err := next.State(ctx); err != nil || st.Pending != 0 || st.Entries != 1 {
		t.Errorf("%+v, %v: the last entry stays", st, err)
	}
	// Everything that was ever in the stream is read by a group that is made again.
	must(t, next.Tell(ctx, map[string]string{"spool": "mark"}))
	if text, err := s.Told(ctx, "spool"); err != nil || text != "mark" {
		t.Errorf("told %q, %v", text, err)
	}
	if text, err := s.Told(ctx, "other"); err != nil || text != "" {
		t.Errorf("told %q, %v", text, err)
	}
	must(t, s.SetAside(ctx, last[0], "a test"))
	if st, err := s.State(ctx); err != nil || st.Aside != 1 {
		t.Errorf("%+v, %v", st, err)
	}
}

// TestClicksEmptied: FLUSHALL costs what was there, and nothing else.
func TestClicksEmptied(t *testing.T) {
	redis := testengine.NewRedis(t)
	ctx := t.Context()
	s := newClicks(t, redis.URL, "p")
	s.mustRead(t, "")
	must(t, s.Add(ctx, []byte("gone")))
	list := s.mustRead(t, "gone/0")
	redis.Do("FLUSHALL")
	must(t, s.Done(ctx, []string{list[0].ID}))
	s.mustHave(t, "", "")
	if st, err := s.State(ctx); err != nil || st != (clickstream.State{}) {
		t.Errorf("%+v, %v", st, err)
	}
	must(t, s.Excuse(ctx, nil))
	redis.Do("FLUSHALL")
	must(t, s.Add(ctx, []byte("first")))
	s.mustRead(t, "") // the group is made
	s.mustRead(t, "first/0")
	if text, err := s.Told(ctx, "spool"); err != nil || text != "" {
		t.Errorf("told %q, %v", text, err)
	}
	// An entry that somebody deletes while it is not done is told of.
	redis.Do("XTRIM", s.stream, "MAXLEN", "0")
	deleted := s.mustHave(t, "", "/1")
	if deleted[0].Entry != nil {
		t.Errorf("%+v", deleted)
	}
}

// TestClicksFull: a full server refuses entries and hands out those it has.
func TestClicksFull(t *testing.T) {
	redis := testengine.NewRedis(t)
	ctx := t.Context()
	s := newClicks(t, redis.URL, "p")
	s.mustRead(t, "")
	must(t, s.Add(ctx, []byte("one")))
	redis.Do("CONFIG", "SET", "maxmemory", "1")
	if err := s.Add(ctx, []byte("two")); err == nil || !strings.Contains(err.Error(), "OOM") {
		t.Errorf("a full server answers %v", err)
	}
	list := s.mustRead(t, "one/0")
	must(t, s.Done(ctx, []string{list[0].ID}))
	redis.Do("CONFIG", "SET", "maxmemory", "0")
	must(t, s.Add(ctx, []byte("two")))
	s.mustRead(t, "two/0")
	redis.Kill()
	began := time.Now()
	if err := s.Add(ctx, []byte("three")); err == nil {
		t.Error("a server that is gone takes an entry")
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("it took %v to learn that", took)
	}
}

// TestJudge reads what servers say of themselves.
func TestJudge(t *testing.T) {
	for name, c := range map[string]struct{ info, problem, advice string }{
		"old":      {"redis_version:6.0.16\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\n", "6.2", ""},
		"evicts":   {"redis_version:7.0.15\r\nmaxmemory:100\r\nmaxmemory_policy:allkeys-lru\r\n", "", "noeviction"},
		"no limit": {"redis_version:7.0.15\r\nmaxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\n", "", ""},
		"good":     {"redis_version:6.2.0\r\nmaxmemory:100\r\nmaxmemory_policy:noeviction\r\n", "", ""},
		"silent":   {"", "", ""},
	} {
		problem, advice := judge(c.info)
		if (c.problem == "") != (problem == "") || !strings.Contains(problem, c.problem) || (c.advice == "") != (advice == "") || !strings.Contains(advice, c.advice) {
			t.Errorf("%s: %q, %q", name, problem, advice)
		}
	}
}

// TestClicksTrimmedLater: what was done with in one second is trimmed although nothing more is ever done with.
func TestClicksTrimmedLater(t *testing.T) {
	s := newClicks(t, testengine.Address(t, testengine.Redis), fmt.Sprintf("later%x", rand.Uint64()))
	ctx := t.Context()
	s.mustRead(t, "")
	must(t, s.Done(ctx, []string{"1-1"})) // there is none such; it trims
	for i := range 3 {
		must(t, s.Add(ctx, fmt.Append(nil, "e", i)))
	}
	for _, m := range s.mustRead(t, "e0/0 e1/0 e2/0") {
		must(t, s.Done(ctx, []string{m.ID}))
	}
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		must(t, s.Done(ctx, nil))
		st, err := s.State(ctx)
		must(t, err)
		if st.Entries == 1 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%+v: the stream is not trimmed", st)
		}
	}
}

// TestClicksSwept: of what was done with behind an entry that is not, nothing stays in the stream: neither when whoever did it is killed before it deletes
// it, nor when it ends in order, nor when the server refused to delete for a time.
func TestClicksSwept(t *testing.T) {
	redis := testengine.NewRedis(t)
	ctx := t.Context()
	s := newClicks(t, redis.URL, "p")
	s.mustRead(t, "")
	must(t, s.Done(ctx, nil))
	const each = sweepAtOnce*sweepPages + 100 // more than is looked at in one go
	add := func(n int) {
		t.Helper()
		for range n {
			must(t, s.Add(ctx, []byte("e")))
		}
	}
	read := func(s *Clicks) (ids []string) {
		t.Helper()
		list, err := s.Read(ctx, 10*each)
		must(t, err)
		for _, m := range list {
			ids = append(ids, m.ID)
		}
		return ids
	}
	entries := func(want int64) {
		t.Helper()
		if st, err := s.State(ctx); err != nil || st.Entries != want {
			t.Fatalf("%+v, %v: there are to be %d entries", st, err, want)
		}
	}
	eventually := func(s *Clicks, want int64) {
		t.Helper()
		for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
			must(t, s.Done(ctx, nil))
			if st, err := s.State(ctx); err == nil && st.Entries == want {
				return
			} else if time.Now().After(end) {
				t.Fatalf("%+v, %v: there are to be %d entries", st, err, want)
			}
		}
	}
	never := func(s *Clicks) { s.trimmed = time.Now().Add(time.Hour) } // it is killed before it deletes anything

	add(each)
	ids := read(s)
	held := append([]string{ids[0]}, ids[sweepAtOnce:sweepAtOnce+10]...)
	never(s)
	must(t, s.Done(ctx, slices.Concat(ids[1:sweepAtOnce], ids[sweepAtOnce+10:])))
	add(5) // nobody has read these
	entries(each + 5)
	eventually(newClicks(t, redis.URL, "p"), int64(len(held))+5)

	next := newClicks(t, redis.URL, "p")
	never(next)
	must(t, next.Done(ctx, read(next)))
	entries(int64(len(held)) + 5)
	must(t, next.Flush(ctx))
	entries(int64(len(held)))

	add(2 * idsAtOnce)
	redis.Do("ACL", "SETUSER", "default", "-xdel")
	next.trimmed = time.Time{}
	if err := next.Done(ctx, read(next)); err == nil || !strings.Contains(err.Error(), "NOPERM") {
		t.Fatalf("no right to delete: %v", err)
	}
	if n := len(next.done); n != 2*idsAtOnce {
		t.Errorf("%d are remembered", n)
	}
	next.remember(make([]string, doneMost))
	if len(next.done) != 0 || next.clean {
		t.Errorf("%d are remembered, beyond what there is room for", len(next.done))
	}
	redis.Do("ACL", "SETUSER", "default", "+xdel")
	eventually(next, int64(len(held)))
	must(t, next.Done(ctx, held))
	eventually(next, 0)
}

// TestClicksAside: what was set aside goes by its age, and more than there is room for is refused.
func TestClicksAside(t *testing.T) {
	redis := testengine.NewRedis(t)
	o := clicksOptions(redis.URL, "p")
	o.KeepAside = time.Hour
	s, err := NewClicks(o)
	must(t, err)
	t.Cleanup(s.Close)
	ctx := t.Context()
	redis.Do("XADD", s.aside, "1-1", "why", "it is of 1970")
	m := clickstream.Message{ID: "1-1", Entry: []byte("e")}
	must(t, s.SetAside(ctx, m, "a test"))
	must(t, s.Done(ctx, nil))
	if st, err := s.State(ctx); err != nil || st.Aside != 1 {
		t.Errorf("%+v, %v: one is too old, one is not", st, err)
	}
	must(t, s.SetAside(ctx, m, "a reply was lost"))
	if st, err := s.State(ctx); err != nil || st.Aside != 1 {
		t.Errorf("%+v, %v: there are to be no two copies of the same", st, err)
	}
	redis.Do("CONFIG", "SET", "maxmemory", "1")
	m.ID = "2-1"
	if err := s.SetAside(ctx, m, "a test"); !errors.Is(err, clickstream.ErrNoRoom) || !strings.Contains(err.Error(), "OOM") {
		t.Errorf("a full server: %v", err)
	}
	redis.Do("CONFIG", "SET", "maxmemory", "0")
	for i := range maxAside - 1 {
		m.ID = fmt.Sprintf("3-%d", i)
		must(t, s.SetAside(ctx, m, "a test"))
	}
	must(t, s.SetAside(ctx, m, "it is there"))
	m.ID = "4-1"
	if err := s.SetAside(ctx, m, "a test"); !errors.Is(err, clickstream.ErrNoRoom) || !strings.Contains(err.Error(), "aside") {
		t.Errorf("no room: %v", err)
	}
}

// Signatures of the golden entry and of goldenMark, made by another program (hmac and hashlib of Python).
const (
	goldenEntryMAC = "0dfd4e723ae5e4aa344ece06e53f04fb2c2fed0895421ddd01aba06e75cae756"
	goldenMark     = "0123456789abcdef ok 001795778516213-25fd1d41f534/00000002/000000000300"
	goldenMarkMAC  = "574b41c243f7684449a7a7bde0389dc3c4a565546e5debf6bb3a704ec04ad85b"
)

// TestClicksSealed: signatures are those of docs/format/clickstream.md.
func TestClicksSealed(t *testing.T) {
	t.Parallel()
	s, err := NewClicks(clicksOptions("redis://127.0.0.1:1", "terse"))
	must(t, err)
	t.Cleanup(s.Close)
	text, err := os.ReadFile("../clickstream/testdata/entry-v1.hex")
	must(t, err)
	var entry []byte
	_, err = fmt.Sscanf(strings.ReplaceAll(string(text), "\n", ""), "%x", &entry)
	must(t, err)
	page, err := os.ReadFile("../../docs/format/clickstream.md")
	must(t, err)
	for _, c := range [][2]string{
		{s.seal.sign(sealedEntry, "", "", string(entry)), goldenEntryMAC},
		{s.seal.sign(sealedMark, "f689fc97c165d97f", "", goldenMark), goldenMarkMAC},
	} {
		if got := fmt.Sprintf("%x", c[0]); got != c[1] || !bytes.Contains(page, []byte(got)) {
			t.Errorf("the signature is %s, want %s, and the page of the format has to have it", got, c[1])
		}
	}
	o := clicksOptions("redis://127.0.0.1:1", "terse")
	o.Secret = o.Secret[:31]
	if _, err := NewClicks(o); terse.ErrorCode(err) != terse.CodeInvalid {
		t.Errorf("a short secret: %v", err)
	}
}

// TestClicksForged: what somebody else writes into the stream and the marks is refused and counted, a mark of another spool too.
func TestClicksForged(t *testing.T) {
	redis := testengine.NewRedis(t)
	ctx := t.Context()
	s := newClicks(t, redis.URL, "p")
	s.mustRead(t, "")
	must(t, s.Add(ctx, []byte("own")))
	redis.Do("XADD", s.stream, "*", "e", "unsigned")
	o := clicksOptions(redis.URL, "p")
	o.Secret[0]++
	stranger, err := NewClicks(o)
	must(t, err)
	t.Cleanup(stranger.Close)
	must(t, stranger.Add(ctx, []byte("forged")))
	list := s.mustRead(t, "own/0 unsigned/0 forged/0")
	if list[0].Unsigned || !list[1].Unsigned || !list[2].Unsigned {
		t.Errorf("%+v", list)
	}
	must(t, s.Tell(ctx, map[string]string{"a": "mark a", "b": "mark b"}))
	told := func(want string) {
		t.Helper()
		if got, err := s.Told(ctx, "a"); err != nil || got != want {
			t.Errorf("told %q, %v; want %q", got, err, want)
		}
	}
	told("mark a")
	must(t, stranger.Tell(ctx, map[string]string{"a": "mark a"}))
	told("")
	c, err := s.connect()
	must(t, err)
	other, err := c.Do(ctx, c.B().Hget().Key(s.marks).Field("b").Build()).ToString()
	must(t, err)
	must(t, c.Do(ctx, c.B().Hset().Key(s.marks).FieldValue().FieldValue("a", other).Build()).Error())
	told("")
	redis.Do("HSET", s.marks, "a", "unsigned")
	told("")
	for what, want := range map[string]float64{sealedEntry: 2, sealedMark: 3} {
		if got := value(t, s.bad.count.WithLabelValues(what)); got != want {
			t.Errorf("%v of %s are refused", got, what)
		}
	}
}
