package memstore

import (
	"bytes"
	"context"
	"slices"
	"strings"

	"github.com/terselink/terse"
)

// maxID is the length of the longest document id in bytes.
const maxID = 255

func keyOf(d *terse.Document) docKey { return docKey{d.Workspace, d.Kind, d.ID} }

// checkDocument refuses what no caller may put.
func checkDocument(d *terse.Document) error {
	switch {
	case d.ID == "" || len(d.ID) > maxID:
		return terse.Invalid("id", "must have 1 to %d bytes", maxID)
	case d.Version == 0:
		return terse.Invalid("version", "the first version is 1")
	}
	return nil
}

// checkPutLocked says why the document may not be written now, or nil.
func (s *Store) checkPutLocked(d *terse.Document) error {
	old, ok := s.docs[keyOf(d)]
	switch {
	case d.Version == 1 && ok:
		return terse.ErrExists
	case d.Version != 1 && (!ok || old.Version != d.Version-1):
		return terse.ErrVersion
	}
	return nil
}

func (s *Store) putLocked(d *terse.Document) {
	c := *d
	c.Kind, c.ID, c.Data = terse.Kind(strings.Clone(string(d.Kind))), strings.Clone(d.ID), bytes.Clone(d.Data)
	s.docs[keyOf(&c)] = c
	s.logLocked(terse.Change{Kind: terse.ChangeDocument, Workspace: c.Workspace, Version: c.Version, DocKind: c.Kind, DocID: c.ID})
}

// GetDocument returns a document.
func (s *Store) GetDocument(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, id string) (terse.Document, error) {
	if err := s.enter(ctx, "get document"); err != nil {
		return terse.Document{}, err
	}
	defer s.mu.Unlock()
	d, ok := s.docs[docKey{w, kind, id}]
	if !ok {
		return terse.Document{}, terse.ErrNotFound
	}
	d.Data = bytes.Clone(d.Data)
	return d, nil
}

// PutDocument writes a document if the stored one has the version before it.
func (s *Store) PutDocument(ctx context.Context, doc terse.Document) error {
	if err := checkDocument(&doc); err != nil {
		return err
	}
	if err := s.enter(ctx, "put document"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	if err := s.checkPutLocked(&doc); err != nil {
		return err
	}
	s.putLocked(&doc)
	return nil
}

// DeleteDocument removes a document.
func (s *Store) DeleteDocument(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, id string, ifVersion uint64) error {
	if err := s.enter(ctx, "delete document"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	d, ok := s.docs[docKey{w, kind, id}]
	switch {
	case !ok:
		return terse.ErrNotFound
	case ifVersion != 0 && d.Version != ifVersion:
		return terse.ErrVersion
	}
	delete(s.docs, keyOf(&d))
	s.logLocked(terse.Change{Kind: terse.ChangeDocument, Workspace: w, Version: d.Version, DocKind: kind, DocID: d.ID})
	return nil
}

// ListDocuments returns documents of a kind in byte order of id.
func (s *Store) ListDocuments(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, after string, limit int) ([]terse.Document, error) {
	if limit < 1 {
		return nil, terse.Invalid("limit", "at least 1")
	}
	if err := s.enter(ctx, "list documents"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	var out []terse.Document
	for k, d := range s.docs {
		if k.workspace == w && k.kind == kind && k.id > after {
			out = append(out, d)
		}
	}
	slices.SortFunc(out, func(a, b terse.Document) int { return strings.Compare(a.ID, b.ID) })
	out = out[:min(limit, len(out))]
	for i := range out {
		out[i].Data = bytes.Clone(out[i].Data)
	}
	return out, nil
}
