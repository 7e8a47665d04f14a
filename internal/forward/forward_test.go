package forward

import (
	"net/url"
	"strings"
	"testing"

	"github.com/terselink/terse"
)

// headerSafe reports whether a Location may be s as it is.
func headerSafe(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool { return r < 0x21 || r > 0x7e }) < 0
}

func TestSplit(t *testing.T) {
	t.Parallel()
	for u, want := range map[string][3]string{ // before the query, query, fragment; a "!" marks a bare authority
		"https://a.example":            {"https://a.example!", "", ""},
		"https://a.example/":           {"https://a.example/", "", ""},
		"https://a.example?q":          {"https://a.example!", "?q", ""},
		"https://a.example#f":          {"https://a.example!", "", "#f"},
		"https://a.example/p?q#f":      {"https://a.example/p", "?q", "#f"},
		"https://a.example/p#f?q":      {"https://a.example/p", "", "#f?q"},
		"https://a.example/p?q=://x/#": {"https://a.example/p", "?q=://x/", "#"},
		"https://a.example?x=/y":       {"https://a.example!", "?x=/y", ""},
	} {
		p := Split(u)
		got := [3]string{u[:p.path], u[p.path:p.query], u[p.query:]}
		if p.bare {
			got[0] += "!"
		}
		if got != want {
			t.Errorf("%s: %q, want %q", u, got, want)
		}
	}
}

