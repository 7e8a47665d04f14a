package api_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/terselink/terse"
)

func once(q request, key string) request {
	h := maps.Clone(q.header)
	if h == nil {
		h = map[string]string{}
	}
	h["Idempotency-Key"] = key
	q.header = h
	return q
}

// sameAnswer checks that b is the replay of a.
func sameAnswer(t *testing.T, name string, a, b answer) {
	t.Helper()
	if a.status != b.status || string(a.body) != string(b.body) {
		t.Errorf("%s: first %d %s\nthen %d %s", name, a.status, a.body, b.status, b.body)
	}
	for _, h := range []string{"Content-Type", "Etag", "Location"} {
		if a.header.Get(h) != b.header.Get(h) {
			t.Errorf("%s: %s was %q and is %q", name, h, a.header.Get(h), b.header.Get(h))
		}
	}
	if a.header.Get("Idempotent-Replayed") != "" || b.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("%s: Idempotent-Replayed is %q, then %q", name, a.header.Get("Idempotent-Replayed"), b.header.Get("Idempotent-Replayed"))
	}
}

func TestIdempotency(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	mine := makeThings(b, "mine")
	posts := []struct {
		name string
		q    request
	}{
		{"link", request{method: "POST", path: "/api/v1/links", key: mine.key, body: `{"destination":"https://example.com/"}`}},
		{"alias", request{method: "POST", path: "/api/v1/links", key: mine.key, body: `{"destination":"https://example.com/","code":"sale"}`}},
		{"new reuse", request{method: "POST", path: "/api/v1/links", key: mine.key, body: `{"destination":"https://example.com/r","if_exists":"reuse"}`}},
		{"old reuse", request{method: "POST", path: "/api/v1/links", key: mine.key, body: `{"destination":"https://example.com/r","if_exists":"reuse" }`}},
		{"key", request{method: "POST", path: "/api/v1/keys", key: mine.key, body: `{"name":"k","scopes":["*"]}`}},
		{"domain", request{method: "POST", path: "/api/v1/domains", key: mine.key, body: `{"host":"i.example.com"}`}},
		{"campaign", request{method: "POST", path: "/api/v1/campaigns", key: mine.key, body: `{"name":"c","destination":"https://example.com/{a}"}`}},
		{"share", request{method: "POST", path: "/api/v1/shares", key: mine.key, body: `{"name":"s"}`}},
		{"export", request{method: "POST", path: "/api/v1/exports", key: mine.key, body: `{"format":"csv"}`}},
		{"schedule", request{method: "POST", path: "/api/v1/exports/schedules", key: mine.key, body: `{"every":"daily","format":"csv","prefix":"mine"}`}},
		{"upload", request{method: "POST", path: "/api/v1/uploads", key: mine.key, body: `{"filename":"a.csv"}`}},
		{"job", request{method: "POST", path: "/api/v1/jobs", key: mine.key, body: `{"kind":"bulk","source":{"upload_id":"` + b.uploaded(mine.key) + `"}}`}},
		{"workspace", request{method: "POST", path: "/api/v1/workspaces", body: `{"name":"w"}`}},
		{"delete", request{method: "POST", path: "/api/v1/links/delete", key: mine.key, body: `{"ids":["` + mine.link + `"]}`}},
	}
	wantStatus := map[string]int{"old reuse": 200, "delete": 200}
	for i, p := range posts {
		q := once(p.q, fmt.Sprint("key-", i))
		first := b.do(q)
		status, ok := wantStatus[p.name]
		if !ok {
			status = 201
		}
		if first.status != status {
			t.Fatalf("%s: %d %s, want %d", p.name, first.status, first.body, status)
		}
		sameAnswer(t, p.name, first, b.do(q))
		b.now.Add(int64(13 * time.Hour / time.Millisecond)) // usually another day
		sameAnswer(t, p.name+" after 13 hours", first, b.do(q))

		other := q
		other.body = strings.Replace(q.body, "{", "{ ", 1)
		b.wantProblem(422, "idempotency_mismatch", other)
		other = once(request{method: "POST", path: "/api/v1/links/delete", key: p.q.key, body: q.body}, fmt.Sprint("key-", i))
		if p.name != "delete" {
			b.wantProblem(422, "idempotency_mismatch", other)
		}
	}
}

