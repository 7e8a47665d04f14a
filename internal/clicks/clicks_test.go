package clicks

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/geo"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// noon is the clock of the tests.
var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func noonClock() time.Time { return noon }

// fixedSalts has the same salt every day.
type fixedSalts [16]byte

func (s fixedSalts) Salt(int64) ([16]byte, bool) { return s, true }
func (fixedSalts) Maintain() error               { return nil }

// agents are what the test clicks come from.
var agents = []string{
	"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/%d.0.0.0 Safari/537.36",
	"Mozilla/5.0 (iPhone; CPU iPhone OS 18_%d like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.3 Mobile/15E148 Safari/604.1",
	"Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/%d.0.0.0 Mobile Safari/537.36",
	"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/%d.1 Safari/605.1.15",
	"Mozilla/5.0 (Linux; Android 14; SM-S%d8B Build/UP1A.231005.007; wv) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/131.0.6778.200 Mobile Safari/537.36 Instagram 361.0.0.46.88 Android (34/14; 420dpi; 1080x2340; samsung; SM-S918B; dm3q; qcom; de_DE; 673256710)",
	"Mozilla/5.0 (X11; Linux x86_64; rv:%d.0) Gecko/20100101 Firefox/133.0",
}

// makeClicks returns n clicks as a personalised campaign makes them: a link, a
// code and an address each, and clients as they are spread in practice.
func makeClicks(n int, seed uint64) []Click {
	rnd := rand.New(rand.NewPCG(seed, 1))
	zipf := rand.NewZipf(rnd, 1.3, 4, 40)
	referrers := []string{"", "", "", "https://www.google.com/", "https://l.instagram.com/?u=x", "android-app://com.google.android.gm/"}
	languages := []string{"de-DE,de;q=0.9,en;q=0.8", "en-US,en;q=0.9", "fr-FR,fr;q=0.9", "en-GB"}
	cs := make([]Click, n)
	for i := range cs {
		cs[i] = Click{
			At:          terse.MillisOf(noon.Add(time.Duration(i) * 10 * time.Microsecond)),
			Workspace:   7,
			Link:        terse.NewLinkNumber(3, 7, rnd.Uint64N(1<<30)),
			Campaign:    12,
			Domain:      "go.example.com",
			Code:        fmt.Appendf(nil, "%07x", rnd.Uint32()&0xfffffff),
			Destination: fmt.Sprintf("https://shop.example/p/A%d?u=%x&utm_source=sms&utm_campaign=autumn", zipf.Uint64(), rnd.Uint64()),
			IP:          netip.AddrFrom4([4]byte{byte(80 + rnd.IntN(20)), byte(rnd.Uint32()), byte(rnd.Uint32()), byte(rnd.Uint32())}),
			UserAgent:   fmt.Appendf(nil, agents[rnd.IntN(len(agents))], 100+zipf.Uint64()),
			Referrer:    []byte(referrers[rnd.IntN(len(referrers))]),
			Language:    []byte(languages[rnd.IntN(len(languages))]),
			Platform:    []byte(`"Android"`),
		}
	}
	return cs
}

func testOptions(tb testing.TB, fs vfs.FS) Options {
	o := Options{Dir: "/data/spool", Node: "n1", Shards: 4, BufferBytes: 8 << 20, FS: fs, Clock: noonClock, Salts: fixedSalts{1, 2, 3}, Geo: geo.Embedded()}
	if fs == nil {
		o.Dir = tb.TempDir()
	}
	return o
}

func open(tb testing.TB, o Options) *Recorder {
	tb.Helper()
	r, err := Open(o)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// copied is a Raw that owns its bytes.
func copied(r *Raw) Raw {
	c := *r
	for _, p := range []*[]byte{&c.Country, &c.Region, &c.City, &c.Domain, &c.Code, &c.Destination, &c.UserAgent, &c.Language, &c.Platform, &c.Referrer, &c.Query, &c.Network} {
		*p = bytes.Clone(*p)
	}
	return c
}

// readAll returns everything after from.
func readAll(tb testing.TB, o Options, from Position) ([]Raw, *Reader) {
	tb.Helper()
	rd, err := NewReader(ReaderOptions{Dir: o.Dir, FS: o.FS, From: from})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = rd.Close() })
	return drain(tb, rd), rd
}

