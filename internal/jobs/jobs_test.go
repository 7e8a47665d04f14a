package jobs

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"
	"go.uber.org/goleak"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/domains"
	"github.com/terselink/terse/internal/links"
	"github.com/terselink/terse/internal/outbound"
	"github.com/terselink/terse/internal/store/faultstore"
	"github.com/terselink/terse/internal/store/memstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const ws = terse.WorkspaceID(1)

// sender answers callbacks in memory.
type sender struct {
	mu     sync.Mutex
	answer func(n int) (*outbound.Response, error)
	posts  []http.Header
	bodies []string
}

func (s *sender) Check(string) error { return nil }

func (s *sender) Post(_ context.Context, _ string, h http.Header, body []byte) (*outbound.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.posts, s.bodies = append(s.posts, h), append(s.bodies, string(body))
	return s.answer(len(s.posts))
}

// answers says what the receiver answers from now on, and forgets what came before.
func (s *sender) answers(f func(n int) (*outbound.Response, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer, s.posts, s.bodies = f, nil, nil
}

// got returns what came.
func (s *sender) got() ([]http.Header, []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.posts), slices.Clone(s.bodies)
}

// bench is a manager over real links, inside a bubble of synctest.
type bench struct {
	*Manager
	t     *testing.T
	o     Options
	store *faultstore.Store
	links *links.Service
	reg   *domains.Registry
	sent  *sender
}

func clock() terse.Millis { return terse.MillisOf(time.Now()) }

// newBench starts a manager with one worker; wrap may replace what makes links.
func newBench(t *testing.T, wrap func(Linker) Linker) *bench {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	store := faultstore.New(memstore.New(clock))
	reg, err := domains.Open(t.Context(), domains.Options{Store: store, Clock: clock, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := reg.EnsureDefault(t.Context(), "go.example.com", "https"); err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, store: store, reg: reg, sent: &sender{answer: func(int) (*outbound.Response, error) { return &outbound.Response{Status: 204}, nil }}}
	b.links = links.New(links.Options{Store: store, Domains: reg, Clock: clock, Log: log, OnChange: func(links.Change) {}})
	var l Linker = b.links
	if wrap != nil {
		l = wrap(l)
	}
	b.o = Options{
		Store: store, Links: l, Send: b.sent, Dir: t.TempDir(), Clock: clock, Log: log, Workers: 1, MaxUpload: 4 << 20,
		Workspaces: func(_ context.Context, after terse.WorkspaceID, _ int) ([]terse.WorkspaceID, error) {
			if after >= 3 {
				return nil, nil
			}
			return []terse.WorkspaceID{1, 2, 3}, nil
		},
		Body: func(s *Snapshot) ([]byte, error) { return []byte(`{"state":"` + string(s.State) + `"}`), nil },
	}
	t.Cleanup(func() { b.stop(); reg.Close(); store.Close() })
	b.start()
	return b
}

// start opens the data folder, as a new process does.
func (b *bench) start() {
	b.t.Helper()
	m, err := Open(b.t.Context(), b.o)
	if err != nil {
		b.t.Fatal(err)
	}
	b.Manager = m
	m.Start()
}

func (b *bench) stop() {
	b.t.Helper()
	if err := b.Manager.Stop(context.Background()); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) upload(w terse.WorkspaceID, name, body string) string {
	b.t.Helper()
	u, err := b.Uploads.Create(w, NewUpload{Filename: name, Size: int64(len(body))})
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.Uploads.Append(w, u.ID, 0, strings.NewReader(body), func() {}); err != nil {
		b.t.Fatal(err)
	}
	return u.ID
}

func (b *bench) create(w terse.WorkspaceID, name, body string, spec Spec) string {
	b.t.Helper()
	spec.Upload = b.upload(w, name, body)
	j, err := b.Create(b.t.Context(), w, "key1", spec, nil, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	return j.ID
}

// want waits until nothing moves and checks the state.
func (b *bench) want(w terse.WorkspaceID, id string, state State) Snapshot {
	b.t.Helper()
	synctest.Wait()
	j, err := b.Get(w, id)
	if err != nil {
		b.t.Fatal(err)
	}
	if j.State != state {
		b.t.Fatalf("the job is %s with %+v, want %s", j.State, j.Fault, state)
	}
	return j
}

func (b *bench) file(id string, onlyErrors bool) string {
	b.t.Helper()
	f, _, err := b.File(ws, id, onlyErrors)
	if err != nil {
		b.t.Fatal(err)
	}
	defer f.Close()
	out, err := io.ReadAll(f)
	if err != nil {
		b.t.Fatal(err)
	}
	return string(out)
}

// count returns how many links there are.
func (b *bench) count() int {
	b.t.Helper()
	n := 0
	for q := (terse.ListQuery{Limit: 10_000}); ; {
		p, err := b.store.Inner().ListLinks(b.t.Context(), ws, q)
		if err != nil {
			b.t.Fatal(err)
		}
		if n += len(p.Links); p.Next == "" {
			return n
		}
		q.Cursor = p.Next
	}
}

func wantCode(t *testing.T, err error, code string) {
	t.Helper()
	if f := faultOf(err); err == nil || f.Code != code {
		t.Fatalf("error %v, want code %s", err, code)
	}
}

func rows(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "{\"destination\":\"https://example.com/%d\",\"external_id\":\"r%d\"}\n", i, i)
	}
	return b.String()
}

