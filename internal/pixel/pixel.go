// Package pixel knows the providers of retargeting pixels that a link may tell of a visit: an
// allow-list, what their ids look like, and the image that stands for their script. An image needs no
// foreign code on a page of ours.
//
// It sends nothing: the browser of a visitor loads the image, from a page of the redirect plane.
package pixel

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/terselink/terse"
)

// Max is how many pixels a link may have.
const Max = 10

const (
	digits = "0123456789"
	hex    = digits + "abcdef"
	alnum  = digits + "abcdefghijklmnopqrstuvwxyz"
)

// provider is one that is allowed. The image is at url with the id in place of *; hosts are those
// that it is loaded from or forwarded to.
type provider struct {
	url      string
	hosts    []string
	alphabet string // of an id
	min, max int    // characters of an id
}

var providers = map[string]provider{
	"meta":       {"https://www.facebook.com/tr?id=*&ev=PageView&noscript=1", []string{"www.facebook.com"}, digits, 5, 20},
	"google_ads": {"https://googleads.g.doubleclick.net/pagead/viewthroughconversion/*/?guid=ON&script=0", []string{"googleads.g.doubleclick.net", "www.google.com"}, digits, 6, 12},
	"linkedin":   {"https://px.ads.linkedin.com/collect/?pid=*&fmt=gif", []string{"px.ads.linkedin.com", "www.linkedin.com"}, digits, 3, 10},
	"microsoft":  {"https://bat.bing.com/action/0?ti=*&Ver=2", []string{"bat.bing.com"}, digits, 5, 12},
	"pinterest":  {"https://ct.pinterest.com/v3/?event=init&tid=*&noscript=1", []string{"ct.pinterest.com"}, digits, 10, 16},
	"quora":      {"https://q.quora.com/_/ad/*/pixel?tag=ViewContent&noscript=1", []string{"q.quora.com"}, hex, 32, 32},
	"x":          {"https://analytics.twitter.com/i/adsct?txn_id=*&p_id=Twitter", []string{"analytics.twitter.com", "t.co"}, alnum, 5, 10},
}

// Providers returns the names of all providers, sorted.
func Providers() []string { return slices.Sorted(maps.Keys(providers)) }

// Check validates the pixels of a link.
func Check(list []terse.Pixel) error {
	if len(list) > Max {
		return terse.Invalid("pixels", "more than %d pixels", Max)
	}
	for i, p := range list {
		at := fmt.Sprintf("pixels[%d]", i)
		known, ok := providers[p.Provider]
		if !ok {
			return terse.Invalid(at+".provider", "the provider is one of %s", strings.Join(Providers(), ", "))
		}
		if len(p.ID) < known.min || len(p.ID) > known.max || strings.Trim(p.ID, known.alphabet) != "" {
			return terse.Invalid(at+".id", "not an id of %s", p.Provider)
		}
		if slices.Contains(list[:i], p) {
			return terse.Invalid(at, "the pixel is there twice")
		}
	}
	return nil
}

// Image returns the URL of the image of a pixel that Check let through, and the sources of a
// Content-Security-Policy that let it in.
func Image(p terse.Pixel) (url string, sources []string) {
	known := providers[p.Provider]
	for _, h := range known.hosts {
		sources = append(sources, "https://"+h)
	}
	return strings.Replace(known.url, "*", p.ID, 1), sources
}
