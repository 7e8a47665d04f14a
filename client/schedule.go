package client

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"time"
)

// ExportSchedule exports the clicks of every hour or day into the bucket of the server.
type ExportSchedule struct {
	ID         string    `json:"id"`
	Name       string    `json:"name"`
	Every      string    `json:"every"` // hourly or daily, of UTC
	Format     string    `json:"format"`
	Prefix     string    `json:"prefix"`
	State      string    `json:"state"`     // active, failing or paused
	NextFrom   time.Time `json:"next_from"` // what lies before it is exported
	Objects    int64     `json:"objects"`
	LastObject string    `json:"last_object"`
	LastRows   int64     `json:"last_rows"`
	LastAt     time.Time `json:"last_at,omitzero"`
	Again      int64     `json:"again"` // objects that were made again, for clicks that were counted later
	LastAgain  string    `json:"last_again"`
	AgainAt    time.Time `json:"again_at,omitzero"`
	Incomplete int64     `json:"incomplete"` // objects that lack clicks that were not kept any more
	Attempts   int       `json:"attempts"`   // that failed since the last success
	Error      string    `json:"error"`
	RetryAt    time.Time `json:"retry_at,omitzero"`
	CreatedAt  time.Time `json:"created_at"`
}

// NewExportSchedule describes a schedule. Every and Format are required.
type NewExportSchedule struct {
	Name   string
	Every  string // hourly or daily
	Format string // ndjson, csv or parquet
	Prefix string // default: the id
	From   time.Time
	Query  Query // of it only what selects clicks and RawCSV matter
}

// newExportSchedule is the body of a creation.
type newExportSchedule struct {
	Name       string   `json:"name,omitzero"`
	Every      string   `json:"every"`
	Format     string   `json:"format"`
	Prefix     string   `json:"prefix,omitzero"`
	From       string   `json:"from,omitzero"`
	LinkID     string   `json:"link_id,omitzero"`
	CampaignID string   `json:"campaign_id,omitzero"`
	Domain     string   `json:"domain,omitzero"`
	Tag        string   `json:"tag,omitzero"`
	Bots       string   `json:"bots,omitzero"`
	Filters    []string `json:"filters,omitempty"`
	All        bool     `json:"all,omitzero"`
	RawCSV     bool     `json:"raw_csv,omitzero"`
}

// CreateExportSchedule makes a schedule. The first hour or day is the one that From lies in, or the one that has begun.
func (c *Client) CreateExportSchedule(ctx context.Context, n NewExportSchedule) (*ExportSchedule, error) {
	in := newExportSchedule{
		Name: n.Name, Every: n.Every, Format: n.Format, Prefix: n.Prefix, LinkID: n.Query.LinkID, CampaignID: n.Query.CampaignID, Domain: n.Query.Domain, Tag: n.Query.Tag,
		Bots: n.Query.Bots, Filters: n.Query.Filters, All: n.Query.All, RawCSV: n.Query.RawCSV,
	}
	if !n.From.IsZero() {
		in.From = n.From.UTC().Format(time.RFC3339)
	}
	var out ExportSchedule
	return &out, c.do(ctx, &call{method: http.MethodPost, path: "/exports/schedules", in: in, out: &out})
}

// ExportSchedules yields the schedules of the workspace, the oldest first. An error ends it.
func (c *Client) ExportSchedules(ctx context.Context) iter.Seq2[*ExportSchedule, error] {
	return pages[ExportSchedule](ctx, c, "/exports/schedules", url.Values{})
}

// GetExportSchedule returns a schedule.
func (c *Client) GetExportSchedule(ctx context.Context, id string) (*ExportSchedule, error) {
	var out ExportSchedule
	return &out, c.do(ctx, &call{method: http.MethodGet, path: "/exports/schedules/" + url.PathEscape(id), out: &out})
}

// SetExportScheduleState pauses a schedule ("paused") or lets it go on ("active"); then it makes up for what it missed.
func (c *Client) SetExportScheduleState(ctx context.Context, id, state string) (*ExportSchedule, error) {
	in := struct {
		State string `json:"state"`
	}{state}
	var out ExportSchedule
	return &out, c.do(ctx, &call{method: http.MethodPatch, path: "/exports/schedules/" + url.PathEscape(id), in: in, out: &out})
}

// DeleteExportSchedule deletes a schedule. Its objects stay.
func (c *Client) DeleteExportSchedule(ctx context.Context, id string) error {
	return c.do(ctx, &call{method: http.MethodDelete, path: "/exports/schedules/" + url.PathEscape(id)})
}