func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		body := rows(300) + `{"destination":"nope"}` + "\n" + `{"destination":"https://example.com/","code":"two-words"}` + "\n" + `{"destination":"https://example.com/","code":"two-words"}` + "\n"
		id := b.create(ws, "a.ndjson", body, Spec{})
		j := b.want(ws, id, Done)
		if j.Counts != (Counts{Rows: 303, Done: 303, Created: 301, Failed: 2}) || j.Report.Conflicts != 1 || j.Report.Valid != 301 || len(j.Report.Invalid) != 1 {
			t.Fatalf("%+v, %+v", j.Counts, j.Report)
		}
		out, bad := b.file(id, false), b.file(id, true)
		if strings.Count(out, "short_url") != 301 || strings.Count(bad, "\n") != 2 ||
			!strings.HasPrefix(bad, `{"terse_error":{"index":300,"line":301,"code":"`) || !strings.Contains(bad, `"},"destination":"nope"}`+"\n") || !strings.Contains(bad, `"alias_taken"`) {
			t.Fatalf("results:\n%s", bad)
		}
		if n := b.count(); n != 301 {
			t.Fatalf("%d links", n)
		}
		for _, act := range []func(context.Context, terse.WorkspaceID, string) (Snapshot, error){b.Pause, b.Resume, b.Cancel} {
			_, err := act(t.Context(), ws, id)
			wantCode(t, err, "wrong_state")
		}
		if _, err := b.Get(2, id); terse.ErrorCode(err) != terse.CodeNotFound {
			t.Fatalf("another workspace sees the job: %v", err)
		}
		// Rolled back, also over a restart, it deletes what it made.
		if _, err := b.Rollback(t.Context(), ws, id); err != nil {
			t.Fatal(err)
		}
		if j := b.want(ws, id, RolledBack); j.Counts.RolledBack != 301 || b.count() != 0 {
			t.Fatalf("%+v, %d links are left", j.Counts, b.count())
		}
		b.stop()
		b.start()
		b.want(ws, id, RolledBack)
		if err := b.Delete(t.Context(), ws, id); err != nil {
			t.Fatal(err)
		}
		if _, _, err := b.File(ws, id, false); terse.ErrorCode(err) != terse.CodeNotFound {
			t.Fatalf("the results of a deleted job: %v", err)
		}
	})
}

func TestCSV(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		body := "\ufeffweb address,\"the \"\"key\"\"\"\n" + "https://example.com/1,\"a,b\"\n" + "nope,\"x\"\"y,\nz\"\n" + "https://example.com/2,c\n"
		spec := Spec{ResultFormat: "csv", Columns: map[string]string{"web address": "destination", `the "key"`: "external_id"}}
		id := b.create(ws, "a.csv", body, spec)
		j := b.want(ws, id, Done)
		if j.Counts.Created != 2 || j.Counts.Failed != 1 || len(j.Report.Invalid) != 1 || j.Report.Invalid["unknown"] != 0 {
			t.Fatalf("%+v, %+v", j.Counts, j.Report)
		}
		if out := b.file(id, false); !strings.HasPrefix(out, "index,short_url,") || strings.Count(out, "\n") != 5 {
			t.Fatalf("results:\n%s", out)
		}
		bad := b.file(id, true)
		if !strings.HasPrefix(bad, "terse_error,web address,\"the \"\"key\"\"\"\n\"row 1, line 3: invalid_destination: ") || !strings.HasSuffix(bad, "\",nope,\"x\"\"y,\nz\"\n") || strings.Count(bad, "\n") != 3 {
			t.Fatalf("bad rows:\n%s", bad)
		}
		spec.Columns = map[string]string{"absent": "destination"}
		j = b.want(ws, b.create(ws, "a.csv", body, spec), Failed)
		if j.Fault == nil || j.Fault.Code != "unknown_column" {
			t.Fatalf("%+v", j.Fault)
		}
	})
}

