package facts

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
)

// tellAll tells an engine that knows nothing what the store holds now, and returns the change that
// this was up to. Changes that happen meanwhile follow it, and saying something twice is harmless.
func (f *Feeder) tellAll(ctx context.Context) (at uint64, err error) {
	f.retells.Add(1)
	began := time.Now()
	if at, err = f.newest(ctx, f.careful); err != nil {
		return 0, err
	}
	f.looked, f.idle = began, 0
	f.telling = rand.Uint64() | 1
	if err := f.o.Sink.PutFacts(ctx, analytics.FactBatch{Reset: true, Partial: true, At: f.telling}); err != nil {
		return 0, err
	}
	for after := ""; ; {
		docs, err := f.o.Store.ListDocuments(ctx, 0, terse.KindWorkspace, after, manyChanges)
		if err != nil {
			return 0, fmt.Errorf("list workspaces: %w", err)
		}
		if len(docs) == 0 {
			break
		}
		for i := range docs {
			after = docs[i].ID
			w, err := terse.ParseWorkspaceID(docs[i].ID)
			if err != nil {
				continue // a document of another form is no workspace's
			}
			if err := f.tellWorkspace(ctx, w); err != nil {
				return 0, err
			}
		}
	}
	if f.careful, err = f.newest(ctx, at); err != nil {
		return 0, err
	}
	return at, f.o.Sink.PutFacts(ctx, analytics.FactBatch{From: f.telling, At: f.base + at})
}

// newest returns the number of the last change, which is not before after.
func (f *Feeder) newest(ctx context.Context, after uint64) (at uint64, err error) {
	at = after
	for {
		changes, err := f.o.Store.Changes(ctx, at, manyChanges)
		if e, ok := errors.AsType[*terse.ForgottenError](err); ok {
			at = e.Floor
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("find the newest change: %w", err)
		}
		if len(changes) == 0 {
			return at, nil
		}
		at = changes[len(changes)-1].Seq
	}
}

func (f *Feeder) tellWorkspace(ctx context.Context, w terse.WorkspaceID) error {
	q := terse.ListQuery{Limit: pageLinks}
	for {
		page, err := f.o.Store.ListLinks(ctx, w, q)
		if err != nil {
			return fmt.Errorf("list links: %w", err)
		}
		var b analytics.FactBatch
		for i := range page.Links {
			if tags := tagsOf(&page.Links[i]); len(tags) > 0 {
				b.Links = append(b.Links, analytics.LinkTags{Workspace: w, Link: page.Links[i].Number, New: true, Created: page.Links[i].CreatedAt, Tags: tags})
			}
		}
		f.told.Add(int64(len(page.Links)))
		if err := f.tell(ctx, b); err != nil {
			return err
		}
		if q.Cursor = page.Next; q.Cursor == "" {
			break
		}
	}
	if err := f.tellDocuments(ctx, w, terse.KindCampaign, func(b *analytics.FactBatch, doc *terse.Document) error {
		id, err := terse.ParseCampaignID(doc.ID)
		if err != nil {
			return nil // not a campaign's
		}
		tags, err := campaignTags(doc)
		if len(tags) > 0 {
			b.Campaigns = append(b.Campaigns, analytics.CampaignTags{Workspace: w, Campaign: id, Tags: tags})
		}
		return err
	}); err != nil {
		return err
	}
	return f.tellDocuments(ctx, w, terse.KindConversion, addConversion)
}

// tellDocuments tells what the documents of a kind mean, page by page.
func (f *Feeder) tellDocuments(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, add func(*analytics.FactBatch, *terse.Document) error) error {
	for after := ""; ; {
		docs, err := f.o.Store.ListDocuments(ctx, w, kind, after, manyChanges)
		if err != nil {
			return fmt.Errorf("list documents: %w", err)
		}
		if len(docs) == 0 {
			return nil
		}
		var b analytics.FactBatch
		for i := range docs {
			after = docs[i].ID
			if err := add(&b, &docs[i]); err != nil {
				return err
			}
		}
		if err := f.tell(ctx, b); err != nil {
			return err
		}
	}
}

// tell puts a part of everything unless it says nothing.
func (f *Feeder) tell(ctx context.Context, b analytics.FactBatch) error {
	if b.Empty() {
		return nil
	}
	b.Partial, b.From, b.At = true, f.telling, f.telling
	return f.o.Sink.PutFacts(ctx, b)
}
