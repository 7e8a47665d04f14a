package terse

import "time"

// Millis is a point in time: milliseconds since 1970 UTC. 0 means never or not set.
type Millis int64

// MillisOf converts; the zero time becomes 0.
func MillisOf(t time.Time) Millis {
	if t.IsZero() {
		return 0
	}
	return Millis(t.UnixMilli())
}

// Time converts to a UTC time; 0 becomes the zero time.
func (m Millis) Time() time.Time {
	if m == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(m)).UTC()
}

// Status says whether a link may redirect. Expiry is not a status: it is a
// function of the clock (Link.ExpiredAt).
type Status uint8

// The statuses that are stored.
const (
	StatusActive   Status = 0
	StatusDisabled Status = 1
	// StatusBlocked is a link that somebody with the right to do so stopped for abuse: it
	// answers 451, and its own keys cannot make it active again.
	StatusBlocked Status = 2
)

// String returns the name the API uses.
func (s Status) String() string {
	switch s {
	case StatusDisabled:
		return "disabled"
	case StatusBlocked:
		return "blocked"
	}
	return "active"
}

// Link is one short link. The zero values mean the domain's default or none.
//
// A Link owns nothing: its strings may be parts of one larger buffer, so a
// caller that keeps a Link from a large chunk for long clones its strings.
type Link struct {
	Number      LinkNumber
	Workspace   WorkspaceID
	Campaign    CampaignID
	Version     uint64 // 1 on creation, one more for every update
	CreatedAt   Millis
	UpdatedAt   Millis
	ExpiresAt   Millis // 0: never
	Code        string // canonical: the generated code or the alias
	Destination string // rendered for a Location header: bytes 0x21 to 0x7e only; "" for a campaign's link without one of its own
	Values      string // the values of a campaign's link in the order of Campaign.Fields, FieldSeparator between them; "" otherwise
	ExternalID  string
	Status      Status
	// ByCode says that no arithmetic leads from Code to Number, because the code is random,
	// secret or a snowflake: the store keeps Code and finds the link by it, as it
	// does for every link of AliasSpace, where ByCode stays false.
	ByCode bool
	// DefaultExpiry says that ExpiresAt came from the domain's default_ttl.
	DefaultExpiry bool
	// RedirectStatus is the HTTP status of the redirect; 0 means the domain's.
	RedirectStatus uint16
	// Settings holds what few links have; nil if none. Never modified once stored.
	Settings *LinkSettings

	// Reserves is read by InsertLinks only: for an alias that looks like a
	// generated code, the number that code would have. It is marked as
	// reserved in the same write. 0 means none.
	Reserves LinkNumber
}

// LinkSettings are the settings that few links have.
type LinkSettings struct {
	Title              string            `json:"title,omitempty"`
	Tags               []string          `json:"tags,omitempty"` // sorted, distinct
	Metadata           map[string]string `json:"metadata,omitempty"`
	StartsAt           Millis            `json:"starts_at,omitempty"`
	ExpiredDestination string            `json:"expired_destination,omitempty"`
	MaxClicks          uint64            `json:"max_clicks,omitempty"`
	PasswordHash       string            `json:"password_hash,omitempty"`
	ForwardQuery       *bool             `json:"forward_query,omitempty"` // nil: the domain's default
	ForwardPath        bool              `json:"forward_path,omitempty"`
	Rules              []Rule            `json:"rules,omitempty"`
	CreatedBy          string            `json:"created_by,omitempty"`
	Web                *LinkWeb          `json:"web,omitempty"`   // never a zero one
	Block              *Block            `json:"block,omitempty"` // of a link of StatusBlocked
}

// Rule sends the visitors that meet all its conditions elsewhere. Rules are
// ordered; the first that matches wins.
type Rule struct {
	Conditions  []Condition `json:"conditions"`
	Destination string      `json:"destination,omitempty"`
	Variants    []Variant   `json:"variants,omitempty"`
}

// Condition compares one fact of the request with values.
type Condition struct {
	Type   string   `json:"type"`
	Key    string   `json:"key,omitempty"` // the name of a query parameter
	Not    bool     `json:"not,omitempty"`
	Values []string `json:"values"`
}

// Variant is one of several destinations with a weight.
type Variant struct {
	Destination string `json:"destination"`
	Weight      uint32 `json:"weight"`
}

// Plain reports whether the link has a destination and no other settings, so that
// if_exists=reuse may return it for the same destination. An expiry that the
// domain's default_ttl gave is no setting of the link's own. A link that has no
// number yet is taken for one without an alias, and if it is ByCode for a secret one.
func (l *Link) Plain() bool {
	alias := l.Number != 0 && l.Number.Space() == AliasSpace
	secret := l.ByCode && (l.Number == 0 || l.Number.Space() >= SecretSpace)
	return !alias && !secret && l.Campaign == 0 && l.ExternalID == "" && l.Status == StatusActive &&
		l.RedirectStatus == 0 && (l.ExpiresAt == 0 || l.DefaultExpiry) && (l.Settings == nil || l.Settings.plain())
}

// Named reports whether the store keeps the link's Code and finds the link by it.
func (l *Link) Named() bool { return l.ByCode || l.Number.Space() == AliasSpace }

// ExpiredAt reports whether the link has ended by the time t.
func (l *Link) ExpiredAt(t Millis) bool { return l.ExpiresAt != 0 && t >= l.ExpiresAt }

func (s *LinkSettings) plain() bool {
	return s.Title == "" && len(s.Tags) == 0 && len(s.Metadata) == 0 && s.StartsAt == 0 && s.ExpiredDestination == "" &&
		s.MaxClicks == 0 && s.PasswordHash == "" && s.ForwardQuery == nil && !s.ForwardPath && len(s.Rules) == 0 && s.Web == nil && s.Block == nil
}

// LinkKey names a link to a store. Engines that store by number use Number,
// engines that store by code use Code.
type LinkKey struct {
	Number LinkNumber
	// Code is the canonical code. It may be empty only for a link that is Named,
	// whose code a store knows by itself.
	Code string
}
