package jobs

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// Repeats are found on disk, so that memory does not grow with the file: each value is a
// hash of 64 bits and a row, 16 bytes in one of 64 files chosen by the hash; at the end
// one file after the other is sorted in memory, 1/64 of the values at a time. 100 million
// rows are 1.6 GB of disk and 25 MB of memory. Two different values are taken for the same with
// a probability of n²/2^65: 1 in 3,700 that it happens once among 100 million.
const repeatFiles = 64

const repeatRecord = 16 // bytes

// pairs keeps pairs of numbers in repeatFiles files, and sorts one file at a time.
type pairs struct {
	dir   string
	files [repeatFiles]*os.File
	w     [repeatFiles]*bufio.Writer
}

type pair struct{ a, b uint64 }

func newPairs(dir string) (*pairs, error) {
	tmp, err := os.MkdirTemp(dir, "repeats-*.tmp")
	if err != nil {
		return nil, fmt.Errorf("find repeats: %w", err)
	}
	p := &pairs{dir: tmp}
	for i := range p.files {
		if p.files[i], err = os.Create(filepath.Join(tmp, strconv.Itoa(i))); err != nil {
			p.close()
			return nil, fmt.Errorf("find repeats: %w", err)
		}
		p.w[i] = bufio.NewWriterSize(p.files[i], 16<<10)
	}
	return p, nil
}

func (p *pairs) add(file int, v pair) error {
	var b [repeatRecord]byte
	binary.BigEndian.PutUint64(b[:8], v.a)
	binary.BigEndian.PutUint64(b[8:], v.b)
	_, err := p.w[file].Write(b[:])
	return err
}

// sorted returns the pairs of one file in order.
func (p *pairs) sorted(file int) ([]pair, error) {
	if err := p.w[file].Flush(); err != nil {
		return nil, err
	}
	if _, err := p.files[file].Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	b, err := io.ReadAll(p.files[file])
	if err != nil {
		return nil, err
	}
	list := make([]pair, 0, len(b)/repeatRecord)
	for ; len(b) >= repeatRecord; b = b[repeatRecord:] {
		list = append(list, pair{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])})
	}
	slices.SortFunc(list, func(x, y pair) int { return cmp.Or(cmp.Compare(x.a, y.a), cmp.Compare(x.b, y.b)) })
	return list, nil
}

// close removes the files. A nil pairs is fine.
func (p *pairs) close() {
	if p == nil {
		return
	}
	var errs []error
	for _, f := range p.files {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	_ = errors.Join(append(errs, os.RemoveAll(p.dir))...) // what stays is removed at the next start
}

// repeats finds values that come more than once.
type repeats struct {
	seed  maphash.Seed
	pairs *pairs // of hash and row
}

func newRepeats(dir string) (*repeats, error) {
	p, err := newPairs(dir)
	if err != nil {
		return nil, err
	}
	return &repeats{seed: maphash.MakeSeed(), pairs: p}, nil
}

// close removes the files. A nil repeats is fine.
func (r *repeats) close() {
	if r != nil {
		r.pairs.close()
	}
}

// add takes the value of a row.
func (r *repeats) add(value []byte, row uint64) error {
	h := maphash.Bytes(r.seed, value)
	return r.pairs.add(int(h%repeatFiles), pair{h, row})
}

// each calls f for every row whose value an earlier row had, with the first row of it. The
// order is that of the hashes.
func (r *repeats) each(f func(row, first uint64) error) error {
	for file := range repeatFiles {
		list, err := r.pairs.sorted(file)
		if err != nil {
			return err
		}
		first := 0
		for k := 1; k < len(list); k++ {
			if list[k].a != list[first].a {
				first = k
				continue
			}
			if err := f(list[k].b, list[first].b); err != nil {
				return err
			}
		}
	}
	return nil
}

// rowList puts rows in order, each with the row that it repeats.
type rowList struct {
	pairs *pairs
	per   uint64 // rows a file
	n     uint64
	file  int
	page  []pair
	err   error // of next
}

// newRowList makes a list of some of so many rows.
func newRowList(dir string, rows uint64) (*rowList, error) {
	p, err := newPairs(dir)
	if err != nil {
		return nil, err
	}
	return &rowList{pairs: p, per: rows/repeatFiles + 1}, nil
}

func (l *rowList) add(row, first uint64) error {
	l.n++
	return l.pairs.add(int(row/l.per), pair{row, first})
}

// next returns the next row; false after the last, or if err is set.
func (l *rowList) next() (row, first uint64, ok bool) {
	for len(l.page) == 0 {
		if l.file == repeatFiles || l.err != nil {
			return 0, 0, false
		}
		l.page, l.err = l.pairs.sorted(l.file)
		l.file++
	}
	v := l.page[0]
	l.page = l.page[1:]
	return v.a, v.b, true
}

func (l *rowList) close() { l.pairs.close() }

func itoa(n uint64) string { return strconv.FormatUint(n, 10) }