// The same Idempotency-Key of another API key or in another workspace is another one.
func TestIdempotencyIsPrivate(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	mine, theirs := makeThings(b, "mine"), makeThings(b, "theirs")
	q := once(request{method: "POST", path: "/api/v1/links", body: `{"destination":"https://example.com/"}`}, "k")
	ids := map[string]bool{}
	for _, key := range []string{"", mine.key, theirs.key, b.key(mine.workspace, "links:write")} {
		q.key = key
		ids[b.want(201, q).text(t, "id")] = true
	}
	q.key, q.header["Terse-Workspace"] = "", mine.workspace
	ids[b.want(201, q).text(t, "id")] = true
	if len(ids) != 5 {
		t.Errorf("5 callers got %d links", len(ids))
	}
}

// The stored answer of a key creation does not show the key.
func TestIdempotencySeals(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	q := once(request{method: "POST", path: "/api/v1/keys", body: `{"name":"k","scopes":["*"]}`}, "k")
	a := b.want(201, q)
	docs, err := b.store.ListDocuments(t.Context(), 1, terse.KindIdempotency, "", 10)
	if err != nil || len(docs) != 1 {
		t.Fatalf("%d records, %v", len(docs), err)
	}
	if strings.Contains(string(docs[0].Data), "terse_") || strings.Contains(string(docs[0].Data), a.text(t, "key")[15:]) {
		t.Errorf("the record shows the key: %s", docs[0].Data)
	}
	// A record that was moved or changed is not believed.
	docs[0].Data = []byte(strings.Replace(string(docs[0].Data), `"body":"`, `"body":"AAAA`, 1))
	docs[0].Version++
	if err := b.store.PutDocument(t.Context(), docs[0]); err != nil {
		t.Fatal(err)
	}
	if a := b.do(q); a.status != 500 {
		t.Errorf("with a damaged record: %d %s", a.status, a.body)
	}
}

// What a request asked for cannot be guessed from its record; records of before, where it could, still answer.
func TestIdempotencyHashes(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	q := once(request{method: "POST", path: "/api/v1/links", body: `{"destination":"https://example.com/","password":"s3cret"}`}, "k")
	first := b.want(201, q)
	docs, err := b.store.ListDocuments(t.Context(), 1, terse.KindIdempotency, "", 10)
	if err != nil || len(docs) != 1 {
		t.Fatalf("%d records, %v", len(docs), err)
	}
	plain := fmt.Sprintf("%x", sha256.Sum256([]byte("POST /api/v1/links\n"+q.body)))
	if strings.Contains(string(docs[0].Data), plain) {
		t.Errorf("the record has the plain hash of the request: %s", docs[0].Data)
	}
	sameAnswer(t, "keyed hash", first, b.do(q))
	docs[0].Data = regexp.MustCompile(`"request":"[^"]*"`).ReplaceAll(docs[0].Data, []byte(`"request":"`+plain+`"`))
	docs[0].Version++
	if err := b.store.PutDocument(t.Context(), docs[0]); err != nil {
		t.Fatal(err)
	}
	sameAnswer(t, "plain hash", first, b.do(q))
	q.body = strings.Replace(q.body, "s3cret", "S3cret", 1)
	b.wantProblem(422, "idempotency_mismatch", q)
}

