package redirect

import (
	"testing"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/domains"
	"github.com/terselink/terse/internal/forward"
)

// linkForwarding stores links that take everything along.
func linkForwarding(w *world) {
	yes := true
	all := func(l *terse.Link) { l.Settings = &terse.LinkSettings{ForwardQuery: &yes, ForwardPath: true} }
	w.link("go.example.com", "plain", "https://example.com/")
	w.link("go.example.com", "fp", "https://example.com/base?a=1#frag", all)
	w.link("go.example.com", "fq", "https://example.com", all)
}

func TestDecideAllocs(t *testing.T) {
	d := &domains.Domain{Domain: terse.Domain{ForwardQuery: true}}
	l := link{destination: "https://example.com/p?a=1#f", forwardPath: true, forwards: true}
	l.parts = forward.Split(l.destination)
	scratch := make([]byte, 0, 256)
	f := facts{now: testNow, query: []byte("b=2&qr=1&c"), rest: []byte("x/y")}
	if n := testing.AllocsPerRun(100, func() { decide(&scratch, d, &l, &f) }); n != 0 {
		t.Errorf("decide allocates %v times, want 0", n)
	}
	if v := decide(&scratch, d, &l, &f); string(v.location) != "https://example.com/p/x/y?a=1&b=2&c#f" {
		t.Errorf("location %q", v.location)
	}
}
