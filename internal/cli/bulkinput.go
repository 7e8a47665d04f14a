package cli

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"

	"github.com/terselink/terse/client"
)

const byteOrderMark = "\xef\xbb\xbf"

// maxHeader is the longest header line of a CSV file, in bytes.
const maxHeader = 64 << 10

// bulkInput is the rows of a bulk command.
type bulkInput struct {
	io.Reader
	format  client.Format
	info    fs.FileInfo                   // of the file; nil for standard input
	size    int64                         // bytes of the file as it is on disk; 0: not known
	read    atomic.Int64                  // of these
	comma   rune                          // of CSV: what separates columns
	columns []string                      // of CSV, as they stand in the header
	rewrite bool                          // of CSV: every row is written anew, as encoding/csv reads it
	again   func() (io.ReadCloser, error) // reads the rows from the beginning, decompressed; nil without --errors
	links   bool                          // size counts links instead, which the server makes of nothing
	closers []func() error
}

// Close ends reading. The rows may still be read by the request that is being ended.
func (in *bulkInput) Close() error {
	var errs []error
	for _, c := range slices.Backward(in.closers) {
		errs = append(errs, c())
	}
	return errors.Join(errs...)
}

// open opens the rows: decompresses, finds out their form and maps their columns. known tells the
// columns that --ignore-extra keeps.
func (c *rowFlags) open(s *session, known func(column string) bool) (*bulkInput, error) {
	o, err := c.csvOptions(known)
	if err != nil {
		return nil, err
	}
	in := &bulkInput{}
	source, name := s.Stdin, ""
	if c.File != "-" {
		f, err := os.Open(c.File)
		if err != nil {
			return nil, &ExitError{ExitUsage, fmt.Errorf("open the rows: %w", err)}
		}
		in.closers = append(in.closers, f.Close)
		if in.info, err = f.Stat(); err == nil && in.info.IsDir() {
			return nil, errors.Join(usage("%s is a folder", c.File), in.Close())
		}
		if in.info != nil && in.info.Mode().IsRegular() {
			in.size = in.info.Size()
		}
		source, name = f, strings.ToLower(filepath.Base(c.File))
	} else if isTerminal(source) {
		fmt.Fprintln(s.Stderr, "terse: reading rows from the terminal; end them with Ctrl-D")
	}
	var r io.Reader = &countingReader{source, &in.read}
	r, name, err = in.decompress(r, name)
	if err == nil && c.Errors != "" {
		r, err = in.keep(c.File, r)
	}
	if err == nil {
		err = in.shape(r, name, c.InputFormat, &o)
	}
	if err != nil {
		return nil, errors.Join(err, in.Close())
	}
	return in, nil
}

func (in *bulkInput) decompress(r io.Reader, name string) (io.Reader, string, error) {
	if plain, ok := strings.CutSuffix(name, ".gz"); ok {
		z, err := gzip.NewReader(bufio.NewReaderSize(r, 1<<20))
		if err != nil {
			return nil, "", fmt.Errorf("decompress the rows: %w", err)
		}
		return z, plain, nil
	}
	if plain, ok := strings.CutSuffix(name, ".zst"); ok {
		z, err := zstd.NewReader(r)
		if err != nil {
			return nil, "", fmt.Errorf("decompress the rows: %w", err)
		}
		in.closers = append(in.closers, func() error { z.Close(); return nil })
		return z, plain, nil
	}
	return r, name, nil
}

// shape settles the form of the rows and prepares CSV ones.
func (in *bulkInput) shape(r io.Reader, name, wanted string, o *csvOptions) error {
	br := bufio.NewReaderSize(r, 256<<10)
	if bom, err := br.Peek(len(byteOrderMark)); err == nil && string(bom) == byteOrderMark {
		br.Discard(len(byteOrderMark))
	}
	first, err := firstByte(br)
	if err != nil {
		if errors.Is(err, io.EOF) {
			return usage("there are no rows in the input")
		}
		return fmt.Errorf("read the rows: %w", err)
	}
	switch ext := filepath.Ext(name); {
	case wanted != "":
		in.format = map[string]client.Format{"csv": client.CSV, "ndjson": client.NDJSON, "json": client.JSON}[wanted]
	case ext == ".csv" || ext == ".tsv":
		in.format = client.CSV
	case ext == ".ndjson" || ext == ".jsonl":
		in.format = client.NDJSON
	case first == '[':
		in.format = client.JSON
	case first == '{':
		in.format = client.NDJSON
	default:
		in.format = client.CSV
	}
	in.Reader = br
	if in.format != client.CSV {
		if !o.plain() {
			return usage("--map, --ignore-extra and --delimiter are for CSV rows")
		}
		return nil
	}
	in.comma = o.comma
	in.columns = peekColumns(br, o.comma)
	if o.plain() {
		return nil
	}
	in.Reader, err = mapColumns(br, o)
	_, in.rewrite = in.Reader.(*rowMapper)
	return err
}

// peekColumns returns the names in the header line, without taking it: for what is said of an error. nil if it is
// none, or a long one.
func peekColumns(br *bufio.Reader, comma rune) []string {
	start, _ := br.Peek(br.Buffered()) // what is there: more may not come soon
	line, err := headerLine(bufio.NewReader(bytes.NewReader(start)))
	if err != nil || line[len(line)-1] != '\n' {
		return nil
	}
	r := csv.NewReader(bytes.NewReader(line))
	r.Comma = comma
	names, err := r.Read()
	if err != nil {
		return nil
	}
	return names
}

