package campaigns

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/sleep"
	"github.com/terselink/terse/internal/template"
)

// Deleting a campaign is one write, which ends its links for visitors. Their rows are removed
// afterwards by a Purger, from a note that is stored before the campaign goes: so a crash at
// any moment leaves either a campaign with a note that says nothing yet, or a note to go on from.

// purgeNote is the document of KindPurge, under workspace 0.
type purgeNote struct {
	Workspace terse.WorkspaceID `json:"workspace"`
	Campaign  terse.CampaignID  `json:"campaign"`
	At        terse.Millis      `json:"at"` // of the deletion
	// Created is when the campaign was made; 0 in notes of before.
	Created terse.Millis `json:"created,omitempty"`
	// Of the campaign, for its links that stay: those that were blocked.
	Destination string   `json:"destination,omitempty"`
	Fields      []string `json:"fields,omitempty"`
}

// notePurge stores the note of a campaign that is about to be deleted. One of an attempt
// before is made anew: its moment would end the grace of requests under way too early.
func (r *Registry) notePurge(ctx context.Context, c *Campaign) error {
	data, err := json.Marshal(purgeNote{c.Workspace, c.ID, r.o.Clock(), c.CreatedAt, c.Destination, c.Fields})
	if err != nil {
		return fmt.Errorf("encode note: %w", err)
	}
	doc := terse.Document{Kind: terse.KindPurge, ID: c.Workspace.String() + "/" + c.ID.String(), Version: 1, Data: data}
	for try := 0; ; try++ {
		err = r.o.Store.PutDocument(ctx, doc)
		switch {
		case err == nil:
			return nil
		case try >= maxTries || ctx.Err() != nil:
		case errors.Is(err, terse.ErrUnknownOutcome):
			continue
		case errors.Is(err, terse.ErrExists) || errors.Is(err, terse.ErrVersion):
			old, gerr := r.o.Store.GetDocument(ctx, 0, terse.KindPurge, doc.ID)
			if gerr == nil || errors.Is(gerr, terse.ErrNotFound) {
				doc.Version = old.Version + 1 // 1 if it went meanwhile
				continue
			}
			err = gerr
		}
		return fmt.Errorf("note what is to be removed: %w", err)
	}
}

// PurgeOptions configures a Purger. Zero values mean the defaults named.
type PurgeOptions struct {
	Store terse.Store         // required
	Clock func() terse.Millis // required
	Log   *slog.Logger        // default: discarded
	// Rate is how many links are removed a second at most, so that a purge costs others
	// little; default 50,000.
	Rate int
	// Every is the pause between looks for campaigns to purge; default 30 s.
	Every time.Duration
	// Grace is how long after its deletion a campaign is looked at for links that a request on
	// its way still inserted; default 15 minutes.
	Grace time.Duration
}

// purgeBatch is how many links one call of the store removes.
const purgeBatch = 2000

// Purger removes the links of deleted campaigns from the store. It is a prometheus.Collector.
type Purger struct {
	o       PurgeOptions
	wake    chan struct{}
	young   bool // the last round met a campaign that was deleted less than settle ago
	purged  prometheus.Counter
	pending prometheus.Gauge
}

// NewPurger returns a purger that does nothing before Run.
func NewPurger(o PurgeOptions) *Purger {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Rate <= 0 {
		o.Rate = 50_000
	}
	if o.Every <= 0 {
		o.Every = 30 * time.Second
	}
	if o.Grace <= 0 {
		o.Grace = 15 * time.Minute
	}
	return &Purger{
		o: o, wake: make(chan struct{}, 1),
		purged: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "terse_campaign_purged_links_total", Help: "Links of deleted campaigns that were removed from the store.",
		}),
		pending: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "terse_campaign_purges_pending", Help: "Deleted campaigns whose links may still be in the store.",
		}),
	}
}

// Describe implements prometheus.Collector.
func (p *Purger) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(p, ch) }

// Collect implements prometheus.Collector.
func (p *Purger) Collect(ch chan<- prometheus.Metric) {
	p.purged.Collect(ch)
	p.pending.Collect(ch)
}

// Wake makes Run look for work now. It never waits.
func (p *Purger) Wake() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Run purges until ctx ends. Several nodes may run at once: what one has removed another does
// not find. Errors are logged once until they change, and the work is tried again.
func (p *Purger) Run(ctx context.Context) {
	tick := time.NewTicker(p.o.Every)
	defer tick.Stop()
	last := ""
	for {
		err := p.round(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			last = ""
		case err.Error() != last:
			last = err.Error()
			p.o.Log.Error("links of deleted campaigns cannot be removed now", "error", err)
		}
		var settled <-chan time.Time
		if p.young {
			settled = time.After(settle)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-p.wake:
		case <-settled:
		}
	}
}

// round goes through all notes once. A campaign that fails does not keep others waiting.
func (p *Purger) round(ctx context.Context) error {
	const page = 100
	var errs []error
	after, pending := "", 0
	p.young = false
	for {
		docs, err := p.o.Store.ListDocuments(ctx, 0, terse.KindPurge, after, page)
		if err != nil {
			return errors.Join(append(errs, fmt.Errorf("list deleted campaigns: %w", err))...)
		}
		for i := range docs {
			left, err := p.purge(ctx, &docs[i])
			if err != nil {
				errs = append(errs, err)
			}
			if left {
				pending++
			}
			after = docs[i].ID
		}
		if len(docs) < page || ctx.Err() != nil {
			p.pending.Set(float64(pending))
			return errors.Join(errs...)
		}
	}
}

