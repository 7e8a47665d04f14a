package api_test

import (
	"context"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/terselink/terse"
)

// objects is a bucket in memory, which fails while away is set.
type objects struct {
	mu   sync.Mutex
	list map[string]string
	away bool
}

func (o *objects) Put(_ context.Context, name, path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.away {
		return &terse.Error{Code: terse.CodeUnavailable, Message: "s3://exports does not answer"}
	}
	if o.list == nil {
		o.list = map[string]string{}
	}
	o.list[name] = string(data)
	return nil
}

func (o *objects) setAway(away bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.away = away
}

// TestExportSchedule makes a schedule, sees it fail, go on and catch up, pauses and deletes it.
func TestExportSchedule(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	for _, body := range []string{
		`{"every":"weekly","format":"csv"}`, `{"every":"daily","format":"xml"}`, `{"every":"daily","format":"csv","prefix":"../x"}`,
		`{"every":"daily","format":"csv","from":"yesterday"}`, `{"every":"daily","format":"csv","from":"2999-01-01T00:00:00Z"}`, `{"every":"daily","format":"csv","from":"1960-01-01T00:00:00Z"}`,
		`{"every":"daily","format":"csv","filters":["is,nothing,DE"]}`,
	} {
		b.want(422, request{method: "POST", path: "/api/v1/exports/schedules", body: body})
	}
	for path, body := range map[string]string{"/api/v1/exports/schedules": `{"every":"daily","format":"csv",`, "/api/v1/exports": `{"format":"csv",`} {
		a := b.want(422, request{method: "POST", path: path, body: body + `"filters":["is,country,DE","is,nothing,DE"]}`})
		if !strings.Contains(string(a.body), `"body.filters"`) {
			t.Errorf("%s: a filter that cannot be: %s", path, a.body)
		}
	}
	now := b.clock().Time()
	from := now.Add(-2 * time.Hour)
	a := b.want(201, request{method: "POST", path: "/api/v1/exports/schedules",
		body: `{"name":"for the warehouse","every":"hourly","format":"csv","prefix":"warehouse","all":true,"from":"` + from.Format(time.RFC3339) + `"}`})
	id, path := a.text(t, "id"), "/api/v1/exports/schedules/"+a.text(t, "id")
	if a.text(t, "state") != "active" || a.header.Get("Location") != path || a.text(t, "next_from") != from.Truncate(time.Hour).Format(time.RFC3339) {
		t.Errorf("%v %s", a.header, a.body)
	}
	b.want(409, request{method: "POST", path: "/api/v1/exports/schedules", body: `{"every":"hourly","format":"csv","prefix":"warehouse"}`})

	b.bucket.setAway(true)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.schedules.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	until := func(what string, f func(a answer) bool) (a answer) {
		t.Helper()
		deadline := time.NewTimer(time.Minute)
		defer deadline.Stop()
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for {
			if a = b.want(200, request{method: "GET", path: path}); f(a) {
				return a
			}
			select {
			case <-tick.C:
			case <-deadline.C:
				t.Fatalf("never: %s\n%s", what, a.body)
			}
		}
	}
	a = until("a failure", func(a answer) bool { return a.text(t, "state") == "failing" })
	if !strings.Contains(a.text(t, "error"), "does not answer") || a.text(t, "retry_at") == "" {
		t.Errorf("%s", a.body)
	}
	b.bucket.setAway(false)
	if a := b.want(200, request{method: "PATCH", path: path, body: `{"state":"paused"}`}); a.text(t, "state") != "paused" {
		t.Errorf("%s", a.body)
	}
	b.want(422, request{method: "PATCH", path: path, body: `{"state":"failing"}`})
	b.want(200, request{method: "PATCH", path: path, body: `{"state":"active"}`}) // which tries at once
	last := now.Add(-2 * time.Minute).Truncate(time.Hour).Add(-time.Hour)         // the last one that is due
	name := "/warehouse/dt=" + last.Format(time.DateOnly) + "/hour=" + last.Format("15") + "/clicks.csv"
	until("the last object", func(a answer) bool { return a.text(t, "state") == "active" && strings.Contains(string(a.body), name) })
	if data := b.bucket.find(name); !strings.HasPrefix(data, "id,ts,") {
		t.Errorf("%s is %q", name, data)
	}
	if list := b.want(200, request{method: "GET", path: "/api/v1/exports/schedules"}); !strings.Contains(string(list.body), id) {
		t.Errorf("%s", list.body)
	}
	b.want(204, request{method: "DELETE", path: path})
	b.want(404, request{method: "GET", path: path})
}

// find returns the object whose name ends so.
func (o *objects) find(suffix string) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	for name, data := range o.list {
		if strings.HasSuffix(name, suffix) {
			return data
		}
	}
	return ""
}
