package clicks

import (
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dchest/siphash"

	"github.com/terselink/terse"
)

func TestSalts(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "salts.json")
	now := noon.Add(-time.Hour) // 11:00
	clock := func() time.Time { return now }
	s, err := OpenSalts(path, clock)
	if err != nil {
		t.Fatal(err)
	}
	today := dayOf(now)
	has := func(day int64) bool { _, ok := s.Salt(day); return ok }
	check := func(name string, want ...int64) {
		t.Helper()
		for d := today - 3; d < today+6; d++ {
			wanted := false
			for _, w := range want {
				wanted = wanted || today+w == d
			}
			if has(d) != wanted {
				t.Errorf("%s: salt of day %+d: %v", name, d-today, !wanted)
			}
		}
		data, err := os.ReadFile(path)
		if err != nil || strings.Count(string(data), "2026-") != len(want) {
			t.Errorf("%s: %s %v", name, data, err)
		}
	}
	check("morning", 0)
	first, _ := s.Salt(today)
	step := func(d time.Duration) {
		now = now.Add(d)
		if err := s.Maintain(); err != nil {
			t.Fatal(err)
		}
	}
	step(2 * time.Hour)
	check("afternoon", 0, 1)
	tomorrow, _ := s.Salt(today + 1)
	step(11*time.Hour + 30*time.Minute)
	check("half past midnight", 0, 1)
	step(time.Hour)
	check("half past one", 1)
	if again, _ := s.Salt(today + 1); again != tomorrow || tomorrow == first || first == [16]byte{} {
		t.Error("a salt changed, or is not random")
	}
	// A restart keeps today's; a long absence deletes all at once.
	if s, err = OpenSalts(path, clock); err != nil {
		t.Fatal(err)
	}
	if again, _ := s.Salt(today + 1); again != tomorrow {
		t.Error("the salt did not survive a restart")
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v %v", info.Mode(), err)
	}
	now = now.Add(72 * time.Hour)
	if s, err = OpenSalts(path, clock); err != nil {
		t.Fatal(err)
	}
	check("after an absence", 4)
	// Damage: new salts, no error.
	if err := os.WriteFile(path, []byte(`{"version":1,"salts":{"2026-11-27":"zz"`), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err = OpenSalts(path, clock); err != nil {
		t.Fatal(err)
	}
	check("damaged", 4)
	if _, err := OpenSalts(filepath.Join(path, "x"), clock); err == nil {
		t.Error("a path that cannot be: no error")
	}
	// A salt that cannot be stored is not used.
	if s, err = OpenSalts(filepath.Join(t.TempDir(), "none", "salts.json"), clock); err == nil || has(dayOf(now)) {
		t.Error("an unstored salt is in use")
	}
}

func TestVisitor(t *testing.T) {
	t.Parallel()
	s := func(ip, ua string, ws terse.WorkspaceID, at time.Time) *slot {
		c := Click{IP: netip.MustParseAddr(ip), UserAgent: []byte(ua), Workspace: ws, At: terse.MillisOf(at), Language: []byte("de")}
		b := make([]byte, slotSize(&c))
		putSlot(b, &c)
		var out slot
		out.get(b)
		return &out
	}
	v := visitorHash{salts: dayNumbers{}}
	base := v.of(s("192.0.2.1", "x", 1, noon))
	same := v.of(s("::ffff:192.0.2.1", "x", 1, noon.Add(time.Hour)))
	if base == 0 || base != same {
		t.Errorf("%x %x", base, same)
	}
	for name, other := range map[string]*slot{
		"address": s("192.0.2.2", "x", 1, noon), "agent": s("192.0.2.1", "y", 1, noon),
		"workspace": s("192.0.2.1", "x", 2, noon), "day": s("192.0.2.1", "x", 1, noon.Add(24*time.Hour)),
	} {
		if v.of(other) == base {
			t.Errorf("another %s is the same visitor", name)
		}
	}
	if v.of(s("2001:db8:1:2::1", "x", 1, noon)) != v.of(s("2001:db8:1:2:ffff::9", "x", 1, noon)) {
		t.Error("one /64 is two visitors")
	}
	if v.of(s("2001:db8:1:2::1", "x", 1, noon)) == v.of(s("2001:db8:1:3::1", "x", 1, noon)) {
		t.Error("two /64 are one visitor")
	}
	// The formula of docs/clicks.md.
	day := uint64(dayOf(noon))
	if want := siphash.Hash(day, 0, []byte("\xc0\x00\x02\x01\x00x\x00\x01\x00\x00\x00")); base != want {
		t.Errorf("%x, want %x", base, want)
	}
	none := visitorHash{salts: noSalts{}}
	if none.of(s("192.0.2.1", "x", 1, noon)) != 0 || (&visitorHash{}).of(s("192.0.2.1", "x", 1, noon)) != 0 {
		t.Error("a visitor without a salt")
	}
}

// dayNumbers uses the number of a day as its salt.
type dayNumbers struct{}

func (dayNumbers) Salt(day int64) (s [16]byte, ok bool) {
	for i := range 8 {
		s[i] = byte(day >> (8 * i))
	}
	return s, true
}
func (dayNumbers) Maintain() error { return nil }

type noSalts struct{}

func (noSalts) Salt(int64) (s [16]byte, ok bool) { return }
func (noSalts) Maintain() error                  { return nil }

// TestAdopt: two machines that share their salts know the same visitors, after a restart, too; days that are over are not adopted.
func TestAdopt(t *testing.T) {
	t.Parallel()
	clock := func() time.Time { return noon.Add(time.Hour) }
	a, err := OpenSalts(filepath.Join(t.TempDir(), "a"), clock)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "b")
	b, err := OpenSalts(path, clock)
	if err != nil {
		t.Fatal(err)
	}
	days := a.Days()
	if len(days) != 2 { // today and, after noon, tomorrow
		t.Fatalf("%d days", len(days))
	}
	days["2020-01-01"] = [16]byte{1}
	if err := b.Adopt(days); err != nil {
		t.Fatal(err)
	}
	again, err := OpenSalts(path, clock)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*FileSalts{b, again} {
		if !maps.Equal(s.Days(), a.Days()) {
			t.Errorf("%v, want %v", s.Days(), a.Days())
		}
	}
	// Several machines may answer in turn, and the first one counts.
	c, err := OpenSalts(filepath.Join(t.TempDir(), "c"), clock)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*FileSalts{b, again} {
		if err := s.Adopt(c.Days()); err != nil {
			t.Fatal(err)
		}
		if !maps.Equal(s.Days(), a.Days()) {
			t.Errorf("salts were adopted twice: %v, want %v", s.Days(), a.Days())
		}
	}
}
