package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestNew(t *testing.T) {
	t.Parallel()
	for _, server := range []string{"", "http://127.0.0.1:8081", "https://terse.example/", "http://[::1]:1"} {
		if _, err := New(Options{Server: server}); err != nil {
			t.Errorf("New(%q) = %v", server, err)
		}
	}
	for _, o := range []Options{{Server: "127.0.0.1:8081"}, {Server: "ftp://x"}, {Server: "http://"}, {Server: "http://user:pass@x"}, {Server: ":"}, {Key: "a\nb"}, {Workspace: "ä"}} {
		if _, err := New(o); err == nil {
			t.Errorf("New(%+v) succeeded", o)
		}
	}
}

// TestRequests is the table of what each call sends.
func TestRequests(t *testing.T) {
	t.Parallel()
	at := time.Date(2027, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600))
	q := Query{LinkID: "link_1", Period: "7d", TZ: "Europe/Berlin", By: "country", Bots: "only", Metric: "visitors", Filters: []string{"is,country,DE,AT", "not,os,iOS"}, Limit: 5}
	cases := []struct {
		name string
		call func(ctx context.Context, c *Client) error
		want string // method, target, If-Match, body
	}{
		{"create", func(ctx context.Context, c *Client) error {
			_, err := c.CreateLink(ctx, NewLink{Destination: "https://example.com/", LinkSettings: LinkSettings{Tags: []string{"a"}, ExpiresAt: at}})
			return err
		}, `POST /api/v1/links  {"destination":"https://example.com/","tags":["a"],"expires_at":"2027-01-02T03:04:05+01:00"}`},
		{"reuse", func(ctx context.Context, c *Client) error {
			_, created, err := c.CreateOrReuseLink(ctx, NewLink{Destination: "https://example.com/"})
			if created {
				t.Error("200 was taken for a creation")
			}
			return err
		}, `POST /api/v1/links  {"destination":"https://example.com/","if_exists":"reuse"}`},
		{"get", func(ctx context.Context, c *Client) error { _, err := c.Link(ctx, "a/b"); return err }, `GET /api/v1/links/a%2Fb  `},
		{"lookup", func(ctx context.Context, c *Client) error {
			_, err := c.LookupLink(ctx, "http://h/c?d")
			return err
		}, `GET /api/v1/links/lookup?short_url=http%3A%2F%2Fh%2Fc%3Fd  `},
		{"list", func(ctx context.Context, c *Client) error {
			return drain(c.Links(ctx, LinkFilter{Domain: "h", CampaignID: "camp_1", Tag: "t", Status: "active", ExternalID: "e", Query: "x y", CreatedFrom: at, CreatedTo: at, Sort: "s", PageSize: 9}))
		}, `GET /api/v1/links?campaign_id=camp_1&created_from=2027-01-02T02%3A04%3A05Z&created_to=2027-01-02T02%3A04%3A05Z&domain=h&external_id=e&limit=9&q=x+y&sort=s&status=active&tag=t  `},
		{"update", func(ctx context.Context, c *Client) error {
			_, err := c.UpdateLink(ctx, "link_1", LinkPatch{LinkSettingsPatch: LinkSettingsPatch{Title: Set("x"), ExpiresAt: Clear[time.Time](), Tags: Set([]string(nil))}, IfVersion: 7})
			return err
		}, `PATCH /api/v1/links/link_1 "7" {"title":"x","tags":[],"expires_at":null}`},
		{"empty update", func(ctx context.Context, c *Client) error {
			_, err := c.UpdateLink(ctx, "link_1", LinkPatch{})
			return err
		}, `PATCH /api/v1/links/link_1  {}`},
		{"delete", func(ctx context.Context, c *Client) error { return c.DeleteLink(ctx, "link_1") }, `DELETE /api/v1/links/link_1  `},
		{"delete many", func(ctx context.Context, c *Client) error {
			_, err := c.DeleteLinks(ctx, []string{"link_1", "link_2"})
			return err
		}, `POST /api/v1/links/delete  {"ids":["link_1","link_2"]}`},
		{"domains", func(ctx context.Context, c *Client) error { return drain(c.Domains(ctx)) }, `GET /api/v1/domains  `},
		{"domain", func(ctx context.Context, c *Client) error {
			_, err := c.Domain(ctx, "localhost:8080")
			return err
		}, `GET /api/v1/domains/localhost:8080  `},
		{"create domain", func(ctx context.Context, c *Client) error {
			_, err := c.CreateDomain(ctx, NewDomain{Host: "h", DefaultTTL: "24h"})
			return err
		}, `POST /api/v1/domains  {"host":"h","default_ttl":"24h"}`},
		{"update domain", func(ctx context.Context, c *Client) error {
			_, err := c.UpdateDomain(ctx, "h", DomainPatch{NotFoundDestination: Clear[string](), RedirectStatus: Set(301)})
			return err
		}, `PATCH /api/v1/domains/h  {"redirect_status":301,"not_found_destination":null}`},
		{"delete domain", func(ctx context.Context, c *Client) error { return c.DeleteDomain(ctx, "h") }, `DELETE /api/v1/domains/h  `},
		{"keys", func(ctx context.Context, c *Client) error { return drain(c.Keys(ctx)) }, `GET /api/v1/keys  `},
		{"create key", func(ctx context.Context, c *Client) error {
			_, err := c.CreateKey(ctx, NewKey{Name: "n", Scopes: []string{"*"}})
			return err
		}, `POST /api/v1/keys  {"name":"n","scopes":["*"]}`},
		{"delete key", func(ctx context.Context, c *Client) error { return c.DeleteKey(ctx, "k") }, `DELETE /api/v1/keys/k  `},
		{"workspaces", func(ctx context.Context, c *Client) error { return drain(c.Workspaces(ctx)) }, `GET /api/v1/workspaces  `},
		{"create workspace", func(ctx context.Context, c *Client) error {
			_, err := c.CreateWorkspace(ctx, "n")
			return err
		}, `POST /api/v1/workspaces  {"name":"n"}`},
		{"summary", func(ctx context.Context, c *Client) error {
			_, err := c.Summary(ctx, Query{From: at, To: at, CampaignID: "c", Domain: "d", Tag: "t"})
			return err
		}, `GET /api/v1/analytics/summary?campaign_id=c&domain=d&from=2027-01-02T02%3A04%3A05Z&tag=t&to=2027-01-02T02%3A04%3A05Z  `},
		{"summary of days", func(ctx context.Context, c *Client) error {
			_, err := c.Summary(ctx, Query{From: at, To: at, FromDate: "2026-10-01", ToDate: "2026-10-31", Compare: "custom", CompareFromDate: "2026-09-01", CompareTo: at})
			return err
		}, `GET /api/v1/analytics/summary?compare=custom&compare_from=2026-09-01&compare_to=2027-01-02T02%3A04%3A05Z&from=2026-10-01&to=2026-10-31  `},
		{"timeseries", func(ctx context.Context, c *Client) error {
			_, err := c.Timeseries(ctx, Query{Interval: "hour"})
			return err
		}, `GET /api/v1/analytics/timeseries?interval=hour  `},
		{"breakdown", func(ctx context.Context, c *Client) error { _, err := c.Breakdown(ctx, q); return err },
			`GET /api/v1/analytics/breakdown?bots=only&by=country&f=is%2Ccountry%2CDE%2CAT&f=not%2Cos%2CiOS&limit=5&link_id=link_1&metric=visitors&period=7d&tz=Europe%2FBerlin  `},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var got string
			c := serve(t, func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				got = fmt.Sprintf("%s %s %s %s", r.Method, r.URL.RequestURI(), r.Header.Get("If-Match"), body)
				if r.Header.Get("Authorization") != "Bearer terse_k" || r.Header.Get("Terse-Workspace") != "ws_1" || r.Header.Get("User-Agent") != "terse-client" {
					t.Errorf("headers %v", r.Header)
				}
				if has := r.Header.Get("Idempotency-Key") != ""; has != (r.Method == http.MethodPost) {
					t.Errorf("%s with Idempotency-Key %q", r.Method, r.Header.Get("Idempotency-Key"))
				}
				if (len(body) > 0) != (r.Header.Get("Content-Type") == "application/json") {
					t.Errorf("Content-Type %q for %d bytes", r.Header.Get("Content-Type"), len(body))
				}
				if r.Method == http.MethodDelete {
					w.WriteHeader(http.StatusNoContent)
					return
				}
				io.WriteString(w, `{"data":[],"next_cursor":null}`)
			})
			if err := tc.call(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			if got != tc.want {
				t.Errorf("request\n got %s\nwant %s", got, tc.want)
			}
		})
	}
}

