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
	foreground http.Client
	background http.Client

	failures atomic.Int64
	probeAt  atomic.Int64 // Unix milliseconds; counts while failures are enough
	last     atomic.Pointer[string]
}

// NewClient returns a client for the control plane at a URL. Returns an error of code invalid for one that is none.
func NewClient(address, key string) (*Client, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, terse.Invalid("upstream.url", "is not an address such as https://control.example.com")
	}
	transport := func(conns int) *http.Transport {
		return &http.Transport{
			DialContext:         (&net.Dialer{Timeout: readWithin}).DialContext,
			TLSHandshakeTimeout: 2 * readWithin, ForceAttemptHTTP2: true, MaxConnsPerHost: conns, MaxIdleConnsPerHost: conns, IdleConnTimeout: time.Minute,
		}
	}
	refuse := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Client{
		base: strings.TrimSuffix(address, "/"), key: key,
		foreground: http.Client{Transport: transport(maxConns), CheckRedirect: refuse},
		background: http.Client{Transport: transport(2), CheckRedirect: refuse},
	}, nil
}

// Close closes connections that are idle.
func (c *Client) Close() {
	c.foreground.CloseIdleConnections()
	c.background.CloseIdleConnections()
}

// errCircuit is what a request gets that was not sent.
var errCircuit = &terse.Error{Code: terse.CodeUnavailable, Message: "the upstream control plane does not answer"}

// admit reports whether a request may be sent.
func (c *Client) admit() bool {
	if c.failures.Load() < failuresToOpen {
		return true
	}
	now, at := time.Now().UnixMilli(), c.probeAt.Load()
	return now >= at && c.probeAt.CompareAndSwap(at, now+probeEvery.Milliseconds())
}

// answered notes whether the control plane answered.
func (c *Client) answered(err error) {
	if err == nil {
		c.failures.Store(0)
		c.last.Store(nil)
		return
	}
	text := terse.Message(err)
	c.last.Store(&text)
	if c.failures.Add(1) == failuresToOpen {
		c.probeAt.Store(time.Now().Add(probeEvery).UnixMilli())
	}
}

// Trouble says what is wrong with the last request that failed; "" if one has succeeded since.
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
	body   []byte
	binary bool // body is no JSON
}

// ask is for questions that a visitor waits for.
func (c *Client) ask(ctx context.Context, r request, out any) error {
	if !c.admit() {
		return errCircuit
	}
	ctx, cancel := context.WithTimeout(ctx, readWithin)
	defer cancel()
	return c.do(ctx, &c.foreground, r, out)
}

// askBehind is for questions that nobody waits for. They are sent through an open circuit, and close it.
func (c *Client) askBehind(ctx context.Context, r request, out any) error {
	ctx, cancel := context.WithTimeout(ctx, backgroundWithin)
	defer cancel()
	return c.do(ctx, &c.background, r, out)
}

func (c *Client) do(ctx context.Context, client *http.Client, r request, out any) error {
	status, answer, err := c.send(ctx, client, r)
	if err == nil {
		err = refusal(status, answer)
	}
	away := errors.Is(err, terse.ErrUnavailable)
	switch {
	case !away:
		c.answered(nil)
	case !errors.Is(ctx.Err(), context.Canceled): // else whoever asked has gone
		c.answered(err)
	}
	if err != nil || out == nil {
		return err
	}
	if err := json.Unmarshal(answer, out); err != nil {
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
	var out struct {
		Link *json.RawMessage `json:"link"`
	}
	if err := c.ask(ctx, request{method: http.MethodGet, path: wire.PathLink, query: q}, &out); err != nil || out.Link == nil {
		return nil, err
	}
	return *out.Link, nil
}

// document returns a document; nil if there is none.
func (c *Client) document(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, id string) (*wire.EdgeDocument, error) {
	q := url.Values{"workspace": {strconv.FormatUint(uint64(w), 10)}, "kind": {string(kind)}, "id": {id}}
	var out wire.EdgeDocumentAnswer
	if err := c.ask(ctx, request{method: http.MethodGet, path: wire.PathDocument, query: q}, &out); err != nil {
		return nil, err
	}
	return out.Document, nil
}

// documents returns all domains or workspaces.
func (c *Client) documents(ctx context.Context, kind terse.Kind) (list []wire.EdgeDocument, err error) {
	for after := ""; ; {
		var out wire.EdgeDocuments
		q := url.Values{"kind": {string(kind)}, "after": {after}}
		if err := c.askBehind(ctx, request{method: http.MethodGet, path: wire.PathDocuments, query: q}, &out); err != nil {
			return nil, err
		}
		if len(out.Documents) == 0 {
			return list, nil
		}
		list = append(list, out.Documents...)
		after = list[len(list)-1].ID
	}
}

// position returns where the feed is.
func (c *Client) position(ctx context.Context) (uint64, error) {
	var out wire.EdgeChanges
	err := c.askBehind(ctx, request{method: http.MethodGet, path: wire.PathChanges}, &out)
	return out.Position, err
}

// changes returns what was written after a position; it waits up to wire.MaxWait.
func (c *Client) changes(ctx context.Context, after uint64) (*wire.EdgeChanges, error) {
	var out wire.EdgeChanges
	q := url.Values{"after": {strconv.FormatUint(after, 10)}}
	err := c.askBehind(ctx, request{method: http.MethodGet, path: wire.PathChanges, query: q}, &out)
	return &out, err
}

// claim writes how many clicks of a link are used up. Returns an error of code conflict if the version is not the next, and
// unknown_outcome if it is not known whether it was written.
func (c *Client) claim(ctx context.Context, link string, claim wire.EdgeClaim) error {
	body, err := json.Marshal(claim)
	if err != nil {
		return err
	}
	if !c.admit() {
		return errCircuit
	}
	ctx, cancel := context.WithTimeout(ctx, readWithin)
	defer cancel()
	err = c.do(ctx, &c.foreground, request{method: http.MethodPut, path: wire.PathClaims + link, body: body}, nil)
	if errors.Is(err, terse.ErrUnavailable) {
		return &terse.Error{Code: terse.CodeUnknownOutcome, Message: terse.Message(err), Err: err}
	}
	return err
}

// salts returns the salts of visitors by day.
func (c *Client) salts(ctx context.Context) (map[string][16]byte, error) {
	var out wire.EdgeSalts
	if err := c.askBehind(ctx, request{method: http.MethodGet, path: wire.PathSalts}, &out); err != nil {
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
	var out wire.EdgeClicks
	err := c.askBehind(ctx, request{method: http.MethodGet, path: wire.PathClicks, query: url.Values{"edge": {edge}}}, &out)
	return out, err
}

// sendClicks sends a batch and returns up to where the clicks are there.
func (c *Client) sendClicks(ctx context.Context, edge, receiver, from, to string, groups []byte) (wire.EdgeClicks, error) {
	var out wire.EdgeClicks
	q := url.Values{"edge": {edge}, "receiver": {receiver}, "from": {from}, "to": {to}}
	err := c.askBehind(ctx, request{method: http.MethodPatch, path: wire.PathClicks, query: q, body: groups, binary: true}, &out)
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
	return fmt.Sprintf("%s answers; its feed is at %d, clicks go into the spool %s", c.base, at, to.Receiver), nil
}
