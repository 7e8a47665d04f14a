package clicks

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/terselink/terse"
)

const (
	chromeUA    = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36"
	instagramUA = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/22B83 Instagram 358.0.0.29.90 (iPhone15,3; iOS 18_1; de_DE; de; scale=3.00; 1290x2796; 658000000)"
	googleUA    = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
)

func enricher(tb testing.TB, o EnricherOptions) *Enricher {
	tb.Helper()
	if o.RepeatBytes == 0 {
		o.RepeatBytes = 1 << 20
	}
	e, err := NewEnricher(o)
	if err != nil {
		tb.Fatal(err)
	}
	return e
}

func TestEnrich(t *testing.T) {
	t.Parallel()
	e := enricher(t, EnricherOptions{EnrichSettings: EnrichSettings{RefPath: true}})
	raw := Raw{
		ID: [16]byte{1}, At: terse.MillisOf(noon), Workspace: 7, Link: 99, Campaign: 3, Rule: 2, Outcome: OutcomeRedirect, Flags: FlagQR, Weight: 10,
		Visitor: 55, ASN: 64500, Country: []byte("DE"), Region: []byte("DE-BE"), City: []byte("Berlin"), Domain: []byte("go.example.com"),
		Code: []byte("aB3"), Destination: []byte("https://shop.example/p?utm_source=sms&utm_term=red+shoe%21&utm_medium=ignored"), UserAgent: []byte(chromeUA),
		Language: []byte("de-AT,de;q=0.9"), Platform: []byte(`"Windows"`), Referrer: []byte("https://www.Reddit.com/r/golang/"),
		Query: []byte("utm_medium=push&utm_campaign=%C3%84pfel"), Node: "n1",
	}
	want := Event{
		ID: [16]byte{1}, At: terse.MillisOf(noon), Workspace: 7, Link: 99, Campaign: 3, Domain: "go.example.com", Code: "aB3", Destination: "https://shop.example/p",
		Rule: 2, Outcome: OutcomeRedirect, Trigger: "qr", Visitor: 55, Country: "DE", Region: "DE-BE", City: "Berlin", ASN: 64500, Device: "desktop",
		OS: "Windows", OSVersion: "10", Browser: "Chrome", BrowserVer: "131", Language: "de", RefHost: "reddit.com", RefPath: "/r/golang/", Source: "SMS",
		UTMSource: "sms", UTMMedium: "push", UTMCampaign: "Äpfel", UTMTerm: "red shoe!", Weight: 10, Node: "n1",
	}
	var got Event
	e.Enrich(&raw, &got)
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	e.Enrich(&Raw{}, &got)
	if d := cmp.Diff(Event{Trigger: "link", Bot: BotLibrary, Device: "bot"}, got); d != "" {
		t.Error(d)
	}
}

func TestClasses(t *testing.T) {
	t.Parallel()
	e := enricher(t, EnricherOptions{})
	for _, tt := range []struct {
		name     string
		flags    Flag
		ua, ref  string
		want     BotClass
		wantName string
	}{
		{"person", 0, chromeUA, "", Human, ""},
		{"app", 0, instagramUA, "", Human, ""},
		{"prefetch before all", FlagPrefetch | FlagHead | FlagNoTrack, googleUA, "http://semalt.com/", BotPrefetch, "Googlebot"},
		{"head before the agent", FlagHead | FlagNoTrack, googleUA, "", BotHead, "Googlebot"},
		{"head with a browser", FlagHead, chromeUA, "", BotHead, ""},
		{"search", 0, googleUA, "", BotSearch, "Googlebot"},
		{"preview", FlagNoTrack, "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)", "http://semalt.com/", BotPreview, "Slackbot"},
		{"ai", 0, "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2; +https://openai.com/gptbot)", "", BotAI, "GPTBot"},
		{"seo", 0, "Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)", "", BotMonitor, "AhrefsBot"},
		{"library", 0, "curl/8.5.0", "", BotLibrary, "curl"},
		{"no agent", 0, "", "", BotLibrary, ""},
		{"automation", 0, "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/131.0.0.0 Safari/537.36", "", BotAutomation, "HeadlessChrome"},
		{"scanner by agent", 0, "Mozilla/5.0 zgrab/0.x", "", BotScanner, "zgrab"},
		{"scanner by referrer", FlagNoTrack, chromeUA, "https://nam02.safelinks.protection.outlook.com/?url=x", BotScanner, ""},
		{"spam", FlagNoTrack, chromeUA, "http://buttons-for-website.com/x", BotSpam, ""},
		{"self", FlagNoTrack, chromeUA, "", BotSelf, ""},
		{"mobile and qr are no bots", FlagMobile | FlagQR, chromeUA, "", Human, ""},
	} {
		var ev Event
		e.Enrich(&Raw{Flags: tt.flags, UserAgent: []byte(tt.ua), Referrer: []byte(tt.ref), Visitor: 9}, &ev)
		if ev.Bot != tt.want || ev.BotName != tt.wantName || (ev.Visitor != 0) != (tt.want == Human) {
			t.Errorf("%s: class %d %q, visitor %d", tt.name, ev.Bot, ev.BotName, ev.Visitor)
		}
	}
}