// Errors are not kept: they did nothing, so the repetition may succeed.
func TestIdempotencyOfErrors(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	l := b.want(201, request{method: "POST", path: "/api/v1/links", body: `{"destination":"https://example.com/","code":"sale"}`})
	q := once(request{method: "POST", path: "/api/v1/links", body: `{"destination":"https://example.com/2","code":"sale"}`}, "k")
	b.want(409, q)
	b.want(409, q)
	b.want(204, request{method: "DELETE", path: "/api/v1/links/" + l.text(t, "id")})
	sameAnswer(t, "after the alias is free", b.want(201, q), b.want(201, q))
	for _, bad := range []string{strings.Repeat("k", 256), "ü", "a\tb"} {
		if a := b.do(once(q, bad)); a.status != 422 || !strings.Contains(string(a.body), "header.Idempotency-Key") {
			t.Errorf("key %q: %d %s", bad, a.status, a.body)
		}
	}
}

func TestIdempotencyExpires(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	q := once(request{method: "POST", path: "/api/v1/links", body: `{"destination":"https://example.com/"}`}, "k")
	first := b.want(201, q)
	b.now.Add(int64(24*time.Hour/time.Millisecond) - 1)
	sameAnswer(t, "just before 24 hours", first, b.do(q))
	count := func() int {
		docs, err := b.store.ListDocuments(t.Context(), 1, terse.KindIdempotency, "", 100)
		if err != nil {
			t.Fatal(err)
		}
		return len(docs)
	}
	if err := b.server.Prune(t.Context()); err != nil || count() != 1 {
		t.Errorf("prune before the end: %v, %d records, want 1", err, count())
	}
	b.now.Add(1)
	if second := b.want(201, q); string(second.body) == string(first.body) {
		t.Error("after 24 hours the answer is still replayed")
	}
	b.now.Add(int64(24 * time.Hour / time.Millisecond))
	if err := b.server.Prune(t.Context()); err != nil || count() != 1 {
		t.Errorf("prune on the third day: %v, %d records, want 1", err, count())
	}
	b.now.Add(int64(48 * time.Hour / time.Millisecond))
	if err := b.server.Prune(t.Context()); err != nil || count() != 0 {
		t.Errorf("prune at the end: %v, %d records, want 0", err, count())
	}
}

// Of many equal requests at once one is executed and all get its answer.
func TestIdempotencyConcurrent(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	q := once(request{method: "POST", path: "/api/v1/links", body: `{"destination":"https://example.com/"}`}, "k")
	answers := make([]answer, 32)
	var wg sync.WaitGroup
	for i := range answers {
		wg.Go(func() { answers[i] = b.do(q) })
	}
	wg.Wait()
	executed := 0
	for _, a := range answers {
		if a.status != http.StatusCreated || string(a.body) != string(answers[0].body) {
			t.Errorf("answers differ: %d %s and %d %s", answers[0].status, answers[0].body, a.status, a.body)
		}
		if a.header.Get("Idempotent-Replayed") == "" {
			executed++
		}
	}
	if executed != 1 {
		t.Errorf("%d requests were executed, want 1", executed)
	}
}

// flaky does what FAILURES calls both truths: a write fails and was, or was not, applied.
type flaky struct {
	terse.Store
	inserts atomic.Int64
	refuse  atomic.Bool // the next insert is not applied
	lose    atomic.Bool // the next insert is applied, and nobody hears of it: the store is gone
	gone    atomic.Bool
}

func (s *flaky) InsertLinks(ctx context.Context, c *terse.Chunk) error {
	if s.gone.Load() || s.refuse.Swap(false) {
		return terse.ErrUnavailable
	}
	s.inserts.Add(1)
	err := s.Store.InsertLinks(ctx, c)
	if err == nil && s.lose.Swap(false) {
		s.gone.Store(true)
		return terse.ErrUnknownOutcome
	}
	return err
}

func (s *flaky) GetLinks(ctx context.Context, keys []terse.LinkKey, dst []terse.Link) error {
	if s.gone.Load() {
		return terse.ErrUnavailable
	}
	return s.Store.GetLinks(ctx, keys, dst)
}

