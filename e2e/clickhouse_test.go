package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"testing"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"

	"github.com/terselink/terse/e2e/proc"
	"github.com/terselink/terse/internal/testengine"
)

// newClickHouse returns the address of a database that does not exist yet and is removed in the end.
func newClickHouse(t *testing.T) string {
	t.Helper()
	server := testengine.Address(t, testengine.ClickHouse)
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("terse_e2e_%x", rand.Uint64())
	u.Path = "/" + name
	t.Cleanup(func() {
		o, err := ch.ParseDSN(server)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := ch.Open(o)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(conn.Exec(context.Background(), "DROP DATABASE IF EXISTS "+name), conn.Close()); err != nil {
			t.Error(err)
		}
	})
	return u.String()
}

func onClickHouse(address string) []string {
	return []string{"TERSE_ANALYTICS_ENGINE=clickhouse", "TERSE_ANALYTICS_CLICKHOUSE_URL=" + address}
}

// TestCrashClickHouse is TestCrash with the clicks in ClickHouse: none that is sure is missing, none counts twice.
func TestCrashClickHouse(t *testing.T) {
	runCrash(t, 3, onClickHouse(newClickHouse(t))...)
}

// TestClickHouseAway visits links while the analytics server is away, from the start and later: redirects do not
// notice, questions are refused with a reason, and afterwards every click is there once.
func TestClickHouseAway(t *testing.T) {
	waits(t)
	proxy, through := testengine.NewProxy(t, newClickHouse(t))
	proxy.Refuse()
	s := start(t, proc.Options{Env: append(onClickHouse(through), quick...)})
	a := newAPI(t, s)
	var l madeLink
	if got, err := a.json(t.Context(), "POST", "/api/v1/links", newLink{Destination: "https://example.com/away"}, &l); err != nil || got.status != 201 {
		t.Fatalf("create: %v, %+v", err, got)
	}
	visitor := &http.Client{Timeout: time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	t.Cleanup(visitor.CloseIdleConnections)
	const each = 200
	visit := func() {
		t.Helper()
		for range each {
			req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+s.RedirectAddr+pathOf(l.ShortURL), nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Host = s.Host
			resp, err := visitor.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode != 302 {
				t.Fatalf("a visit while analytics are away: %d", resp.StatusCode)
			}
		}
	}
	var sum struct {
		Total  int    `json:"total"`
		Reason string `json:"reason"`
	}
	ask := func() (int, error) {
		sum.Total = 0
		got, err := a.json(t.Context(), "GET", "/api/v1/analytics/summary?bots=include&link_id="+l.ID, nil, &sum)
		return got.status, err
	}
	visit()
	if status, err := ask(); err != nil || status != 503 {
		t.Errorf("a question while analytics are away: %d, %v; want 503", status, err)
	}
	for round := range 3 {
		proxy.Pass()
		want := (round + 1) * each
		until(t, 3*time.Minute, fmt.Sprintf("%d clicks are counted", want), func() bool {
			status, err := ask()
			if err == nil && status == 200 && sum.Total > want {
				t.Fatalf("%d clicks are counted, %d were made", sum.Total, want)
			}
			return err == nil && status == 200 && sum.Total == want
		})
		if round < 2 {
			proxy.Refuse()
			visit()
		}
	}
}
