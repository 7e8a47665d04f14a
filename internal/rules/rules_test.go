package rules

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/terselink/terse"
)

// noon is Wednesday 2027-01-13 12:00 UTC.
var noon = terse.MillisOf(time.Date(2027, 1, 13, 12, 0, 0, 0, time.UTC))

func cond(kind string, values ...string) terse.Condition {
	return terse.Condition{Type: kind, Values: values}
}

func keyed(kind, key string, values ...string) terse.Condition {
	return terse.Condition{Type: kind, Key: key, Values: values}
}

func at(hour, minute int) Facts {
	return Facts{Now: noon + terse.Millis(((hour-12)*60+minute)*60_000)}
}

func day(n int) Facts { return Facts{Now: noon + terse.Millis(n)*86_400_000} }

// TestConditions is what each condition means. Every row is also evaluated with not.
func TestConditions(t *testing.T) {
	t.Parallel()
	de := Facts{Now: noon, Country: "DE", Region: "DE-BE"}
	phone := Facts{Now: noon, Device: "mobile", OS: "iOS", Browser: "Samsung Internet"}
	speaks := func(h string) Facts { return Facts{Now: noon, Language: []byte(h)} }
	asks := func(q string) Facts { return Facts{Now: noon, Query: []byte(q)} }
	from := func(r string) Facts { return Facts{Now: noon, Referrer: []byte(r)} }
	is := func(b string) Facts { return Facts{Now: noon, Bot: b} }
	many := make([]string, 0, 26)
	for c := 'a'; c <= 'z'; c++ {
		many = append(many, "d"+string(c))
	}
	for i, c := range []struct {
		cond  terse.Condition
		facts Facts
		want  bool
	}{
		{cond("country", "DE"), de, true},
		{cond("country", "de"), de, true},
		{cond("country", "FR", "DE"), de, true},
		{cond("country", "FR"), de, false},
		{cond("country", many...), de, true},
		{cond("country", many...), Facts{Country: "FR"}, false},
		{cond("country", "DE"), Facts{}, false},
		{cond("region", "DE-BE"), de, true},
		{cond("region", "de-be"), de, true},
		{cond("region", "DE-BY"), de, false},
		{cond("region", "DE-BE"), Facts{}, false},

		{cond("language", "de"), speaks("de"), true},
		{cond("language", "de"), speaks("de-AT"), true},
		{cond("language", "DE"), speaks("de-AT,en;q=0.5"), true},
		{cond("language", "de-AT"), speaks("de-at"), true},
		{cond("language", "de-AT"), speaks("de"), false},
		{cond("language", "de-AT"), speaks("de-DE"), false},
		{cond("language", "zh-Hant"), speaks("zh-Hant-TW"), true},
		{cond("language", "en"), speaks("de-AT,en;q=0.5"), false},
		{cond("language", "en"), speaks("de;q=0.5,en;q=0.8"), true},
		{cond("language", "en"), speaks("de;q=0,en;q=0.1"), true},
		{cond("language", "de"), speaks("de,en"), true},
		{cond("language", "en"), speaks("de,en"), false},
		{cond("language", "fr"), speaks("*"), false},
		{cond("language", "fr"), speaks("*,fr;q=0.1"), true},
		{cond("language", "fr"), speaks(" fr ; q=1.000"), true},
		{cond("language", "fr"), speaks("fr;q=banana,de;q=0.1"), false},
		{cond("language", "fr"), speaks(""), false},
		{cond("language", "fr"), speaks("frr"), false},

		{cond("device", "mobile"), phone, true},
		{cond("device", "Mobile"), phone, true},
		{cond("device", "desktop", "tablet"), phone, false},
		{cond("os", "ios"), phone, true},
		{cond("os", "Android"), phone, false},
		{cond("browser", "samsung internet"), phone, true},
		{cond("browser", "Chrome"), phone, false},

		{keyed("query", "a", "1"), asks("a=1"), true},
		{keyed("query", "a", "1"), asks("b=2&a=1"), true},
		{keyed("query", "a", "1"), asks("a=2&a=1"), true},
		{keyed("query", "a", "1"), asks("a=2"), false},
		{keyed("query", "a", "1"), asks("A=1"), false},
		{keyed("query", "a", "x"), asks("a=X"), false},
		{keyed("query", "a", "x y"), asks("a=x+y"), true},
		{keyed("query", "a", "x y"), asks("a=x%20y"), true},
		{keyed("query", "a", "ü"), asks("a=%C3%BC"), true},
		{keyed("query", "a b", "1"), asks("a%20b=1"), true},
		{keyed("query", "a", "1"), asks("a=%3"), false},
		{keyed("query", "a", "1"), asks("a=%zz"), false},
		{keyed("query", "a", ""), asks("a="), true},
		{keyed("query", "a", ""), asks("a"), true},
		{keyed("query", "a", ""), asks("b"), false},
		{keyed("query", "a"), asks("a=anything"), true},
		{keyed("query", "a"), asks("a"), true},
		{keyed("query", "a"), asks("ab=1"), false},
		{keyed("query", "a"), asks(""), false},
		{keyed("query", "a"), asks("a=" + strings.Repeat("x", 5000)), true},
		{keyed("query", "a", "x"), asks("a=" + strings.Repeat("x", 5000)), false},
		{keyed("query", "a", "x"), asks(strings.Repeat("&", 100) + "a=x"), true},

		{cond("referrer", "example.com"), from("https://example.com/"), true},
		{cond("referrer", "example.com"), from("https://news.example.com/a?b"), true},
		{cond("referrer", "Example.COM"), from("http://EXAMPLE.com:8080"), true},
		{cond("referrer", "example.com"), from("https://notexample.com/"), false},
		{cond("referrer", "example.com"), from("https://example.com.evil.test/"), false},
		{cond("referrer", "example.com"), from("https://evil.test/?https://example.com/"), false},
		{cond("referrer", "example.com"), from("https://example.com@evil.test/"), false},
		{cond("referrer", "example.com"), from("https://example.com./"), true},
		{cond("referrer", "example.com"), from("example.com"), false},
		{cond("referrer", "example.com"), from("android-app://com.example"), false},
		{cond("referrer", "com.google.android.gm"), from("android-app://com.google.android.gm/"), true},
		{cond("referrer"), from("https://any.test/"), true},
		{cond("referrer"), from(""), false},

		{cond("time", "09:00-17:30"), at(12, 0), true},
		{cond("time", "09:00-17:30"), at(9, 0), true},
		{cond("time", "09:00-17:30"), at(8, 59), false},
		{cond("time", "09:00-17:30"), at(17, 29), true},
		{cond("time", "09:00-17:30"), at(17, 30), false},
		{cond("time", "22:00-06:00"), at(23, 0), true},
		{cond("time", "22:00-06:00"), at(5, 59), true},
		{cond("time", "22:00-06:00"), at(6, 0), false},
		{cond("time", "22:00-06:00"), at(12, 0), false},
		{cond("time", "00:00-24:00"), at(0, 0), true},
		{cond("time", "00:00-24:00"), at(23, 59), true},
		{cond("time", "09:00-10:00", "12:00-13:00"), at(12, 0), true},
		{keyed("time", "Europe/Berlin", "13:00-13:01"), at(12, 0), true},
		{keyed("time", "America/New_York", "07:00-07:01"), at(12, 0), true},
		{keyed("time", "Asia/Kolkata", "17:30-17:31"), at(12, 0), true},
		{cond("time", "2027-01-01T00:00:00Z/2027-02-01T00:00:00Z"), at(12, 0), true},
		{cond("time", "2027-02-01T00:00:00Z/2027-03-01T00:00:00Z"), at(12, 0), false},
		{cond("time", "2027-01-13T12:00:00Z/"), at(12, 0), true},
		{cond("time", "2027-01-13T12:00:01Z/"), at(12, 0), false},
		{cond("time", "/2027-01-13T12:00:00Z"), at(12, 0), false},
		{cond("time", "/2027-01-13T13:00:00+01:00"), at(11, 59), true},

		{cond("weekday", "wednesday"), day(0), true},
		{cond("weekday", "Wed"), day(0), true},
		{cond("weekday", "mon", "tue"), day(0), false},
		{cond("weekday", "thu"), day(1), true},
		{cond("weekday", "sun"), day(4), true},
		{cond("weekday", "sat", "sun"), day(3), true},
		{keyed("weekday", "Pacific/Auckland", "thu"), day(0), true}, // 01:00 of the next day there

		{cond("bot"), is("search"), true},
		{cond("bot"), is(""), false},
		{cond("bot", "any"), is("scanner"), true},
		{cond("bot", "any"), is(""), false},
		{cond("bot", "search", "ai"), is("ai"), true},
		{cond("bot", "search"), is("ai"), false},
		{cond("bot", "prefetch"), is("prefetch"), true},
	} {
		for _, not := range []bool{false, true} {
			c.cond.Not = not
			s, err := Compile([]terse.Rule{{Conditions: []terse.Condition{c.cond}, Destination: "https://x.test/"}})
			if err != nil {
				t.Fatalf("row %d %+v: %v", i, c.cond, err)
			}
			if got := s.Decide(1, &c.facts).Number == 1; got != (c.want != not) {
				t.Errorf("row %d: %+v of %+v: matched %v", i, c.cond, c.facts, got)
			}
			if e := s.Explain(&c.facts); e[0].Matched != (c.want != not) || e[0].Conditions[0].Holds != (c.want != not) {
				t.Errorf("row %d: Explain disagrees with Decide: %+v", i, e)
			}
		}
	}
}

