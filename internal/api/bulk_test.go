package api_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/terselink/terse"
)

const bulkPath = "/api/v1/links/bulk"

func bulk(body, contentType string, more ...string) request {
	h := map[string]string{"Content-Type": contentType}
	for i := 0; i < len(more); i += 2 {
		h[more[i]] = more[i+1]
	}
	return request{method: "POST", path: bulkPath, body: body, header: h}
}

func rows(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `{"destination":"https://example.com/p/%d","external_id":"r-%d"}`+"\n", i, i)
	}
	return b.String()
}

func compressed(t testing.TB, encoding, s string) string {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser = gzip.NewWriter(&b)
	if encoding == "zstd" {
		var err error
		if w, err = zstd.NewWriter(&b); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.WriteString(w, s); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

type bulkResult struct {
	Index      int    `json:"index"`
	ShortURL   string `json:"short_url"`
	ExternalID string `json:"external_id"`
	Error      *struct{ Code, Message string }
	Done       bool
	Created    int
	Failed     int
}

func ndjsonResults(t *testing.T, body []byte) (list []bulkResult, done bulkResult) {
	t.Helper()
	for line := range bytes.Lines(body) {
		var r bulkResult
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		if r.Done {
			return list, r
		}
		list = append(list, r)
	}
	t.Fatalf("no done line in %s", body)
	return nil, bulkResult{}
}

func TestBulkFormats(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	csv := "destination,external_id\nhttps://example.com/1,r-0\nnonsense,r-1\n"
	array := `[{"destination":"https://example.com/1","external_id":"r-0"},{"destination":"nonsense","external_id":"r-1"}]`
	lines := strings.NewReplacer("},{", "}\n{", "[", "", "]", "").Replace(array)
	const nd, cs, js = "application/x-ndjson", "text/csv", "application/json"
	for _, tt := range []struct {
		name, body, in, accept, want string
	}{
		{"ndjson", lines, nd, "", nd},
		{"any", lines, nd, "*/*", nd},
		{"ndjson to csv", lines, nd, cs, cs},
		{"ndjson to json", lines, nd, js, js},
		{"preferred", lines, nd, "text/csv;q=0.5, application/json", js},
		{"csv", csv, cs + "; charset=UTF-8", "", cs},
		{"csv to ndjson", csv, cs, nd, nd},
		{"json", array, js, "", js},
		{"json to ndjson", array, js, nd, nd},
	} {
		more := []string{}
		if tt.accept != "" {
			more = []string{"Accept", tt.accept}
		}
		a := b.want(200, bulk(tt.body, tt.in, more...))
		if got, _, _ := strings.Cut(a.header.Get("Content-Type"), ";"); got != tt.want {
			t.Errorf("%s: Content-Type %q, want %q", tt.name, got, tt.want)
		}
		switch tt.want {
		case nd:
			list, done := ndjsonResults(t, a.body)
			if len(list) != 2 || list[0].ExternalID != "r-0" || list[0].ShortURL == "" || list[1].Error == nil || list[1].Error.Code != "invalid_destination" || done.Created != 1 || done.Failed != 1 {
				t.Errorf("%s: %s", tt.name, a.body)
			}
		case js:
			var list []bulkResult
			if err := json.Unmarshal(a.body, &list); err != nil || len(list) != 2 || list[1].Error == nil {
				t.Errorf("%s: %v %s", tt.name, err, a.body)
			}
		case cs:
			if n := strings.Count(string(a.body), "\n"); n != 3 || !strings.HasPrefix(string(a.body), "index,") {
				t.Errorf("%s: %s", tt.name, a.body)
			}
		}
	}
}

func TestBulkRefused(t *testing.T) {
	t.Parallel()
	b := setup(t, options{maxBulk: 1 << 20})
	const nd = "application/x-ndjson"
	one := rows(1)
	with := func(q request, query string) request { q.path += query; return q }
	for _, tt := range []struct {
		name   string
		q      request
		status int
		code   string
	}{
		{"no type", request{method: "POST", path: bulkPath}, 415, "unsupported_media_type"},
		{"other type", bulk(one, "application/xml"), 415, "unsupported_media_type"},
		{"other charset", bulk(one, "text/csv; charset=latin1"), 415, "unsupported_media_type"},
		{"other answer", bulk(one, nd, "Accept", "text/html"), 406, "not_acceptable"},
		{"other encoding", bulk(one, nd, "Content-Encoding", "br"), 415, "unsupported_media_type"},
		{"not gzip", bulk(one, nd, "Content-Encoding", "gzip"), 422, "bad_compression"},
		{"not zstd", bulk(one, nd, "Content-Encoding", "zstd"), 422, "bad_compression"},
		{"cut gzip", bulk(compressed(t, "gzip", rows(5))[:40], nd, "Content-Encoding", "gzip"), 422, "bad_compression"},
		{"too long", bulk(strings.Repeat("\n", 1<<20+1), nd), 413, "body_too_large"},
		{"too long when decompressed", bulk(compressed(t, "gzip", strings.Repeat("\n", 1<<20+1)), nd, "Content-Encoding", "gzip"), 413, "body_too_large"},
		{"bad key", bulk(one, nd, "Idempotency-Key", "ü"), 422, "invalid"},
		{"unknown domain", with(bulk(one, nd), "?domain=no.example.com"), 422, "unknown_domain"},
		{"unknown campaign", with(bulk(one, nd), "?campaign_id=camp_0000000000001"), 404, "not_found"},
		{"bad flag", with(bulk(one, nd), "?atomic=maybe"), 422, "invalid"},
		{"unknown parameter", with(bulk(one, nd), "?colour=red"), 422, "invalid"},
		{"twice", with(bulk(one, nd), "?atomic=true&atomic=false"), 422, "invalid"},
		{"atomic with a bad row", with(bulk(one+`{"destination":"x"}`, nd), "?atomic=true"), 422, "rows_invalid"},
		{"not an array", bulk(`{"destination":"https://example.com/"}`, "application/json"), 400, ""},
	} {
		a := b.do(tt.q)
		if tt.name == "not an array" {
			if a.status/100 != 4 {
				t.Errorf("%s: %d %s", tt.name, a.status, a.body)
			}
			continue
		}
		if a.status != tt.status || a.header.Get("Content-Type") != "application/problem+json" || a.text(t, "code") != tt.code {
			t.Errorf("%s: %d %s, want %d %s", tt.name, a.status, a.body, tt.status, tt.code)
		}
	}
	if n := len(b.want(200, request{method: "GET", path: "/api/v1/links"}).field(t, "data").([]any)); n != 0 {
		t.Errorf("refused requests made %d links", n)
	}
	a := b.do(with(bulk(one+`{"destination":"x"}`, nd), "?atomic=true"))
	if !strings.Contains(string(a.body), `"location":"body[1].destination"`) {
		t.Errorf("atomic: the row is not named: %s", a.body)
	}
}

// The same body with the same Idempotency-Key creates its links once, whoever cuts the
// connection when; the key belongs to the API key that sent it.
func TestBulkIdempotency(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	q := bulk(rows(100), "application/x-ndjson", "Idempotency-Key", "k")
	first := b.want(200, q)
	if again := b.want(200, q); string(again.body) != string(first.body) {
		t.Errorf("the repetition is answered\n%.300s\nfirst\n%.300s", again.body, first.body)
	}
	other := q
	other.body = strings.Replace(q.body, "/p/0", "/p/x", 1)
	b.wantProblem(422, "idempotency_mismatch", other)
	q.key = b.key("ws_0000000000001", "links:write")
	list, _ := ndjsonResults(t, b.want(200, q).body)
	if mine, _ := ndjsonResults(t, first.body); list[0].ShortURL == mine[0].ShortURL {
		t.Error("another API key got the first one's links")
	}
}

func TestBulkDryRun(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	q := bulk(rows(1)+`{"destination":"x"}`, "application/x-ndjson")
	q.path += "?dry_run=true"
	if a := b.want(200, q); !strings.Contains(string(a.body), `"valid":true`) || !strings.Contains(string(a.body), "invalid_destination") {
		t.Errorf("dry run: %s", a.body)
	}
	if n := len(b.want(200, request{method: "GET", path: "/api/v1/links"}).field(t, "data").([]any)); n != 0 {
		t.Errorf("a dry run made %d links", n)
	}
}

func TestBulkCompressed(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	for _, encoding := range []string{"gzip", "zstd", "GZIP"} {
		a := b.want(200, bulk(compressed(t, strings.ToLower(encoding), rows(3000)), "application/x-ndjson", "Content-Encoding", encoding))
		list, done := ndjsonResults(t, a.body)
		if len(list) != 3000 || done.Created != 3000 {
			t.Errorf("%s: %d results, done %+v", encoding, len(list), done)
		}
	}
}

// A small body that expands without end is refused long before it does harm.
func TestBulkBomb(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	for _, encoding := range []string{"gzip", "zstd"} {
		b.wantProblem(413, "compression_ratio", bulk(compressed(t, encoding, strings.Repeat("\n", 64<<20)), "application/x-ndjson", "Content-Encoding", encoding))
	}
}

// With the store down before the first result the answer is a problem.
func TestBulkUnavailable(t *testing.T) {
	t.Parallel()
	store := &flaky{}
	b := setup(t, options{wrap: func(s terse.Store) terse.Store { store.Store = s; return store }})
	for _, accept := range []string{"application/x-ndjson", "text/csv", "application/json"} {
		store.refuse.Store(true)
		if a := b.wantProblem(503, "unavailable", bulk(rows(1), "application/x-ndjson", "Accept", accept)); a.header.Get("Retry-After") == "" {
			t.Errorf("%s: %v", accept, a.header)
		}
	}
}

// A client that leaves in the middle leaves no goroutine behind (TestMain looks) and no
// half of a row.
func TestBulkClientLeaves(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	pr, pw := io.Pipe()
	r, err := http.NewRequestWithContext(t.Context(), "POST", b.url+bulkPath, pr)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+ownerKey)
	r.Header.Set("Content-Type", "application/x-ndjson")
	go io.WriteString(pw, rows(1)+`{"destination":"https://exam`)
	resp, err := b.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(resp.Body).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	pw.CloseWithError(io.ErrUnexpectedEOF)
	resp.Body.Close()
	if n := len(b.want(200, request{method: "GET", path: "/api/v1/links"}).field(t, "data").([]any)); n != 1 {
		t.Errorf("%d links, want 1", n)
	}
}
