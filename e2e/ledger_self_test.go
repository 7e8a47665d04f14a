package e2e

import "testing"

// TestLedger proves that the judge of the crash test can say guilty.
func TestLedger(t *testing.T) {
	for _, tt := range []struct {
		name     string
		do       func(l *ledger, e *entry)
		status   int
		location string
		guilty   bool
	}{
		{name: "as acknowledged", status: 302, location: "a"},
		{name: "lost", status: 404, guilty: true},
		{name: "changed", status: 302, location: "b", guilty: true},
		{name: "not answered", status: 503, guilty: true},
		{name: "no location", status: 302, guilty: true},
		{name: "update lost", do: func(l *ledger, e *entry) { l.changed(e, "b") }, status: 302, location: "a", guilty: true},
		{name: "update", do: func(l *ledger, e *entry) { l.changed(e, "b") }, status: 302, location: "b"},
		{name: "update unknown, not applied", do: func(l *ledger, e *entry) { l.unknown(e, "b") }, status: 302, location: "a"},
		{name: "update unknown, applied", do: func(l *ledger, e *entry) { l.unknown(e, "b") }, status: 302, location: "b"},
		{name: "update unknown, something else", do: func(l *ledger, e *entry) { l.unknown(e, "b") }, status: 302, location: "c", guilty: true},
		{name: "deleted", do: func(l *ledger, e *entry) { l.changed(e, "") }, status: 404},
		{name: "deleted and back", do: func(l *ledger, e *entry) { l.changed(e, "") }, status: 302, location: "a", guilty: true},
		{name: "deletion unknown, not applied", do: func(l *ledger, e *entry) { l.unknown(e, "") }, status: 302, location: "a"},
		{name: "deletion unknown, applied", do: func(l *ledger, e *entry) { l.unknown(e, "") }, status: 404},
		{name: "issued twice", do: func(l *ledger, _ *entry) { l.created("/x", "2", "a") }, status: 302, location: "a", guilty: true},
		{name: "unknown once, then known", do: func(l *ledger, e *entry) { l.unknown(e, "b"); l.saw(e, 302, "b") }, status: 302, location: "a", guilty: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLedger()
			e := l.created("/x", "1", "a")
			if tt.do != nil {
				tt.do(l, e)
			}
			l.saw(e, tt.status, tt.location)
			if guilty := len(l.faults) > 0; guilty != tt.guilty {
				t.Errorf("guilty %t, want %t: %q", guilty, tt.guilty, l.faults)
			}
		})
	}
}

func TestClickLedger(t *testing.T) {
	var c clickLedger
	for n := range 4 {
		c.send()
		c.answer()
		if n == 1 {
			c.secure()
		}
	}
	c.send() // never answered
	c.killed()
	if c.sure != 2 || c.sent != 5 {
		t.Errorf("sure %d, sent %d", c.sure, c.sent)
	}
	c.send()
	c.answer()
	c.killed()
	if c.sure != 2 {
		t.Errorf("sure %d after a click that was not written", c.sure)
	}
}
