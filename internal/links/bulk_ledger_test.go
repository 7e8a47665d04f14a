package links

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/store/memstore"
)

// mixedBody has rows that are created, reused, refused, and that lose an alias.
func mixedBody(rows int, in Format) string {
	var b strings.Builder
	switch in {
	case CSV:
		b.WriteString("destination,external_id,code,if_exists\n")
	case JSON:
		b.WriteString("[")
	}
	for i := range rows {
		dest, alias, mode := fmt.Sprintf("https://example.com/%d", i), "", ""
		switch i % 10 {
		case 3:
			dest = "javascript:x"
		case 5:
			alias = fmt.Sprintf("alias-%d", i/20) // every second one is taken
		case 7:
			dest, mode = fmt.Sprintf("https://example.com/same/%d", i/30), "reuse"
		}
		if in == CSV {
			fmt.Fprintf(&b, "%s,r-%d,%s,%s\n", dest, i, alias, mode)
			continue
		}
		if in == JSON && i > 0 {
			b.WriteString(",\n")
		}
		fmt.Fprintf(&b, `{"destination":%q,"external_id":"r-%d"`, dest, i)
		if mode != "" {
			fmt.Fprintf(&b, `,"if_exists":%q`, mode)
		}
		if alias != "" {
			fmt.Fprintf(&b, `,"code":%q`, alias)
		}
		b.WriteString("}")
		if in == NDJSON {
			b.WriteString("\n")
		}
	}
	if in == JSON {
		b.WriteString("]\n")
	}
	return b.String()
}

// cutReader fails after some bytes, as a connection that is cut does, and hands out pieces
// of any size. It has a source of its own: a read may be under way when Bulk has returned.
type cutReader struct {
	r    io.Reader
	left int
	rnd  *rand.Rand
}

func (c *cutReader) Read(b []byte) (int, error) {
	if c.left <= 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n, err := c.r.Read(b[:min(len(b), c.left, 1+c.rnd.IntN(1<<16))])
	c.left -= n
	return n, err
}

// TestLedger cuts a repeatable request at many places, also with a store that fails, and
// repeats it: every row is created once, and the answer is the same for ever.
func TestLedger(t *testing.T) {
	t.Parallel()
	for _, in := range []Format{NDJSON, CSV, JSON} {
		t.Run(fmt.Sprint(in), func(t *testing.T) {
			t.Parallel()
			const rows = 25_000
			body := mixedBody(rows, in)
			now := terse.Millis(1_800_000_000_000)
			store := &flakyStore{Store: memstore.New(func() terse.Millis { return now })}
			s := setupOn(t, store, &now)
			rnd := rand.New(rand.NewPCG(uint64(in), 7))
			o := BulkOptions{In: in, Ledger: "key"}
			for try := range 12 {
				store.failAt.Store(int64(1 + rnd.IntN(6)))
				store.calls.Store(0)
				var out bytes.Buffer
				_, err := s.Bulk(t.Context(), actor, o, &cutReader{strings.NewReader(body), rnd.IntN(len(body)), rand.New(rand.NewPCG(rnd.Uint64(), 1))}, &out)
				if err == nil {
					t.Fatalf("try %d: a cut body was taken for whole", try)
				}
				now += 1000
			}
			store.failAt.Store(0)
			var first, second bytes.Buffer
			sum, err := s.Bulk(t.Context(), actor, o, strings.NewReader(body), &first)
			if err != nil {
				t.Fatal(err)
			}
			again, err := s.Bulk(t.Context(), actor, o, strings.NewReader(body), &second)
			if err != nil || again != sum || first.String() != second.String() {
				t.Fatalf("repeated: %+v, %v; first %+v; equal %v", again, err, sum, first.String() == second.String())
			}
			var want uint64
			seen := map[string]bool{}
			for _, r := range ndjsonResults(t, first.String()) {
				if r.Error == nil && !seen[r.ID] {
					seen[r.ID] = true
					want++
				}
			}
			if got := countLinks(t, s); got != want || want < rows/2 {
				t.Fatalf("%d links exist, %d were answered", got, want)
			}
			longer := strings.Replace(body, "r-24999", "r-24998", 1)
			for _, other := range []string{longer, body[:len(body)/2], body + body} {
				if _, err := s.Bulk(t.Context(), actor, o, strings.NewReader(other), io.Discard); err == nil {
					t.Fatal("another body was taken for the same")
				}
			}
			if got := countLinks(t, s); got != want {
				t.Fatalf("another body created %d links", got-want)
			}
		})
	}
}

