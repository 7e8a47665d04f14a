package analytics

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/clicks"
)

// Dimension is a property of a click to group or filter by. The value is the
// name that the API uses.
type Dimension string

// The dimensions.
const (
	Country     Dimension = "country"
	Region      Dimension = "region"
	City        Dimension = "city"
	ASN         Dimension = "asn" // the network: its autonomous system number
	Device      Dimension = "device"
	OS          Dimension = "os"
	OSVersion   Dimension = "os_version"
	Browser     Dimension = "browser"
	BrowserVer  Dimension = "browser_version"
	Language    Dimension = "language"
	Referrer    Dimension = "referrer"
	Source      Dimension = "source"
	UTMSource   Dimension = "utm_source"
	UTMMedium   Dimension = "utm_medium"
	UTMCampaign Dimension = "utm_campaign"
	UTMTerm     Dimension = "utm_term"
	UTMContent  Dimension = "utm_content"
	Link        Dimension = "link"
	Campaign    Dimension = "campaign"
	Domain      Dimension = "domain"
	Code        Dimension = "code"
	Destination Dimension = "destination"
	Rule        Dimension = "rule"
	Outcome     Dimension = "outcome"
	Trigger     Dimension = "trigger"
	Bot         Dimension = "bot"
	BotName     Dimension = "bot_name"
	Node        Dimension = "node"
	// Tag has several values for a click: the tags of its link and of its campaign, or "" for
	// none. A breakdown counts a click once for every tag. Engines look tags up (FactSink): Of returns "".
	Tag Dimension = "tag"
)

// kind says how the values of a dimension are stored and written.
type kind uint8

const (
	kindText     kind = iota + 1 // compared by bytes
	kindUpper                    // text, always in upper case
	kindLower                    // text, always in lower case
	kindLink                     // terse.LinkNumber
	kindCampaign                 // terse.CampaignID
	kindASN                      // 32 bits, 0 is unknown
	kindNumber                   // 0 to 255
	kindNamed                    // 0 to 255 with a name for each
)

var kinds = map[Dimension]kind{
	Country: kindUpper, Region: kindText, City: kindText, Device: kindLower, OS: kindText, Browser: kindText,
	Language: kindLower, Referrer: kindLower, Source: kindText, UTMSource: kindText, UTMMedium: kindText,
	UTMCampaign: kindText, UTMTerm: kindText, UTMContent: kindText, Link: kindLink, Campaign: kindCampaign,
	Domain: kindLower, Code: kindText, Destination: kindText, Rule: kindNumber, Outcome: kindNamed,
	Trigger: kindLower, Bot: kindNamed, BotName: kindText, ASN: kindASN, OSVersion: kindText, BrowserVer: kindText, Node: kindText, Tag: kindText,
}

// The names are the API's, in the order of the numbers that engines store.
var (
	outcomeNames = []string{
		"redirect", "expired", "disabled", "limit", "password", "blocked", "notfound", "preview",
	}
	botNames = []string{
		"human", "search", "preview", "ai", "monitor", "library", "automation", "prefetch", "head", "scanner", "spam", "self",
	}
)

// Dimensions returns all dimensions in alphabetical order.
func Dimensions() []Dimension {
	all := make([]Dimension, 0, len(kinds))
	for d := range kinds {
		all = append(all, d)
	}
	slices.Sort(all)
	return all
}

// Valid reports whether d is one of the dimensions.
func (d Dimension) Valid() bool { return kinds[d] != 0 }

// Numeric reports whether engines store the values of d as numbers. Number and
// Text then convert.
func (d Dimension) Numeric() bool { return kinds[d] >= kindLink }

// names returns the names of a dimension of kindNamed.
func (d Dimension) names() []string {
	if d == Bot {
		return botNames
	}
	return outcomeNames
}

