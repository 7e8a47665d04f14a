package clicks

import (
	"bytes"
	_ "embed"
	"strings"
	"sync"
)

var (
	//go:embed data/sources.txt
	sourcesText string
	//go:embed data/scanners.txt
	scannersText string
	//go:embed data/spam.txt
	spamText string
)

// referrer is a normalised Referer header.
type referrer struct {
	host   string // lower case, without www. and the like; "" is none
	path   string
	source string // the group of the host, or the host
	class  BotClass
}

// referrerTables are the data files, parsed once.
type referrerTables struct {
	hosts    map[string]string // host -> group
	wild     map[string]string // "google" of "google.*" -> group
	aliases  map[string]string // utm_source in lower case -> group
	scanners map[string]bool
	spam     map[string]bool
}

var loadReferrers = sync.OnceValue(func() *referrerTables {
	t := &referrerTables{
		hosts: map[string]string{}, wild: map[string]string{}, aliases: map[string]string{},
		scanners: hostSet(scannersText), spam: hostSet(spamText),
	}
	for line := range dataLines(sourcesText) {
		group, list, _ := strings.Cut(line, ":")
		t.aliases[strings.ToLower(group)] = group
		for _, host := range strings.Fields(list) {
			if name, ok := strings.CutSuffix(host, ".*"); ok {
				t.wild[name] = group
			} else if strings.Contains(host, ".") {
				t.hosts[host] = group
			} else {
				t.aliases[host] = group
			}
		}
	}
	return t
})

func hostSet(text string) map[string]bool {
	set := map[string]bool{}
	for line := range dataLines(text) {
		set[line] = true
	}
	return set
}

// dataLines yields the lines of a data file without comments.
func dataLines(text string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for line := range strings.Lines(text) {
			if line = strings.TrimSpace(line); line != "" && line[0] != '#' && !yield(line) {
				return
			}
		}
	}
}

// parse normalises a referrer; what is no web address or app is none.
func (t *referrerTables) parse(raw []byte) referrer {
	rest, ok := cutPrefixFold(raw, "https://")
	if !ok {
		rest, ok = cutPrefixFold(raw, "http://")
	}
	app := false
	if !ok {
		rest, ok = cutPrefixFold(raw, "android-app://")
		app = ok
	}
	if !ok {
		return referrer{}
	}
	rest = cutQuery(rest)
	host, path := rest, []byte(nil)
	if i := bytes.IndexByte(rest, '/'); i >= 0 {
		host, path = rest[:i], rest[i:]
	}
	host = host[bytes.LastIndexByte(host, '@')+1:]
	if i := bytes.IndexByte(host, ':'); i >= 0 {
		host = host[:i]
	}
	name := strings.TrimSuffix(strings.ToLower(string(host)), ".")
	if !validHost(name) {
		return referrer{}
	}
	if !app {
		name = trimHost(name)
	}
	r := referrer{host: name, source: t.group(name)}
	if r.source == "" {
		r.source = name
	}
	switch {
	case inSet(t.scanners, name):
		r.class = BotScanner
	case inSet(t.spam, name):
		r.class = BotSpam
	}
	if len(path) > 1 && !app {
		r.path = cleanText(path[:min(len(path), maxText)])
	}
	return r
}

// appendReferrerHost appends the host of a referrer that is a web address, in lower case and with its port. It appends nothing for
// anything else, and as much as domains have of what is longer.
func appendReferrerHost(dst, raw []byte) []byte {
	host, ok := cutPrefixFold(raw, "https://")
	if !ok {
		if host, ok = cutPrefixFold(raw, "http://"); !ok {
			return dst
		}
	}
	if i := bytes.IndexAny(host, "/?#"); i >= 0 {
		host = host[:i]
	}
	host = host[bytes.LastIndexByte(host, '@')+1:]
	host = bytes.TrimSuffix(host, []byte{'.'})
	for _, c := range host[:min(len(host), maxDomain)] {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		dst = append(dst, c)
	}
	return dst
}

func cutPrefixFold(b []byte, prefix string) ([]byte, bool) {
	if len(b) < len(prefix) || !bytes.EqualFold(b[:len(prefix)], []byte(prefix)) {
		return b, false
	}
	return b[len(prefix):], true
}

// validHost accepts names of letters, digits, '-', '_' and '.': what browsers
// send, also for international names. Literal IPv6 addresses are none.
func validHost(h string) bool {
	if h == "" || len(h) > maxDomain || h[0] == '.' || h[0] == '-' {
		return false
	}
	for i := range len(h) {
		c := h[i]
		if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.' && h[i-1] != '.') {
			return false
		}
	}
	return true
}

// trimHost takes labels off that only say which rendering a page has.
func trimHost(h string) string {
	for {
		shorter := trimLabel(h)
		if len(shorter) == len(h) {
			return h
		}
		h = shorter
	}
}

// trimLabel is one step of trimHost; a host that has no such label is returned as it is.
func trimLabel[T string | []byte](h T) T {
	dot := -1
	for i := range len(h) {
		if h[i] != '.' {
			continue
		}
		if dot >= 0 { // two labels stay
			switch string(h[:dot]) {
			case "www", "m", "l", "lm", "amp", "mobile", "out":
				return h[dot+1:]
			}
			return h
		}
		dot = i
	}
	return h
}

// group returns the group of a host, "" if it has none.
func (t *referrerTables) group(host string) string {
	for h := host; h != ""; _, h, _ = strings.Cut(h, ".") {
		if g, ok := t.hosts[h]; ok {
			return g
		}
		label, rest, _ := strings.Cut(h, ".")
		if g, ok := t.wild[label]; ok && publicSuffix(rest) {
			return g
		}
	}
	return ""
}

// publicSuffix reports whether s looks like a top-level domain, or like one
// with a second level as in co.uk and com.br.
func publicSuffix(s string) bool {
	first, second, two := strings.Cut(s, ".")
	if !two {
		return len(first) >= 2
	}
	return len(first) <= 3 && len(second) == 2
}

func inSet(set map[string]bool, host string) bool {
	for h := host; h != ""; _, h, _ = strings.Cut(h, ".") {
		if set[h] {
			return true
		}
	}
	return false
}

// named returns the group that a value of utm_source, ref or source names: an
// alias, a host, or the value itself.
func (t *referrerTables) named(value string) string {
	v := strings.ToLower(strings.TrimSpace(value))
	if g, ok := t.aliases[v]; ok {
		return g
	}
	if strings.Contains(v, ".") && validHost(v) {
		if g := t.group(trimHost(v)); g != "" {
			return g
		}
	}
	return strings.TrimSpace(value)
}
