package duckdb

import (
	"encoding/binary"
	"errors"
	"strings"
	"unicode/utf8"
	"unsafe"

	"github.com/duckdb/duckdb-go/v2/mapping"

	"github.com/terselink/terse/internal/clicks"
)

// appender appends events to the table of a day. It writes numbers and short texts straight
// into the memory of DuckDB's vectors: through AppendRow of the driver, which boxes
// every value and calls C for each, an event of 36 columns costs 5 µs, here 0.9.
//
// The layout of the vectors is that of the C interface: arrays of the column's type
// (duckdb.h, duckdb_vector_get_data), a text being a duckdb_string_t. TestRoundTrip
// holds every column to it.
type appender struct {
	table   mapping.Appender
	types   []mapping.LogicalType
	chunk   mapping.DataChunk
	vectors []vector // of the chunk, by column
	rows    int      // in the chunk
	most    int      // rows of a chunk
}

// vector is a column of the chunk.
type vector struct {
	vec   mapping.Vector
	data  unsafe.Pointer
	texts *textCache // of text columns
}

// newAppender begins to append to a table. Close or discard ends it.
func newAppender(w *writer, table string) (*appender, error) {
	a := &appender{most: int(mapping.VectorSize()), vectors: make([]vector, len(columns))}
	if mapping.AppenderCreateExt(w.conn, "", "", table, &a.table) == mapping.StateError {
		err := errors.New(mapping.AppenderError(a.table))
		mapping.AppenderDestroy(&a.table)
		return nil, err
	}
	for i := range mapping.AppenderColumnCount(a.table) {
		a.types = append(a.types, mapping.AppenderColumnType(a.table, i))
	}
	a.chunk = mapping.CreateDataChunk(a.types)
	for i := range columns {
		if columns[i].text != nil {
			a.vectors[i].texts = &textCache{}
		}
	}
	a.begin()
	return a, nil
}

// begin looks up the memory of an empty chunk.
func (a *appender) begin() {
	a.rows = 0
	for i := range a.vectors {
		v := &a.vectors[i]
		v.vec = mapping.DataChunkGetVector(a.chunk, mapping.IdxT(i))
		v.data = mapping.VectorGetData(v.vec)
		if v.texts != nil {
			v.texts.generation++
		}
	}
}

// add appends an event, which is copied.
//
// Hot path: 0 allocs/op for texts of valid UTF-8, see TestAppendAllocs.
func (a *appender) add(ev *clicks.Event) error {
	row := uintptr(a.rows)
	for i := range columns {
		c, v := &columns[i], &a.vectors[i]
		switch c.size {
		case 0:
			v.putText(row, c.text(ev))
		case 1:
			*(*uint8)(unsafe.Add(v.data, row)) = uint8(c.number(ev))
		case 2:
			*(*uint16)(unsafe.Add(v.data, 2*row)) = uint16(c.number(ev))
		case 4:
			*(*uint32)(unsafe.Add(v.data, 4*row)) = uint32(c.number(ev))
		case 8:
			*(*uint64)(unsafe.Add(v.data, 8*row)) = c.number(ev)
		case 16: // the UUID is a signed number of 128 bits whose order is that of the bytes
			id := (*[2]uint64)(unsafe.Add(v.data, 16*row))
			id[0] = binary.BigEndian.Uint64(ev.ID[8:])
			id[1] = binary.BigEndian.Uint64(ev.ID[:8]) ^ 1<<63
		}
	}
	if a.rows++; a.rows == a.most {
		return a.push()
	}
	return nil
}

// inlined is the longest text that a duckdb_string_t holds itself.
const inlined = 12

// stringT is a duckdb_string_t: the size, then the text itself, padded with zeros, or
// its first four bytes and a pointer.
type stringT struct {
	size uint32
	text [inlined]byte
}

// putText stores a text. DuckDB takes only UTF-8, so what is not is repaired.
func (v *vector) putText(row uintptr, s string) {
	dst := (*stringT)(unsafe.Add(v.data, row*unsafe.Sizeof(stringT{})))
	if len(s) <= inlined {
		if !utf8.ValidString(s) {
			v.assign(row, strings.ToValidUTF8(s, "\uFFFD"))
			return
		}
		*dst = stringT{size: uint32(len(s))}
		copy(dst.text[:], s)
		return
	}
	// Long texts repeat, and the enricher hands out the same string for them. The copy
	// in the chunk's memory serves all rows of the chunk.
	c := v.texts.cell(s)
	if c.generation == v.texts.generation && len(c.text) == len(s) && unsafe.StringData(c.text) == unsafe.StringData(s) {
		*dst = c.stored
		return
	}
	valid := s
	if !utf8.ValidString(s) {
		valid = strings.ToValidUTF8(s, "\uFFFD")
	}
	v.assign(row, valid)
	c.generation, c.text, c.stored = v.texts.generation, s, *dst
}

// assign lets DuckDB copy a text.
func (v *vector) assign(row uintptr, s string) {
	mapping.VectorAssignStringElement(v.vec, mapping.IdxT(row), s)
}

// textCache knows where the chunk holds texts that were stored lately.
type textCache struct {
	generation uint64 // of the chunk
	cells      [64]textCell
}

type textCell struct {
	generation uint64
	text       string // held, so that its address stands for nothing else
	stored     stringT
}

func (t *textCache) cell(s string) *textCell {
	p := uintptr(unsafe.Pointer(unsafe.StringData(s)))
	return &t.cells[(p>>4^p>>10)%uintptr(len(t.cells))]
}

// push hands the chunk to DuckDB.
func (a *appender) push() error {
	if a.rows == 0 {
		return nil
	}
	mapping.DataChunkSetSize(a.chunk, mapping.IdxT(a.rows))
	if mapping.AppendDataChunk(a.table, a.chunk) == mapping.StateError {
		return errors.New(mapping.AppenderError(a.table))
	}
	mapping.DataChunkReset(a.chunk)
	a.begin()
	return nil
}

// close writes what was appended into the transaction.
func (a *appender) close() error {
	err := a.push()
	if err == nil && mapping.AppenderFlush(a.table) == mapping.StateError {
		err = errors.New(mapping.AppenderError(a.table))
	}
	if err != nil {
		a.discard()
		return err
	}
	a.destroy()
	return nil
}

// discard drops what was appended; an appender that is not cleared leaks it.
func (a *appender) discard() {
	mapping.AppenderClear(a.table)
	a.destroy()
}

func (a *appender) destroy() {
	mapping.DestroyDataChunk(&a.chunk)
	for i := range a.types {
		mapping.DestroyLogicalType(&a.types[i])
	}
	mapping.AppenderDestroy(&a.table)
}
