package clicks

import (
	"strings"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/agent"
)

// EnrichSettings are what an operator says of enrichment, the same for all who enrich. The zero value is what is so
// by default. Engines hand it to other processes as JSON.
type EnrichSettings struct {
	RefPath bool     `json:"ref_path,omitzero"` // events have the path of the referrer
	Hosting []uint32 `json:"hosting,omitzero"`  // AS numbers of hosting networks beside those of data/hosting.txt
}

// EnricherOptions configure an Enricher. Zero values mean the defaults named.
type EnricherOptions struct {
	EnrichSettings
	Agents       *agent.Parser // default agent.New; must not be shared
	RepeatWindow time.Duration // default 1 h
	RepeatBytes  int           // memory of the repeat table; default 32 MiB, about 2 M visitor-link pairs
}

// Enricher turns spool records into events, in the process of the reader. But
// for Repeat an event depends on its record and the lists alone, so the spool
// can be read again with better lists. Not safe for concurrent use.
type Enricher struct {
	o       EnricherOptions
	tables  *referrerTables
	repeats *repeatTable
	hosting map[uint32]bool // AS numbers

	texts     memo[string]
	domains   memo[domainText]
	utm       memo[string]
	sources   memo[string]
	languages memo[string]
	referrers memo[referrer]
	places    map[[2]byte]string
	agents    memo[string] // whole, of workspaces that keep them
	networks  memo[string]
}

// domainText is the domain of a click: its text, and the host that referrals
// from the domain itself come from.
type domainText struct{ text, host string }

func parseDomain(b []byte) domainText {
	text := cleanText(b)
	host, _, _ := strings.Cut(text, ":")
	return domainText{text, trimHost(host)}
}

// Sizes of the memos: at most about 20 MB together.
const (
	manyTexts = 1 << 15
	someTexts = 1 << 13
)

// NewEnricher returns an enricher.
func NewEnricher(o EnricherOptions) (*Enricher, error) {
	if o.RepeatWindow < 0 || o.RepeatBytes < 0 {
		return nil, terse.Invalid("repeat", "window and memory are not negative")
	}
	if o.Agents == nil {
		o.Agents = agent.New(agent.Options{})
	}
	defaultTo(&o.RepeatWindow, time.Hour)
	defaultTo(&o.RepeatBytes, 32<<20)
	tables := loadReferrers()
	value := func(b []byte) string { return cutText(decodeValue(b), maxText) }
	return &Enricher{
		o: o, tables: tables, hosting: hosted(o.Hosting),
		repeats:   newRepeatTable(o.RepeatBytes, o.RepeatWindow.Milliseconds()),
		texts:     newMemo(manyTexts, cleanText),
		utm:       newMemo(someTexts, value),
		sources:   newMemo(someTexts, func(b []byte) string { return cutText([]byte(tables.named(value(b))), 64) }),
		domains:   newMemo(someTexts, parseDomain),
		languages: newMemo(someTexts, primaryLanguage),
		referrers: newMemo(someTexts, tables.parse),
		places:    map[[2]byte]string{},
		agents:    newMemo(someTexts, cleanText),
		networks:  newMemo(someTexts, networkText),
	}, nil
}

