// Package auth knows who may do what: workspaces, API keys, their scopes, and the
// owner key of the instance.
//
// It is not a user directory and knows nothing of HTTP. Invariants:
//
//   - a key is shown once, when it is made; stored is its SHA-256 only;
//   - what no scope allows is denied; a key grants no more than its maker has;
//   - a key that was deleted through this Service is refused by it from then on;
//     other nodes notice within CacheTTL.
//
// A key is two documents: the record, under its workspace, and a locator under
// the instance that leads from the key's id to the workspace. Both are written
// at once; deleting the record is what revokes.
package auth

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse"
)

// CacheTTL is how long a verified key is trusted without reading it again, and so
// how long a key that another node revoked may still be accepted here.
const CacheTTL = 10 * time.Second

// maxCached bounds the keys (and, apart, the workspaces) kept in memory.
const maxCached = 4096

// OwnerSubject is the Identity.Subject of the owner key.
const OwnerSubject = "owner"

// Errors of Authenticate. Both are of code unauthorized and say the same to the
// caller, whatever is wrong with the key.
var (
	errNoKey    = &terse.Error{Code: terse.CodeUnauthorized, Message: "an API key is required: Authorization: Bearer terse_…"}
	errWrongKey = &terse.Error{Code: terse.CodeUnauthorized, Reason: "invalid_key", Message: "the API key is not valid"}
)

// Options configures a Service. All fields are required.
type Options struct {
	Store terse.Store
	Clock func() terse.Millis
}

// Service authenticates and manages keys and workspaces. Its methods may be called
// from many goroutines.
type Service struct {
	o     Options
	owner [sha256.Size]byte // of the owner key

	mu         sync.Mutex
	revocation uint64 // grows with every deletion, so that a read that began before one is not cached after it
	keys       map[string]cached
	workspaces map[terse.WorkspaceID]terse.Workspace

	settings atomic.Pointer[map[terse.WorkspaceID]terse.WorkspaceSettings] // of those that have any; copied on write
}

type cached struct {
	key Key
	at  terse.Millis
}

// Open loads the owner key's hash. Bootstrap must have succeeded on the store
// before, now or earlier.
func Open(ctx context.Context, o Options) (*Service, error) {
	owner, _, err := loadOwner(ctx, o.Store)
	if err != nil {
		return nil, fmt.Errorf("open auth: %w", err)
	}
	s, err := OpenSettings(ctx, o)
	if err != nil {
		return nil, err
	}
	s.owner = owner
	return s, nil
}

// OpenSettings is Open for a process that admits nobody and only wants to know the settings of workspaces: no key is valid.
func OpenSettings(ctx context.Context, o Options) (*Service, error) {
	s := &Service{o: o, keys: make(map[string]cached), workspaces: make(map[terse.WorkspaceID]terse.Workspace)}
	if err := s.loadSettings(ctx); err != nil {
		return nil, fmt.Errorf("open auth: %w", err)
	}
	return s, nil
}

// Identity is who makes a request. It is a value of its own, never shared.
type Identity struct {
	Subject   string // OwnerSubject or the id of the key
	Owner     bool   // may act for every workspace
	Workspace terse.WorkspaceID
	Scopes    []Scope
}

// Allows reports whether the identity has a scope.
func (id *Identity) Allows(s Scope) bool {
	return slices.Contains(id.Scopes, s) || slices.Contains(id.Scopes, ScopeAll) && (id.Owner || s != ScopeEdgeUse)
}

// Known returns who presents a key if this can be said without reading the
// store: the owner, and keys that were verified within CacheTTL. It lets callers
// admit them before they limit anybody.
func (s *Service) Known(token string) (Identity, bool) {
	hash := sha256.Sum256([]byte(token))
	if subtle.ConstantTimeCompare(hash[:], s.owner[:]) == 1 {
		return Identity{Subject: OwnerSubject, Owner: true, Workspace: DefaultWorkspace, Scopes: []Scope{ScopeAll}}, true
	}
	id, ok := parseToken(token)
	if !ok {
		return Identity{}, false
	}
	now := s.o.Clock()
	s.mu.Lock()
	c, ok := s.keys[id]
	s.mu.Unlock()
	if !ok || now-c.at >= terse.Millis(CacheTTL.Milliseconds()) || !c.key.verify(hash, now) {
		return Identity{}, false
	}
	return c.key.identity(), true
}

// Authenticate returns who presents a key. Junk is refused without a read, by its
// checksum. Returns an error of code unauthorized, or what the store returned.
func (s *Service) Authenticate(ctx context.Context, token string) (Identity, error) {
	if token == "" {
		return Identity{}, errNoKey
	}
	if id, ok := s.Known(token); ok {
		return id, nil
	}
	keyID, ok := parseToken(token)
	if !ok {
		return Identity{}, errWrongKey
	}
	s.mu.Lock()
	seen := s.revocation
	s.mu.Unlock()
	k, err := s.load(ctx, keyID)
	if errors.Is(err, terse.ErrNotFound) {
		return Identity{}, errWrongKey
	}
	if err != nil {
		return Identity{}, fmt.Errorf("authenticate: %w", err)
	}
	now := s.o.Clock()
	if !k.verify(sha256.Sum256([]byte(token)), now) {
		return Identity{}, errWrongKey
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.revocation == seen {
		makeRoom(s.keys)
		s.keys[keyID] = cached{key: k, at: now}
	}
	return k.identity(), nil
}

// makeRoom drops some entry of a full cache.
func makeRoom[K comparable, V any](m map[K]V) {
	if len(m) < maxCached {
		return
	}
	for k := range m {
		delete(m, k)
		return
	}
}

// load reads a key by its id alone.
func (s *Service) load(ctx context.Context, id string) (Key, error) {
	doc, err := s.o.Store.GetDocument(ctx, 0, terse.KindKey, id)
	if err != nil {
		return Key{}, err
	}
	var loc locator
	if err := decode(doc, &loc); err != nil {
		return Key{}, err
	}
	return s.record(ctx, loc.Workspace, id)
}

// record reads a key of a workspace.
func (s *Service) record(ctx context.Context, w terse.WorkspaceID, id string) (Key, error) {
	doc, err := s.o.Store.GetDocument(ctx, w, terse.KindKey, id)
	if err != nil {
		return Key{}, err
	}
	var k Key
	if err := decode(doc, &k); err != nil {
		return Key{}, err
	}
	return k, nil
}

func decode(doc terse.Document, v any) error {
	if err := json.Unmarshal(doc.Data, v); err != nil {
		return fmt.Errorf("read %s %s: %w", doc.Kind, doc.ID, err)
	}
	return nil
}

func document(w terse.WorkspaceID, kind terse.Kind, id string, version uint64, v any) (terse.Document, error) {
	data, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		return terse.Document{}, fmt.Errorf("write %s %s: %w", kind, id, err)
	}
	return terse.Document{Workspace: w, Kind: kind, ID: id, Version: version, Data: data}, nil
}
