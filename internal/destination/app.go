package destination

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/terselink/terse"
)

// Limits of the schemes that a workspace allows for its apps.
const (
	MaxSchemes = 50
	maxScheme  = 32
)

// notApps are schemes that browsers, mail programs or systems act upon by themselves. No
// workspace can allow them.
var notApps = []string{
	"about", "android-app", "blob", "chrome", "chrome-extension", "content", "cid", "data", "file", "filesystem", "ftp", "googlechrome", "http", "https",
	"intent", "itms-services", "jar", "javascript", "livescript", "mailto", "mhtml", "mk", "moz-extension", "ms-settings", "res", "search-ms", "shell", "sms",
	"tel", "vbscript", "view-source", "vnd.android.cursor.item", "ws", "wss", "wyciwyg", "x-apple.systempreferences",
}

// CheckSchemes validates the schemes of apps that a workspace allows, and returns them
// in lower case, sorted and distinct.
func CheckSchemes(field string, schemes []string) ([]string, error) {
	if len(schemes) > MaxSchemes {
		return nil, terse.Invalid(field, "more than %d schemes", MaxSchemes)
	}
	out := make([]string, 0, len(schemes))
	for i, s := range schemes {
		at := field + "[" + strconv.Itoa(i) + "]"
		s = strings.ToLower(s)
		if !isScheme(s) {
			return nil, terse.Invalid(at, "a scheme is a letter, then letters, digits, +, - and .: 2 to %d characters without a colon", maxScheme)
		}
		if slices.Contains(notApps, s) || strings.HasPrefix(s, "ms-") {
			return nil, terse.Invalid(at, "the scheme %s is not that of an app", s)
		}
		out = append(out, s)
	}
	slices.Sort(out)
	if out = slices.Compact(out); len(out) == 0 {
		return nil, nil
	}
	return out, nil
}

func isScheme(s string) bool {
	if len(s) < 2 || len(s) > maxScheme || s[0] < 'a' || s[0] > 'z' {
		return false
	}
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789+-.") == ""
}

// IsApp reports whether a rendered destination opens an app by a scheme of its own.
func IsApp(rendered string) bool {
	return rendered != "" && !strings.HasPrefix(rendered, "https://") && !strings.HasPrefix(rendered, "http://")
}

// ParseApp checks where visitors of a telephone are sent: a destination as Parse has it, or a URL of an
// app such as myapp://item/7 whose scheme is one of schemes, which CheckSchemes let through. It returns the
// rendered form: the scheme in lower case, bytes 0x21 to 0x7e only.
func ParseApp(field, raw string, serves func(host string) bool, schemes []string) (string, error) {
	s := strings.Trim(raw, " ")
	scheme, rest, found := strings.Cut(s, "://")
	scheme = strings.ToLower(scheme)
	if !found || scheme == "http" || scheme == "https" || !isScheme(scheme) {
		return Parse(field, raw, serves)
	}
	if !slices.Contains(schemes, scheme) {
		return "", bad(field, "the scheme "+scheme+" is not one of the workspace's app_schemes")
	}
	if len(s) > MaxLen {
		return "", bad(field, "longer than "+strconv.Itoa(MaxLen)+" bytes")
	}
	if !utf8.ValidString(s) {
		return "", bad(field, "not valid UTF-8")
	}
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c == 0x7f {
			return "", bad(field, "has a control character")
		}
	}
	if authority, _, _ := strings.Cut(rest, "/"); strings.ContainsAny(authority, `@\`) {
		return "", bad(field, "must not carry credentials")
	}
	out := appendEncoded(append([]byte(scheme), "://"...), rest)
	if len(out) > MaxLen {
		return "", bad(field, "longer than "+strconv.Itoa(MaxLen)+" bytes when encoded")
	}
	return string(out), nil
}
