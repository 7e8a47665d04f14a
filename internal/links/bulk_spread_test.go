package links

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/domains"
	"github.com/terselink/terse/internal/store/memstore"
)

// spreadTo hands chunks to a function.
type spreadTo func(ctx context.Context, chunk []byte) ([]byte, error)

func (spreadTo) Window() int                          { return 8 }
func (spreadTo) Now() int                             { return 8 }
func (spreadTo) Room(ctx context.Context, _ int) bool { return ctx.Err() == nil }
func (f spreadTo) Do(ctx context.Context, chunk []byte) ([]byte, string, error) {
	outcome, err := f(ctx, chunk)
	return outcome, "other", err
}

// nodeOn is one more process on a store.
func nodeOn(t *testing.T, store terse.Store, now *terse.Millis, set ...func(*Options)) *Service {
	t.Helper()
	clock, log := func() terse.Millis { return *now }, slog.New(slog.DiscardHandler)
	reg, err := domains.Open(t.Context(), domains.Options{Store: store, Clock: clock, Log: log, Shared: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(reg.Close)
	o := Options{Store: store, Domains: reg, Clock: clock, Log: log, OnChange: func(Change) {}}
	for _, f := range set {
		f(&o)
	}
	return New(o)
}

// waitingStore holds inserts of links until somebody lets them through.
type waitingStore struct {
	terse.Store
	through <-chan struct{}
}

func (s waitingStore) InsertLinks(ctx context.Context, c *terse.Chunk) error {
	if len(c.Links) > 0 {
		<-s.through
	}
	return s.Store.InsertLinks(ctx, c)
}

// manyRows has more batches than one process runs at a time: rows of all kinds, whose outcome is the same in every run.
func manyRows(in Format) (body string, rows int) {
	var b strings.Builder
	size := (runtime.NumCPU() + 9) * batchBytes
	if in == CSV {
		b.WriteString("destination,external_id,code,domain\n")
	}
	if in == JSON {
		b.WriteString("[")
	}
	for ; b.Len() < size; rows++ {
		dest, alias, host := fmt.Sprintf("https://example.com/%d/%s", rows, strings.Repeat("x", 2000)), "", ""
		switch rows % 20 {
		case 3:
			dest = "javascript:" + dest
		case 5:
			alias = fmt.Sprintf("alias-%d", rows)
		case 7:
			alias = "taken"
		case 9:
			host = "second.example.com"
		}
		switch rows {
		case 311, 1311:
			dest = strings.Repeat(dest, 140) // is too long
		case 777:
			host = "unknown.example.com"
		}
		id := fmt.Sprintf("r-%d", rows)
		if in == CSV {
			fmt.Fprintf(&b, "\"%s\",\"%s\n\",%s,%s\n", dest, id, alias, host) // a row over two lines
			continue
		}
		if in == JSON && rows > 0 {
			b.WriteString(",\n")
		}
		fmt.Fprintf(&b, `{"destination":%q,"external_id":%q`, dest, id)
		for _, member := range [][2]string{{"code", alias}, {"domain", host}} {
			if member[1] != "" {
				fmt.Fprintf(&b, `,%q:%q`, member[0], member[1])
			}
		}
		b.WriteString("}")
		if in == NDJSON {
			b.WriteString("\n")
		}
	}
	if in == JSON {
		b.WriteString("]")
	}
	return b.String(), rows
}

// told is what a caller learns of a row, but for a code that was drawn.
type told struct {
	Index, Line           uint64
	ID, Err, Host, Alias  string
	Existing, Long, Empty bool
}

// tell runs a body and returns what was told of its rows.
func tell(t *testing.T, s *Service, o BulkOptions, body string) (list []told, sum BulkSummary) {
	t.Helper()
	o.Out, o.MaxBytes = NoOutput, 1<<40
	o.Each = func(r *RowResult) error {
		v := told{Index: r.Index, Line: r.Line, ID: strings.Clone(r.ExternalID), Existing: r.Existing, Long: r.TooLong(), Empty: len(r.Row) == 0}
		if r.Err != nil {
			v.Err = strings.Clone(r.Err.Error())
		} else if v.Host = r.Host(); strings.HasPrefix(r.Code(), "alias-") {
			v.Alias = strings.Clone(r.Code())
		}
		list = append(list, v)
		return nil
	}
	sum, err := s.Bulk(t.Context(), actor, o, strings.NewReader(body), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return list, sum
}

// spreadSetup is a store with a process that has the request, whose own inserts wait until another process has run a chunk.
type spreadSetup struct {
	*setupT
	now     terse.Millis
	inner   terse.Store
	helped  func()
	waiting chan struct{}
}

func newSpreadSetup(t *testing.T) *spreadSetup {
	t.Helper()
	s := &spreadSetup{now: 1_800_000_000_000, waiting: make(chan struct{})}
	s.inner = memstore.New(func() terse.Millis { return s.now })
	s.helped = sync.OnceFunc(func() { close(s.waiting) })
	t.Cleanup(s.helped)
	s.setupT = setupOn(t, waitingStore{s.inner, s.waiting}, &s.now)
	if _, err := s.domains.Create(t.Context(), testWorkspace, domains.New{Host: "second.example.com"}, nil); err != nil {
		t.Fatal(err)
	}
	node := nodeOn(t, s.inner, &s.now)
	if _, _, err := node.Create(t.Context(), actor, NewLink{Destination: "https://example.com/", Code: "taken"}, CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestSpread: what is told of a request is the same when other processes run a part of it.
func TestSpread(t *testing.T) {
	t.Parallel()
	for _, in := range []Format{NDJSON, CSV, JSON} {
		for _, dry := range []bool{false, true} {
			t.Run(fmt.Sprint(in, dry), func(t *testing.T) {
				t.Parallel()
				body, rows := manyRows(in)
				alone := newSpreadSetup(t)
				alone.helped()
				want, wantSum := tell(t, alone.Service, BulkOptions{In: in, Ledger: "l", DryRun: dry}, body)
				s := newSpreadSetup(t)
				other := nodeOn(t, s.inner, &s.now)
				var done atomic.Int64
				got, sum := tell(t, s.Service, BulkOptions{In: in, Ledger: "l", DryRun: dry, Spread: spreadTo(func(ctx context.Context, chunk []byte) ([]byte, error) {
					outcome := other.RunChunk(ctx, chunk)
					if outcome[0] == outcomeDone {
						done.Add(1)
						s.helped()
					}
					return outcome, nil
				})}, body)
				if sum != wantSum || len(got) != rows || !reflect.DeepEqual(got, want) {
					for i := range min(len(got), len(want)) {
						if got[i] != want[i] {
							t.Fatalf("row %d: %+v, want %+v", i, got[i], want[i])
						}
					}
					t.Fatalf("%+v of %d rows, want %+v of %d", sum, len(got), wantSum, rows)
				}
				if !dry && done.Load() == 0 {
					t.Error("no chunk was run by the other process")
				}
				if n, want := countLinks(t, s.setupT), countLinks(t, alone.setupT); n != want {
					t.Errorf("%d links, want %d", n, want)
				}
			})
		}
	}
}

// TestSpreadDeclined: rows that reuse links take locks of one process, so they stay there.
func TestSpreadDeclined(t *testing.T) {
	t.Parallel()
	s := newSpreadSetup(t)
	s.helped()
	other := nodeOn(t, s.inner, &s.now)
	var b strings.Builder
	for b.Len() < (s.inFlight()+6)*batchBytes {
		fmt.Fprintf(&b, "{\"destination\":\"https://example.com/%s\",\"if_exists\":\"reuse\"}\n", strings.Repeat("x", 2000))
	}
	_, sum := tell(t, s.Service, BulkOptions{Ledger: "l", Spread: spreadTo(func(ctx context.Context, chunk []byte) ([]byte, error) {
		outcome := other.RunChunk(ctx, chunk)
		if outcome[0] != outcomeDeclined {
			t.Errorf("outcome %q", outcome)
		}
		return outcome, nil
	})}, b.String())
	if sum.Created != 1 || sum.Failed != 0 {
		t.Errorf("%+v, want one link", sum)
	}
}

// TestSpreadTrouble: chunks are lost, run and their outcome lost, run late, and run twice at once. Every row has one link, and a
// repetition is told the same.
func TestSpreadTrouble(t *testing.T) {
	t.Parallel()
	body, rows := manyRows(NDJSON)
	s := newSpreadSetup(t)
	s.helped()
	nodes := []*Service{nodeOn(t, s.inner, &s.now), nodeOn(t, s.inner, &s.now)}
	var n atomic.Int64
	var late sync.WaitGroup
	trouble := spreadTo(func(ctx context.Context, chunk []byte) ([]byte, error) {
		copied := bytes.Clone(chunk)
		ctx = context.WithoutCancel(ctx)
		switch n.Add(1) % 5 {
		case 0:
			return nil, errors.New("lost")
		case 1:
			nodes[0].RunChunk(ctx, chunk)
			return nil, errors.New("the outcome is lost")
		case 2:
			late.Go(func() { nodes[0].RunChunk(ctx, copied) })
			return nil, errors.New("too late")
		case 3:
			late.Go(func() { nodes[1].RunChunk(ctx, copied) })
		}
		return nodes[0].RunChunk(ctx, chunk), nil
	})
	first, sum := tell(t, s.Service, BulkOptions{Ledger: "l", Spread: trouble}, body)
	late.Wait()
	if len(first) != rows || countLinks(t, s.setupT) != sum.Created+1 {
		t.Fatalf("%d rows of %d; %+v, and there are %d links", len(first), rows, sum, countLinks(t, s.setupT))
	}
	second, again := tell(t, s.Service, BulkOptions{Ledger: "l", Spread: trouble}, body)
	if again != sum || !reflect.DeepEqual(first, second) || countLinks(t, s.setupT) != sum.Created+1 {
		t.Fatalf("repeated: %+v, first %+v", again, sum)
	}
}

// pausedStore is that of a process which stands still at a place until it is let on.
type pausedStore struct {
	terse.Store
	put     bool // before it notes that it begins; else before it inserts
	reached func()
	on      <-chan struct{}
}

func (s pausedStore) PutDocument(ctx context.Context, doc terse.Document) error {
	if s.put && doc.Kind == terse.KindLedger {
		s.reached()
		<-s.on
	}
	return s.Store.PutDocument(ctx, doc)
}

func (s pausedStore) InsertLinks(ctx context.Context, c *terse.Chunk) error {
	if !s.put && len(c.Links) > 0 {
		s.reached()
		<-s.on
	}
	return s.Store.InsertLinks(ctx, c)
}

// TestSpreadPaused: a process stands still with a chunk while the request is cut, and wakes up when another run, which cuts the
// rows at other places, or a rollback has ended. Nothing is done twice, and what was rolled back stays away.
func TestSpreadPaused(t *testing.T) {
	t.Parallel()
	for _, put := range []bool{true, false} {
		for _, rollback := range []bool{false, true} {
			t.Run(fmt.Sprintf("before it begins %v, rollback %v", put, rollback), func(t *testing.T) {
				t.Parallel()
				body, rows := manyRows(NDJSON)
				s := newSpreadSetup(t)
				on := make(chan struct{})
				letOn := sync.OnceFunc(func() { close(on) })
				t.Cleanup(letOn)
				reached := make(chan struct{})
				other := nodeOn(t, pausedStore{s.inner, put, sync.OnceFunc(func() { close(reached) }), on}, &s.now)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				var late sync.WaitGroup
				_, err := s.Bulk(ctx, actor, BulkOptions{Ledger: "l", MaxBytes: 1 << 40, Out: NoOutput, Spread: spreadTo(func(ctx context.Context, chunk []byte) ([]byte, error) {
					copied := bytes.Clone(chunk)
					late.Go(func() { other.RunChunk(context.WithoutCancel(ctx), copied) })
					<-reached
					s.helped()
					cancel()
					return nil, ctx.Err()
				})}, strings.NewReader(body), io.Discard)
				if err == nil {
					t.Fatal("the request was not cut")
				}
				nothing := spreadTo(func(context.Context, []byte) ([]byte, error) { runtime.Gosched(); return nil, errors.New("lost") })
				if rollback {
					if _, err := s.Rollback(t.Context(), actor, "l", nil); err != nil {
						t.Fatal(err)
					}
					letOn()
					late.Wait()
					if n := countLinks(t, s.setupT); n != 1 {
						t.Errorf("%d links came after the rollback", n-1)
					}
					return
				}
				pieces := &cutReader{strings.NewReader(body), len(body) + 1, rand.New(rand.NewPCG(1, 2))}
				sum, err := s.Bulk(t.Context(), actor, BulkOptions{Ledger: "l", MaxBytes: 1 << 40, Out: NoOutput, Spread: nothing}, pieces, io.Discard)
				if err != nil {
					t.Fatal(err)
				}
				letOn()
				late.Wait()
				if n := countLinks(t, s.setupT); sum.Created+sum.Failed != uint64(rows) || n != sum.Created+1 {
					t.Errorf("%+v of %d rows, and there are %d links", sum, rows, n)
				}
			})
		}
	}
}

// TestChunkCut: what is no chunk, or only a part of one, is declined.
func TestChunkCut(t *testing.T) {
	t.Parallel()
	s := newSpreadSetup(t)
	s.helped()
	other := nodeOn(t, s.inner, &s.now)
	var chunk []byte
	p := &pipeline{s: s.Service, a: actor, runID: "run", o: BulkOptions{DryRun: true}}
	b := &batch{buf: []byte(`{"destination":"https://example.com/1"}` + "\n" + `{"destination":"x"}`), spans: [][2]int32{{0, 39}, {40, 59}}}
	chunk = p.appendChunk(chunk, b)
	whole := other.RunChunk(t.Context(), chunk)
	if whole[0] != outcomeDone {
		t.Fatalf("outcome %q", whole)
	}
	for n := range chunk {
		if got := other.RunChunk(t.Context(), chunk[:n]); got[0] != outcomeDeclined {
			t.Errorf("%d bytes of a chunk: %q", n, got)
		}
	}
	p.def = s.domains.Default()
	for n := range whole {
		b := &batch{buf: b.buf, spans: b.spans}
		if err := b.takeOutcome(p, whole[:n]); err == nil {
			t.Errorf("%d bytes of an outcome were taken for whole", n)
		}
	}
}
