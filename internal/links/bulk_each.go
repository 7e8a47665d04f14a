package links

import (
	"bytes"
	"errors"
	"io"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/domains"
)

// RowResult is what became of one row. It and all it holds are valid during the call that
// it is handed to.
type RowResult struct {
	Index uint64
	Row   []byte // as it stands in the body; of one that is too long only its beginning
	Line  uint64 // of the body, from 1, on which a row without a link begins; 0 of others
	// ExternalID is that of the row, "" if it has none or it could not be read.
	ExternalID string
	// Err says why there is no link; nil: there is one.
	Err *terse.Error
	// Existing: the link was there before.
	Existing bool

	link   *terse.Link
	domain *domains.Domain
}

// Host is the domain of the link.
func (r *RowResult) Host() string { return r.domain.Host }

// Code is the code of the link; "" in a dry run, unless the row chose it.
func (r *RowResult) Code() string { return r.link.Code }

// AppendShortURL appends the short URL of the link.
func (r *RowResult) AppendShortURL(dst []byte) []byte {
	return r.domain.AppendShortURL(dst, r.link.Code)
}

// AppendID appends the id of the link, as the API shows it.
func (r *RowResult) AppendID(dst []byte) []byte { return r.link.Number.AppendText(dst) }

// TooLong reports whether Row is only the beginning of the row.
func (r *RowResult) TooLong() bool { return len(r.Row) > maxRow }

// each hands the rows of a batch that was written to the request's Each.
//
// Hot path: 0 allocs/op a row.
func (b *batch) each(p *pipeline) error {
	if p.o.Each == nil {
		return nil
	}
	var r RowResult
	line, counted := b.line, int32(0)
	for i := range b.rows {
		kind, d, l := b.result(i)
		span := b.spans[i]
		r = RowResult{Index: b.base + uint64(i), Row: b.buf[span[0]:span[1]], link: l, domain: d}
		if l == nil {
			f := &b.errs[b.rows[i].at]
			r.ExternalID, r.Err = f.externalID, f.err
			line += uint64(bytes.Count(b.buf[counted:span[0]], newline))
			counted = span[0]
			r.Line = line
		} else {
			r.ExternalID, r.Existing = l.ExternalID, kind != rowCreated
		}
		if err := p.o.Each(&r); err != nil {
			return err
		}
	}
	return nil
}

var newline = []byte{'\n'}

// PickOptions say what PickRows takes for a row.
type PickOptions struct {
	In Format
	// EncodingCSV: of a CSV body, the rows are those that encoding/csv reads, for which a line of spaces is one.
	// Bulk takes a line of nothing but white space for none.
	EncodingCSV bool
	Comma       byte // of a CSV body: what separates fields; 0: a comma
}

// PickRows reads a body again and calls f with the rows that next names, by the indexes that
// Bulk gave them, in ascending order, and the lines of the body on which they begin, the first being 1; next returns
// false after the last. The row is valid during the call.
func PickRows(body io.Reader, o PickOptions, next func() (uint64, bool), f func(index, line uint64, row []byte) error) error {
	want, more := next()
	body = withoutMark(body, o.In)
	c := newCutter(o.In)
	if o.In == CSV {
		c = &csvCutter{spaces: o.EncodingCSV, comma: o.Comma}
	}
	buf := make([]byte, 0, batchBytes+maxRow)
	var index uint64
	line := uint64(1) // at buf[counted]
	header := o.In == CSV
	for eof := false; more; {
		counted := 0
		if !eof {
			if len(buf) == cap(buf) {
				buf = append(buf, 0)[:len(buf)]
			}
			n, err := body.Read(buf[len(buf):cap(buf)])
			buf = buf[:len(buf)+n]
			if eof = errors.Is(err, io.EOF); err != nil && !eof {
				return bodyError(err)
			}
		}
		n, rows, err := c.cut(buf, eof)
		if err != nil {
			return err
		}
		for _, span := range rows {
			if header {
				header = false
				continue
			}
			if more && index == want {
				line += uint64(bytes.Count(buf[counted:span[0]], newline))
				counted = int(span[0])
				if err := f(index, line, buf[span[0]:span[1]]); err != nil {
					return err
				}
				want, more = next()
			}
			index++
		}
		line += uint64(bytes.Count(buf[counted:n], newline))
		c.shift(n)
		buf = append(buf[:0], buf[n:]...)
		if eof && n == 0 {
			return nil
		}
	}
	return nil
}

// Header is the header line of a CSV body.
type Header struct {
	Line  []byte   // as it stands there, without the byte order mark and the line break
	Names []string // of the columns
	Lines int      // line breaks of the body up to the first row
}

// ReadHeader takes the header line of a CSV body. rest is what follows it. Returns an
// error of code invalid if there is none.
func ReadHeader(body io.Reader) (h Header, rest io.Reader, err error) {
	var buf []byte
	block := make([]byte, 64<<10)
	for {
		n, rerr := body.Read(block)
		buf = append(buf, block[:n]...)
		eof := errors.Is(rerr, io.EOF)
		if rerr != nil && !eof {
			return h, nil, bodyError(rerr)
		}
		n, line, err := cutHeader(buf, eof)
		if err != nil {
			return h, nil, err
		}
		if n == 0 {
			continue
		}
		var s csvScanner
		for s.reset(line); ; {
			name, ok, err := s.next()
			if err != nil {
				return h, nil, err
			}
			if !ok {
				break
			}
			h.Names = append(h.Names, name)
		}
		h.Line, h.Lines = bytes.TrimSuffix(line, []byte{'\r'}), bytes.Count(buf[:n], newline)
		return h, io.MultiReader(bytes.NewReader(buf[n:]), body), nil
	}
}