// Text returns the API's form of a stored number: an id for links and campaigns
// ("" for none), a name for bot and outcome, digits otherwise. A number without a
// name, from a newer version, is written in digits.
func (d Dimension) Text(n uint64) string {
	switch k := kinds[d]; {
	case n == 0 && (k == kindLink || k == kindCampaign || k == kindASN):
		return ""
	case k == kindLink:
		return terse.LinkNumber(n).String()
	case k == kindCampaign:
		return terse.CampaignID(n).String()
	case k == kindNamed && n < uint64(len(d.names())):
		return d.names()[n]
	}
	return strconv.FormatUint(n, 10)
}

// Number is the inverse of Text. Returns an error of code invalid if s is no
// value of the dimension.
func (d Dimension) Number(s string) (uint64, error) {
	switch kinds[d] {
	case kindLink:
		if s == "" {
			return 0, nil
		}
		n, err := terse.ParseLinkNumber(s)
		return uint64(n), err
	case kindCampaign:
		if s == "" {
			return 0, nil
		}
		n, err := terse.ParseCampaignID(s)
		return uint64(n), err
	case kindASN:
		if s == "" {
			return 0, nil
		}
		n, err := strconv.ParseUint(strings.TrimPrefix(strings.ToUpper(s), "AS"), 10, 32)
		if err != nil {
			return 0, terse.Invalid(string(d), "%q is no number of a network, such as AS3320", clip(s))
		}
		return n, nil
	case kindNamed:
		if i := slices.Index(d.names(), s); i >= 0 {
			return uint64(i), nil
		}
		return 0, terse.Invalid(string(d), "%q is none of: %s", clip(s), strings.Join(d.names(), ", "))
	}
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil {
		return 0, terse.Invalid(string(d), "%q is no number from 0 to 255", clip(s))
	}
	return n, nil
}

// Canonical returns the form in which a value is stored: countries in upper
// case, hosts in lower case. Returns an error of code invalid for a value that
// the dimension cannot have.
func (d Dimension) Canonical(s string) (string, error) {
	switch k := kinds[d]; {
	case k == kindUpper:
		return strings.ToUpper(s), nil
	case k == kindLower:
		return strings.ToLower(s), nil
	case d.Numeric():
		n, err := d.Number(s)
		return d.Text(n), err
	}
	return s, nil
}

// Of returns the value that an event has.
func (d Dimension) Of(ev *clicks.Event) string {
	switch d {
	case Country:
		return ev.Country
	case Region:
		return ev.Region
	case City:
		return ev.City
	case Device:
		return ev.Device
	case OS:
		return ev.OS
	case ASN:
		return d.Text(uint64(ev.ASN))
	case OSVersion:
		return ev.OSVersion
	case Browser:
		return ev.Browser
	case BrowserVer:
		return ev.BrowserVer
	case Node:
		return ev.Node
	case Language:
		return ev.Language
	case Referrer:
		return ev.RefHost
	case Source:
		return ev.Source
	case UTMSource:
		return ev.UTMSource
	case UTMMedium:
		return ev.UTMMedium
	case UTMCampaign:
		return ev.UTMCampaign
	case UTMTerm:
		return ev.UTMTerm
	case UTMContent:
		return ev.UTMContent
	case Link:
		return d.Text(uint64(ev.Link))
	case Campaign:
		return d.Text(uint64(ev.Campaign))
	case Domain:
		return ev.Domain
	case Code:
		return ev.Code
	case Destination:
		return ev.Destination
	case Rule:
		return d.Text(uint64(ev.Rule))
	case Outcome:
		return d.Text(uint64(ev.Outcome))
	case Trigger:
		return ev.Trigger
	case Bot:
		return d.Text(uint64(ev.Bot))
	case BotName:
		return ev.BotName
	}
	return ""
}

// Compare orders values as a breakdown does when their counts are equal: stored
// numbers by number, text by bytes.
func (d Dimension) Compare(a, b string) int {
	if k := kinds[d]; k == kindNumber || k == kindNamed || k == kindASN {
		x, errX := d.Number(a)
		y, errY := d.Number(b)
		if errX == nil && errY == nil {
			return cmp.Compare(x, y)
		}
	}
	return cmp.Compare(a, b) // the text of an id sorts as its number does
}

// clip shortens what a caller sent so that it fits into an error message.
func clip(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
