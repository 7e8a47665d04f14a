package domains

import (
	"encoding/base64"
	"net/mail"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/destination"
)

// Limits of a brand. A page with the largest logo stays below 15 KB.
const (
	MaxBrandName  = 80      // bytes
	MaxLogo       = 8 << 10 // bytes of the URL, with the image in it, as they stand in a page
	MaxSupportURL = 500     // bytes
)

// logoTypes are the images that a data URL may hold. Scripts in an SVG do not run in an <img>.
var logoTypes = []string{"image/png", "image/jpeg", "image/gif", "image/webp", "image/svg+xml"}

// checkBrand returns the brand with its URLs rendered, nil if it says nothing.
func checkBrand(b *terse.Brand) (*terse.Brand, error) {
	if b == nil || *b == (terse.Brand{}) {
		return nil, nil
	}
	out := *b
	if len(b.Name) > MaxBrandName {
		return nil, terse.Invalid("brand.name", "longer than %d bytes", MaxBrandName)
	}
	if !utf8.ValidString(b.Name) || strings.ContainsFunc(b.Name, unicode.IsControl) {
		return nil, terse.Invalid("brand.name", "not text in UTF-8 without control characters")
	}
	if b.Accent != "" {
		out.Accent = strings.ToLower(b.Accent)
		if len(out.Accent) != 7 || out.Accent[0] != '#' || strings.Trim(out.Accent[1:], "0123456789abcdef") != "" {
			return nil, terse.Invalid("brand.accent", "not a colour such as #0b57d0")
		}
	}
	var err error
	if out.Logo, err = checkLogo(b.Logo); err != nil {
		return nil, err
	}
	if out.SupportURL, err = checkSupport(b.SupportURL); err != nil {
		return nil, err
	}
	return &out, nil
}

func checkLogo(logo string) (string, error) {
	const field = "brand.logo"
	if logo == "" {
		return "", nil
	}
	if len(logo)+4*strings.Count(logo, "+") > MaxLogo { // a page has "&#43;" for "+"
		return "", terse.Invalid(field, "longer than %d bytes", MaxLogo)
	}
	data, embedded := strings.CutPrefix(logo, "data:")
	if !embedded {
		url, err := destination.Parse(field, logo, nil)
		if err == nil && !strings.HasPrefix(url, "https://") {
			err = terse.Invalid(field, "the logo is an https URL or an image as a data URL")
		}
		return url, err
	}
	for _, t := range logoTypes {
		if image, ok := strings.CutPrefix(data, t+";base64,"); ok {
			if _, err := base64.StdEncoding.Strict().DecodeString(image); err != nil || image == "" {
				return "", terse.Invalid(field, "the image is not in base64")
			}
			return logo, nil
		}
	}
	return "", terse.Invalid(field, "a data URL is of the type %s, in base64", strings.Join(logoTypes, ", "))
}

func checkSupport(url string) (string, error) {
	const field = "brand.support_url"
	if url == "" {
		return "", nil
	}
	if len(url) > MaxSupportURL {
		return "", terse.Invalid(field, "longer than %d bytes", MaxSupportURL)
	}
	address, isMail := strings.CutPrefix(url, "mailto:")
	if !isMail {
		return destination.Parse(field, url, nil)
	}
	a, err := mail.ParseAddress(address)
	if err != nil || a.Address != address || len(address) > 254 || strings.ContainsFunc(address, func(r rune) bool { return r < 0x21 || r > 0x7e || r == '?' || r == '%' || r == '"' }) {
		return "", terse.Invalid(field, "not an address such as mailto:help@example.com")
	}
	return url, nil
}
