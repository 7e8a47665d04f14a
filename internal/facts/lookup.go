package facts

import (
	"context"
	"errors"
	"fmt"

	"github.com/terselink/terse"
)

// Lookup answers which tags a link or a campaign has now, from the store itself.
type Lookup struct {
	Store Store
	Code  func(terse.LinkNumber) string // as in Options
}

// LinkTags returns the tags of a link of the workspace, none if it is gone. Returns an error of the store.
func (l *Lookup) LinkTags(ctx context.Context, w terse.WorkspaceID, n terse.LinkNumber) ([]string, error) {
	key := terse.LinkKey{Number: n}
	if l.Code != nil {
		key.Code = l.Code(n)
	}
	var dst [1]terse.Link
	if err := l.Store.GetLinks(ctx, []terse.LinkKey{key}, dst[:]); err != nil {
		return nil, fmt.Errorf("look up tags: %w", err)
	}
	if dst[0].Number == 0 || dst[0].Workspace != w {
		return nil, nil
	}
	return tagsOf(&dst[0]), nil
}

// CampaignTags does so for a campaign.
func (l *Lookup) CampaignTags(ctx context.Context, w terse.WorkspaceID, c terse.CampaignID) ([]string, error) {
	doc, err := l.Store.GetDocument(ctx, w, terse.KindCampaign, c.String())
	if errors.Is(err, terse.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up tags: %w", err)
	}
	return campaignTags(&doc)
}
