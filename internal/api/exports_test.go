package api_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/terselink/terse"
)

// TestClicksCompleteFrom: rows of a range that is not kept whole say from when on they are complete.
func TestClicksCompleteFrom(t *testing.T) {
	t.Parallel()
	b := setup(t, options{}) // bots are kept for 30 days
	for query, want := range map[string]string{
		"?period=90d": "", "?period=90d&all=true": "2026-10-24T00:00:00Z", "?period=90d&bots=only&format=csv": "2026-10-24T00:00:00Z", "?period=30d&all=true&format=ndjson": "",
		"?from=2025-01-01&to=2025-12-31": "2025-10-19T00:00:00Z",
	} {
		if got := b.want(200, request{method: "GET", path: "/api/v1/clicks" + query}).header.Get("Terse-Complete-From"); got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
}

// TestClicksTermsAway: rows do not wait for the settings, which are asked once a minute, and a refusal says nothing of rows.
func TestClicksTermsAway(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	const complete = "Terse-Complete-From"
	paths := []string{"/api/v1/clicks?period=90d&all=true", "/api/v1/clicks?period=90d&all=true&format=csv", "/api/v1/clicks?period=90d&all=true&format=ndjson"}
	b.termsAway.Store(true)
	for _, path := range paths {
		if a := b.want(200, request{method: "GET", path: path}); a.header.Get(complete) != "" || len(a.body) == 0 {
			t.Errorf("%s: %v\n%s", path, a.header, a.body)
		}
	}
	b.termsAway.Store(false)
	b.now.Add(5000)
	for range 3 {
		for _, path := range paths {
			if a := b.want(200, request{method: "GET", path: path}); a.header.Get(complete) == "" {
				t.Errorf("%s: %v", path, a.header)
			}
		}
	}
	if n := b.termsAsked.Load(); n != 2 {
		t.Errorf("asked %d times", n)
	}
	b.engine.err = terse.ErrUnavailable
	for _, path := range paths {
		if a := b.do(request{method: "GET", path: path}); a.status != 503 || a.header.Get(complete) != "" {
			t.Errorf("%s: %d %v", path, a.status, a.header)
		}
	}
}

// TestExportFile makes a file in the background and fetches it without a key, also in pieces.
func TestExportFile(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	id := b.want(201, request{method: "POST", path: "/api/v1/exports", body: `{"format":"csv"}`}).text(t, "id")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.exports.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	var a answer
	for a = b.want(200, request{method: "GET", path: "/api/v1/exports/" + id}); a.text(t, "state") != "done"; <-tick.C {
		a = b.want(200, request{method: "GET", path: "/api/v1/exports/" + id})
	}
	path := a.text(t, "file_url")
	file := b.want(200, request{method: "GET", path: path, key: "-"})
	if !strings.HasPrefix(string(file.body), "id,ts,") || strings.Count(string(file.body), "\n") != 6 || file.header.Get("Content-Disposition") != `attachment; filename="`+id+`.csv"` {
		t.Errorf("%v\n%s", file.header, file.body)
	}
	part := b.do(request{method: "GET", path: path, key: "-", header: map[string]string{"Range": "bytes=3-5"}})
	if part.status != http.StatusPartialContent || string(part.body) != "ts," {
		t.Errorf("%d %s", part.status, part.body)
	}
	if a := b.do(request{method: "GET", path: path + "x", key: "-"}); a.status != 404 {
		t.Errorf("with another token: %d", a.status)
	}
}
