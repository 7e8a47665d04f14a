package analytics

import (
	"context"
	"slices"

	"github.com/terselink/terse"
)

// FactSink keeps an engine's copy of facts that are not part of clicks: the tags of links and campaigns, and
// conversions. The store is the truth; package facts follows its changes and writes
// here. Tags are looked up when a question is asked, so retagging a link moves its history too.
type FactSink interface {
	// FactsAt returns the change of the store up to which the facts are known; false if they are
	// not, as in a new file: then everything must be told again, beginning with Reset.
	FactsAt(ctx context.Context) (seq uint64, known bool, err error)
	// PutFacts applies the batch, all of it or nothing, and is durable on return. Applying one
	// again changes nothing. Returns an error of code precondition if the engine is not at b.From.
	PutFacts(ctx context.Context, b FactBatch) error
}

// FactBatch is a step of what an engine knows.
type FactBatch struct {
	Reset bool // forget everything first; From does not matter
	// From is where the engine must be, At where it is afterwards.
	From, At uint64
	// Partial: there is more to come before the facts are known, as while everything is told again. At is
	// then any number but 0 that the next batch names as its From: an engine that has lost the
	// beginning does not take the rest.
	Partial     bool
	Links       []LinkTags
	Campaigns   []CampaignTags
	Conversions []Conversion
}

// Follows reports whether the batch may be applied by an engine that is at a place.
func (b *FactBatch) Follows(at uint64, known bool) bool {
	return b.Reset || b.From == at && (known && !b.Partial || !known && at != 0)
}

// Empty reports whether the batch changes nothing but the position.
func (b *FactBatch) Empty() bool {
	return !b.Reset && len(b.Links)+len(b.Campaigns)+len(b.Conversions) == 0
}

// LinkTags are all tags of a link, in place of what was known.
type LinkTags struct {
	Workspace terse.WorkspaceID
	Link      terse.LinkNumber
	New       bool         // nothing was known of it
	Created   terse.Millis // it has no earlier clicks; 0: it may have
	Tags      []string
}

// CampaignTags are all tags of a campaign, in place of what was known. A click has the tags of its link
// and those of its campaign.
type CampaignTags struct {
	Workspace terse.WorkspaceID
	Campaign  terse.CampaignID
	Tags      []string
}

// CheckBreakdown returns an error of code invalid if the query is none for Breakdown.
func (q Query) CheckBreakdown() error {
	switch {
	case q.By == "":
		return terse.Invalid("by", "is missing")
	case q.Metric != Clicks && q.Metric != Visitors:
		return terse.Invalid("metric", "%q is neither clicks nor visitors", clip(string(q.Metric)))
	}
	return nil
}

// CheckConversions returns an error of code invalid if the query is none for Funnel or, with by, for
// ConversionsBy.
func (q Query) CheckConversions(by bool) error {
	switch {
	case q.names(Outcome):
		return terse.Invalid("f", "conversions have no outcome")
	case !by:
		return nil
	case q.By == "":
		return terse.Invalid("by", "is missing")
	case !slices.Contains(conversionMetrics, q.Metric):
		return terse.Invalid("metric", "%q is none of: leads, sales, customs, revenue", clip(string(q.Metric)))
	case q.Metric == Revenue && q.Currency == "":
		return terse.Invalid("currency", "is missing: revenue is of one currency")
	}
	return nil
}

var conversionMetrics = []Metric{Leads, Sales, Customs, Revenue}