func (s *flaky) GetDocument(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, id string) (terse.Document, error) {
	if s.gone.Load() {
		return terse.Document{}, terse.ErrUnavailable
	}
	return s.Store.GetDocument(ctx, w, kind, id)
}

// A retry after any failure, and after a crash, makes the link once: the record is
// written with it.
func TestIdempotencyAfterFailure(t *testing.T) {
	t.Parallel()
	store := &flaky{}
	b := setup(t, options{wrap: func(s terse.Store) terse.Store { store.Store = s; return store }})
	for name, q := range map[string]request{
		"link": {method: "POST", path: "/api/v1/links", body: `{"destination":"https://example.com/"}`},
		"key":  {method: "POST", path: "/api/v1/keys", body: `{"name":"k","scopes":["*"]}`},

		"workspace": {method: "POST", path: "/api/v1/workspaces", body: `{"name":"w"}`},
		"domain":    {method: "POST", path: "/api/v1/domains", body: `{"host":"i.example.com"}`},
		"campaign":  {method: "POST", path: "/api/v1/campaigns", body: `{"name":"c","destination":"https://example.com/{a}"}`},
		"share":     {method: "POST", path: "/api/v1/shares", body: `{"name":"s","password":"s3cret"}`},
		"export":    {method: "POST", path: "/api/v1/exports", body: `{"format":"csv"}`},
		"schedule":  {method: "POST", path: "/api/v1/exports/schedules", body: `{"every":"daily","format":"csv"}`},
		"job":       {method: "POST", path: "/api/v1/jobs", body: `{"kind":"bulk","source":{"upload_id":"` + b.uploaded("") + `"}}`},
	} {
		q = once(q, name)
		store.refuse.Store(true)
		if a := b.wantProblem(503, "unavailable", q); a.header.Get("Retry-After") == "" {
			t.Errorf("%s, not applied: %v", name, a.header)
		}
		store.lose.Store(true)
		a := b.want(503, q)
		if name == "key" && a.text(t, "code") != "unknown_outcome" || a.header.Get("Retry-After") == "" {
			t.Errorf("%s, outcome lost: %v %s", name, a.header, a.body)
		}
		store.gone.Store(false)
		before := store.inserts.Load()
		first := b.want(201, q)
		if first.header.Get("Idempotent-Replayed") != "true" || store.inserts.Load() != before {
			t.Errorf("%s: the retry after a lost outcome wrote again", name)
		}
		if again := b.want(201, q); string(again.body) != string(first.body) {
			t.Errorf("%s: answers differ", name)
		}
	}
	if n := len(b.want(200, request{method: "GET", path: "/api/v1/campaigns"}).field(t, "data").([]any)); n != 1 {
		t.Errorf("%d campaigns, want 1", n)
	}
	for what, kind := range map[string]terse.Kind{"jobs": terse.KindJob, "shares": terse.KindShare, "exports": terse.KindExport, "schedules": terse.KindExportSchedule} {
		if docs, err := store.ListDocuments(t.Context(), 1, kind, "", 10); err != nil || len(docs) != 1 {
			t.Errorf("%d %s, want 1: %v", len(docs), what, err)
		}
	}
	if n := len(b.want(200, request{method: "GET", path: "/api/v1/links"}).field(t, "data").([]any)); n != 1 {
		t.Errorf("%d links, want 1", n)
	}
}

// uploaded makes an upload of one row and returns its id.
func (b *bench) uploaded(key string) string {
	b.t.Helper()
	id := b.want(201, request{method: "POST", path: "/api/v1/uploads", key: key, body: `{"filename":"a.ndjson"}`}).text(b.t, "id")
	b.want(200, request{method: "PATCH", path: "/api/v1/uploads/" + id, key: key, body: `{"destination":"https://example.com/"}` + "\n",
		header: map[string]string{"Upload-Offset": "0", "Content-Type": "application/octet-stream"}})
	return id
}
