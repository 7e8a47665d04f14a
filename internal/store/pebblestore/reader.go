package pebblestore

import (
	"encoding/binary"
	"errors"

	"github.com/cockroachdb/pebble/v2"

	"github.com/terselink/terse"
)

// reader reads links. It keeps the block it decoded last, which nothing but a purge changes. Not for
// concurrent use: take one with Store.reader and put it back in Store.readers.
type reader struct {
	s     *Store
	key   [9]byte
	value []byte
	block block
	seen  uint64 // Store.purges when the block was read: a purge may have removed it since
}

func (s *Store) reader() *reader {
	r := s.readers.Get().(*reader)
	r.s = s
	return r
}

// get reads one link into row, which is valid until the next call. found is false if the
// link does not exist. The row comes first: it overrides a block.
func (r *reader) get(n terse.LinkNumber, row *row) (found bool, err error) {
	var exists bool
	r.value, exists, err = r.s.get(appendNumberKey(r.key[:0], famRow, n), r.value[:0])
	if err != nil {
		return false, err
	}
	if exists {
		return row.decode(n, r.value)
	}
	return r.fromBlock(n, row)
}

// fromBlock reads a link that has no row.
func (r *reader) fromBlock(n terse.LinkNumber, row *row) (found bool, err error) {
	first := blockOf(n)
	if purges := r.s.purges.Load(); !r.block.loaded || r.block.first != first || r.seen != purges {
		r.seen, r.block.loaded = purges, false // what was read before the purge is not to be believed again
		value, closer, err := r.s.db.Get(appendNumberKey(r.key[:0], famBlock, first))
		if errors.Is(err, pebble.ErrNotFound) {
			return false, nil
		}
		if err != nil {
			return false, errRead("block", err)
		}
		err = r.block.load(first, value)
		if cerr := closer.Close(); cerr != nil && err == nil {
			err = errRead("block", cerr)
		}
		if err != nil {
			return false, err
		}
	}
	if !r.block.has(n) {
		return false, nil
	}
	r.block.row(n, row)
	return true, nil
}

// scan calls f with every link of the runs, in ascending order. The row is valid during the
// call. One seek finds the rows of a whole run, instead of a look-up for each link.
func (r *reader) scan(runs []terse.Run, f func(*row) error) (err error) {
	it, err := r.s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{famRow}, UpperBound: []byte{famRow + 1}})
	if err != nil {
		return errRead("rows", err)
	}
	defer closeIter(it, &err)
	var row row
	for _, run := range runs {
		end := run.First + terse.LinkNumber(run.Count)
		valid := it.SeekGE(appendNumberKey(r.key[:0], famRow, run.First))
		for n := run.First; n < end; n++ {
			var found bool
			if valid && terse.LinkNumber(binary.BigEndian.Uint64(it.Key()[1:])) == n {
				if found, err = row.decode(n, it.Value()); err != nil {
					return err
				}
			} else if found, err = r.fromBlock(n, &row); err != nil {
				return err
			}
			if found {
				if err := f(&row); err != nil {
					return err
				}
			}
			if valid && terse.LinkNumber(binary.BigEndian.Uint64(it.Key()[1:])) == n {
				valid = it.Next()
			}
		}
	}
	return nil
}
