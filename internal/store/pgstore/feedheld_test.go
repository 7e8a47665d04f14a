package pgstore

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/terselink/terse"
)

// TestFeedHeld: a transaction that has written and is left open holds changes up; the metric says for how long, and the log once that it does and
// by whom, and once that it is over. A transaction that has only read does not.
func TestFeedHeld(t *testing.T) {
	url := newDatabase(t, "")
	var text bytes.Buffer
	s := open(t, Options{URL: url, Log: slog.New(slog.NewTextHandler(&text, nil))})
	ctx := t.Context()
	conn, err := pgx.Connect(ctx, url+"?application_name=forgotten")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	run := func(statement string) (n int64) {
		t.Helper()
		if err := conn.QueryRow(ctx, statement).Scan(&n); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
		return n
	}
	do := func(statement string) {
		t.Helper()
		if _, err := conn.Exec(ctx, statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	now := time.Now()
	// look measures until ok; other tests on the server have transactions of their own for moments.
	look := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
			if s.lookAtFeed(ctx, now); ok() {
				return
			}
			if time.Now().After(end) {
				t.Fatal(what)
			}
		}
	}
	says := func() float64 {
		t.Helper()
		reg := prometheus.NewPedanticRegistry()
		reg.MustRegister(s.Collector())
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == "terse_store_postgres_feed_held_seconds" {
				return f.GetMetric()[0].GetGauge().GetValue()
			}
		}
		return -1
	}
	said := func(part string, want int) {
		t.Helper()
		if n := strings.Count(text.String(), part); n != want {
			t.Errorf("the log says %d times %q, want %d:\n%s", n, part, want, text.String())
		}
	}
	if got := says(); got != -1 {
		t.Errorf("%v s before anything was measured", got)
	}

	do("begin")
	pid := run("select pg_backend_pid()")
	look("a transaction that has only read holds the feed up", func() bool { return s.held.xid == 0 })
	xid := run("select pg_current_xact_id()::text::bigint")
	if err := s.PutDocument(ctx, terse.Document{Kind: terse.KindMeta, ID: "held", Version: 1, Data: []byte("1")}); err != nil {
		t.Fatal(err)
	}
	look("the open transaction is not the oldest", func() bool { return s.held.xid == xid })
	if list, err := s.Changes(ctx, 0, 100); err != nil || len(list) != 0 {
		t.Errorf("%d changes, %v: the test proves nothing", len(list), err)
	}
	now = now.Add(feedHeldLong - time.Second)
	s.lookAtFeed(ctx, now)
	said("holds up", 0)
	now = now.Add(5 * time.Second)
	s.lookAtFeed(ctx, now)
	s.lookAtFeed(ctx, now)
	if got := says(); got != 64 {
		t.Errorf("%v s, want 64", got)
	}
	said("holds up", 1)
	said(fmt.Sprintf("held=1m4s pid=%d database=terse_test_", pid), 1)
	said("application=forgotten state=\"idle in transaction\"", 1)

	canceled, cancel := context.WithCancel(ctx)
	cancel()
	s.lookAtFeed(canceled, now)
	if got := says(); got != -1 {
		t.Errorf("%v s, and the database could not be asked", got)
	}
	s.lookAtFeed(ctx, now)
	said("holds up", 1) // it is still the same one

	do("rollback")
	look("it is over, and it still holds the feed up", func() bool { return s.held.xid == 0 })
	said("has ended\" held=1m4s", 1)
	if got := says(); got != 0 {
		t.Errorf("%v s, want 0", got)
	}
	look("the change does not show", func() bool {
		list, err := s.Changes(ctx, 0, 100)
		return err == nil && len(list) == 1
	})
	said("holds up", 1)
}
