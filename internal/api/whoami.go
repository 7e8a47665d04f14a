package api

import (
	"context"
	"net/http"
	"time"

	"github.com/terselink/terse/internal/auth"
)

// Whoami is what the control plane sees of a request, and where the redirect plane shows the same of a visit.
type Whoami struct {
	Subject     string     `json:"subject" doc:"The id of the key, or owner."`
	Owner       bool       `json:"owner"`
	WorkspaceID string     `json:"workspace_id"`
	Scopes      []string   `json:"scopes"`
	Client      string     `json:"client" doc:"The address that counts for this request on the control plane." example:"192.0.2.1"`
	Peer        string     `json:"peer" doc:"The other end of the connection." example:"127.0.0.1"`
	PeerTrusted bool       `json:"peer_trusted" doc:"It is one of trusted_proxies, so that its X-Forwarded-For or Forwarded counts."`
	VisitURL    *string    `json:"visit_url" doc:"Opened by a visitor, it shows as JSON what the redirect plane sees of them through the proxies in front: address and where it comes from, scheme, host, country, device, browser, bot. null: there is no redirect plane here."`
	VisitUntil  *time.Time `json:"visit_until" doc:"When visit_url ends: ten minutes from now."`
}

func (s *Server) registerWhoami() {
	register(s, operation{
		ID: "whoami", Method: http.MethodGet, Path: "/api/v1/whoami", Tag: "System", Scope: auth.ScopeSystemRead, Status: http.StatusOK,
		Summary: "What the server sees of you", Description: "For setting up proxies and keys: the key, the address that counts, and a URL that shows what the redirect plane sees of a visitor.",
	}, s.whoami)
}

func (s *Server) whoami(ctx context.Context, c *call, in *struct {
	Domain string `query:"domain" doc:"The domain of visit_url; the default one if absent."`
}) (*struct{ Body Whoami }, error) {
	out := &struct{ Body Whoami }{}
	b := &out.Body
	b.Subject, b.Owner, b.WorkspaceID, b.Scopes = c.who.Subject, c.who.Owner, c.workspace.String(), []string{}
	for _, scope := range c.who.Scopes {
		b.Scopes = append(b.Scopes, string(scope))
	}
	peer := peerOf(c.request)
	b.Client, b.Peer, b.PeerTrusted = s.clientIP(c.request).String(), peer.String(), s.o.ClientIP != nil && s.o.ClientIP.Trusted(peer)
	if s.o.Ticket == nil && in.Domain == "" {
		return out, nil
	}
	d, err := s.o.Links.DomainFor(ctx, c.actor(), in.Domain)
	if err != nil || s.o.Ticket == nil {
		return out, err
	}
	path, until, err := s.o.Ticket()
	if err != nil {
		return nil, err
	}
	url, at := d.Base()+path[1:], until.Time()
	b.VisitURL, b.VisitUntil = &url, &at
	return out, nil
}
