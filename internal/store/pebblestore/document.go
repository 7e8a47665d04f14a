package pebblestore

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"github.com/terselink/terse"
)

// maxDocument is the largest document, in bytes.
const maxDocument = 256 << 10

func checkDocument(d *terse.Document) error {
	switch {
	case len(d.ID) == 0 || len(d.ID) > 255:
		return terse.Invalid("id", "must have 1 to 255 bytes")
	case len(d.Kind) == 0 || len(d.Kind) > 255:
		return terse.Invalid("kind", "must have 1 to 255 bytes")
	case d.Version == 0:
		return terse.Invalid("version", "must be at least 1")
	case len(d.Data) >= maxDocument:
		return &terse.Error{Code: terse.CodeTooLarge, Field: "data", Message: "a document must be below 256 KiB"}
	}
	return nil
}

// putDocuments adds documents and their changes to the op.
func (s *Store) putDocuments(o *op, documents []terse.Document) error {
	in := &o.insert
	for i := range documents {
		d := &documents[i]
		at := len(in.keys)
		in.keys = append(appendDocumentPrefix(in.keys, d.Workspace, d.Kind), d.ID...)
		in.documents = append(in.documents, documentRef{at, len(in.keys), d.Version})
		value := append(binary.AppendUvarint(nil, d.Version), d.Data...)
		if err := o.batch.Set(in.keys[at:], value, nil); err != nil {
			return errBatch(err)
		}
		o.logChange(&terse.Change{
			Kind: terse.ChangeDocument, Workspace: d.Workspace, At: s.opts.Clock(), Version: d.Version, DocKind: d.Kind, DocID: d.ID,
		})
	}
	return nil
}

// checkDocuments compares versions, as the committer.
func (s *Store) checkDocuments(in *insertState) error {
	for _, d := range in.documents {
		stored, err := s.documentVersion(in.keys[d.key:d.end])
		switch {
		case err != nil:
			return err
		case d.version == 1 && stored != 0:
			return terse.ErrExists
		case stored != d.version-1:
			return terse.ErrVersion
		}
	}
	return nil
}

// documentVersion returns the version stored under a key, 0 if there is none.
func (s *Store) documentVersion(key []byte) (uint64, error) {
	value, closer, err := s.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, errRead("document", err)
	}
	v, n := binary.Uvarint(value)
	if n <= 0 || v == 0 {
		err = errDamaged("document", 0, "version")
	}
	return v, errors.Join(err, closer.Close())
}

// decodeDocument reads a document; key is its whole key.
func decodeDocument(w terse.WorkspaceID, kind terse.Kind, id string, value []byte) (terse.Document, error) {
	v, n := binary.Uvarint(value)
	if n <= 0 || v == 0 {
		return terse.Document{}, errDamaged("document", 0, "version")
	}
	return terse.Document{Workspace: w, Kind: kind, ID: id, Version: v, Data: slices.Clone(value[n:])}, nil
}

// GetDocument implements terse.Store.
func (s *Store) GetDocument(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, id string) (_ terse.Document, err error) {
	if err := s.enter(ctx); err != nil {
		return terse.Document{}, err
	}
	defer s.leave(&err)
	value, ok, err := s.get(append(appendDocumentPrefix(nil, w, kind), id...), nil)
	if err != nil {
		return terse.Document{}, err
	}
	if !ok {
		return terse.Document{}, terse.ErrNotFound
	}
	return decodeDocument(w, kind, id, value)
}

// PutDocument implements terse.Store.
func (s *Store) PutDocument(ctx context.Context, doc terse.Document) error {
	return s.InsertLinks(ctx, &terse.Chunk{Documents: []terse.Document{doc}})
}

// DeleteDocument implements terse.Store.
func (s *Store) DeleteDocument(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, id string, ifVersion uint64) (err error) {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave(&err)
	key := append(appendDocumentPrefix(nil, w, kind), id...)
	kind, id = terse.Kind(strings.Clone(string(kind))), strings.Clone(id) // the committer may outlive the call
	o := s.newOp()
	o.check = func(s *Store, o *op) error {
		stored, err := s.documentVersion(key)
		switch {
		case err != nil:
			return err
		case stored == 0:
			return terse.ErrNotFound
		case ifVersion != 0 && stored != ifVersion:
			return terse.ErrVersion
		}
		if err := o.batch.Delete(key, nil); err != nil {
			return errBatch(err)
		}
		o.logChange(&terse.Change{
			Kind: terse.ChangeDocument, Workspace: w, At: s.opts.Clock(), Version: stored, DocKind: kind, DocID: id,
		})
		return nil
	}
	return s.submit(ctx, o)
}

// ListDocuments implements terse.Store.
func (s *Store) ListDocuments(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, after string, limit int) (_ []terse.Document, err error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.leave(&err)
	if limit < 1 {
		return nil, terse.Invalid("limit", "must be at least 1")
	}
	prefix := appendDocumentPrefix(nil, w, kind)
	lower := prefix
	if after != "" {
		lower = append(append(slices.Clone(prefix), after...), 0)
	}
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upperBound(prefix)})
	if err != nil {
		return nil, errRead("documents", err)
	}
	defer closeIter(it, &err)
	var out []terse.Document
	for ok := it.First(); ok && len(out) < limit; ok = it.Next() {
		d, err := decodeDocument(w, kind, string(it.Key()[len(prefix):]), it.Value())
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}
