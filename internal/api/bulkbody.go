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
	rc *http.ResponseController

	eof     atomic.Bool
	mu      sync.Mutex // held during Read
	r       *inflate.Reader
	stopped bool
}

// newBulkBody returns the reader of a body with a Content-Encoding.
func newBulkBody(body io.Reader, rc *http.ResponseController, encoding string) (*bulkBody, error) {
	e, ok := inflate.ParseEncoding(encoding)
	if !ok {
		return nil, newProblem(http.StatusUnsupportedMediaType, "a body may be compressed with gzip or zstd").header("Accept-Encoding", "gzip, zstd")
	}
	return &bulkBody{rc: rc, r: inflate.New(body, e)}, nil
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
	n, err = b.r.Read(p)
	if errors.Is(err, io.EOF) {
		b.eof.Store(true)
		// A deadline that passes now would end the context of the request.
		_ = b.rc.SetReadDeadline(time.Time{})
	}
	return n, err
}

// stop ends a Read under way and waits for it.
func (b *bulkBody) stop() {
	if !b.eof.Load() {
		_ = b.rc.SetReadDeadline(time.Unix(1, 0)) // long past: wakes a Read that waits for the client
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stopped = true
	b.r.Close()
}
