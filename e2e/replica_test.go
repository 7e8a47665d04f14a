package e2e

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/terselink/terse/e2e/proc"
	"github.com/terselink/terse/internal/testengine"
)

// TestReplica redirects from a streaming standby of the database. A slow one costs no redirect, and one that stands still brings no
// link back that was changed.
func TestReplica(t *testing.T) {
	waits(t)
	primary := testengine.NewPostgres(t)
	standby := primary.NewStandby(t, primary.URL)
	slow, replica := newToxicProxy(t, "replica", standby.URL)
	s := start(t, proc.Options{Env: slices.Concat(onPostgres(primary.URL), quick, []string{
		"TERSE_STORE_POSTGRES_REPLICA_URL=" + replica, "TERSE_ANALYTICS_ENABLED=false",
	})})
	a := newAPI(t, s)
	v := newVisitor(s, "User-Agent", agentDesktop)
	defer v.close()
	create := func(name string) madeLink {
		t.Helper()
		var l madeLink
		if got, err := a.json(t.Context(), "POST", "/api/v1/links", newLink{Destination: "https://example.com/" + name}, &l); err != nil || got.status != 201 {
			t.Fatalf("create: %v, %+v", err, got)
		}
		return l
	}
	// visit visits a link that is not in memory until it redirects: a stalled machine may cost a 503, but not one visit after the
	// other. It returns how many visits were 503.
	visit := func(l madeLink, name string) (lost int) {
		t.Helper()
		until(t, time.Minute, name+" redirects", func() bool {
			status, location, err := v.visit("GET", pathOf(l.ShortURL))
			if err != nil || status != 302 && status != 503 || status == 302 && location != "https://example.com/"+name {
				t.Fatalf("%s: %d to %q, %v", name, status, location, err)
			}
			if status != 302 {
				lost++
			}
			return status == 302
		})
		return lost
	}
	ask := func(sql string, args ...any) (answer bool) {
		t.Helper()
		conn, err := pgx.Connect(t.Context(), standby.URL)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
		if err := conn.QueryRow(t.Context(), sql, args...).Scan(&answer); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		return answer
	}
	// arrived waits until the standby has a link.
	arrived := func(name string) {
		t.Helper()
		until(t, time.Minute, "the standby has a link", func() bool {
			return ask("select exists (select from terse.links where destination = $1)", "https://example.com/"+name)
		})
	}
	fromReplica := func(kind string) {
		t.Helper()
		before, n := metrics(t, s)["terse_store_postgres_replica_reads_total"], 0
		until(t, time.Minute, "links are read from the standby", func() bool {
			n++
			name := fmt.Sprintf("%s/%d", kind, n)
			l := create(name)
			arrived(name)
			visit(l, name)
			return metrics(t, s)["terse_store_postgres_replica_reads_total"] > before
		})
	}

	fromReplica("well")
	slow.ail(t, `{"type":"latency","stream":"downstream","attributes":{"latency":400}}`) // a redirect has 250 ms
	lost := 0
	for i := range 20 {
		name := fmt.Sprintf("slow/%d", i)
		lost += visit(create(name), name)
	}
	t.Logf("with a slow standby %d visits of 20 links were 503", lost)
	if n := metrics(t, s)["terse_store_postgres_replica_unanswered_total"]; n == 0 {
		t.Error("no read has waited for the slow standby")
	}
	slow.heal()
	fromReplica("again")

	old := create("old")
	arrived("old")
	ask("select pg_wal_replay_pause() is not null")
	until(t, time.Minute, "the standby stands still", func() bool { return ask("select pg_get_wal_replay_pause_state() = 'paused'") })
	if got, err := a.json(t.Context(), "PATCH", "/api/v1/links/"+old.ID, newLink{Destination: "https://example.com/new"}, nil); err != nil || got.status != 200 {
		t.Fatalf("change: %v, %+v", err, got)
	}
	before := metrics(t, s)
	visit(old, "new")
	after := metrics(t, s)
	rise := func(name string) float64 { return after[name] - before[name] }
	if rise(`terse_redirect_loads_total{result="ok"}`) == 0 || rise("terse_store_postgres_replica_reads_total") != 0 {
		t.Errorf("the changed link was not read from the primary: %v reads, %v of them from the standby",
			rise(`terse_redirect_loads_total{result="ok"}`), rise("terse_store_postgres_replica_reads_total"))
	}
}
