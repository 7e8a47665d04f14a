package api_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/api"
)

func TestOpenAPI(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	a := b.want(200, request{method: "GET", path: "/api/v1/openapi.json", key: "-"})
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, a.body, "", "  "); err != nil {
		t.Fatal(err)
	}
	golden(t, "openapi.json", append(pretty.Bytes(), '\n'))
	if v := a.text(t, "openapi"); !strings.HasPrefix(v, "3.1.") {
		t.Errorf("OpenAPI version %s", v)
	}
	// Every reference leads somewhere, and ids of operations are unique.
	var doc struct {
		Components struct {
			Schemas map[string]any `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal(a.body, &doc); err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`"#/components/schemas/([^"]+)"`).FindAllSubmatch(a.body, -1) {
		if _, ok := doc.Components.Schemas[string(m[1])]; !ok {
			t.Errorf("no schema %s", m[1])
		}
	}
	seen := map[string]bool{}
	for _, op := range operations(t, b) {
		if op.OperationID == "" || seen[op.OperationID] {
			t.Errorf("%s %s: operation id %q is missing or not unique", op.method, op.path, op.OperationID)
		}
		seen[op.OperationID] = true
	}
}

// The page of the reference names every operation and loads nothing from anywhere.
func TestDocs(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	a := b.want(200, request{method: "GET", path: "/api/v1/docs", key: "-"})
	page := string(a.body)
	for _, op := range operations(t, b) {
		if !strings.Contains(page, `id="`+op.OperationID+`"`) {
			t.Errorf("the page lacks %s", op.OperationID)
		}
	}
	if strings.Contains(page, "<script") || strings.Contains(page, "src=") || strings.Contains(page, "://unpkg") {
		t.Error("the page has a script or loads something")
	}
	_, rest, _ := strings.Cut(page, "<style>")
	style, _, ok := strings.Cut(rest, "</style>")
	if !ok || !strings.Contains(a.header.Get("Content-Security-Policy"), "style-src 'sha256-"+sha256Base64(style)+"'") {
		t.Errorf("the policy %q does not allow the page's own style", a.header.Get("Content-Security-Policy"))
	}
}

func TestBodyLimit(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	body := func(n int) string {
		const frame = `{"destination":"https://example.com/"}`
		return frame + strings.Repeat(" ", n-len(frame))
	}
	b.want(201, request{method: "POST", path: "/api/v1/links", body: body(1 << 20)})
	b.wantProblem(413, "too_large", request{method: "POST", path: "/api/v1/links", body: body(1<<20 + 1)})
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	for _, q := range []request{
		{method: "GET", path: "/api/v1/links"}, {method: "GET", path: "/nothing"}, {method: "GET", path: "/healthz"}, {method: "GET", path: "/api/v1/docs"},
		{method: "GET", path: "/api/v1/links", key: "-"},
	} {
		h := b.do(q).header
		for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store", "X-Request-Id": "test"} {
			if h.Get(name) != want {
				t.Errorf("%s: %s is %q, want %q", q.path, name, h.Get(name), want)
			}
		}
		if !strings.Contains(h.Get("Content-Security-Policy"), "default-src 'none'") || h.Get("Server") != "" {
			t.Errorf("%s: %v", q.path, h)
		}
	}
}

func TestRequestID(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	for given, keep := range map[string]bool{"abc-1.2_3": true, strings.Repeat("a", 64): true, strings.Repeat("a", 65): false, "a b": false, `a"b`: false, "ü": false, "": false} {
		a := b.do(request{method: "GET", path: "/nothing", header: map[string]string{"X-Request-Id": given}})
		got := a.header.Get("X-Request-Id")
		if (got == given) != keep || got == "" || a.text(t, "request_id") != got {
			t.Errorf("X-Request-Id %q became %q, in the body %s", given, got, a.body)
		}
	}
}

