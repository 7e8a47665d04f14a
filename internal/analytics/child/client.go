package child

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/clicks"
)

// errDown is the answer while no child answers.
var errDown = &terse.Error{Code: terse.CodeUnavailable, Reason: "analytics_down",
	Message: "analytics are not available at the moment; clicks are being recorded and will be counted"}

// client speaks to the child over its socket.
type client struct {
	http *http.Client
}

func newClient(socket string) *client {
	var d net.Dialer
	return &client{http: &http.Client{Transport: &http.Transport{
		DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", socket) },
		MaxIdleConnsPerHost: 8,
		DisableCompression:  true,
	}}}
}

func (c *client) close() { c.http.CloseIdleConnections() }

// call asks the child. Errors of the child come back as they were; a child that cannot be
// reached, or dies meanwhile, is errDown.
func (c *client) call(ctx context.Context, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("ask analytics: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://analytics"+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("ask analytics: %w", err)
	}
	// Lets the transport repeat the request on a new connection if an idle one
	// turns out to belong to a child that died. Calls only read, or put facts, which may be put twice.
	req.Header["Idempotency-Key"] = nil
	resp, err := c.http.Do(req)
	if err != nil {
		return c.failed(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		var w wireError
		if err := readJSON(resp.Body, &w); err != nil {
			return c.failed(ctx, err)
		}
		return w.err()
	}
	if events, ok := out.(*[]clicks.Event); ok {
		b, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
		if err == nil {
			*events, err = readEvents(b)
		}
		if err != nil {
			return c.failed(ctx, err)
		}
		return nil
	}
	if err := readJSON(resp.Body, out); err != nil {
		return c.failed(ctx, err)
	}
	return nil
}

func (c *client) failed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("ask analytics: %w", errors.Join(ctx.Err(), err))
	}
	down := *errDown
	down.Err = err
	return &down
}

func (c *client) summary(ctx context.Context, q analytics.Query) (r analytics.Summary, err error) {
	err = c.call(ctx, "/summary", toWire(q), &r)
	return r, err
}

func (c *client) timeseries(ctx context.Context, q analytics.Query) (r analytics.Timeseries, err error) {
	err = c.call(ctx, "/timeseries", toWire(q), &r)
	return r, err
}

func (c *client) breakdown(ctx context.Context, q analytics.Query) (r analytics.Breakdown, err error) {
	err = c.call(ctx, "/breakdown", toWire(q), &r)
	return r, err
}

func (c *client) slots(ctx context.Context, q analytics.Query) (r []analytics.Slot, err error) {
	err = c.call(ctx, "/slots", toWire(q), &r)
	return r, err
}

func (c *client) clicks(ctx context.Context, q analytics.Query, p analytics.Page) (r []clicks.Event, err error) {
	err = c.call(ctx, "/clicks", wireClicks{toWire(q), p}, &r)
	return r, err
}

func (c *client) funnel(ctx context.Context, q analytics.Query) (r analytics.Funnel, err error) {
	err = c.call(ctx, "/funnel", toWire(q), &r)
	return r, err
}

func (c *client) conversions(ctx context.Context, q analytics.Query) (r analytics.ConversionBreakdown, err error) {
	err = c.call(ctx, "/conversions", toWire(q), &r)
	return r, err
}

func (c *client) factsAt(ctx context.Context) (r wireFacts, err error) {
	err = c.call(ctx, "/facts/at", struct{}{}, &r)
	return r, err
}

func (c *client) putFacts(ctx context.Context, b analytics.FactBatch) error {
	return c.call(ctx, "/facts", b, &struct{}{})
}

func (c *client) totals(ctx context.Context, w terse.WorkspaceID, links []terse.LinkNumber) (map[terse.LinkNumber]analytics.LinkTotal, error) {
	var r []wireTotal
	if err := c.call(ctx, "/totals", wireLinks{w, links}, &r); err != nil {
		return nil, err
	}
	m := make(map[terse.LinkNumber]analytics.LinkTotal, len(r))
	for _, t := range r {
		m[t.Link] = t.Total
	}
	return m, nil
}

func (c *client) erase(ctx context.Context, e analytics.Erasure) (n int64, err error) {
	err = c.call(ctx, "/erase", e, &n)
	return n, err
}

func (c *client) status(ctx context.Context) (s wireStatus, err error) {
	err = c.call(ctx, "/status", struct{}{}, &s)
	return s, err
}
