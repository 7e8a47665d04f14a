package pebblestore

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/terselink/terse"
)

const (
	maxPage = 10_000
	// dumpBytes ends a part of a dump early: documents may be large.
	dumpBytes = 8 << 20
	// dumpLook bounds the keys that one part looks at, most of which may be codes of links that live.
	dumpLook = 100_000
)

// dumpFamilies are the key families of a dump, ascending.
var dumpFamilies = []byte{famAlias, famDocument, famCounter, famReservation}

// Dump implements terse.Portable. The order is that of the keys, the cursor is the last key looked at.
func (s *Store) Dump(ctx context.Context, after string, limit int) (_ terse.Part, err error) {
	if err := s.enter(ctx); err != nil {
		return terse.Part{}, err
	}
	defer s.leave(&err)
	if limit < 1 || limit > maxPage {
		return terse.Part{}, terse.Invalid("limit", "must be from 1 to 10,000")
	}
	last, err := hex.DecodeString(after)
	if err != nil || len(last) > 0 && !slices.Contains(dumpFamilies, last[0]) {
		return terse.Part{}, terse.Invalid("after", "not a cursor of this store")
	}
	it, err := s.db.NewIter(nil)
	if err != nil {
		return terse.Part{}, errRead("dump", err)
	}
	defer closeIter(it, &err)
	d := dumper{r: s.reader()}
	defer s.readers.Put(d.r)
	for looked, n := 0, 0; n < limit && d.bytes < dumpBytes && looked < dumpLook; looked++ {
		if !nextDumped(it, last) {
			if err := it.Error(); err != nil {
				return terse.Part{}, errRead("dump", err)
			}
			return d.part, nil
		}
		if err := ctx.Err(); err != nil {
			return terse.Part{}, errContext(err)
		}
		added, err := d.add(it.Key(), it.Value())
		if err != nil {
			return terse.Part{}, err
		}
		if added {
			n++
		}
		last = append(last[:0], it.Key()...)
	}
	d.part.Next = hex.EncodeToString(last)
	return d.part, nil
}

// nextDumped moves to the first key of a dump after last; false if there is none.
func nextDumped(it *pebble.Iterator, last []byte) bool {
	for _, family := range dumpFamilies {
		if len(last) > 0 && last[0] > family {
			continue
		}
		var ok bool
		switch {
		case len(last) == 0 || last[0] != family:
			ok = it.SeekGE([]byte{family})
		case it.Valid() && bytes.Equal(it.Key(), last):
			ok = it.Next()
		default:
			ok = it.SeekGE(append(bytes.Clone(last), 0))
		}
		if ok && it.Key()[0] == family {
			return true
		}
	}
	return false
}

// dumper collects one part.
type dumper struct {
	r     *reader
	row   row
	part  terse.Part
	bytes int
}

// add adds what a key says, if it is a part of a dump.
func (d *dumper) add(key, value []byte) (bool, error) {
	switch key[0] {
	case famAlias:
		if len(value) != 8 || len(key) < 5 {
			return false, errDamaged("alias", 0, "length")
		}
		n := terse.LinkNumber(binary.BigEndian.Uint64(value))
		if n.Space() == terse.AliasSpace {
			return false, nil // goes with its link
		}
		if live, err := d.r.get(n, &d.row); err != nil || live {
			return false, err
		}
		d.part.Retired = append(d.part.Retired, terse.RetiredCode{Number: n, Code: string(key[5:])})
	case famDocument:
		if len(key) < 6 || len(key) < 6+int(key[5]) {
			return false, errDamaged("document", 0, "key")
		}
		w := terse.WorkspaceID(binary.BigEndian.Uint32(key[1:]))
		doc, err := decodeDocument(w, terse.Kind(key[6:6+key[5]]), string(key[6+int(key[5]):]), value)
		if err != nil {
			return false, err
		}
		d.bytes += len(value)
		d.part.Documents = append(d.part.Documents, doc)
	case famCounter:
		if len(key) != 6 || len(value) != 8 {
			return false, errDamaged("counter", 0, "length")
		}
		d.part.Counters = append(d.part.Counters, terse.Counter{
			Domain: terse.DomainID(binary.BigEndian.Uint32(key[1:])), Space: terse.SpaceID(key[5]), Next: binary.BigEndian.Uint64(value),
		})
	default:
		if len(key) != 9 {
			return false, errDamaged("reservation", 0, "length")
		}
		d.part.Reserved = append(d.part.Reserved, terse.LinkNumber(binary.BigEndian.Uint64(key[1:])))
	}
	return true, nil
}

var errFull = errors.New("the page is full")

