package dynamostore

import (
	"bytes"
	"context"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/terselink/terse"
)

// maxID is the length of the longest document id in bytes.
const maxID = 255

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

// documentOp puts the document on the condition that the version before it is there.
func (s *Store) documentOp(d *terse.Document) types.TransactWriteItem {
	it := documentKey(d.Workspace, d.Kind, d.ID).item()
	it["document_version"], it["data"] = num(d.Version), bin(bytes.Clone(d.Data))
	if d.Version == 1 {
		return s.putOp(it, isFree, nil)
	}
	return s.putOp(it, "document_version = :v", item{":v": num(d.Version - 1)})
}

// documentConflict is the error of a document whose condition is not met.
func documentConflict(d *terse.Document) error {
	if d.Version == 1 {
		return terse.ErrExists
	}
	return terse.ErrVersion
}

func documentChange(d *terse.Document) terse.Change {
	return terse.Change{Kind: terse.ChangeDocument, Workspace: d.Workspace, Version: d.Version, DocKind: d.Kind, DocID: d.ID}
}

func readDocument(w terse.WorkspaceID, kind terse.Kind, it item) terse.Document {
	return terse.Document{
		Workspace: w, Kind: kind, ID: string(getBin(it, attrSK)), Version: getNum(it, "document_version"), Data: getBin(it, "data"),
	}
}

// GetDocument returns a document.
func (s *Store) GetDocument(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, id string) (terse.Document, error) {
	const op = "get document"
	if err := s.enter(ctx, op); err != nil {
		return terse.Document{}, err
	}
	if id == "" || len(id) > maxID {
		return terse.Document{}, terse.ErrNotFound
	}
	it, o := s.getItem(ctx, documentKey(w, kind, id))
	if o != nil {
		return terse.Document{}, o.readErr(op)
	}
	if it == nil {
		return terse.Document{}, terse.ErrNotFound
	}
	return readDocument(w, kind, it), nil
}

// PutDocument writes a document if the stored one has the version before it.
func (s *Store) PutDocument(ctx context.Context, doc terse.Document) error {
	const op = "put document"
	if err := checkDocument(&doc); err != nil {
		return err
	}
	if err := s.enter(ctx, op); err != nil {
		return err
	}
	o := s.commit(ctx, []terse.Change{documentChange(&doc)}, func() ([]types.TransactWriteItem, *outcome) {
		return []types.TransactWriteItem{s.documentOp(&doc)}, nil
	})
	if o.is(condition) && !o.maybe {
		return documentConflict(&doc)
	}
	if o != nil {
		return o.writeErr(op)
	}
	return nil
}

// DeleteDocument removes a document.
func (s *Store) DeleteDocument(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, id string, ifVersion uint64) error {
	const op = "delete document"
	if err := s.enter(ctx, op); err != nil {
		return err
	}
	for {
		d, err := s.GetDocument(ctx, w, kind, id)
		if err != nil {
			return err
		}
		if ifVersion != 0 && d.Version != ifVersion {
			return terse.ErrVersion
		}
		o := s.commit(ctx, []terse.Change{documentChange(&d)}, func() ([]types.TransactWriteItem, *outcome) {
			return []types.TransactWriteItem{s.deleteOp(documentKey(w, kind, id), "document_version = :v", item{":v": num(d.Version)})}, nil
		})
		if o.is(condition) && !o.maybe {
			continue // somebody was faster
		}
		if o != nil {
			return o.writeErr(op)
		}
		return nil
	}
}

// ListDocuments returns documents of a kind in byte order of id.
func (s *Store) ListDocuments(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, after string, limit int) ([]terse.Document, error) {
	const op = "list documents"
	if limit < 1 {
		return nil, terse.Invalid("limit", "at least 1")
	}
	if err := s.enter(ctx, op); err != nil {
		return nil, err
	}
	q := rangeQuery{pk: documentPK(w, kind)}
	if after != "" {
		q.from = after + "\x00" // the least that is larger
	}
	var out []terse.Document
	for {
		q.limit = limit - len(out)
		page, next, o := s.query(ctx, q)
		if o != nil {
			return nil, o.readErr(op)
		}
		for _, it := range page {
			out = append(out, readDocument(w, kind, it))
		}
		if next == nil || len(out) >= limit {
			return out, nil
		}
		q.start = next
	}
}
