package edge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/edge/wire"
)

const (
	// readWithin bounds a request that a visitor may wait for.
	readWithin = 2 * time.Second
	// backgroundWithin bounds one that nobody waits for.
	backgroundWithin = 10 * time.Second
	// sendWithin bounds one with a batch of clicks. The control plane waits for a batch somewhat longer.
	sendWithin = time.Minute
	// pingWithin is how long a connection may be silent, and how long the answer to a ping may then take: requests on one that the
	// network has dropped would wait on it in vain, each for its whole time.
	pingWithin = 5 * time.Second
	// maxConns bounds the connections for visitors. Others have two of their own.
	maxConns = 64
	// maxAnswer bounds what an answer may hold.
	maxAnswer = 64 << 20
	// failuresToOpen is how many requests fail in a row until the circuit opens.
	failuresToOpen = 3
	// probeEvery is how often one request is let through an open circuit.
	probeEvery = time.Second
)

// Client speaks to a control plane. Its methods may be called from many goroutines. Errors are of code unavailable if the
// control plane did not answer, cannot now, or does not want to: nothing is known then.
type Client struct {
	base       string
	key        string
	within     time.Duration // readWithin
	sendWithin time.Duration
	foreground http.Client
	background http.Client

	failures atomic.Int64           // of visitors' requests in a row: the feed may well go on where those hang
	probeAt  atomic.Int64           // Unix milliseconds; counts while failures are enough
	last     atomic.Pointer[string] // of the requests that nobody waits for
}

// NewClient returns a client for the control plane at a URL. Returns an error of code invalid for one that is none.
func NewClient(address, key string) (*Client, error) {
	return newClient(address, key, readWithin)
}

func newClient(address, key string, within time.Duration) (*Client, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, terse.Invalid("upstream.url", "is not an address such as https://control.example.com")
	}
	transport := func(conns int) *http.Transport {
		return &http.Transport{
			DialContext:         (&net.Dialer{Timeout: within}).DialContext,
			TLSHandshakeTimeout: 2 * within, MaxConnsPerHost: conns, MaxIdleConnsPerHost: conns, IdleConnTimeout: time.Minute,
			ForceAttemptHTTP2: true, HTTP2: &http.HTTP2Config{SendPingTimeout: pingWithin, PingTimeout: pingWithin},
		}
	}
	refuse := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Client{
		base: strings.TrimSuffix(address, "/"), key: key, within: within, sendWithin: sendWithin,
		foreground: http.Client{Transport: transport(maxConns), CheckRedirect: refuse},
		background: http.Client{Transport: transport(2), CheckRedirect: refuse},
	}, nil
}

// Close closes connections that are idle.
func (c *Client) Close() {
	c.foreground.CloseIdleConnections()
	c.background.CloseIdleConnections()
}

// errCircuit is what a request gets that was not sent. Its reason tells it from other errors of its code.
var errCircuit = &terse.Error{Code: terse.CodeUnavailable, Reason: "upstream_away", Message: "the upstream control plane does not answer"}

// admit reports whether a request may be sent.
func (c *Client) admit() bool {
	if c.failures.Load() < failuresToOpen {
		return true
	}
	now, at := time.Now().UnixMilli(), c.probeAt.Load()
	return now >= at && c.probeAt.CompareAndSwap(at, now+probeEvery.Milliseconds())
}

// visited notes whether the control plane answered a visitor's request.
func (c *Client) visited(err error) {
	if err == nil {
		c.failures.Store(0)
	} else if c.failures.Add(1) == failuresToOpen {
		c.probeAt.Store(time.Now().Add(probeEvery).UnixMilli())
	}
}

// Trouble says what is wrong with the last request that nobody waited for, such as that for changes; "" if it succeeded.
func (c *Client) Trouble() string {
	if p := c.last.Load(); p != nil {
		return *p
	}
	return ""
}

// request is one question.
type request struct {
	method string
	path   string
	query  url.Values
	mark   string // wire.HeaderMark; "": none
	body   []byte
	binary bool // body is no JSON but a batch of clicks

	// What the answer is decoded into; nil: it has none (status 204). ours then says whether it was one of a control plane.
	out  any
	ours func() bool
}

// asker is ask or askBehind.
type asker func(context.Context, request) error

// ask is for questions that a visitor waits for.
func (c *Client) ask(ctx context.Context, r request) error {
	if !c.admit() {
		return errCircuit
	}
	ctx, cancel := context.WithTimeout(ctx, c.within)
	defer cancel()
	err := c.do(ctx, &c.foreground, r)
	switch {
	case !errors.Is(err, terse.ErrUnavailable):
		c.visited(nil)
	case !errors.Is(ctx.Err(), context.Canceled): // else whoever asked has gone
		c.visited(err)
	}
	return err
}

