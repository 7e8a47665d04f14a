package client

import (
	"context"
	"io"
	"iter"
	"net/http"
	"net/url"
	"time"
)

// Export is a file of clicks that the server makes in the background.
type Export struct {
	ID        string    `json:"id"`
	State     string    `json:"state"` // queued, running, done or failed
	Format    string    `json:"format"`
	From      time.Time `json:"from"`
	To        time.Time `json:"to"`
	Rows      int64     `json:"rows"` // written so far
	Bytes     int64     `json:"bytes"`
	FileURL   string    `json:"file_url"` // a path; whoever has it needs no key
	Error     string    `json:"error"`
	CreatedAt time.Time `json:"created_at"`
	EndedAt   time.Time `json:"ended_at,omitzero"`
	ExpiresAt time.Time `json:"expires_at"`
	// CompleteFrom: rows before it may be missing, because they are not kept any more; zero: none are known to.
	CompleteFrom time.Time `json:"complete_from,omitzero"`
}

// Ended reports whether nothing more happens.
func (e *Export) Ended() bool { return e.State == "done" || e.State == "failed" }

// newExport is the body of a creation.
type newExport struct {
	Format     string   `json:"format"`
	LinkID     string   `json:"link_id,omitzero"`
	CampaignID string   `json:"campaign_id,omitzero"`
	Domain     string   `json:"domain,omitzero"`
	Tag        string   `json:"tag,omitzero"`
	From       string   `json:"from,omitzero"`
	To         string   `json:"to,omitzero"`
	Period     string   `json:"period,omitzero"`
	TZ         string   `json:"tz,omitzero"`
	Bots       string   `json:"bots,omitzero"`
	Filters    []string `json:"filters,omitempty"`
	All        bool     `json:"all,omitzero"`
	RawCSV     bool     `json:"raw_csv,omitzero"`
}

// CreateExport asks the server for a file of all clicks that the summary of the query counts: ndjson, csv or parquet. Of
// the query only what selects clicks and RawCSV matter.
func (c *Client) CreateExport(ctx context.Context, q Query, format string) (*Export, error) {
	v := q.values()
	in := newExport{
		Format: format, LinkID: q.LinkID, CampaignID: q.CampaignID, Domain: q.Domain, Tag: q.Tag, From: v.Get("from"), To: v.Get("to"), Period: q.Period, TZ: q.TZ,
		Bots: q.Bots, Filters: q.Filters, All: q.All, RawCSV: q.RawCSV,
	}
	var out Export
	return &out, c.do(ctx, &call{method: http.MethodPost, path: "/exports", in: in, out: &out})
}

// GetExport returns an export.
func (c *Client) GetExport(ctx context.Context, id string) (*Export, error) {
	var out Export
	return &out, c.do(ctx, &call{method: http.MethodGet, path: "/exports/" + url.PathEscape(id), out: &out})
}

// Exports yields the exports of the workspace, the newest first. An error ends it.
func (c *Client) Exports(ctx context.Context) iter.Seq2[*Export, error] {
	return pages[Export](ctx, c, "/exports", url.Values{})
}

// DeleteExport deletes an export and its file; one that is being made is cancelled.
func (c *Client) DeleteExport(ctx context.Context, id string) error {
	return c.do(ctx, &call{method: http.MethodDelete, path: "/exports/" + url.PathEscape(id)})
}

// ExportFile opens the file of an export that is done. The caller closes it.
func (c *Client) ExportFile(ctx context.Context, e *Export) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base.String()+e.FileURL, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", c.o.UserAgent)
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, trimURL(err)
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		return nil, readError(resp)
	}
	return resp.Body, nil
}
