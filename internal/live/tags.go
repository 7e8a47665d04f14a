package live

import (
	"context"
	"slices"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/clicks"
)

// TagSource says which tags a click has: those of its link and those of its campaign, as they are now. facts.Lookup is
// one.
type TagSource interface {
	// LinkTags returns the tags of a link of the workspace, none if it is gone. The result is not modified.
	LinkTags(ctx context.Context, w terse.WorkspaceID, l terse.LinkNumber) ([]string, error)
	// CampaignTags does so for a campaign.
	CampaignTags(ctx context.Context, w terse.WorkspaceID, c terse.CampaignID) ([]string, error)
}

const (
	tagsFor = time.Second // that tags are remembered: a link that is tagged anew shows after it
	tagsMax = 1 << 16     // links, and campaigns, that are remembered

	// lookUp is how long the store may take: every live view waits meanwhile.
	lookUp = 200 * time.Millisecond
)

// tagMemo remembers tags for a moment, so that a busy link is not looked up with every click. It belongs to the
// goroutine that reads.
type tagMemo struct {
	source    TagSource
	links     map[terse.LinkNumber]remembered
	campaigns map[terse.CampaignID]remembered
}

type remembered struct {
	tags  []string
	err   error
	until time.Time
}

// has reports whether a click has a tag. known: false if it could not be found out.
func (m *tagMemo) has(ctx context.Context, now time.Time, ev *clicks.Event, tag string) (has, known bool) {
	ctx, cancel := context.WithTimeout(ctx, lookUp)
	defer cancel()
	var link, campaign []string
	var err error
	if ev.Link != 0 {
		link, err = recall(&m.links, ev.Link, now, func() ([]string, error) { return m.source.LinkTags(ctx, ev.Workspace, ev.Link) })
	}
	if err == nil && ev.Campaign != 0 {
		campaign, err = recall(&m.campaigns, ev.Campaign, now, func() ([]string, error) { return m.source.CampaignTags(ctx, ev.Workspace, ev.Campaign) })
	}
	return slices.Contains(link, tag) || slices.Contains(campaign, tag), err == nil
}

func recall[K comparable](m *map[K]remembered, key K, now time.Time, look func() ([]string, error)) ([]string, error) {
	if r, ok := (*m)[key]; ok && now.Before(r.until) {
		return r.tags, r.err
	}
	tags, err := look()
	if *m == nil || len(*m) >= tagsMax {
		*m = map[K]remembered{}
	}
	(*m)[key] = remembered{tags, err, now.Add(tagsFor)} // a failure, too: not every click waits for a store that hangs
	return tags, err
}
