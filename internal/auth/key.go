package auth

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/terselink/terse"
)

// Key is an API key as it is stored: without the key itself.
type Key struct {
	ID        string            `json:"id"`
	Workspace terse.WorkspaceID `json:"workspace"`
	Name      string            `json:"name"`
	Scopes    []Scope           `json:"scopes"`
	Hash      []byte            `json:"hash"` // SHA-256 of the whole key
	CreatedAt terse.Millis      `json:"created_at"`
	ExpiresAt terse.Millis      `json:"expires_at,omitzero"` // 0: never
	CreatedBy string            `json:"created_by"`          // Identity.Subject of the maker
}

// locator leads from the id of a key to its workspace.
type locator struct {
	Workspace terse.WorkspaceID `json:"workspace"`
}

// verify reports whether the hash is the key's, in a time that does not depend on
// where they differ, and the key has not ended.
func (k *Key) verify(hash [sha256.Size]byte, now terse.Millis) bool {
	same := subtle.ConstantTimeCompare(hash[:], k.Hash) == 1
	return same && (k.ExpiresAt == 0 || now < k.ExpiresAt)
}

func (k *Key) identity() Identity {
	return Identity{Subject: k.ID, Workspace: k.Workspace, Scopes: k.Scopes}
}

// NewKey describes a key to make.
type NewKey struct {
	Workspace terse.WorkspaceID
	Name      string // 1 to 200 bytes
	Scopes    []Scope
	ExpiresAt terse.Millis // 0: never
}

// CreateKey makes a key and returns it with the only sight of its token. The
// documents that also returns are put in the same atomic write; also may be
// nil. Returns ErrNotFound if maker may not see the workspace or there is none,
// an error of code invalid, or forbidden if maker lacks a scope itself.
func (s *Service) CreateKey(ctx context.Context, maker *Identity, n NewKey, also func(Key, string) ([]terse.Document, error)) (k Key, token string, err error) {
	if _, err := s.GetWorkspace(ctx, maker, n.Workspace); err != nil {
		return Key{}, "", err
	}
	if err := checkName(n.Name); err != nil {
		return Key{}, "", err
	}
	scopes, err := checkScopes(n.Scopes, maker)
	if err != nil {
		return Key{}, "", err
	}
	now := s.o.Clock()
	if n.ExpiresAt != 0 && n.ExpiresAt <= now {
		return Key{}, "", terse.Invalid("expires_at", "is in the past")
	}
	token, id := newToken()
	hash := sha256.Sum256([]byte(token))
	k = Key{
		ID: id, Workspace: n.Workspace, Name: n.Name, Scopes: scopes, Hash: bytes.Clone(hash[:]),
		CreatedAt: now, ExpiresAt: n.ExpiresAt, CreatedBy: maker.Subject,
	}
	record, err := document(k.Workspace, terse.KindKey, id, 1, &k)
	if err != nil {
		return Key{}, "", err
	}
	loc, err := document(0, terse.KindKey, id, 1, &locator{Workspace: k.Workspace})
	if err != nil {
		return Key{}, "", err
	}
	docs := []terse.Document{record, loc}
	if also != nil {
		more, err := also(k, token)
		if err != nil {
			return Key{}, "", err
		}
		docs = append(docs, more...)
	}
	if err := s.o.Store.InsertLinks(ctx, &terse.Chunk{Documents: docs}); err != nil {
		return Key{}, "", fmt.Errorf("create key: %w", err)
	}
	return k, token, nil
}

func checkName(name string) error {
	switch {
	case strings.TrimSpace(name) == "":
		return terse.Invalid("name", "a name is required")
	case len(name) > 200:
		return terse.Invalid("name", "a name has at most 200 bytes")
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return terse.Invalid("name", "a name is text without control characters")
	}
	return nil
}

// AnyWorkspace makes GetKey and DeleteKey look in all workspaces.
const AnyWorkspace terse.WorkspaceID = 0

// GetKey returns a key of a workspace. Returns ErrNotFound, for another workspace's key too.
func (s *Service) GetKey(ctx context.Context, w terse.WorkspaceID, id string) (k Key, err error) {
	if !ValidKeyID(id) {
		return Key{}, terse.ErrNotFound
	}
	if w == AnyWorkspace {
		k, err = s.load(ctx, id)
	} else {
		k, err = s.record(ctx, w, id)
	}
	if err != nil {
		return Key{}, fmt.Errorf("get key: %w", err)
	}
	return k, nil
}

// ListKeys returns at most limit keys of a workspace in byte order of id, those
// after the given id.
func (s *Service) ListKeys(ctx context.Context, w terse.WorkspaceID, after string, limit int) ([]Key, error) {
	docs, err := s.o.Store.ListDocuments(ctx, w, terse.KindKey, after, limit)
	if err != nil {
		return nil, fmt.Errorf("list keys: %w", err)
	}
	keys := make([]Key, len(docs))
	for i, doc := range docs {
		if err := decode(doc, &keys[i]); err != nil {
			return nil, fmt.Errorf("list keys: %w", err)
		}
	}
	return keys, nil
}

// DeleteKey revokes a key of a workspace: when it returns nil, this Service accepts
// it no more. Returns ErrNotFound, for another workspace's key too.
func (s *Service) DeleteKey(ctx context.Context, w terse.WorkspaceID, id string) error {
	if !ValidKeyID(id) {
		return terse.ErrNotFound
	}
	if w == AnyWorkspace {
		k, err := s.load(ctx, id)
		if err != nil {
			return fmt.Errorf("delete key: %w", err)
		}
		w = k.Workspace
	}
	err := s.o.Store.DeleteDocument(ctx, w, terse.KindKey, id, 0)
	if !errors.Is(err, terse.ErrNotFound) {
		// Also after an error: the key may be gone, and reading it again is cheap.
		s.mu.Lock()
		s.revocation++
		delete(s.keys, id)
		s.mu.Unlock()
	}
	if err != nil {
		return fmt.Errorf("delete key: %w", err)
	}
	// The key is revoked whether or not this succeeds: a locator that stays behind
	// leads nowhere and takes a few bytes.
	_ = s.o.Store.DeleteDocument(context.WithoutCancel(ctx), 0, terse.KindKey, id, 0)
	return nil
}

// ValidKeyID reports whether s looks like the id of a key.
func ValidKeyID(id string) bool {
	if len(id) != idLength {
		return false
	}
	for i := range len(id) {
		if strings.IndexByte(base62, id[i]) < 0 {
			return false
		}
	}
	return true
}
