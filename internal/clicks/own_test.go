package clicks

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/terselink/terse"
)

// TestOwnReferrals follows referrers through the recorder to events: those from domains of the workspace of the click are direct.
func TestOwnReferrals(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, referrer string
		workspace      terse.WorkspaceID
		host           string // of the event
		path           string // with the setting
		written        bool   // the referrer is in the spool
	}{
		{"its own domain", "https://go.example.com/a", 1, "", "", false},
		{"another domain of the workspace", "https://promo.example/x/y?z#f", 1, "", "", false},
		{"with a label that says how it is shown", "https://www.m.promo.example/x", 1, "", "", false},
		{"in other letters, with user, port and dot", "HTTPS://u:p@Promo.EXAMPLE.", 1, "", "", false},
		{"with a port", "http://promo.example:8080/x", 1, "", "", false},
		{"a domain of everybody", "http://shared.example/", 1, "", "", false},
		{"the same of another workspace", "https://promo.example/x/y?z#f", 2, "promo.example", "/x/y", true},
		{"a host below it", "https://shop.promo.example/x", 1, "shop.promo.example", "/x", true},
		{"a host that begins so", "https://promo.example.attacker.test/", 1, "promo.example.attacker.test", "", true},
		{"a path that looks so", "https://blog.test/promo.example", 1, "blog.test", "/promo.example", true},
		{"an app", "android-app://promo.example/", 1, "promo.example", "", true},
		{"none", "", 1, "", "", false},
		{"no address", "promo.example", 1, "", "", true},
		{"nothing but a scheme", "https://", 1, "", "", true},
	} {
		o := Options{Dir: filepath.Join(t.TempDir(), "spool"), Own: func(w terse.WorkspaceID, host []byte) bool {
			if i := bytes.IndexByte(host, ':'); i >= 0 {
				host = host[:i]
			}
			owner, ok := map[string]terse.WorkspaceID{"go.example.com": 1, "promo.example": 1, "shared.example": 0}[string(host)]
			return ok && (owner == 0 || owner == w)
		}}
		r := open(t, o)
		c := Click{Workspace: tt.workspace, Link: 1, Domain: "go.example.com", UserAgent: []byte(chromeUA), Referrer: []byte(tt.referrer)}
		if !r.Capture(0, &c) {
			t.Fatal("dropped")
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		if raws, _ := readAll(t, o, Position{}); len(raws) != 1 || len(raws[0].Referrer) > 0 != tt.written {
			t.Errorf("%s: %d records, the referrer %q is in the spool", tt.name, len(raws), raws[0].Referrer)
		}
		for _, set := range []EnrichSettings{{}, {RefPath: true}} {
			path := ""
			if set.RefPath {
				path = tt.path
			}
			if ev := onlyEvent(t, o.Dir, set); ev.RefHost != tt.host || ev.Source != tt.host || ev.RefPath != path {
				t.Errorf("%s, %+v: from %q %q, source %q, want %q %q", tt.name, set, ev.RefHost, ev.RefPath, ev.Source, tt.host, path)
			}
		}
	}
}

// onlyEvent returns the one event of a spool.
func onlyEvent(t *testing.T, dir string, set EnrichSettings) (ev Event) {
	t.Helper()
	r, err := OpenEvents(dir, Position{}, set)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	n, err := r.Next(t.Context(), 10, func(e *Event) error { ev = *e; return nil })
	if err != nil || n != 1 {
		t.Fatalf("%d events, %v", n, err)
	}
	return ev
}

// TestSettingsOfReaders: every way to events follows the settings.
func TestSettingsOfReaders(t *testing.T) {
	t.Parallel()
	b := newGroupBuilder()
	client := AppendClient(nil, chromeUA, "", "")
	b.add(&record{slot: &slot{at: 1, link: 1, client: client}, weight: 1, visitor: 5, place: appendPlace(nil, 64496, "", ""), referrer: []byte("https://blog.test/post")})
	group := b.appendGroup(nil)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, segmentID{newBoot(1, 1), 1}.name()), append(appendSegmentHeader(nil, 1, "n1"), group...), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, set := range []EnrichSettings{{}, {RefPath: true, Hosting: []uint32{64496}}} {
		path, class := "", Human
		if set.RefPath {
			path, class = "/post", BotScanner
		}
		check := func(how string, ev *Event) {
			if ev.RefPath != path || ev.Bot != class || ev.RefHost != "blog.test" {
				t.Errorf("%s, %+v: %q, class %d", how, set, ev.RefPath, ev.Bot)
			}
		}
		ev := onlyEvent(t, dir, set)
		check("a reader", &ev)
		groups, err := NewGroupEvents(set)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := groups.Each(group, "n1", func(e *Event) error { check("groups", e); return nil }); n != 1 || err != nil {
			t.Errorf("%d events of groups, %v", n, err)
		}
		tail, err := OpenTail(dir, Position{}, set)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := tail.Next(t.Context(), 10, func(e *Event) error { check("a tail", e); return nil }); n != 1 || err != nil {
			t.Errorf("%d events of a tail, %v", n, err)
		}
		if err := tail.Close(); err != nil {
			t.Error(err)
		}
	}
}
