package client

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"

	"github.com/go-json-experiment/json"
)

// Format is the form of a bulk body.
type Format string

// The forms that the server reads.
const (
	NDJSON Format = "application/x-ndjson" // one link object a line
	CSV    Format = "text/csv"             // a header line with the names of fields, then rows
	JSON   Format = "application/json"     // an array of link objects
)

// maxResultLine is the longest line of an answer that is read, in bytes. A
// result may repeat a destination of 8 KiB with every byte escaped.
const maxResultLine = 256 << 10

// BulkOptions say what a bulk request makes.
type BulkOptions struct {
	Domain     string // "" is the workspace's default
	CampaignID string
	Atomic     bool   // create nothing unless every row is valid and free
	DryRun     bool   // validate the rows and create nothing; the summary counts those that could be created
	Format     Format // of the body; "" is NDJSON
	// IdempotencyKey makes a repetition of the same body return the same codes, on
	// servers that keep such keys for bulk. "" sends none.
	IdempotencyKey string
}

// BulkSummary counts the rows of a bulk request that was answered whole.
type BulkSummary struct {
	Created uint64 `json:"created"`
	Reused  uint64 `json:"reused"`
	Failed  uint64 `json:"failed"`
}

// BulkResult is what became of one row.
type BulkResult struct {
	Index      uint64    // of the row, from 0
	ShortURL   string    // "" if the row failed
	Code       string    // "" if the row failed
	ID         string    // "" if the row failed
	ExternalID string    // as the row gave it
	Existing   bool      // the link was there before (IfExists "reuse")
	Err        *RowError // nil if the link exists
}

// RowError says why a row made no link.
type RowError struct {
	Code    string `json:"code"`           // what programs test, such as "invalid_destination"
	Field   string `json:"field,omitzero"` // at fault, such as "destination"; "" if none is
	Message string `json:"message"`        // for people
}

// Error implements error.
func (e *RowError) Error() string { return e.Message + " (" + e.Code + ")" }

// CutError is the end of an answer that is not its end: the server, the network
// or the input failed on the way.
type CutError struct {
	Durable uint64 // rows that were answered: what they say is durable
	Err     error  // why, as far as it is known
}

// Error implements error.
func (e *CutError) Error() string {
	if e.Durable == 0 {
		return fmt.Sprintf("the answer was cut before its first row; it is not known whether there are links now: %v", e.Err)
	}
	return fmt.Sprintf("the answer was cut after %d rows, which are durable; of later rows it is not known whether they are: %v", e.Durable, e.Err)
}

// Unwrap returns the cause.
func (e *CutError) Unwrap() error { return e.Err }

// BulkStream is the answer to a bulk request while it comes in. The request is still
// being sent meanwhile, so somebody must read: the server stops taking rows when
// its results find no reader. A BulkStream belongs to one goroutine.
type BulkStream struct {
	cancel  context.CancelFunc
	body    io.ReadCloser
	in      *inputReader
	r       *bufio.Reader
	line    []byte
	rows    uint64
	done    bool
	summary BulkSummary
	err     error
}

// BulkStream sends body, whatever its size, in one request and returns the answer as
// soon as it begins. The caller closes the stream. Body is read by another
// goroutine, until the stream is closed or ends.
//
// Returns *Error if the server refuses the request as a whole; then it created
// nothing. Returns *CutError if the connection broke after rows were sent. It is not
// repeated by itself.
func (c *Client) BulkStream(ctx context.Context, o BulkOptions, body io.Reader) (*BulkStream, error) {
	return c.bulkStream(ctx, "/links/bulk", o, body)
}

