package links

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/cespare/xxhash/v2"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/domains"
)

// A ledger makes a bulk request repeatable: every batch writes an entry with its links, in
// the same atomic chunk, that says which bytes of the body it was and which links came
// of them. A repetition of the body cuts the same bytes, finds the entry, inserts nothing
// and answers the same. Batches run in parallel, so a crash may leave entries behind a
// gap; the repetition cuts the gap as a batch of its own.
//
// Entries are documents of terse.KindLedger, named by the ledger's id and the offset of the
// batch in the body; the entry "end" is written when the body was read to its end, and "round" is kept if other processes
// take part.

// ledgerEntry is what one batch did.
type ledgerEntry struct {
	Offset int64  `json:"offset"` // of the batch in the body
	Bytes  int64  `json:"bytes"`
	Hash   uint64 `json:"hash"` // xxhash64 of the options and the bytes
	Rows   int    `json:"rows"`
	// States holds for each row uvarint(zigzag(number - the one before) << 2 | kind), where
	// kind is that of rowState and the number of a failed row is the one before. Base64.
	States string       `json:"states"`
	At     terse.Millis `json:"at"`
	// Begun: another process was about to insert the batch, and no run has yet.
	Begun bool `json:"begun,omitzero"`

	version uint64 // of the document
}

// errMismatch: the body or the options are not those of the first request.
func errMismatch() error {
	return &terse.Error{Code: terse.CodeInvalid, Reason: "idempotency_mismatch", Field: "body",
		Message: "this key was used with another body or other parameters"}
}

// errInProgress: a request with the same ledger is running.
func errInProgress() error {
	return &terse.Error{Code: terse.CodeConflict, Reason: "idempotency_in_progress", Message: "a request with this key is running"}
}

// ledgers keeps two requests from writing one ledger at the same time.
type ledgers struct {
	mu   sync.Mutex
	open map[string]bool
}

func (l *ledgers) acquire(key string) (release func(), ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[key] {
		return nil, false
	}
	if l.open == nil {
		l.open = make(map[string]bool)
	}
	l.open[key] = true
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.open, key)
	}, true
}

// ledger reads the entries of one request in order.
type ledger struct {
	store     terse.Store
	workspace terse.WorkspaceID
	id        string
	seed      string        // the options, part of every hash
	page      []ledgerEntry // read and not yet passed
	after     string
	last      bool
	end       *ledgerEntry // nil: the body was never read to its end
	round     uint64       // of this run; 0: no other process takes part
}

const ledgerPage = 64

// endName sorts after every offset.
const endName = "end"

func openLedger(ctx context.Context, store terse.Store, w terse.WorkspaceID, o BulkOptions) (*ledger, error) {
	l := &ledger{
		store: store, workspace: w, id: o.Ledger, after: o.Ledger + "/",
		seed: fmt.Sprintf("%s|%d|%t|%d|", o.Domain, o.Campaign, o.Atomic, o.In),
	}
	if o.Class != "" {
		l.seed += o.Class + "|"
	}
	doc, err := store.GetDocument(ctx, w, terse.KindLedger, l.name(endName))
	if errors.Is(err, terse.ErrNotFound) {
		return l, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read ledger: %w", err)
	}
	l.end, err = decodeEntry(doc)
	return l, err
}

func (l *ledger) name(part string) string { return l.id + "/" + part }

func decodeEntry(doc terse.Document) (*ledgerEntry, error) {
	var e ledgerEntry
	if err := json.Unmarshal(doc.Data, &e); err != nil {
		return nil, fmt.Errorf("read ledger entry %s: %w", doc.ID, err)
	}
	e.version = doc.Version
	return &e, nil
}

