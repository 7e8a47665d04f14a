package template

import (
	"bytes"
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/terselink/terse"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, text string
		fields     []string // given
		want       []string
		wantErr    string
	}{
		{"two fields", "https://shop.example/p/{sku}?u={u}", nil, []string{"sku", "u"}, ""},
		{"no field", "https://shop.example/", nil, nil, ""},
		{"a field twice", "https://shop.example/{a}/{b}/{a}", nil, []string{"a", "b"}, ""},
		{"in query and fragment at once", "https://shop.example?{k}={v}#{f}", nil, []string{"k", "v", "f"}, ""},
		{"a subset of the fields", "https://shop.example/{b}", []string{"a", "b"}, []string{"a", "b"}, ""},
		{"not a field", "https://shop.example/{c}", []string{"a", "b"}, nil, "not one of the campaign's fields"},
		{"in the host", "https://{h}.example/", nil, nil, "host"},
		{"the host ends open", "https://shop.example{h}/", nil, nil, "host"},
		{"in the port", "https://shop.example:{p}/", nil, nil, "host"},
		{"in the scheme", "{s}://shop.example/", nil, nil, "http"},
		{"as the whole", "{url}", nil, nil, "scheme"},
		{"backslash authority", `https://shop.example\{h}`, nil, nil, "host"},
		{"open", "https://shop.example/{a", nil, nil, "without a }"},
		{"closed", "https://shop.example/a}", nil, nil, "without a {"},
		{"empty name", "https://shop.example/{}", nil, nil, "no placeholder"},
		{"digit first", "https://shop.example/{1a}", nil, nil, "digit"},
		{"nested", "https://shop.example/{a{b}}", nil, nil, "letters"},
		{"reserved", "https://shop.example/{code}", nil, nil, "something else"},
		{"long name", "https://shop.example/{" + strings.Repeat("a", 65) + "}", nil, nil, "64"},
		{"33 fields", "https://shop.example/" + manyFields(33), nil, nil, "32"},
		{"climbs by itself", "https://shop.example/a/../{x}", nil, nil, "segments"},
		{"javascript", "javascript:alert({x})", nil, nil, "http"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			tm, err := Parse(c.text, c.fields, nil)
			if c.wantErr != "" {
				if terse.ErrorCode(err) != terse.CodeInvalid || !strings.Contains(err.Error(), c.wantErr) {
					t.Fatalf("error %v, want one with %q", err, c.wantErr)
				}
				return
			}
			if err != nil || !slices.Equal(tm.Fields(), c.want) {
				t.Fatalf("fields %q, error %v, want %q", tm.Fields(), err, c.want)
			}
		})
	}
}

func manyFields(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("{f" + strings.Repeat("x", i) + "}/")
	}
	return b.String()
}

