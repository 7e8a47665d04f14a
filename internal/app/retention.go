package app

import (
	"bytes"
	"context"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/auth"
)

// startRetention tells the analytics engine, now and every minute, for how long each workspace wants its clicks
// kept: what the workspace says of itself, else the configuration.
func (s *server) startRetention(a *auth.Service) {
	if s.analytics == nil {
		return
	}
	var told []byte
	tell := func(ctx context.Context) error {
		r, err := s.retentionNow(ctx, a)
		if err != nil {
			return err
		}
		rules, err := json.Marshal(r, json.Deterministic(true))
		if err != nil || bytes.Equal(rules, told) {
			return err
		}
		// A child that cannot be told now is told when it answers. Until then it deletes nothing: the rules of the
		// configuration alone would take clicks from workspaces that keep them longer.
		if err := s.analytics.SetRetention(ctx, r); err != nil && terse.ErrorCode(err) != terse.CodeUnavailable {
			return err
		}
		told = rules
		return nil
	}
	if err := tell(context.Background()); err != nil {
		s.log.Error("retention", "error", err)
	}
	s.every(time.Minute, "retention", tell)
}

// retentionNow returns the rules of the configuration and the workspaces.
func (s *server) retentionNow(ctx context.Context, a *auth.Service) (analytics.Retention, error) {
	r, err := retentionOf(s.cfg.Analytics)
	if err != nil {
		return r, err
	}
	owner := auth.Identity{Owner: true}
	for after := terse.WorkspaceID(0); ; {
		list, err := a.ListWorkspaces(ctx, &owner, after, 500)
		if err != nil || len(list) == 0 {
			return r, err
		}
		for _, w := range list {
			if after = w.ID; w.Retention != nil {
				r.Workspaces[w.ID] = analytics.Terms{Raw: w.Retention.RawDays, Bots: w.Retention.BotDays}
			}
		}
	}
}

// termsOf returns what says for how long a workspace keeps its clicks.
func (s *server) termsOf(a *auth.Service) func(ctx context.Context, w terse.WorkspaceID) (analytics.Terms, error) {
	owner := auth.Identity{Owner: true}
	return func(ctx context.Context, w terse.WorkspaceID) (analytics.Terms, error) {
		r, err := retentionOf(s.cfg.Analytics)
		if err != nil {
			return analytics.Terms{}, err
		}
		space, err := a.GetWorkspace(ctx, &owner, w)
		if err != nil {
			return analytics.Terms{}, err
		}
		if space.Retention != nil {
			return analytics.Terms{Raw: space.Retention.RawDays, Bots: space.Retention.BotDays}, nil
		}
		return r.Of(w), nil
	}
}
