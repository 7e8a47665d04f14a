package client

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"time"
)

// Share is a public link to statistics.
type Share struct {
	ID          string    `json:"id"`
	URL         string    `json:"url"` // the path of the page on the control plane
	Name        string    `json:"name"`
	LinkID      string    `json:"link_id,omitzero"`
	CampaignID  string    `json:"campaign_id,omitzero"`
	Domain      string    `json:"domain,omitzero"`
	Tag         string    `json:"tag,omitzero"`
	HasPassword bool      `json:"has_password"`
	ExpiresAt   time.Time `json:"expires_at,omitzero"`
	CreatedAt   time.Time `json:"created_at"`
	CreatedBy   string    `json:"created_by"`
}

// NewShare says what to share: at most one of LinkID, CampaignID, Domain and Tag; none is the workspace.
type NewShare struct {
	Name       string    `json:"name"` // the heading of the page
	LinkID     string    `json:"link_id,omitzero"`
	CampaignID string    `json:"campaign_id,omitzero"`
	Domain     string    `json:"domain,omitzero"`
	Tag        string    `json:"tag,omitzero"`
	Password   string    `json:"password,omitzero"`
	ExpiresAt  time.Time `json:"expires_at,omitzero"`
}

// CreateShare makes statistics public to whoever has the link.
func (c *Client) CreateShare(ctx context.Context, n NewShare) (*Share, error) {
	var out Share
	return &out, c.do(ctx, &call{method: http.MethodPost, path: "/shares", in: n, out: &out})
}

// Shares yields the shares of the workspace. An error ends it.
func (c *Client) Shares(ctx context.Context) iter.Seq2[*Share, error] {
	return pages[Share](ctx, c, "/shares", url.Values{})
}

// DeleteShare ends a share.
func (c *Client) DeleteShare(ctx context.Context, id string) error {
	return c.do(ctx, &call{method: http.MethodDelete, path: "/shares/" + url.PathEscape(id)})
}