func TestSource(t *testing.T) {
	t.Parallel()
	e := enricher(t, EnricherOptions{})
	for _, tt := range []struct{ ref, ua, query, host, source string }{
		{"", chromeUA, "", "", ""},
		{"https://www.google.com/", chromeUA, "", "google.com", "Google"},
		{"https://www.google.co.uk/search", chromeUA, "", "google.co.uk", "Google"},
		{"https://news.google.com/", chromeUA, "", "news.google.com", "Google News"},
		{"https://mail.google.com/mail/u/0/", chromeUA, "", "mail.google.com", "Gmail"},
		{"https://google.attacker.example.com/", chromeUA, "", "google.attacker.example.com", "google.attacker.example.com"},
		{"https://notgoogle.com/", chromeUA, "", "notgoogle.com", "notgoogle.com"},
		{"https://l.facebook.com/l.php?u=x", chromeUA, "", "facebook.com", "Facebook"},
		{"https://lm.facebook.com/", chromeUA, "", "facebook.com", "Facebook"},
		{"HTTPS://M.FACEBOOK.COM./", chromeUA, "", "facebook.com", "Facebook"},
		{"http://t.co/abc", chromeUA, "", "t.co", "X"},
		{"android-app://com.google.android.gm/", chromeUA, "", "com.google.android.gm", "Gmail"},
		{"android-app://org.example.app", chromeUA, "", "org.example.app", "org.example.app"},
		{"https://user:pw@blog.example.net:8443/a?b#c", chromeUA, "", "blog.example.net", "blog.example.net"},
		{"https://amp.www.example.org/x", chromeUA, "", "example.org", "example.org"},
		{"https://www.de/", chromeUA, "", "www.de", "www.de"},
		{"https://go.example.com/other", chromeUA, "", "", ""},
		{"https://www.go.example.com/", chromeUA, "", "", ""},
		{"javascript:alert(1)", chromeUA, "", "", ""},
		{"https://[2001:db8::1]/", chromeUA, "", "", ""},
		{"https://ex ample.com/", chromeUA, "", "", ""},
		{"https:///x", chromeUA, "", "", ""},
		{"about:blank", chromeUA, "", "", ""},
		{"", instagramUA, "", "", "Instagram"},
		{"https://www.google.com/", instagramUA, "", "google.com", "Google"},
		{"https://www.google.com/", chromeUA, "utm_source=Newsletter", "google.com", "Email"},
		{"https://www.google.com/", chromeUA, "ref=fb", "google.com", "Facebook"},
		{"", chromeUA, "source=www.reddit.com", "", "Reddit"},
		{"", chromeUA, "UTM_Source=IG&ref=fb", "", "Instagram"},
		{"", chromeUA, "utm_source=spring%20flyer", "", "spring flyer"},
		{"", chromeUA, "utm_source=", "", ""},
		{"", chromeUA, "utm_source=%20&ref=x", "", "X"},
	} {
		var ev Event
		e.Enrich(&Raw{Domain: []byte("go.example.com"), UserAgent: []byte(tt.ua), Referrer: []byte(tt.ref), Query: []byte(tt.query)}, &ev)
		if ev.RefHost != tt.host || ev.Source != tt.source {
			t.Errorf("%q %q: %q %q, want %q %q", tt.ref, tt.query, ev.RefHost, ev.Source, tt.host, tt.source)
		}
	}
	// A domain with a port is still the domain.
	var ev Event
	e.Enrich(&Raw{Domain: []byte("localhost.example:8080"), UserAgent: []byte(chromeUA), Referrer: []byte("http://localhost.example:8080/x")}, &ev)
	if ev.RefHost != "" || ev.Domain != "localhost.example:8080" || ev.RefPath != "" {
		t.Errorf("%+v", ev)
	}
}

