package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/terselink/terse/e2e/proc"
)

// TestCallback follows callbacks to a receiver that verifies them with the reference library:
// one that fails at first gets the message again, with the same id; one that answers 410 gets
// it once. The receiver is on loopback, which only the configuration allows.
func TestCallback(t *testing.T) {
	waits(t)
	type post struct {
		path, id string
		err      error
	}
	var mu sync.Mutex
	var posts []post
	const secret = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := post{path: r.URL.Path, id: r.Header.Get("Webhook-Id")}
		body, err := io.ReadAll(r.Body)
		hook, herr := standardwebhooks.NewWebhook(secret)
		if p.err = err; err == nil {
			if p.err = herr; herr == nil {
				p.err = hook.Verify(body, r.Header)
			}
		}
		mu.Lock()
		defer mu.Unlock()
		first := !slices.ContainsFunc(posts, func(q post) bool { return q.path == p.path })
		posts = append(posts, p)
		switch {
		case p.path == "/gone":
			w.WriteHeader(http.StatusGone)
		case first:
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	defer receiver.Close()
	_, port, err := net.SplitHostPort(receiver.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	create := func(a *api, path string) *answer {
		t.Helper()
		body := []byte(`{"destination":"https://example.com/"}` + "\n")
		id := a.upload(t, "rows.ndjson", body)
		if got := a.append(t, id, 0, body); got.status != 200 {
			t.Fatalf("append: %d %s", got.status, got.body)
		}
		got, err := a.json(t.Context(), "POST", "/api/v1/jobs", map[string]any{
			"kind": "bulk", "source": map[string]string{"upload_id": id}, "callback": map[string]string{"url": receiver.URL + path, "secret": secret},
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	guarded := newAPI(t, start(t, proc.Options{Env: quick}))
	if got := create(guarded, "/none"); got.status != 403 && got.status != 422 {
		t.Errorf("a callback to loopback: %d %s", got.status, got.body)
	}
	a := newAPI(t, start(t, proc.Options{Env: append(slices.Clone(quick), "TERSE_OUTBOUND_ALLOW=127.0.0.0/8", "TERSE_OUTBOUND_PORTS="+port)}))
	for _, path := range []string{"/again", "/gone"} {
		if got := create(a, path); got.status != 201 {
			t.Fatalf("create: %d %s", got.status, got.body)
		}
	}
	until(t, 2*time.Minute, "the callback comes again", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(posts) >= 3
	})
	var jobs struct {
		Data []struct {
			Callback struct {
				URL      string `json:"url"`
				Delivery string `json:"delivery"`
				Attempts int    `json:"attempts"`
				Secret   string `json:"secret"`
			} `json:"callback"`
		} `json:"data"`
	}
	want := map[string]string{"/again": "delivered 2", "/gone": "failed 1"}
	until(t, 3*time.Minute, "the outcome is written down", func() bool {
		if got, err := a.json(t.Context(), "GET", "/api/v1/jobs", nil, &jobs); err != nil || got.status != 200 {
			t.Fatalf("list: %v, %+v", err, got)
		}
		for _, j := range jobs.Data {
			path := j.Callback.URL[len(receiver.URL):]
			if fmt.Sprint(j.Callback.Delivery, " ", j.Callback.Attempts) != want[path] {
				return false
			}
			if j.Callback.Secret != "" {
				t.Fatal("the secret is shown again")
			}
		}
		return len(jobs.Data) == 2
	})
	mu.Lock()
	defer mu.Unlock()
	ids := map[string]string{}
	for _, p := range posts {
		if p.err != nil {
			t.Errorf("%s: %v", p.path, p.err)
		}
		if old := ids[p.path]; p.id == "" || old != "" && old != p.id {
			t.Errorf("%s came as %q and as %q", p.path, old, p.id)
		}
		ids[p.path] = p.id
	}
	if len(posts) != 3 {
		t.Errorf("%d posts, want 3", len(posts))
	}
}
