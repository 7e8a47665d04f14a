package api_test

import (
	"strings"
	"testing"

	"github.com/terselink/terse"
)

// TestWhoami: who asks and from where, by the same rules as everywhere, and where the redirect plane shows the rest.
func TestWhoami(t *testing.T) {
	t.Parallel()
	b := setup(t, options{
		trusted: []string{"127.0.0.0/8"},
		ticket:  func() (string, terse.Millis, error) { return "/_/whoami?ticket=abc", 1_800_000_000_000, nil },
	})
	ws, admin := b.workspace("acme", "*")
	reader := b.key(ws, "links:read")
	b.want(401, request{method: "GET", path: "/api/v1/whoami", key: "-"})
	b.want(403, request{method: "GET", path: "/api/v1/whoami", key: reader})

	a := b.want(200, request{method: "GET", path: "/api/v1/whoami", header: map[string]string{"X-Forwarded-For": "10.0.0.1, 192.0.2.7"}})
	for field, want := range map[string]any{
		"subject": "owner", "owner": true, "client": "192.0.2.7", "peer": "127.0.0.1", "peer_trusted": true,
		"visit_url": "http://localhost:8080/_/whoami?ticket=abc", "visit_until": "2027-01-15T08:00:00Z",
	} {
		if got := a.field(t, field); got != want {
			t.Errorf("%s: %v, want %v", field, got, want)
		}
	}
	if a := b.want(200, request{method: "GET", path: "/api/v1/whoami", key: admin}); a.field(t, "workspace_id") != ws || a.field(t, "owner") != false || a.field(t, "client") != "127.0.0.1" {
		t.Errorf("a key: %s", a.body)
	}
	b.wantProblem(422, "unknown_domain", request{method: "GET", path: "/api/v1/whoami?domain=nobody.example.com"})

	// Without proxies that are trusted, what they say does not count; without a redirect plane there is no visit.
	alone := setup(t, options{})
	a = alone.want(200, request{method: "GET", path: "/api/v1/whoami", header: map[string]string{"X-Forwarded-For": "192.0.2.7"}})
	if a.field(t, "client") != "127.0.0.1" || a.field(t, "peer_trusted") != false || a.field(t, "visit_url") != nil || a.field(t, "visit_until") != nil {
		t.Errorf("without proxies: %s", a.body)
	}
	// A plane without its key says so.
	early := setup(t, options{ticket: func() (string, terse.Millis, error) { return "", 0, terse.ErrUnavailable }})
	if a := early.want(503, request{method: "GET", path: "/api/v1/whoami"}); !strings.Contains(string(a.body), "unavailable") {
		t.Errorf("without a key of cookies: %s", a.body)
	}
}
