package client

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"time"
)

// Domain is a host of short links.
type Domain struct {
	Host                  string `json:"host"`
	Scheme                string `json:"scheme"`
	Shared                bool   `json:"shared"`     // every workspace may put links on it
	Default               bool   `json:"default"`    // of the instance
	InService             bool   `json:"in_service"` // false: its key is missing or wrong, it answers 503
	CodeLength            int    `json:"code_length"`
	Alphabet              string `json:"alphabet"`
	Strategy              string `json:"strategy"`
	RedirectStatus        int    `json:"redirect_status"`
	DefaultTTL            string `json:"default_ttl,omitzero"` // such as "4380h"
	ForwardQuery          bool   `json:"forward_query"`
	SMaxAge               int    `json:"s_maxage"` // seconds
	RootDestination       string `json:"root_destination,omitzero"`
	NotFoundDestination   string `json:"not_found_destination,omitzero"`
	ExpiredDestination    string `json:"expired_destination,omitzero"`
	NotStartedDestination string `json:"not_started_destination,omitzero"`
	LimitDestination      string `json:"limit_destination,omitzero"`
	QueryMode             string `json:"query_mode,omitzero"` // append, incoming_first, stored_first or drop
	UTM                   *UTM   `json:"utm,omitzero"`
	ClickIDParameter      string `json:"click_id_parameter,omitzero"` // destinations get the click's id under this name
	Brand                 *Brand `json:"brand,omitzero"`
	RobotsTxt             string `json:"robots_txt,omitzero"`
	NoIndex               bool   `json:"noindex"`
	ReferrerPolicy        string `json:"referrer_policy,omitzero"`
	TrailingSlash         string `json:"trailing_slash,omitzero"` // ignore or strict

	AppleAppSiteAssociation string `json:"apple_app_site_association,omitzero"` // JSON as text
	AssetLinks              string `json:"assetlinks,omitzero"`                 // JSON as text

	CreatedAt time.Time `json:"created_at,omitzero"`
	UpdatedAt time.Time `json:"updated_at,omitzero"`
	Version   uint64    `json:"version"`
}

// Brand is how the pages of a domain look.
type Brand struct {
	Name       string `json:"name,omitzero"`
	Accent     string `json:"accent,omitzero"` // "#0b57d0"
	Logo       string `json:"logo,omitzero"`   // an https URL, or a small image as a data URL
	SupportURL string `json:"support_url,omitzero"`
}

// NewDomain is what a domain is made of. Only Host is required.
type NewDomain struct {
	Host                  string `json:"host"`
	Scheme                string `json:"scheme,omitzero"`
	Shared                bool   `json:"shared,omitzero"` // only the owner key may
	CodeLength            int    `json:"code_length,omitzero"`
	Alphabet              string `json:"alphabet,omitzero"`
	Strategy              string `json:"strategy,omitzero"`
	RedirectStatus        int    `json:"redirect_status,omitzero"`
	DefaultTTL            string `json:"default_ttl,omitzero"`
	ForwardQuery          bool   `json:"forward_query,omitzero"`
	SMaxAge               int    `json:"s_maxage,omitzero"`
	RootDestination       string `json:"root_destination,omitzero"`
	NotFoundDestination   string `json:"not_found_destination,omitzero"`
	ExpiredDestination    string `json:"expired_destination,omitzero"`
	NotStartedDestination string `json:"not_started_destination,omitzero"`
	LimitDestination      string `json:"limit_destination,omitzero"`
	QueryMode             string `json:"query_mode,omitzero"`
	UTM                   *UTM   `json:"utm,omitzero"`
	ClickIDParameter      string `json:"click_id_parameter,omitzero"` // destinations get the click's id under this name
	Brand                 *Brand `json:"brand,omitzero"`
	RobotsTxt             string `json:"robots_txt,omitzero"`
	NoIndex               *bool  `json:"noindex,omitzero"` // nil: true
	ReferrerPolicy        string `json:"referrer_policy,omitzero"`
	TrailingSlash         string `json:"trailing_slash,omitzero"` // ignore (default) or strict
	// The documents that tie apps to the domain, JSON as text.
	AppleAppSiteAssociation string `json:"apple_app_site_association,omitzero"`
	AssetLinks              string `json:"assetlinks,omitzero"`
}

