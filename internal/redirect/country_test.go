package redirect

import (
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse"
)

// TestToldCountry: what the header says counts for clicks, rules and whoami alike, from a trusted proxy alone, and only with the setting.
func TestToldCountry(t *testing.T) {
	t.Parallel()
	const proxy, stranger = "203.0.113.9", "198.51.100.7"
	const german = "X-Forwarded-For: 192.0.2.1\r\n" // in Berlin, says the atlas
	for _, tt := range []struct {
		name, setting, peer, headers string
		told                         string // of the click; the address says the rest later
		country, region              string // of whoami and of rules
	}{
		{"another country", "CF-IPCountry", proxy, german + "CF-IPCountry: FR", "FR", "FR", ""},
		{"in small letters", "cf-ipcountry", proxy, german + "cf-ipcountry: FR", "FR", "FR", ""},
		{"the same country", "CF-IPCountry", proxy, german + "CF-IPCountry: DE", "DE", "DE", "DE-BE"},
		{"another header", "CloudFront-Viewer-Country", proxy, german + "CloudFront-Viewer-Country: FR", "FR", "FR", ""},
		{"one that is not set", "CloudFront-Viewer-Country", proxy, german + "CF-IPCountry: FR", "", "DE", "DE-BE"},
		{"no setting", "", proxy, german + "CF-IPCountry: FR", "", "DE", "DE-BE"},
		{"nobody's proxy", "CF-IPCountry", stranger, german + "CF-IPCountry: DE", "", "FR", ""},
		{"unknown", "CF-IPCountry", proxy, german + "CF-IPCountry: XX", "", "DE", "DE-BE"},
		{"Tor", "CF-IPCountry", proxy, german + "CF-IPCountry: T1", "", "DE", "DE-BE"},
		{"no country", "CF-IPCountry", proxy, german + "CF-IPCountry: FRA", "", "DE", "DE-BE"},
		{"empty", "CF-IPCountry", proxy, german + "CF-IPCountry:", "", "DE", "DE-BE"},
		{"twice", "CF-IPCountry", proxy, german + "CF-IPCountry: FR\r\nCF-IPCountry: FR", "", "DE", "DE-BE"},
		{"three times", "CF-IPCountry", proxy, german + "CF-IPCountry: FR\r\nCF-IPCountry: FR\r\nCF-IPCountry: FR", "", "DE", "DE-BE"},
		{"none", "CF-IPCountry", proxy, german + "X: y", "", "DE", "DE-BE"},
	} {
		w := newWorld(t, func(o *Options) {
			o.Places, o.CookieKey, o.TrustedProxies, o.CountryHeader = atlas{}, make([]byte, 32), []string{"203.0.113.0/24"}, tt.setting
		})
		w.link("go.example.com", "a", "https://other.test/", settings(terse.LinkSettings{Rules: []terse.Rule{
			to("https://de.test/be", on("country", "", "DE"), on("region", "", "DE-BE")),
			to("https://de.test/", on("country", "", "DE")), to("https://fr.test/", on("country", "", "FR")),
		}}))
		w.link("go.example.com", "b", "https://other.test/", settings(terse.LinkSettings{Rules: []terse.Rule{
			to("https://de.test/", on("country", "", "DE")), to("https://fr.test/", on("country", "", "FR")),
		}}))
		ask := func(target string) []byte {
			ctx := newCtxFrom(t, tt.peer, "GET "+target+" HTTP/1.1\r\nHost: go.example.com\r\nUser-Agent: "+macAgent+"\r\n"+tt.headers+"\r\n\r\n")
			w.server.handle(ctx)
			return ctx.Response.Body()
		}
		ask("/a")
		ask("/b")
		wantB := map[string]string{"FR": "https://fr.test/", "DE": "https://de.test/"}[tt.country]
		wantA := wantB
		if tt.region != "" {
			wantA = "https://de.test/be"
		}
		got := w.clicks.take()
		if len(got) != 2 || got[0].Destination != wantA || got[1].Destination != wantB {
			t.Errorf("%s: clicks %+v, want to %s and %s", tt.name, got, wantA, wantB)
			continue
		}
		var told [2]byte
		copy(told[:], tt.told)
		if got[0].Country != told || got[1].Country != told {
			t.Errorf("%s: the clicks are told %q and %q", tt.name, got[0].Country, got[1].Country)
		}
		var seen Seen
		if err := json.Unmarshal(ask(w.ticket()), &seen); err != nil || seen.Country != tt.country || seen.Region != tt.region {
			t.Errorf("%s: whoami says %q, %q, %v", tt.name, seen.Country, seen.Region, err)
		}
	}
	for _, name := range []string{"CF IPCountry", "CF-IPCountry:", "é"} {
		if _, err := New(Options{Domains: newWorld(t).domains, Store: newWorld(t).reader, CountryHeader: name}); terse.ErrorCode(err) != terse.CodeInvalid {
			t.Errorf("%q: %v", name, err)
		}
	}
}