// purge removes the links of one campaign; left reports whether its note stays.
func (p *Purger) purge(ctx context.Context, doc *terse.Document) (left bool, err error) {
	var n purgeNote
	if err := json.Unmarshal(doc.Data, &n); err != nil {
		return true, fmt.Errorf("read note %s: %w", doc.ID, err)
	}
	_, err = p.o.Store.GetDocument(ctx, n.Workspace, terse.KindCampaign, n.Campaign.String())
	if err == nil {
		return false, nil // not deleted yet, or never: only that write ends links
	}
	if !errors.Is(err, terse.ErrNotFound) {
		return true, fmt.Errorf("look for campaign %s: %w", n.Campaign, err)
	}
	now := p.o.Clock()
	if now-n.At < terse.Millis(settle.Milliseconds()) {
		p.young = true
		return true, nil
	}
	overdue := now-n.At >= terse.Millis(p.o.Grace.Milliseconds())
	if err := p.keepBlocked(ctx, &n); err != nil {
		return true, err
	}
	began, total := p.o.Clock(), 0
	for {
		count, err := p.o.Store.PurgeLinks(ctx, n.Workspace, n.Campaign, purgeBatch)
		p.purged.Add(float64(count))
		total += count
		if err != nil {
			return true, fmt.Errorf("remove links of campaign %s: %w", n.Campaign, err)
		}
		if count == 0 {
			break
		}
		if err := sleep.For(ctx, time.Duration(count)*time.Second/time.Duration(p.o.Rate)); err != nil {
			return true, err
		}
	}
	if total > 0 {
		if err := p.keepBlocked(ctx, &n); err != nil { // what was inserted, or came into sight, meanwhile
			return true, err
		}
		p.o.Log.Info("links of a deleted campaign removed", "campaign", n.Campaign.String(), "links", total, "milliseconds", int64(p.o.Clock()-began))
	}
	if !overdue {
		return true, nil
	}
	if err := p.o.Store.DeleteDocument(ctx, 0, terse.KindPurge, doc.ID, doc.Version); err != nil && !errors.Is(err, terse.ErrNotFound) {
		return true, fmt.Errorf("remove note %s: %w", doc.ID, err)
	}
	return false, nil
}

// settle is how long the links of a deleted campaign are left alone, so that a block which was under way when the campaign
// was deleted is written, and in sight of every index, before anything is removed.
const settle = 5 * time.Second

const (
	// listBatch is how many links of a campaign are looked at in one call.
	listBatch = 1000
	// listPause is the least pause between two pages: one with few links in it may have read many of others.
	listPause = 10 * time.Millisecond
	// clockDrift is how much earlier than its campaign a link may seem to be made, by the clock of another node.
	clockDrift = terse.Millis(10 * 60 * 1000)
)

// keepBlocked takes the links that were blocked for abuse out of a deleted campaign, so that they are not removed with it:
// their aliases would become free, and could lead to the same place again. They stay blocked, have the
// destination that the campaign gave them, and ended when it did, should somebody lift the block.
func (p *Purger) keepBlocked(ctx context.Context, n *purgeNote) error {
	q := terse.ListQuery{Campaign: n.Campaign, Limit: listBatch, CreatedFrom: max(0, n.Created-clockDrift)}
	for {
		page, err := p.o.Store.ListLinks(ctx, n.Workspace, q)
		if err != nil {
			return fmt.Errorf("look for blocked links of campaign %s: %w", n.Campaign, err)
		}
		for i := range page.Links {
			if l := &page.Links[i]; l.Status == terse.StatusBlocked {
				if err := p.keep(ctx, l, n); err != nil {
					return fmt.Errorf("keep blocked link %s: %w", l.Number, err)
				}
			}
		}
		if page.Next == "" {
			return nil
		}
		q.Cursor = page.Next
		// Reading is cheap beside removing.
		if err := sleep.For(ctx, max(listPause, time.Duration(len(page.Links))*time.Second/time.Duration(10*p.o.Rate))); err != nil {
			return err
		}
	}
}

// keep makes a link of the campaign one of its own. If it was changed meanwhile, or nobody knows whether this
// was written, the error ends the round, and the next one looks again.
func (p *Purger) keep(ctx context.Context, l *terse.Link, n *purgeNote) error {
	if l.Destination == "" && n.Destination != "" {
		t, err := template.Parse(n.Destination, n.Fields, nil)
		if err != nil {
			return fmt.Errorf("read its template: %w", err)
		}
		if url, ok := t.Append(nil, l.Values); ok {
			l.Destination = string(url)
		}
	}
	was := l.Version
	l.Campaign, l.Values, l.Version, l.UpdatedAt = 0, "", was+1, max(p.o.Clock(), l.CreatedAt)
	if l.ExpiresAt == 0 || l.ExpiresAt > n.At || l.DefaultExpiry {
		l.ExpiresAt, l.DefaultExpiry = n.At, false
	}
	err := p.o.Store.UpdateLink(ctx, l, was)
	if errors.Is(err, terse.ErrNotFound) { // deleted meanwhile, by somebody who may
		return nil
	}
	return err
}