func TestLinkDecode(t *testing.T) {
	t.Parallel()
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusCreated)
		io.WriteString(w, `{"id":"link_1","short_url":"http://h/abc","domain":"h","code":"abc","destination":"https://example.com/",
			"title":null,"tags":[],"external_id":null,"campaign_id":null,"status":"active","created_at":"2026-11-23T10:00:00Z","updated_at":"2026-11-23T10:00:00Z",
			"expires_at":null,"redirect_status":302,"forward_query":true,"rules":[{"conditions":[{"type":"country","values":["DE"]}],"destination":"https://de.example/"}],
			"metadata":{"a":"b"},"version":1,"some_later_field":{"x":1}}`)
	})
	at := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	want := &Link{ID: "link_1", ShortURL: "http://h/abc", Domain: "h", Code: "abc", Destination: "https://example.com/", Tags: []string{}, Status: "active",
		CreatedAt: at, UpdatedAt: at, Rules: []Rule{{Conditions: []Condition{{Type: "country", Values: []string{"DE"}}}, Destination: "https://de.example/"}},
		RedirectStatus: 302, ForwardQuery: true, Metadata: map[string]string{"a": "b"}, Version: 1}
	got, created, err := c.CreateOrReuseLink(t.Context(), NewLink{Destination: "https://example.com/"})
	if err != nil || !created {
		t.Fatal(created, err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("link (-want +got):\n%s", diff)
	}
	b, err := json.Marshal(got, json.Deterministic(true))
	if err != nil || strings.Contains(string(b), "expires_at") || !strings.Contains(string(b), `"tags":[]`) {
		t.Errorf("marshalled: %s, %v", b, err)
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name    string
		status  int
		headers map[string]string
		body    string
		want    Error
		text    string
	}{
		{
			name: "problem", status: 422, headers: map[string]string{"Content-Type": "application/problem+json; charset=utf-8"},
			body: `{"type":"about:blank","title":"Unprocessable Entity","status":422,"detail":"the link is not valid","code":"invalid_destination","errors":[{"location":"body.destination","message":"has no scheme"},{"location":"body.tags[1]","message":"is empty"}],"request_id":"r1"}`,
			want: Error{Status: 422, Code: "invalid_destination", Title: "Unprocessable Entity", Detail: "the link is not valid", Fields: []FieldError{{"body.destination", "has no scheme"}, {"body.tags[1]", "is empty"}}, RequestID: "r1"},
			text: "the link is not valid: destination: has no scheme; tags[1]: is empty (invalid_destination)",
		},
		{
			name: "detail repeats the fault", status: 409, headers: map[string]string{"Content-Type": "application/problem+json"},
			body: `{"title":"Conflict","detail":"the code is taken","code":"alias_taken","errors":[{"location":"body.code","message":"the code is taken"}]}`,
			want: Error{Status: 409, Code: "alias_taken", Title: "Conflict", Detail: "the code is taken", Fields: []FieldError{{"body.code", "the code is taken"}}},
			text: "the code is taken (alias_taken)",
		},
		{
			name: "a proxy's page", status: 403, headers: map[string]string{"Content-Type": "text/html", "X-Request-Id": "p1"}, body: "<html>no",
			want: Error{Status: 403, Title: "Forbidden", Detail: "answered 403 Forbidden, but not as a Terse control plane does", RequestID: "p1"},
			text: "answered 403 Forbidden, but not as a Terse control plane does (status 403)",
		},
		{
			name: "a redirect", status: 302, headers: map[string]string{"Location": "https://elsewhere.example/"}, body: "",
			want: Error{Status: 302, Title: "Found", Detail: "answered 302 Found, but not as a Terse control plane does (a redirect to https://elsewhere.example/)"},
			text: "answered 302 Found, but not as a Terse control plane does (a redirect to https://elsewhere.example/) (status 302)",
		},
		{
			name: "plain text", status: 404, headers: map[string]string{"Content-Type": "text/plain"}, body: "404 page not found\nmore",
			want: Error{Status: 404, Title: "Not Found", Detail: "answered 404 Not Found, but not as a Terse control plane does: 404 page not found"},
			text: "answered 404 Not Found, but not as a Terse control plane does: 404 page not found (status 404)",
		},
		{
			name: "broken problem", status: 500, headers: map[string]string{"Content-Type": "application/problem+json"}, body: "{\"title\": \x00",
			want: Error{Status: 500, Title: "Internal Server Error", Detail: "answered 500 Internal Server Error, but not as a Terse control plane does"},
			text: "answered 500 Internal Server Error, but not as a Terse control plane does (status 500)",
		},
		{
			name: "slow down for long", status: 429, headers: map[string]string{"Retry-After": "3600", "Content-Type": "application/problem+json"}, body: `{"detail":"too many requests","code":"rate_limited"}`,
			want: Error{Status: 429, Code: "rate_limited", Title: "Too Many Requests", Detail: "too many requests", RetryAfter: time.Hour},
			text: "too many requests (rate_limited)",
		},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				for k, v := range tc.headers {
					w.Header().Set(k, v)
				}
				w.WriteHeader(tc.status)
				io.WriteString(w, tc.body)
			})
			_, err := c.Link(t.Context(), "link_1")
			got, ok := errors.AsType[*Error](err)
			if !ok {
				t.Fatalf("error %v", err)
			}
			if diff := cmp.Diff(&tc.want, got); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
			if got.Error() != tc.text {
				t.Errorf("text %q, want %q", got.Error(), tc.text)
			}
		})
	}
}

