// Package agent tells what made a request from its User-Agent and client
// hints: device, operating system, browser, the app a person came from, and
// which kind of program it was if it was none.
//
// It is not proof: a User-Agent is a claim. A program that claims to be a
// browser is a person here; other signals are in package clicks. Values are
// from closed lists, so hostile input cannot fill a report with new names,
// except for the name of a bot, which is cut to 40 bytes of ASCII.
//
// BUG(ipad): Safari on iPadOS says that it is a Mac and sends no client hint,
// so such iPads count as desktops with macOS.
package agent

import (
	"bytes"
	"hash/maphash"
	"strings"

	"github.com/mileusna/useragent"
)

// Class says which kind of program made a request. The numbers are those of
// clicks.BotClass.
type Class uint8

// The classes a User-Agent can tell.
const (
	Person     Class = 0
	Search     Class = 1
	Preview    Class = 2
	AI         Class = 3
	Monitor    Class = 4 // SEO, monitoring, feeds, advertising, archives, research
	Library    Class = 5
	Automation Class = 6
	Scanner    Class = 9
)

// Info is what a User-Agent tells. A field is "" if it is not known.
type Info struct {
	Device         string // desktop, mobile, tablet, tv, bot
	OS             string
	OSVersion      string // major only
	Browser        string
	BrowserVersion string // major only
	App            string // source group of an in-app browser: Instagram, TikTok …
	BotName        string
	Bot            Class
}

// Options configure a Parser.
type Options struct {
	// CacheEntries bounds the memo of parsed values, at about 300 bytes each;
	// default 16,384.
	CacheEntries int
}

// Parser parses User-Agents and remembers the results. Not safe for concurrent use.
type Parser struct {
	bots *botList
	seed maphash.Seed
	most int
	memo map[uint64]Info // a collision of 64 keyed bits mislabels one click
	key  []byte
}

// maxBytes is how much of a User-Agent is looked at.
const maxBytes = 512

// New returns a parser. The list of bots is compiled once per process, on the first call.
func New(o Options) *Parser {
	if o.CacheEntries <= 0 {
		o.CacheEntries = 1 << 14
	}
	return &Parser{bots: loadBots(), seed: maphash.MakeSeed(), most: o.CacheEntries, memo: map[uint64]Info{}}
}

// Parse tells what ua is. platform is Sec-CH-UA-Platform as sent, and mobile
// whether Sec-CH-UA-Mobile is ?1. No argument is kept.
//
// Hot path: 0 allocs/op for a User-Agent seen before, see TestParseAllocs.
func (p *Parser) Parse(ua, platform []byte, mobile bool) Info {
	ua = ua[:min(len(ua), maxBytes)]
	p.key = append(append(append(p.key[:0], ua...), 0), platform...)
	if mobile {
		p.key = append(p.key, 1)
	}
	h := maphash.Bytes(p.seed, p.key)
	if info, ok := p.memo[h]; ok {
		return info
	}
	info := p.parse(ua, platform, mobile)
	if len(p.memo) >= p.most {
		clear(p.memo) // simpler than ageing, and what is hot is back at once
	}
	p.memo[h] = info
	return info
}

func (p *Parser) parse(ua, platform []byte, mobile bool) Info {
	var info Info
	info.Bot, info.BotName = p.bots.match(ua)
	text := string(bytes.ToValidUTF8(ua, nil))
	lib := useragent.Parse(text)
	info.OS, info.OSVersion = system(&lib, text)
	if name := hintedSystem(platform); name != "" && name != info.OS && !(name == "Android" && info.OS == "Harmony") {
		// The hint is right where they differ: "desktop site" on a phone
		// changes the User-Agent alone.
		info.OS, info.OSVersion = name, ""
	}
	info.Browser, info.BrowserVersion = browser(&lib, text)
	info.App = app(text)
	info.Device = device(&lib, text, info.OS, mobile)
	if info.Bot != Person {
		info.Device = "bot"
	}
	return info
}

