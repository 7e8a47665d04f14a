package pgstore

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/store/storetest"
	"github.com/terselink/terse/internal/testengine"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newDatabase makes an empty database on the test server and returns its address there and, for a
// test through another address of the same server, at that one.
func newDatabase(t testing.TB, at string) string {
	t.Helper()
	server := testengine.Address(t, testengine.Postgres)
	name := fmt.Sprintf("terse_test_%x", rand.Uint64())
	exec(t, server, "create database "+name)
	t.Cleanup(func() { exec(t, server, "drop database if exists "+name+" with (force)") })
	if at == "" {
		at = server
	}
	u, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + name
	return u.String()
}

// exec runs statements on a connection of their own.
func exec(t testing.TB, address string, statements ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	for _, s := range statements {
		if _, err := conn.Exec(ctx, s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

func open(t testing.TB, o Options) *Store {
	t.Helper()
	o.MaintainEvery = -1
	s, err := Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// opts returns the suite's options; o says how to connect, at which address of the server.
func opts(o Options, at string) storetest.Opts {
	var urls sync.Map
	return storetest.Opts{
		New: func(t testing.TB) terse.Store {
			t.Helper()
			o.URL = newDatabase(t, at)
			s := open(t, o)
			urls.Store(s, o.URL)
			return s
		},
		Reopen: func(t testing.TB, old terse.Store) terse.Store {
			t.Helper()
			if err := old.Close(); err != nil {
				t.Fatal(err)
			}
			address, _ := urls.Load(old)
			o.URL = address.(string)
			s := open(t, o)
			urls.Store(s, o.URL)
			return s
		},
		Forget: func(t testing.TB, s terse.Store) {
			t.Helper()
			st := s.(*Store)
			age := st.o.FeedMaxAge
			st.o.FeedMaxAge = 0 // background work is off
			defer func() { st.o.FeedMaxAge = age }()
			if err := st.trim(t.Context()); err != nil {
				t.Fatal(err)
			}
		},
		// The feed waits for transactions of the whole server, those of other tests too.
		Retry: func(attempt int) bool {
			<-time.After(time.Duration(min(attempt, 50)) * time.Millisecond)
			return attempt < 1200 // a minute
		},
	}
}

func TestConformance(t *testing.T) { storetest.Run(t, opts(Options{}, "")) }

func TestModel(t *testing.T) {
	// A history costs some hundred round trips: fewer of them than of an engine in the process, unless asked for.
	if f := flag.Lookup("rapid.checks"); f.Value.String() == f.DefValue {
		if err := f.Value.Set("25"); err != nil {
			t.Fatal(err)
		}
	}
	storetest.RunModel(t, opts(Options{}, ""))
}

func BenchmarkStore(b *testing.B) { storetest.Bench(b, opts(Options{}, "")) }
