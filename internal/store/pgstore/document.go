package pgstore

import (
	"cmp"
	"context"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/terselink/terse"
)

// maxID is the length of the longest document id in bytes.
const maxID = 255

type docKey struct {
	workspace terse.WorkspaceID
	kind      terse.Kind
	id        string
}

func keyOf(d *terse.Document) docKey { return docKey{d.Workspace, d.Kind, d.ID} }

func compareDocuments(a, b *terse.Document) int {
	return cmp.Or(cmp.Compare(a.Workspace, b.Workspace), strings.Compare(string(a.Kind), string(b.Kind)), strings.Compare(a.ID, b.ID))
}

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

// GetDocument implements terse.Store.
func (s *Store) GetDocument(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, id string) (terse.Document, error) {
	const op = "get document"
	ctx, cancel, err := s.enter(ctx, op)
	if err != nil {
		return terse.Document{}, err
	}
	defer cancel()
	doc := terse.Document{Workspace: w, Kind: kind, ID: id}
	found := false
	if err := s.query(ctx, op, func(r pgx.Rows) error {
		found = true
		return scanDocument(r, &doc)
	}, "select id, version, data from terse.documents where workspace_id = $1 and kind = $2 and id = $3", int32(w), string(kind), id); err != nil {
		return terse.Document{}, err
	}
	if !found {
		return terse.Document{}, terse.ErrNotFound
	}
	return doc, nil
}

func scanDocument(r pgx.Row, doc *terse.Document) error {
	var version int64
	var data string
	if err := r.Scan(&doc.ID, &version, &data); err != nil {
		return err
	}
	doc.Version, doc.Data = uint64(version), []byte(data)
	return nil
}

// ListDocuments implements terse.Store.
func (s *Store) ListDocuments(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, after string, limit int) ([]terse.Document, error) {
	const op = "list documents"
	if limit < 1 {
		return nil, terse.Invalid("limit", "at least 1")
	}
	ctx, cancel, err := s.enter(ctx, op)
	if err != nil {
		return nil, err
	}
	defer cancel()
	var docs []terse.Document
	err = s.query(ctx, op, func(r pgx.Rows) error {
		doc := terse.Document{Workspace: w, Kind: kind}
		err := scanDocument(r, &doc)
		docs = append(docs, doc)
		return err
	}, "select id, version, data from terse.documents where workspace_id = $1 and kind = $2 and id > $3 order by id limit $4", int32(w), string(kind), after, int64(limit))
	if err != nil {
		return nil, err
	}
	return docs, nil
}

// PutDocument implements terse.Store: one statement that writes the document and the change, or neither.
func (s *Store) PutDocument(ctx context.Context, doc terse.Document) error {
	if err := checkDocument(&doc); err != nil {
		return err
	}
	sql := `with w as (update terse.documents set version = $4::bigint, data = $5
			where workspace_id = $1 and kind = $2 and id = $3 and version = $4::bigint - 1 returning 1)`
	missed := error(terse.ErrVersion)
	if doc.Version == 1 {
		missed = terse.ErrExists
		sql = `with w as (insert into terse.documents (workspace_id, kind, id, version, data) values ($1, $2, $3, $4::bigint, $5)
			on conflict do nothing returning 1)`
	}
	return s.writeDocument(ctx, "put document", missed, sql+`
		insert into terse.changes (seq, kind, workspace_id, version, doc_kind, doc_id) select terse.seq(0), 4, $1::int, $4::bigint, $2::text, $3::text from w`,
		int32(doc.Workspace), string(doc.Kind), doc.ID, int64(doc.Version), string(doc.Data))
}

