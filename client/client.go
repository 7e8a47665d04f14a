// Package client talks to the control plane of a Terse server: links one by one
// and a million at a time, domains, keys, workspaces and analytics.
//
// It is a thin, typed form of the HTTP API (/api/v1): no cache and no background
// work. Errors that the server answered are *Error. A call is repeated by itself only
// where that cannot do anything twice: reads, and the POST requests that carry an
// Idempotency-Key, which this package sets on all of them but Bulk.
//
//	c, err := client.New(client.Options{Server: "http://127.0.0.1:8081", Key: key})
//	link, err := c.CreateLink(ctx, client.NewLink{Destination: "https://example.com/"})
//	fmt.Println(link.ShortURL)
//
// A Client may be used by many goroutines at once.
package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
)

// DefaultServer is where a server listens that was not told otherwise.
const DefaultServer = "http://127.0.0.1:8081"

// Limits and pauses of ordinary calls; Bulk has none of them.
const (
	defaultTimeout = 30 * time.Second
	defaultRetries = 2
	firstPause     = 100 * time.Millisecond
	maxPause       = 10 * time.Second
	maxResponse    = 64 << 20 // bytes
)

// Options say which server to talk to and how.
type Options struct {
	Server    string // URL of the control plane; "" is DefaultServer
	Key       string // the API key; "" sends none
	Workspace string // id of the workspace that an owner key acts in; "" is the default one
	UserAgent string // "" is "terse-client"

	// Timeout bounds one attempt of an ordinary call; 0 is 30 s. Bulk streams
	// are bounded by their context only.
	Timeout time.Duration
	// Retries is how often a call that failed is repeated where that is safe: 0
	// is 2 times, less than 0 never.
	Retries int
	// HTTP sends the requests; nil is a client of its own. It must not follow
	// redirects of POST requests.
	HTTP *http.Client
}

// Client is a connection to one server.
type Client struct {
	base    *url.URL
	o       Options
	http    *http.Client
	retries int
	timeout time.Duration
}

// New returns a client. It does not connect. Returns an error if Server is not an
// http or https URL.
func New(o Options) (*Client, error) {
	if o.Server == "" {
		o.Server = DefaultServer
	}
	base, err := url.Parse(strings.TrimRight(o.Server, "/"))
	if err != nil || base.Scheme != "http" && base.Scheme != "https" || base.Host == "" || base.User != nil {
		return nil, fmt.Errorf("server %q is not a URL such as %s", o.Server, DefaultServer)
	}
	if strings.ContainsFunc(o.Key+o.Workspace, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, errors.New("the key or the workspace holds a character that no key has")
	}
	if o.UserAgent == "" {
		o.UserAgent = "terse-client"
	}
	c := &Client{base: base, o: o, http: o.HTTP, retries: o.Retries, timeout: o.Timeout}
	if c.http == nil {
		c.http = newHTTP()
	}
	if c.retries == 0 {
		c.retries = defaultRetries
	}
	if c.timeout == 0 {
		c.timeout = defaultTimeout
	}
	return c, nil
}

// Server returns the URL of the control plane.
func (c *Client) Server() string { return c.base.String() }

// newHTTP returns a client for one server: buffers large enough for bulk streams, no
// transparent compression, and no redirects, since an API does not move while it is called.
func newHTTP() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
			ForceAttemptHTTP2:     true,
			MaxIdleConnsPerHost:   16,
			IdleConnTimeout:       60 * time.Second,
			TLSHandshakeTimeout:   10 * time.Second,
			ExpectContinueTimeout: 2 * time.Second,
			DisableCompression:    true,
			WriteBufferSize:       256 << 10,
			ReadBufferSize:        256 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// call is one request of the API with JSON both ways.
type call struct {
	method  string
	path    string // below /api/v1
	query   url.Values
	in      any // encoded as the body; nil: no body
	out     any // decoded from the answer; *[]byte: as it is; nil: the answer is not read
	ifMatch uint64
	key     string        // the Idempotency-Key of a POST; "": one of its own
	status  int           // of the answer, set by do
	limit   time.Duration // of one attempt, if longer than Options.Timeout
}