// firstByte returns the first byte that is no space, without taking it.
func firstByte(br *bufio.Reader) (byte, error) {
	for n := 1; ; n++ {
		b, err := br.Peek(n)
		if len(b) < n {
			return 0, err
		}
		if c := b[n-1]; c != ' ' && c != '\t' && c != '\r' && c != '\n' {
			return c, nil
		}
	}
}

// csvOptions say how columns become fields.
type csvOptions struct {
	columns     map[string]string // column -> field
	ignoreExtra bool
	known       func(column string) bool // not an extra
	comma       rune
}

// cutMap splits FIELD=COLUMN.
func cutMap(s string) (field, column string, ok bool) {
	field, column, ok = strings.Cut(s, "=")
	field, column = strings.TrimSpace(field), strings.TrimSpace(column)
	return field, column, ok && field != "" && column != ""
}

// mapColumns returns the rows with the names of fields over their columns. Rows pass through as
// they are if only names differ; otherwise each is written anew.
func mapColumns(br *bufio.Reader, o *csvOptions) (io.Reader, error) {
	line, err := headerLine(br)
	if err != nil {
		return nil, err
	}
	cr := csv.NewReader(bytes.NewReader(line))
	cr.Comma = o.comma
	header, err := cr.Read()
	if err != nil {
		return nil, fmt.Errorf("read the header line: %w", err)
	}
	var keep []int
	found := map[string]bool{}
	for i, column := range header {
		column = strings.TrimSpace(column)
		if field, ok := o.columns[column]; ok {
			found[column] = true
			header[i] = field
		} else {
			header[i] = column
		}
		if !o.ignoreExtra || o.known(header[i]) {
			keep = append(keep, i)
		}
	}
	for column, field := range o.columns {
		if !found[column] {
			return nil, usage("--map %s=%s: the columns are %s", field, column, printable(strings.Join(header, ", ")))
		}
	}
	if len(keep) == 0 {
		return nil, usage("no column is named after a field; the columns are %s", printable(strings.Join(header, ", ")))
	}
	t := &rowMapper{keep: keep, width: len(header), header: header}
	t.w = csv.NewWriter(&t.buf)
	t.writeRow(header)
	t.w.Flush()
	if len(keep) == len(header) && o.comma == ',' {
		return io.MultiReader(bytes.NewReader(t.buf.Bytes()), br), nil
	}
	t.r = csv.NewReader(br)
	t.r.Comma = o.comma
	t.r.ReuseRecord = true
	t.r.FieldsPerRecord = -1
	return t, nil
}

// headerLine takes the first line, whose quoted names may hold line breaks.
func headerLine(br *bufio.Reader) ([]byte, error) {
	var line []byte
	quoted := false
	for len(line) < maxHeader {
		b, err := br.ReadByte()
		if err == io.EOF && len(line) > 0 {
			return line, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read the header line: %w", err)
		}
		line = append(line, b)
		if b == '"' {
			quoted = !quoted
		}
		if b == '\n' && !quoted {
			return line, nil
		}
	}
	return nil, usage("the header line is longer than %d bytes; is this a CSV file?", maxHeader)
}

// rowMapper rewrites CSV rows with some of their columns.
type rowMapper struct {
	r      *csv.Reader
	w      *csv.Writer
	buf    bytes.Buffer
	header []string
	keep   []int
	width  int
	row    []string
	err    error
}

// rowsAtOnce is how many rows are rewritten for one Read.
const rowsAtOnce = 256

// Read implements io.Reader.
func (t *rowMapper) Read(p []byte) (int, error) {
	if t.buf.Len() == 0 {
		for range rowsAtOnce {
			if t.err != nil {
				break
			}
			var row []string
			row, t.err = t.r.Read()
			if fault, ok := errors.AsType[*csv.ParseError](t.err); ok {
				t.writeFault(fault)
				t.err = nil
			} else if t.err == nil {
				t.writeRow(row)
			}
		}
		t.w.Flush()
	}
	if t.buf.Len() == 0 {
		return 0, t.err
	}
	return t.buf.Read(p)
}

// writeRow writes the columns that are kept. A row that is too short or too long stays so, by
// a column more or less, and gets its error from the server: results keep their order.
func (t *rowMapper) writeRow(row []string) {
	t.row = t.row[:0]
	for _, i := range t.keep {
		if i < len(row) {
			t.row = append(t.row, row[i])
		}
	}
	switch {
	case len(row) > t.width:
		t.row = append(t.row, "")
	case len(row) < t.width && len(t.row) == len(t.keep):
		t.row = t.row[:len(t.row)-1]
	}
	// The buffer takes everything, so there is no error to see. A row of one
	// empty column would be an empty line, which is no row.
	if len(t.row) == 0 || len(t.row) == 1 && t.row[0] == "" {
		t.w.Flush()
		t.buf.WriteString("\"\"\n")
		return
	}
	_ = t.w.Write(t.row)
}

// writeFault writes a row that the server refuses for the reason for which this one cannot be read.
func (t *rowMapper) writeFault(fault *csv.ParseError) {
	t.w.Flush()
	if errors.Is(fault, csv.ErrBareQuote) {
		t.buf.WriteString("x\"\n")
		return
	}
	t.buf.WriteString("\"\"x\n")
}

// countingReader counts what was read, for the progress.
type countingReader struct {
	r io.Reader
	n *atomic.Int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}
