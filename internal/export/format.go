package export

import (
	"bufio"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress/zstd"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/links"
)

// Format is the form of a file.
type Format string

// The formats.
const (
	NDJSON  Format = "ndjson"
	CSV     Format = "csv"
	Parquet Format = "parquet"
)

// ParseFormat returns the format of a name. Returns an error of code invalid for any other.
func ParseFormat(s string) (Format, error) {
	switch f := Format(s); f {
	case NDJSON, CSV, Parquet:
		return f, nil
	}
	return "", terse.Invalid("format", "the format is ndjson, csv or parquet")
}

// ContentType returns the media type of the format.
func (f Format) ContentType() string {
	switch f {
	case CSV:
		return "text/csv; charset=utf-8; header=present"
	case Parquet:
		return "application/vnd.apache.parquet"
	}
	return "application/x-ndjson"
}

// Writer takes clicks one by one. Close ends the file and does not close what it was written to;
// without it a file is cut: a Parquet file cannot be read then.
type Writer interface {
	Write(ev *clicks.Event) error
	Close() error
}

// WriterOptions say how text is written.
type WriterOptions struct {
	// RawCSV leaves values alone that a spreadsheet would run as a formula; otherwise
	// an apostrophe is put before them.
	RawCSV bool
}

// NewWriter returns a writer of the format to w.
func NewWriter(f Format, w io.Writer, o WriterOptions) Writer {
	switch f {
	case CSV:
		return &csvWriter{w: bufio.NewWriterSize(w, bufferBytes), o: o}
	case Parquet:
		return newParquetWriter(w)
	}
	return &ndjsonWriter{w: bufio.NewWriterSize(w, bufferBytes)}
}

const bufferBytes = 64 << 10

type ndjsonWriter struct {
	w   *bufio.Writer
	buf []byte
}

func (n *ndjsonWriter) Write(ev *clicks.Event) error {
	row := RowOf(ev)
	b, err := json.Marshal(&row, jsontext.AllowInvalidUTF8(true))
	if err != nil {
		return fmt.Errorf("write click: %w", err)
	}
	n.buf = append(append(n.buf[:0], b...), '\n')
	_, err = n.w.Write(n.buf)
	return err
}

func (n *ndjsonWriter) Close() error { return n.w.Flush() }

// csvColumns are the fields of Row by their JSON names, so that CSV and JSON never differ.
var csvColumns = func() []string {
	t := reflect.TypeFor[Row]()
	names := make([]string, t.NumField())
	for i := range names {
		names[i] = t.Field(i).Tag.Get("json")
	}
	return names
}()

type csvWriter struct {
	w    *bufio.Writer
	o    WriterOptions
	buf  []byte
	head bool
}

// header writes the line of names before the first row.
func (c *csvWriter) header() error {
	if c.head {
		return nil
	}
	c.head = true
	_, err := c.w.WriteString(strings.Join(csvColumns, ",") + "\n")
	return err
}

func (c *csvWriter) Write(ev *clicks.Event) error {
	if err := c.header(); err != nil {
		return err
	}
	row := RowOf(ev)
	v := reflect.ValueOf(&row).Elem()
	b := c.buf[:0]
	for i := range csvColumns {
		if i > 0 {
			b = append(b, ',')
		}
		switch f := v.Field(i).Interface().(type) {
		case string:
			b = links.AppendCSV(b, f, c.o.RawCSV)
		case time.Time:
			b = f.AppendFormat(b, "2006-01-02T15:04:05.000Z07:00")
		case bool:
			b = strconv.AppendBool(b, f)
		case int:
			b = strconv.AppendInt(b, int64(f), 10)
		case uint32:
			b = strconv.AppendUint(b, uint64(f), 10)
		}
	}
	c.buf = append(b, '\n')
	_, err := c.w.Write(c.buf)
	return err
}

func (c *csvWriter) Close() error {
	if err := c.header(); err != nil {
		return err
	}
	return c.w.Flush()
}

// groupRows bounds the memory of a Parquet writer, which holds a row group: about 10 MB.
const groupRows = 64 << 10

type parquetWriter struct {
	w    *parquet.GenericWriter[parquetRow]
	rows []parquetRow
}

func newParquetWriter(w io.Writer) *parquetWriter {
	return &parquetWriter{
		w: parquet.NewGenericWriter[parquetRow](w, parquet.Compression(new(zstd.Codec)), parquet.MaxRowsPerRowGroup(groupRows),
			parquet.CreatedBy("terse", "", ""), parquet.PageBufferSize(bufferBytes)),
		rows: make([]parquetRow, 0, 256),
	}
}

func (p *parquetWriter) Write(ev *clicks.Event) error {
	p.rows = append(p.rows, parquetOf(ev))
	if len(p.rows) < cap(p.rows) {
		return nil
	}
	return p.flush()
}

func (p *parquetWriter) flush() error {
	_, err := p.w.Write(p.rows)
	clear(p.rows)
	p.rows = p.rows[:0]
	if err != nil {
		return fmt.Errorf("write click: %w", err)
	}
	return nil
}

func (p *parquetWriter) Close() error {
	if err := p.flush(); err != nil {
		return err
	}
	if err := p.w.Close(); err != nil {
		return fmt.Errorf("end Parquet file: %w", err)
	}
	return nil
}