func TestFirstMatchWins(t *testing.T) {
	t.Parallel()
	s, err := Compile([]terse.Rule{
		{Conditions: []terse.Condition{cond("country", "DE"), cond("device", "mobile")}, Destination: "https://1.test/"},
		{Conditions: []terse.Condition{cond("country", "DE", "AT")}, Variants: []terse.Variant{{Destination: "https://2.test/", Weight: 1}, {Destination: "https://3.test/", Weight: 0}}},
		{Destination: "https://4.test/"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		f    Facts
		want Target
	}{
		{Facts{Country: "DE", Device: "mobile"}, Target{1, 0, -1}},
		{Facts{Country: "DE", Device: "tv"}, Target{2, 1, 0}},
		{Facts{Country: "AT", Device: "mobile"}, Target{2, 1, 0}},
		{Facts{Country: "FR", Device: "mobile"}, Target{4, 2, -1}},
	} {
		if got := s.Decide(9, &c.f); got != c.want {
			t.Errorf("%+v: %+v, want %+v", c.f, got, c.want)
		}
	}
	if want := NeedPlace | NeedAgent | NeedVisitor; s.Needs() != want {
		t.Errorf("Needs: %b, want %b", s.Needs(), want)
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	to := "https://x.test/"
	rule := func(c ...terse.Condition) []terse.Rule { return []terse.Rule{{Conditions: c, Destination: to}} }
	variants := func(v ...terse.Variant) []terse.Rule { return []terse.Rule{{Variants: v}} }
	full := make([]terse.Rule, 20)
	for i := range full {
		full[i].Conditions = []terse.Condition{cond("country", "DE")}
		for range MaxVariants {
			full[i].Variants = append(full[i].Variants, terse.Variant{Destination: to, Weight: 1})
		}
	}
	for _, c := range []struct {
		rules []terse.Rule
		field string
	}{
		{make([]terse.Rule, MaxRules+1), "rules"},
		{full, "rules"},
		{[]terse.Rule{{Destination: to}, {Destination: to}}, "rules[1]"},
		{[]terse.Rule{{}}, "rules[0].destination"},
		{[]terse.Rule{{Destination: to, Variants: []terse.Variant{{Destination: to, Weight: 1}, {Destination: to, Weight: 1}}}}, "rules[0].variants"},
		{variants(terse.Variant{Destination: to, Weight: 1}), "rules[0].variants"},
		{variants(make([]terse.Variant, MaxVariants+1)...), "rules[0].variants"},
		{variants(terse.Variant{Destination: to}, terse.Variant{Destination: to}), "rules[0].variants"},
		{variants(terse.Variant{Destination: to, Weight: 1}, terse.Variant{Weight: 1}), "rules[0].variants[1].destination"},
		{variants(terse.Variant{Destination: to, Weight: MaxWeight + 1}, terse.Variant{Destination: to}), "rules[0].variants[0].weight"},
		{rule(make([]terse.Condition, MaxConditions+1)...), "rules[0].conditions"},
		{rule(cond("colour", "red")), "rules[0].conditions[0].type"},
		{rule(cond("", "red")), "rules[0].conditions[0].type"},
		{rule(cond("country")), "rules[0].conditions[0].values"},
		{rule(cond("country", make([]string, MaxValues+1)...)), "rules[0].conditions[0].values"},
		{rule(cond("country", "DE", "DEU")), "rules[0].conditions[0].values[1]"},
		{rule(cond("country", "D1")), "rules[0].conditions[0].values[0]"},
		{rule(cond("country", "")), "rules[0].conditions[0].values[0]"},
		{rule(cond("region", strings.Repeat("x", MaxValue+1))), "rules[0].conditions[0].values[0]"},
		{rule(cond("region", "\xff")), "rules[0].conditions[0].values[0]"},
		{rule(cond("language", "de_AT")), "rules[0].conditions[0].values[0]"},
		{rule(cond("language", "-")), "rules[0].conditions[0].values[0]"},
		{rule(cond("device", "phone")), "rules[0].conditions[0].values[0]"},
		{rule(cond("bot", "bad")), "rules[0].conditions[0].values[0]"},
		{rule(cond("weekday", "someday")), "rules[0].conditions[0].values[0]"},
		{rule(cond("referrer", "https://a.test/")), "rules[0].conditions[0].values[0]"},
		{rule(cond("time", "25:00-26:00")), "rules[0].conditions[0].values[0]"},
		{rule(cond("time", "10:60-11:00")), "rules[0].conditions[0].values[0]"},
		{rule(cond("time", "9-17")), "rules[0].conditions[0].values[0]"},
		{rule(cond("time", "10:00-10:00")), "rules[0].conditions[0].values[0]"},
		{rule(cond("time", "24:00-01:00")), "rules[0].conditions[0].values[0]"},
		{rule(cond("time", "/")), "rules[0].conditions[0].values[0]"},
		{rule(cond("time", "2027-02-01T00:00:00Z/2027-01-01T00:00:00Z")), "rules[0].conditions[0].values[0]"},
		{rule(cond("time", "2027-02-01/")), "rules[0].conditions[0].values[0]"},
		{rule(keyed("time", "Mars/Base", "10:00-11:00")), "rules[0].conditions[0].key"},
		{rule(keyed("time", "Local", "10:00-11:00")), "rules[0].conditions[0].key"},
		{rule(keyed("time", "../../etc/passwd", "10:00-11:00")), "rules[0].conditions[0].key"},
		{rule(cond("query", "x")), "rules[0].conditions[0].key"},
		{rule(keyed("country", "x", "DE")), "rules[0].conditions[0].key"},
	} {
		_, err := Compile(c.rules)
		var e *terse.Error
		if !errors.As(err, &e) || e.Code != terse.CodeInvalid || e.Field != c.field {
			t.Errorf("%.200s: got %v, want field %s", fmt.Sprint(c.rules), err, c.field)
		}
	}
}

func TestCheckRendersDestinations(t *testing.T) {
	t.Parallel()
	in := []terse.Rule{
		{Conditions: []terse.Condition{cond("country", "DE")}, Variants: []terse.Variant{{Destination: "a", Weight: 1}, {Destination: "b", Weight: 2}}},
		{Destination: "c"},
	}
	var fields []string
	out, err := Check(in, func(field, url string) (string, error) {
		fields = append(fields, field)
		return strings.ToUpper(url), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if out[0].Variants[1].Destination != "B" || out[1].Destination != "C" || in[0].Variants[1].Destination != "b" {
		t.Errorf("out %+v, in %+v", out, in)
	}
	if want := "[rules[0].variants[0].destination rules[0].variants[1].destination rules[1].destination]"; fmt.Sprint(fields) != want {
		t.Errorf("fields %v, want %s", fields, want)
	}
}

// TestVariants: the shares follow the weights, and a visitor stays where they are. A
// share is within 4.5 standard deviations, which a right program misses once in 10^5 runs.
func TestVariants(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		weights := rapid.SliceOfN(rapid.Uint32Range(0, 1000), 2, MaxVariants).Filter(func(w []uint32) bool { return w[0] > 0 }).Draw(t, "weights")
		link := terse.LinkNumber(rapid.Uint64Range(1, 1<<62).Draw(t, "link"))
		var r terse.Rule
		total := 0.0
		for i, w := range weights {
			r.Variants = append(r.Variants, terse.Variant{Destination: fmt.Sprint("https://x.test/", i), Weight: w})
			total += float64(w)
		}
		s, err := Compile([]terse.Rule{r})
		if err != nil {
			t.Fatal(err)
		}
		const n = 20_000
		counts := make([]int, len(weights))
		for i := range n {
			f := Facts{Visitor: Visitor([16]byte{10: 0xff, 11: 0xff, 12: byte(i >> 8), 13: byte(i), 15: 7}, []byte("agent"))}
			v := s.Decide(link, &f).Variant
			if again := s.Decide(link, &f).Variant; again != v {
				t.Fatalf("visitor %d got %d, then %d", i, v, again)
			}
			counts[v]++
		}
		for i, w := range weights {
			p := float64(w) / total
			if d := math.Abs(float64(counts[i]) - n*p); d > 4.5*math.Sqrt(n*p*(1-p))+1e-9 {
				t.Fatalf("variant %d of %v got %d of %d", i, weights, counts[i], n)
			}
		}
	})
}

func TestVisitor(t *testing.T) {
	t.Parallel()
	v6 := [16]byte{0x20, 1, 0xd, 0xb8, 0, 0, 0, 1, 9, 9, 9, 9, 9, 9, 9, 9}
	moved := v6
	moved[15] = 1 // another privacy address of the same network
	other := v6
	other[7] = 2
	ua := []byte("agent")
	if Visitor(v6, ua) != Visitor(moved, ua) || Visitor(v6, ua) == Visitor(other, ua) || Visitor(v6, ua) == Visitor(v6, []byte("b")) {
		t.Error("IPv6 visitors are their /64 and User-Agent")
	}
	v4 := [16]byte{10: 0xff, 11: 0xff, 12: 192, 13: 0, 14: 2, 15: 1}
	next := v4
	next[15] = 2
	if Visitor(v4, ua) == Visitor(next, ua) {
		t.Error("IPv4 visitors are their whole address")
	}
}

func tenRules(t testing.TB) (*Set, *Facts) {
	var in []terse.Rule
	for i := range 9 {
		in = append(in, terse.Rule{Destination: "https://x.test/", Conditions: []terse.Condition{
			cond("country", "DE"), [...]terse.Condition{
				cond("language", "fr"), cond("device", "desktop"), keyed("query", "a", "2"), cond("browser", "Firefox"), cond("os", "Windows"),
				cond("referrer", "example.org"), keyed("time", "Europe/Berlin", "01:00-02:00"), cond("weekday", "sun"), cond("bot", "any"),
			}[i],
		}})
	}
	in = append(in, terse.Rule{Variants: []terse.Variant{{Destination: "https://a.test/", Weight: 1}, {Destination: "https://b.test/", Weight: 3}}})
	s, err := Compile(in)
	if err != nil {
		t.Fatal(err)
	}
	return s, &Facts{
		Now: noon, Country: "DE", Device: "mobile", OS: "Android", Browser: "Chrome", Language: []byte("de-DE,de;q=0.9,en;q=0.8"),
		Query: []byte("utm_source=x&a=1"), Referrer: []byte("https://news.example.com/a"), Visitor: 77,
	}
}

func TestDecideAllocs(t *testing.T) {
	s, f := tenRules(t)
	if n := testing.AllocsPerRun(100, func() {
		f.Visitor = Visitor([16]byte{1}, f.Language)
		if s.Decide(5, f).Rule != 9 {
			t.Error("another rule than the last")
		}
	}); n != 0 {
		t.Errorf("%v allocs, want 0", n)
	}
}

func BenchmarkDecide10(b *testing.B) {
	s, f := tenRules(b)
	b.ReportAllocs()
	for b.Loop() {
		s.Decide(5, f)
	}
}

// FuzzRules: rules of any JSON compile or are refused with a field, and then decide
// like they explain, whatever the request says.
func FuzzRules(f *testing.F) {
	f.Add([]byte(`[{"conditions":[{"type":"country","values":["DE"]}],"destination":"x"}]`), []byte("de;q=0.5"), []byte("a=%41"), []byte("https://a.b:80/"))
	f.Add([]byte(`[{"conditions":[{"type":"query","key":"a","values":[]}],"variants":[{"destination":"x","weight":1},{"destination":"y","weight":0}]}]`), []byte(""), []byte("a"), []byte("://"))
	f.Add([]byte(`[{"conditions":[{"type":"time","key":"UTC","values":["09:00-24:00","/2027-01-01T00:00:00Z"]},{"type":"language","values":["de"]}],"destination":"x"}]`), []byte(",;,*"), []byte("&%"), []byte("a://@"))
	f.Add([]byte(`[{"conditions":[{"type":"weekday","values":["mon"],"not":true},{"type":"referrer"}],"destination":"x"}]`), []byte("-"), []byte("="), []byte("a://b."))
	f.Fuzz(func(t *testing.T, text, language, query, referrer []byte) {
		var in []terse.Rule
		if json.Unmarshal(text, &in) != nil {
			return
		}
		s, err := Compile(in)
		if err != nil {
			var e *terse.Error
			if !errors.As(err, &e) || !strings.HasPrefix(e.Field, "rules") {
				t.Fatalf("an error without a field: %v", err)
			}
			return
		}
		facts := Facts{Now: noon, Language: language, Query: query, Referrer: referrer}
		got := s.Decide(1, &facts)
		if int(got.Number) > len(s.Targets()) {
			t.Fatalf("target %d of %d", got.Number, len(s.Targets()))
		}
		first := -1
		for i, e := range s.Explain(&facts) {
			if e.Matched {
				first = i
				break
			}
		}
		if first != got.Rule {
			t.Fatalf("Decide took rule %d, Explain says %d", got.Rule, first)
		}
	})
}

// TestPrefer: a visitor stays on the variant of before as long as its rule wins and it is not paused.
func TestPrefer(t *testing.T) {
	t.Parallel()
	variants := func(weights ...uint32) (v []terse.Variant) {
		for i, w := range weights {
			v = append(v, terse.Variant{Destination: "https://example.com/" + string(rune('a'+i)), Weight: w})
		}
		return v
	}
	s, err := Compile([]terse.Rule{
		{Conditions: []terse.Condition{{Type: "query", Key: "one"}}, Destination: "https://example.com/one"},
		{Conditions: []terse.Condition{{Type: "query", Key: "q"}}, Variants: variants(0, 1, 0, 1)}, // 2 to 5
		{Variants: variants(1, 1)}, // 6 and 7
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		query  string
		prefer uint8
		want   uint8 // 0: as without
	}{
		{"one", 3, 1}, {"q", 3, 3}, {"q", 5, 5}, {"q", 2, 0}, {"q", 4, 0}, {"q", 6, 0}, {"q", 1, 0}, {"q", 255, 0}, {"", 6, 6}, {"", 7, 7}, {"", 5, 0}, {"", 8, 0},
	} {
		f := Facts{Query: []byte(c.query), Visitor: 12345}
		want := c.want
		if want == 0 {
			want = s.Decide(9, &f).Number
		}
		f.Prefer = c.prefer
		if got := s.Decide(9, &f); got.Number != want || s.Targets()[got.Number-1] == "" {
			t.Errorf("%+v: target %d, want %d", c, got.Number, want)
		}
	}
}
