package api_test

import (
	"bufio"
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/live"
)

// channelTail is a tail that the test feeds.
type channelTail chan clicks.Event

func (c channelTail) Next(_ context.Context, most int, fn func(*clicks.Event) error) (n int, err error) {
	for n < most {
		select {
		case ev := <-c:
			n++
			if err := fn(&ev); err != nil {
				return n, err
			}
		default:
			return n, nil
		}
	}
	return n, nil
}

func (c channelTail) Wait(ctx context.Context) error {
	t := time.NewTimer(5 * time.Millisecond)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c channelTail) Close() error { return nil }

// TestLive watches clicks over HTTP, resumes, and is let go when the hub ends.
func TestLive(t *testing.T) {
	t.Parallel()
	tail := make(channelTail, 100)
	hub := live.New(live.Options{Open: func() (live.Tail, error) { return tail, nil }})
	defer hub.Close()
	b := setup(t, options{live: hub})
	open := func(path, last string) *http.Response {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, b.url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+ownerKey)
		if last != "" {
			req.Header.Set("Last-Event-ID", last)
		}
		resp, err := b.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	resp := open("/api/v1/clicks/live", "")
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" || resp.Header.Get("X-Accel-Buffering") != "no" {
		t.Fatalf("%d %v", resp.StatusCode, resp.Header)
	}
	for range 3 {
		tail <- clicks.Event{At: terse.MillisOf(time.Now()), Workspace: 1, Link: 5, Domain: "localhost:8080", Code: "summer", Weight: 1}
	}
	first, seen := "", 0
	lines := bufio.NewScanner(resp.Body)
	for seen < 3 && lines.Scan() {
		if id, ok := strings.CutPrefix(lines.Text(), "id: "); ok && first == "" {
			first = id
		}
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok && strings.Contains(data, `"code":"summer"`) {
			seen++
		}
	}
	resp.Body.Close()
	if seen != 3 || first == "" {
		t.Fatalf("%d clicks, first id %q", seen, first)
	}
	// The other two come again after the first id.
	resp = open("/api/v1/clicks/live", first)
	lines = bufio.NewScanner(resp.Body)
	for seen = 0; seen < 2 && lines.Scan(); {
		if strings.Contains(lines.Text(), `"code":"summer"`) {
			seen++
		}
	}
	hub.Close()
	for lines.Scan() { // ends, because the hub has
	}
	resp.Body.Close()
	if a := b.do(request{method: "GET", path: "/api/v1/clicks/live"}); a.status != 503 {
		t.Errorf("after the end: %d", a.status)
	}
	if a := b.do(request{method: "GET", path: "/api/v1/clicks/live?period=7d"}); a.status != 422 {
		t.Errorf("a parameter that is none: %d %s", a.status, a.body)
	}
	if a := b.do(request{method: "GET", path: "/api/v1/clicks/live?tag=sms&domain=localhost:8080"}); a.status != 422 {
		t.Errorf("a tag and a domain: %d %s", a.status, a.body)
	}
	if a := b.do(request{method: "GET", path: "/api/v1/clicks/live?link_id=link_0000000000009"}); a.status != 404 {
		t.Errorf("a link that is none: %d %s", a.status, a.body)
	}
	if a := b.do(request{method: "GET", path: "/api/v1/clicks/live?campaign_id=camp_0000000000009"}); a.status != 404 {
		t.Errorf("a campaign that is none: %d %s", a.status, a.body)
	}
}

// TestLiveRevoked: the stream of a key ends when the key is revoked.
func TestLiveRevoked(t *testing.T) {
	t.Parallel()
	hub := live.New(live.Options{Open: func() (live.Tail, error) { return make(channelTail), nil }})
	defer hub.Close()
	b := setup(t, options{live: hub, heartbeat: 10 * time.Millisecond})
	k := b.want(201, request{method: "POST", path: "/api/v1/keys", body: `{"name":"k","scopes":["analytics:read"]}`})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.url+"/api/v1/clicks/live", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+k.text(t, "key"))
	resp, err := b.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	beats, revoked := 0, false
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), ": ") {
			beats++
		}
		if beats == 2 && !revoked {
			b.want(204, request{method: "DELETE", path: "/api/v1/keys/" + k.text(t, "id")})
			revoked = true
		}
	}
	if lines.Err() != nil || !revoked {
		t.Errorf("after %d beats, revoked %v: %v", beats, revoked, lines.Err())
	}
}