// bulkStream is BulkStream for every operation that is answered as bulk requests are.
func (c *Client) bulkStream(ctx context.Context, path string, o BulkOptions, body io.Reader) (*BulkStream, error) {
	if o.Format == "" {
		o.Format = NDJSON
	}
	q := url.Values{}
	set(q, "domain", o.Domain)
	set(q, "campaign_id", o.CampaignID)
	if o.Atomic {
		q.Set("atomic", "true")
	}
	if o.DryRun {
		q.Set("dry_run", "true")
	}
	ctx, cancel := context.WithCancel(ctx)
	in := &inputReader{r: body}
	req, err := c.request(ctx, http.MethodPost, path, q, in)
	if err != nil {
		cancel()
		return nil, err
	}
	req.Header.Set("Content-Type", string(o.Format))
	req.Header.Set("Accept", string(NDJSON))
	// Results by the million: a caller's own transport would ask for gzip by itself.
	req.Header.Set("Accept-Encoding", "identity")
	// The server answers 401, 413 and the like before the body is sent, instead
	// of closing the connection in the middle of it, which would hide the answer.
	req.Header.Set("Expect", "100-continue")
	if o.IdempotencyKey != "" {
		req.Header.Set("Idempotency-Key", o.IdempotencyKey)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		cancel()
		if inErr := in.failure(); inErr != nil {
			return nil, inErr
		}
		err = trimURL(err)
		if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
			return nil, err
		}
		return nil, &CutError{Err: err}
	}
	if resp.StatusCode != http.StatusOK {
		defer cancel()
		defer resp.Body.Close()
		return nil, readError(resp)
	}
	return &BulkStream{
		cancel: cancel,
		body:   resp.Body,
		in:     in,
		r:      bufio.NewReaderSize(resp.Body, maxResultLine),
	}, nil
}

// Next waits for the next result and reports whether there is one. After false, Err
// tells the end of a whole answer (nil) from a cut one (*CutError).
func (s *BulkStream) Next() bool {
	if s.done || s.err != nil {
		return false
	}
	line, err := s.r.ReadSlice('\n')
	if err != nil {
		s.cut(err)
		return false
	}
	line = line[:len(line)-1]
	rest, ok := bytes.CutPrefix(line, indexPrefix)
	if !ok {
		return s.other(line)
	}
	// Results come in input order, one a row, so a row that is missing or comes twice shows here.
	if index, _ := scanUint(rest); index != s.rows {
		s.cut(fmt.Errorf("the server answered row %d where row %d was due", index, s.rows))
		return false
	}
	s.rows++
	s.line = line
	return true
}

// indexPrefix starts every result of a row.
var indexPrefix = []byte(`{"index":`)

// other takes a line that does not begin as results do: the last one, an error
// that ended the stream, or a result in an unusual order of fields.
func (s *BulkStream) other(line []byte) bool {
	var l struct {
		Index       *uint64   `json:"index"`
		Done        bool      `json:"done"`
		Error       *RowError `json:"error"`
		BulkSummary `json:",embed"`
	}
	if err := json.Unmarshal(line, &l); err != nil {
		s.cut(fmt.Errorf("a line of the answer is not JSON: %w", err))
		return false
	}
	switch {
	case l.Index != nil && *l.Index == s.rows:
		s.rows++
		s.line = line
		return true
	case l.Index != nil:
		s.cut(fmt.Errorf("the server answered row %d where row %d was due", *l.Index, s.rows))
	case l.Done:
		s.finish(l.BulkSummary)
	case l.Error != nil:
		s.cut(l.Error)
	default:
		s.cut(errors.New("a line of the answer is neither a result nor the end"))
	}
	return false
}

// finish takes the last line and holds it against what came before it.
func (s *BulkStream) finish(sum BulkSummary) {
	if total := sum.Created + sum.Reused + sum.Failed; total != s.rows {
		s.cut(fmt.Errorf("the server counts %d rows and answered %d", total, s.rows))
		return
	}
	if rest, err := s.r.ReadSlice('\n'); err != io.EOF || len(rest) > 0 {
		s.cut(errors.New("something follows the last line of the answer"))
		return
	}
	s.done, s.summary, s.line = true, sum, nil
}

func (s *BulkStream) cut(err error) {
	switch inErr := s.in.failure(); {
	case inErr != nil:
		err = inErr
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		err = errors.New("the connection was closed")
	case errors.Is(err, bufio.ErrBufferFull):
		err = fmt.Errorf("a line of the answer is longer than %d bytes", maxResultLine)
	}
	s.line = nil
	s.err = &CutError{Durable: s.rows, Err: err}
}

// Bytes returns the current result as the server wrote it, one JSON object without the
// line break. It is valid until the next call of Next.
func (s *BulkStream) Bytes() []byte { return s.line }

