package terse

import "time"

// Domain is a host that short links live on, with its own codes. It is stored
// as a document of KindDomain under the instance (workspace 0), id = Host.
//
// PermKey is data as precious as the links: without it no generated code of
// the domain can be resolved.
type Domain struct {
	Number     DomainID    `json:"number"`
	Workspace  WorkspaceID `json:"workspace"` // the owner; 0: shared by every workspace
	Host       string      `json:"host"`      // lower case A-label, with a port only if it is not the scheme's own
	Scheme     string      `json:"scheme"`    // "http" or "https": how short URLs are printed
	CreatedAt  Millis      `json:"created_at"`
	UpdatedAt  Millis      `json:"updated_at"`
	Version    uint64      `json:"-"`        // the document's version
	PermKey    []byte      `json:"perm_key"` // 32 random bytes
	CodeLength int         `json:"code_length"`
	Alphabet   string      `json:"alphabet"`
	Strategy   string      `json:"strategy"`
	Spaces     []Space     `json:"spaces"` // one per code length ever used, the current one last
	// AllReserved says that every alias that looks like a generated code has a reservation. A
	// domain without it may have aliases without one whose index is above MaxIndex.
	AllReserved bool `json:"all_reserved,omitempty"`

	RedirectStatus      int           `json:"redirect_status"` // 302 unless set
	DefaultTTL          time.Duration `json:"default_ttl,omitempty"`
	ForwardQuery        bool          `json:"forward_query,omitempty"`
	RootDestination     string        `json:"root_destination,omitempty"`
	NotFoundDestination string        `json:"not_found_destination,omitempty"`
	ExpiredDestination  string        `json:"expired_destination,omitempty"`

	NotStartedDestination string `json:"not_started_destination,omitempty"`
	LimitDestination      string `json:"limit_destination,omitempty"`
	QueryMode             string `json:"query_mode,omitempty"` // how the query is added if it is forwarded; "": QueryAppend
	UTM                   *UTM   `json:"utm,omitempty"`
	ClickIDParameter      string `json:"click_id_parameter,omitempty"` // destinations get the click's id under this name; "": they do not
	SMaxAge               int    `json:"s_maxage,omitempty"`           // seconds a CDN may keep a redirect; 0: not at all
	Brand                 *Brand `json:"brand,omitempty"`

	DomainWeb
}

// Space describes the generated codes of one length on a domain. Its counter
// lives in the store (Store.Lease).
type Space struct {
	Space       SpaceID  `json:"space"` // = the length of its codes
	Strategy    string   `json:"strategy"`
	Alphabet    string   `json:"alphabet"`
	PermVersion int      `json:"perm_version"`
	Cap         uint64   `json:"cap"`             // indexes to issue before the domain grows
	Epoch       Millis   `json:"epoch,omitempty"` // of snowflakes: when their clock begins
	CheckCodes  []string `json:"check_codes"`     // permuted: codes of indexes 0 to 7: a wrong key is found before it misleads anybody
	Retired     bool     `json:"retired,omitempty"`
}

// Base returns what short URLs of the domain start with: "https://go.example.com/".
func (d *Domain) Base() string { return d.Scheme + "://" + d.Host + "/" }

// Current returns the space that new codes come from.
func (d *Domain) Current() *Space { return &d.Spaces[len(d.Spaces)-1] }

// Workspace is a tenant. Stored as a document of KindWorkspace under the
// instance, id = its text id.
type Workspace struct {
	ID            WorkspaceID `json:"id"`
	Name          string      `json:"name"`
	DefaultDomain string      `json:"default_domain"` // host
	CreatedAt     Millis      `json:"created_at"`
	Retention     *Retention  `json:"retention,omitempty"` // of clicks; nil: the instance's
	WorkspaceSettings
	Version uint64 `json:"-"` // the document's version
}

// Retention says for how many days clicks are kept one by one, after which only their numbers
// are. 0 is for ever.
type Retention struct {
	RawDays int `json:"raw_days"`
	BotDays int `json:"bot_days"` // of bots, if shorter
}

// WorkspaceSettings are what a workspace has switched on. The zero value is nothing.
type WorkspaceSettings struct {
	// Interstitials lets links show people a page before the destination: with pixels, or around it.
	Interstitials bool     `json:"interstitials,omitempty"`
	AppSchemes    []string `json:"app_schemes,omitempty"` // that links may open apps with; lower case, sorted
	// What is kept of visitors beyond what every click has, from the moment that it is switched on, in clicks alone.
	StoreUA bool    `json:"store_ua,omitempty"` // the whole User-Agent
	StoreIP StoreIP `json:"store_ip,omitempty"`
}

// IsZero reports whether nothing is switched on.
func (s *WorkspaceSettings) IsZero() bool {
	return !s.Interstitials && len(s.AppSchemes) == 0 && !s.StoreUA && s.StoreIP == StoreIPNo
}

// StoreIP says which part of a visitor's address is kept with a click.
type StoreIP string

// The parts that can be kept. There is no way to keep a whole address.
const (
	StoreIPNo        StoreIP = ""          // none; people write "no"
	StoreIPTruncated StoreIP = "truncated" // /24 of IPv4, /48 of IPv6
)

// ParseStoreIP returns what people call "no" or "truncated"; false for everything else.
func ParseStoreIP(s string) (StoreIP, bool) {
	switch s {
	case "no":
		return StoreIPNo, true
	case string(StoreIPTruncated):
		return StoreIPTruncated, true
	}
	return StoreIPNo, false
}

// String returns "no" or "truncated".
func (s StoreIP) String() string {
	if s == StoreIPNo {
		return "no"
	}
	return string(s)
}
