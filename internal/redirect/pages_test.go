package redirect

import (
	"bytes"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/domains"
)

func TestPages(t *testing.T) {
	t.Parallel()
	all, err := newSkins()
	if err != nil {
		t.Fatal(err)
	}
	for p := range pageCount {
		seen := map[string]string{}
		for l := range language(languageCount) {
			body, lang := all.plain.get(p, l), languages[l]
			if len(body) >= 15<<10 {
				t.Errorf("page %d in %s has %d bytes, want fewer than 15 KiB", p, lang, len(body))
			}
			if !bytes.Contains(body, []byte(`<html lang="`+lang+`">`)) || bytes.Contains(body, []byte("<script")) {
				t.Errorf("page %d in %s: no language, or a script", p, lang)
			}
			w := texts[p][l]
			if w.Title == "" || w.Text == "" || seen[w.Title] != "" {
				t.Errorf("page %d in %s: %q is missing or the same as in %s", p, lang, w.Title, seen[w.Title])
			}
			seen[w.Title] = lang
			if supportWords[l] == "" || buttons[l] == "" || appWords[l][0] == "" || appWords[l][1] == "" || appWords[l][2] == "" {
				t.Errorf("%s lacks words", lang)
			}
		}
	}
}

// TestBrandMemory: pages of however many brands are kept within a bound, and are right beyond it.
func TestBrandMemory(t *testing.T) {
	t.Parallel()
	all, err := newSkins()
	if err != nil {
		t.Fatal(err)
	}
	logo := "data:image/png;base64," + strings.Repeat("A", 12<<10)
	held := func() (bytes int64, brands int) {
		all.brand.Range(func(_, v any) bool {
			k := v.(*skin)
			bytes += k.ownBytes()
			for p := range pageCount {
				for l := range language(languageCount) {
					if b := k.pages[p][l].Load(); b != nil {
						bytes += int64(cap(*b))
					}
				}
			}
			brands++
			return true
		})
		return bytes, brands
	}
	peak := 0
	for n := range 4000 {
		name := fmt.Sprintf("Brand %d", n)
		d := &domains.Domain{Domain: terse.Domain{Number: terse.DomainID(n + 1), Host: "x.example.com", Brand: &terse.Brand{Name: name, Accent: "#123456", Logo: logo}}}
		for _, p := range []page{pageNotFound, pageGone, pageUnavailable} {
			if body := all.of(d).get(p, language(n%languageCount)); !bytes.Contains(body, []byte(name)) || !bytes.Contains(body, []byte(logo)) {
				t.Fatalf("page %d of brand %d is not its own", p, n)
			}
		}
		if n%100 == 99 {
			got, brands := held()
			if got > maxKept+maxKept/4 { // what a buffer has beyond its page is not counted
				t.Fatalf("%d brands hold %d bytes, want at most about %d", brands, got, maxKept)
			}
			if counted := all.kept.Load(); counted > maxKept {
				t.Fatalf("%d bytes are counted, more than %d", counted, maxKept)
			}
			peak = max(peak, brands)
		}
	}
	if peak < 300 {
		t.Errorf("at most %d brands were kept: the bound is not used", peak)
	}
	// One brand that is asked for again and again is rendered once.
	d := &domains.Domain{Domain: terse.Domain{Number: 9999, Brand: &terse.Brand{Name: "Last"}}}
	first := all.of(d).get(pageGone, 0)
	if again := all.of(d).get(pageGone, 0); &first[0] != &again[0] {
		t.Error("a page is rendered anew although there is room")
	}
}

// TestPreviewEscapes shows destinations that would be code somewhere else.
func TestPreviewEscapes(t *testing.T) {
	t.Parallel()
	for _, destination := range []string{`https://example.com/"><script>alert(1)</script>`, `javascript:alert(1)`, `https://example.com/'onclick='x`} {
		body, err := newSkin(nil, new(atomic.Int64)).render(pagePreview, 0, &pageData{Short: "https://go.example.com/a", Destination: destination})
		if err != nil {
			t.Fatal(err)
		}
		for _, bad := range []string{"<script", `href="javascript:`, `'onclick`} {
			if strings.Contains(string(body), bad) {
				t.Errorf("%s: the page has %s", destination, bad)
			}
		}
	}
}

func TestPreferredLanguage(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]string{
		"": "en", "de": "de", "de-AT": "de", "DE": "de", "xx": "en", "*": "en", "xx, fr": "fr", "en, de": "en",
		"en;q=0.8, de;q=0.9": "de", "de;q=0.9,ja;q=0.9": "de", "de;q=0, es;q=0.1": "es", "de;q=x, pt": "pt", "de;q=1.0": "de",
		"de;q=2, es;q=0.999": "de", "de;q=0.12345, es;q=0.001": "es", ";;;,,,": "en", "zh-Hant, ja;q=0.5": "ja",
	} {
		if got := languages[preferredLanguage([]byte(header))]; got != want {
			t.Errorf("%q: %s, want %s", header, got, want)
		}
	}
}