func TestBrokenAnswers(t *testing.T) {
	t.Parallel()
	for _, body := range []string{"", "{", `{"id":1}`, `[]`} {
		c := serve(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, body) })
		if _, err := c.Link(t.Context(), "link_1"); err == nil {
			t.Errorf("the answer %q was accepted", body)
		}
	}
}

// TestRetries runs in a bubble, where the pauses take no time.
func TestRetries(t *testing.T) {
	t.Parallel()
	unavailable := reply(503, `{"code":"unavailable","detail":"down"}`)
	inProgress := reply(409, `{"code":"idempotency_in_progress","detail":"wait"}`)
	taken := reply(409, `{"code":"alias_taken","detail":"taken"}`)
	ok := reply(200, `{"id":"link_1"}`)
	broken := answer{err: errors.New("connection reset by peer")}
	create := func(ctx context.Context, c *Client) error {
		_, err := c.CreateLink(ctx, NewLink{Destination: "https://example.com/"})
		return err
	}
	get := func(ctx context.Context, c *Client) error { _, err := c.Link(ctx, "link_1"); return err }
	cases := []struct {
		name    string
		call    func(ctx context.Context, c *Client) error
		answers []answer
		retries int
		want    int // requests
		fails   bool
		atLeast time.Duration
		atMost  time.Duration
	}{
		{name: "no failure", call: get, answers: []answer{ok}, want: 1},
		{name: "read after a break", call: get, answers: []answer{broken, ok}, want: 2, atLeast: 100 * time.Millisecond, atMost: 150 * time.Millisecond},
		{name: "create after a break", call: create, answers: []answer{broken, unavailable, ok}, want: 3, atLeast: 300 * time.Millisecond, atMost: 450 * time.Millisecond},
		{name: "create still in progress", call: create, answers: []answer{inProgress, ok}, want: 2, atLeast: 100 * time.Millisecond, atMost: time.Second},
		{name: "gives up", call: get, answers: []answer{unavailable, unavailable, unavailable, ok}, want: 3, fails: true, atLeast: 300 * time.Millisecond, atMost: time.Second},
		{name: "never, if told so", call: get, answers: []answer{broken, ok}, retries: -1, want: 1, fails: true},
		{name: "more, if told so", call: get, answers: []answer{broken, broken, broken, ok}, retries: 3, want: 4, atLeast: 700 * time.Millisecond, atMost: 2 * time.Second},
		{name: "waits as told", call: get, answers: []answer{{status: 503, body: "{}", retryAfter: "3"}, ok}, want: 2, atLeast: 3 * time.Second, atMost: 5 * time.Second},
		{name: "does not wait for an hour", call: get, answers: []answer{{status: 503, body: "{}", retryAfter: "3600"}, ok}, want: 1, fails: true},
		{name: "a conflict stays one", call: create, answers: []answer{taken, ok}, want: 1, fails: true},
		{name: "not a 500", call: get, answers: []answer{reply(500, "{}"), ok}, want: 1, fails: true},
		{name: "not an update", call: func(ctx context.Context, c *Client) error { _, err := c.UpdateLink(ctx, "x", LinkPatch{}); return err },
			answers: []answer{broken, ok}, want: 1, fails: true},
		{name: "not a deletion", call: func(ctx context.Context, c *Client) error { return c.DeleteLink(ctx, "x") },
			answers: []answer{unavailable, ok}, want: 1, fails: true},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				script := &scripted{answers: tc.answers}
				c, err := New(Options{HTTP: &http.Client{Transport: script}, Retries: tc.retries})
				if err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				err = tc.call(t.Context(), c)
				if took := time.Since(start); took < tc.atLeast || took > tc.atMost {
					t.Errorf("took %v, want %v to %v", took, tc.atLeast, tc.atMost)
				}
				if (err != nil) != tc.fails || script.sent != tc.want {
					t.Errorf("%d requests and error %v, want %d and failure %v", script.sent, err, tc.want, tc.fails)
				}
				if len(script.keys) > 1 {
					t.Errorf("the repetitions carry several Idempotency-Keys: %v", script.keys)
				}
			})
		})
	}
}