// DeleteDocument implements terse.Store.
func (s *Store) DeleteDocument(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, id string, ifVersion uint64) error {
	err := s.writeDocument(ctx, "delete document", terse.ErrNotFound, `
		with w as (delete from terse.documents where workspace_id = $1 and kind = $2 and id = $3 and ($4::bigint = 0 or version = $4::bigint) returning version)
		insert into terse.changes (seq, kind, workspace_id, version, doc_kind, doc_id) select terse.seq(0), 4, $1::int, version, $2::text, $3::text from w`,
		int32(w), string(kind), id, int64(ifVersion))
	if !errors.Is(err, terse.ErrNotFound) {
		return err
	}
	// Which of the two it was: a document that came since is one of another version.
	if _, err := s.GetDocument(ctx, w, kind, id); err != nil {
		return err
	}
	return terse.ErrVersion
}

// writeDocument runs one writing statement, whose count of rows says whether it was applied; missed is
// the error if it was not.
func (s *Store) writeDocument(ctx context.Context, op string, missed error, sql string, args ...any) error {
	ctx, cancel, err := s.enter(ctx, op)
	if err != nil {
		return err
	}
	defer cancel()
	var applied int64
	if err := s.write(ctx, op, func(ctx context.Context, t *txn) error {
		t.sent = true // it commits by itself
		tag, err := t.conn.Exec(ctx, sql, args...)
		applied = tag.RowsAffected()
		return err
	}); err != nil {
		return err
	}
	if applied == 0 {
		return missed
	}
	return nil
}

// lockDocuments locks the stored versions of documents and comes to hold them; a document that is not stored is
// missing. Nil if there is nothing to put.
func lockDocuments(b *pgx.Batch, docs []*terse.Document) map[docKey]uint64 {
	if len(docs) == 0 {
		return nil
	}
	old := map[docKey]uint64{}
	workspaces, kinds, ids := make([]int32, len(docs)), make([]string, len(docs)), make([]string, len(docs))
	for i, d := range docs {
		workspaces[i], kinds[i], ids[i] = int32(d.Workspace), string(d.Kind), d.ID
	}
	b.Queue(`select d.workspace_id, d.kind, d.id, d.version from terse.documents d
		join unnest($1::int[], $2::text[], $3::text[]) as k (workspace_id, kind, id) using (workspace_id, kind, id)
		order by d.workspace_id, d.kind, d.id for update of d`, workspaces, kinds, ids).Query(func(r pgx.Rows) error {
		for r.Next() {
			var w int32
			var kind, id string
			var version int64
			if err := r.Scan(&w, &kind, &id, &version); err != nil {
				return err
			}
			old[docKey{terse.WorkspaceID(w), terse.Kind(kind), id}] = uint64(version)
		}
		return r.Err()
	})
	return old
}

// checkPuts says why the first document that may not be put over the stored versions may not, or nil. The order is
// the caller's: one may exist and another have changed.
func checkPuts(docs []terse.Document, old map[docKey]uint64) error {
	for i := range docs {
		d := &docs[i]
		version, ok := old[keyOf(d)]
		switch {
		case d.Version == 1 && ok:
			return terse.ErrExists
		case d.Version != 1 && (!ok || version != d.Version-1):
			return terse.ErrVersion
		}
	}
	return nil
}

// queueDocument puts a document whose stored version is locked and right, or which is new.
func queueDocument(b *pgx.Batch, d *terse.Document, seq int64) {
	if d.Version == 1 {
		b.Queue("insert into terse.documents (workspace_id, kind, id, version, data) values ($1, $2, $3, 1, $4)",
			int32(d.Workspace), string(d.Kind), d.ID, string(d.Data))
	} else {
		b.Queue("update terse.documents set version = $4::bigint, data = $5 where workspace_id = $1 and kind = $2 and id = $3",
			int32(d.Workspace), string(d.Kind), d.ID, int64(d.Version), string(d.Data))
	}
	b.Queue("insert into terse.changes (seq, kind, workspace_id, version, doc_kind, doc_id) values ($1, 4, $2, $3, $4, $5)",
		seq, int32(d.Workspace), int64(d.Version), string(d.Kind), d.ID)
}