func drain(tb testing.TB, rd *Reader) (all []Raw) {
	tb.Helper()
	for {
		n, err := rd.Next(context.Background(), 1000, func(r *Raw) error {
			all = append(all, copied(r))
			return nil
		})
		if err != nil {
			tb.Fatal(err)
		}
		if n == 0 {
			return all
		}
	}
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	for _, fs := range []vfs.FS{nil, vfs.NewMem()} {
		o := testOptions(t, fs)
		o.BufferBytes = 64 << 20
		r := open(t, o)
		clicks := makeClicks(20_000, 1)
		clicks[3].Rule, clicks[4].Outcome, clicks[5].Campaign = 200, OutcomePreview, 0
		clicks[6] = Click{At: 5, Outcome: OutcomeNotFound, Code: []byte("unknown"), Domain: "x"}
		clicks[7].Flags = flagsKnown
		clicks[9].Flags = FlagOptOut | FlagQR
		clicks[8].ID = NewClickID(clicks[8].At, 0xabcdef, 0x0123456789abcdef)
		byCode := map[string]*Click{}
		for i := range clicks {
			c := &clicks[i]
			byCode[string(c.Code)+c.At.Time().String()] = c
			if !r.Capture(uint32(i), c) {
				t.Fatal("dropped")
			}
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		s := r.Stats()
		if s.Captured != 20_000 || s.Spooled != 20_000 || s.Dropped.Sum() != 0 {
			t.Fatalf("stats %+v", s)
		}
		got, rd := readAll(t, o, Position{})
		if len(got) != len(clicks) {
			t.Fatalf("read %d", len(got))
		}
		ids := map[[16]byte]bool{}
		for _, g := range got {
			c := byCode[string(g.Code)+g.At.Time().String()]
			if c == nil {
				t.Fatalf("unknown record %+v", g)
			}
			if c.ID != (terse.ClickID{}) && c.ID != terse.ClickID(g.ID) {
				t.Errorf("id %x, want %x", g.ID, c.ID)
			}
			cut, _ := trackingOnlyURL(nil, []byte(c.Destination))
			want := Raw{
				ID: g.ID, At: c.At, Workspace: c.Workspace, Link: c.Link, Campaign: c.Campaign, Rule: c.Rule, Outcome: c.Outcome,
				Flags: c.Flags &^ FlagOptOut, Weight: 1, Visitor: g.Visitor, Country: []byte(o.Geo.Country(c.IP)), Domain: []byte(c.Domain), Code: c.Code,
				Destination: cut, UserAgent: c.UserAgent, Language: c.Language, Platform: c.Platform, Referrer: cutQuery(c.Referrer), Node: "n1",
			}
			if a, b := fmt.Sprintf("%+v", g), fmt.Sprintf("%+v", want); a != b {
				t.Fatalf("got  %s\nwant %s", a, b)
			}
			if anonymous := !c.IP.IsValid() || c.Flags&(FlagNoTrack|FlagOptOut) != 0; (g.Visitor == 0) != anonymous {
				t.Fatalf("visitor %x of %+v", g.Visitor, c)
			}
			if ids[g.ID] || g.ID[6]>>4 != 7 || g.ID[8]>>6 != 2 {
				t.Fatalf("id %x", g.ID)
			}
			ids[g.ID] = true
		}
		if rd.Stats().TornBytes != 0 || rd.Stats().Quarantined != 0 {
			t.Fatalf("%+v", rd.Stats())
		}
		// A second reader from the end finds nothing, from the middle the rest.
		if rest, _ := readAll(t, o, rd.Position()); len(rest) != 0 {
			t.Fatalf("%d after the end", len(rest))
		}
	}
}
