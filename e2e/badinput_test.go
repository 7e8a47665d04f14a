package e2e

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse/client"
	"github.com/terselink/terse/e2e/proc"
)

const jsonType, ndjsonType, csvType = "application/json", "application/x-ndjson", "text/csv"

// TestBadInput sends wrong requests of many kinds to the control plane. Each gets its status and
// a problem+json that names the place; none of them changes anything.
func TestBadInput(t *testing.T) {
	s := start(t, proc.Options{Env: append([]string{"TERSE_BULK_MAX_BYTES=32MiB"}, quick...)})
	a := newAPI(t, s)
	c := newClient(t, s)
	if _, err := c.CreateLink(t.Context(), client.NewLink{Destination: "https://example.com/", Code: "taken"}); err != nil {
		t.Fatal(err)
	}
	before := inventory(t, a)
	own := "http://" + s.Host
	type header []string
	link := func(fields string) string { return `{"destination":"https://example.com/x",` + fields + `}` }
	dest := func(d string) string { return `{"destination":` + string(mustJSON(nil, d)) + `}` }
	tests := []struct {
		name, method, path string
		body               string
		header             header
		status             int
		code               string // of the problem; "" is any
		at                 string // location of an error; "" is any
	}{
		// Destinations.
		{name: "no destination", body: `{}`, status: 422, code: "invalid_destination", at: "body.destination"},
		{name: "empty destination", body: dest(""), status: 422, code: "invalid_destination", at: "body.destination"},
		{name: "destination of another type", body: `{"destination":5}`, status: 422, at: "body.destination"},
		{name: "null destination", body: `{"destination":null}`, status: 422, at: "body.destination"},
		{name: "javascript", body: dest("javascript:alert(1)"), status: 422, code: "invalid_destination", at: "body.destination"},
		{name: "javascript in disguise", body: dest("\tjAvA\nscript:alert(1)"), status: 422, code: "invalid_destination"},
		{name: "data", body: dest("data:text/html,<script>alert(1)</script>"), status: 422, code: "invalid_destination"},
		{name: "vbscript", body: dest("vbscript:msgbox"), status: 422, code: "invalid_destination"},
		{name: "file", body: dest("file:///etc/passwd"), status: 422, code: "invalid_destination"},
		{name: "intent", body: dest("intent://scan/#Intent;end"), status: 422, code: "invalid_destination"},
		{name: "no scheme", body: dest("example.com/x"), status: 422, code: "invalid_destination"},
		{name: "no host", body: dest("https:///x"), status: 422, code: "invalid_destination"},
		{name: "scheme only", body: dest("https://"), status: 422, code: "invalid_destination"},
		{name: "credentials", body: dest("https://user:secret@example.com/"), status: 422, code: "invalid_destination"},
		{name: "backslash authority", body: dest(`https://example.com\@evil.example/`), status: 422, code: "invalid_destination"},
		{name: "line break", body: dest("https://example.com/\r\nSet-Cookie: a=b"), status: 422, code: "invalid_destination"},
		{name: "NUL", body: dest("https://example.com/\x00"), status: 422, code: "invalid_destination"},
		{name: "space in the host", body: dest("https://exa mple.com/"), status: 422, code: "invalid_destination"},
		{name: "port out of range", body: dest("https://example.com:99999/"), status: 422, code: "invalid_destination"},
		{name: "9 KiB", body: dest("https://example.com/" + strings.Repeat("a", 9<<10)), status: 422, code: "invalid_destination"},
		{name: "own domain", body: dest(own + "/taken"), status: 422, code: "invalid_destination"},
		{name: "own domain in capitals", body: dest("http://LOCALHOST." + strings.TrimPrefix(own, "http://localhost") + "/taken"), status: 422, code: "invalid_destination"},
		{name: "own address", body: dest("http://" + s.RedirectAddr + "/taken"), status: 422, code: "invalid_destination"},
		{name: "bad expired destination", body: link(`"expired_destination":"javascript:1"`), status: 422, at: "body.expired_destination"},

		// Other fields.
		{name: "unknown field", body: link(`"shoe_size":43`), status: 422, at: "body.shoe_size"},
		{name: "field in capitals", body: `{"Destination":"https://example.com/"}`, status: 422},
		{name: "field twice", body: link(`"destination":"https://example.com/y"`), status: 422, at: "body.destination"},
		{name: "unknown domain", body: link(`"domain":"nobody.example.com"`), status: 422, at: "body.domain"},
		{name: "alias taken", body: link(`"code":"taken"`), status: 409, code: "alias_taken"},
		{name: "alias with a slash", body: link(`"code":"a/b"`), status: 422, at: "body.code"},
		{name: "alias with a space", body: link(`"code":"a b"`), status: 422, at: "body.code"},
		{name: "alias with a line break", body: link(`"code":"a\r\nb"`), status: 422, at: "body.code"},
		{name: "alias of the system", body: link(`"code":"robots.txt"`), status: 422, at: "body.code"},
		{name: "alias that climbs", body: link(`"code":".."`), status: 422, at: "body.code"},
		{name: "alias of 4 KiB", body: link(`"code":"` + strings.Repeat("a", 4<<10) + `"`), status: 422, at: "body.code"},
		{name: "time of another form", body: link(`"expires_at":"tomorrow"`), status: 422, at: "body.expires_at"},
		{name: "status 200", body: link(`"redirect_status":200`), status: 422, at: "body.redirect_status"},
		{name: "status of another type", body: link(`"redirect_status":"302"`), status: 422, at: "body.redirect_status"},
		{name: "huge number", body: link(`"redirect_status":1e400`), status: 400, at: "body.redirect_status"},
		{name: "negative clicks", body: link(`"max_clicks":-1`), status: 422, at: "body.max_clicks"},
		{name: "if_exists of another word", body: link(`"if_exists":"replace"`), status: 422, at: "body.if_exists"},
		{name: "tags of another type", body: link(`"tags":"sms"`), status: 422, at: "body.tags"},
		{name: "title of 1 MB", body: link(`"title":"` + strings.Repeat("t", 900<<10) + `"`), status: 422, at: "body.title"},

		// Bodies.
		{name: "no body", body: "", status: 400},
		{name: "not JSON", body: "destination=https://example.com/", status: 400},
		{name: "cut JSON", body: `{"destination":"https://exam`, status: 400},
		{name: "array", body: `[` + dest("https://example.com/") + `]`, status: 422},
		{name: "two values", body: dest("https://example.com/") + dest("https://example.com/"), status: 400},
		{name: "not UTF-8", body: `{"destination":"https://example.com/","title":"` + "\xff\xfe" + `"}`, status: 400},
		{name: "lone surrogate", body: link(`"title":"\ud800"`), status: 400},
		{name: "100,000 deep", body: `{"destination":"https://example.com/","metadata":` + strings.Repeat(`{"a":`, 100_000) + "1" + strings.Repeat("}", 100_001), status: 422},
		{name: "2 MB", body: link(`"title":"` + strings.Repeat("t", 2<<20) + `"`), status: 413},
		{name: "form", body: "destination=x", header: header{"Content-Type", "application/x-www-form-urlencoded"}, status: 415},

		// Requests.
		{name: "no key", body: dest("https://example.com/"), header: header{"Authorization", ""}, status: 401, code: "unauthorized"},
		{name: "wrong key", body: dest("https://example.com/"), header: header{"Authorization", "Bearer terse_00000000_0000000000000000000000000000000000000"}, status: 401, code: "invalid_key"},
		{name: "another scheme", body: dest("https://example.com/"), header: header{"Authorization", "Basic YTpi"}, status: 401, code: "unauthorized"},
		{name: "unknown workspace", body: dest("https://example.com/"), header: header{"Terse-Workspace", "ws_0000000000zzz"}, status: 404},
		{name: "no such path", path: "/api/v1/lynks", body: "{}", status: 404},
		{name: "no such method", method: "PUT", path: "/api/v1/links", body: "{}", status: 405},
		{name: "no such link", method: "GET", path: "/api/v1/links/link_00000000000zz", status: 404, code: "not_found"},
		{name: "id of another form", method: "GET", path: "/api/v1/links/17", status: 404},
		{name: "patch of no link", method: "PATCH", path: "/api/v1/links/link_00000000000zz", body: dest("https://example.com/"), status: 404},
		{name: "deletion of no link", method: "DELETE", path: "/api/v1/links/link_00000000000zz", status: 404},
		{name: "limit of another type", method: "GET", path: "/api/v1/links?limit=many", status: 422, at: "query.limit"},
		{name: "negative limit", method: "GET", path: "/api/v1/links?limit=-1", status: 422, at: "query.limit"},
		{name: "forged cursor", method: "GET", path: "/api/v1/links?cursor=AAAA", status: 422},
		{name: "unknown zone", method: "GET", path: "/api/v1/analytics/summary?tz=Mars/Olympus", status: 422},
		{name: "unknown dimension", method: "GET", path: "/api/v1/analytics/breakdown?by=shoe_size", status: 422},
		{name: "domain with a path", path: "/api/v1/domains", body: `{"host":"go.example.com/x"}`, status: 422, at: "body.host"},
		{name: "domain with a bad alphabet", path: "/api/v1/domains", body: `{"host":"go.example.com","alphabet":"base7"}`, status: 422, at: "body.alphabet"},
		{name: "unknown scope", path: "/api/v1/keys", body: `{"name":"k","scopes":["everything"]}`, status: 422, code: "invalid_scope"},

		// Bulk, refused as a whole.
		{name: "bulk of another type", path: "/api/v1/links/bulk", body: "x", header: header{"Content-Type", "text/html"}, status: 415},
		{name: "bulk in latin-1", path: "/api/v1/links/bulk", body: "x", header: header{"Content-Type", ndjsonType + "; charset=latin1"}, status: 415},
		{name: "bulk with an unknown parameter", path: "/api/v1/links/bulk?atomik=true", body: dest("https://example.com/"), header: header{"Content-Type", ndjsonType}, status: 422},
		{name: "bulk on an unknown domain", path: "/api/v1/links/bulk?domain=nobody.example.com", body: dest("https://example.com/"), header: header{"Content-Type", ndjsonType}, status: 422},
		{name: "bulk with an unknown encoding", path: "/api/v1/links/bulk", body: "x", header: header{"Content-Type", ndjsonType, "Content-Encoding", "br"}, status: 415},
		{name: "bulk that is not gzip", path: "/api/v1/links/bulk", body: "plain", header: header{"Content-Type", ndjsonType, "Content-Encoding", "gzip"}, status: 422},
		{name: "bulk of cut gzip", path: "/api/v1/links/bulk?atomic=true", body: packed(t, strings.Repeat(dest("https://example.com/")+"\n", 100))[:60], header: header{"Content-Type", ndjsonType, "Content-Encoding", "gzip"}, status: 422},
		{name: "gzip bomb", path: "/api/v1/links/bulk?atomic=true", body: packed(t, strings.Repeat(" ", 30<<20)), header: header{"Content-Type", ndjsonType, "Content-Encoding", "gzip"}, status: 413},
		{name: "bulk over the limit", path: "/api/v1/links/bulk", body: strings.Repeat("x", 33<<20), header: header{"Content-Type", ndjsonType}, status: 413},
		{name: "CSV without a destination", path: "/api/v1/links/bulk", body: "external_id\nr1\n", header: header{"Content-Type", csvType}, status: 422},
		{name: "CSV with an unknown column", path: "/api/v1/links/bulk", body: "destination,shoe_size\nhttps://example.com/,43\n", header: header{"Content-Type", csvType}, status: 422},
		{name: "CSV with a column twice", path: "/api/v1/links/bulk", body: "destination,destination\na,b\n", header: header{"Content-Type", csvType}, status: 422},
		{name: "JSON bulk that is no array", path: "/api/v1/links/bulk", body: dest("https://example.com/"), header: header{"Content-Type", jsonType}, status: 422},
		{name: "atomic with one bad row", path: "/api/v1/links/bulk?atomic=true", body: dest("https://example.com/") + "\n" + dest("javascript:1"), header: header{"Content-Type", ndjsonType}, status: 422, at: "body[1].destination"},
		{name: "atomic with a taken alias", path: "/api/v1/links/bulk?atomic=true", body: dest("https://example.com/") + "\n" + link(`"code":"taken"`), header: header{"Content-Type", ndjsonType}, status: 422},
		{name: "atomic with an alias twice", path: "/api/v1/links/bulk?atomic=true", body: link(`"code":"twice"`) + "\n" + link(`"code":"twice"`), header: header{"Content-Type", ndjsonType}, status: 422},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			method, path := tt.method, tt.path
			if path == "" {
				path = "/api/v1/links"
			}
			var body io.Reader
			if method == "" || tt.body != "" {
				body = strings.NewReader(tt.body)
			}
			if method == "" {
				method = "POST"
			}
			got, err := a.do(t.Context(), method, path, body, tt.header...)
			if err != nil {
				t.Fatal(err)
			}
			if got.status != tt.status {
				t.Errorf("status %d, want %d: %.300s", got.status, tt.status, got.body)
			}
			checkProblem(t, got, tt.code, tt.at)
		})
	}
	if after := inventory(t, a); after != before {
		t.Errorf("something changed: before\n%.2000s\nafter\n%.2000s", before, after)
	}
}

