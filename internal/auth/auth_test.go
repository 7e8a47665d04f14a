package auth_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/auth"
	"github.com/terselink/terse/internal/store/memstore"
)

const ownerKey = "owner-key-of-the-tests-0123456789-abcdef"

var start = terse.MillisOf(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC))

// counted counts reads of documents, can fail them, and can run something in between.
type counted struct {
	terse.Store
	reads  atomic.Int64
	fail   atomic.Bool
	during func()
}

func (s *counted) GetDocument(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, id string) (terse.Document, error) {
	s.reads.Add(1)
	if s.fail.Load() {
		return terse.Document{}, terse.ErrUnavailable
	}
	doc, err := s.Store.GetDocument(ctx, w, kind, id)
	if s.during != nil && w != 0 && kind == terse.KindKey {
		during := s.during
		s.during = nil
		during()
	}
	return doc, err
}

type bench struct {
	store *counted
	now   atomic.Int64
	auth  *auth.Service
	owner auth.Identity
}

func (b *bench) clock() terse.Millis { return terse.Millis(b.now.Load()) }

func setup(t *testing.T) *bench {
	t.Helper()
	b := &bench{}
	b.now.Store(int64(start))
	b.store = &counted{Store: memstore.New(b.clock)}
	if _, _, err := auth.Bootstrap(t.Context(), auth.BootstrapOptions{Store: b.store, Clock: b.clock, Key: ownerKey}); err != nil {
		t.Fatal(err)
	}
	var err error
	if b.auth, err = auth.Open(t.Context(), auth.Options{Store: b.store, Clock: b.clock}); err != nil {
		t.Fatal(err)
	}
	if b.owner, err = b.auth.Authenticate(t.Context(), ownerKey); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) key(t *testing.T, n auth.NewKey) (auth.Key, string) {
	t.Helper()
	if n.Workspace == 0 {
		n.Workspace = auth.DefaultWorkspace
	}
	if n.Name == "" {
		n.Name = "k"
	}
	k, token, err := b.auth.CreateKey(t.Context(), &b.owner, n, nil)
	if err != nil {
		t.Fatal(err)
	}
	return k, token
}

func TestOwner(t *testing.T) {
	t.Parallel()
	b := setup(t)
	want := auth.Identity{Subject: auth.OwnerSubject, Owner: true, Workspace: auth.DefaultWorkspace, Scopes: []auth.Scope{auth.ScopeAll}}
	if d := cmp.Diff(want, b.owner); d != "" {
		t.Errorf("owner (-want +got):\n%s", d)
	}
	for _, s := range auth.Scopes() {
		if !b.owner.Allows(s) {
			t.Errorf("the owner lacks %s", s)
		}
	}
}

func TestAuthenticate(t *testing.T) {
	t.Parallel()
	b := setup(t)
	k, token := b.key(t, auth.NewKey{Scopes: []auth.Scope{auth.ScopeLinksRead}, ExpiresAt: start + 1000})
	got, err := b.auth.Authenticate(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	want := auth.Identity{Subject: k.ID, Workspace: auth.DefaultWorkspace, Scopes: []auth.Scope{auth.ScopeLinksRead}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("identity (-want +got):\n%s", d)
	}
	if got.Allows(auth.ScopeLinksWrite) || !got.Allows(auth.ScopeLinksRead) {
		t.Error("scopes are not what the key was given")
	}
	if _, ok := b.auth.Known(token); !ok {
		t.Error("a verified key is not known")
	}
	b.now.Add(1000)
	if _, err := b.auth.Authenticate(t.Context(), token); terse.ErrorCode(err) != terse.CodeUnauthorized {
		t.Errorf("expired key: %v, want unauthorized", err)
	}
	if _, ok := b.auth.Known(token); ok {
		t.Error("an expired key is known")
	}
}

func TestWrongKeys(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, token := b.key(t, auth.NewKey{Scopes: []auth.Scope{auth.ScopeAll}})
	flip := func(i int) string {
		c := byte('a')
		if token[i] == c {
			c = 'b'
		}
		return token[:i] + string(c) + token[i+1:]
	}
	resum := func(s string) string { return auth.AppendSum(s[:len(s)-6]) }
	tests := []struct {
		name, token string
		reads       int64
	}{
		{"none", "", 0},
		{"junk", "hello", 0},
		{"owner key with a suffix", ownerKey + "x", 0},
		{"wrong secret, wrong sum", flip(20), 0},
		{"wrong id, wrong sum", flip(7), 0},
		{"wrong sum", flip(len(token) - 1), 0},
		{"cut", token[:len(token)-1], 0},
		{"id of other bytes", resum(token[:6] + "a/../b/c" + token[14:]), 0},
		{"wrong secret, right sum", resum(flip(20)), 2},
		{"unknown id, right sum", resum(flip(7)), 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := b.store.reads.Load()
			if _, err := b.auth.Authenticate(t.Context(), tt.token); terse.ErrorCode(err) != terse.CodeUnauthorized {
				t.Errorf("error %v, want unauthorized", err)
			}
			if got := b.store.reads.Load() - before; got != tt.reads {
				t.Errorf("%d reads, want %d", got, tt.reads)
			}
		})
	}
}

