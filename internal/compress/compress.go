// Package compress compresses streams for whoever reads them while they are written: what was
// flushed can be decompressed, and memory is bounded whatever the length. It is the other
// direction of package inflate, whose encodings it takes.
package compress

import (
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/terselink/terse/internal/inflate"
)

// window of zstd, in bytes: how far back it looks, and with that the memory of a stream on both sides.
const window = 512 << 10

// Writer compresses what is written to it. It belongs to one goroutine. One that is not closed leaves a
// stream without an end, which every decoder reports.
type Writer struct {
	w     io.Writer
	e     encoder // nil: passes through, or closed
	pool  *sync.Pool
	dirty bool // something was written since the last Flush
}

type encoder interface {
	io.WriteCloser
	Flush() error
	Reset(w io.Writer)
}

// Encoders have tables of a megabyte, so they are used again.
var (
	gzips = sync.Pool{New: func() any {
		e, err := gzip.NewWriterLevel(io.Discard, gzip.BestSpeed)
		if err != nil {
			panic(err) // the level is a constant
		}
		return e
	}}
	zstds = sync.Pool{New: func() any {
		e, err := zstd.NewWriter(io.Discard, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
			zstd.WithWindowSize(window), zstd.WithLowerEncoderMem(true), zstd.WithZeroFrames(true))
		if err != nil {
			panic(err) // the options are constants
		}
		return e
	}}
)

// New returns a Writer to w in one of the encodings of package inflate; Identity passes through.
func New(encoding string, w io.Writer) *Writer {
	z := &Writer{w: w}
	switch encoding {
	case inflate.Gzip:
		z.pool = &gzips
	case inflate.Zstd:
		z.pool = &zstds
	default:
		return z
	}
	z.e = z.pool.Get().(encoder)
	z.e.Reset(w)
	return z
}

// Write implements io.Writer.
func (z *Writer) Write(p []byte) (int, error) {
	if z.e == nil {
		return z.w.Write(p)
	}
	z.dirty = z.dirty || len(p) > 0
	return z.e.Write(p)
}

// Flush writes out everything that was written, so that it can be decompressed.
func (z *Writer) Flush() error {
	if z.e == nil || !z.dirty {
		return nil
	}
	z.dirty = false
	return z.e.Flush()
}

// Close ends the stream; it does not close what is under it. A second Close is nil.
func (z *Writer) Close() error {
	if z.e == nil {
		return nil
	}
	e := z.e
	z.e = nil
	if err := e.Close(); err != nil {
		return err
	}
	e.Reset(io.Discard) // lets go of w
	z.pool.Put(e)
	return nil
}