func checkProblem(t *testing.T, got *answer, code, at string) {
	t.Helper()
	if ct := got.header.Get("Content-Type"); ct != "application/problem+json" {
		t.Errorf("content type %q: %.300s", ct, got.body)
		return
	}
	var p problem
	if err := json.Unmarshal(got.body, &p); err != nil {
		t.Errorf("%v: %.300s", err, got.body)
		return
	}
	if p.Type == "" || p.Title == "" || p.Detail == "" || p.Code == "" || p.RequestID == "" || p.Status != got.status {
		t.Errorf("the problem lacks something: %.500s", got.body)
	}
	if code != "" && p.Code != code {
		t.Errorf("code %q, want %q", p.Code, code)
	}
	if at == "" {
		return
	}
	for _, e := range p.Errors {
		if e.Location == at && e.Message != "" {
			return
		}
	}
	t.Errorf("no error is at %s: %.500s", at, got.body)
}

// clickTotals are absent while the analytics process starts: they say nothing about what is stored.
var clickTotals = regexp.MustCompile(`,"(clicks|last_clicked_at)":[^,}]*`)

// inventory is everything that a workspace has, as text.
func inventory(t *testing.T, a *api) string {
	t.Helper()
	var b strings.Builder
	for _, path := range []string{"/api/v1/links?limit=100", "/api/v1/domains", "/api/v1/keys", "/api/v1/workspaces"} {
		got, err := a.do(t.Context(), "GET", path, nil)
		if err != nil || got.status != 200 {
			t.Fatalf("%s: %v, %+v", path, err, got)
		}
		b.Write(clickTotals.ReplaceAll(got.body, nil))
	}
	return b.String()
}