func TestSlowServer(t *testing.T) {
	t.Parallel()
	hang := func(ctx context.Context, _ *http.Request) { <-ctx.Done() }
	t.Run("timeout of an attempt", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			script := &scripted{hang: hang}
			c, _ := New(Options{HTTP: &http.Client{Transport: script}, Timeout: time.Second, Retries: -1})
			start := time.Now()
			_, err := c.Link(t.Context(), "x")
			if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
				t.Errorf("error %v after %v", err, time.Since(start))
			}
		})
	})
	t.Run("the caller's context ends it at once", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			script := &scripted{hang: hang}
			c, _ := New(Options{HTTP: &http.Client{Transport: script}})
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			defer cancel()
			if _, err := c.Link(ctx, "x"); !errors.Is(err, context.DeadlineExceeded) || script.sent != 1 {
				t.Errorf("error %v after %d requests", err, script.sent)
			}
		})
	})
}

func TestPages(t *testing.T) {
	t.Parallel()
	pages := map[string]string{
		"":   `{"data":[{"id":"a"},{"id":"b"}],"next_cursor":"c1"}`,
		"c1": `{"data":[],"next_cursor":"c2"}`,
		"c2": `{"data":[{"id":"c"}],"next_cursor":null}`,
	}
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("tag") != "t" {
			t.Errorf("a page lost the filter: %s", r.URL)
		}
		io.WriteString(w, pages[r.URL.Query().Get("cursor")])
	})
	for range 2 { // a sequence can be run again
		ids := ""
		for l, err := range c.Links(t.Context(), LinkFilter{Tag: "t"}) {
			if err != nil {
				t.Fatal(err)
			}
			ids += l.ID
		}
		if ids != "abc" {
			t.Errorf("links %q", ids)
		}
	}
	for l, err := range c.Links(t.Context(), LinkFilter{Tag: "t"}) {
		if err != nil || l.ID != "a" {
			t.Fatal(l, err)
		}
		break
	}

	stuck := serve(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"data":[],"next_cursor":"c"}`) })
	if err := drain(stuck.Links(t.Context(), LinkFilter{})); err == nil || !strings.Contains(err.Error(), "same page") {
		t.Errorf("a cursor that does not move: %v", err)
	}
}

// answer is one scripted answer.
type answer struct {
	status     int
	body       string
	retryAfter string
	err        error
}

func reply(status int, body string) answer { return answer{status: status, body: body} }

// scripted is a transport that needs no network, for tests in a bubble.
type scripted struct {
	answers []answer
	hang    func(context.Context, *http.Request)
	sent    int
	keys    map[string]bool
}

func (s *scripted) RoundTrip(r *http.Request) (*http.Response, error) {
	s.sent++
	if s.hang != nil {
		s.hang(r.Context(), r)
		return nil, r.Context().Err()
	}
	if key := r.Header.Get("Idempotency-Key"); key != "" {
		if s.keys == nil {
			s.keys = map[string]bool{}
		}
		s.keys[key] = true
	}
	a := s.answers[s.sent-1]
	if a.err != nil {
		return nil, a.err
	}
	h := http.Header{"Content-Type": {"application/problem+json"}}
	if a.retryAfter != "" {
		h.Set("Retry-After", a.retryAfter)
	}
	return &http.Response{StatusCode: a.status, Status: http.StatusText(a.status), Header: h, Body: io.NopCloser(strings.NewReader(a.body)), Request: r}, nil
}

// serve starts a server and returns a client of it.
func serve(t testing.TB, h http.HandlerFunc) *Client {
	t.Helper()
	srv := httptest.NewServer(h)
	c, err := New(Options{Server: srv.URL, Key: "terse_k", Workspace: "ws_1"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.http.CloseIdleConnections()
		srv.Close()
	})
	return c
}

func drain[T any](seq func(func(*T, error) bool)) error {
	for _, err := range seq {
		if err != nil {
			return err
		}
	}
	return nil
}
