package pebblestore

import (
	"context"
	"encoding/binary"
	"errors"

	"github.com/terselink/terse"
)

// GetLinks implements terse.Store. A key that names a generated code which is not the
// link's own is an error of code internal, never a link: the domain's permutation key is wrong.
func (s *Store) GetLinks(ctx context.Context, keys []terse.LinkKey, dst []terse.Link) (err error) {
	if err := s.enterRead(ctx); err != nil {
		return err
	}
	defer s.leave(&err)
	if len(keys) != len(dst) {
		return terse.Invalid("dst", "must be as long as keys")
	}
	r := s.reader()
	defer s.readers.Put(r)
	var row row
	for i, k := range keys {
		dst[i] = terse.Link{}
		found, err := r.get(k.Number, &row)
		if err != nil {
			return err
		}
		if !found {
			continue
		}
		if dst[i], err = row.link(k.Code); err != nil {
			return err
		}
	}
	return nil
}

// GetAlias implements terse.Store.
func (s *Store) GetAlias(ctx context.Context, d terse.DomainID, alias string) (_ terse.Link, err error) {
	if err := s.enterRead(ctx); err != nil {
		return terse.Link{}, err
	}
	defer s.leave(&err)
	var buf [8]byte
	value, ok, err := s.get(appendAliasKey(nil, d, alias), buf[:0])
	if err != nil {
		return terse.Link{}, err
	}
	if !ok {
		return terse.Link{}, terse.ErrNotFound
	}
	if len(value) != 8 {
		return terse.Link{}, errDamaged("alias", terse.NewLinkNumber(d, terse.AliasSpace, 0), "length")
	}
	r := s.reader()
	defer s.readers.Put(r)
	var row row
	n := terse.LinkNumber(binary.BigEndian.Uint64(value))
	found, err := r.get(n, &row)
	if err != nil {
		return terse.Link{}, err
	}
	if !found {
		return terse.Link{}, terse.ErrNotFound // deleted, between the two reads or a generated code before
	}
	if string(row.code) != alias {
		return terse.Link{}, errDamaged("alias", n, "the link has another alias")
	}
	return row.link(alias)
}

// errChanged says that a link has changed between the caller's read and the commit.
var errChanged = errors.New("the link has changed")

// current reads a link for a change. The row is valid until the reader is used again.
func (s *Store) current(r *reader, key terse.LinkKey, ifVersion uint64, row *row) error {
	found, err := r.get(key.Number, row)
	switch {
	case err != nil:
		return err
	case !found:
		return terse.ErrNotFound
	case ifVersion != 0 && row.version != ifVersion:
		return terse.ErrVersion
	case key.Code != "" && row.hasTag && codeTag(key.Code) != row.tag:
		return row.errCode()
	}
	return nil
}

// requireVersion returns a check that a link still has the version that the caller read. A version
// stands for everything in a link, so the rest need not be compared.
func requireVersion(n terse.LinkNumber, version uint64) func(*Store, *op) error {
	return func(s *Store, _ *op) error {
		r := s.reader()
		defer s.readers.Put(r)
		var row row
		found, err := r.get(n, &row)
		switch {
		case err != nil:
			return err
		case !found:
			return terse.ErrNotFound
		case row.version != version:
			return errChanged
		}
		return nil
	}
}

// UpdateLink implements terse.Store. CreatedAt does not change either: lists are searched by it.
func (s *Store) UpdateLink(ctx context.Context, link *terse.Link, ifVersion uint64) (err error) {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave(&err)
	if link.Version <= ifVersion {
		return terse.Invalid("version", "must be larger than the stored one")
	}
	r := s.reader()
	defer s.readers.Put(r)
	var old row
	if err := s.current(r, terse.LinkKey{Number: link.Number, Code: link.Code}, 0, &old); err != nil {
		return err
	}
	switch {
	case old.workspace != link.Workspace:
		return terse.ErrNotFound
	case old.version != ifVersion:
		return terse.ErrVersion
	case old.created != link.CreatedAt:
		return terse.Invalid("created_at", "does not change")
	}
	now := *link
	now.Code = string(old.code) // of a link that is Named; a permuted code is not stored
	now.ByCode = len(old.code) > 0 && link.Number.Space() != terse.AliasSpace

	o := s.newOp()
	if err := s.encodeUpdate(o, &old, &now); err != nil {
		s.free(o)
		return err
	}
	o.check = requireVersion(link.Number, ifVersion)
	if err := s.submit(ctx, o); !errors.Is(err, errChanged) {
		return err
	}
	return terse.ErrVersion
}

func (s *Store) encodeUpdate(o *op, old *row, link *terse.Link) error {
	x := rowExtra{hasTag: old.hasTag, tag: old.tag, moved: old.moved}
	var err error
	if x.settings, err = o.insert.enc.settings.encode(link.Settings); err != nil {
		return err
	}
	if link.Campaign != old.campaign {
		x.moved = link.Version
		if err := o.logLeft(old); err != nil {
			return err
		}
	}
	was, err := rowHints(old)
	if err != nil {
		return err
	}
	if err := replaceHints(o.batch, was, linkHints(link)); err != nil {
		return err
	}
	if err := o.batch.Set(appendNumberKey(nil, famRow, link.Number), appendRow(nil, link, x), nil); err != nil {
		return errBatch(err)
	}
	run := []terse.Run{{First: link.Number, Count: 1}}
	o.logChange(&terse.Change{Kind: terse.ChangeUpdated, Workspace: link.Workspace, At: s.opts.Clock(), Runs: run, Version: link.Version})
	if link.Campaign != old.campaign && link.Campaign != 0 {
		o.logCampaign(link.Workspace, link.Campaign, link.Version, entry{from: link.CreatedAt, last: link.CreatedAt, runs: run})
	}
	return nil
}

// DeleteLink implements terse.Store.
func (s *Store) DeleteLink(ctx context.Context, key terse.LinkKey, ifVersion uint64) (err error) {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave(&err)
	r := s.reader()
	defer s.readers.Put(r)
	var old row
	for {
		if err := s.current(r, key, ifVersion, &old); err != nil {
			return err
		}
		o := s.newOp()
		if err := s.encodeDelete(o, &old); err != nil {
			s.free(o)
			return err
		}
		o.check = requireVersion(key.Number, old.version)
		err := s.submit(ctx, o)
		if !errors.Is(err, errChanged) {
			return err
		}
		if ifVersion != 0 {
			return terse.ErrVersion
		}
	}
}

func (s *Store) encodeDelete(o *op, old *row) error {
	h, err := rowHints(old)
	if err != nil {
		return err
	}
	err = h.each(func(key []byte) error { return o.batch.Delete(key, nil) })
	// The key of a generated code stays, leading to the tombstone: the code is never used again.
	if err == nil && old.number.Space() == terse.AliasSpace {
		err = o.batch.Delete(appendAliasKey(nil, old.number.Domain(), string(old.code)), nil)
	}
	if err == nil {
		err = o.batch.Set(appendNumberKey(nil, famRow, old.number), appendTombstone(nil, old.number), nil)
	}
	if err != nil {
		return errBatch(err)
	}
	if err := o.logLeft(old); err != nil {
		return err
	}
	o.logChange(&terse.Change{
		Kind: terse.ChangeDeleted, Workspace: old.workspace, At: s.opts.Clock(),
		Runs: []terse.Run{{First: old.number, Count: 1}}, Version: old.version,
	})
	return nil
}
