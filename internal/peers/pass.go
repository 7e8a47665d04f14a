package peers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"sync/atomic"
	"time"
)

// errStalled ends a request in which the other node, or the visitor, stands still.
var errStalled = errors.New("it stood still for too long")

// ErrBody says that the body of the visitor ended before it was complete. The other node may have kept what came before.
var ErrBody = errors.New("the body of the request ended before it was complete")

// Pass sends a request to a node and its answer to w, both as they come. client is the address of the visitor, for a node
// that believes this one; "": it is not known. If it returns an error nothing was written to w: one of code unavailable, or
// unknown_outcome if the node may have done what was asked, or ErrBody. It panics with http.ErrAbortHandler, as handlers do, if the
// answer breaks off. The body of r may be read until it returns, and no longer.
func (c *Client) Pass(w http.ResponseWriter, r *http.Request, t *Target, client string) (err error) {
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	var sent atomic.Bool
	visitor := r.Context()
	r = r.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: func() { sent.Store(true) }}))
	watch := func() *time.Timer {
		t := time.AfterFunc(c.o.Stall, func() { cancel(errStalled) })
		t.Stop()
		return t
	}
	there, back := watch(), watch()
	defer there.Stop()
	defer back.Stop()
	var body *sending
	if r.ContentLength != 0 {
		body = &sending{ReadCloser: r.Body, stall: there, after: c.o.Stall}
		r.Body = body
	}
	unhook := func() bool { return true }
	defer func() { unhook() }()
	proxy := &httputil.ReverseProxy{
		Transport: c.transport,
		ErrorLog:  slog.NewLogLogger(slog.DiscardHandler, slog.LevelError), // what it says is returned
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(t.url)
			p.Out.URL.RawQuery = p.In.URL.RawQuery // as it is, for the other node to judge
			h := p.Out.Header
			// This node has asked the body of the visitor already, has checked where a browser comes from, and changes no protocols.
			for _, name := range []string{"Expect", "Origin", "Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest", "Sec-Fetch-User", "Upgrade", "Connection", "Te"} {
				h.Del(name)
			}
			h.Set(Hop, c.o.Self)
			h.Set("X-Request-Id", w.Header().Get("X-Request-Id"))
			if client != "" {
				h.Set("X-Forwarded-For", client)
			}
		},
		ModifyResponse: func(resp *http.Response) error {
			c.results.WithLabelValues(answered).Inc()
			h := w.Header()
			for name := range resp.Header { // the other node has said the same, or knows better
				h.Del(name)
			}
			there.Stop() // what of the request is not taken yet is not wanted
			body := &receiving{ReadCloser: resp.Body, stall: back, after: c.o.Stall}
			if kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); kind == "text/event-stream" {
				body.closed = c.ctx
				unhook = context.AfterFunc(c.ctx, func() { cancel(nil) })
			}
			resp.Body = body
			return nil
		},
		ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, e error) {
			if cause := context.Cause(ctx); errors.Is(cause, errStalled) {
				e = cause
			}
			if body.broke(visitor) {
				err = fmt.Errorf("%w: %w", ErrBody, e)
				return
			}
			err = c.failed(visitor, t, r.Method, sent.Load(), e)
		},
	}
	proxy.ServeHTTP(&patient{ResponseWriter: w, rc: http.NewResponseController(w), after: c.o.Stall}, r)
	return err
}

// failed returns the error of a request that was not answered.
func (c *Client) failed(visitor context.Context, t *Target, method string, sent bool, err error) error {
	if errors.Is(visitor.Err(), context.Canceled) {
		return visitor.Err() // nobody waits for the answer
	}
	if sent && method != http.MethodGet && method != http.MethodHead {
		c.results.WithLabelValues(unknown).Inc()
		return errNoAnswer(t.name, err)
	}
	c.results.WithLabelValues(unavailable).Inc()
	return errAway(t.name, err)
}

// sending is the body of a request that is passed on. While the other node has to take what was read, it may not stand still;
// how long the visitor may is for whoever made the body to say.
type sending struct {
	io.ReadCloser
	stall *time.Timer
	after time.Duration

	whole, cut atomic.Bool // read to its end, or to an error
}

func (b *sending) Read(p []byte) (int, error) {
	b.stall.Stop()
	n, err := b.ReadCloser.Read(p)
	switch {
	case err == nil:
	case errors.Is(err, io.EOF):
		b.whole.Store(true)
	default:
		b.cut.Store(true)
		return n, err
	}
	b.stall.Reset(b.after) // after the end there is as long for the first byte of the answer
	return n, err
}

// broke reports whether the visitor did not send all of the body. An error of reading it ends the context of the visitor, too,
// maybe before Read returns; nil is a request without a body.
func (b *sending) broke(visitor context.Context) bool {
	return b != nil && (b.cut.Load() || !b.whole.Load() && errors.Is(visitor.Err(), context.Canceled))
}

// receiving is the body of an answer, in which the other node may not stand still. Events say every few seconds that they are there.
type receiving struct {
	io.ReadCloser
	stall  *time.Timer
	after  time.Duration
	closed context.Context // when it is over the body ends well; nil: never
}

func (b *receiving) Read(p []byte) (int, error) {
	b.stall.Reset(b.after)
	n, err := b.ReadCloser.Read(p)
	b.stall.Stop()
	if err != nil && b.closed != nil && b.closed.Err() != nil {
		err = io.EOF
	}
	return n, err
}

// patient is an answer that the visitor has to take, piece by piece.
type patient struct {
	http.ResponseWriter
	rc    *http.ResponseController
	after time.Duration
}

func (w *patient) Write(p []byte) (int, error) {
	_ = w.rc.SetWriteDeadline(time.Now().Add(w.after)) // writers without deadlines are fine
	return w.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *patient) Unwrap() http.ResponseWriter { return w.ResponseWriter }
