package domains

import (
	"errors"
	"strings"
	"testing"

	"github.com/terselink/terse"
)

func TestCheckBrand(t *testing.T) {
	t.Parallel()
	for _, b := range []terse.Brand{
		{Name: "Acme & Söhne <GmbH>"}, {Accent: "#0b57d0"}, {Logo: "https://cdn.example.com/logo.svg"}, {Logo: "data:image/png;base64,iVBORw0KGgo="},
		{Logo: "data:image/svg+xml;base64,PHN2Zy8+"}, {SupportURL: "https://example.com/help"}, {SupportURL: "http://example.com/"}, {SupportURL: "mailto:help@example.com"},
	} {
		got, err := checkBrand(&b)
		if err != nil || got == nil || *got != b {
			t.Errorf("%+v: %+v, %v", b, got, err)
		}
	}
	if got, err := checkBrand(&terse.Brand{Accent: "#AABBCC"}); err != nil || got.Accent != "#aabbcc" {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := checkBrand(&terse.Brand{}); got != nil || err != nil {
		t.Errorf("an empty brand is %+v, %v", got, err)
	}
	for field, list := range map[string][]terse.Brand{
		"brand.name":   {{Name: strings.Repeat("x", MaxBrandName+1)}, {Name: "a\x00"}, {Name: "\xff"}},
		"brand.accent": {{Accent: "red"}, {Accent: "#fff"}, {Accent: "#12345g"}, {Accent: "#12345;}"}, {Accent: "0b57d00"}},
		"brand.logo": {{Logo: "http://cdn.example.com/logo.png"}, {Logo: "javascript:alert(1)"}, {Logo: "data:text/html;base64,PGI+"}, {Logo: "data:image/png,x"},
			{Logo: "data:image/png;base64,***"}, {Logo: "data:image/png;base64,"}, {Logo: "data:image/svg+xml;utf8,<svg/>"}, {Logo: "data:image/png;base64," + strings.Repeat("A", MaxLogo)},
			{Logo: `data:image/png;base64,AAAA"onerror=x`}, {Logo: "data:image/png;base64," + strings.Repeat("+", MaxLogo/4)}},
		"brand.support_url": {{SupportURL: "javascript:alert(1)"}, {SupportURL: "mailto:"}, {SupportURL: "mailto:a"}, {SupportURL: "mailto:a@b?subject=x"}, {SupportURL: "mailto:A <a@example.com>"}, {SupportURL: "tel:1"}, {SupportURL: "https://example.com/" + strings.Repeat("x", MaxSupportURL)}},
	} {
		for _, b := range list {
			got, err := checkBrand(&b)
			e, ok := errors.AsType[*terse.Error](err)
			if !ok || e.Field != field {
				t.Errorf("%+v: %+v, %v", b, got, err)
			}
		}
	}
}
