package pixel

import (
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/terselink/terse"
)

// valid has an id of each provider.
var valid = map[string]string{
	"meta": "1234567890123456", "google_ads": "987654321", "linkedin": "12345", "microsoft": "56789012", "pinterest": "2612345678901",
	"quora": "0123456789abcdef0123456789abcdef", "x": "o1a2b",
}

func TestProviders(t *testing.T) {
	t.Parallel()
	for _, name := range Providers() {
		p := terse.Pixel{Provider: name, ID: valid[name]}
		if err := Check([]terse.Pixel{p}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		image, sources := Image(p)
		u, err := url.Parse(image)
		if err != nil || u.Scheme != "https" || !strings.Contains(image, p.ID) || strings.Contains(image, "*") || !slices.Contains(sources, "https://"+u.Host) {
			t.Errorf("%s: %s from %v", name, image, sources)
		}
		for _, bad := range []string{"", "1", p.ID + "&ev=x", strings.ToUpper(p.ID) + "Z", `"><script>`, "../" + p.ID, p.ID + "\n", strings.Repeat("1", 64)} {
			if err := Check([]terse.Pixel{{Provider: name, ID: bad}}); !isAbout(err, "pixels[0].id") {
				t.Errorf("%s with the id %q: %v", name, bad, err)
			}
		}
	}
	if len(valid) != len(Providers()) {
		t.Error("a provider is without a test")
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	p := terse.Pixel{Provider: "meta", ID: "12345"}
	for field, list := range map[string][]terse.Pixel{
		"pixels[0].provider": {{Provider: "evil", ID: "12345"}}, "pixels[1].provider": {p, {ID: "12345"}}, "pixels[1]": {p, p}, "pixels": make([]terse.Pixel, Max+1),
	} {
		if err := Check(list); !isAbout(err, field) {
			t.Errorf("%v: %v, want %s", list, err, field)
		}
	}
	if err := Check(nil); err != nil {
		t.Error(err)
	}
}

// isAbout reports whether err is an error that names the field.
func isAbout(err error, field string) bool {
	e, ok := errors.AsType[*terse.Error](err)
	return ok && e.Field == field
}