// TestDryRunDuplicates: the report names the first duplicates, in the order of the rows.
func TestDryRunDuplicates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		j := b.want(ws, b.create(ws, "a.jsonl", rows(300)+rows(300), Spec{DryRun: true}), Done)
		if j.Report.Duplicates != 300 || len(j.Report.DuplicateRows) != maxDuplicateRows {
			t.Fatalf("%+v", j.Report)
		}
		for i, row := range j.Report.DuplicateRows {
			if row != uint64(300+i) {
				t.Fatalf("duplicate %d is row %d: %v", i, row, j.Report.DuplicateRows)
			}
		}
	})
}

func TestDryRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		if _, _, err := b.links.Create(t.Context(), links.Actor{Workspace: ws}, links.NewLink{Destination: "https://example.com/", Code: "in-use"}, links.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		body := rows(50) + strings.Repeat(`{"destination":"https://example.com/","external_id":"r7"}`+"\n", 2) +
			strings.Repeat(`{"destination":"https://example.com/","code":"my-sale"}`+"\n", 3) +
			`{"destination":"https://example.com/","code":"in-use"}` + "\n" + `{"destination":"nope"}` + "\n"
		id := b.create(ws, "a.jsonl", body, Spec{DryRun: true})
		j := b.want(ws, id, Done)
		r := j.Report
		if r.Valid != 53 || r.Duplicates != 2 || r.Conflicts != 3 || len(r.Invalid) != 1 || j.Counts.Rows != 57 {
			t.Fatalf("%+v, %+v", j.Counts, r)
		}
		if fmt.Sprint(r.DuplicateRows) != "[50 51]" {
			t.Fatalf("duplicates %v", r.DuplicateRows)
		}
		if bad := b.file(id, true); strings.Count(bad, "\n") != 4 || strings.Contains(bad, "of the file") {
			t.Fatalf("bad rows:\n%s", bad)
		}
		if n := b.count(); n != 1 {
			t.Fatalf("a dry run made %d links", n-1)
		}
		_, err := b.Rollback(t.Context(), ws, id)
		wantCode(t, err, "wrong_state")

		// The pipeline sees codes that meet in one batch; those that do not are found at the end.
		sale := `{"destination":"https://example.com/","code":"my-sale"}` + "\n"
		id = b.create(ws, "b.jsonl", sale+rows(20_000)+sale, Spec{DryRun: true})
		j = b.want(ws, id, Done)
		if bad := b.file(id, true); j.Report.Valid != 20_001 || j.Report.Conflicts != 1 || !strings.Contains(bad, `"index":20001,"line":20002,`) || !strings.Contains(bad, "row 0 of the file") {
			t.Fatalf("%+v, bad rows:\n%s", j.Report, bad)
		}
	})
}

// gate holds a run back after its first batch until it is let go or cancelled.
type gate struct {
	Linker
	after func(ctx context.Context, n int) error // called with the number of the run
	runs  int
	order []uint64
}

func (g *gate) Bulk(ctx context.Context, a links.Actor, o links.BulkOptions, body io.Reader, w io.Writer) (links.BulkSummary, error) {
	g.runs++
	g.order = append(g.order, uint64(a.Workspace))
	n := g.runs
	sum, err := g.Linker.Bulk(ctx, a, o, body, w)
	if err == nil && g.after != nil {
		err = g.after(ctx, n)
	}
	return sum, err
}

func hold(ctx context.Context, _ int) error { <-ctx.Done(); return ctx.Err() }

func TestPauseResumeCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g *gate
		b := newBench(t, func(l Linker) Linker { g = &gate{Linker: l, after: hold}; return g })
		id := b.create(ws, "a.ndjson", rows(100), Spec{})
		j := b.want(ws, id, Running)
		if j.Counts.Done != 100 {
			t.Fatalf("progress %+v", j.Counts)
		}
		_, _, err := b.File(ws, id, false)
		wantCode(t, err, "no_result")
		_, err = b.Rollback(t.Context(), ws, id)
		wantCode(t, err, "wrong_state")
		wantCode(t, b.Delete(t.Context(), ws, id), "wrong_state")
		wantCode(t, b.DeleteUpload(ws, j.Spec.Upload), "upload_in_use")
		for range 2 { // twice is once
			if _, err := b.Pause(t.Context(), ws, id); err != nil {
				t.Fatal(err)
			}
			if j := b.want(ws, id, Paused); j.Part != 1 || j.Counts.Done != 100 { // all rows were read
				t.Fatalf("paused at %v, %+v", j.Part, j.Counts)
			}
		}
		b.stop()
		b.start()
		if j := b.want(ws, id, Paused); j.Part != 1 || j.Counts.Done != 100 { // a restart leaves it so
			t.Fatalf("after a restart it is paused at %v, %+v", j.Part, j.Counts)
		}
		if _, err := b.Resume(t.Context(), ws, id); err != nil {
			t.Fatal(err)
		}
		b.want(ws, id, Running)
		b.stop() // the end of the process in the middle
		g.after = nil
		b.start()
		if j := b.want(ws, id, Done); j.Counts.Created != 100 || b.count() != 100 || strings.Count(b.file(id, false), "\n") < 100 {
			t.Fatalf("%+v, %d links", j.Counts, b.count())
		}
		g.after = hold
		id = b.create(ws, "b.ndjson", rows(10), Spec{})
		b.want(ws, id, Running)
		if _, err := b.Cancel(t.Context(), ws, id); err != nil {
			t.Fatal(err)
		}
		b.want(ws, id, Cancelled)
		if b.count() != 110 {
			t.Fatalf("%d links after a cancellation", b.count())
		}
		if _, err := b.Rollback(t.Context(), ws, id); err != nil {
			t.Fatal(err)
		}
		b.want(ws, id, RolledBack)
		if b.count() != 100 {
			t.Fatalf("%d links after the rollback", b.count())
		}
		_, _, err = b.File(ws, id, false) // a file that was never finished
		wantCode(t, err, "no_result")
	})
}

// TestRevisionOfProcess: the events of a job do not take what an earlier process said for what it is now.
func TestRevisionOfProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		id := b.create(ws, "a.ndjson", rows(1), Spec{})
		seen := map[string]bool{}
		for range 3 {
			seen[b.want(ws, id, Done).Revision] = true
			b.stop()
			b.start()
		}
		if len(seen) != 3 {
			t.Errorf("three processes show the revisions %v", seen)
		}
	})
}

// TestOutage takes the store away in the middle, and fails single writes on both sides.
func TestOutage(t *testing.T) {
	for _, when := range []faultstore.When{faultstore.Before, faultstore.After} {
		for _, op := range []faultstore.Op{faultstore.InsertLinks, faultstore.PutDocument, faultstore.ListDocuments, faultstore.Lease} {
			for from := 1; from <= 3; from++ {
				if testing.Short() && from > 1 {
					continue
				}
				t.Run(fmt.Sprintf("%s %d %d", op, when, from), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						b := newBench(t, nil)
						spec := Spec{Upload: b.upload(ws, "a.ndjson", rows(200))}
						j, err := b.Create(t.Context(), ws, "key1", spec, nil, nil)
						if err != nil {
							t.Fatal(err)
						}
						b.store.Inject(faultstore.Fault{Op: op, When: when, From: from, Times: 2})
						time.Sleep(2 * time.Minute)
						if j := b.want(ws, j.ID, Done); j.Counts.Created != 200 || b.count() != 200 || j.Fault != nil {
							t.Fatalf("%+v, %d links, %+v", j.Counts, b.count(), j.Fault)
						}
					})
				})
			}
		}
	}
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		up := b.store.Inject(faultstore.Fault{Op: faultstore.InsertLinks, From: 2, Times: faultstore.Forever}) // the first is the job
		job := b.create(ws, "a.ndjson", rows(200), Spec{})
		time.Sleep(5 * time.Minute)
		j := b.want(ws, job, Queued)
		if j.Fault == nil || j.Fault.Code != string(terse.CodeUnavailable) || j.Attempts < 6 || j.NotBefore > clock()+maxWait {
			t.Fatalf("waiting: %+v, %d attempts", j.Fault, j.Attempts)
		}
		up()
		time.Sleep(2 * time.Minute)
		if j := b.want(ws, job, Done); j.Attempts != 0 || b.count() != 200 {
			t.Fatalf("%d attempts, %d links", j.Attempts, b.count())
		}
	})
}

func TestPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(l Linker) Linker {
			return &gate{Linker: l, after: func(_ context.Context, n int) error {
				if n == 1 {
					panic("a bug")
				}
				return nil
			}}
		})
		first := b.create(ws, "a.ndjson", rows(5), Spec{})
		second := b.create(ws, "b.ndjson", rows(5), Spec{})
		if j := b.want(ws, first, Failed); j.Fault.Code != string(terse.CodeInternal) || strings.Contains(j.Fault.Message, "bug") {
			t.Fatalf("%+v", j.Fault)
		}
		b.want(ws, second, Done)
	})
}

// TestFairness: a workspace with many jobs does not keep another one waiting.
func TestFairness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g *gate
		release := make(chan struct{})
		b := newBench(t, func(l Linker) Linker {
			g = &gate{Linker: l, after: func(context.Context, int) error { <-release; return nil }}
			return g
		})
		for i := range 8 {
			w := terse.WorkspaceID(1)
			if i >= 6 {
				w = 2
			}
			b.create(w, "a.ndjson", rows(1), Spec{})
			synctest.Wait()
		}
		close(release)
		synctest.Wait()
		if got := fmt.Sprint(g.order); got != "[1 2 1 2 1 1 1 1]" {
			t.Fatalf("turns %s", got)
		}
	})
}

func TestCallback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		status := func(n int) func(int) (*outbound.Response, error) {
			return func(int) (*outbound.Response, error) { return &outbound.Response{Status: n}, nil }
		}
		b.sent.answers(func(n int) (*outbound.Response, error) {
			switch n {
			case 1:
				return nil, terse.ErrUnavailable
			case 2:
				return &outbound.Response{Status: 500}, nil
			}
			return &outbound.Response{Status: 200}, nil
		})
		add := func() string {
			t.Helper()
			j, err := b.Create(t.Context(), ws, "key1", Spec{Upload: b.upload(ws, "a.ndjson", rows(1))}, &Callback{URL: "https://example.com/hook"}, nil)
			if err != nil {
				t.Fatal(err)
			}
			return j.ID
		}
		id := add()
		time.Sleep(2 * time.Second)
		if j := b.want(ws, id, Done); j.Callback.Delivery != "pending" || j.Callback.Attempts != 1 || j.Callback.LastError == "" {
			t.Fatalf("%+v", j.Callback)
		}
		b.stop() // what is due is on disk
		b.start()
		time.Sleep(time.Minute)
		j := b.want(ws, id, Done)
		posts, bodies := b.sent.got()
		if j.Callback.Delivery != "delivered" || len(posts) != 3 || bodies[2] != `{"state":"done"}` {
			t.Fatalf("%+v, %d posts", j.Callback, len(posts))
		}
		if posts[0].Get("Webhook-Id") != posts[2].Get("Webhook-Id") || posts[0].Get("Webhook-Id") == "" {
			t.Fatal("a repetition has another id")
		}
		b.sent.answers(status(410))
		gone := add()
		time.Sleep(time.Hour)
		if posts, _ := b.sent.got(); b.want(ws, gone, Done).Callback.Delivery != "failed" || len(posts) != 1 {
			t.Fatalf("%d posts after 410", len(posts))
		}
		b.sent.answers(status(503))
		never := add()
		time.Sleep(24 * time.Hour)
		if j := b.want(ws, never, Done); j.Callback.Delivery != "failed" || j.Callback.Attempts != len(callbackWaits)+1 {
			t.Fatalf("%+v", j.Callback)
		}
	})
}

func TestTidy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		unused := b.upload(ws, "unused.csv", "x")
		id := b.create(ws, "a.ndjson", rows(1), Spec{})
		used := b.want(ws, id, Done).Spec.Upload
		has := func(upload string, want bool) {
			t.Helper()
			synctest.Wait()
			if _, err := b.Uploads.Get(ws, upload); (err == nil) != want {
				t.Fatalf("%s at %v: %v", upload, time.Now(), err)
			}
		}
		time.Sleep(23 * time.Hour)
		has(unused, true)
		time.Sleep(3 * time.Hour)
		has(unused, false)
		has(used, true)
		time.Sleep(6 * 24 * time.Hour)
		has(used, false)
		_, err := b.Rollback(t.Context(), ws, id)
		wantCode(t, err, "ledger_expired")
		b.want(ws, id, Done)
		time.Sleep(24 * 24 * time.Hour)
		if _, err := b.Get(ws, id); terse.ErrorCode(err) != terse.CodeNotFound {
			t.Fatalf("an old job: %v", err)
		}
	})
}

func TestCreateRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		whole := b.upload(ws, "a.txt", rows(1))
		part, err := b.Uploads.Create(ws, NewUpload{Filename: "a.csv", Size: 10})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			spec Spec
			code string
		}{
			{Spec{}, "invalid"},
			{Spec{Upload: whole}, "invalid"}, // of which form?
			{Spec{Upload: whole, Format: "xml"}, "invalid"},
			{Spec{Upload: whole, Format: "csv", ResultFormat: "json"}, "invalid"},
			{Spec{Upload: whole, Format: "json", Columns: map[string]string{"a": "b"}}, "invalid"},
			{Spec{Upload: whole, Format: "csv", Columns: map[string]string{"": "b"}}, "invalid"},
			{Spec{Upload: part.ID}, "upload_incomplete"},
			{Spec{Upload: "upl_x"}, "not_found"},
		} {
			_, err := b.Create(t.Context(), ws, "key1", c.spec, nil, nil)
			wantCode(t, err, c.code)
		}
		if _, err := b.Create(t.Context(), 2, "key1", Spec{Upload: whole, Format: "csv"}, nil, nil); terse.ErrorCode(err) != terse.CodeNotFound {
			t.Fatalf("the upload of another workspace: %v", err)
		}
		if _, err := b.Uploads.Append(ws, whole, int64(len(rows(1))), strings.NewReader(""), func() {}); err != nil {
			t.Errorf("a refused job has sealed its upload: %v", err)
		}
	})
}

func TestListAndIDs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		var ids []string
		for range 5 {
			ids = append(ids, b.create(ws, "a.ndjson", rows(1), Spec{}))
			time.Sleep(time.Millisecond)
		}
		first := b.Own(ws, "", 2)
		rest := b.Own(ws, first[1].ID, 10)
		if first[0].ID != ids[4] || len(rest) != 3 || rest[2].ID != ids[0] || len(b.Own(2, "", 10)) != 0 {
			t.Fatalf("listed %v, then %v of %v", first, rest, ids)
		}
		b.want(ws, ids[4], Done)
	})
}

func TestRepeats(t *testing.T) {
	r, err := newRepeats(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	for i := range uint64(10_000) {
		if err := r.add([]byte(fmt.Sprint(i%9_000)), i); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	err = r.each(func(row, first uint64) error {
		n++
		if row != first+9_000 {
			t.Fatalf("row %d repeats %d", row, first)
		}
		return nil
	})
	if err != nil || n != 1_000 {
		t.Fatalf("%d repeats, %v", n, err)
	}
}

func TestJobDocument(t *testing.T) {
	in := Job{ID: "job_1", Workspace: 1, Spec: Spec{Upload: "upl_1", Columns: map[string]string{"a": "b"}}, State: Done, Report: &Report{Invalid: map[string]uint64{"x": 1}}}
	data, err := json.Marshal(&in, json.Deterministic(true))
	if err != nil {
		t.Fatal(err)
	}
	var out Job
	if err := json.Unmarshal(data, &out); err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(&out, json.Deterministic(true))
	if err != nil || !bytes.Equal(data, again) {
		t.Fatalf("%s\n%s\n%v", data, again, err)
	}
}

// TestEndIsTheEnd: who sees that a job is done may at once read its results, roll it back and delete it.
func TestEndIsTheEnd(t *testing.T) {
	b := newBench(t, nil)
	until := func(id string, s State) {
		t.Helper()
		for {
			j, err := b.Get(ws, id)
			if err != nil {
				t.Fatal(err)
			}
			if j.State == s {
				return
			}
			runtime.Gosched()
		}
	}
	for range 300 {
		id := b.create(ws, "a.ndjson", rows(1), Spec{})
		until(id, Done)
		f, _, err := b.File(ws, id, false)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		if _, err := b.Rollback(t.Context(), ws, id); err != nil {
			t.Fatal(err)
		}
		until(id, RolledBack)
		if err := b.Delete(t.Context(), ws, id); err != nil {
			t.Fatal(err)
		}
	}
}