// A verified key costs no read until CacheTTL has passed.
func TestCache(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, token := b.key(t, auth.NewKey{Scopes: []auth.Scope{auth.ScopeAll}})
	for i, want := range []int64{2, 0, 2, 0} {
		if i == 2 {
			b.now.Add(auth.CacheTTL.Milliseconds())
		}
		before := b.store.reads.Load()
		if _, err := b.auth.Authenticate(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		if got := b.store.reads.Load() - before; got != want {
			t.Errorf("authentication %d: %d reads, want %d", i, got, want)
		}
	}
	b.now.Add(auth.CacheTTL.Milliseconds())
	b.store.fail.Store(true)
	if _, err := b.auth.Authenticate(t.Context(), token); !errors.Is(err, terse.ErrUnavailable) {
		t.Errorf("with the store down: %v, want unavailable", err)
	}
	if _, err := b.auth.Authenticate(t.Context(), ownerKey); err != nil {
		t.Errorf("the owner with the store down: %v", err)
	}
}

func TestRevocation(t *testing.T) {
	t.Parallel()
	b := setup(t)
	k, token := b.key(t, auth.NewKey{Scopes: []auth.Scope{auth.ScopeAll}})
	if _, err := b.auth.Authenticate(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	if err := b.auth.DeleteKey(t.Context(), auth.DefaultWorkspace+1, k.ID); !errors.Is(err, terse.ErrNotFound) {
		t.Errorf("revocation from another workspace: %v, want not_found", err)
	}
	if _, err := b.auth.Authenticate(t.Context(), token); err != nil {
		t.Errorf("after a refused revocation: %v", err)
	}
	if err := b.auth.DeleteKey(t.Context(), auth.DefaultWorkspace, k.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := b.auth.Authenticate(t.Context(), token); terse.ErrorCode(err) != terse.CodeUnauthorized {
		t.Errorf("after revocation: %v, want unauthorized", err)
	}
	if err := b.auth.DeleteKey(t.Context(), auth.AnyWorkspace, k.ID); !errors.Is(err, terse.ErrNotFound) {
		t.Errorf("second revocation: %v, want not_found", err)
	}
}

// A key that is revoked while another request is reading it must not enter the cache.
func TestRevocationDuringRead(t *testing.T) {
	t.Parallel()
	b := setup(t)
	k, token := b.key(t, auth.NewKey{Scopes: []auth.Scope{auth.ScopeAll}})
	b.store.during = func() {
		if err := b.auth.DeleteKey(t.Context(), auth.DefaultWorkspace, k.ID); err != nil {
			t.Error(err)
		}
	}
	if _, err := b.auth.Authenticate(t.Context(), token); err != nil {
		t.Fatalf("the request that read first: %v", err)
	}
	if _, err := b.auth.Authenticate(t.Context(), token); terse.ErrorCode(err) != terse.CodeUnauthorized {
		t.Errorf("after revocation: %v, want unauthorized", err)
	}
}

func TestCreateKey(t *testing.T) {
	t.Parallel()
	b := setup(t)
	other, err := b.auth.CreateWorkspace(t.Context(), &b.owner, auth.NewWorkspace{Name: "other"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	limited := auth.Identity{Subject: "x", Workspace: auth.DefaultWorkspace, Scopes: []auth.Scope{auth.ScopeKeysWrite, auth.ScopeLinksRead}}
	tests := []struct {
		name  string
		maker *auth.Identity
		new   auth.NewKey
		want  terse.Code // "" means that it is made
		field string
	}{
		{"owner", &b.owner, auth.NewKey{Workspace: other.ID, Name: "k", Scopes: []auth.Scope{auth.ScopeAll}}, "", ""},
		{"own scopes", &limited, auth.NewKey{Workspace: 1, Name: "k", Scopes: []auth.Scope{auth.ScopeLinksRead}}, "", ""},
		{"more than the maker has", &limited, auth.NewKey{Workspace: 1, Name: "k", Scopes: []auth.Scope{auth.ScopeLinksWrite}}, terse.CodeForbidden, "scopes"},
		{"everything", &limited, auth.NewKey{Workspace: 1, Name: "k", Scopes: []auth.Scope{auth.ScopeAll}}, terse.CodeForbidden, "scopes"},
		{"another workspace", &limited, auth.NewKey{Workspace: other.ID, Name: "k", Scopes: []auth.Scope{auth.ScopeLinksRead}}, terse.CodeNotFound, ""},
		{"no workspace", &b.owner, auth.NewKey{Workspace: 99, Name: "k", Scopes: []auth.Scope{auth.ScopeAll}}, terse.CodeNotFound, ""},
		{"the instance", &b.owner, auth.NewKey{Workspace: 0, Name: "k", Scopes: []auth.Scope{auth.ScopeAll}}, terse.CodeNotFound, ""},
		{"unknown scope", &b.owner, auth.NewKey{Workspace: 1, Name: "k", Scopes: []auth.Scope{"links:*"}}, terse.CodeInvalid, "scopes"},
		{"no scope", &b.owner, auth.NewKey{Workspace: 1, Name: "k"}, terse.CodeInvalid, "scopes"},
		{"blank name", &b.owner, auth.NewKey{Workspace: 1, Name: " ", Scopes: []auth.Scope{auth.ScopeAll}}, terse.CodeInvalid, "name"},
		{"long name", &b.owner, auth.NewKey{Workspace: 1, Name: strings.Repeat("x", 201), Scopes: []auth.Scope{auth.ScopeAll}}, terse.CodeInvalid, "name"},
		{"control character", &b.owner, auth.NewKey{Workspace: 1, Name: "a\nb", Scopes: []auth.Scope{auth.ScopeAll}}, terse.CodeInvalid, "name"},
		{"past", &b.owner, auth.NewKey{Workspace: 1, Name: "k", Scopes: []auth.Scope{auth.ScopeAll}, ExpiresAt: start}, terse.CodeInvalid, "expires_at"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k, token, err := b.auth.CreateKey(t.Context(), tt.maker, tt.new, nil)
			if tt.want != "" {
				e, _ := errors.AsType[*terse.Error](err)
				if e == nil || e.Code != tt.want || e.Field != tt.field {
					t.Errorf("error %v, want code %s, field %q", err, tt.want, tt.field)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			id, err := b.auth.Authenticate(t.Context(), token)
			if err != nil || id.Workspace != tt.new.Workspace || id.Subject != k.ID {
				t.Errorf("the new key is %+v, %v", id, err)
			}
		})
	}
}

// The documents that ride along are there exactly if the key is.
func TestCreateKeyAlso(t *testing.T) {
	t.Parallel()
	b := setup(t)
	doc := terse.Document{Workspace: 1, Kind: terse.KindIdempotency, ID: "x", Version: 1, Data: []byte("{}")}
	also := func(auth.Key, string) ([]terse.Document, error) { return []terse.Document{doc}, nil }
	n := auth.NewKey{Workspace: 1, Name: "k", Scopes: []auth.Scope{auth.ScopeAll}}
	if _, _, err := b.auth.CreateKey(t.Context(), &b.owner, n, also); err != nil {
		t.Fatal(err)
	}
	if _, err := b.store.GetDocument(t.Context(), 1, terse.KindIdempotency, "x"); err != nil {
		t.Errorf("the document is not there: %v", err)
	}
	if _, _, err := b.auth.CreateKey(t.Context(), &b.owner, n, also); !errors.Is(err, terse.ErrExists) {
		t.Errorf("second time: %v, want exists", err)
	}
	keys, err := b.auth.ListKeys(t.Context(), 1, "", 10)
	if err != nil || len(keys) != 1 {
		t.Errorf("%d keys, %v; want the first one only", len(keys), err)
	}
}

// Nothing that is stored contains a key.
func TestKeysAreNotStored(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, token := b.key(t, auth.NewKey{Scopes: []auth.Scope{auth.ScopeAll}})
	for _, w := range []terse.WorkspaceID{0, 1} {
		for _, kind := range []terse.Kind{terse.KindKey, terse.KindMeta, terse.KindWorkspace} {
			docs, err := b.store.ListDocuments(t.Context(), w, kind, "", 100)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range docs {
				if strings.Contains(string(d.Data), token[15:]) || strings.Contains(string(d.Data), ownerKey) {
					t.Errorf("%s %s holds a key: %s", kind, d.ID, d.Data)
				}
			}
		}
	}
}

func TestWorkspaces(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var ids []terse.WorkspaceID
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			w, err := b.auth.CreateWorkspace(t.Context(), &b.owner, auth.NewWorkspace{Name: fmt.Sprint("w", i)}, nil)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			ids = append(ids, w.ID)
		})
	}
	wg.Wait()
	slices.Sort(ids)
	if d := cmp.Diff([]terse.WorkspaceID{2, 3, 4, 5, 6, 7, 8, 9}, ids); d != "" {
		t.Errorf("numbers (-want +got):\n%s", d)
	}
	key := auth.Identity{Subject: "k", Workspace: 3, Scopes: []auth.Scope{auth.ScopeAll}}
	if _, err := b.auth.CreateWorkspace(t.Context(), &key, auth.NewWorkspace{Name: "x"}, nil); terse.ErrorCode(err) != terse.CodeForbidden {
		t.Errorf("a key makes a workspace: %v, want forbidden", err)
	}
	for id, want := range map[terse.WorkspaceID]bool{0: false, 1: false, 3: true, 4: false, 99: false} {
		if _, err := b.auth.GetWorkspace(t.Context(), &key, id); (err == nil) != want || err != nil && !errors.Is(err, terse.ErrNotFound) {
			t.Errorf("key of workspace 3 reads %d: %v", id, err)
		}
	}
	for after, want := range map[terse.WorkspaceID]int{0: 1, 2: 1, 3: 0} {
		if list, err := b.auth.ListWorkspaces(t.Context(), &key, after, 10); err != nil || len(list) != want {
			t.Errorf("key lists %d workspaces after %d, %v; want %d", len(list), after, err, want)
		}
	}
	list, err := b.auth.ListWorkspaces(t.Context(), &b.owner, 7, 10)
	if err != nil || len(list) != 2 || list[0].ID != 8 {
		t.Errorf("owner lists %v after 7, %v", list, err)
	}
}

func TestBootstrap(t *testing.T) {
	t.Parallel()
	clock := func() terse.Millis { return start }
	const given = "another-owner-key-0123456789-0123456789"
	type want struct {
		key     string // "*" any new one, "first" that of the first step
		created bool
		file    string
	}
	tests := []struct {
		name  string
		steps []struct {
			key  string
			lose string // "file" or "document" is lost before the step
			want want
		}
	}{
		{"generated, then kept", []struct {
			key, lose string
			want      want
		}{{"", "", want{"*", true, "first"}}, {"", "", want{"first", false, "first"}}}},
		{"file lost", []struct {
			key, lose string
			want      want
		}{{"", "", want{"*", true, "first"}}, {"", "file", want{"", false, ""}}}},
		{"crash before the document", []struct {
			key, lose string
			want      want
		}{{"", "", want{"*", true, "first"}}, {"", "document", want{"first", true, "first"}}}},
		{"given", []struct {
			key, lose string
			want      want
		}{{ownerKey, "", want{ownerKey, false, ownerKey}}, {"", "", want{ownerKey, false, ownerKey}}}},
		{"given later, and changed", []struct {
			key, lose string
			want      want
		}{{"", "", want{"*", true, "first"}}, {ownerKey, "", want{ownerKey, false, ownerKey}}, {given, "", want{given, false, given}}, {given, "file", want{given, false, given}}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir, store := t.TempDir(), memstore.New(clock)
			file := filepath.Join(dir, auth.OwnerFile)
			first := ""
			for i, step := range tt.steps {
				switch step.lose {
				case "file":
					if err := os.Remove(file); err != nil {
						t.Fatal(err)
					}
				case "document":
					if err := store.DeleteDocument(t.Context(), 0, terse.KindMeta, "owner_key", 0); err != nil {
						t.Fatal(err)
					}
				}
				key, created, err := auth.Bootstrap(t.Context(), auth.BootstrapOptions{Store: store, Clock: clock, Dir: dir, Key: step.key})
				if err != nil {
					t.Fatalf("step %d: %v", i, err)
				}
				if i == 0 {
					first = key
				}
				resolve := func(s string) string {
					if s == "first" || s == "*" {
						return first
					}
					return s
				}
				if key != resolve(step.want.key) || created != step.want.created {
					t.Errorf("step %d: key %q, created %v; want %q, %v", i, key, created, step.want.key, step.want.created)
				}
				b, err := os.ReadFile(file)
				if step.want.file != "" {
					if err != nil || strings.TrimSpace(string(b)) != resolve(step.want.file) {
						t.Errorf("step %d: the file holds %q, %v; want %q", i, b, err, step.want.file)
					}
					if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
						t.Errorf("step %d: mode %v, %v; want 0600", i, st.Mode(), err)
					}
				}
				svc, err := auth.Open(t.Context(), auth.Options{Store: store, Clock: clock})
				if err != nil {
					t.Fatal(err)
				}
				if key != "" {
					if id, err := svc.Authenticate(t.Context(), key); err != nil || !id.Owner {
						t.Errorf("step %d: the owner key gives %+v, %v", i, id, err)
					}
				}
				if step.key != "" && first != step.key {
					if _, err := svc.Authenticate(t.Context(), first); err == nil {
						t.Errorf("step %d: the replaced owner key still works", i)
					}
				}
				if _, err := store.GetDocument(t.Context(), 0, terse.KindWorkspace, auth.DefaultWorkspace.String()); err != nil {
					t.Errorf("step %d: no default workspace: %v", i, err)
				}
			}
		})
	}
}

// raced runs something once, before the owner key is stored.
type raced struct {
	terse.Store
	before func()
}

func (s *raced) PutDocument(ctx context.Context, doc terse.Document) error {
	if doc.ID == "owner_key" && s.before != nil {
		before := s.before
		s.before = nil
		before()
	}
	return s.Store.PutDocument(ctx, doc)
}

// TestBootstrapRaced: of two processes that start at once the file of the second one goes if its key opens nothing, and stays if
// both have the file.
func TestBootstrapRaced(t *testing.T) {
	t.Parallel()
	clock := func() terse.Millis { return start }
	for name, shared := range map[string]bool{"one folder": true, "two folders": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, store := t.TempDir(), memstore.New(clock)
			o := auth.BootstrapOptions{Clock: clock, Dir: dir}
			first := o
			first.Store = store
			if !shared {
				first.Dir = t.TempDir()
			}
			var owner string
			o.Store = &raced{store, func() {
				var err error
				if owner, _, err = auth.Bootstrap(t.Context(), first); err != nil {
					t.Error(err)
				}
			}}
			want := ""
			key, created, err := auth.Bootstrap(t.Context(), o)
			if shared {
				want = owner
			}
			if err != nil || key != want || created {
				t.Errorf("key %q, created %v, %v; want %q", key, created, err, want)
			}
			b, err := os.ReadFile(filepath.Join(dir, auth.OwnerFile))
			if got := strings.TrimSpace(string(b)); got != want || shared != (err == nil) {
				t.Errorf("the file holds %q, %v; want %q", got, err, want)
			}
		})
	}
}

