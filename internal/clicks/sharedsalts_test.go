package clicks

import (
	"context"
	"maps"
	"path/filepath"
	"testing"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/store/memstore"
)

// firstReader is a store to which another machine writes after the first list.
type firstReader struct {
	terse.Store
	then func()
}

func (f *firstReader) ListDocuments(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, after string, limit int) ([]terse.Document, error) {
	docs, err := f.Store.ListDocuments(ctx, w, kind, after, limit)
	if then := f.then; then != nil {
		f.then = nil
		then()
	}
	return docs, err
}

// TestShareSalts: machines with one store have the same salts through the days, whoever comes first, and the store keeps none that is over.
func TestShareSalts(t *testing.T) {
	t.Parallel()
	now := noon.Add(-time.Hour)
	clock := func() time.Time { return now }
	store := memstore.New(func() terse.Millis { return terse.MillisOf(now) })
	var machines []*FileSalts
	var paths []string
	join := func(store SaltStore) *FileSalts {
		t.Helper()
		path := filepath.Join(t.TempDir(), "salts")
		s, err := OpenSalts(path, clock)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Share(t.Context(), store); err != nil {
			t.Fatal(err)
		}
		machines, paths = append(machines, s), append(paths, path)
		return s
	}
	same := func(when string, days int) {
		t.Helper()
		for i, m := range machines {
			if err := m.Share(t.Context(), store); err != nil {
				t.Fatal(err)
			}
			if got := m.Days(); len(got) != days || !maps.Equal(got, machines[0].Days()) {
				t.Errorf("%s: machine %d has %v, the first %v; want %d days", when, i, got, machines[0].Days(), days)
			}
		}
		docs, err := store.ListDocuments(t.Context(), 0, terse.KindSalt, "", 10)
		if err != nil || len(docs) != days {
			t.Errorf("%s: %d salts in the store, want %d: %v", when, len(docs), days, err)
		}
	}
	// The first to write is not the first to read.
	join(&firstReader{store, func() { join(store) }})
	join(store)
	same("before noon", 1)
	now = now.Add(2 * time.Hour)
	same("after noon", 2)
	first := machines[0].Days()
	again, err := OpenSalts(paths[1], clock)
	if err != nil {
		t.Fatal(err)
	}
	machines[1] = again
	same("after a restart", 2)
	now = now.Add(13 * time.Hour) // half past one, or later
	same("on the next day", 1)
	if got := machines[2].Days(); got[dayName(dayOf(now))] != first[dayName(dayOf(now))] {
		t.Errorf("the salt of the day was another one on the day before")
	}
	// Nobody was there for a while, and one comes back.
	now = now.Add(5 * 24 * time.Hour)
	same("days later", 1)
}

// TestShareWithout: without the store the salts of the file stay, and what is damaged in it is not believed.
func TestShareWithout(t *testing.T) {
	t.Parallel()
	clock := func() time.Time { return noon.Add(-time.Hour) }
	store := memstore.New(func() terse.Millis { return terse.MillisOf(clock()) })
	s, err := OpenSalts(filepath.Join(t.TempDir(), "salts"), clock)
	if err != nil {
		t.Fatal(err)
	}
	want := s.Days()
	for _, data := range []string{`""`, `"zz34567890abcdef1234567890abcdef"`, `{}`} {
		doc := terse.Document{Kind: terse.KindSalt, ID: dayName(dayOf(clock())), Version: 1, Data: []byte(data)}
		if err := store.PutDocument(t.Context(), doc); err != nil {
			t.Fatal(err)
		}
		if err := s.Share(t.Context(), store); terse.ErrorCode(err) != terse.CodeInternal {
			t.Errorf("%s: %v", data, err)
		}
		if !maps.Equal(s.Days(), want) {
			t.Errorf("%s changed the salts", data)
		}
		if err := store.DeleteDocument(t.Context(), 0, terse.KindSalt, doc.ID, 0); err != nil {
			t.Fatal(err)
		}
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Share(gone, store); err == nil {
		t.Error("no error without a store")
	}
	if !maps.Equal(s.Days(), want) {
		t.Error("the salts changed without a store")
	}
}
