package domains

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/terselink/terse"
)

// MaxDocument bounds robots.txt and the documents below /.well-known, in bytes.
const MaxDocument = 64 << 10

// DefaultReferrerPolicy is that of redirects without one of their own.
const DefaultReferrerPolicy = "strict-origin-when-cross-origin"

// ReferrerPolicies returns the policies of the Referrer Policy specification, the
// default first. The caller must not change the slice.
func ReferrerPolicies() []string { return referrerPolicies }

var referrerPolicies = []string{
	DefaultReferrerPolicy, "no-referrer", "no-referrer-when-downgrade", "origin", "origin-when-cross-origin", "same-origin", "strict-origin", "unsafe-url",
}

// WebPatch changes what a domain tells beside its redirects; nil leaves a field as it
// is, a pointer to the zero value gives the default back.
type WebPatch struct {
	RobotsTxt               *string
	Index                   *bool
	ReferrerPolicy          *string
	TrailingSlash           *string
	AppleAppSiteAssociation *string
	AssetLinks              *string
}

func (p *WebPatch) apply(w *terse.DomainWeb) {
	set(&w.RobotsTxt, p.RobotsTxt)
	set(&w.Index, p.Index)
	set(&w.ReferrerPolicy, p.ReferrerPolicy)
	set(&w.TrailingSlash, p.TrailingSlash)
	set(&w.AppleAppSiteAssociation, p.AppleAppSiteAssociation)
	set(&w.AssetLinks, p.AssetLinks)
}

// checkWeb validates in place: defaults that are named become the zero value.
func checkWeb(w *terse.DomainWeb) error {
	if err := checkRobots(w.RobotsTxt); err != nil {
		return err
	}
	if w.ReferrerPolicy == DefaultReferrerPolicy {
		w.ReferrerPolicy = ""
	}
	if w.ReferrerPolicy != "" && !slices.Contains(referrerPolicies, w.ReferrerPolicy) {
		return terse.Invalid("referrer_policy", "the referrer policy is one of %s", strings.Join(referrerPolicies, ", "))
	}
	if w.TrailingSlash == terse.TrailingSlashIgnore {
		w.TrailingSlash = ""
	}
	if w.TrailingSlash != "" && w.TrailingSlash != terse.TrailingSlashStrict {
		return terse.Invalid("trailing_slash", "the trailing slash is %s or %s", terse.TrailingSlashIgnore, terse.TrailingSlashStrict)
	}
	if err := checkDocument("apple_app_site_association", w.AppleAppSiteAssociation, '{', "an object"); err != nil {
		return err
	}
	return checkDocument("assetlinks", w.AssetLinks, '[', "an array")
}

func checkRobots(s string) error {
	if len(s) > MaxDocument {
		return terse.Invalid("robots_txt", "longer than %d bytes", MaxDocument)
	}
	control := func(r rune) bool { return r < 0x20 && r != '\n' && r != '\r' && r != '\t' || r == 0x7f }
	if !utf8.ValidString(s) || strings.ContainsFunc(s, control) {
		return terse.Invalid("robots_txt", "not plain text in UTF-8")
	}
	return nil
}

// checkDocument accepts nothing, or one JSON value of the kind.
func checkDocument(field, s string, kind jsontext.Kind, what string) error {
	if s == "" {
		return nil
	}
	if len(s) > MaxDocument {
		return terse.Invalid(field, "longer than %d bytes", MaxDocument)
	}
	if v := jsontext.Value(s); !v.IsValid() || v.Kind() != kind {
		return terse.Invalid(field, "not valid JSON with %s at its top", what)
	}
	return nil
}

// MaxUTM is the longest value of a UTM parameter in bytes.
const MaxUTM = 255

// CheckUTM returns the parameters, nil if none has a value.
func CheckUTM(u *terse.UTM) (*terse.UTM, error) {
	if u == nil || *u == (terse.UTM{}) {
		return nil, nil
	}
	for _, p := range []struct{ field, value string }{
		{"utm.source", u.Source}, {"utm.medium", u.Medium}, {"utm.campaign", u.Campaign}, {"utm.term", u.Term}, {"utm.content", u.Content},
	} {
		if len(p.value) > MaxUTM {
			return nil, terse.Invalid(p.field, "longer than %d bytes", MaxUTM)
		}
		if !utf8.ValidString(p.value) || strings.ContainsFunc(p.value, unicode.IsControl) {
			return nil, terse.Invalid(p.field, "not text in UTF-8 without control characters")
		}
	}
	return u, nil
}

// CheckQueryMode validates how a query is added, and returns whether it is forwarded: a mode says
// that it is, QueryDrop that it is not, and no mode leaves it at forwards. QueryDrop becomes "", because
// what is not forwarded needs no mode.
func CheckQueryMode(mode *string, forwards *bool) (*bool, error) {
	switch *mode {
	case "":
		return forwards, nil
	case terse.QueryDrop:
		if forwards != nil && *forwards {
			return nil, terse.Invalid("query_mode", "drop contradicts forward_query")
		}
		*mode = ""
		return new(bool), nil
	case terse.QueryAppend, terse.QueryIncomingFirst, terse.QueryStoredFirst:
		if forwards == nil {
			forwards = new(true)
		}
		return forwards, nil
	}
	return nil, terse.Invalid("query_mode", "the query mode is append, incoming_first, stored_first or drop")
}