// next returns the first entry at or behind offset, nil if there is none.
func (l *ledger) next(ctx context.Context, offset int64) (*ledgerEntry, error) {
	for {
		for len(l.page) > 0 && l.page[0].Offset < offset {
			l.page = l.page[1:]
		}
		if len(l.page) > 0 {
			return &l.page[0], nil
		}
		if l.last {
			return nil, nil
		}
		docs, err := l.store.ListDocuments(ctx, l.workspace, terse.KindLedger, l.after, ledgerPage)
		if err != nil {
			return nil, fmt.Errorf("read ledger: %w", err)
		}
		l.last = len(docs) < ledgerPage
		for _, doc := range docs {
			if !strings.HasPrefix(doc.ID, l.name("")) || doc.ID == l.name(endName) || doc.ID == l.name(roundName) {
				l.last = true
				break
			}
			e, err := decodeEntry(doc)
			if err != nil {
				return nil, err
			}
			l.page = append(l.page, *e)
			l.after = doc.ID
		}
	}
}

// find returns the entry of the batch at offset. Returns ErrNotFound. Unlike next it may be
// called by many goroutines at once.
func (l *ledger) find(ctx context.Context, offset int64) (*ledgerEntry, error) {
	doc, err := l.store.GetDocument(ctx, l.workspace, terse.KindLedger, l.name(entryName(offset)))
	if err != nil {
		return nil, err
	}
	return decodeEntry(doc)
}

func entryName(offset int64) string { return fmt.Sprintf("%016x", offset) }

// hash identifies the bytes of a batch under the options of the request.
func (l *ledger) hash(b []byte) uint64 {
	h := xxhash.New()
	h.WriteString(l.seed) // a hash never fails to write
	h.Write(b)
	return h.Sum64()
}

// entry returns the document that goes with the chunk of a batch.
func (l *ledger) entry(b *batch, at terse.Millis) (terse.Document, error) {
	var states []byte
	var last uint64
	for i := range b.rows {
		kind, n := b.rows[i].kind, last
		if _, _, link := b.result(i); link != nil {
			n = uint64(link.Number)
			if kind == rowShared {
				kind = rowReused
			}
		}
		states = binary.AppendUvarint(states, zigzag(int64(n-last))<<2|uint64(kind))
		last = n
	}
	doc, err := l.document(entryName(b.offset), ledgerEntry{
		Offset: b.offset, Bytes: int64(len(b.buf)), Hash: l.hash(b.buf), Rows: len(b.rows),
		States: base64.RawStdEncoding.EncodeToString(states), At: at,
	})
	if b.entry != nil { // which was begun
		doc.Version = b.entry.version + 1
	}
	return doc, err
}

func (l *ledger) document(part string, e ledgerEntry) (terse.Document, error) {
	data, err := json.Marshal(e)
	if err != nil {
		return terse.Document{}, fmt.Errorf("write ledger entry: %w", err)
	}
	return terse.Document{Workspace: l.workspace, Kind: terse.KindLedger, ID: l.name(part), Version: 1, Data: data}, nil
}

// finish notes that the body was read to its end.
func (l *ledger) finish(ctx context.Context, bytes int64, at terse.Millis) error {
	if l.end != nil {
		return nil
	}
	doc, err := l.document(endName, ledgerEntry{Bytes: bytes, At: at})
	if err != nil {
		return err
	}
	if err := l.store.PutDocument(ctx, doc); err != nil && !errors.Is(err, terse.ErrExists) {
		return fmt.Errorf("close ledger: %w", err)
	}
	return nil
}

func zigzag(v int64) uint64 { return uint64(v<<1) ^ uint64(v>>63) }

func unzigzag(v uint64) int64 { return int64(v>>1) ^ -int64(v&1) }

