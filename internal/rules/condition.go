package rules

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/agent"
)

type kind uint8

const (
	country kind = iota
	region
	languageKind
	device
	system
	browser
	query
	referrer
	clock
	weekday
	bot
	kindCount
)

// Types are the names of the conditions, in the order of the documentation.
var types = [kindCount]string{"country", "region", "language", "device", "os", "browser", "query", "referrer", "time", "weekday", "bot"}

var needs = [kindCount]Needs{
	country: NeedPlace, region: NeedPlace | NeedRegion, device: NeedAgent, system: NeedAgent, browser: NeedAgent, bot: NeedAgent,
}

var weekdays = [7]string{"sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"}

// The values of closed lists; misspelled ones are refused instead of never matching.
var (
	devices = []string{"desktop", "mobile", "tablet", "tv", "bot"}
	bots    = []string{"any", "search", "preview", "ai", "monitor", "library", "automation", "prefetch", "head", "scanner"}
)

// botNames are the values of the condition bot, by class.
var botNames = [...]string{
	agent.Search: "search", agent.Preview: "preview", agent.AI: "ai", agent.Monitor: "monitor",
	agent.Library: "library", agent.Automation: "automation", agent.Scanner: "scanner",
}

// BotName returns the value of Facts.Bot for what a User-Agent tells.
func BotName(c agent.Class) string { return botNames[c] }

// condition is one compiled comparison.
type condition struct {
	kind    kind
	not     bool
	days    uint8          // weekday: bit 0 is Sunday
	any     bool           // no values: the fact is there
	key     string         // of query
	zone    *time.Location // of clock and weekday
	values  values
	windows []window
}

// window is a part of time: from start to end, of every day (in minutes) or once (in milliseconds).
type window struct {
	daily      bool
	start, end int64 // end exclusive; once: 0 is open
}

func (c *condition) compile(field string, in *terse.Condition) error {
	k := slices.Index(types[:], in.Type)
	if k < 0 {
		return terse.Invalid(field+".type", "the type is one of %s", strings.Join(types[:], ", "))
	}
	c.kind, c.not = kind(k), in.Not
	if len(in.Values) > MaxValues {
		return terse.Invalid(field+".values", "more than %d values", MaxValues)
	}
	for n, v := range in.Values {
		if len(v) > MaxValue || !utf8.ValidString(v) {
			return terse.Invalid(fmt.Sprintf("%s.values[%d]", field, n), "a value is UTF-8 of at most %d bytes", MaxValue)
		}
	}
	if err := c.compileKey(field+".key", in.Key); err != nil {
		return err
	}
	if len(in.Values) == 0 {
		if c.kind != query && c.kind != referrer && c.kind != bot {
			return terse.Invalid(field+".values", "a condition on %s needs values", in.Type)
		}
		c.any = true
		return nil
	}
	list := make([]string, 0, len(in.Values))
	for n, v := range in.Values {
		canonical, why := c.value(v)
		if why != "" {
			return terse.Invalid(fmt.Sprintf("%s.values[%d]", field, n), "%s", why)
		}
		list = append(list, canonical)
	}
	c.any = c.kind == bot && slices.Contains(list, "any")
	c.values = newValues(list)
	return nil
}

// compileKey reads the name of a parameter or of a zone.
func (c *condition) compileKey(field, key string) error {
	switch c.kind {
	case query:
		if key == "" || len(key) > MaxValue || !utf8.ValidString(key) {
			return terse.Invalid(field, "a condition on query needs the name of a parameter, of at most %d bytes", MaxValue)
		}
		c.key = strings.Clone(key)
	case clock, weekday:
		var err error
		if key == "Local" {
			return terse.Invalid(field, "not the name of a time zone such as Europe/Berlin")
		}
		if c.zone, err = time.LoadLocation(key); err != nil { // "" is UTC
			return terse.Invalid(field, "not the name of a time zone such as Europe/Berlin")
		}
	default:
		if key != "" {
			return terse.Invalid(field, "only conditions on query, time and weekday have a key")
		}
	}
	return nil
}

// value returns the form of a value that facts are compared with, or why it is none.
func (c *condition) value(v string) (canonical, why string) {
	if v == "" && c.kind != query {
		return "", "a value is empty"
	}
	lower := strings.ToLower(v)
	switch c.kind {
	case country:
		if len(v) != 2 || lower[0] < 'a' || lower[0] > 'z' || lower[1] < 'a' || lower[1] > 'z' {
			return "", "not a country code of two letters such as DE"
		}
	case languageKind:
		if !isTag(lower) {
			return "", "not a language such as de or pt-BR"
		}
	case device:
		if !slices.Contains(devices, lower) {
			return "", "the device is one of " + strings.Join(devices, ", ")
		}
	case bot:
		if !slices.Contains(bots, lower) {
			return "", "the class of bots is one of " + strings.Join(bots, ", ")
		}
	case query:
		return strings.Clone(v), ""
	case referrer:
		if strings.ContainsAny(v, "/:@?# ") {
			return "", "not a host such as news.example.com"
		}
		lower = strings.TrimSuffix(lower, ".")
	case weekday:
		for d, name := range weekdays {
			if lower == name || lower == name[:3] {
				c.days |= 1 << d
				return lower, ""
			}
		}
		return "", "not a day such as monday or mon"
	case clock:
		w, why := parseWindow(v)
		c.windows = append(c.windows, w)
		return "", why
	}
	return lower, ""
}