// TestSources: the data file is well formed.
func TestSources(t *testing.T) {
	t.Parallel()
	groups := map[string]bool{}
	for line := range dataLines(sourcesText) {
		name, hosts, ok := strings.Cut(line, ":")
		if !ok || len(strings.Fields(hosts)) == 0 || groups[name] {
			t.Errorf("bad line %q", line)
		}
		groups[name] = true
	}
	if tables := loadReferrers(); len(groups) < 50 || len(tables.hosts) < 100 || len(tables.wild) < 3 || len(tables.scanners) < 15 || len(tables.spam) < 30 {
		t.Errorf("%d groups, %d hosts", len(groups), len(tables.hosts))
	}
}

func TestLanguage(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"de-AT,de;q=0.9": "de", "EN": "en", "fil": "fil", "zh_CN": "zh", " fr ": "fr", "*": "", "": "", "x": "", "english": "", "de1": "", "i-klingon": "", "\xff\xfe": "",
		"en;q=0.5": "en", ",,es": "es",
	} {
		if got := primaryLanguage([]byte(in)); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestTracking(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ in, want string }{
		{"", ""}, {"a=1&b=2", ""}, {"email=a@b.c&utm_source=x&token=secret", "utm_source=x"},
		{"utm_source=x&utm_source=y&REF=z", "utm_source=x&utm_source=y&REF=z"}, {"utm_sourcex=1&utm_id=7", ""}, {"&&utm_term&", "utm_term"},
	} {
		got, _ := trackingOnly(nil, []byte(tt.in))
		if string(got) != tt.want {
			t.Errorf("%q: %q, want %q", tt.in, got, tt.want)
		}
		for base, want := range map[string]string{"https://a.example/p": "https://a.example/p", "https://a.example/p#f?utm_source=no": "https://a.example/p"} {
			url := base
			if !strings.Contains(base, "#") {
				url += "?" + tt.in + "#frag"
				if tt.want != "" {
					want += "?" + tt.want
				}
			}
			if got, _ := trackingOnlyURL([]byte("before"), []byte(url)); string(got) != want {
				t.Errorf("%q: %q, want %q", url, got, want)
			}
		}
	}
	for in, want := range map[string]string{"a+b%20c": "a b c", "100%": "100%", "%zz%4": "%zz%4", "%41%4a%4B": "AJK", "%00x%ff": "x"} {
		if got := cutText(decodeValue([]byte(in)), 99); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	if got := cutText([]byte("ääää"), 3); got != "ä" {
		t.Errorf("%q", got)
	}
}

func TestRepeat(t *testing.T) {
	t.Parallel()
	e := enricher(t, EnricherOptions{RepeatWindow: time.Hour})
	for i, tt := range []struct {
		after   time.Duration
		visitor uint64
		link    terse.LinkNumber
		outcome Outcome
		ua      string
		want    bool
	}{
		{0, 1, 1, OutcomeRedirect, chromeUA, false},
		{time.Second, 1, 1, OutcomeRedirect, chromeUA, true},
		{time.Second, 2, 1, OutcomeRedirect, chromeUA, false},
		{time.Second, 1, 2, OutcomeRedirect, chromeUA, false},
		{59 * time.Minute, 1, 1, OutcomeRedirect, chromeUA, true},
		{60 * time.Minute, 1, 1, OutcomeRedirect, chromeUA, false}, // the window begins at the first
		{70 * time.Minute, 1, 1, OutcomeRedirect, chromeUA, true},
		{70 * time.Minute, 0, 5, OutcomeRedirect, chromeUA, false},
		{70 * time.Minute, 0, 5, OutcomeRedirect, chromeUA, false}, // nobody is no visitor
		{70 * time.Minute, 3, 5, OutcomeExpired, chromeUA, false},
		{70 * time.Minute, 3, 5, OutcomeRedirect, googleUA, false},
		{70 * time.Minute, 3, 5, OutcomeRedirect, chromeUA, false}, // expired links and bots do not count
		{69 * time.Minute, 3, 5, OutcomeRedirect, chromeUA, true},  // a little out of order
	} {
		var ev Event
		e.Enrich(&Raw{At: terse.MillisOf(noon.Add(tt.after)), Visitor: tt.visitor, Link: tt.link, Outcome: tt.outcome, UserAgent: []byte(tt.ua)}, &ev)
		if ev.Repeat != tt.want {
			t.Errorf("row %d: %v", i, ev.Repeat)
		}
	}
	// Bounded: a million pairs do not grow it, and most of the last ones are known.
	table := newRepeatTable(1<<20, time.Hour.Milliseconds())
	for i := range uint64(1_000_000) {
		table.seen(i, 1, int64(i)+1)
	}
	known := 0
	for i := uint64(980_000); i < 1_000_000; i++ {
		if table.seen(i, 1, 1_000_000) {
			known++
		}
	}
	if len(table.sets)*64 > 1<<20 || known < 15_000 {
		t.Errorf("%d sets, %d of 20000 known", len(table.sets), known)
	}
	if _, err := NewEnricher(EnricherOptions{RepeatWindow: -1}); terse.ErrorCode(err) != terse.CodeInvalid {
		t.Error(err)
	}
}

// TestMemosAreBounded: hostile variety does not grow memory.
func TestMemosAreBounded(t *testing.T) {
	t.Parallel()
	e := enricher(t, EnricherOptions{})
	var ev Event
	for i := range 3 * someTexts {
		text := fmt.Appendf(nil, "u%d", i)
		e.Enrich(&Raw{UserAgent: text, Referrer: append([]byte("https://x.example/"), text...), Language: text, Query: append([]byte("utm_source="), text...), Domain: text}, &ev)
	}
	if n := max(len(e.utm.values), len(e.sources.values), len(e.languages.values), len(e.referrers.values), len(e.domains.values)); n > someTexts {
		t.Error(n)
	}
	if len(e.texts.values) > manyTexts {
		t.Error(len(e.texts.values))
	}
}

func FuzzEnrich(f *testing.F) {
	f.Add([]byte("https://www.google.com/"), []byte(chromeUA), []byte("utm_source=x%zz&ref=%ff"), []byte("de-DE"), []byte("a.example"), []byte("https://a/?utm_term=%00"))
	f.Add([]byte("android-app://x"), []byte("\xff"), []byte("&=&&utm_source"), []byte(",*"), []byte("a:1"), []byte("#?#"))
	f.Add([]byte("http://a@b@c:1:2/"), []byte(""), []byte("utm_source=+++"), []byte(";"), []byte(""), []byte("?"))
	e, err := NewEnricher(EnricherOptions{EnrichSettings: EnrichSettings{RefPath: true}, RepeatBytes: 1 << 12})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, ref, ua, query, lang, domain, dest []byte) {
		raw := Raw{Referrer: ref, UserAgent: ua, Query: query, Language: lang, Domain: domain, Destination: dest, Code: query, City: ua, Country: lang}
		var ev, again Event
		e.Enrich(&raw, &ev)
		e.Enrich(&raw, &again)
		if ev != again {
			t.Fatalf("%+v\n%+v", ev, again)
		}
		for _, s := range []string{ev.Domain, ev.Code, ev.Destination, ev.City, ev.RefHost, ev.RefPath, ev.Source, ev.UTMSource, ev.UTMMedium, ev.UTMCampaign, ev.UTMTerm, ev.UTMContent, ev.Language, ev.Country} {
			if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
				t.Fatalf("not clean: %q", s)
			}
		}
		if len(ev.UTMSource) > maxText || len(ev.Source) > maxDomain || len(ev.RefPath) > maxText || len(ev.Language) > 3 {
			t.Fatalf("too long: %+v", ev)
		}
	})
}

