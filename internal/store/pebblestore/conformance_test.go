package pebblestore

import (
	"os"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/store/storetest"
)

func TestMain(m *testing.M) {
	if os.Getenv(faultEnv) != "" {
		os.Exit(m.Run()) // failed stores leave goroutines behind
	}
	goleak.VerifyTestMain(m)
}

// opts returns the suite's options for stores on real files. Background work is off, so that
// indexing happens where the suite can see it.
func opts() storetest.Opts {
	var dirs sync.Map
	open := func(t testing.TB, dir string) terse.Store {
		t.Helper()
		s, err := Open(dir, Options{MaintainEvery: -1, MemTableBytes: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		dirs.Store(s, dir)
		return s
	}
	return storetest.Opts{
		New: func(t testing.TB) terse.Store {
			t.Helper()
			return open(t, t.TempDir())
		},
		Reopen: func(t testing.TB, s terse.Store) terse.Store {
			t.Helper()
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			dir, _ := dirs.Load(s)
			return open(t, dir.(string))
		},
		Forget: func(t testing.TB, s terse.Store) {
			t.Helper()
			st := s.(*Store)
			most := st.opts.FeedMaxEntries
			st.opts.FeedMaxEntries = 1 // background work is off
			defer func() { st.opts.FeedMaxEntries = most }()
			if err := st.trimFeed(t.Context()); err != nil {
				t.Fatal(err)
			}
		},
	}
}

func TestConformance(t *testing.T) { storetest.Run(t, opts()) }

func TestModel(t *testing.T) { storetest.RunModel(t, opts()) }