// do sends the request, again if that is safe, and decodes the answer.
func (c *Client) do(ctx context.Context, a *call) error {
	var body []byte
	if a.in != nil {
		b, err := json.Marshal(a.in)
		if err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
		body = b
	}
	key := a.key
	if key == "" && a.method == http.MethodPost {
		key = rand.Text()
	}
	safe := a.method == http.MethodGet || key != ""
	for attempt := 0; ; attempt++ {
		err := c.once(ctx, a, body, key)
		if err == nil || !safe || attempt >= c.retries || ctx.Err() != nil {
			return err
		}
		pause, again := retryPause(err, attempt)
		if !again {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
}

// retryPause says whether a failed attempt is worth another one, and after which pause.
// The jitter keeps clients that failed together from coming back together.
func retryPause(err error, attempt int) (time.Duration, bool) {
	pause := firstPause << min(attempt, 10)
	if e, ok := errors.AsType[*Error](err); ok {
		if !e.temporary() || e.RetryAfter > maxPause {
			return 0, false
		}
		pause = max(pause, e.RetryAfter)
	}
	if n, err := rand.Int(rand.Reader, big.NewInt(int64(pause/2)+1)); err == nil {
		pause += time.Duration(n.Int64())
	}
	return min(pause, maxPause), true
}

func (c *Client) once(ctx context.Context, a *call, body []byte, key string) error {
	ctx, cancel := context.WithTimeout(ctx, max(c.timeout, a.limit))
	defer cancel()
	var r io.Reader
	if body != nil {
		r = bytes.NewReader(body)
	}
	req, err := c.request(ctx, a.method, a.path, a.query, r)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	if a.ifMatch != 0 {
		req.Header.Set("If-Match", `"`+strconv.FormatUint(a.ifMatch, 10)+`"`)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return trimURL(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return readError(resp)
	}
	a.status = resp.StatusCode
	if raw, ok := a.out.(*[]byte); ok {
		if *raw, err = io.ReadAll(io.LimitReader(resp.Body, maxResponse)); err != nil {
			return fmt.Errorf("read the answer to %s %s: %w", a.method, a.path, err)
		}
		return nil
	}
	if a.out == nil {
		// Read to the end so that the connection can be used again.
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxErrorBody))
		return nil
	}
	if err := json.UnmarshalRead(io.LimitReader(resp.Body, maxResponse), a.out); err != nil {
		return fmt.Errorf("read the answer to %s %s: %w", a.method, a.path, err)
	}
	return nil
}

// request builds a request with what every call carries.
func (c *Client) request(ctx context.Context, method, path string, query url.Values, body io.Reader) (*http.Request, error) {
	u := c.base.String() + "/api/v1" + path
	if len(query) > 0 {
		u += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, u, body)
	if err != nil {
		return nil, fmt.Errorf("build request: %w", err)
	}
	req.Header.Set("User-Agent", c.o.UserAgent)
	if c.o.Key != "" {
		req.Header.Set("Authorization", "Bearer "+c.o.Key)
	}
	if c.o.Workspace != "" {
		req.Header.Set("Terse-Workspace", c.o.Workspace)
	}
	return req, nil
}

// trimURL drops the method and URL that net/http puts before a failure to connect:
// query parameters may hold destinations, and the error is for people.
func trimURL(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// page is one page of any listing.
type page[T any] struct {
	Data       []T    `json:"data"`
	NextCursor string `json:"next_cursor"`
}

// pages yields every item of a listing, page by page. An error ends it.
func pages[T any](ctx context.Context, c *Client, path string, query url.Values) func(yield func(*T, error) bool) {
	return func(yield func(*T, error) bool) {
		q := url.Values{}
		for k, v := range query {
			q[k] = v
		}
		for {
			var p page[T]
			if err := c.do(ctx, &call{method: http.MethodGet, path: path, query: q, out: &p}); err != nil {
				yield(nil, err)
				return
			}
			for i := range p.Data {
				if !yield(&p.Data[i], nil) {
					return
				}
			}
			if p.NextCursor == "" {
				return
			}
			if p.NextCursor == q.Get("cursor") {
				yield(nil, errors.New("the server returned the same page twice"))
				return
			}
			q.Set("cursor", p.NextCursor)
		}
	}
}

// set adds a parameter unless it is empty.
func set(q url.Values, name, value string) {
	if value != "" {
		q.Set(name, value)
	}
}

func setTime(q url.Values, name string, t time.Time) {
	if !t.IsZero() {
		q.Set(name, t.UTC().Format(time.RFC3339Nano))
	}
}

func setInt(q url.Values, name string, n int) {
	if n != 0 {
		q.Set(name, strconv.Itoa(n))
	}
}
