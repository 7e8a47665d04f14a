// Package peers passes requests on to the API of the other nodes that use the store: those about an upload, a job or a file
// that lies in the data folder of another node.
//
// It decides neither whose a thing is nor who may have it: package api does the first, and both nodes check the key. What
// it promises:
//
//   - only what a node says of itself in the list of nodes is ever connected to. No part of a request chooses an address, so
//     the rules of package outbound, which keeps requests of customers out of private networks, are not those of this
//     client: nodes are in one;
//   - a request is passed on once. Whoever was asked by a node (Hop) asks nobody else. The header is believed for nothing
//     but that: a visitor who sends it is answered as before there was this package;
//   - bodies are streamed both ways, and a side that stands still ends the request;
//   - what was not sent is said to be unavailable; what may have been done and was not answered is an unknown outcome.
package peers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/nodes"
)

// Hop is the header that says which node has passed a request on.
const Hop = "Terse-Passed-On-By"

// Passed reports whether another node has passed the request on, or somebody says so.
func Passed(r *http.Request) bool { return len(r.Header.Values(Hop)) > 0 }

const (
	// connectWithin bounds a connection: nodes are near each other.
	connectWithin = 2 * time.Second
	// tlsWithin bounds the handshake of TLS.
	tlsWithin = 3 * time.Second
)

// Nodes is the list of nodes; *nodes.Registry is one.
type Nodes interface {
	// Find returns ErrNotFound if there is no such node.
	Find(ctx context.Context, id string) (nodes.Seen, error)
	List(ctx context.Context) ([]nodes.Seen, error)
}

// Options configure a Client. Fields without a remark are required.
type Options struct {
	Nodes Nodes
	Self  string // id of this node, for the log of others
	// Stall is how long the other node, or the visitor, may stand still in the middle of a request; 0: one minute.
	Stall time.Duration
}

// Client asks other nodes. It may be used by many goroutines at once, and is a prometheus.Collector.
type Client struct {
	o         Options
	transport *http.Transport
	ctx       context.Context // ends with Close
	cancel    context.CancelFunc
	results   *prometheus.CounterVec
}

// The results of passing on, in metrics.
const (
	answered    = "answered"
	unavailable = "unavailable"
	unknown     = "unknown_outcome"
)

// New returns a client. Close ends it.
func New(o Options) *Client {
	if o.Stall == 0 {
		o.Stall = time.Minute
	}
	dialer := &net.Dialer{Timeout: connectWithin}
	c := &Client{
		o: o,
		transport: &http.Transport{
			Proxy:                  nil, // what is in the environment is for other destinations
			DialContext:            dialer.DialContext,
			TLSHandshakeTimeout:    tlsWithin,
			ResponseHeaderTimeout:  o.Stall, // after the whole request was sent
			MaxResponseHeaderBytes: 32 << 10,
			DisableCompression:     true, // the visitor decides
			// On a kept connection that the other node has closed meanwhile nobody knows whether a POST was seen.
			DisableKeepAlives: true,
		},
		results: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "terse_requests_passed_on_total", Help: "Requests about what another node has, by what became of them.",
		}, []string{"result"}),
	}
	for _, result := range []string{answered, unavailable, unknown} {
		c.results.WithLabelValues(result)
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// Describe implements prometheus.Collector.
func (c *Client) Describe(ch chan<- *prometheus.Desc) { c.results.Describe(ch) }

// Collect implements prometheus.Collector.
func (c *Client) Collect(ch chan<- prometheus.Metric) { c.results.Collect(ch) }

// Close ends streams of events that are passed on, which end by themselves only with what they are about.
func (c *Client) Close() { c.cancel() }

// Target is a node that can be asked.
type Target struct {
	name string // for people
	url  *url.URL
}

// ErrSilent: the node is on the list and gives no sign of life.
var ErrSilent = errors.New("it gives no sign of life")

// ErrNotListed is within the error of Target for a node that no list has: it was stopped in order, has been dead for a day,
// or there never was one of that id.
var ErrNotListed = errors.New("the list of nodes does not have it")

// Target returns a node by its id; nil if it lives and says nowhere to be reached. Returns an error of code unavailable
// that names the node if it does not live; for one that is not listed ErrNotListed is within it.
func (c *Client) Target(ctx context.Context, id string) (*Target, error) {
	n, err := c.o.Nodes.Find(ctx, id)
	switch {
	case errors.Is(err, terse.ErrNotFound):
		return nil, &terse.Error{
			Code: terse.CodeUnavailable, Reason: "node_unavailable", Err: ErrNotListed,
			Message: "this may be on the node " + id + ", which is not on the list of nodes; nothing was done",
		}
	case err != nil:
		return nil, err
	case n.State == nodes.Dead:
		return nil, &terse.Error{
			Code: terse.CodeUnavailable, Reason: "node_unavailable", Err: ErrSilent,
			Message: "this is on the node " + n.Name + ", which has given no sign of life since " + n.SeenAt.Time().UTC().Format(time.RFC3339) + "; nothing was done",
		}
	}
	return target(&n)
}

// Any returns a living node that runs all the roles and can be asked; nil if there is none. Nodes take turns by chance.
func (c *Client) Any(ctx context.Context, roles ...string) (*Target, error) {
	list, err := c.o.Nodes.List(ctx)
	if err != nil {
		return nil, err
	}
	return choose(list, roles)
}

func target(n *nodes.Seen) (*Target, error) {
	if n.URL == "" {
		return nil, nil
	}
	u, err := url.Parse(n.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, errAway(n.Name, fmt.Errorf("its node_url is not one: %q", n.URL))
	}
	return &Target{name: n.Name, url: u}, nil
}

// errAway says that a node was not asked.
func errAway(name string, err error) error {
	return &terse.Error{
		Code: terse.CodeUnavailable, Reason: "node_unavailable", Err: err,
		Message: "this is on the node " + name + ", which cannot be reached now; nothing was done",
	}
}

// errNoAnswer says that a node was asked to do something, and may have done it.
func errNoAnswer(name string, err error) error {
	return &terse.Error{
		Code: terse.CodeUnknownOutcome, Err: err,
		Message: "the node " + name + " was asked and did not answer: it may have been done",
	}
}

// maxAnswer bounds the answers that Get reads.
const maxAnswer = 1 << 20

// Get asks a node for a short answer with what a request says of who asks, and returns it if its status is 200.
func (c *Client) Get(ctx context.Context, t *Target, r *http.Request, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, t.url.JoinPath(path).String(), nil)
	if err != nil {
		return nil, fmt.Errorf("ask node %s: %w", t.name, err)
	}
	for _, name := range []string{"Authorization", "Terse-Workspace"} {
		req.Header[name] = r.Header[name]
	}
	req.Header.Set(Hop, c.o.Self)
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		return nil, fmt.Errorf("ask node %s: %w", t.name, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d", resp.StatusCode)
	}
	if err != nil {
		return nil, fmt.Errorf("ask node %s: %w", t.name, err)
	}
	return b, nil
}
