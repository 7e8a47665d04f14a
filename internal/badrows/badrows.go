// Package badrows writes the rows of a file that made no link, so that somebody can mend them and send only these.
package badrows

import (
	"bufio"
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/terselink/terse/internal/links"
)

// Writer writes the rows that made no link as they were sent, so that somebody can mend
// them and send only these: CSV rows under the header of the file, other rows as NDJSON.
// Why a row was refused stands in its first column or member, links.ErrorColumn, which is
// left out when the rows are read again.
type Writer struct {
	w     *bufio.Writer
	csv   bool
	comma byte
	// again: the rows come from such a file, and bring the first column of then along.
	again bool
	buf   []byte
}

// New returns a writer to w. What it writes is there after Flush.
func New(w *bufio.Writer) *Writer { return &Writer{w: w, comma: ','} }

// Flush hands everything on.
func (b *Writer) Flush() error { return b.w.Flush() }

// Header begins a CSV file: line is that of the upload, first the name of its first column, comma what separates
// columns.
func (b *Writer) Header(line []byte, first string, comma byte) error {
	b.csv, b.comma = true, comma
	b.again = first == links.ErrorColumn
	return b.record(links.ErrorColumn, line)
}

// Add writes one row; nil if only its error is known. The index counts rows from 0; line is that of the file, from 1, 0
// if it is not known. The message may begin with a field.
func (b *Writer) Add(index, line uint64, row []byte, code, message string) error {
	if !b.csv {
		return b.object(index, line, row, code, message)
	}
	at := "row " + strconv.FormatUint(index, 10)
	if line > 0 {
		at += ", line " + strconv.FormatUint(line, 10)
	}
	reason := append(b.buf[:0], '"')
	for _, c := range []byte(at + ": " + code + ": " + message) {
		if c == '"' {
			reason = append(reason, '"')
		}
		reason = append(reason, c)
	}
	b.buf = append(reason, '"')
	return b.record(string(b.buf), row)
}

// Reason reads the first column of a CSV row that Add wrote.
func Reason(row []byte) (index uint64, code, message string, err error) {
	rest, ok := bytes.CutPrefix(row, []byte(`"row `))
	var text []byte
	for ok && len(rest) > 0 {
		if rest[0] == '"' {
			if len(rest) == 1 || rest[1] != '"' {
				break // the end of the column
			}
			rest = rest[1:]
		}
		text, rest = append(text, rest[0]), rest[1:]
	}
	at, why, ok := strings.Cut(string(text), ": ")
	number, _, _ := strings.Cut(at, ", line ")
	if ok {
		code, message, ok = strings.Cut(why, ": ")
	}
	if index, err = strconv.ParseUint(number, 10, 64); err != nil || !ok {
		return 0, "", "", fmt.Errorf("%.100q is no reason for which a row made no link", row)
	}
	return index, code, message, nil
}

// record writes a first column and the row without the one that it brings.
func (b *Writer) record(first string, row []byte) error {
	row = bytes.TrimSuffix(row, []byte{'\r'})
	rest := true
	if b.again {
		row, rest = cutField(row, b.comma)
	}
	b.w.WriteString(first) // the buffer keeps its first error
	if rest && row != nil {
		b.w.WriteByte(b.comma)
		b.w.Write(row)
	}
	return b.w.WriteByte('\n')
}

// cutField takes the first field off a record; false if there is no other.
func cutField(row []byte, separator byte) (rest []byte, more bool) {
	i := 0
	if len(row) > 0 && row[0] == '"' {
		for i = 1; i < len(row); i++ {
			if row[i] != '"' {
				continue
			}
			if i+1 >= len(row) || row[i+1] != '"' {
				break
			}
			i++
		}
	}
	comma := bytes.IndexByte(row[min(i, len(row)):], separator)
	if comma < 0 {
		return nil, false
	}
	return row[min(i, len(row))+comma+1:], true
}

// object writes a row as one line: its members behind the error. A row that is no object
// stands as text within the error.
func (b *Writer) object(index, line uint64, row []byte, code, message string) error {
	out := append(b.buf[:0], `{"`+links.ErrorColumn+`":{"index":`...)
	out = strconv.AppendUint(out, index, 10)
	if line > 0 {
		out = strconv.AppendUint(append(out, `,"line":`...), line, 10)
	}
	out = append(out, `,"code":`...)
	out = appendQuoted(out, code)
	out = append(out, `,"message":`...)
	out = appendQuoted(out, message)
	members, ok := membersOf(row)
	if !ok && row != nil {
		out = append(out, `,"row":`...)
		out = appendQuoted(out, string(row))
	}
	out = append(out, '}')
	if len(members) > 0 {
		out = append(out, ',')
		out = append(out, members...)
	}
	b.buf = append(out, "}\n"...)
	_, err := b.w.Write(b.buf)
	return err
}

// membersOf returns what stands between the braces of an object, on one line and without
// the error of an earlier run; false if the row is no object.
func membersOf(row []byte) ([]byte, bool) {
	v := jsontext.Value(bytes.Clone(row))
	if v.Compact() != nil || v.Kind() != '{' {
		return nil, false
	}
	for name := []byte(`{"` + links.ErrorColumn + `":`); bytes.HasPrefix(v, name); {
		d := jsontext.NewDecoder(bytes.NewReader(v))
		for range 2 { // the brace and the name
			if _, err := d.ReadToken(); err != nil {
				return nil, false
			}
		}
		if d.SkipValue() != nil {
			return nil, false
		}
		v = append(jsontext.Value{'{'}, bytes.TrimPrefix(v[d.InputOffset():], []byte{','})...)
	}
	return v[1 : len(v)-1], true
}

// appendQuoted appends a JSON string; bytes that are not valid UTF-8 are replaced.
func appendQuoted(dst []byte, s string) []byte {
	if !utf8.ValidString(s) {
		s = string(bytes.ToValidUTF8([]byte(s), []byte("\ufffd")))
	}
	out, err := jsontext.AppendQuote(dst, s)
	if err != nil {
		return append(dst, `""`...) // valid UTF-8 always quotes
	}
	return out
}
