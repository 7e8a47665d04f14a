package jobs

import (
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"

	"github.com/terselink/terse/internal/links"
)

const (
	// parquetGroup is how many rows a row group has: the writer holds one in memory.
	parquetGroup = 128 << 10
	// parquetBatch is how many rows are handed to the writer at once.
	parquetBatch = 1024
)

// parquetRow is a result as a row of a Parquet file: the columns of the CSV form, and
// whether the link was there before. Empty text is null.
type parquetRow struct {
	Index      int64  `parquet:"index"`
	ShortURL   string `parquet:"short_url,optional"`
	Code       string `parquet:"code,optional"`
	ID         string `parquet:"id,optional"`
	ExternalID string `parquet:"external_id,optional"`
	Existing   bool   `parquet:"existing"`
	Error      string `parquet:"error,optional,dict"`
	Message    string `parquet:"message,optional"`
}

// parquetFile writes results as Parquet.
type parquetFile struct {
	w    *parquet.GenericWriter[parquetRow]
	dry  bool
	rows []parquetRow
	text []byte   // the text of rows
	ends [][4]int // where each of its parts ends
}

// newParquetFile returns a file of its own compressor.
func newParquetFile(w io.Writer, dry bool) (*parquetFile, error) {
	codec, err := newPageCodec()
	if err != nil {
		return nil, err
	}
	return &parquetFile{
		dry: dry,
		w: parquet.NewGenericWriter[parquetRow](w, parquet.Compression(codec), parquet.MaxRowsPerRowGroup(parquetGroup),
			parquet.CreatedBy("terse", "1", "")),
	}, nil
}

// pageCodec compresses pages with Zstandard. parquet.Zstd would do, but keeps encoders for the whole process, whose
// windows of 8 MiB, twice each and one for every column, were 64 MiB of a job; a page is a few hundred KiB.
type pageCodec struct{ encoder *zstd.Encoder }

// pageWindow is how far back a page is compressed.
const pageWindow = 256 << 10

func newPageCodec() (*pageCodec, error) {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(pageWindow), zstd.WithLowerEncoderMem(true),
		zstd.WithZeroFrames(true), zstd.WithEncoderCRC(false))
	return &pageCodec{e}, err
}

// String implements compress.Codec.
func (*pageCodec) String() string { return "ZSTD" }

// CompressionCodec implements compress.Codec.
func (*pageCodec) CompressionCodec() format.CompressionCodec { return format.Zstd }

// Encode implements compress.Codec.
func (c *pageCodec) Encode(dst, src []byte) ([]byte, error) {
	return c.encoder.EncodeAll(src, dst[:0]), nil
}

// Decode implements compress.Codec. A writer reads nothing back.
func (*pageCodec) Decode(dst, src []byte) ([]byte, error) { return parquet.Zstd.Decode(dst, src) }

// add takes one result and copies it.
func (p *parquetFile) add(r *links.RowResult) error {
	row := parquetRow{Index: int64(r.Index), Existing: r.Existing}
	var ends [4]int
	if r.Err != nil {
		f := faultOf(r.Err)
		row.Error, row.Message = f.Code, f.Message
		ends[0], ends[1], ends[2] = len(p.text), len(p.text), len(p.text)
	} else {
		if !p.dry {
			p.text = r.AppendShortURL(p.text)
		}
		ends[0] = len(p.text)
		p.text = append(p.text, r.Code()...)
		ends[1] = len(p.text)
		if !p.dry {
			p.text = r.AppendID(p.text)
		}
		ends[2] = len(p.text)
	}
	p.text = append(p.text, r.ExternalID...)
	ends[3] = len(p.text)
	p.rows, p.ends = append(p.rows, row), append(p.ends, ends)
	if len(p.rows) == parquetBatch {
		return p.flush()
	}
	return nil
}

// flush hands the rows to the writer. Their text is one string, so a row costs no garbage of
// its own.
func (p *parquetFile) flush() error {
	text, at := string(p.text), 0
	part := func(end int) string {
		s := text[at:end]
		at = end
		return s
	}
	for i := range p.rows {
		row, ends := &p.rows[i], &p.ends[i]
		row.ShortURL, row.Code, row.ID, row.ExternalID = part(ends[0]), part(ends[1]), part(ends[2]), part(ends[3])
	}
	_, err := p.w.Write(p.rows)
	p.rows, p.text, p.ends = p.rows[:0], p.text[:0], p.ends[:0]
	return err
}

// finish writes the end of the file.
func (p *parquetFile) finish() error {
	if err := p.flush(); err != nil {
		return err
	}
	return p.w.Close()
}