func packed(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestBadRows sends bulk bodies of which some rows are bad: each is a result of its own, in its place,
// and the good ones are made.
func TestBadRows(t *testing.T) {
	s := start(t, proc.Options{Env: quick})
	a := newAPI(t, s)
	rows := []struct{ row, code string }{
		{`{"destination":"https://example.com/0"}`, ""},
		{`{"destination":"javascript:1"}`, "invalid_destination"},
		{`{"destination":"https://example.com/2","shoe_size":43}`, "invalid_field"},
		{`{"destination":"https://example.com/3"`, "invalid_json"},
		{`not JSON`, "invalid_json"},
		{`{"destination":"https://example.com/5","title":"` + "\xff" + `"}`, "invalid_json"},
		{`[]`, "invalid_json"},
		{`{"destination":"https://example.com/7","metadata":` + strings.Repeat(`{"a":`, 200) + `1` + strings.Repeat("}", 201), ""},
		{`{"destination":"https://example.com/8","title":"` + strings.Repeat("t", 300<<10) + `"}`, ""},
		{`{"destination":"https://example.com/9","external_id":"last"}`, ""},
	}
	var body strings.Builder
	for _, r := range rows {
		body.WriteString(r.row + "\n")
	}
	got, err := a.do(t.Context(), "POST", "/api/v1/links/bulk", strings.NewReader(body.String()), "Content-Type", ndjsonType)
	if err != nil || got.status != 200 {
		t.Fatalf("%v, %+v", err, got)
	}
	lines := strings.Split(strings.TrimSpace(string(got.body)), "\n")
	if len(lines) != len(rows)+1 || lines[len(rows)] != `{"done":true,"created":2,"reused":0,"failed":8}` {
		t.Fatalf("the answer is\n%s", got.body)
	}
	for i, r := range rows {
		var res struct {
			Index    int    `json:"index"`
			ShortURL string `json:"short_url"`
			Error    *struct {
				Code    string `json:"code"`
				Message string `json:"message"`
			} `json:"error"`
		}
		if err := json.Unmarshal([]byte(lines[i]), &res); err != nil || res.Index != i {
			t.Fatalf("result %d: %v, %s", i, err, lines[i])
		}
		good := i == 0 || i == len(rows)-1
		if good != (res.Error == nil) || good != (res.ShortURL != "") {
			t.Errorf("row %d: %s", i, lines[i])
		}
		if res.Error != nil && (res.Error.Code == "" || r.code != "" && res.Error.Code != r.code || res.Error.Message == "" || len(res.Error.Message) > 500) {
			t.Errorf("row %d: code %q, message %q", i, res.Error.Code, res.Error.Message)
		}
	}
}

// TestCutBodies breaks the connection at many places of a bulk request. What was answered is
// there, the server lives, and nothing leaks.
func TestCutBodies(t *testing.T) {
	s := start(t, proc.Options{Env: quick})
	var body strings.Builder
	for i := range 20 {
		fmt.Fprintf(&body, `{"destination":"https://example.com/%d","external_id":"r-%d"}`+"\n", i, i)
	}
	whole := fmt.Sprintf("POST /api/v1/links/bulk HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s",
		proc.Key, ndjsonType, body.Len(), body.String())
	v := newVisitor(s)
	defer v.close()
	for cut := 1; cut < len(whole); cut += 1 + len(whole)/150 {
		conn, err := net.Dial("tcp", s.ControlAddr)
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, whole[:cut]); err != nil {
			t.Fatal(err)
		}
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			_ = conn.Close() // no answer: nothing was acknowledged
			continue
		}
		answer, readErr := io.ReadAll(resp.Body)
		_ = conn.Close() // all is read
		if strings.Contains(string(answer), `"done":true`) {
			t.Fatalf("cut at %d of %d, and the answer says that it is whole: %v, %s", cut, len(whole), readErr, answer)
		}
		for line := range strings.SplitSeq(string(answer), "\n") {
			var res struct {
				Index    int    `json:"index"`
				ShortURL string `json:"short_url"`
			}
			if json.Unmarshal([]byte(line), &res) != nil || res.ShortURL == "" {
				continue
			}
			want := fmt.Sprintf("https://example.com/%d", res.Index)
			if status, location, err := v.look("HEAD", pathOf(res.ShortURL)); err != nil || status != 302 || location != want {
				t.Errorf("cut at %d: row %d answers %d to %q: %v", cut, res.Index, status, location, err)
			}
		}
	}
	if out, errs, code := terse(t, s, "shorten", "https://example.com/after"); code != 0 {
		t.Errorf("after the cuts: exit %d, %s%s", code, out, errs)
	}
}

