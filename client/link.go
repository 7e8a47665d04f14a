package client

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"time"

	"github.com/go-json-experiment/json"
)

// Link is a short link as the server returns it.
type Link struct {
	ID                 string            `json:"id"`
	ShortURL           string            `json:"short_url"`
	Domain             string            `json:"domain"`
	Code               string            `json:"code"`
	Destination        string            `json:"destination"`
	Title              string            `json:"title,omitzero"`
	Tags               []string          `json:"tags"`
	ExternalID         string            `json:"external_id,omitzero"`
	CampaignID         string            `json:"campaign_id,omitzero"`
	Status             string            `json:"status"` // active, disabled, expired or blocked
	CreatedAt          time.Time         `json:"created_at"`
	UpdatedAt          time.Time         `json:"updated_at"`
	CreatedBy          string            `json:"created_by,omitzero"` // id of the key that made it
	ExpiresAt          time.Time         `json:"expires_at,omitzero"`
	StartsAt           time.Time         `json:"starts_at,omitzero"`
	ExpiredDestination string            `json:"expired_destination,omitzero"`
	MaxClicks          uint64            `json:"max_clicks,omitzero"`
	HasPassword        bool              `json:"has_password"`
	RedirectStatus     int               `json:"redirect_status"` // in force: the link's own, else the domain's
	ForwardQuery       bool              `json:"forward_query"`   // in force: the link's own, else the domain's
	ForwardPath        bool              `json:"forward_path"`
	Rules              []Rule            `json:"rules"`
	Metadata           map[string]string `json:"metadata"`

	NoIndex       bool   `json:"noindex"` // in force
	BlockedReason string `json:"blocked_reason,omitzero"`
	LinkWeb              // in force

	Version uint64 `json:"version"`
	// Clicks counts the people who clicked, of all time; nil where the server does not tell: of a link
	// that was just made, or while analytics do not answer.
	Clicks        *int64    `json:"clicks,omitzero"`
	LastClickedAt time.Time `json:"last_clicked_at,omitzero"` // zero: never, or not told
}

// LinkWeb is what a link says of the answer beside where it leads.
type LinkWeb struct {
	ReferrerPolicy        string  `json:"referrer_policy,omitzero"`
	NotStartedDestination string  `json:"not_started_destination,omitzero"`
	LimitDestination      string  `json:"limit_destination,omitzero"`
	QueryMode             string  `json:"query_mode,omitzero"` // append, incoming_first, stored_first or drop
	UTM                   *UTM    `json:"utm,omitzero"`
	Sticky                string  `json:"sticky,omitzero"` // hash or cookie
	IOSDestination        string  `json:"ios_destination,omitzero"`
	IOSStore              string  `json:"ios_store,omitzero"`
	AndroidDestination    string  `json:"android_destination,omitzero"`
	AndroidStore          string  `json:"android_store,omitzero"`
	OGTitle               string  `json:"og_title,omitzero"`
	OGDescription         string  `json:"og_description,omitzero"`
	OGImage               string  `json:"og_image,omitzero"`
	Pixels                []Pixel `json:"pixels,omitzero"` // needs interstitials of the workspace
	Cloak                 bool    `json:"cloak,omitzero"`  // needs interstitials of the workspace
}

// LinkSettings are what a link, or a campaign for all of its links, is made with beside where it leads. Zero
// fields take the defaults of the domain and the workspace. Those of a campaign hold for every link that does not say it itself;
// in their URLs, UTM parameters and texts {name} stands for a value of each link.
type LinkSettings struct {
	Title              string            `json:"title,omitzero"`
	Tags               []string          `json:"tags,omitzero"`
	ExpiresAt          time.Time         `json:"expires_at,omitzero"`
	StartsAt           time.Time         `json:"starts_at,omitzero"`
	ExpiredDestination string            `json:"expired_destination,omitzero"`
	MaxClicks          uint64            `json:"max_clicks,omitzero"` // of a campaign: of each link
	Password           string            `json:"password,omitzero"`
	RedirectStatus     int               `json:"redirect_status,omitzero"`
	ForwardQuery       *bool             `json:"forward_query,omitzero"` // nil: as the domain says
	ForwardPath        bool              `json:"forward_path,omitzero"`
	Rules              []Rule            `json:"rules,omitzero"`
	Metadata           map[string]string `json:"metadata,omitzero"`
	NoIndex            *bool             `json:"noindex,omitzero"` // nil: as the domain says
	LinkWeb
}

