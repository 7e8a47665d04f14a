// Package shares keeps the public links to statistics: who may see which numbers without a key. A share is
// a document of its workspace, named by a random id that nobody guesses; a password is optional.
//
// It shows nothing: package api serves what a share allows.
package shares

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/links"
)

// Prefix begins the ids of shares. The digits of the workspace follow, then 26 random characters.
const Prefix = "share_"

const (
	maxName      = 200
	maxPerSpace  = 1000 // shares of a workspace
	workspaceLen = 7    // digits of 5 bits hold 31 bits and more
	randomLen    = 26
)

// Share is what somebody without a key may see.
type Share struct {
	ID           string            `json:"id"`
	Workspace    terse.WorkspaceID `json:"workspace"`
	Scope        analytics.Scope   `json:"scope"` // zero: the workspace
	Name         string            `json:"name"`  // shown to whoever sees it
	PasswordHash string            `json:"password_hash,omitempty"`
	ExpiresAt    terse.Millis      `json:"expires_at,omitempty"`
	CreatedAt    terse.Millis      `json:"created_at"`
	CreatedBy    string            `json:"created_by"`
}

// Store is what the service uses of a terse.Store.
type Store interface {
	GetDocument(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, id string) (terse.Document, error)
	InsertLinks(ctx context.Context, c *terse.Chunk) error
	DeleteDocument(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, id string, ifVersion uint64) error
	ListDocuments(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, after string, limit int) ([]terse.Document, error)
}

// Service keeps shares. It is safe for concurrent use.
type Service struct {
	store Store
	clock func() terse.Millis
}

// New returns a service.
func New(store Store, clock func() terse.Millis) *Service { return &Service{store, clock} }

// NewShare describes a share to make.
type NewShare struct {
	Scope     analytics.Scope
	Name      string // 1 to 200 bytes
	Password  string // "": none
	ExpiresAt terse.Millis
}

// Create makes a share, durable on return. What also returns for it goes into the same atomic write; nil:
// nothing. Returns an error of code invalid.
func (s *Service) Create(ctx context.Context, a links.Actor, n NewShare, also func(Share) ([]terse.Document, error)) (Share, error) {
	now := s.clock()
	switch {
	case strings.TrimSpace(n.Name) == "" || len(n.Name) > maxName || !utf8.ValidString(n.Name) || strings.ContainsFunc(n.Name, unicode.IsControl):
		return Share{}, terse.Invalid("name", "is 1 to %d bytes of text", maxName)
	case n.ExpiresAt != 0 && n.ExpiresAt <= now:
		return Share{}, terse.Invalid("expires_at", "lies in the past")
	}
	docs, err := s.store.ListDocuments(ctx, a.Workspace, terse.KindShare, "", maxPerSpace)
	if err != nil {
		return Share{}, fmt.Errorf("count shares: %w", err)
	}
	if len(docs) == maxPerSpace {
		return Share{}, terse.Invalid("name", "a workspace has at most %d shares", maxPerSpace)
	}
	hash, err := links.HashPassword(n.Password)
	if err != nil {
		return Share{}, err
	}
	sh := Share{ID: newID(a.Workspace), Workspace: a.Workspace, Scope: n.Scope, Name: n.Name, PasswordHash: hash, ExpiresAt: n.ExpiresAt, CreatedAt: now, CreatedBy: a.By}
	data, err := json.Marshal(&sh)
	if err != nil {
		return Share{}, fmt.Errorf("create share: %w", err)
	}
	docs = []terse.Document{{Workspace: a.Workspace, Kind: terse.KindShare, ID: sh.ID, Version: 1, Data: data}}
	if also != nil {
		more, err := also(sh)
		if err != nil {
			return Share{}, err
		}
		docs = append(docs, more...)
	}
	if err := s.store.InsertLinks(ctx, &terse.Chunk{Documents: docs}); err != nil {
		return Share{}, fmt.Errorf("create share: %w", err)
	}
	return sh, nil
}

// List returns at most limit shares of a workspace in the order of their ids, those after the given one.
func (s *Service) List(ctx context.Context, w terse.WorkspaceID, after string, limit int) ([]Share, error) {
	docs, err := s.store.ListDocuments(ctx, w, terse.KindShare, after, limit)
	if err != nil {
		return nil, fmt.Errorf("list shares: %w", err)
	}
	list := make([]Share, len(docs))
	for i := range docs {
		if err := json.Unmarshal(docs[i].Data, &list[i]); err != nil {
			return nil, fmt.Errorf("read share: %w", err)
		}
	}
	return list, nil
}

// Delete ends a share. Returns ErrNotFound, for those of other workspaces too.
func (s *Service) Delete(ctx context.Context, w terse.WorkspaceID, id string) error {
	if owner, ok := workspaceOf(id); !ok || owner != w {
		return terse.ErrNotFound
	}
	return s.store.DeleteDocument(ctx, w, terse.KindShare, id, 0)
}

// Open returns the share of an id, whoever asks. Returns ErrNotFound if there is none or it has ended.
func (s *Service) Open(ctx context.Context, id string) (Share, error) {
	w, ok := workspaceOf(id)
	if !ok {
		return Share{}, terse.ErrNotFound
	}
	doc, err := s.store.GetDocument(ctx, w, terse.KindShare, id)
	if errors.Is(err, terse.ErrNotFound) {
		return Share{}, terse.ErrNotFound
	}
	if err != nil {
		return Share{}, fmt.Errorf("open share: %w", err)
	}
	var sh Share
	if err := json.Unmarshal(doc.Data, &sh); err != nil {
		return Share{}, fmt.Errorf("read share: %w", err)
	}
	if sh.ExpiresAt != 0 && s.clock() >= sh.ExpiresAt {
		return Share{}, terse.ErrNotFound
	}
	return sh, nil
}

// digits are those of all ids: Crockford's base 32.
const digits = "0123456789abcdefghjkmnpqrstvwxyz"

func newID(w terse.WorkspaceID) string {
	b := []byte(Prefix)
	for i := workspaceLen - 1; i >= 0; i-- {
		b = append(b, digits[w>>(5*i)&31])
	}
	var random [randomLen]byte
	rand.Read(random[:]) // never fails: crypto/rand ends the process instead
	for _, r := range random {
		b = append(b, digits[r&31])
	}
	return string(b)
}

// workspaceOf returns the workspace in an id; false for what is no id.
func workspaceOf(id string) (terse.WorkspaceID, bool) {
	rest, ok := strings.CutPrefix(id, Prefix)
	if !ok || len(rest) != workspaceLen+randomLen || strings.Trim(rest, digits) != "" {
		return 0, false
	}
	var w uint64
	for i := range workspaceLen {
		w = w<<5 | uint64(strings.IndexByte(digits, rest[i]))
	}
	return terse.WorkspaceID(w), w > 0 && w < 1<<31
}
