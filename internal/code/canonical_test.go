package code

import (
	"errors"
	"net/url"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/terselink/terse"
)

func TestCanonical(t *testing.T) {
	crockford, base62 := mustLookup(t, "crockford32"), mustLookup(t, "base62")
	for _, tt := range []struct {
		name string
		path string
		fold *Alphabet
		want string // "" for a refusal
		err  error
	}{
		{name: "a code", path: "aB3dE5g", want: "aB3dE5g"},
		{name: "an alphabet that does not fold", path: "aB3dE5g", fold: base62, want: "aB3dE5g"},
		{name: "an alias", path: "summer-sale_2027.v2~x", want: "summer-sale_2027.v2~x"},
		{name: "all that may stand for itself", path: "-._~!$&'()*+,;=:@", want: "-._~!$&'()*+,;=:@"},
		{name: "encoded for no reason", path: "%61%42%33", want: "aB3"},
		{name: "lower-case hex", path: "a%2db", want: "a-b"},
		{name: "plus is no space", path: "a+b", want: "a+b"},
		{name: "encoded plus", path: "a%2Bb", want: "a+b"},
		{name: "accent, encoded", path: "caf%C3%A9", want: "café"},
		{name: "accent, raw", path: "café", want: "café"},
		{name: "accent, decomposed", path: "cafe%CC%81", want: "café"},
		{name: "emoji", path: "%F0%9F%9A%80", want: "🚀"},
		{name: "emoji with its variation selector", path: "❤\ufe0f", want: "❤\ufe0f"},
		{name: "kelvin sign", path: "\u212a1", want: "K1"},
		{name: "case is kept", path: "CAFÉ", want: "CAFÉ"},
		{name: "longest", path: strings.Repeat("a", 255), want: strings.Repeat("a", 255)},
		{name: "longest, encoded", path: strings.Repeat("%61", 255), want: strings.Repeat("a", 255)},
		{name: "three dots are a name", path: "...", want: "..."},
		{name: "trailing dot is another name", path: "a.", want: "a."},

		{name: "folded code", path: "7KQ3ABC", fold: crockford, want: "7kq3abc"},
		{name: "look-alikes and hyphens", path: "O0o-IiL-l1", fold: crockford, want: "00011111"},
		{name: "encoded hyphen", path: "7k%2Dq3", fold: crockford, want: "7kq3"},
		{name: "an alias keeps its looks", path: "Summer-Sale", fold: crockford, want: "summer-sale"},
		{name: "hyphens alone", path: "--", fold: crockford, want: "--"},
		{name: "folded accent", path: "CAF%C3%89", fold: crockford, want: "café"},
		{name: "folded sigma", path: "ΟΔΟΣ", fold: crockford, want: "οδοσ"},
		{name: "folded final sigma", path: "οδος", fold: crockford, want: "οδοσ"},
		{name: "long s reads as s", path: "\u017fa1", fold: crockford, want: "sa1"},

		{name: "empty", path: "", err: errEmpty},
		{name: "slash", path: "a/b", err: errChar},
		{name: "leading slash", path: "/a", err: errChar},
		{name: "two slashes", path: "//x", err: errChar},
		{name: "encoded slash", path: "a%2Fb", err: errChar},
		{name: "backslash", path: `a\b`, err: errChar},
		{name: "encoded backslash", path: "a%5cb", err: errChar},
		{name: "question mark", path: "a?b", err: errChar},
		{name: "encoded question mark", path: "a%3Fb", err: errChar},
		{name: "hash", path: "a%23b", err: errChar},
		{name: "quote", path: `a"b`, err: errChar},
		{name: "angle bracket", path: "<script>", err: errChar},
		{name: "brace", path: "{sku}", err: errChar},
		{name: "NUL", path: "a%00", err: errChar},
		{name: "raw NUL", path: "a\x00", err: errChar},
		{name: "newline", path: "a%0Ab", err: errChar},
		{name: "carriage return", path: "a%0d%0aSet-Cookie:x", err: errChar},
		{name: "DEL", path: "a\x7f", err: errChar},
		{name: "C1 control", path: "a%C2%85", err: errChar},
		{name: "space", path: "a b", err: errChar},
		{name: "trailing space", path: "a%20", err: errChar},
		{name: "no-break space", path: "a%C2%A0b", err: errChar},
		{name: "line separator", path: "a\u2028b", err: errChar},
		{name: "byte order mark", path: "\ufeffa", err: errChar},
		{name: "zero-width space", path: "a\u200bb", err: errChar},
		{name: "zero-width joiner", path: "a\u200db", err: errChar},
		{name: "right-to-left override", path: "a\u202eb", err: errChar},
		{name: "private use", path: "a\ue000", err: errChar},
		{name: "unassigned", path: "a\U000e0fff", err: errChar},
		{name: "Greek varia becomes a backtick", path: "\u1fef", err: errChar},
		{name: "dot", path: ".", err: errDots},
		{name: "two dots", path: "..", err: errDots},
		{name: "encoded dots", path: "%2e%2e", err: errDots},
		{name: "half encoded dots", path: ".%2E", err: errDots},
		{name: "double encoding", path: "%2541", err: errChar},
		{name: "double encoded slash", path: "%252F", err: errChar},
		{name: "percent alone", path: "100%", err: errPercent},
		{name: "percent and one digit", path: "a%4", err: errPercent},
		{name: "percent and no hex", path: "a%zzb", err: errPercent},
		{name: "percent and UTF-16", path: "a%u0041", err: errPercent},
		{name: "invalid UTF-8", path: "a\xff", err: errUTF8},
		{name: "encoded invalid UTF-8", path: "a%ff", err: errUTF8},
		{name: "overlong slash", path: "a%c0%afb", err: errUTF8},
		{name: "lone surrogate", path: "a%ed%a0%80", err: errUTF8},
		{name: "cut UTF-8", path: "caf%C3", err: errUTF8},
		{name: "too long", path: strings.Repeat("a", 256), err: errTooLong},
		{name: "too long, encoded", path: strings.Repeat("%61", 256), err: errTooLong},
		{name: "4 KB", path: strings.Repeat("a", 4096), err: errTooLong},
		{name: "1 MB", path: strings.Repeat("%41", 1<<20), err: errTooLong},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Canonical([]byte(tt.path), tt.fold)
			if got != tt.want || err != tt.err { // the very error: it is made once
				t.Fatalf("Canonical(%.40q) = %q, %v; want %q, %v", tt.path, got, err, tt.want, tt.err)
			}
			if e, ok := errors.AsType[*terse.Error](err); err != nil && (!ok || e.Code != terse.CodeInvalid || e.Field != "code") {
				t.Errorf("error %#v", err)
			}
			dst, _ := AppendCanonical([]byte("x/"), []byte(tt.path), tt.fold)
			if string(dst) != "x/"+tt.want {
				t.Errorf("AppendCanonical after x/ gives %q", dst)
			}
		})
	}
}

