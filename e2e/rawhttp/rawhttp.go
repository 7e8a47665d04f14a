// Package rawhttp reads the answers of an HTTP/1.1 server at the cost of a few
// comparisons, for programs that send prepared requests at a high rate and want to
// know status, Location and whether the connection lives on.
//
// It is not a client: it takes answers with a Content-Length or without a body, which
// is all that a redirect server sends. It keeps one answer at a time and allocates
// nothing after the first.
package rawhttp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// maxHeader is the longest header block that is read, in bytes.
const maxHeader = 64 << 10

// ErrMalformed is what an answer is that this package cannot read.
var ErrMalformed = errors.New("malformed answer")

// Response is an answer. Its slices are valid until the next call of Next.
type Response struct {
	Status   int
	Location []byte // nil if there is none
	Header   []byte // the header lines, without the status line and the empty line
	Body     []byte
	Close    bool // the server closes the connection after this answer
}

// Reader reads answers from a connection.
type Reader struct {
	src      io.Reader
	buf      []byte
	from, to int // what of buf is read and not used
}

// NewReader returns a reader of src.
func NewReader(src io.Reader) *Reader { return &Reader{src: src, buf: make([]byte, 4096)} }

// Reset makes the reader read from src, forgetting what it holds.
func (r *Reader) Reset(src io.Reader) { r.src, r.from, r.to = src, 0, 0 }

var (
	endOfHeader   = []byte("\r\n\r\n")
	protocol      = []byte("HTTP/1.")
	nameLength    = []byte("content-length")
	nameLocation  = []byte("location")
	nameConn      = []byte("connection")
	nameTransfer  = []byte("transfer-encoding")
	valueClose    = []byte("close")
	lineSeparator = []byte("\r\n")
)

// Next reads the next answer into resp. head says that the request was HEAD, whose
// answers have no body. It returns io.EOF if the connection ended between answers.
func (r *Reader) Next(resp *Response, head bool) error {
	var end int
	for {
		if i := bytes.Index(r.buf[r.from:r.to], endOfHeader); i >= 0 {
			end = i
			break
		}
		if r.to-r.from >= maxHeader {
			return fmt.Errorf("%w: the header is longer than %d bytes", ErrMalformed, maxHeader)
		}
		if err := r.fill(); err != nil {
			if errors.Is(err, io.EOF) && r.to > r.from {
				return io.ErrUnexpectedEOF
			}
			return err
		}
	}
	h := r.buf[r.from : r.from+end]
	// HTTP/1.1 302 Found
	if len(h) < 12 || !bytes.HasPrefix(h, protocol) || h[8] != ' ' {
		return fmt.Errorf("%w: no status line", ErrMalformed)
	}
	resp.Status = 0
	for _, c := range h[9:12] {
		if c < '0' || c > '9' {
			return fmt.Errorf("%w: no status", ErrMalformed)
		}
		resp.Status = resp.Status*10 + int(c-'0')
	}
	length, err := readFields(resp, h)
	if err != nil {
		return err
	}
	if head || resp.Status == 204 || resp.Status == 304 {
		length = 0
	} else if length < 0 {
		return fmt.Errorf("%w: no length", ErrMalformed)
	}
	need := end + len(endOfHeader) + length
	for r.to-r.from < need {
		if err := r.fill(); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	if moved := r.buf[r.from : r.from+end]; &moved[0] != &h[0] {
		if _, err := readFields(resp, moved); err != nil { // the buffer has moved
			return err
		}
	}
	resp.Body = r.buf[r.from+need-length : r.from+need]
	r.from += need
	return nil
}

// readFields takes what matters from the header lines. length is -1 if there is none.
func readFields(resp *Response, h []byte) (length int, err error) {
	_, h, _ = bytes.Cut(h, lineSeparator)
	resp.Header, resp.Location, resp.Close, length = h, nil, false, -1
	for len(h) > 0 {
		var line []byte
		line, h, _ = bytes.Cut(h, lineSeparator)
		name, value, ok := bytes.Cut(line, []byte{':'})
		if !ok {
			return 0, fmt.Errorf("%w: a line without a colon", ErrMalformed)
		}
		value = bytes.TrimSpace(value)
		switch len(name) {
		case len(nameLocation):
			if bytes.EqualFold(name, nameLocation) {
				resp.Location = value
			}
		case len(nameConn):
			if bytes.EqualFold(name, nameConn) {
				resp.Close = bytes.EqualFold(value, valueClose)
			}
		case len(nameLength):
			if !bytes.EqualFold(name, nameLength) {
				continue
			}
			length = 0
			for _, c := range value {
				if c < '0' || c > '9' || length > 1<<30 {
					return 0, fmt.Errorf("%w: length %q", ErrMalformed, value)
				}
				length = length*10 + int(c-'0')
			}
		case len(nameTransfer):
			if bytes.EqualFold(name, nameTransfer) {
				return 0, fmt.Errorf("%w: a body in chunks", ErrMalformed)
			}
		}
	}
	return length, nil
}

// fill reads more, making room first.
func (r *Reader) fill() error {
	if r.from == r.to {
		r.from, r.to = 0, 0
	}
	if r.to == len(r.buf) {
		if r.from > 0 {
			r.to = copy(r.buf, r.buf[r.from:r.to])
			r.from = 0
		} else {
			r.buf = append(r.buf, make([]byte, len(r.buf))...)
		}
	}
	n, err := r.src.Read(r.buf[r.to:])
	r.to += n
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}