// FuzzForward checks what forwarding promises against net/url: the result is safe in a
// header, keeps scheme, host and fragment of the destination, and the path stays below
// the destination's.
func FuzzForward(f *testing.F) {
	for _, d := range []string{"https://example.com", "https://example.com/base?a=1#frag", "http://example.com:8080/x/", "https://example.com?"} {
		for _, rest := range []string{"", "x/y", "/evil.example", "..", "%2e%2e/x", "a%2f..%2f..", "\\evil", "@evil", ":80", "\xff"} {
			for mode := range StoredFirst + 1 {
				f.Add(d, rest, "b=2&qr=1&a=9&&=#?utm_source=x"+rest, uint8(mode))
			}
		}
	}
	f.Fuzz(func(t *testing.T, destination, rest, query string, mode uint8) {
		base, err := url.Parse(destination)
		if err != nil || !headerSafe(destination) || base.Host == "" || base.User != nil || base.Opaque != "" ||
			base.Scheme != "https" && base.Scheme != "http" || strings.Contains(destination, `\`) {
			return // not a destination that could be stored
		}
		if strings.ContainsAny(rest, "?#") || strings.Contains(query, "#") {
			return // cut off before
		}
		var r []byte
		if rest != "" {
			r = []byte(rest)
		}
		v := Visit{Rest: r, Query: []byte(query), Mode: Mode(mode % uint8(StoredFirst+1))}
		if mode > 128 {
			v.Domain = CompileUTM(&terse.UTM{Source: "a b", Term: "\r\n&#"})
		}
		out, ok := AppendURL([]byte("kept"), destination, Split(destination), &v)
		if !ok {
			return
		}
		s, found := strings.CutPrefix(string(out), "kept")
		if !found || !headerSafe(s) {
			t.Fatalf("not safe: %q", out)
		}
		got, err := url.Parse(s)
		if err != nil {
			return // the visitor wrote a bad escape: browsers send it on as it is
		}
		if got.Scheme != base.Scheme || got.Host != base.Host || got.User != nil || got.EscapedFragment() != base.EscapedFragment() {
			t.Fatalf("%q from %q: scheme, host or fragment changed", s, destination)
		}
		// Byte for byte: EscapedPath of net/url writes "!" as it pleases, depending on what follows.
		if !strings.HasPrefix(s, destination[:Split(destination).path]) {
			t.Fatalf("%q left the path of %q", s, destination)
		}
		if clean := got.JoinPath(); len(clean.Path)+2 < len(strings.TrimSuffix(base.JoinPath().Path, "/")) {
			t.Fatalf("%q climbs out of %q", s, destination)
		}
	})
}

// TestAppendURL is the table of what becomes of the query and the path of a visit: one destination, one
// visit, what each mode makes of them, and what UTM parameters add.
func TestAppendURL(t *testing.T) {
	t.Parallel()
	const none = "\x00" // no path, or refused
	utm := &terse.UTM{Source: "sms", Campaign: "black friday & more"}
	for _, c := range []struct {
		name              string
		destination       string
		rest, query       string
		add, incoming, st string // the three modes; "" is as append
		withUTM           string // append with UTM of the link; "" is not looked at
	}{
		{"nothing", "https://x.test/p", none, "", "https://x.test/p", "", "", "https://x.test/p?utm_source=sms&utm_campaign=black%20friday%20%26%20more"},
		{"a stored query alone", "https://x.test/p?a=1", none, "", "https://x.test/p?a=1", "", "", "https://x.test/p?a=1&utm_source=sms&utm_campaign=black%20friday%20%26%20more"},
		{"a fragment stays last", "https://x.test/p?a=1#f", none, "b=2", "https://x.test/p?a=1&b=2#f", "https://x.test/p?b=2&a=1#f", "", "https://x.test/p?a=1&b=2&utm_source=sms&utm_campaign=black%20friday%20%26%20more#f"},
		{"a visit's query alone", "https://x.test", none, "b=2", "https://x.test?b=2", "", "", ""},
		{"other keys", "https://x.test/?a=1", none, "b=2&c=3", "https://x.test/?a=1&b=2&c=3", "https://x.test/?b=2&c=3&a=1", "", ""},
		{"the same key", "https://x.test/?a=1&b=2", none, "a=9", "https://x.test/?a=1&b=2&a=9", "https://x.test/?a=9&b=2", "https://x.test/?a=1&b=2", ""},
		{"the same key twice on both sides", "https://x.test/?a=1&a=2&b=3", none, "a=8&a=9", "https://x.test/?a=1&a=2&b=3&a=8&a=9", "https://x.test/?a=8&a=9&b=3", "https://x.test/?a=1&a=2&b=3", ""},
		{"a key in another spelling", "https://x.test/?%61b=1", none, "a%62=9", "https://x.test/?%61b=1&a%62=9", "https://x.test/?a%62=9", "https://x.test/?%61b=1", ""},
		{"a space in a key", "https://x.test/?a+b=1", none, "a%20b=9", "https://x.test/?a+b=1&a%20b=9", "https://x.test/?a%20b=9", "https://x.test/?a+b=1", ""},
		{"case counts", "https://x.test/?A=1", none, "a=9", "https://x.test/?A=1&a=9", "https://x.test/?a=9&A=1", "", ""},
		{"a key without a value", "https://x.test/?a", none, "a=9", "https://x.test/?a&a=9", "https://x.test/?a=9", "https://x.test/?a", ""},
		{"an empty value counts", "https://x.test/?a=", none, "a=9", "https://x.test/?a=&a=9", "https://x.test/?a=9", "https://x.test/?a=", ""},
		{"an empty key", "https://x.test/?=1", none, "=9", "https://x.test/?=1&=9", "https://x.test/?=9", "https://x.test/?=1", ""},
		{"empty pairs are kept", "https://x.test/?a=1&&b=2", none, "z&&=", "https://x.test/?a=1&&b=2&z&&=", "https://x.test/?z&&=&a=1&&b=2", "", ""},
		{"a stored question mark", "https://x.test/?", none, "b=2", "https://x.test/?b=2", "", "", "https://x.test/?b=2&utm_source=sms&utm_campaign=black%20friday%20%26%20more"},
		{"an ampersand at the end", "https://x.test/?a=1", none, "b=2&", "https://x.test/?a=1&b=2&", "https://x.test/?b=2&a=1", "https://x.test/?a=1&b=2&", "https://x.test/?a=1&b=2&utm_source=sms&utm_campaign=black%20friday%20%26%20more"},
		{"two ampersands at the end", "https://x.test/", none, "b=2&&", "https://x.test/?b=2&&", "", "", ""},
		{"nothing but an ampersand", "https://x.test/", none, "&", "https://x.test/?&", "", "", ""},
		{"an ampersand behind the mark of a scan", "https://x.test/?a=1", none, "qr=1&", "https://x.test/?a=1", "", "", ""},
		{"a stored ampersand at the end", "https://x.test/?a=1&", none, "b=2", "https://x.test/?a=1&b=2", "https://x.test/?b=2&a=1", "", ""},
		{"the mark of a scan stays out", "https://x.test/?a=1", none, "qr=1&b=2", "https://x.test/?a=1&b=2", "https://x.test/?b=2&a=1", "", ""},
		{"only the mark of a scan", "https://x.test/?a=1", none, "qr=1", "https://x.test/?a=1", "", "", ""},
		{"the mark of a member stays out", "https://x.test/?a=1", none, "terse_notrack=1&b=2", "https://x.test/?a=1&b=2", "https://x.test/?b=2&a=1", "", ""},
		{"a name like that of the mark", "https://x.test/?a=1", none, "terse_notrack=10", "https://x.test/?a=1&terse_notrack=10", "https://x.test/?terse_notrack=10&a=1", "", ""},
		{"a stored qr is the destination's", "https://x.test/?qr=7", none, "qr=1", "https://x.test/?qr=7", "", "", ""},
		{"raw bytes are encoded", "https://x.test/", none, "a=\xff \"", "https://x.test/?a=%FF%20\"", "", "", ""},
		{"path", "https://x.test/base", "x/y", "", "https://x.test/base/x/y", "", "", "https://x.test/base/x/y?utm_source=sms&utm_campaign=black%20friday%20%26%20more"},
		{"path after a slash", "https://x.test/base/", "x", "b=2", "https://x.test/base/x?b=2", "", "", ""},
		{"path, bare host", "https://x.test?a=1#f", "x", "a=2", "https://x.test/x?a=1&a=2#f", "https://x.test/x?a=2#f", "https://x.test/x?a=1#f", ""},
		{"an empty rest is a slash", "https://x.test/base", "", "", "https://x.test/base/", "", "", ""},
		{"path that climbs", "https://x.test/base", "../x", "", none, none, none, none},
		{"path that climbs, encoded", "https://x.test/base", "a%2F%2e%2E%2fx", "", none, none, none, none},
		{"path with a backslash", "https://x.test/base", "a%5cb", "", none, none, none, none},
		{"utm of the visit stays", "https://x.test/", none, "utm_source=mail", "https://x.test/?utm_source=mail", "", "", "https://x.test/?utm_source=mail&utm_campaign=black%20friday%20%26%20more"},
		{"utm of the destination stays", "https://x.test/?utm_campaign=own", none, "", "https://x.test/?utm_campaign=own", "", "", "https://x.test/?utm_campaign=own&utm_source=sms"},
		{"an empty utm is one", "https://x.test/?utm_source=&utm_campaign", none, "", "https://x.test/?utm_source=&utm_campaign", "", "", "https://x.test/?utm_source=&utm_campaign"},
		{"utm in another spelling", "https://x.test/?utm%5Fsource=x", none, "", "https://x.test/?utm%5Fsource=x", "", "", "https://x.test/?utm%5Fsource=x&utm_campaign=black%20friday%20%26%20more"},
		{"an app's own scheme", "myapp://open/item?id=1", "x", "b=2", "myapp://open/item/x?id=1&b=2", "myapp://open/item/x?b=2&id=1", "", ""},
	} {
		for _, m := range []struct {
			name string
			mode Mode
			utm  *UTM
			want string
		}{
			{"inherit", Inherit, nil, c.add}, {"append", Append, nil, c.add}, {"incoming_first", IncomingFirst, nil, c.incoming},
			{"stored_first", StoredFirst, nil, c.st}, {"utm", Append, CompileUTM(utm), c.withUTM},
		} {
			if m.want == "" {
				if m.want = c.add; m.name == "utm" {
					continue
				}
			}
			v := Visit{Mode: m.mode, Link: m.utm, Query: []byte(c.query)}
			if c.rest != none {
				v.Rest = []byte(c.rest)
			}
			got, ok := AppendURL([]byte("kept "), c.destination, Split(c.destination), &v)
			if s := strings.TrimPrefix(string(got), "kept "); ok && s != m.want || ok == (m.want == none) {
				t.Errorf("%s, %s: %q %v, want %q", c.name, m.name, s, ok, m.want)
			}
		}
	}
}

// TestUTMOfTwo: what the link does not say, the domain does.
func TestUTMOfTwo(t *testing.T) {
	t.Parallel()
	link, domain := CompileUTM(&terse.UTM{Source: "link"}), CompileUTM(&terse.UTM{Source: "domain", Medium: "domain", Content: "domain"})
	const to = "https://x.test/#f"
	got, _ := AppendURL(nil, to, Split(to), &Visit{Query: []byte("utm_content=visit"), Link: link, Domain: domain})
	if string(got) != "https://x.test/?utm_content=visit&utm_source=link&utm_medium=domain#f" {
		t.Errorf("%s", got)
	}
	if CompileUTM(nil) != nil || CompileUTM(&terse.UTM{}) != nil {
		t.Error("no parameters are parameters")
	}
}

// TestManyKeys: thousands of parameters on both sides take no quadratic time.
func TestManyKeys(t *testing.T) {
	t.Parallel()
	to := "https://x.test/?" + strings.Repeat("a=&", 2700) + "b"
	visit := []byte(strings.Repeat("c=&", 2700) + "b=9")
	for _, mode := range []Mode{IncomingFirst, StoredFirst} {
		got, ok := AppendURL(nil, to, Split(to), &Visit{Query: visit, Mode: mode})
		if n := strings.Count(string(got), "="); !ok || n != 5400+map[Mode]int{IncomingFirst: 1, StoredFirst: 0}[mode] {
			t.Errorf("mode %d: %d parameters have a value", mode, n)
		}
	}
}

func TestAppendAllocs(t *testing.T) {
	const to = "https://example.com/p?a=1&utm_source=x#f"
	p, u := Split(to), CompileUTM(&terse.UTM{Source: "s", Medium: "m"})
	var scratch []uint64
	dst := make([]byte, 0, 512)
	v := Visit{Rest: []byte("x/y"), Query: []byte("b=2&a=7&qr=1&c"), Mode: IncomingFirst, Link: u, Domain: u, Scratch: &scratch}
	f := func() { dst, _ = AppendURL(dst[:0], to, p, &v) }
	f()
	if n := testing.AllocsPerRun(100, f); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
	if string(dst) != "https://example.com/p/x/y?b=2&a=7&c&utm_source=x&utm_medium=m#f" {
		t.Errorf("%s", dst)
	}
}

func BenchmarkAppendURL(b *testing.B) {
	const to = "https://shop.example.com/products/1?utm_source=sms&utm_campaign=bf"
	p, u := Split(to), CompileUTM(&terse.UTM{Medium: "m"})
	query := []byte("gclid=abc&utm_source=mail")
	for name, mode := range map[string]Mode{"append": Append, "incoming_first": IncomingFirst, "stored_first": StoredFirst} {
		b.Run(name, func(b *testing.B) {
			var scratch []uint64
			dst := make([]byte, 0, 512)
			v := Visit{Query: query, Mode: mode, Link: u, Scratch: &scratch}
			b.ReportAllocs()
			for b.Loop() {
				dst, _ = AppendURL(dst[:0], to, p, &v)
			}
		})
	}
}