// TestCanonicalASCII goes through every byte, alone and encoded.
func TestCanonicalASCII(t *testing.T) {
	const hex = "0123456789abcdef"
	for c := range 256 {
		want := ""
		if plain[c] && c != '.' {
			want = string(rune(c))
		}
		raw, _ := Canonical([]byte{byte(c)}, nil)
		encoded, _ := Canonical([]byte{'%', hex[c>>4], hex[c&15]}, nil)
		if raw != want || encoded != want {
			t.Errorf("byte %#x: raw %q, encoded %q, want %q", c, raw, encoded, want)
		}
	}
}

// TestCanonicalUnicode: case mappings and composition settle in one pass, for every character
// that there is, alone and among the marks that change what it composes to.
func TestCanonicalUnicode(t *testing.T) {
	crockford := mustLookup(t, "crockford32")
	check := func(s string, fold *Alphabet) {
		if once, err := Canonical([]byte(s), fold); err == nil {
			if twice, err := Canonical([]byte(once), fold); err != nil || twice != once {
				t.Errorf("Canonical(%+q) = %+q, whose canonical form is %+q, %v", s, once, twice, err)
			}
		}
	}
	marks := []string{"\u0301", "\u0307", "\u0308", "\u0331", "\u0345", "\u03b9", "\u11a8"}
	for r := rune(0x80); r < 0x20000; r++ { // Han and emoji above: neither case nor composition
		if !unicode.IsPrint(r) {
			continue
		}
		for _, fold := range []*Alphabet{nil, crockford} {
			check(string(r), fold)
			if testing.Short() && r > 0x3000 {
				continue
			}
			for _, m := range marks {
				check(string(r)+m, fold)
				check("\u03b1"+m+string(r), fold)
			}
		}
	}
}