// NewLink is what a link is made of. Only Destination is required.
type NewLink struct {
	Destination string `json:"destination"`
	Domain      string `json:"domain,omitzero"`
	Code        string `json:"code,omitzero"` // makes it an alias
	ExternalID  string `json:"external_id,omitzero"`
	LinkSettings

	// Class is "" or "secret": a random code of 22 characters, which guessing does not find.
	Class string `json:"class,omitzero"`
	// IfExists is "create" (default) or "reuse": return a live link of the
	// workspace on the domain with the same destination and no other settings.
	IfExists string `json:"if_exists,omitzero"`
}

// Rule sends the visitors that meet all its conditions elsewhere.
type Rule struct {
	Conditions  []Condition `json:"conditions"`
	Destination string      `json:"destination,omitzero"`
	Variants    []Variant   `json:"variants,omitzero"`
}

// Condition compares one fact of a visit with values.
type Condition struct {
	Type   string   `json:"type"`
	Key    string   `json:"key,omitzero"` // the name of a query parameter
	Not    bool     `json:"not,omitzero"`
	Values []string `json:"values"`
}

// Variant is one of several destinations with a weight.
type Variant struct {
	Destination string `json:"destination"`
	Weight      uint32 `json:"weight"`
}

// UTM are parameters for destinations that have none of the name.
type UTM struct {
	Source   string `json:"source,omitzero"`
	Medium   string `json:"medium,omitzero"`
	Campaign string `json:"campaign,omitzero"`
	Term     string `json:"term,omitzero"`
	Content  string `json:"content,omitzero"`
}

// Pixel tells a provider of advertisements of a visit.
type Pixel struct {
	Provider string `json:"provider"`
	ID       string `json:"id"`
}

// Change is one field of a patch: left alone (the zero value), set, or cleared.
type Change[T any] struct {
	value T
	state changeState
}

type changeState uint8

const (
	unchanged changeState = iota
	changed
	cleared
)

// Set changes a field to v.
func Set[T any](v T) Change[T] { return Change[T]{value: v, state: changed} }

// Clear takes the value of a field away.
func Clear[T any]() Change[T] { return Change[T]{state: cleared} }

// IsZero reports whether the field is left alone.
func (c Change[T]) IsZero() bool { return c.state == unchanged }

// MarshalJSON writes the value, or null to clear it.
func (c Change[T]) MarshalJSON() ([]byte, error) {
	if c.state != changed {
		return []byte("null"), nil
	}
	return json.Marshal(c.value)
}

// LinkSettingsPatch changes settings of a link, or of a campaign and with it of all its links.
type LinkSettingsPatch struct {
	Title              Change[string]            `json:"title,omitzero"`
	Tags               Change[[]string]          `json:"tags,omitzero"`
	ExpiresAt          Change[time.Time]         `json:"expires_at,omitzero"` // a time in the past ends it now
	StartsAt           Change[time.Time]         `json:"starts_at,omitzero"`
	ExpiredDestination Change[string]            `json:"expired_destination,omitzero"`
	MaxClicks          Change[uint64]            `json:"max_clicks,omitzero"`
	Password           Change[string]            `json:"password,omitzero"`
	RedirectStatus     Change[int]               `json:"redirect_status,omitzero"`
	ForwardQuery       Change[bool]              `json:"forward_query,omitzero"`
	ForwardPath        Change[bool]              `json:"forward_path,omitzero"`
	Rules              Change[[]Rule]            `json:"rules,omitzero"`
	Metadata           Change[map[string]string] `json:"metadata,omitzero"`

	NoIndex               Change[bool]    `json:"noindex,omitzero"`
	ReferrerPolicy        Change[string]  `json:"referrer_policy,omitzero"`
	NotStartedDestination Change[string]  `json:"not_started_destination,omitzero"`
	LimitDestination      Change[string]  `json:"limit_destination,omitzero"`
	QueryMode             Change[string]  `json:"query_mode,omitzero"`
	UTM                   Change[UTM]     `json:"utm,omitzero"`
	Sticky                Change[string]  `json:"sticky,omitzero"`
	IOSDestination        Change[string]  `json:"ios_destination,omitzero"`
	IOSStore              Change[string]  `json:"ios_store,omitzero"`
	AndroidDestination    Change[string]  `json:"android_destination,omitzero"`
	AndroidStore          Change[string]  `json:"android_store,omitzero"`
	OGTitle               Change[string]  `json:"og_title,omitzero"`
	OGDescription         Change[string]  `json:"og_description,omitzero"`
	OGImage               Change[string]  `json:"og_image,omitzero"`
	Pixels                Change[[]Pixel] `json:"pixels,omitzero"` // needs interstitials of the workspace
	Cloak                 Change[bool]    `json:"cloak,omitzero"`  // needs interstitials of the workspace
}

