package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/go-json-experiment/json"
)

// Whoami is what the control plane sees of a request.
type Whoami struct {
	Subject     string    `json:"subject"` // id of the key, or owner
	Owner       bool      `json:"owner"`
	WorkspaceID string    `json:"workspace_id"`
	Scopes      []string  `json:"scopes"`
	Client      string    `json:"client"` // address that counts
	Peer        string    `json:"peer"`   // other end of the connection
	PeerTrusted bool      `json:"peer_trusted"`
	VisitURL    string    `json:"visit_url,omitzero"` // shows what the redirect plane sees of who opens it; "": there is none
	VisitUntil  time.Time `json:"visit_until,omitzero"`
}

// Seen is what the redirect plane sees of a visitor.
type Seen struct {
	Client          string   `json:"client"`      // address that counts for clicks, rules and limits
	ClientFrom      string   `json:"client_from"` // connection, x-forwarded-for or forwarded
	Peer            string   `json:"peer"`        // other end of the connection, or what its PROXY header says
	PeerTrusted     bool     `json:"peer_trusted"`
	ProxyProtocol   bool     `json:"proxy_protocol"` // connections of trusted proxies begin with a PROXY header
	XForwardedFor   []string `json:"x_forwarded_for"`
	Forwarded       []string `json:"forwarded"`
	XForwardedProto string   `json:"x_forwarded_proto"`
	HeadersIgnored  string   `json:"headers_ignored,omitzero"` // untrusted_peer, conflict or unreadable
	Scheme          string   `json:"scheme"`
	SchemeFrom      string   `json:"scheme_from"` // connection, x-forwarded-proto or forwarded
	Host            string   `json:"host"`
	Domain          string   `json:"domain"`
	BaseURL         string   `json:"base_url"`
	Country         string   `json:"country"`
	Region          string   `json:"region"`
	Device          string   `json:"device"`
	OS              string   `json:"os"`
	Browser         string   `json:"browser"`
	Bot             string   `json:"bot"` // "": a person
	Language        string   `json:"language"`
	OptsOut         bool     `json:"opts_out"`
}

// Whoami returns what the control plane sees of this client, and a URL of the domain ("": the default one) that shows what
// the redirect plane sees of whoever opens it.
func (c *Client) Whoami(ctx context.Context, domain string) (*Whoami, error) {
	q := url.Values{}
	if domain != "" {
		q.Set("domain", domain)
	}
	var out Whoami
	if err := c.do(ctx, &call{method: http.MethodGet, path: "/whoami", query: q, out: &out}); err != nil {
		return nil, err
	}
	return &out, nil
}

// maxSeen bounds the answer of a visit.
const maxSeen = 256 << 10

// See opens a VisitURL as a visitor does, without the key, and returns what the redirect plane saw. The header is
// sent as it is; nil sends none.
func (c *Client) See(ctx context.Context, visitURL string, header http.Header) (*Seen, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, visitURL, nil)
	if err != nil {
		return nil, fmt.Errorf("visit: %w", err)
	}
	for name, values := range header {
		req.Header[http.CanonicalHeaderKey(name)] = values
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("visit: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxSeen))
	if err != nil {
		return nil, fmt.Errorf("visit: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("visit: the redirect plane answered %s", res.Status)
	}
	var out Seen
	if err := json.Unmarshal(body, &out); err != nil {
		return nil, fmt.Errorf("visit: this is no answer of the redirect plane: %w", err)
	}
	return &out, nil
}