// DomainPatch changes a domain.
type DomainPatch struct {
	Scheme                Change[string] `json:"scheme,omitzero"`
	CodeLength            Change[int]    `json:"code_length,omitzero"`
	Strategy              Change[string] `json:"strategy,omitzero"`
	RedirectStatus        Change[int]    `json:"redirect_status,omitzero"`
	DefaultTTL            Change[string] `json:"default_ttl,omitzero"`
	ForwardQuery          Change[bool]   `json:"forward_query,omitzero"`
	SMaxAge               Change[int]    `json:"s_maxage,omitzero"`
	RootDestination       Change[string] `json:"root_destination,omitzero"`
	NotFoundDestination   Change[string] `json:"not_found_destination,omitzero"`
	ExpiredDestination    Change[string] `json:"expired_destination,omitzero"`
	NotStartedDestination Change[string] `json:"not_started_destination,omitzero"`
	LimitDestination      Change[string] `json:"limit_destination,omitzero"`
	QueryMode             Change[string] `json:"query_mode,omitzero"`
	UTM                   Change[UTM]    `json:"utm,omitzero"`
	ClickIDParameter      Change[string] `json:"click_id_parameter,omitzero"`
	Brand                 Change[Brand]  `json:"brand,omitzero"` // as a whole
	RobotsTxt             Change[string] `json:"robots_txt,omitzero"`
	NoIndex               Change[bool]   `json:"noindex,omitzero"`
	ReferrerPolicy        Change[string] `json:"referrer_policy,omitzero"`
	TrailingSlash         Change[string] `json:"trailing_slash,omitzero"`

	AppleAppSiteAssociation Change[string] `json:"apple_app_site_association,omitzero"`
	AssetLinks              Change[string] `json:"assetlinks,omitzero"`
}

// Domains yields the domains of the workspace.
func (c *Client) Domains(ctx context.Context) iter.Seq2[*Domain, error] {
	return pages[Domain](ctx, c, "/domains", nil)
}

// Domain returns one domain.
func (c *Client) Domain(ctx context.Context, host string) (*Domain, error) {
	var d Domain
	if err := c.do(ctx, &call{method: http.MethodGet, path: "/domains/" + url.PathEscape(host), out: &d}); err != nil {
		return nil, err
	}
	return &d, nil
}

// CreateDomain makes a domain.
func (c *Client) CreateDomain(ctx context.Context, n NewDomain) (*Domain, error) {
	var d Domain
	if err := c.do(ctx, &call{method: http.MethodPost, path: "/domains", in: n, out: &d}); err != nil {
		return nil, err
	}
	return &d, nil
}

// UpdateDomain changes a domain and returns it as it is now.
func (c *Client) UpdateDomain(ctx context.Context, host string, p DomainPatch) (*Domain, error) {
	var d Domain
	if err := c.do(ctx, &call{method: http.MethodPatch, path: "/domains/" + url.PathEscape(host), in: p, out: &d}); err != nil {
		return nil, err
	}
	return &d, nil
}

// DeleteDomain takes a domain without links away.
func (c *Client) DeleteDomain(ctx context.Context, host string) error {
	return c.do(ctx, &call{method: http.MethodDelete, path: "/domains/" + url.PathEscape(host)})
}

