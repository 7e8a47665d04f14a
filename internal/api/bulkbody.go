package api

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/terselink/terse/internal/inflate"
)

var errStopped = errors.New("the request has ended")

// bulkBody is the body of a bulk request: it ends reads that stand still, decompresses,
// and refuses bombs. After stop no Read is under way and none begins, so the
// connection may be given back although a goroutine of the pipeline still holds the body.
type bulkBody struct {
	rc  *http.ResponseController
	raw io.Reader // as it is sent

	eof     atomic.Bool
	ending  atomic.Bool // Read is over
	mu      sync.Mutex  // held while the body is read
	r       *inflate.Reader
	stopped bool
}

// newBulkBody returns the reader of a body with a Content-Encoding.
func newBulkBody(body io.Reader, rc *http.ResponseController, encoding string) (*bulkBody, error) {
	e, ok := inflate.ParseEncoding(encoding)
	if !ok {
		return nil, newProblem(http.StatusUnsupportedMediaType, "a body may be compressed with gzip or zstd").header("Accept-Encoding", "gzip, zstd")
	}
	return &bulkBody{rc: rc, raw: body, r: inflate.New(body, e)}, nil
}

// Read implements io.Reader. Errors of the compression are of code invalid, a bomb
// is of code too_large.
func (b *bulkBody) Read(p []byte) (n int, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stopped {
		return 0, errStopped
	}
	_ = b.rc.SetReadDeadline(time.Now().Add(bulkIdle)) // connections without deadlines, as in tests, are fine
	if b.ending.Load() {                               // the deadline of whoever ends it may have come before
		return 0, errStopped
	}
	n, err = b.r.Read(p)
	if errors.Is(err, io.EOF) {
		b.eof.Store(true)
		// A deadline that passes now would end the context of the request.
		_ = b.rc.SetReadDeadline(time.Time{})
	}
	return n, err
}

// lingerTime is how long a client may still send after its request failed. net/http waits as long for the same reason.
const lingerTime = 500 * time.Millisecond

// linger ends Read and throws away what the client sends for a moment: a connection that is closed while bytes come in
// is reset, and with that the client loses what it has not read yet.
func (b *bulkBody) linger() {
	if b.eof.Load() {
		return
	}
	b.ending.Store(true)
	_ = b.rc.SetReadDeadline(time.Now().Add(lingerTime)) // also wakes a Read that waits for the client
	b.mu.Lock()
	defer b.mu.Unlock()
	_, _ = io.Copy(io.Discard, b.raw) // to the end of the body, the deadline or the connection
}

// stop ends a Read under way and waits for it.
func (b *bulkBody) stop() {
	b.ending.Store(true)
	if !b.eof.Load() {
		_ = b.rc.SetReadDeadline(time.Unix(1, 0)) // long past: wakes a Read that waits for the client
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stopped = true
	b.r.Close()
}