func TestReady(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	for _, tt := range []struct {
		checks []api.Check
		status int
		body   string
	}{
		{nil, 200, "ok\n"},
		{[]api.Check{{Name: "store", State: api.OK}, {Name: "analytics", State: api.Degraded, Detail: "rebuilding\n10 %"}}, 200, "store: ok\nanalytics: degraded (rebuilding 10 %)\n"},
		{[]api.Check{{Name: "store", State: api.Down, Detail: "closed"}, {Name: "spool", State: api.OK}}, 503, "store: down (closed)\nspool: ok\n"},
	} {
		b.checks.Store(&tt.checks)
		if a := b.do(request{method: "GET", path: "/readyz", key: "-"}); a.status != tt.status || string(a.body) != tt.body {
			t.Errorf("%v: %d %q, want %d %q", tt.checks, a.status, a.body, tt.status, tt.body)
		}
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	b.want(201, request{method: "POST", path: "/api/v1/links", body: `{"destination":"https://example.com/"}`})
	b.want(422, request{method: "POST", path: "/api/v1/links", body: `{}`})
	b.want(404, request{method: "GET", path: "/secret/path"})
	b.want(200, bulk(rows(3)+"{}\n", "application/x-ndjson"))
	a := b.want(200, request{method: "GET", path: "/metrics", key: "-"})
	for _, line := range []string{
		`terse_api_requests_total{operation="createLink",status="2xx"} 1`, `terse_api_requests_total{operation="createLink",status="4xx"} 1`,
		`terse_api_requests_total{operation="other",status="4xx"} 1`, `terse_bulk_rows_total{result="created"} 3`, `terse_bulk_rows_total{result="failed"} 1`,
		`terse_api_request_seconds_count{operation="createLink"} 2`, `terse_api_panics_total 0`,
	} {
		if !strings.Contains(string(a.body), line+"\n") {
			t.Errorf("no line %s", line)
		}
	}
	if strings.Contains(string(a.body), "secret") {
		t.Error("a path became a label")
	}
	// What came through a proxy is not from this machine.
	forwarded := map[string]string{"X-Forwarded-For": "203.0.113.9"}
	b.want(401, request{method: "GET", path: "/metrics", key: "-", header: forwarded})
	b.want(403, request{method: "GET", path: "/metrics", key: b.key("ws_0000000000001", "links:read"), header: forwarded})
	b.want(200, request{method: "GET", path: "/metrics", header: forwarded})
}

// A panic is an answer for its caller, a log entry with the stack, and nobody else's problem.
func TestPanic(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	b.engine.err = panicError{}
	a := b.wantProblem(500, "internal", request{method: "GET", path: "/api/v1/analytics/summary?period=7d"})
	if a.text(t, "request_id") != "test" || strings.Contains(string(a.body), "teapot") {
		t.Errorf("a panic is answered %s", a.body)
	}
	if log := b.log.String(); !strings.Contains(log, "teapot") || !strings.Contains(log, "operation.go") {
		t.Errorf("the log lacks the panic:\n%s", log)
	}
	b.want(200, request{method: "GET", path: "/api/v1/links"})
}

// panicError panics when it is looked at.
type panicError struct{}

func (panicError) Error() string { panic("teapot") }
func (panicError) Unwrap() error { panic("teapot") }

func TestEngineErrors(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	for _, tt := range []struct {
		err    error
		status int
		code   string
	}{
		{&terse.Error{Code: terse.CodeUnavailable, Reason: "query_timeout", Message: "too slow"}, 503, "query_timeout"},
		{errors.New("duckdb fell over"), 500, "internal"},
	} {
		b.engine.err = tt.err
		for _, path := range []string{"summary?period=7d", "timeseries?period=7d", "breakdown?period=7d&by=country"} {
			a := b.wantProblem(tt.status, tt.code, request{method: "GET", path: "/api/v1/analytics/" + path})
			if strings.Contains(string(a.body), "duckdb") {
				t.Errorf("%s with %v: %s", path, tt.err, a.body)
			}
		}
	}
	if log := b.log.String(); !strings.Contains(log, "duckdb fell over") {
		t.Error("the cause is not in the log")
	}
	none := setup(t, options{noEngine: true})
	none.wantProblem(503, "analytics_disabled", request{method: "GET", path: "/api/v1/analytics/summary"})
}

// The workspace of a request reaches the engine, whatever the parameters say.
func TestAnalyticsWorkspace(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	w, key := b.workspace("w", "analytics:read")
	b.want(200, request{method: "GET", path: "/api/v1/analytics/summary?period=7d", key: key})
	if got := b.engine.query.Load().Workspace.String(); got != w {
		t.Errorf("the engine was asked about %s, want %s", got, w)
	}
	b.want(200, request{method: "GET", path: "/api/v1/analytics/summary?period=7d", header: map[string]string{"Terse-Workspace": w}})
	if got := b.engine.query.Load().Workspace.String(); got != w {
		t.Errorf("for the owner the engine was asked about %s, want %s", got, w)
	}
}

// Paths that cannot be routed are problems too, not redirects or plain text.
func TestRawPaths(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	for path, want := range map[string]string{
		"/api/v1/links/../keys": "404", "/api/v1/./links": "404", "//api/v1/links": "404", "/api/v1/links/": "404", "/api/v1/links/%2e%2e/keys": "404",
		"/api/v1/links/a%2Fb": "404", "/API/V1/links": "404",
	} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(b.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}", path, ownerKey)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		conn.Close()
		if got := fmt.Sprint(resp.StatusCode); got != want && got != "405" || resp.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %s %s %s, want %s", path, got, resp.Header.Get("Content-Type"), body, want)
		}
	}
}