// LinkPatch changes a link.
type LinkPatch struct {
	Destination Change[string] `json:"destination,omitzero"`
	ExternalID  Change[string] `json:"external_id,omitzero"`
	Status      Change[string] `json:"status,omitzero"` // active, disabled, or blocked (scope links:block)
	LinkSettingsPatch
	BlockedReason Change[string] `json:"blocked_reason,omitzero"` // with the status blocked

	// IfVersion makes the change happen only to that version of the link; 0 is any.
	IfVersion uint64 `json:"-"`
}

// LinkFilter selects links. Zero fields select everything.
type LinkFilter struct {
	Domain      string
	CampaignID  string
	Tag         string
	Status      string // active, disabled, expired or blocked
	ExternalID  string
	Query       string // part of a destination, title or code
	CreatedFrom time.Time
	CreatedTo   time.Time
	Sort        string
	PageSize    int // links per request; 0 is the server's default
}

func (f LinkFilter) query() url.Values {
	q := url.Values{}
	set(q, "domain", f.Domain)
	set(q, "campaign_id", f.CampaignID)
	set(q, "tag", f.Tag)
	set(q, "status", f.Status)
	set(q, "external_id", f.ExternalID)
	set(q, "q", f.Query)
	setTime(q, "created_from", f.CreatedFrom)
	setTime(q, "created_to", f.CreatedTo)
	set(q, "sort", f.Sort)
	setInt(q, "limit", f.PageSize)
	return q
}

// CreateLink makes a link, which is durable when the call returns. With IfExists
// "reuse" it may return one that exists; CreateOrReuseLink tells which.
func (c *Client) CreateLink(ctx context.Context, n NewLink) (*Link, error) {
	l, _, err := c.create(ctx, n)
	return l, err
}

// CreateOrReuseLink returns the live link to the same destination, or makes one and
// reports that it did.
func (c *Client) CreateOrReuseLink(ctx context.Context, n NewLink) (l *Link, created bool, err error) {
	n.IfExists = "reuse"
	return c.create(ctx, n)
}

func (c *Client) create(ctx context.Context, n NewLink) (*Link, bool, error) {
	var l Link
	a := &call{method: http.MethodPost, path: "/links", in: n, out: &l}
	if err := c.do(ctx, a); err != nil {
		return nil, false, err
	}
	return &l, a.status == http.StatusCreated, nil
}

// Link returns the link of an id.
func (c *Client) Link(ctx context.Context, id string) (*Link, error) {
	var l Link
	if err := c.do(ctx, &call{method: http.MethodGet, path: "/links/" + url.PathEscape(id), out: &l}); err != nil {
		return nil, err
	}
	return &l, nil
}

// LookupLink returns the link of a short URL.
func (c *Client) LookupLink(ctx context.Context, shortURL string) (*Link, error) {
	var l Link
	q := url.Values{"short_url": {shortURL}}
	if err := c.do(ctx, &call{method: http.MethodGet, path: "/links/lookup", query: q, out: &l}); err != nil {
		return nil, err
	}
	return &l, nil
}

// Links yields links, newest first, and reads on as the loop does. An error ends
// it. A link that exists during the whole loop is yielded once.
func (c *Client) Links(ctx context.Context, f LinkFilter) iter.Seq2[*Link, error] {
	return pages[Link](ctx, c, "/links", f.query())
}

// UpdateLink changes a link and returns it as it is now. It is not repeated by itself.
func (c *Client) UpdateLink(ctx context.Context, id string, p LinkPatch) (*Link, error) {
	var l Link
	a := &call{method: http.MethodPatch, path: "/links/" + url.PathEscape(id), in: p, out: &l, ifMatch: p.IfVersion}
	if err := c.do(ctx, a); err != nil {
		return nil, err
	}
	return &l, nil
}

// DeleteResult is what became of one id.
type DeleteResult struct {
	ID      string    `json:"id"`
	Deleted bool      `json:"deleted"`
	Err     *RowError `json:"error"` // nil if it was deleted
}

// DeleteLinks ends at most 1,000 links for ever and returns what became of each, in
// the order of ids.
func (c *Client) DeleteLinks(ctx context.Context, ids []string) ([]DeleteResult, error) {
	in := struct {
		IDs []string `json:"ids"`
	}{ids}
	var out page[DeleteResult]
	if err := c.do(ctx, &call{method: http.MethodPost, path: "/links/delete", in: in, out: &out}); err != nil {
		return nil, err
	}
	return out.Data, nil
}

// DeleteLink ends a link for ever. It is not repeated by itself.
func (c *Client) DeleteLink(ctx context.Context, id string) error {
	return c.do(ctx, &call{method: http.MethodDelete, path: "/links/" + url.PathEscape(id)})
}