// Key is an API key without its secret.
type Key struct {
	ID          string    `json:"id"`
	Name        string    `json:"name"`
	WorkspaceID string    `json:"workspace_id,omitzero"`
	Scopes      []string  `json:"scopes"`
	CreatedAt   time.Time `json:"created_at,omitzero"`
	CreatedBy   string    `json:"created_by,omitzero"`
	ExpiresAt   time.Time `json:"expires_at,omitzero"`
	// Secret is the key itself. Only CreateKey returns it, once.
	Secret string `json:"key,omitzero"`
}

// NewKey is what a key is made of.
type NewKey struct {
	Name        string    `json:"name"`
	WorkspaceID string    `json:"workspace_id,omitzero"` // "" is the workspace of the call
	Scopes      []string  `json:"scopes"`                // "*" is everything within the workspace
	ExpiresAt   time.Time `json:"expires_at,omitzero"`
}

// Keys yields the keys of the workspace.
func (c *Client) Keys(ctx context.Context) iter.Seq2[*Key, error] {
	return pages[Key](ctx, c, "/keys", nil)
}

// CreateKey makes a key and returns it with its secret, which is not shown again.
func (c *Client) CreateKey(ctx context.Context, n NewKey) (*Key, error) {
	var k Key
	if err := c.do(ctx, &call{method: http.MethodPost, path: "/keys", in: n, out: &k}); err != nil {
		return nil, err
	}
	return &k, nil
}

// DeleteKey ends a key at once.
func (c *Client) DeleteKey(ctx context.Context, id string) error {
	return c.do(ctx, &call{method: http.MethodDelete, path: "/keys/" + url.PathEscape(id)})
}

// Workspace is a tenant.
type Workspace struct {
	ID            string     `json:"id"`
	Name          string     `json:"name"`
	DefaultDomain string     `json:"default_domain,omitzero"`
	Interstitials bool       `json:"interstitials"` // its links may show people a page before the destination
	AppSchemes    []string   `json:"app_schemes"`   // that its links may open apps with
	StoreUA       bool       `json:"store_ua"`      // its clicks keep the whole User-Agent
	StoreIP       string     `json:"store_ip"`      // what they keep of the address: no or truncated
	CreatedAt     time.Time  `json:"created_at,omitzero"`
	Retention     *Retention `json:"retention,omitzero"` // nil: as the instance says
}

// Retention says for how many days clicks are kept one by one; 0 is for ever.
type Retention struct {
	RawDays int `json:"raw_days"`
	BotDays int `json:"bot_days,omitzero"` // of bots, if shorter
}

// Workspaces yields the workspaces that the key may act in.
func (c *Client) Workspaces(ctx context.Context) iter.Seq2[*Workspace, error] {
	return pages[Workspace](ctx, c, "/workspaces", nil)
}

// CreateWorkspace makes a workspace.
func (c *Client) CreateWorkspace(ctx context.Context, name string) (*Workspace, error) {
	var w Workspace
	in := struct {
		Name string `json:"name"`
	}{name}
	if err := c.do(ctx, &call{method: http.MethodPost, path: "/workspaces", in: in, out: &w}); err != nil {
		return nil, err
	}
	return &w, nil
}

// WorkspacePatch changes a workspace.
type WorkspacePatch struct {
	Name          Change[string]    `json:"name,omitzero"`
	Interstitials Change[bool]      `json:"interstitials,omitzero"`
	AppSchemes    Change[[]string]  `json:"app_schemes,omitzero"`
	StoreUA       Change[bool]      `json:"store_ua,omitzero"`
	StoreIP       Change[string]    `json:"store_ip,omitzero"` // no or truncated
	Retention     Change[Retention] `json:"retention,omitzero"`
}

// UpdateWorkspace changes a workspace and returns it as it is now.
func (c *Client) UpdateWorkspace(ctx context.Context, id string, p WorkspacePatch) (*Workspace, error) {
	var w Workspace
	if err := c.do(ctx, &call{method: http.MethodPatch, path: "/workspaces/" + url.PathEscape(id), in: p, out: &w}); err != nil {
		return nil, err
	}
	return &w, nil
}
