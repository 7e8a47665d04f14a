// Package inflate decompresses what clients send, and refuses what expands beyond all
// measure. It knows gzip and zstd, reads as a stream, and keeps no more than a window of
// the data in memory.
package inflate

import (
	"errors"
	"io"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/terselink/terse"
)

// Guards against compression bombs. Rows of a campaign compress well, so the ratio counts
// only after Free decompressed bytes, which cost nobody anything.
const (
	Free   = 16 << 20
	Ratio  = 100
	window = 32 << 20 // of zstd; zstd -19 needs 8 MiB
)

// The encodings.
const (
	Identity = ""
	Gzip     = "gzip"
	Zstd     = "zstd"
)

// ParseEncoding returns the encoding that a Content-Encoding names; false for one that is
// not known.
func ParseEncoding(s string) (encoding string, ok bool) {
	switch s = strings.ToLower(strings.TrimSpace(s)); s {
	case "", "identity":
		return Identity, true
	case Gzip, "x-gzip":
		return Gzip, true
	case Zstd:
		return Zstd, true
	}
	return "", false
}

// ByName returns the encoding that the end of a file's name tells, and the name without it.
func ByName(name string) (encoding, plain string) {
	for suffix, e := range map[string]string{".gz": Gzip, ".zst": Zstd} {
		if n := len(name) - len(suffix); n > 0 && strings.EqualFold(name[n:], suffix) {
			return e, name[:n]
		}
	}
	return Identity, name
}

// Reader decompresses a stream. Close frees what it holds; it does not close the source.
type Reader struct {
	raw      source
	encoding string
	r        io.Reader // nil before the first Read of a compressed stream
	zstd     *zstd.Decoder
	out      int64 // decompressed bytes
}

// New returns the reader of a stream with one of the encodings. Nothing is read yet.
func New(r io.Reader, encoding string) *Reader {
	z := &Reader{raw: source{r: r}, encoding: encoding}
	if encoding == Identity {
		z.r = &z.raw
	}
	return z
}

// Read implements io.Reader. Errors of the compression are of code invalid, a bomb is of
// code too_large; errors of the source are passed on.
func (z *Reader) Read(p []byte) (n int, err error) {
	if z.r == nil {
		if err := z.open(); err != nil {
			return 0, z.fault(err)
		}
	}
	n, err = z.r.Read(p)
	if z.encoding == Identity {
		return n, err
	}
	if z.out += int64(n); z.out > Free && z.out/Ratio > z.raw.n {
		return 0, &terse.Error{Code: terse.CodeTooLarge, Reason: "compression_ratio", Message: "the body expands more than a hundredfold"}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = z.fault(err)
	}
	return n, err
}

func (z *Reader) open() (err error) {
	if z.encoding == Gzip {
		g, err := gzip.NewReader(&z.raw)
		if err == nil {
			z.r = g
		}
		return err
	}
	z.zstd, err = zstd.NewReader(&z.raw, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(window))
	if err == nil {
		z.r = z.zstd
	}
	return err
}

// fault tells damaged data from a source that broke.
func (z *Reader) fault(err error) error {
	if z.raw.err != nil && !errors.Is(z.raw.err, io.EOF) {
		return z.raw.err
	}
	return &terse.Error{Code: terse.CodeInvalid, Reason: "bad_compression", Message: "the body is not what its Content-Encoding says, or was cut", Err: err}
}

// Close frees the decoder. No Read may be under way.
func (z *Reader) Close() {
	if z.zstd != nil {
		z.zstd.Close()
	}
}

// source counts the compressed bytes and remembers how they ended.
type source struct {
	r   io.Reader
	n   int64
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.n += int64(n)
	s.err = err
	return n, err
}
