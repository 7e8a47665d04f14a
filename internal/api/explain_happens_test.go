package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/redirect"
)

// witness keeps the last click.
type witness struct {
	mu   sync.Mutex
	last clicks.Click
}

func (w *witness) Capture(_ uint32, c *clicks.Click) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last = *c
	return true
}

// outcomes are the names of an explanation.
var outcomes = map[clicks.Outcome]string{
	clicks.OutcomeRedirect: "redirect", clicks.OutcomePassword: "password", clicks.OutcomePreview: "preview", clicks.OutcomeBlocked: "blocked",
	clicks.OutcomeDisabled: "disabled", clicks.OutcomeExpired: "expired", clicks.OutcomeNotFound: "not_found",
}

// TestExplainIsWhatHappens makes links of every kind, explains visits of them, and then visits them: status,
// Location, outcome, target and headers must be what was explained.
func TestExplainIsWhatHappens(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	seen := &witness{}
	plane, err := redirect.New(redirect.Options{
		Domains: b.domains, Store: b.store, Recorder: seen, Clock: b.clock, LoadTimeout: time.Minute, CookieKey: []byte(strings.Repeat("k", 32)),
		Interstitials: func(w terse.WorkspaceID) bool { return b.auth.Settings(w).Interstitials },
	})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- plane.Serve(ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := plane.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	b.want(200, request{method: "PATCH", path: "/api/v1/workspaces/ws_0000000000001", body: `{"interstitials":true,"app_schemes":["myapp"]}`})
	b.want(201, request{method: "POST", path: "/api/v1/domains", body: `{"host":"d.example.com","query_mode":"incoming_first","utm":{"source":"d"},"noindex":false,"referrer_policy":"origin",
		"not_found_destination":"https://d.test/lost","expired_destination":"https://d.test/late","not_started_destination":"https://d.test/soon","redirect_status":307}`})

	const ab = `"rules":[{"conditions":[{"type":"query","key":"v"}],"destination":"https://v.test/"},{"conditions":[{"type":"language","values":["de"]}],"variants":[{"destination":"https://a.test/?a=1","weight":1},{"destination":"https://b.test/","weight":1}]}]`
	links := []string{
		``, `"forward_query":true`, `"query_mode":"stored_first","forward_path":true`, `"utm":{"source":"l","medium":"m"}`, `"noindex":true,"referrer_policy":"no-referrer"`, `"noindex":false`,
		ab, ab + `,"sticky":"cookie","query_mode":"append"`, `"starts_at":"2030-01-01T00:00:00Z"`, `"starts_at":"2030-01-01T00:00:00Z","not_started_destination":"https://l.test/soon"`,
		`"expires_at":"2026-11-23T12:00:01Z"`, `"expires_at":"2026-11-23T12:00:01Z","expired_destination":"https://l.test/late"`, `"password":"hunter2"`, `"password":"hunter2","og_title":"T"`,
		`"ios_destination":"https://ios.test/?b=1","android_store":"https://play.test/"`, `"ios_destination":"myapp://x","ios_store":"https://apps.test/"`, `"og_title":"T"`, `"og_image":"https://i.test/","ios_destination":"myapp://x"`,
		`"pixels":[{"provider":"meta","id":"12345"}]`, `"cloak":true`, `"cloak":true,"pixels":[{"provider":"x","id":"o1a2b"}],"og_title":"T"`, `"redirect_status":301,"query_mode":"drop"`,
		`"status":"disabled"`, `"status":"blocked"`,
	}
	const (
		iphone = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1"
		droid  = "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Mobile Safari/537.36"
		mac    = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Safari/605.1.15"
	)
	visits := []struct {
		query, path, agent, language string
		optOut                       bool
	}{
		{agent: mac}, {agent: mac, query: "a=9&v&utm_medium=x"}, {agent: mac, path: "more/path", query: "z=1"}, {agent: mac, path: "../up"}, {agent: mac, language: "de-AT"}, {agent: mac, optOut: true},
		{agent: iphone}, {agent: iphone, query: "a=9"}, {agent: droid, language: "de"}, {agent: "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)"}, {agent: "curl/8.9.1"},
	}
	type explained struct {
		Outcome, Answer, Location string
		Status, Target            int
		NoIndex                   bool   `json:"noindex"`
		ReferrerPolicy            string `json:"referrer_policy"`
		SetsCookie                bool   `json:"sets_cookie"`
	}
	client := &http.Client{Transport: &http.Transport{DisableCompression: true}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer client.CloseIdleConnections()
	answers := map[string]int{}
	for _, host := range []string{"localhost:8080", "d.example.com"} {
		var made []answer
		for _, settings := range links {
			status := ""
			if strings.HasPrefix(settings, `"status"`) {
				status, settings = settings, ""
			}
			if settings != "" {
				settings = "," + settings
			}
			a := b.want(201, request{method: "POST", path: "/api/v1/links", body: fmt.Sprintf(`{"destination":"https://x.test/p?a=1#f","domain":%q%s}`, host, settings)})
			if status != "" {
				a = b.want(200, request{method: "PATCH", path: "/api/v1/links/" + a.text(t, "id"), body: "{" + status + "}"})
			}
			made = append(made, a)
		}
		b.now.Add(2000) // what expires has expired
		for i, a := range made {
			for _, v := range visits {
				facts, err := json.Marshal(map[string]any{"ip": "127.0.0.1", "query": v.query, "path": v.path, "user_agent": v.agent, "language": v.language, "opt_out": v.optOut})
				if err != nil {
					t.Fatal(err)
				}
				var want explained
				if err := json.Unmarshal(b.want(200, request{method: "POST", path: "/api/v1/links/" + a.text(t, "id") + "/explain", body: string(facts)}).body, &want); err != nil {
					t.Fatal(err)
				}
				target := "/" + a.text(t, "code")
				if v.path != "" {
					target += "/" + v.path
				}
				if v.query != "" {
					target += "?" + v.query
				}
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+ln.Addr().String(), nil)
				if err != nil {
					t.Fatal(err)
				}
				req.URL.Opaque, req.Host = target, host
				req.Header.Set("User-Agent", v.agent)
				req.Header.Set("Accept-Language", v.language)
				if v.optOut {
					req.Header.Set("Sec-GPC", "1")
				}
				res, err := client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(res.Body)
				res.Body.Close()
				if err != nil {
					t.Fatal(err)
				}
				seen.mu.Lock()
				got := explained{
					Outcome: outcomes[seen.last.Outcome], Status: res.StatusCode, Location: res.Header.Get("Location"), Target: int(seen.last.Rule),
					SetsCookie: strings.HasPrefix(res.Header.Get("Set-Cookie"), "terse_v="), Answer: want.Answer, NoIndex: want.NoIndex, ReferrerPolicy: want.ReferrerPolicy,
				}
				seen.mu.Unlock()
				text := string(body)
				switch want.Answer {
				case "redirect":
					if want.Outcome == "redirect" || want.Outcome == "expired" {
						got.NoIndex, got.ReferrerPolicy = res.Header.Get("X-Robots-Tag") == "noindex", res.Header.Get("Referrer-Policy")
					}
				case "app":
					got.Location = between(text, `id="open" href="`, `"`)
				case "pixels":
					got.Location = strings.TrimPrefix(res.Header.Get("Refresh"), "1; url=")
				case "frame":
					got.Location = between(text, `<iframe src="`, `"`)
				case "form":
					got.Target, got.SetsCookie = want.Target, want.SetsCookie
					fallthrough
				default:
					got.Location = want.Location
				}
				answers[want.Answer]++
				if got != want {
					t.Errorf("%s, link %d {%s}, visit %+v:\nexplained %+v\nhappened  %+v", host, i, links[i], v, want, got)
				}
			}
		}
		b.now.Add(-2000)
	}
	for _, kind := range []string{"redirect", "page", "form", "preview", "app", "pixels", "frame"} {
		if answers[kind] == 0 {
			t.Errorf("no visit was answered with %s", kind)
		}
	}
}

// between returns what stands between two texts of HTML, decoded as far as the test needs.
func between(s, before, after string) string {
	_, s, _ = strings.Cut(s, before)
	s, _, _ = strings.Cut(s, after)
	return strings.ReplaceAll(s, "&amp;", "&")
}