func countLinks(t *testing.T, s *setupT) uint64 {
	t.Helper()
	var n uint64
	q := terse.ListQuery{Limit: 10_000}
	for {
		p, err := s.store.ListLinks(t.Context(), testWorkspace, q)
		if err != nil {
			t.Fatal(err)
		}
		n += uint64(len(p.Links))
		if p.Next == "" {
			return n
		}
		q.Cursor = p.Next
	}
}

// flakyStore fails one insert of a run, before or after it was applied.
type flakyStore struct {
	terse.Store
	calls, failAt atomic.Int64
}

func (f *flakyStore) InsertLinks(ctx context.Context, c *terse.Chunk) error {
	n, at := f.calls.Add(1), f.failAt.Load()
	if n != at {
		return f.Store.InsertLinks(ctx, c)
	}
	if at%2 == 0 {
		if err := f.Store.InsertLinks(ctx, c); err != nil {
			return err
		}
		return terse.ErrUnknownOutcome
	}
	return terse.ErrUnavailable
}

func TestLedgerMismatchBeforeAnswer(t *testing.T) {
	t.Parallel()
	s := setup(t)
	for _, out := range []Format{NDJSON, CSV, JSON} {
		o := BulkOptions{Out: out, Ledger: fmt.Sprint("k", out)}
		row := `{"destination":"https://example.com/1"}` + "\n"
		s.bulkString(t, o, row)
		var w bytes.Buffer
		for _, other := range []string{strings.ToUpper(row), row + row, ""} {
			_, err := s.Bulk(t.Context(), actor, o, strings.NewReader(other), &w)
			if e, ok := errors.AsType[*terse.Error](err); !ok || e.PublicCode() != "idempotency_mismatch" || w.Len() > 0 {
				t.Fatalf("%q: %v after writing %q", other, err, w.String())
			}
		}
		o.Domain = "go.example.com"
		if _, err := s.Bulk(t.Context(), actor, o, strings.NewReader(row), &w); err == nil {
			t.Fatal("other parameters were taken for the same")
		}
	}
	for _, in := range []BulkOptions{{Ledger: "a", Atomic: true}} {
		row := `{"destination":"https://example.com/1","code":"atomic"}` + "\n"
		first, _ := s.bulkString(t, in, row)
		if second, _ := s.bulkString(t, in, row); first != second {
			t.Fatalf("%q, then %q", first, second)
		}
	}
}

func TestLedgerPrune(t *testing.T) {
	t.Parallel()
	s := setup(t)
	row := `{"destination":"https://example.com/1"}` + "\n"
	first, _ := s.bulkString(t, BulkOptions{Ledger: "old"}, row)
	*s.now += LedgerKeep
	s.bulkString(t, BulkOptions{Ledger: "new"}, row)
	if err := s.PruneLedgers(t.Context(), testWorkspace); err != nil {
		t.Fatal(err)
	}
	if same, _ := s.bulkString(t, BulkOptions{Ledger: "old"}, row); same != first {
		t.Fatal("a ledger was forgotten on its last day")
	}
	*s.now++
	if err := s.PruneLedgers(t.Context(), testWorkspace); err != nil {
		t.Fatal(err)
	}
	docs, err := s.store.ListDocuments(t.Context(), testWorkspace, terse.KindLedger, "", 100)
	if err != nil || len(docs) != 2 || !strings.HasPrefix(docs[0].ID, "new/") {
		t.Fatalf("%d entries are left, %v", len(docs), err)
	}
}

func TestDryRun(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.create(t, NewLink{Destination: "https://example.com/", Code: "taken"})
	body := `{"destination":"https://example.com/","external_id":"a"}
{"destination":"https://example.com/","code":"taken"}
{"destination":"https://example.com/","code":"free"}
{"destination":"https://example.com/","code":"free"}
{"destination":"x"}
`
	out, sum := s.bulkString(t, BulkOptions{DryRun: true, Ledger: "ignored"}, body)
	if sum != (BulkSummary{Created: 2, Failed: 3}) || strings.Count(out, `"valid":true`) != 2 || strings.Contains(out, "short_url") {
		t.Fatalf("%+v\n%s", sum, out)
	}
	if n := countLinks(t, s); n != 1 {
		t.Fatalf("a dry run left %d links", n-1)
	}
}
