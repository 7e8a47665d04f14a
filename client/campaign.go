package client

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"time"

	"github.com/go-json-experiment/json"
)

// Campaign is what many links made together share: every change of it holds for all of them
// with their next visit.
type Campaign struct {
	ID                 string            `json:"id"`
	Name               string            `json:"name"`
	Domains            []CampaignDomain  `json:"domains"`     // where links go in turn, each as often as its weight says
	Destination        string            `json:"destination"` // a template: {name} stands for a value of the link
	Fields             []string          `json:"fields"`      // the names of the values of every link; they never change
	Links              uint64            `json:"links"`
	Title              string            `json:"title,omitzero"` // of links without one; as in all that follows, {name} stands for a value
	Tags               []string          `json:"tags"`
	Status             string            `json:"status"` // active, disabled or expired
	ExpiresAt          time.Time         `json:"expires_at,omitzero"`
	StartsAt           time.Time         `json:"starts_at,omitzero"`
	ExpiredDestination string            `json:"expired_destination,omitzero"`
	MaxClicks          uint64            `json:"max_clicks,omitzero"` // of each link
	HasPassword        bool              `json:"has_password"`
	RedirectStatus     int               `json:"redirect_status,omitzero"` // 0: that of the domain
	ForwardQuery       *bool             `json:"forward_query,omitzero"`   // nil: as the domain says
	ForwardPath        bool              `json:"forward_path"`
	Rules              []Rule            `json:"rules"` // their destinations are templates, too
	Metadata           map[string]string `json:"metadata"`
	NoIndex            *bool             `json:"noindex,omitzero"` // nil: as the domain says
	LinkWeb
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
	CreatedBy string    `json:"created_by,omitzero"` // id of the key that made it
	Version   uint64    `json:"version"`
}

// CampaignDomain is a domain of a campaign.
type CampaignDomain struct {
	Host   string `json:"host"`
	Weight uint32 `json:"weight,omitzero"` // how often it has its turn beside the others; 0 is 1
}

// NewCampaign is what a campaign is made of. Only Name and Destination are required.
type NewCampaign struct {
	Name string `json:"name"`
	// Destination is a template: {name} behind the host stands for a value of each link.
	Destination string           `json:"destination"`
	Domain      string           `json:"domain,omitzero"`  // "" and no Domains: the workspace's default
	Domains     []CampaignDomain `json:"domains,omitzero"` // several, in place of Domain
	Fields      []string         `json:"fields,omitzero"`  // names and order of the values; nil: those that the templates name
	LinkSettings
}

// CampaignPatch changes a campaign and with it all its links.
type CampaignPatch struct {
	Name        Change[string]           `json:"name,omitzero"`
	Destination Change[string]           `json:"destination,omitzero"` // may use the campaign's fields and no others
	Domains     Change[[]CampaignDomain] `json:"domains,omitzero"`     // for new links; existing ones stay where they are
	Status      Change[string]           `json:"status,omitzero"`      // active or disabled
	LinkSettingsPatch

	// IfVersion makes the change happen only to that version of the campaign; 0 is any.
	IfVersion uint64 `json:"-"`
}

// CampaignRow is one link of a campaign to make: a value for each of its fields, and settings.
type CampaignRow struct {
	Values     map[string]string
	ExternalID string
	Domain     string    // "" is the next of the campaign's
	Code       string    // makes it an alias
	Class      string    // "" or "secret"
	ExpiresAt  time.Time // the link's own end, if it is before the campaign's
}

// MarshalJSON writes the row as the server reads it: settings and values beside each other.
func (r CampaignRow) MarshalJSON() ([]byte, error) {
	out := make(map[string]string, len(r.Values)+2)
	for k, v := range map[string]string{"external_id": r.ExternalID, "domain": r.Domain, "code": r.Code, "class": r.Class} {
		if v != "" {
			out[k] = v
		}
	}
	if !r.ExpiresAt.IsZero() {
		out["expires_at"] = r.ExpiresAt.UTC().Format(time.RFC3339Nano)
	}
	for k, v := range r.Values {
		if _, taken := out[k]; taken {
			return nil, fmt.Errorf("the row has %s as a setting and as a value", k)
		}
		out[k] = v
	}
	return json.Marshal(out, json.Deterministic(true))
}

func campaignPath(id string) string { return "/campaigns/" + url.PathEscape(id) }