// Decode reads the current result into r, whose slices are valid until the next
// call of Next. Returns an error if it is not a result.
func (s *BulkStream) Decode(r *RawResult) error { return r.decode(s.line) }

// Buffered returns how many bytes of the answer have come in and not been returned
// yet. At 0 Next may have to wait.
func (s *BulkStream) Buffered() int { return s.r.Buffered() }

// Rows returns how many results Next has returned.
func (s *BulkStream) Rows() uint64 { return s.rows }

// Err returns nil while results come and after a whole answer, else a *CutError.
func (s *BulkStream) Err() error { return s.err }

// Summary returns what the last line counted. It is zero unless Next returned false and Err nil.
func (s *BulkStream) Summary() BulkSummary { return s.summary }

// Close ends the request if it is still under way. A second Close is nil.
func (s *BulkStream) Close() error {
	s.cancel()
	return s.body.Close()
}

// Results yields every result that is left. An error, a *CutError, ends the loop.
func (s *BulkStream) Results() iter.Seq2[BulkResult, error] {
	return func(yield func(BulkResult, error) bool) {
		var raw RawResult
		for s.Next() {
			if err := s.Decode(&raw); err != nil {
				s.cut(err)
				break
			}
			if !yield(raw.result(), nil) {
				return
			}
		}
		if s.err != nil {
			yield(BulkResult{}, s.err)
		}
	}
}

// Bulk makes a link of every row in one request and yields what became of them, in
// order, while it sends on. An error ends the loop: *Error if the server refused
// the request as a whole, *CutError if it was cut on the way.
//
// Rows runs in a goroutine of its own, and may be asked for one more row after the loop was left.
func (c *Client) Bulk(ctx context.Context, o BulkOptions, rows iter.Seq[NewLink]) iter.Seq2[BulkResult, error] {
	return func(yield func(BulkResult, error) bool) {
		bulkRows(ctx, c, "/links/bulk", o, rows, yield)
	}
}

// bulkRows sends rows to an operation that is answered as bulk requests are, and yields the results.
func bulkRows[T any](ctx context.Context, c *Client, path string, o BulkOptions, rows iter.Seq[T], yield func(BulkResult, error) bool) {
	pr, pw := io.Pipe()
	go func() { pw.CloseWithError(writeRows(pw, rows)) }()
	o.Format = NDJSON
	s, err := c.bulkStream(ctx, path, o, pr)
	if err != nil {
		pr.CloseWithError(err)
		yield(BulkResult{}, err)
		return
	}
	defer s.Close()
	defer pr.Close()
	for r, err := range s.Results() {
		if !yield(r, err) {
			return
		}
	}
}

// writeRows writes the rows as NDJSON.
func writeRows[T any](w io.Writer, rows iter.Seq[T]) error {
	bw := bufio.NewWriterSize(w, 64<<10)
	n := 0
	for row := range rows {
		b, err := json.Marshal(row)
		if err != nil {
			return fmt.Errorf("encode row %d: %w", n, err)
		}
		if _, err := bw.Write(append(b, '\n')); err != nil {
			return err
		}
		n++
	}
	return bw.Flush()
}

// inputReader keeps the error of the caller's reader, which net/http would report as
// a failure of the connection.
type inputReader struct {
	r   io.Reader
	err atomic.Pointer[error]
}

// Read implements io.Reader.
func (in *inputReader) Read(p []byte) (int, error) {
	n, err := in.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrClosedPipe) {
		err = fmt.Errorf("read the rows: %w", err)
		in.err.Store(&err)
	}
	return n, err
}

func (in *inputReader) failure() error {
	if p := in.err.Load(); p != nil {
		return *p
	}
	return nil
}

// scanUint reads the decimal number at the start of b and returns it with what
// follows. What is no number below 10^19 is 2^64-1, which no row has.
func scanUint(b []byte) (uint64, []byte) {
	var n uint64
	i := 0
	for i < len(b) && b[i]-'0' <= 9 {
		n = n*10 + uint64(b[i]-'0')
		i++
	}
	if i == 0 || i > 19 || i > 1 && b[0] == '0' {
		n = 1<<64 - 1
	}
	return n, b[i:]
}