// askBehind is for questions that nobody waits for. They are sent through an open circuit, and neither open nor close it.
func (c *Client) askBehind(ctx context.Context, r request) error {
	within := backgroundWithin
	if r.binary {
		within = c.sendWithin
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	err := c.do(ctx, &c.background, r)
	switch {
	case !errors.Is(err, terse.ErrUnavailable):
		c.last.Store(nil)
	case !errors.Is(ctx.Err(), context.Canceled):
		text := terse.Message(err)
		c.last.Store(&text)
	}
	return err
}

func (c *Client) do(ctx context.Context, client *http.Client, r request) error {
	status, answer, err := c.send(ctx, client, r)
	if err == nil {
		err = refusal(status, answer)
	}
	if err != nil {
		return err
	}
	// A page of a gateway may well be JSON with status 200: what is not ours says nothing, and is no success either.
	ours := status == http.StatusNoContent
	if r.out != nil {
		err = json.Unmarshal(answer, r.out)
		ours = err == nil && r.ours()
	}
	if !ours {
		return unavailable("the upstream control plane answers something else", err)
	}
	return nil
}

func (c *Client) send(ctx context.Context, client *http.Client, r request) (status int, answer []byte, err error) {
	address := c.base + r.path
	if len(r.query) > 0 {
		address += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, address, bytes.NewReader(r.body))
	if err != nil {
		return 0, nil, unavailable("the upstream control plane cannot be asked", err)
	}
	req.Header.Set("Authorization", "Bearer "+c.key)
	if r.mark != "" {
		req.Header.Set(wire.HeaderMark, r.mark)
	}
	if r.body != nil {
		req.Header.Set("Content-Type", "application/json")
		if r.binary {
			req.Header.Set("Content-Type", "application/octet-stream")
		}
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, unavailable("the upstream control plane does not answer", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if answer, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1)); err == nil && len(answer) > maxAnswer {
		err = errors.New("the answer is too long")
	}
	if err != nil {
		return 0, nil, unavailable("the upstream control plane does not answer", err)
	}
	return resp.StatusCode, answer, nil
}

func unavailable(message string, err error) error {
	return &terse.Error{Code: terse.CodeUnavailable, Message: message, Err: err}
}

// refusal returns the error that an answer stands for; nil for success.
func refusal(status int, answer []byte) error {
	if status >= 200 && status < 300 {
		return nil
	}
	var p struct {
		Code   string `json:"code"`
		Detail string `json:"detail"`
	}
	_ = json.Unmarshal(answer, &p) // whatever else answers has no code
	cause := fmt.Errorf("status %d %s: %s", status, p.Code, p.Detail)
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return unavailable("the upstream control plane refuses the key of this edge node", cause)
	case status == http.StatusPreconditionFailed && p.Code != "":
		return &terse.Error{Code: terse.CodePrecondition, Reason: p.Code, Message: p.Detail, Err: cause}
	case status == http.StatusConflict && p.Code != "":
		return &terse.Error{Code: terse.CodeConflict, Reason: p.Code, Message: p.Detail, Err: cause}
	case status == http.StatusServiceUnavailable && p.Detail != "":
		return unavailable("the upstream control plane: "+p.Detail, cause)
	}
	return unavailable("the upstream control plane answers with status "+strconv.Itoa(status), cause)
}

// link returns a link by number, or by domain and code if number is 0; nil if there is none.
func (c *Client) link(ctx context.Context, number terse.LinkNumber, domain terse.DomainID, code string) (json.RawMessage, error) {
	q := url.Values{}
	if code != "" {
		q.Set("code", code)
	}
	if number != 0 {
		q.Set("number", strconv.FormatUint(uint64(number), 10))
	} else {
		q.Set("domain", strconv.FormatUint(uint64(domain), 10))
	}
	var out wire.EdgeLink
	r := request{method: http.MethodGet, path: wire.PathLink, query: q, out: &out, ours: func() bool { return len(out.Link) > 0 }}
	if err := c.ask(ctx, r); err != nil || isNull(out.Link) {
		return nil, err
	}
	return out.Link, nil
}

// isNull reports whether a part of an answer says that there is nothing.
func isNull(b json.RawMessage) bool { return string(b) == "null" }

// document returns a document; nil if there is none.
func (c *Client) document(ctx context.Context, ask asker, w terse.WorkspaceID, kind terse.Kind, id string) (*wire.EdgeDocument, error) {
	q := url.Values{"workspace": {strconv.FormatUint(uint64(w), 10)}, "kind": {string(kind)}, "id": {id}}
	var out struct { // wire.EdgeDocumentAnswer
		Document json.RawMessage `json:"document"`
	}
	var d *wire.EdgeDocument
	ours := func() bool {
		return len(out.Document) > 0 && json.Unmarshal(out.Document, &d) == nil && (d == nil || d.Kind == kind && d.ID == id)
	}
	err := ask(ctx, request{method: http.MethodGet, path: wire.PathDocument, query: q, out: &out, ours: ours})
	if err != nil {
		return nil, err
	}
	return d, nil
}