// system returns the operating system and the major version that people know.
func system(lib *useragent.UserAgent, ua string) (name, version string) {
	switch {
	case strings.Contains(ua, "Windows Phone"):
		return "Windows Phone", major(lib.OSVersion)
	case strings.Contains(ua, "Tizen"):
		return "Tizen", after(ua, "Tizen ")
	case strings.Contains(ua, "Web0S"), strings.Contains(ua, "webOS"):
		return "webOS", ""
	case strings.Contains(ua, "KAIOS/"):
		return "KaiOS", after(ua, "KAIOS/")
	case strings.Contains(ua, "HarmonyOS"), strings.Contains(ua, "OpenHarmony"):
		return "Harmony", after(ua, "OpenHarmony ")
	case strings.Contains(ua, "iPod"):
		return "iOS", after(ua, "iPhone OS ")
	case strings.Contains(ua, "CrOS "):
		return "ChromeOS", ""
	case strings.Contains(ua, "FreeBSD"):
		return "FreeBSD", ""
	}
	switch lib.OS {
	case useragent.Windows:
		return "Windows", windowsVersion(lib.OSVersion)
	case useragent.MacOS:
		// Frozen at 10.15 by every browser since 2021; "10" would say nothing.
		return "macOS", ""
	case useragent.IOS:
		if v := after(ua, " OS "); v != "" {
			return "iOS", v
		}
		return "iOS", major(lib.OSVersion)
	case useragent.Android:
		return "Android", after(ua, "Android ")
	case useragent.Linux:
		return "Linux", ""
	case useragent.BlackBerry:
		return "BlackBerry", ""
	}
	if strings.Contains(ua, "Android") {
		return "Android", after(ua, "Android ")
	}
	if strings.Contains(ua, "(iPhone") || strings.Contains(ua, "iOS ") || strings.Contains(ua, "iPhone OS ") {
		return "iOS", after(ua, "iPhone OS ")
	}
	if strings.Contains(ua, "Linux") && strings.Contains(ua, "X11") {
		return "Linux", ""
	}
	return "", ""
}

func windowsVersion(v string) string {
	switch v { // NT versions; 11 says 10.0
	case "6.1":
		return "7"
	case "6.2", "6.3":
		return "8"
	case "6.0":
		return "Vista"
	case "5.1", "5.2":
		return "XP"
	}
	return major(v)
}

// hintedSystem reads Sec-CH-UA-Platform, a quoted string.
func hintedSystem(platform []byte) string {
	switch strings.Trim(string(platform), `" `) {
	case "Windows":
		return "Windows"
	case "macOS":
		return "macOS"
	case "Linux":
		return "Linux"
	case "Android":
		return "Android"
	case "iOS":
		return "iOS"
	case "Chrome OS", "Chromium OS":
		return "ChromeOS"
	}
	return ""
}

func device(lib *useragent.UserAgent, ua, os string, mobile bool) string {
	for _, token := range tvTokens {
		if strings.Contains(ua, token) {
			return "tv"
		}
	}
	switch {
	case mobile:
		return "mobile"
	case os == "Android", os == "Harmony":
		// Browsers on tablets leave out "Mobile"; apps keep "Tablet" or nothing.
		if lib.Tablet || strings.Contains(ua, "Tablet") {
			return "tablet"
		}
		// App libraries (Dalvik) and desktop sites name neither.
		if strings.Contains(ua, "Mobile") || !strings.Contains(ua, "AppleWebKit") {
			return "mobile"
		}
		return "tablet"
	case strings.Contains(ua, "iPad"):
		return "tablet"
	case os == "iOS", os == "KaiOS", os == "Windows Phone", os == "BlackBerry", os == "Tizen":
		return "mobile"
	case os == "Windows", os == "macOS", os == "Linux", os == "ChromeOS", os == "FreeBSD":
		return "desktop"
	case lib.Tablet:
		return "tablet"
	case lib.Mobile:
		return "mobile"
	}
	return ""
}

// browser returns a name from the closed lists and the major version.
func browser(lib *useragent.UserAgent, ua string) (name, version string) {
	for _, b := range browserTokens {
		if i := strings.Index(ua, b.token); i >= 0 {
			return b.name, leadingDigits(ua[i+len(b.token):])
		}
	}
	if strings.Contains(ua, "Trident/") {
		return "Internet Explorer", after(ua, "rv:")
	}
	if known, ok := libraryBrowsers[lib.Name]; ok {
		return known, major(lib.Version)
	}
	// WebKit without a name: an app that shows pages, on iOS.
	if strings.Contains(ua, "AppleWebKit/") && (strings.Contains(ua, "iPhone") || strings.Contains(ua, "iPad")) {
		return "Safari", after(ua, "Version/")
	}
	return "", ""
}

// app returns the source group of the app whose in-app browser ua is.
func app(ua string) string {
	for _, a := range appTokens {
		if strings.Contains(ua, a.token) {
			return a.name
		}
	}
	return ""
}

// after returns the digits that follow prefix.
func after(s, prefix string) string {
	i := strings.Index(s, prefix)
	if i < 0 {
		return ""
	}
	return leadingDigits(s[i+len(prefix):])
}

func major(version string) string { return leadingDigits(version) }

// leadingDigits returns at most four: versions are numbers, not texts.
func leadingDigits(s string) string {
	n := 0
	for n < len(s) && n < 4 && '0' <= s[n] && s[n] <= '9' {
		n++
	}
	return strings.Clone(s[:n])
}
