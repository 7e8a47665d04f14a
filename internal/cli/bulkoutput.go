package cli

import (
	"bufio"
	"bytes"
	"strconv"

	"github.com/terselink/terse/client"
)

// resultWriter writes results in one form.
type resultWriter interface {
	// write writes one result: the line as the server wrote it, and read.
	write(line []byte, r *client.RawResult) error
	// finish ends a whole answer. A cut one is left as it is.
	finish() error
}

// lineWriter writes NDJSON, as it came.
type lineWriter struct{ w *bufio.Writer }

func (l lineWriter) write(line []byte, _ *client.RawResult) error {
	l.w.Write(line)
	return l.w.WriteByte('\n')
}

func (l lineWriter) finish() error { return nil }

// arrayWriter writes a JSON array.
type arrayWriter struct {
	w     *bufio.Writer
	begun bool
}

func (a *arrayWriter) write(line []byte, _ *client.RawResult) error {
	if a.begun {
		a.w.WriteString(",\n")
	} else {
		a.w.WriteString("[\n")
		a.begun = true
	}
	_, err := a.w.Write(line)
	return err
}

func (a *arrayWriter) finish() error {
	if !a.begun {
		a.w.WriteString("[")
	}
	_, err := a.w.WriteString("\n]\n")
	return err
}

// csvHeader is what the server calls the columns of results, too.
const csvHeader = "index,short_url,code,id,external_id,error,message\n"

// csvWriter writes CSV (RFC 4180).
type csvWriter struct {
	w    *bufio.Writer
	raw  bool
	line []byte
}

func newCSVWriter(w *bufio.Writer, raw bool) *csvWriter {
	w.WriteString(csvHeader) // an error stays with the writer until it is flushed
	return &csvWriter{w: w, raw: raw}
}

func (c *csvWriter) write(_ []byte, r *client.RawResult) error {
	b := strconv.AppendUint(c.line[:0], r.Index, 10)
	for _, v := range [...][]byte{r.ShortURL, r.Code, r.ID, r.ExternalID, r.ErrorCode, r.ErrorMessage} {
		b = c.appendValue(append(b, ','), v)
	}
	c.line = append(b, '\n')
	_, err := c.w.Write(c.line)
	return err
}

func (c *csvWriter) finish() error { return nil }

// appendValue appends one value, quoted if it needs to be. A value that a spreadsheet would
// run as a formula gets an apostrophe before it, which the server takes off when
// the file comes back as rows.
func (c *csvWriter) appendValue(dst, v []byte) []byte {
	if len(v) == 0 {
		return dst
	}
	guard := !c.raw && bytes.IndexByte([]byte("=+-@\t\r\x00"), v[0]) >= 0
	if !guard && !bytes.ContainsAny(v, ",\"\r\n") {
		return append(dst, v...)
	}
	dst = append(dst, '"')
	if guard {
		dst = append(dst, '\'')
	}
	for _, b := range v {
		if b == '"' {
			dst = append(dst, '"')
		}
		dst = append(dst, b)
	}
	return append(dst, '"')
}