// CheckFact reports why v can be no fact that conditions of a type look at; "" if it can.
func CheckFact(conditionType, v string) (why string) {
	k := slices.Index(types[:], conditionType)
	if k < 0 || v == "" {
		return ""
	}
	if kind(k) == bot && strings.EqualFold(v, "any") {
		return "any is no class of bots, but a condition that all of them meet"
	}
	c := condition{kind: kind(k)}
	_, why = c.value(v)
	return why
}

func isTag(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return s[0] != '-' && s[len(s)-1] != '-' && len(s) <= 35
}

// parseWindow reads "2027-01-01T00:00:00Z/2027-02-01T00:00:00Z", of which one side may be
// empty, or "09:00-17:30", which may go past midnight.
func parseWindow(v string) (window, string) {
	const why = "not a window such as 09:00-17:30 or 2027-01-01T00:00:00Z/2027-02-01T00:00:00Z"
	if from, to, ok := strings.Cut(v, "/"); ok {
		var w window
		for _, side := range []struct {
			text string
			to   *int64
		}{{from, &w.start}, {to, &w.end}} {
			if side.text == "" {
				continue
			}
			t, err := time.Parse(time.RFC3339, side.text)
			if err != nil {
				return window{}, why
			}
			*side.to = t.UnixMilli()
		}
		if from == "" && to == "" || from != "" && to != "" && w.end <= w.start {
			return window{}, "the window is empty or has no limits"
		}
		return w, ""
	}
	from, to, ok := strings.Cut(v, "-")
	start, okFrom := minuteOfDay(from)
	end, okTo := minuteOfDay(to)
	if !ok || !okFrom || !okTo || start == 24*60 {
		return window{}, why
	}
	if start == end {
		return window{}, "the window is empty; all day is 00:00-24:00"
	}
	return window{daily: true, start: start, end: end}, ""
}

// minuteOfDay reads 00:00 to 24:00.
func minuteOfDay(s string) (int64, bool) {
	if len(s) != 5 || s[2] != ':' {
		return 0, false
	}
	for _, i := range []int{0, 1, 3, 4} {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
	}
	h, m := int64(s[0]-'0')*10+int64(s[1]-'0'), int64(s[3]-'0')*10+int64(s[4]-'0')
	return h*60 + m, m < 60 && (h < 24 || h == 24 && m == 0)
}

// holds reports whether the condition is met. A fact that is not known equals no value,
// so that with not the condition holds.
func (c *condition) holds(f *Facts) bool { return c.meets(f) != c.not }

func (c *condition) meets(f *Facts) bool {
	switch c.kind {
	case country:
		return c.values.hasFold(f.Country)
	case region:
		return c.values.hasFold(f.Region)
	case device:
		return c.values.hasFold(f.Device)
	case system:
		return c.values.hasFold(f.OS)
	case browser:
		return c.values.hasFold(f.Browser)
	case bot:
		return f.Bot != "" && (c.any || c.values.hasFold(f.Bot))
	case languageKind:
		return c.meetsLanguage(preferred(f.Language))
	case query:
		return c.meetsQuery(f.Query)
	case referrer:
		return c.meetsReferrer(host(f.Referrer))
	case weekday:
		return c.days&(1<<local(f.Now, c.zone).Weekday()) != 0
	case clock:
		return c.meetsClock(f.Now)
	}
	return false
}

// meetsLanguage compares de-AT with de-at, then with de.
func (c *condition) meetsLanguage(tag []byte) bool {
	for len(tag) > 0 {
		if c.values.hasFoldBytes(tag) {
			return true
		}
		tag = tag[:max(bytes.LastIndexByte(tag, '-'), 0)]
	}
	return false
}

func (c *condition) meetsQuery(raw []byte) bool {
	var keyBuf, valueBuf [MaxValue]byte
	for len(raw) > 0 {
		var pair []byte
		pair, raw, _ = bytes.Cut(raw, []byte{'&'})
		k, v, _ := bytes.Cut(pair, []byte{'='})
		key, ok := unescape(keyBuf[:0], k)
		if !ok || string(key) != c.key {
			continue
		}
		if c.any {
			return true
		}
		if value, ok := unescape(valueBuf[:0], v); ok && c.values.has(value) {
			return true
		}
	}
	return false
}

// meetsReferrer compares news.example.com with itself, then with example.com, then com.
func (c *condition) meetsReferrer(h []byte) bool {
	if c.any {
		return len(h) > 0
	}
	for len(h) > 0 {
		if c.values.hasFoldBytes(h) {
			return true
		}
		i := bytes.IndexByte(h, '.')
		if i < 0 {
			break
		}
		h = h[i+1:]
	}
	return false
}

func (c *condition) meetsClock(now terse.Millis) bool {
	minute := int64(-1)
	for i := range c.windows {
		w := &c.windows[i]
		if !w.daily {
			if (w.start == 0 || int64(now) >= w.start) && (w.end == 0 || int64(now) < w.end) {
				return true
			}
			continue
		}
		if minute < 0 {
			t := local(now, c.zone)
			minute = int64(t.Hour()*60 + t.Minute())
		}
		if w.start < w.end && minute >= w.start && minute < w.end || w.start > w.end && (minute >= w.start || minute < w.end) {
			return true
		}
	}
	return false
}

// saw returns the fact that the condition looks at, for people.
func (c *condition) saw(f *Facts) string {
	switch c.kind {
	case country:
		return f.Country
	case region:
		return f.Region
	case device:
		return f.Device
	case system:
		return f.OS
	case browser:
		return f.Browser
	case bot:
		return f.Bot
	case languageKind:
		return string(preferred(f.Language))
	case query:
		return string(f.Query)
	case referrer:
		return string(host(f.Referrer))
	case weekday, clock:
		return local(f.Now, c.zone).Format("Monday 2006-01-02 15:04 MST")
	}
	return ""
}