// documents returns all domains or workspaces.
func (c *Client) documents(ctx context.Context, kind terse.Kind) (list []wire.EdgeDocument, err error) {
	for after := ""; ; {
		var out wire.EdgeDocuments
		q := url.Values{"kind": {string(kind)}, "after": {after}}
		r := request{method: http.MethodGet, path: wire.PathDocuments, query: q, out: &out, ours: func() bool { return out.Documents != nil }}
		if err := c.askBehind(ctx, r); err != nil {
			return nil, err
		}
		if len(out.Documents) == 0 {
			return list, nil
		}
		list = append(list, out.Documents...)
		after = list[len(list)-1].ID
	}
}

// position returns where the feed is: a page without changes.
func (c *Client) position(ctx context.Context) (*wire.EdgeChanges, error) {
	return c.feed(ctx, nil, "")
}

// changes returns what was written after a position; it waits up to wire.MaxWait. Without a mark there is nothing to compare.
func (c *Client) changes(ctx context.Context, after uint64, mark string) (*wire.EdgeChanges, error) {
	return c.feed(ctx, url.Values{"after": {strconv.FormatUint(after, 10)}}, mark)
}

func (c *Client) feed(ctx context.Context, q url.Values, mark string) (*wire.EdgeChanges, error) {
	var out wire.EdgeChanges
	r := request{method: http.MethodGet, path: wire.PathChanges, query: q, mark: mark, out: &out, ours: func() bool { return out.Changes != nil }}
	if err := c.askBehind(ctx, r); err != nil {
		return nil, err
	}
	return &out, nil
}

// claim writes how many clicks of a link are used up. Returns an error of code precondition or conflict if the version is not the
// next, and unknown_outcome if it is not known whether it was written.
func (c *Client) claim(ctx context.Context, link string, claim wire.EdgeClaim) error {
	body, err := json.Marshal(claim)
	if err != nil {
		return err
	}
	err = c.ask(ctx, request{method: http.MethodPut, path: wire.PathClaims + link, body: body})
	if errors.Is(err, terse.ErrUnavailable) && !errors.Is(err, errCircuit) {
		return &terse.Error{Code: terse.CodeUnknownOutcome, Message: terse.Message(err), Err: err}
	}
	return err
}

// salts returns the salts of visitors by day.
func (c *Client) salts(ctx context.Context) (map[string][16]byte, error) {
	var out wire.EdgeSalts
	r := request{method: http.MethodGet, path: wire.PathSalts, out: &out, ours: func() bool { return out.Salts != nil }}
	if err := c.askBehind(ctx, r); err != nil {
		return nil, err
	}
	days := make(map[string][16]byte, len(out.Salts))
	for day, salt := range out.Salts {
		if len(salt) == 16 {
			days[day] = [16]byte(salt)
		}
	}
	return days, nil
}

// clicksAt returns where the clicks of an edge go and up to where they are there.
func (c *Client) clicksAt(ctx context.Context, edge string) (wire.EdgeClicks, error) {
	return c.clicks(ctx, request{method: http.MethodGet, query: url.Values{"edge": {edge}}})
}

// sendClicks sends a batch and returns up to where the clicks are there.
func (c *Client) sendClicks(ctx context.Context, edge, receiver, from, to string, groups []byte) (wire.EdgeClicks, error) {
	q := url.Values{"edge": {edge}, "receiver": {receiver}, "from": {from}, "to": {to}}
	return c.clicks(ctx, request{method: http.MethodPatch, query: q, body: groups, binary: true})
}

func (c *Client) clicks(ctx context.Context, r request) (out wire.EdgeClicks, err error) {
	r.path, r.out, r.ours = wire.PathClicks, &out, func() bool { return out.Receiver != "" }
	err = c.askBehind(ctx, r)
	return out, err
}

// Check asks the control plane for what an edge needs first, and says in words what it found.
func (c *Client) Check(ctx context.Context) (found string, err error) {
	at, err := c.position(ctx)
	if err != nil {
		return "", err
	}
	to, err := c.clicksAt(ctx, "0000000000000000")
	if err != nil {
		return "", fmt.Errorf("clicks: %w", err)
	}
	return fmt.Sprintf("%s answers; its feed is at %d, clicks go into the spool %s", c.base, at.Position, to.Receiver), nil
}
