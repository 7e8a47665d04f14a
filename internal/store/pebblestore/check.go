package pebblestore

import (
	"cmp"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/terselink/terse"
)

// checkInsert runs on the committer, so nothing changes between it and the write.
func (s *Store) checkInsert(o *op) error {
	in := &o.insert
	if !in.precise {
		free, err := s.spansFree(in.spans)
		if err != nil {
			return err
		}
		if !free {
			return &againError{}
		}
	} else if err := s.checkNumbers(in); err != nil {
		return err
	}
	if err := s.checkAliases(o); err != nil {
		return err
	}
	if in.twins {
		in.resolveTwins()
	}
	if len(in.conflicts) > 0 {
		slices.Sort(in.conflicts)
		return &terse.AliasConflictError{Rows: slices.Compact(slices.Clone(in.conflicts))}
	}
	if err := s.checkDocuments(in); err != nil {
		return err
	}
	s.fresh.add(in)
	return nil
}

// resolveTwins notes the links that meet an earlier one of the chunk which is not in the way itself. A
// group with twins is never a block, so all of them are in rows.
func (in *insertState) resolveTwins() {
	bad := make(map[int32]bool, len(in.conflicts))
	for _, p := range in.conflicts {
		bad[int32(p)] = true
	}
	aliases := make(map[int32]string, len(in.aliases))
	for _, a := range in.aliases {
		aliases[a.position] = string(in.alias(a))
	}
	slices.SortFunc(in.rows, func(a, b rowRef) int { return cmp.Compare(a.position, b.position) })
	numbers, names := make(map[terse.LinkNumber]bool), make(map[string]bool)
	for _, r := range in.rows {
		if bad[r.position] {
			continue
		}
		alias, named := aliases[r.position]
		if numbers[r.number] || named && names[alias] {
			in.conflicts = append(in.conflicts, int(r.position))
			continue
		}
		numbers[r.number] = true
		if named {
			names[alias] = true
		}
	}
}

// spansFree reports whether no row has a number of the spans and no block is near.
func (s *Store) spansFree(spans []span) (free bool, err error) {
	var ask []span
	for _, sp := range spans {
		free, known := s.fresh.free(sp)
		if !known {
			ask = append(ask, sp)
		} else if !free {
			return false, nil
		}
	}
	if len(ask) == 0 {
		return true, nil
	}
	answers, err := s.readFree(ask)
	return !slices.Contains(answers, false), err
}

// readFree asks the database about each of the spans.
func (s *Store) readFree(spans []span) (free []bool, err error) {
	it, err := s.db.NewIter(nil)
	if err != nil {
		return nil, errRead("numbers", err)
	}
	defer closeIter(it, &err)
	for _, sp := range spans {
		block, row := nextNumber(it, famBlock, blockOf(sp.first)), nextNumber(it, famRow, sp.first)
		if err := it.Error(); err != nil { // it would look as if there were nothing more
			return nil, errRead("numbers", err)
		}
		free = append(free, block > sp.last && row > sp.last)
		if spaceOf(block) != spaceOf(sp.first) && spaceOf(row) != spaceOf(sp.first) {
			s.fresh.begin(sp)
		}
	}
	return free, nil
}

// nextNumber returns the first number from n on that has a key of the family, or one above all numbers.
func nextNumber(it *pebble.Iterator, family byte, n terse.LinkNumber) terse.LinkNumber {
	var key [9]byte
	if it.SeekGE(appendNumberKey(key[:0], family, n)) && it.Key()[0] == family {
		return terse.LinkNumber(binary.BigEndian.Uint64(it.Key()[1:]))
	}
	return 1 << 63
}

// checkNumbers notes every link whose number is in use, and asks for another
// encoding if a block of the chunk exists with other numbers.
func (s *Store) checkNumbers(in *insertState) error {
	var existing []terse.LinkNumber
	for _, r := range in.rows {
		used, err := s.has(famRow, r.number)
		if err != nil {
			return err
		}
		if !used {
			bitmap, _, err := s.bitmap(blockOf(r.number))
			if err != nil {
				return err
			}
			used = bitmap&(1<<(r.number-blockOf(r.number))) != 0
		}
		if used {
			in.conflicts = append(in.conflicts, int(r.position))
		}
	}
	for _, b := range in.blocks {
		taken, exists, err := s.bitmap(b.first)
		if err != nil {
			return err
		}
		if exists {
			existing = append(existing, b.first)
		}
		at := b.at
		for i := range terse.LinkNumber(blockSize) {
			if b.bitmap&(1<<i) == 0 {
				continue
			}
			used := taken&(1<<i) != 0
			if !used {
				if used, err = s.has(famRow, b.first+i); err != nil {
					return err
				}
			}
			if used {
				in.conflicts = append(in.conflicts, int(in.order[at]))
			}
			at++
		}
	}
	if len(in.conflicts) == 0 && len(existing) > 0 {
		return &againError{existing: existing}
	}
	return nil
}

// has reports whether the key of a number exists.
func (s *Store) has(family byte, n terse.LinkNumber) (bool, error) {
	var key [9]byte
	_, ok, err := s.get(appendNumberKey(key[:0], family, n), nil)
	return ok, err
}

// bitmap returns which numbers the block at first holds.
func (s *Store) bitmap(first terse.LinkNumber) (bitmap uint64, exists bool, err error) {
	var key [9]byte
	value, closer, err := s.db.Get(appendNumberKey(key[:0], famBlock, first))
	if errors.Is(err, pebble.ErrNotFound) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, errRead("block", err)
	}
	bitmap, err = blockBitmap(first, value)
	return bitmap, true, errors.Join(err, closer.Close())
}

// get appends the value of a key to dst.
func (s *Store) get(key, dst []byte) (value []byte, ok bool, err error) {
	v, closer, err := s.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return dst, false, nil
	}
	if err != nil {
		return dst, false, errRead("value", err)
	}
	dst = append(dst, v...)
	if err := closer.Close(); err != nil {
		return dst, false, errRead("value", err)
	}
	return dst, true, nil
}

// checkAliases notes every link whose alias is taken, or looks like a code that was or
// may have been issued, and adds the reservations.
func (s *Store) checkAliases(o *op) error {
	in := &o.insert
	var key [9]byte
	for _, a := range in.aliases {
		_, taken, err := s.get(in.alias(a), nil)
		if err != nil {
			return err
		}
		if !taken && a.reserves != 0 {
			reserved, err := s.has(famReservation, a.reserves)
			if err != nil {
				return err
			}
			if !reserved {
				next, err := s.next(a.reserves.Domain(), a.reserves.Space())
				if err != nil {
					return err
				}
				taken = a.reserves.Index() < next
				if err := o.batch.Set(appendNumberKey(key[:0], famReservation, a.reserves), nil, nil); err != nil {
					return errBatch(err)
				}
			}
		}
		if taken {
			in.conflicts = append(in.conflicts, int(a.position))
		}
	}
	return nil
}