// DumpLinks implements terse.Portable: it walks the list of the workspace forwards. The cursor is the entry and the number of
// the last link.
func (s *Store) DumpLinks(ctx context.Context, w terse.WorkspaceID, after string, limit int) (_ terse.LinkPage, err error) {
	if err := s.enter(ctx); err != nil {
		return terse.LinkPage{}, err
	}
	defer s.leave(&err)
	if limit < 1 || limit > maxPage {
		return terse.LinkPage{}, terse.Invalid("limit", "must be from 1 to 10,000")
	}
	print := queryPrint(w, &terse.ListQuery{})
	last, err := parseCursor(after, print)
	if err != nil {
		return terse.LinkPage{}, err
	}
	if last == nil {
		last = &position{}
	}
	prefix := appendListPrefix(nil, w)
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: binary.BigEndian.AppendUint64(slices.Clone(prefix), last.major), UpperBound: upperBound(prefix)})
	if err != nil {
		return terse.LinkPage{}, errRead("list", err)
	}
	defer closeIter(it, &err)
	r := s.reader()
	defer s.readers.Put(r)
	page := terse.LinkPage{Links: make([]terse.Link, 0, limit)}
	place := *last
	size := 0
	var runs []terse.Run
	for ok := it.First(); ok; ok = it.Next() {
		if err := ctx.Err(); err != nil {
			return terse.LinkPage{}, errContext(err)
		}
		seq := binary.BigEndian.Uint64(it.Key()[len(prefix):])
		e, err := decodeEntry(seq, it.Value(), runs[:0])
		if err != nil {
			return terse.LinkPage{}, err
		}
		runs = e.runs
		rest := e.runs
		if seq == last.major {
			rest = runsAfter(e.runs, last.number)
		}
		err = r.scan(rest, func(row *row) error {
			if row.workspace != w {
				return nil
			}
			if len(page.Links) == limit || size >= dumpBytes {
				return errFull
			}
			l, err := row.link("")
			page.Links = append(page.Links, l)
			size += len(row.destination) + len(row.values) + len(row.settings)
			place = position{seq, row.number}
			return err
		})
		if errors.Is(err, errFull) {
			page.Next = place.text(print)
			return page, nil
		}
		if err != nil {
			return terse.LinkPage{}, err
		}
	}
	return page, nil
}

// runsAfter returns what is left of ascending runs after a number.
func runsAfter(runs []terse.Run, n terse.LinkNumber) []terse.Run {
	var rest []terse.Run
	for _, r := range runs {
		if end := r.First + terse.LinkNumber(r.Count); end > n+1 {
			first := max(r.First, n+1)
			rest = append(rest, terse.Run{First: first, Count: uint64(end - first)})
		}
	}
	return rest
}

// Load implements terse.Portable.
func (s *Store) Load(ctx context.Context, part *terse.Part) (err error) {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave(&err)
	o := s.newOp()
	var writes []loaded
	for i := range part.Documents {
		d := &part.Documents[i]
		if err := checkDocument(d); err != nil {
			s.free(o)
			return err
		}
		writes = append(writes, loaded{append(appendDocumentPrefix(nil, d.Workspace, d.Kind), d.ID...), append(binary.AppendUvarint(nil, d.Version), d.Data...)})
	}
	for _, n := range part.Reserved {
		writes = append(writes, loaded{key: appendNumberKey(nil, famReservation, n)})
	}
	retired := slices.Clone(part.Retired) // the committer may outlive the call
	for i := range retired {
		r := &retired[i]
		r.Code = string([]byte(r.Code))
		writes = append(writes, loaded{appendAliasKey(nil, r.Number.Domain(), r.Code), binary.BigEndian.AppendUint64(nil, uint64(r.Number))})
	}
	o.check = func(s *Store, o *op) error {
		r := s.reader()
		defer s.readers.Put(r)
		var row row
		for _, c := range retired {
			if live, err := r.get(c.Number, &row); err != nil || live {
				return errors.Join(err, existsIf(live))
			}
		}
		for _, w := range writes {
			old, there, err := s.get(w.key, nil)
			switch {
			case err != nil:
				return err
			case there && !bytes.Equal(old, w.value):
				return terse.ErrExists
			case !there:
				if err := o.batch.Set(w.key, w.value, nil); err != nil {
					return errBatch(err)
				}
			}
		}
		return nil
	}
	return s.submit(ctx, o)
}

// loaded is a key that Load writes.
type loaded struct{ key, value []byte }

func existsIf(live bool) error {
	if live {
		return terse.ErrExists
	}
	return nil
}