// replay gives the rows of a batch what its entry says, without inserting anything.
func (b *batch) replay(p *pipeline, e *ledgerEntry) error {
	states, err := base64.RawStdEncoding.DecodeString(e.States)
	if err != nil || len(b.spans) != e.Rows {
		return errMismatch()
	}
	var n NewLink
	var last uint64
	for _, span := range b.spans {
		v, size := binary.Uvarint(states)
		if size <= 0 {
			return &terse.Error{Code: terse.CodeInternal, Op: "replay bulk", Err: fmt.Errorf("ledger entry at %d is too short", e.Offset)}
		}
		states = states[size:]
		last += uint64(unzigzag(v >> 2))
		rowErr := error(errRowTooLong)
		if span[1]-span[0] <= maxRow {
			rowErr = p.parseRow(&b.values, b.buf[span[0]:span[1]], &n)
		} else {
			n = NewLink{}
		}
		kind := rowKind(v & 3)
		if kind == rowFailed {
			b.fail(p.whyFailed(&n, rowErr), n.ExternalID)
			continue
		}
		l := terse.Link{Number: terse.LinkNumber(last), ExternalID: n.ExternalID}
		d := p.s.o.Domains.ByNumber(l.Number.Domain())
		if d == nil || rowErr != nil {
			return errMismatch()
		}
		if l.Number.Space() == terse.AliasSpace {
			if err := p.s.setAlias(&l, d, n.Code); err != nil {
				return errMismatch()
			}
		} else {
			err := p.s.replayCode(p.ctx, d, &l)
			if terse.ErrorCode(err) == terse.CodeGone {
				b.fail(err, n.ExternalID)
				continue
			}
			if err != nil {
				return err
			}
		}
		if kind == rowCreated {
			b.links, b.doms = append(b.links, l), append(b.doms, d)
			b.rows = append(b.rows, rowState{rowCreated, int32(len(b.links) - 1)})
		} else {
			b.found, b.fdoms = append(b.found, l), append(b.fdoms, d)
			b.rows = append(b.rows, rowState{rowReused, int32(len(b.found) - 1)})
		}
	}
	return nil
}

// whyFailed finds the reason of a failure again. What no longer fails was taken then.
func (p *pipeline) whyFailed(n *NewLink, err error) error {
	if err != nil {
		return err
	}
	d := p.def
	if n.Domain != "" && n.Domain != d.Host {
		if d, err = p.s.domain(p.ctx, p.a, n.Domain); err != nil {
			return err
		}
	}
	var l terse.Link
	if err := p.build(&l, d, n, p.s.o.Clock()); err != nil {
		return err
	}
	if n.Code != "" {
		return errAliasTaken(n.Code)
	}
	return &terse.Error{Code: terse.CodeInvalid, Reason: "failed_before", Message: "the row failed in the first request"}
}

// result returns what a row leads to: its kind, and the domain and link of a row that
// has one.
func (b *batch) result(i int) (rowKind, *domains.Domain, *terse.Link) {
	r := b.rows[i]
	kind := r.kind
	if kind == rowShared {
		r = b.rows[r.at]
	}
	switch r.kind {
	case rowCreated:
		return kind, b.doms[r.at], &b.links[r.at]
	case rowReused:
		return kind, b.fdoms[r.at], &b.found[r.at]
	}
	return kind, nil, nil
}

// LedgerKeep is how long ledgers are kept after their last entry.
const LedgerKeep = 7 * 24 * 60 * 60 * 1000 // milliseconds

// PruneLedgers deletes the entries of a workspace that are older than LedgerKeep. It may
// be stopped and repeated.
func (s *Service) PruneLedgers(ctx context.Context, w terse.WorkspaceID) error {
	limit := s.o.Clock() - LedgerKeep
	for after := ""; ; {
		docs, err := s.o.Store.ListDocuments(ctx, w, terse.KindLedger, after, ledgerPage)
		if err != nil {
			return fmt.Errorf("list ledgers: %w", err)
		}
		if len(docs) == 0 {
			return nil
		}
		for _, doc := range docs {
			after = doc.ID
			e, err := decodeEntry(doc)
			if err != nil {
				return err
			}
			if e.At >= limit {
				continue
			}
			err = s.o.Store.DeleteDocument(ctx, w, terse.KindLedger, doc.ID, doc.Version)
			if err != nil && !errors.Is(err, terse.ErrNotFound) {
				return fmt.Errorf("delete ledger entry: %w", err)
			}
		}
	}
}