// A client that sends its head or its body too slowly is dropped.
func TestServerLimits(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	srv := api.NewHTTPServer(b.server, discard)
	if srv.ReadHeaderTimeout != 5*time.Second || srv.MaxHeaderBytes != 16<<10 || srv.IdleTimeout == 0 || srv.WriteTimeout == 0 {
		t.Errorf("limits of the server: %+v", srv)
	}
	resp := httptest.NewRecorder()
	r := httptest.NewRequest("POST", "/api/v1/links", errReader{})
	r.ContentLength = 10
	r.Header.Set("Authorization", "Bearer "+ownerKey)
	b.server.ServeHTTP(resp, r)
	if resp.Code != http.StatusRequestTimeout {
		t.Errorf("a body that does not come: %d %s", resp.Code, resp.Body)
	}
	resp = httptest.NewRecorder()
	r = httptest.NewRequest("POST", "/api/v1/links", io.MultiReader(strings.NewReader("{"), errBody{}))
	r.ContentLength = 10
	r.Header.Set("Authorization", "Bearer "+ownerKey)
	b.server.ServeHTTP(resp, r)
	if resp.Code != http.StatusBadRequest {
		t.Errorf("a body that breaks: %d %s", resp.Code, resp.Body)
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, &net.OpError{Op: "read", Err: timeoutError{}} }

type timeoutError struct{}

func (timeoutError) Error() string { return "timeout" }
func (timeoutError) Timeout() bool { return true }

type errBody struct{}

func (errBody) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func FuzzCreateLink(f *testing.F) {
	for _, s := range []string{
		`{"destination":"https://example.com/"}`, `{"destination":"https://example.com/","code":"a","tags":["x"],"metadata":{"a":"b"},"expires_at":"2030-01-01T00:00:00Z"}`,
		`{"destination":null,"rules":[{"conditions":[{"type":"country","values":["DE"]}]}]}`, `{"redirect_status":1e99,"max_clicks":18446744073709551616}`,
		`[]`, `null`, `{"a":{"a":{"a":{}}}}`, `{"destination":"\ud83d\ude00"}`, `{"starts_at":"0000-01-01T00:00:00Z"}`,
	} {
		f.Add([]byte(s))
	}
	b := setup(f, options{})
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, q := range [][2]string{{"POST", "/api/v1/links"}, {"PATCH", "/api/v1/domains/localhost:8080"}} {
			w := httptest.NewRecorder()
			r := httptest.NewRequest(q[0], q[1], bytes.NewReader(body))
			r.Header.Set("Authorization", "Bearer "+ownerKey)
			b.server.ServeHTTP(w, r)
			var m map[string]any
			if err := json.Unmarshal(w.Body.Bytes(), &m); err != nil {
				t.Fatalf("%s %q: the answer is no object: %q", q[0], body, w.Body)
			}
			switch w.Code {
			case 200, 201:
				if dest, ok := m["destination"].(string); ok && strings.ContainsFunc(dest, func(r rune) bool { return r <= ' ' || r > '~' }) {
					t.Fatalf("%q gave the destination %q", body, dest)
				}
			case 400, 409, 422:
				if m["code"] == "" || m["code"] == nil || w.Header().Get("Content-Type") != "application/problem+json" {
					t.Fatalf("%q: %d %s", body, w.Code, w.Body)
				}
			default:
				t.Fatalf("%s %q: %d %s", q[0], body, w.Code, w.Body)
			}
		}
	})
}
