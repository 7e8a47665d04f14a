package pebblestore

import (
	"context"
	"encoding/binary"
	"slices"

	"github.com/cespare/xxhash/v2"
	"github.com/cockroachdb/pebble/v2"

	"github.com/terselink/terse"
)

// ListLinks implements terse.Store. Without a tag and an external id the order is that of the
// writes, within one write that of the numbers; with one of them it is that of CreatedAt, then of
// the numbers. A call looks at no more than 20,000 links.
func (s *Store) ListLinks(ctx context.Context, w terse.WorkspaceID, q terse.ListQuery) (_ terse.LinkPage, err error) {
	if err := s.enter(ctx); err != nil {
		return terse.LinkPage{}, err
	}
	defer s.leave(&err)
	if q.Limit < 1 || q.Limit > 10_000 {
		return terse.LinkPage{}, terse.Invalid("limit", "must be from 1 to 10,000")
	}
	start, err := parseCursor(q.Cursor, queryPrint(w, &q))
	if err != nil {
		return terse.LinkPage{}, err
	}
	l := lister{s: s, ctx: ctx, workspace: w, q: &q, r: s.reader(), left: scanLimit}
	defer s.readers.Put(l.r)
	if q.ExternalID != "" || q.Tag != "" {
		if err := s.catchUp(ctx); err != nil {
			return terse.LinkPage{}, err
		}
		err = l.hints(start)
	} else {
		err = l.entries(start)
	}
	if err != nil {
		return terse.LinkPage{}, err
	}
	page := terse.LinkPage{Links: l.links}
	if l.next != nil {
		page.Next = l.next.text(queryPrint(w, &q))
	}
	return page, nil
}

// lister collects one page.
type lister struct {
	s         *Store
	ctx       context.Context
	workspace terse.WorkspaceID
	q         *terse.ListQuery
	r         *reader
	left      int // links that may still be looked at
	links     []terse.Link
	next      *position // where the next page starts; nil: this one reached the end
}

// full reports whether the page ends here.
func (l *lister) full() bool { return len(l.links) == l.q.Limit || l.left <= 0 }

// entries walks the list of the workspace or of the campaign backwards.
func (l *lister) entries(start *position) (err error) {
	var prefix []byte
	if l.q.Campaign != 0 {
		prefix = appendCampaignPrefix(nil, l.workspace, l.q.Campaign)
	} else {
		prefix = appendListPrefix(nil, l.workspace)
	}
	it, err := l.s.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: upperBound(prefix)})
	if err != nil {
		return errRead("list", err)
	}
	defer closeIter(it, &err)
	var ok bool
	if start == nil {
		ok = it.Last()
	} else {
		// The entry that the page before ended in is the first of this one.
		ok = it.SeekLT(binary.BigEndian.AppendUint64(slices.Clone(prefix), start.major+1))
	}
	var runs []terse.Run
	for ; ok; ok = it.Prev() {
		if err := l.ctx.Err(); err != nil {
			return errContext(err)
		}
		seq := binary.BigEndian.Uint64(it.Key()[len(prefix):])
		e, err := decodeEntry(seq, it.Value(), runs[:0])
		if err != nil {
			return err
		}
		runs = e.runs
		if l.full() {
			l.next = &position{seq, terse.LinkNumber(1) << 63}
			return nil
		}
		l.left-- // an entry that is skipped costs, too
		if l.q.CreatedFrom != 0 && e.last < l.q.CreatedFrom || l.q.CreatedTo != 0 && e.from >= l.q.CreatedTo {
			continue
		}
		below := terse.LinkNumber(1) << 63
		if start != nil && seq == start.major {
			below = start.number
		}
		if err := l.entry(seq, e, below); err != nil || l.next != nil {
			return err
		}
	}
	return nil
}

// entry walks the links of one entry that are below a number, backwards.
func (l *lister) entry(seq uint64, e entry, below terse.LinkNumber) error {
	for _, run := range slices.Backward(e.runs) {
		if l.q.Domain != 0 && run.First.Domain() != l.q.Domain {
			continue
		}
		for i := run.Count; i > 0; i-- {
			n := run.First + terse.LinkNumber(i-1)
			if n >= below {
				continue
			}
			if l.full() {
				l.next = &position{seq, n + 1}
				return nil
			}
			if err := l.look(n, func(r *row) bool { return l.q.Campaign == 0 || r.moved == e.moved }); err != nil {
				return err
			}
		}
	}
	return nil
}

// hints walks the hints of the external id or the tag backwards.
func (l *lister) hints(start *position) (err error) {
	kind, text := byte(hintTag), l.q.Tag
	if l.q.ExternalID != "" {
		kind, text = hintExternalID, l.q.ExternalID
	}
	prefix := appendHintPrefix(nil, kind, l.workspace, xxhash.Sum64String(text))
	it, err := l.s.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: upperBound(prefix)})
	if err != nil {
		return errRead("hints", err)
	}
	defer closeIter(it, &err)
	var ok bool
	if start == nil {
		ok = it.Last()
	} else {
		key := binary.BigEndian.AppendUint64(slices.Clone(prefix), start.major)
		ok = it.SeekLT(binary.BigEndian.AppendUint64(key, uint64(start.number)))
	}
	for ; ok; ok = it.Prev() {
		if err := l.ctx.Err(); err != nil {
			return errContext(err)
		}
		created := binary.BigEndian.Uint64(it.Key()[len(prefix):])
		n := terse.LinkNumber(binary.BigEndian.Uint64(it.Key()[len(prefix)+8:]))
		if l.full() {
			l.next = &position{created, n + 1}
			return nil
		}
		if err := l.look(n, func(*row) bool { return true }); err != nil {
			return err
		}
	}
	return nil
}

// look reads one link and adds it to the page if it is asked for and belongs here.
func (l *lister) look(n terse.LinkNumber, belongs func(*row) bool) error {
	l.left--
	var r row
	found, err := l.r.get(n, &r)
	if err != nil {
		return err
	}
	q := l.q
	if !found || r.workspace != l.workspace || !belongs(&r) ||
		q.Domain != 0 && n.Domain() != q.Domain ||
		q.Campaign != 0 && r.campaign != q.Campaign ||
		q.ExternalID != "" && string(r.externalID) != q.ExternalID ||
		q.CreatedFrom != 0 && r.created < q.CreatedFrom ||
		q.CreatedTo != 0 && r.created >= q.CreatedTo ||
		q.Tag != "" && r.settings == nil {
		return nil
	}
	link, err := r.link("")
	if err != nil {
		return err
	}
	if q.Tag != "" && !slices.Contains(link.Settings.Tags, q.Tag) {
		return nil
	}
	l.links = append(l.links, link)
	return nil
}
