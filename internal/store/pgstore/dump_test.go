package pgstore

import (
	"context"
	"testing"

	"github.com/terselink/terse"
)

// TestReadOnly: tables that are opened for reading must be there, and are never written.
func TestReadOnly(t *testing.T) {
	ctx := context.Background()
	url := newDatabase(t, "")
	if _, err := Open(ctx, Options{URL: url, ReadOnly: true}); terse.ErrorCode(err) != terse.CodeInvalid {
		t.Fatalf("a database without tables was opened for reading: %v", err)
	}
	s := open(t, Options{URL: url})
	doc := terse.Document{Kind: terse.KindMeta, ID: "x", Version: 1, Data: []byte("{}")}
	if err := s.PutDocument(ctx, doc); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, Options{URL: url, ReadOnly: true})
	if got, err := s.GetDocument(ctx, 0, terse.KindMeta, "x"); err != nil || got.Version != 1 {
		t.Errorf("GetDocument: %+v, %v", got, err)
	}
	doc.Version = 2
	if err := s.PutDocument(ctx, doc); err == nil {
		t.Error("a store that is opened for reading was written")
	}
}

func FuzzDumpPlace(f *testing.F) {
	for _, s := range []string{"", "e30", (dumpPlace{Table: 3, Domain: 7, ID: "ü"}).String(), "x", "eyJ0Ijo5fQ"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if p, err := parseDumpPlace(s); err == nil && s != "" && p.String() != s {
			t.Errorf("%q is read as %+v, which is written %q", s, p, p.String())
		}
	})
}