func FuzzCanonical(f *testing.F) {
	for _, s := range []string{
		"aB3dE5g", "%2e%2e", "//x", `\`, "a;b", "%00", "%2541", "%25", "a.", "a ", "a+", "7K-3Q", "O-O", "--", "caf%C3%A9", "cafe%CC%81",
		"ΟΔΟΣ", "ſ", "İ", "ß", "ŉ", "\u1fef", "\u037e", "%F0%9F%9A%80", "\xff", "%u0041", "\u0345\u03b1", "\u1e9e", "\u0390", "\u2126", "가", "\u1112\u1161\u11ab",
		strings.Repeat("e\u0301", 100), strings.Repeat("\u0301", 60),
	} {
		f.Add([]byte(s), true)
		f.Add([]byte(s), false)
	}
	f.Fuzz(func(t *testing.T, path []byte, folding bool) {
		var fold *Alphabet
		if folding {
			fold = mustLookup(t, "crockford32")
		}
		before := string(path)
		once, err := Canonical(path, fold)
		if string(path) != before {
			t.Fatalf("the path was changed from %q to %q", before, path)
		}
		appended, err2 := AppendCanonical(nil, path, fold)
		if string(appended) != once || err2 != err {
			t.Fatalf("Canonical gives %q, %v; AppendCanonical %q, %v", once, err, appended, err2)
		}
		if err != nil {
			if once != "" || terse.ErrorCode(err) != terse.CodeInvalid {
				t.Fatalf("Canonical(%q) = %q, %v", path, once, err)
			}
			return
		}
		twice, err := Canonical([]byte(once), fold)
		if err != nil || twice != once {
			t.Fatalf("Canonical(%q) = %q, whose canonical form is %q, %v", path, once, twice, err)
		}
		if len(once) == 0 || len(once) > 255 || !utf8.ValidString(once) || once == "." || once == ".." || strings.ContainsAny(once, "/%?#\\ \x00\r\n\t\"<>") {
			t.Fatalf("Canonical(%q) = %q", path, once)
		}
		printed := AppendPath(nil, once)
		if back, err := Canonical(printed, fold); err != nil || back != once {
			t.Fatalf("%q is printed %q, which reads %q, %v", once, printed, back, err)
		}
		if u, err := url.Parse("http://h/" + string(printed)); err != nil || u.Path != "/"+once || u.RawQuery != "" || u.Fragment != "" {
			t.Fatalf("%q is printed %q, which a URL reads as %q, %v", once, printed, u, err)
		}
		// Generated codes are their own canonical form.
		if a := mustLookup(t, "crockford32"); folding && a.Fits(path) && once != string(path) {
			t.Fatalf("the code %q becomes %q", path, once)
		}
	})
}

// TestGeneratedCodesAreCanonical: what is printed is what is looked up.
func TestGeneratedCodesAreCanonical(t *testing.T) {
	for _, a := range alphabets {
		p := mustPerm(t, testKey(1), a.Name(), a.MaxLength())
		for i := range uint64(2000) {
			c := p.AppendCode(nil, i)
			for _, form := range []string{string(c), string(AppendPath(nil, string(c)))} {
				if got, err := Canonical([]byte(form), a); err != nil || got != string(c) {
					t.Fatalf("%s: Canonical(%q) = %q, %v", a.Name(), form, got, err)
				}
			}
			if a.Fold() {
				if got, _ := Canonical([]byte(strings.ToUpper(string(c))), a); got != string(c) {
					t.Fatalf("%s: upper case of %q reads %q", a.Name(), c, got)
				}
			}
		}
	}
}

func TestAppendPath(t *testing.T) {
	for _, tt := range []struct{ code, want string }{
		{"aB3dE5g", "aB3dE5g"}, {"a+b:c", "a+b:c"}, {"café", "caf%C3%A9"}, {"🚀", "%F0%9F%9A%80"}, {"", ""},
	} {
		if got := string(AppendPath([]byte("/"), tt.code)); got != "/"+tt.want {
			t.Errorf("AppendPath(%q) = %q", tt.code, got)
		}
	}
}

func TestValidateAlias(t *testing.T) {
	for _, alias := range []string{
		"summer", "s", "aB3dE5g", "black-friday", "a.b", "a+b", "café", "caf%C3%A9", "🚀", "_x", "__", "robot", "well-known", ".hidden", "favicon",
		"metrics", "sitemap", "healthz2", strings.Repeat("a", 190), strings.Repeat("é", 95),
	} {
		if err := ValidateAlias(alias); err != nil {
			t.Errorf("ValidateAlias(%q): %v", alias, err)
		}
	}
	for _, alias := range []string{
		"", "a/b", "/a", "_/x", "_", ".", "..", "a?b", "a#b", "a b", " a", "a\n", "100%", "a+", "a%2B", "a.", "a%2e", ".well-known", ".WELL-known",
		".well-known-x", "robots.txt", "Robots.TXT", "robots.txt2", "favicon.ico", "%66avicon.ico", "healthz", "Readyz", "\xff", "a\u200b",
		strings.Repeat("a", 191), strings.Repeat("é", 96), strings.Repeat("a", 300),
	} {
		err := ValidateAlias(alias)
		e, ok := errors.AsType[*terse.Error](err)
		if !ok || e.Code != terse.CodeInvalid || e.Field != "code" || e.Message == "" {
			t.Errorf("ValidateAlias(%q): %v", alias, err)
		}
	}
}