// Enrich overwrites *ev with the event of raw. Nothing of ev borrows from raw.
// It accepts any bytes and cannot fail: what it does not understand is "".
func (e *Enricher) Enrich(raw *Raw, ev *Event) {
	domain := e.domains.get(raw.Domain)
	*ev = Event{
		ID: raw.ID, At: raw.At, Workspace: raw.Workspace, Link: raw.Link, Campaign: raw.Campaign,
		Rule: raw.Rule, Outcome: raw.Outcome, Weight: raw.Weight, Visitor: ShortVisitor(raw.Visitor), ASN: raw.ASN, Node: raw.Node,
		Trigger:  "link",
		Domain:   domain.text,
		Code:     cleanText(raw.Code), // nearly every link has another: not worth remembering
		Language: e.languages.get(raw.Language),
		Country:  e.country(raw.Country),
		Region:   e.texts.get(raw.Region),
		City:     e.texts.get(raw.City),
	}
	if raw.KeepsAgent {
		ev.UserAgent = e.agents.get(raw.UserAgent)
	}
	if len(raw.Network) > 0 {
		ev.IP = e.networks.get(raw.Network)
	}
	if raw.Flags&FlagQR != 0 {
		ev.Trigger = "qr"
	}
	target := cutQuery(raw.Destination)
	ev.Destination = e.texts.get(target)

	var t tracking
	t.parse(raw.Query)
	if len(target) < len(raw.Destination) {
		t.parse(raw.Destination[len(target)+1:])
	}
	ev.UTMSource = e.utm.get(t[keySource])
	ev.UTMMedium = e.utm.get(t[keyMedium])
	ev.UTMCampaign = e.utm.get(t[keyCampaign])
	ev.UTMTerm = e.utm.get(t[keyTerm])
	ev.UTMContent = e.utm.get(t[keyContent])

	var info agent.Info
	if raw.Flags&flagTotal == 0 { // else no agent is known, which is not that of a program without one
		info = e.o.Agents.Parse(raw.UserAgent, raw.Platform, raw.Flags&FlagMobile != 0)
	}
	ev.Device, ev.OS, ev.OSVersion = info.Device, info.OS, info.OSVersion
	ev.Browser, ev.BrowserVer, ev.BotName = info.Browser, info.BrowserVersion, info.BotName

	ref := e.referrers.get(raw.Referrer)
	if ref.host != "" && ref.host == domain.host {
		ref = referrer{}
	}
	ev.RefHost = ref.host
	if e.o.RefPath {
		ev.RefPath = ref.path
	}
	ev.Source = e.source(&t, ref.source, info.App)

	// Of a row of totals nothing is known of the request; it has no network either.
	server := raw.ASN != 0 && len(raw.Language) == 0 && e.hosting[raw.ASN]
	ev.Bot = class(raw.Flags, BotClass(info.Bot), server, ref.class)
	if ev.Bot != Human {
		ev.Visitor = 0
	} else if ev.Visitor != 0 && ev.Outcome == OutcomeRedirect {
		ev.Repeat = e.repeats.seen(ev.Visitor, uint64(ev.Link), int64(ev.At))
	}
}

// visitorBits are those of a visitor's hash that are kept. Random bits cost what they are, whatever the codec: three bytes a
// click less than all 64. Of 10 million visitors of a day two are taken for one 45 times, of a million about once in two days.
const visitorBits = 40

// ShortVisitor returns the bits of a visitor that are kept; 0 is nobody.
func ShortVisitor(v uint64) uint64 {
	if v == 0 {
		return 0
	}
	return max(v&(1<<visitorBits-1), 1)
}

// source is the group a click came from: what the link says about itself, else
// the referrer, else the app whose browser it is. "" is direct.
func (e *Enricher) source(t *tracking, referrer, app string) string {
	for _, key := range [...]int{keySource, keyRef, keySourceShort} {
		if len(t[key]) > 0 {
			if s := e.sources.get(t[key]); s != "" {
				return s
			}
		}
	}
	if referrer != "" {
		return referrer
	}
	return app
}

// class applies the tests in the order of docs/clicks.md; the first match wins. server says that the request has no
// Accept-Language and comes from a network that sells servers.
func class(flags Flag, agent BotClass, server bool, referrer BotClass) BotClass {
	switch {
	case flags&FlagPrefetch != 0:
		return BotPrefetch
	case flags&FlagHead != 0:
		return BotHead
	case agent != Human:
		return agent
	case server:
		return BotScanner
	case referrer != Human:
		return referrer
	case flags&FlagNoTrack != 0:
		return BotSelf
	}
	return Human
}

// country returns one of few strings.
func (e *Enricher) country(b []byte) string {
	if len(b) != 2 || b[0] < 'A' || b[0] > 'Z' || b[1] < 'A' || b[1] > 'Z' {
		return ""
	}
	key := [2]byte(b)
	s, ok := e.places[key]
	if !ok { // at most 26 x 26
		s = string(b)
		e.places[key] = s
	}
	return s
}
