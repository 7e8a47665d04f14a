package pebblestore

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/terselink/terse"
)

// TestReadOnly: a store that is opened for reading is locked, readable and never written.
func TestReadOnly(t *testing.T) {
	ctx := context.Background()
	dir := filepath.Join(t.TempDir(), "store")
	if _, err := Open(dir, Options{ReadOnly: true}); err == nil {
		t.Fatal("a directory that is not there was opened for reading")
	}
	s, err := Open(dir, Options{MaintainEvery: -1})
	if err != nil {
		t.Fatal(err)
	}
	doc := terse.Document{Kind: terse.KindMeta, ID: "x", Version: 1, Data: []byte("{}")}
	if err := s.PutDocument(ctx, doc); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{ReadOnly: true}); terse.ErrorCode(err) != terse.CodeUnavailable {
		t.Fatalf("a directory in use was opened for reading: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the first leaves what the second needs
		s, err = Open(dir, Options{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := s.GetDocument(ctx, 0, terse.KindMeta, "x"); err != nil || got.Version != 1 {
			t.Errorf("GetDocument: %+v, %v", got, err)
		}
		doc.Version = 2
		if err := s.PutDocument(ctx, doc); err == nil {
			t.Error("a store that is opened for reading was written")
		}
		if _, err := s.Lease(ctx, terse.LeaseRequest{Domain: 1, Space: 7, Count: 1}); err == nil {
			t.Error("a store that is opened for reading gave a lease")
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// FuzzDumpCursor: no text that somebody passes as a cursor does more than be refused.
func FuzzDumpCursor(f *testing.F) {
	s, err := Open(f.TempDir(), Options{MaintainEvery: -1})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = s.Close() })
	for _, text := range []string{"", "61", "64000000000171", "6e", "7a", "x", "64"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, after string) {
		if _, err := s.Dump(context.Background(), after, 10); err != nil && terse.ErrorCode(err) != terse.CodeInvalid {
			t.Errorf("%q: %v", after, err)
		}
	})
}
