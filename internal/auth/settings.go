package auth

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/destination"
)

// WorkspacePatch changes a workspace; nil leaves a field as it is.
type WorkspacePatch struct {
	Name          *string
	Interstitials *bool
	AppSchemes    *[]string
	StoreUA       *bool
	StoreIP       *string           // no or truncated
	Retention     **terse.Retention // to nil: the instance's
}

// maxRetention is a hundred years.
const maxRetention = 36_500

// maxTries bounds how often a change is repeated that met another.
const maxTries = 5

// UpdateWorkspace changes a workspace that the identity may act for, durable on return and in force on this
// node at once. Returns ErrNotFound, for every other workspace too, or invalid with the field.
func (s *Service) UpdateWorkspace(ctx context.Context, who *Identity, id terse.WorkspaceID, p WorkspacePatch) (terse.Workspace, error) {
	if id == 0 || !who.Owner && who.Workspace != id {
		return terse.Workspace{}, terse.ErrNotFound
	}
	for try := 0; ; try++ {
		doc, err := s.o.Store.GetDocument(ctx, 0, terse.KindWorkspace, id.String())
		if errors.Is(err, terse.ErrNotFound) {
			return terse.Workspace{}, terse.ErrNotFound
		}
		if err != nil {
			return terse.Workspace{}, fmt.Errorf("update workspace: %w", err)
		}
		var w terse.Workspace
		if err := decode(doc, &w); err != nil {
			return terse.Workspace{}, err
		}
		if err := p.apply(&w); err != nil {
			return terse.Workspace{}, err
		}
		w.Version = doc.Version + 1
		if doc, err = document(0, terse.KindWorkspace, id.String(), w.Version, &w); err != nil {
			return terse.Workspace{}, err
		}
		err = s.o.Store.PutDocument(ctx, doc)
		if errors.Is(err, terse.ErrVersion) && try < maxTries {
			continue
		}
		if err != nil {
			return terse.Workspace{}, fmt.Errorf("update workspace: %w", err)
		}
		s.publish(w)
		return w, nil
	}
}

func (p *WorkspacePatch) apply(w *terse.Workspace) error {
	if p.Name != nil {
		if err := checkName(*p.Name); err != nil {
			return err
		}
		w.Name = *p.Name
	}
	if p.Interstitials != nil {
		w.Interstitials = *p.Interstitials
	}
	if p.StoreUA != nil {
		w.StoreUA = *p.StoreUA
	}
	if p.StoreIP != nil {
		part, ok := terse.ParseStoreIP(*p.StoreIP)
		if !ok {
			return terse.Invalid("store_ip", "is no or truncated")
		}
		w.StoreIP = part
	}
	if p.Retention != nil {
		if r := *p.Retention; r != nil {
			for _, days := range []int{r.RawDays, r.BotDays} {
				if days < 0 || days > maxRetention {
					return terse.Invalid("retention", "days are 0, for ever, to %d", maxRetention)
				}
			}
		}
		w.Retention = *p.Retention
	}
	if p.AppSchemes != nil {
		schemes, err := destination.CheckSchemes("app_schemes", *p.AppSchemes)
		if err != nil {
			return err
		}
		w.AppSchemes = schemes
	}
	return nil
}

// publish makes what was written known on this node.
func (s *Service) publish(w terse.Workspace) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known, ok := s.workspaces[w.ID]; ok && known.Version > w.Version {
		return
	}
	makeRoom(s.workspaces)
	s.workspaces[w.ID] = w
	next := maps.Clone(*s.settings.Load())
	delete(next, w.ID)
	if !w.WorkspaceSettings.IsZero() {
		next[w.ID] = w.WorkspaceSettings
	}
	s.settings.Store(&next)
}

// Settings returns what a workspace has switched on, from memory and without waiting.
//
// Hot path: 0 allocs/op.
func (s *Service) Settings(id terse.WorkspaceID) terse.WorkspaceSettings {
	return (*s.settings.Load())[id]
}

// errUndecoded says that the settings of some workspaces are not known.
var errUndecoded = errors.New("workspaces cannot be decoded")

// loadSettings reads what the workspaces have switched on. An error that matches errUndecoded says that it read those that can be.
func (s *Service) loadSettings(ctx context.Context) error {
	all := map[terse.WorkspaceID]terse.WorkspaceSettings{}
	var bad []error
	for after := ""; ; {
		docs, err := s.o.Store.ListDocuments(ctx, 0, terse.KindWorkspace, after, 1000)
		if err != nil {
			return fmt.Errorf("load workspaces: %w", err)
		}
		if len(docs) == 0 {
			s.settings.Store(&all)
			if len(bad) > 0 {
				return errors.Join(append(bad, errUndecoded)...)
			}
			return nil
		}
		for _, doc := range docs {
			var w terse.Workspace
			if err := decode(doc, &w); err != nil {
				bad = append(bad, err)
				continue
			}
			if !w.WorkspaceSettings.IsZero() {
				all[w.ID] = w.WorkspaceSettings
			}
		}
		after = docs[len(docs)-1].ID
	}
}