func TestBootstrapRefuses(t *testing.T) {
	t.Parallel()
	for _, key := range []string{"short", strings.Repeat("x", 31), strings.Repeat("x", 129), strings.Repeat("x", 40) + " ", strings.Repeat("ü", 20), "\n" + strings.Repeat("x", 40)} {
		store := memstore.New(nil)
		_, _, err := auth.Bootstrap(t.Context(), auth.BootstrapOptions{Store: store, Clock: func() terse.Millis { return start }, Dir: t.TempDir(), Key: key})
		e, _ := errors.AsType[*terse.Error](err)
		if e == nil || e.Code != terse.CodeInvalid || e.Field != "bootstrap_key" {
			t.Errorf("key %q: %v, want invalid bootstrap_key", key, err)
		}
		if strings.Contains(fmt.Sprint(err), "xxxx") {
			t.Errorf("the error repeats the key: %v", err)
		}
		if _, err := auth.Open(t.Context(), auth.Options{Store: store}); err == nil {
			t.Error("Open succeeds without an owner")
		}
	}
}

func FuzzAuthenticate(f *testing.F) {
	f.Add("terse_00000000_00000000000000000000000000000000000000")
	f.Add("")
	f.Add(auth.AppendSum("terse_../../.._00000000000000000000000000000000"))
	clock := func() terse.Millis { return start }
	store := memstore.New(clock)
	if _, _, err := auth.Bootstrap(context.Background(), auth.BootstrapOptions{Store: store, Clock: clock, Key: ownerKey}); err != nil {
		f.Fatal(err)
	}
	s, err := auth.Open(context.Background(), auth.Options{Store: store, Clock: clock})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, token string) {
		if _, err := s.Authenticate(t.Context(), token); terse.ErrorCode(err) != terse.CodeUnauthorized && token != ownerKey {
			t.Errorf("%q: %v, want unauthorized", token, err)
		}
	})
}
