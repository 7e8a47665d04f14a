package changes

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/terselink/terse"
)

var everyKind = message{sender: 7, number: 300, events: []Event{
	{Kind: KindLink, Number: terse.NewLinkNumber(3, 7, 1234), Code: "aB3xYz9", Version: 17},
	{Kind: KindLink, Number: terse.NewLinkNumber(3, terse.AliasSpace, 5), Code: "sommer-ü", Version: 1, Created: true},
	{Kind: KindLink, Number: 1, Code: "x", Version: 2, Deleted: true},
	{Kind: KindLinks},
	{Kind: KindDocument, Workspace: 9, DocKind: terse.KindCampaign, DocID: "camp_1", Version: 4},
	{Kind: KindDocument, DocKind: terse.KindDomain, DocID: "go.example.com", Deleted: true},
	{Kind: KindFailure, DocKind: "api_key", DocID: "192.0.2.1/32"},
}}

func TestMessage(t *testing.T) {
	t.Parallel()
	for _, m := range []message{everyKind, {sender: 1<<64 - 1}} {
		got, err := parseMessage(appendMessage(nil, &m))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(m, got, cmp.AllowUnexported(message{})); d != "" {
			t.Error(d)
		}
	}
}

// TestMessageCut: no part of a message is taken for a whole one, and nothing after it is ignored.
func TestMessageCut(t *testing.T) {
	t.Parallel()
	b := appendMessage(nil, &everyKind)
	for n := range len(b) {
		if _, err := parseMessage(b[:n]); err == nil {
			t.Errorf("the first %d of %d bytes are a message", n, len(b))
		}
	}
	if _, err := parseMessage(append(b, 0)); err == nil {
		t.Error("a byte more is a message")
	}
}

func FuzzMessage(f *testing.F) {
	f.Add(appendMessage(nil, &everyKind))
	f.Add(appendMessage(nil, &message{sender: 1, number: 2}))
	f.Add([]byte("T\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseMessage(b)
		if err != nil {
			return
		}
		again, err := parseMessage(appendMessage(nil, &m))
		if err != nil {
			t.Fatalf("%+v: %v", m, err)
		}
		if d := cmp.Diff(m, again, cmp.AllowUnexported(message{})); d != "" {
			t.Fatal(d)
		}
		if len(b) > 0 && bytes.Equal(b, []byte{b[0]}) {
			t.Fatal("one byte is a message")
		}
	})
}