// TestShortVisitor: nobody stays nobody, and nobody becomes one.
func TestShortVisitor(t *testing.T) {
	t.Parallel()
	for v, want := range map[uint64]uint64{0: 0, 1: 1, 1 << 40: 1, 0xffff_1234_5678_9abc: 0x34_5678_9abc} {
		if got := ShortVisitor(v); got != want {
			t.Errorf("%x: %x, want %x", v, got, want)
		}
	}
}

// TestHostingClass: a request from a network of servers is a scanner's if it lacks what browsers send, and in the order of the classes.
func TestHostingClass(t *testing.T) {
	t.Parallel()
	const hetzner, telekom, other = 24940, 3320, 64496
	plain, with := enricher(t, EnricherOptions{}), enricher(t, EnricherOptions{EnrichSettings: EnrichSettings{Hosting: []uint32{other}}})
	for _, tt := range []struct {
		name     string
		asn      uint32
		language string
		flags    Flag
		ua, ref  string
		want     BotClass
		wantMore BotClass // with other in the settings
	}{
		{"a server", hetzner, "", 0, chromeUA, "", BotScanner, BotScanner},
		{"a person behind a VPN", hetzner, "de-DE,de;q=0.9", 0, chromeUA, "", Human, Human},
		{"a header that names no language", hetzner, "*", 0, chromeUA, "", Human, Human},
		{"an access network", telekom, "", 0, chromeUA, "", Human, Human},
		{"an unknown network", 0, "", 0, chromeUA, "", Human, Human},
		{"a network of the settings", other, "", 0, chromeUA, "", Human, BotScanner},
		{"the same, with a language", other, "en", 0, chromeUA, "", Human, Human},
		{"after a prefetch", hetzner, "", FlagPrefetch, chromeUA, "", BotPrefetch, BotPrefetch},
		{"after HEAD", hetzner, "", FlagHead, chromeUA, "", BotHead, BotHead},
		{"after the agent", hetzner, "", 0, googleUA, "", BotSearch, BotSearch},
		{"before spam", hetzner, "", 0, chromeUA, "http://buttons-for-website.com/x", BotScanner, BotScanner},
		{"spam, with a language", hetzner, "en", 0, chromeUA, "http://buttons-for-website.com/x", BotSpam, BotSpam},
		{"before a member's visit", hetzner, "", FlagNoTrack, chromeUA, "", BotScanner, BotScanner},
	} {
		for _, more := range [][]uint32{nil, {other}} {
			e, want := plain, tt.want
			if more != nil {
				e, want = with, tt.wantMore
			}
			var ev Event
			e.Enrich(&Raw{ASN: tt.asn, Language: []byte(tt.language), Flags: tt.flags, UserAgent: []byte(tt.ua), Referrer: []byte(tt.ref), Visitor: 9}, &ev)
			if ev.Bot != want || ev.ASN != tt.asn || (ev.Visitor != 0) != (want == Human) {
				t.Errorf("%s, %v: class %d, visitor %d, want class %d", tt.name, more, ev.Bot, ev.Visitor, want)
			}
		}
	}
}

// TestHostingData: the data file is well formed.
func TestHostingData(t *testing.T) {
	t.Parallel()
	n := 0
	for line := range dataLines(hostingText) {
		number, name, _ := strings.Cut(line, " ")
		asn, err := strconv.ParseUint(number, 10, 32)
		if err != nil || name == "" || !loadHosting()[uint32(asn)] {
			t.Errorf("bad line %q", line)
		}
		n++
	}
	if n != len(loadHosting()) || n < 50 {
		t.Errorf("%d lines of %d networks", n, len(loadHosting()))
	}
}