// CreateCampaign makes a campaign without links, durable when the call returns.
func (c *Client) CreateCampaign(ctx context.Context, n NewCampaign) (*Campaign, error) {
	var out Campaign
	if err := c.do(ctx, &call{method: http.MethodPost, path: "/campaigns", in: n, out: &out}); err != nil {
		return nil, err
	}
	return &out, nil
}

// Campaign returns the campaign of an id.
func (c *Client) Campaign(ctx context.Context, id string) (*Campaign, error) {
	var out Campaign
	if err := c.do(ctx, &call{method: http.MethodGet, path: campaignPath(id), out: &out}); err != nil {
		return nil, err
	}
	return &out, nil
}

// Campaigns yields campaigns, oldest first, and reads on as the loop does. An error ends it.
func (c *Client) Campaigns(ctx context.Context) iter.Seq2[*Campaign, error] {
	return pages[Campaign](ctx, c, "/campaigns", url.Values{})
}

// UpdateCampaign changes a campaign and returns it as it is now: one write, which every link
// follows with its next visit. It is not repeated by itself.
func (c *Client) UpdateCampaign(ctx context.Context, id string, p CampaignPatch) (*Campaign, error) {
	var out Campaign
	if err := c.do(ctx, &call{method: http.MethodPatch, path: campaignPath(id), in: p, out: &out, ifMatch: p.IfVersion}); err != nil {
		return nil, err
	}
	return &out, nil
}

// DeleteCampaign ends a campaign and all its links for ever. ifVersion 0 accepts any version. It is
// not repeated by itself.
func (c *Client) DeleteCampaign(ctx context.Context, id string, ifVersion uint64) error {
	return c.do(ctx, &call{method: http.MethodDelete, path: campaignPath(id), ifMatch: ifVersion})
}

// CampaignLinks yields the links of a campaign, newest first, and reads on as the loop does. An
// error ends it. ExportCampaign is faster for all of many.
func (c *Client) CampaignLinks(ctx context.Context, id string) iter.Seq2[*Link, error] {
	return pages[Link](ctx, c, campaignPath(id)+"/links", url.Values{"limit": {"1000"}})
}

// AddLinksStream sends rows of values, whatever their size, in one request and returns the answer as
// soon as it begins, as BulkStream does for links. o.CampaignID is not looked at.
func (c *Client) AddLinksStream(ctx context.Context, id string, o BulkOptions, body io.Reader) (*BulkStream, error) {
	o.CampaignID = ""
	return c.bulkStream(ctx, campaignPath(id)+"/links", o, body)
}

// AddLinks makes a link of every row in one request and yields what became of them, in order, while
// it sends on, as Bulk does for links.
func (c *Client) AddLinks(ctx context.Context, id string, o BulkOptions, rows iter.Seq[CampaignRow]) iter.Seq2[BulkResult, error] {
	return func(yield func(BulkResult, error) bool) {
		o.CampaignID = ""
		bulkRows(ctx, c, campaignPath(id)+"/links", o, rows, yield)
	}
}

// GenerateOptions say what GenerateLinks makes.
type GenerateOptions struct {
	Count  uint64 `json:"count"`           // 1 to 100,000,000
	Domain string `json:"domain,omitzero"` // "" is the campaign's domains in turn
	Class  string `json:"class,omitzero"`  // "" or "secret"
	// IdempotencyKey makes a repetition return the same codes. "" sends none.
	IdempotencyKey string `json:"-"`
}

// GenerateLinks makes links without values in a campaign without fields and returns the answer as soon
// as it begins. The caller closes the stream.
func (c *Client) GenerateLinks(ctx context.Context, id string, g GenerateOptions) (*BulkStream, error) {
	b, err := json.Marshal(g)
	if err != nil {
		return nil, fmt.Errorf("encode request: %w", err)
	}
	o := BulkOptions{Format: JSON, IdempotencyKey: g.IdempotencyKey}
	return c.bulkStream(ctx, campaignPath(id)+"/links/generate", o, bytes.NewReader(b))
}

// ExportCampaign returns every link of a campaign, newest first, as CSV or NDJSON, while the server
// reads them. The caller closes it; an error of Read says that it was cut.
func (c *Client) ExportCampaign(ctx context.Context, id string, form Format) (io.ReadCloser, error) {
	format := "ndjson"
	if form == CSV {
		format = "csv"
	}
	return c.stream(ctx, campaignPath(id)+"/links", url.Values{"format": {format}}, nil)
}
