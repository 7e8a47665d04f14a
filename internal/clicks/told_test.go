package clicks

import (
	"net/netip"
	"testing"

	"github.com/terselink/terse/internal/geo"
)

// TestToldCountry: a country that was told comes before that of the address, in the spool and in events.
func TestToldCountry(t *testing.T) {
	t.Parallel()
	const berlin = "141.20.7.77"
	for _, tt := range []struct {
		ip, told, want string
		noData         bool
	}{
		{berlin, "", "DE", false}, {berlin, "FR", "FR", false}, {berlin, "DE", "DE", false}, {"192.168.1.1", "FR", "FR", false}, {"192.168.1.1", "", "", false},
		{berlin, "FR", "FR", true}, {berlin, "", "", true},
	} {
		o := testOptions(t, nil)
		if tt.noData {
			o.Geo = nil
		}
		r := open(t, o)
		c := Click{Workspace: 1, Link: 1, Domain: "go.example.com", UserAgent: []byte(chromeUA), IP: netip.MustParseAddr(tt.ip)}
		copy(c.Country[:], tt.told)
		for range 2 { // the second is of a text that is known
			if !r.Capture(0, &c) {
				t.Fatal("dropped")
			}
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		raws, _ := readAll(t, o, Position{})
		if len(raws) != 2 || string(raws[0].Country) != tt.want || string(raws[1].Country) != tt.want || raws[0].Visitor == 0 {
			t.Errorf("%+v: %+v", tt, raws)
		}
		e := enricher(t, EnricherOptions{})
		var ev Event
		if e.Enrich(&raws[0], &ev); ev.Country != tt.want {
			t.Errorf("%+v: the event has %q", tt, ev.Country)
		}
	}
}

// TestTell: region and city stay only with the country that they are in; the network is that of the address.
func TestTell(t *testing.T) {
	t.Parallel()
	berlin := geo.Place{Country: "DE", Region: "DE-BE", City: "Berlin", ASN: 680}
	for told, want := range map[string]geo.Place{"": berlin, "DE": berlin, "FR": {Country: "FR", ASN: 680}} {
		p := berlin
		if tell(&p, told); p != want {
			t.Errorf("%q: %+v", told, p)
		}
	}
}
