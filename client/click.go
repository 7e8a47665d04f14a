package client

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
)

// Click is one decision about a visitor. No field holds a whole address. "" is unknown or none.
type Click struct {
	ID             string    `json:"id"`
	Ts             time.Time `json:"ts"`
	WorkspaceID    string    `json:"workspace_id"`
	LinkID         string    `json:"link_id"`
	CampaignID     string    `json:"campaign_id"`
	Domain         string    `json:"domain"`
	Code           string    `json:"code"` // as requested
	Destination    string    `json:"destination"`
	Rule           int       `json:"rule"` // 0: the default destination
	Outcome        string    `json:"outcome"`
	Trigger        string    `json:"trigger"`
	Visitor        string    `json:"visitor"` // another person every UTC day
	Repeat         bool      `json:"repeat"`
	Bot            string    `json:"bot"` // human, or the class of the bot
	BotName        string    `json:"bot_name"`
	Country        string    `json:"country"`
	Region         string    `json:"region"`
	City           string    `json:"city"`
	ASN            uint32    `json:"asn"`
	Device         string    `json:"device"`
	OS             string    `json:"os"`
	OSVersion      string    `json:"os_version"`
	Browser        string    `json:"browser"`
	BrowserVersion string    `json:"browser_version"`
	Language       string    `json:"language"`
	Referrer       string    `json:"referrer"`
	ReferrerPath   string    `json:"referrer_path"`
	Source         string    `json:"source"`
	UTMSource      string    `json:"utm_source"`
	UTMMedium      string    `json:"utm_medium"`
	UTMCampaign    string    `json:"utm_campaign"`
	UTMTerm        string    `json:"utm_term"`
	UTMContent     string    `json:"utm_content"`
	Weight         int       `json:"weight"` // clicks that the row stands for
	Node           string    `json:"node"`
	UserAgent      string    `json:"user_agent"` // "" unless the workspace has store_ua
	IP             string    `json:"ip"`         // the network of the address; "" unless the workspace has store_ip
}

// Clicks yields the clicks that the summary of the query counts, newest first. Of the query only
// what selects clicks matters. An error ends it.
func (c *Client) Clicks(ctx context.Context, q Query) iter.Seq2[*Click, error] {
	return pages[Click](ctx, c, "/clicks", q.values())
}

// ExportClicks opens a file of all clicks that the summary of the query counts, newest first:
// ndjson, csv or parquet. An answer that breaks off ends in an error of Read. The caller closes it.
func (c *Client) ExportClicks(ctx context.Context, q Query, format string) (io.ReadCloser, error) {
	v := q.values()
	set(v, "format", format)
	if q.RawCSV {
		v.Set("raw_csv", "true")
	}
	return c.stream(ctx, "/clicks", v, nil)
}

// LiveCounters is what one second brought.
type LiveCounters struct {
	T       time.Time `json:"t"`
	Clicks  int64     `json:"clicks"`  // of people, redirected
	Bots    int64     `json:"bots"`    // redirected
	Refused int64     `json:"refused"` // not redirected
	Total   int64     `json:"total"`
	Shown   int64     `json:"shown"`   // that came as clicks of their own
	LagMS   int64     `json:"lag_ms"`  // 0: up to date
	Nodes   int       `json:"nodes"`   // whose clicks are counted
	Partial bool      `json:"partial"` // clicks of other nodes are missing, or may be
}

// LiveEvent is one event of the live view: a click, the counters of a second, or a gap. One field is set.
type LiveEvent struct {
	ID       string // to resume after
	Click    *Click
	Counters *LiveCounters
	Gap      bool // events were lost
}

// LiveClicks calls f with what happens from now on, or after the event lastID, until f returns
// false. Of the query LinkID, CampaignID, Domain and Tag matter. Returns an error if the connection breaks; the
// caller may call again with the id of the last event.
func (c *Client) LiveClicks(ctx context.Context, q Query, lastID string, f func(LiveEvent) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	only := Query{LinkID: q.LinkID, CampaignID: q.CampaignID, Domain: q.Domain, Tag: q.Tag}
	header := map[string]string{"Accept": "text/event-stream"}
	if lastID != "" {
		header["Last-Event-ID"] = lastID
	}
	body, err := c.stream(ctx, "/clicks/live", only.values(), header)
	if err != nil {
		return err
	}
	defer body.Close()
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, 1<<20)
	var ev LiveEvent
	event := ""
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ": ")
		switch name {
		case "id":
			ev.ID = value
		case "event":
			event = value
		case "data":
			var into any
			switch event {
			case "click":
				ev.Click = new(Click)
				into = ev.Click
			case "counters":
				ev.Counters = new(LiveCounters)
				into = ev.Counters
			case "gap":
				ev.Gap = true
			}
			if into != nil {
				if err := json.Unmarshal([]byte(value), into); err != nil {
					return fmt.Errorf("read a live event: %w", err)
				}
			}
		case "":
			if (ev.Click != nil || ev.Counters != nil || ev.Gap) && !f(ev) {
				return nil
			}
			ev, event = LiveEvent{}, ""
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return io.ErrUnexpectedEOF
}
