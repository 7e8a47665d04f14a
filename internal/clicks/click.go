package clicks

import (
	"net/netip"

	"github.com/terselink/terse"
)

// Outcome is what a visitor got.
type Outcome uint8

// The outcomes. Their numbers are on disk; never change them.
const (
	OutcomeRedirect Outcome = iota
	OutcomeExpired
	OutcomeDisabled
	OutcomeLimit
	OutcomePassword
	OutcomeBlocked
	OutcomeNotFound
	OutcomePreview
)

// Flag marks facts of the request that classify a click. The values of the lower eight are on disk; what is above them
// never is.
type Flag uint16

// The flags.
const (
	FlagHead     Flag = 1 << iota // HEAD or OPTIONS
	FlagPrefetch                  // Sec-Purpose, Purpose, X-Purpose or X-Moz says prefetch or preview
	FlagQR                        // ?qr=1
	FlagNoTrack                   // a member's own visit, which is not to be counted as a person's: class BotSelf
	FlagMobile                    // Sec-CH-UA-Mobile: ?1
	flagID                        // the click has an id of its own: set by the recorder
	flagSeq                       // it is not the first of its millisecond: on disk only
	flagTotal                     // it stands for as many as it weighs, and nothing but their link is known: on disk only
	// FlagOptOut says that the visitor asks not to be followed (Sec-GPC, DNT). Such a click is a person's as any other, but
	// has no visitor, and nothing of the visitor is kept. That is done before the first write, so the flag ends there.
	FlagOptOut
)

// flagsAnonymous are those whose clicks have no visitor, and of which nothing is kept.
const flagsAnonymous = FlagNoTrack | FlagOptOut

// flagsKnown are those on disk that a click can come with.
const flagsKnown = FlagHead | FlagPrefetch | FlagQR | FlagNoTrack | FlagMobile

// Click is one redirect decision as the redirect plane saw it. The byte slices
// are borrowed: they are valid only while Capture runs.
type Click struct {
	ID          terse.ClickID // zero: the recorder gives one. Else its time must be At
	At          terse.Millis
	Workspace   terse.WorkspaceID
	Link        terse.LinkNumber // 0: unknown code
	Campaign    terse.CampaignID
	Domain      string // host of the domain
	Code        []byte // as requested, canonical if it was valid
	Destination string // the target that won, "" if none
	Rule        uint8  // 0 default, else rule or variant n
	Outcome     Outcome
	Flags       Flag
	IP          netip.Addr // never reaches the disk; its network does where the workspace keeps that (Options.Kept)
	Country     [2]byte    // ISO 3166-1 alpha-2, told by a proxy that is trusted; zeros: that of the address
	UserAgent   []byte
	Referrer    []byte
	Language    []byte // Accept-Language
	Platform    []byte // Sec-CH-UA-Platform
	Query       []byte // the raw query of the request, for utm_ parameters
}

// BotClass says which kind of program made a click; 0 is a person. The numbers
// are in every engine and file.
type BotClass uint8

// The classes, in docs/clicks.md.
const (
	Human         BotClass = 0
	BotSearch     BotClass = 1
	BotPreview    BotClass = 2
	BotAI         BotClass = 3
	BotMonitor    BotClass = 4 // SEO, monitoring, feeds
	BotLibrary    BotClass = 5
	BotAutomation BotClass = 6
	BotPrefetch   BotClass = 7
	BotHead       BotClass = 8
	BotScanner    BotClass = 9
	BotSpam       BotClass = 10
	BotSelf       BotClass = 11
)

// Event is an enriched click: one row of the table "clicks" in every engine and
// in Parquet. Strings are "" if unknown, never "Unknown".
type Event struct {
	ID          [16]byte // UUIDv7
	At          terse.Millis
	Workspace   terse.WorkspaceID
	Link        terse.LinkNumber
	Campaign    terse.CampaignID
	Domain      string
	Code        string
	Destination string // without query
	Rule        uint8
	Outcome     Outcome
	Trigger     string // link, qr, api, deeplink, nfc
	Visitor     uint64 // 0: none
	Repeat      bool   // same visitor and link within the hour; best effort
	Bot         BotClass
	BotName     string
	Country     string // ISO 3166-1 alpha-2
	Region      string
	City        string
	ASN         uint32
	Device      string // desktop, mobile, tablet, tv, bot, ""
	OS          string
	OSVersion   string // major only
	Browser     string
	BrowserVer  string // major only
	Language    string // primary subtag
	RefHost     string // normalised; "" is direct
	RefPath     string
	Source      string // group: Google, X, Instagram …
	UTMSource   string
	UTMMedium   string
	UTMCampaign string
	UTMTerm     string
	UTMContent  string
	Weight      uint16 // 1, or 1/p when sampled
	Node        string
	UserAgent   string // whole, at most 512 bytes; "" unless the workspace keeps it
	IP          string // the network of the address, "203.0.113.0/24" or "2001:db8:1::/48"; "" unless the workspace keeps it
}

// NewClickID returns the id of a click at a time, of 74 random bits.
func NewClickID(at terse.Millis, random1, random2 uint64) terse.ClickID {
	return newID(int64(at), random1, random2)
}