func TestAppend(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text   string
		values []string
		want   string // "" is a refusal
	}{
		{"https://shop.example/p/{sku}?u={u}", []string{"A17", "9f3"}, "https://shop.example/p/A17?u=9f3"},
		{"https://shop.example/p/{sku}?u={u}", []string{"a/b?c#d", "x&y=z"}, "https://shop.example/p/a%2Fb%3Fc%23d?u=x%26y%3Dz"},
		{"https://shop.example/p/{sku}", []string{"ä b\r\nSet-Cookie: x"}, "https://shop.example/p/%C3%A4%20b%0D%0ASet-Cookie%3A%20x"},
		{"https://shop.example/{b}/{a}/{b}", []string{"1", "2"}, "https://shop.example/2/1/2"},
		{"https://shop.example#{a}", []string{`"<%>`}, "https://shop.example#%22%3C%25%3E"},
		{"https://shop.example/{a}", []string{".."}, ""},
		{"https://shop.example/{a}/", []string{"."}, ""},
		{"https://shop.example/%2e{a}", []string{"."}, ""},
		{"https://shop.example/{a}{b}?x", []string{".", "."}, ""},
		{"https://shop.example/{a}{b}?x", []string{".", "x"}, "https://shop.example/.x?x"},
		{"https://shop.example/v{a}", []string{".."}, "https://shop.example/v.."},
		{"https://shop.example?{a}", []string{"../.."}, "https://shop.example?..%2F.."},
		{"https://shop.example/{a}", []string{strings.Repeat("ä", 2000)}, ""},
		{"https://shop.example/{a}/{b}", []string{"1"}, "https://shop.example/1/"},
	} {
		fields := []string(nil)
		if strings.Contains(c.text, "{b}/{a}") {
			fields = []string{"a", "b"}
		}
		tm, err := Parse(c.text, fields, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, ok := tm.Append([]byte("kept "), strings.Join(c.values, separator))
		if ok != (c.want != "") || ok && string(got) != "kept "+c.want {
			t.Errorf("%s with %q: got %q %t, want %q", c.text, c.values, got, ok, c.want)
		}
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	tm, err := Parse("https://shop.example/{a}/x?u={b}&v={b}&w={b}", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		a, b  string
		field string // at fault; "" if none
	}{
		{"1", "2", ""},
		{"1", "", ""},
		{"", "2", "a"},
		{"..", "2", "destination"},
		{".", "2", "destination"},
		{".a", "2", ""},
		{"1", strings.Repeat("x", MaxValue+1), "b"},
		{"1", strings.Repeat("ä", MaxValue/2), "destination"},
	} {
		_, err := tm.Check([][]byte{[]byte(c.a), []byte(c.b)}, c.a+separator+c.b, nil)
		field := ""
		if e, ok := errors.AsType[*terse.Error](err); ok {
			field = e.Field
		}
		if field != c.field {
			t.Errorf("%.20q %.20q: error %v, want field %q", c.a, c.b, err, c.field)
		}
	}
}

// TestAppendAllocs: expanding is on the path of every redirect.
func TestAppendAllocs(t *testing.T) {
	tm, err := Parse("https://shop.example/p/{sku}?u={u}", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	dst := make([]byte, 0, 512)
	if n := testing.AllocsPerRun(100, func() { dst, _ = tm.Append(dst[:0], "A 17\x1f9f3") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzAppend: whatever template and values are, an expanded URL has the template's
// scheme and host and is made of visible ASCII.
func FuzzAppend(f *testing.F) {
	f.Add("https://shop.example/p/{sku}?u={u}", "A17\x1f9f3")
	f.Add("https://shop.example?{a}#{b}", "@evil.example\x1f//evil.example")
	f.Add("http://127.0.0.1:8080/{a}{b}", "..\x1f/../")
	f.Add("https://shop.example/.{a}/{b}.", ".\x1fx")
	f.Add("https://[::1]/{a}\\{b}", "\\\\evil\x1f\r\nX: y")
	f.Fuzz(func(t *testing.T, text, values string) {
		tm, err := Parse(text, nil, nil)
		if err != nil {
			return
		}
		got, ok := tm.Append(nil, values)
		if list := bytes.Split([]byte(values), []byte(separator)); len(list) == len(tm.Fields()) {
			want := ok // Check decides the same, mostly without an expansion
			for i, v := range list {
				want = want && len(v) <= MaxValue && (len(v) > 0 || tm.inPath&(1<<i) == 0)
			}
			if _, err := tm.Check(list, values, nil); (err == nil) != want {
				t.Fatalf("%q of %q: check says %v, want %t", values, tm.String(), err, want)
			}
		}
		if !ok {
			return
		}
		if i := bytes.IndexFunc(got, func(r rune) bool { return r < 0x21 || r > 0x7e }); i >= 0 {
			t.Fatalf("%q has a byte that is not visible ASCII at %d", got, i)
		}
		want, err := url.Parse(tm.String()[:tm.pathFrom])
		if err != nil {
			t.Fatalf("the template's own host: %v", err)
		}
		// net/url refuses escapes that browsers take as they are: those are not ours to judge.
		u, err := url.Parse(string(got))
		if err != nil {
			if _, terr := url.Parse(strings.NewReplacer("{", "", "}", "").Replace(tm.String())); terr != nil {
				return
			}
			if strings.Contains(tm.String(), "%") {
				return
			}
			t.Fatalf("%q of %q: %v", got, tm.String(), err)
		}
		if u.Scheme != want.Scheme || u.Host != want.Host || u.User != nil {
			t.Fatalf("%q leads to %s://%s, the template to %s://%s", got, u.Scheme, u.Host, want.Scheme, want.Host)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	tm, err := Parse("https://shop.example/p/{sku}?u={u}", nil, nil)
	if err != nil {
		b.Fatal(err)
	}
	dst := make([]byte, 0, 512)
	b.ReportAllocs()
	for b.Loop() {
		dst, _ = tm.Append(dst[:0], "A17\x1f9f3")
	}
}