// TestBadVisits sends what no browser sends to the redirect plane. Each gets one answer with one header
// block, or the end of the connection, and the server lives.
func TestBadVisits(t *testing.T) {
	s := start(t, proc.Options{Env: quick})
	l, err := newClient(t, s).CreateLink(t.Context(), client.NewLink{Destination: "https://example.com/", Code: "here"})
	if err != nil {
		t.Fatal(err)
	}
	host := "Host: " + s.Host + "\r\n"
	for _, tt := range []struct {
		name, request string
		status        []int // 0 is no answer
	}{
		{"as it should be", "GET /here HTTP/1.1\r\n" + host + "\r\n", []int{302}},
		{"unknown code", "GET /nowhere HTTP/1.1\r\n" + host + "\r\n", []int{404}},
		{"unknown host", "GET /here HTTP/1.1\r\nHost: nobody.example.com\r\n\r\n", []int{404}},
		{"no host", "GET /here HTTP/1.1\r\n\r\n", []int{400, 404}},
		{"two hosts", "GET /here HTTP/1.1\r\n" + host + "Host: evil.example\r\n\r\n", []int{400}},
		{"line break in the path", "GET /here%0d%0aSet-Cookie:a=b HTTP/1.1\r\n" + host + "\r\n", []int{404}},
		{"climbing", "GET /../../etc/passwd HTTP/1.1\r\n" + host + "\r\n", []int{400, 404}},
		{"NUL", "GET /here%00 HTTP/1.1\r\n" + host + "\r\n", []int{404}},
		{"code of 4 KiB", "GET /" + strings.Repeat("a", 4<<10) + " HTTP/1.1\r\n" + host + "\r\n", []int{404, 414}},
		{"URL of 64 KiB", "GET /" + strings.Repeat("a", 64<<10) + " HTTP/1.1\r\n" + host + "\r\n", []int{414, 431, 0}},
		{"10,000 headers", "GET /here HTTP/1.1\r\n" + host + strings.Repeat("A: b\r\n", 10_000) + "\r\n", []int{431, 0}},
		{"200 headers", "GET /here HTTP/1.1\r\n" + host + strings.Repeat("A: b\r\n", 200) + "\r\n", []int{431}},
		{"bare line feeds", "GET /here HTTP/1.1\nHost: " + s.Host + "\n\n", []int{400}},
		{"folded header", "GET /here HTTP/1.1\r\n" + host + "A: b\r\n c\r\n\r\n", []int{400}},
		{"length and chunks", "POST /here HTTP/1.1\r\n" + host + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", []int{400}},
		{"two lengths", "POST /here HTTP/1.1\r\n" + host + "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", []int{400}},
		{"TRACE", "TRACE /here HTTP/1.1\r\n" + host + "\r\n", []int{405}},
		{"CONNECT", "CONNECT example.com:443 HTTP/1.1\r\n" + host + "\r\n", []int{400, 405}},
		{"POST", "POST /here HTTP/1.1\r\n" + host + "Content-Length: 0\r\n\r\n", []int{405}},
		{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", []int{400, 405, 505}},
		{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", []int{400, 0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", s.RedirectAddr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(conn, tt.request)           // the server may close before it has read all
			_ = conn.(*net.TCPConn).CloseWrite()              // the same
			raw, _ := io.ReadAll(io.LimitReader(conn, 1<<20)) // and may reset
			status := 0
			if resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(raw)), nil); err == nil {
				status = resp.StatusCode
				if resp.Header.Get("Set-Cookie") != "" || resp.Header.Get("Server") != "" {
					t.Errorf("headers %v", resp.Header)
				}
			}
			if n := bytes.Count(raw, []byte("HTTP/1.")); n > 1 {
				t.Errorf("%d answers to one request:\n%s", n, raw)
			}
			for _, want := range tt.status {
				if status == want {
					return
				}
			}
			t.Errorf("status %d, want one of %v: %.300q", status, tt.status, raw)
		})
	}
	v := newVisitor(s)
	defer v.close()
	if status, location, err := v.look("GET", pathOf(l.ShortURL)); err != nil || status != 302 || location != "https://example.com/" {
		t.Errorf("after that the link answers %d to %q: %v", status, location, err)
	}
}
