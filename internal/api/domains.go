package api

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/auth"
	"github.com/terselink/terse/internal/domains"
)

// Domain is a domain as the API shows it.
type Domain struct {
	Host                string  `json:"host" example:"go.example.com"`
	Scheme              string  `json:"scheme" doc:"How short URLs begin: http or https."`
	Shared              bool    `json:"shared" doc:"Every workspace may put links on it."`
	Default             bool    `json:"default" doc:"It is the instance's default domain."`
	InService           bool    `json:"in_service" doc:"False if its permutation key is missing or wrong: it then answers 503."`
	CodeLength          int     `json:"code_length" doc:"Characters of new codes. Grows by itself when a length is used up."`
	Alphabet            string  `json:"alphabet"`
	Strategy            string  `json:"strategy"`
	RedirectStatus      int     `json:"redirect_status"`
	DefaultTTL          *string `json:"default_ttl" example:"4380h"`
	ForwardQuery        bool    `json:"forward_query"`
	RootDestination     *string `json:"root_destination"`
	NotFoundDestination *string `json:"not_found_destination"`
	ExpiredDestination  *string `json:"expired_destination"`
	DomainPlaces
	SMaxAge int `json:"s_maxage"`
	DomainWeb
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
	Version   uint64    `json:"version" doc:"Grows with every change; also the ETag."`
}

// NewDomain is the body of a creation.
type NewDomain struct {
	Host                string `json:"host" doc:"A host name, with a port only if it is neither 80 nor 443." example:"go.example.com"`
	Scheme              string `json:"scheme,omitempty" nullable:"true" doc:"http or https; without it https, but http for hosts with a port and names of this machine."`
	Shared              bool   `json:"shared,omitempty" nullable:"true" doc:"Lets every workspace put links on it. Only the owner key may."`
	CodeLength          int    `json:"code_length,omitempty" nullable:"true" doc:"Characters of generated codes; 7 if absent." example:"7"`
	Alphabet            string `json:"alphabet,omitempty" nullable:"true" doc:"base62 if absent." example:"base62"`
	Strategy            string `json:"strategy,omitempty" nullable:"true" doc:"How codes are made: permuted (if absent), random or snowflake; see docs/codes.md." example:"permuted"`
	RedirectStatus      int    `json:"redirect_status,omitempty" nullable:"true" doc:"302 if absent."`
	DefaultTTL          string `json:"default_ttl,omitempty" nullable:"true" doc:"How long links without expires_at live, such as 4380h; absent: for ever." example:"4380h"`
	ForwardQuery        bool   `json:"forward_query,omitempty" nullable:"true"`
	RootDestination     string `json:"root_destination,omitempty" nullable:"true" doc:"Where visitors without a code go."`
	NotFoundDestination string `json:"not_found_destination,omitempty" nullable:"true" doc:"Where visitors with an unknown code go."`
	ExpiredDestination  string `json:"expired_destination,omitempty" nullable:"true" doc:"Where visitors of ended links go."`
	NewDomainPlaces
	SMaxAge int `json:"s_maxage,omitempty" nullable:"true" doc:"Seconds that a CDN may keep a redirect; its clicks are not counted."`
	NewDomainWeb
}

// PatchDomain is the body of a change.
type PatchDomain struct {
	Scheme              Optional[string] `json:"scheme,omitempty"`
	CodeLength          Optional[int]    `json:"code_length,omitempty" doc:"For new codes; existing ones stay as they are."`
	Strategy            Optional[string] `json:"strategy,omitempty" doc:"For new codes, which then have a length that the domain has never used; existing ones stay as they are."`
	RedirectStatus      Optional[int]    `json:"redirect_status,omitempty"`
	DefaultTTL          Optional[string] `json:"default_ttl,omitempty" doc:"For new links; existing ones stay as they are."`
	ForwardQuery        Optional[bool]   `json:"forward_query,omitempty"`
	RootDestination     Optional[string] `json:"root_destination,omitempty"`
	NotFoundDestination Optional[string] `json:"not_found_destination,omitempty"`
	ExpiredDestination  Optional[string] `json:"expired_destination,omitempty"`
	PatchDomainPlaces
	SMaxAge Optional[int] `json:"s_maxage,omitempty"`
	PatchDomainWeb
}

// DomainPath names a domain.
type DomainPath struct {
	Host string `path:"host" example:"go.example.com"`
}

type domainOutput struct {
	ETag     string `header:"ETag" doc:"The version in quotes, for If-Match."`
	Location string `header:"Location" doc:"Of a new domain: its URL in this API."`
	Body     *Domain
}

func (s *Server) registerDomains() {
	register(s, operation{
		ID: "createDomain", Method: http.MethodPost, Path: "/api/v1/domains", Tag: "Domains", Scope: auth.ScopeDomainsWrite, Status: http.StatusCreated,
		Summary: "Create a domain", Description: "It belongs to the workspace, unless the owner shares it.", Errors: []int{409},
	}, s.createDomain)
	register(s, operation{
		ID: "listDomains", Method: http.MethodGet, Path: "/api/v1/domains", Tag: "Domains", Scope: auth.ScopeDomainsRead, Status: http.StatusOK,
		Summary: "List the domains of the workspace and the shared ones, by host",
	}, s.listDomains)
	register(s, operation{
		ID: "getDomain", Method: http.MethodGet, Path: "/api/v1/domains/{host}", Tag: "Domains", Scope: auth.ScopeDomainsRead, Status: http.StatusOK,
		Summary: "Get a domain",
	}, s.getDomain)
	register(s, operation{
		ID: "updateDomain", Method: http.MethodPatch, Path: "/api/v1/domains/{host}", Tag: "Domains", Scope: auth.ScopeDomainsWrite, Status: http.StatusOK,
		Summary: "Change a domain", Description: "What is absent stays as it is, null clears. Shared domains are changed by the owner only.", Errors: []int{412},
	}, s.updateDomain)
	register(s, operation{
		ID: "deleteDomain", Method: http.MethodDelete, Path: "/api/v1/domains/{host}", Tag: "Domains", Scope: auth.ScopeDomainsWrite, Status: http.StatusNoContent,
		Summary: "Delete a domain without links", Errors: []int{409, 412},
	}, s.deleteDomain)
}

// domainByName returns a domain by any spelling of its host, nil if there is none.
func (s *Server) domainByName(host string) *domains.Domain {
	canonical, err := domains.ParseHost(host)
	if err != nil {
		return nil
	}
	return s.o.Domains.ByName(canonical)
}

func (s *Server) domain(d *domains.Domain) *Domain {
	return &Domain{
		Host: d.Host, Scheme: d.Scheme, Shared: d.Workspace == 0, Default: d == s.o.Domains.Default(), InService: d.Broken() == nil,
		CodeLength: d.CodeLength, Alphabet: d.Alphabet, Strategy: d.Strategy, RedirectStatus: d.RedirectStatus,
		DefaultTTL: orNull(formatTTL(d.DefaultTTL)), ForwardQuery: d.ForwardQuery, SMaxAge: d.SMaxAge, DomainWeb: domainWeb(&d.DomainWeb), DomainPlaces: domainPlaces(d),
		RootDestination: orNull(d.RootDestination), NotFoundDestination: orNull(d.NotFoundDestination), ExpiredDestination: orNull(d.ExpiredDestination),
		CreatedAt: d.CreatedAt.Time(), UpdatedAt: d.UpdatedAt.Time(), Version: d.Version,
	}
}

// formatTTL writes 4380h for what time.Duration writes as 4380h0m0s.
func formatTTL(d time.Duration) string {
	if d == 0 {
		return ""
	}
	s := d.String()
	if t, ok := strings.CutSuffix(s, "m0s"); ok {
		s = t + "m"
	}
	if t, ok := strings.CutSuffix(s, "h0m"); ok {
		s = t + "h"
	}
	return s
}

func parseTTL(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, terse.Invalid("default_ttl", "not a duration such as 4380h")
	}
	return d, nil
}

func (s *Server) domainOutput(d *domains.Domain) *domainOutput {
	return &domainOutput{ETag: etag(d.Version), Body: s.domain(d)}
}

func (s *Server) createDomain(ctx context.Context, c *call, in *struct{ Body NewDomain }) (*domainOutput, error) {
	b := &in.Body
	ttl, err := parseTTL(b.DefaultTTL)
	if err != nil {
		return nil, err
	}
	w := c.workspace
	if b.Shared {
		if !c.who.Owner {
			return nil, &terse.Error{Code: terse.CodeForbidden, Reason: "owner_required", Field: "shared", Message: "only the owner key shares domains"}
		}
		w = 0
	}
	d, err := s.o.Domains.Create(ctx, w, domains.New{
		Host: b.Host, Scheme: b.Scheme, CodeLength: b.CodeLength, Alphabet: b.Alphabet, Strategy: b.Strategy,
		RedirectStatus: b.RedirectStatus, DefaultTTL: ttl, ForwardQuery: b.ForwardQuery, SMaxAge: b.SMaxAge,
		RootDestination: b.RootDestination, NotFoundDestination: b.NotFoundDestination, ExpiredDestination: b.ExpiredDestination,
		NotStartedDestination: b.NotStartedDestination, LimitDestination: b.LimitDestination, QueryMode: b.QueryMode, UTM: b.UTM.domain(), Brand: b.Brand.domain(),
		ClickIDParameter: b.ClickIDParameter,
		Web:              b.NewDomainWeb.domain(),
	}, answerWith(c.idem, func(d *domains.Domain) (int, map[string]string, any, error) {
		return http.StatusCreated, map[string]string{"Location": domainLocation(d), "Etag": etag(d.Version)}, s.domain(d), nil
	}))
	if err != nil {
		return nil, err
	}
	out := s.domainOutput(d)
	out.Location = domainLocation(d)
	return out, nil
}

func domainLocation(d *domains.Domain) string { return "/api/v1/domains/" + d.Host }

func (s *Server) listDomains(_ context.Context, c *call, in *pageInput) (*listOutput[*Domain], error) {
	limit, err := pageSize(in.Limit)
	if err != nil {
		return nil, err
	}
	list := s.o.Domains.List(c.workspace)
	if in.Cursor != "" {
		after, err := domains.ParseHost(in.Cursor)
		if err != nil {
			return nil, errBadCursor()
		}
		for len(list) > 0 && list[0].Host <= after {
			list = list[1:]
		}
	}
	show := func(d **domains.Domain) *Domain { return s.domain(*d) }
	return &listOutput[*Domain]{Body: page(list, limit, show, func(d **domains.Domain) string { return (*d).Host })}, nil
}

// visibleDomain returns a domain that the workspace may use. Returns ErrNotFound.
func (s *Server) visibleDomain(c *call, host string) (*domains.Domain, error) {
	d := s.domainByName(host)
	if d == nil || !d.Usable(c.workspace) {
		return nil, terse.ErrNotFound
	}
	return d, nil
}

// changer returns as whom the call changes a domain: the owner changes shared ones.
func (s *Server) changer(c *call, host string) (terse.WorkspaceID, error) {
	d, err := s.visibleDomain(c, host)
	switch {
	case err != nil:
		return 0, err
	case d.Workspace != 0:
		return c.workspace, nil
	case !c.who.Owner:
		return 0, &terse.Error{Code: terse.CodeForbidden, Reason: "owner_required", Message: "only the owner key changes shared domains"}
	}
	return 0, nil
}

func (s *Server) getDomain(_ context.Context, c *call, in *DomainPath) (*domainOutput, error) {
	d, err := s.visibleDomain(c, in.Host)
	if err != nil {
		return nil, err
	}
	return s.domainOutput(d), nil
}

func (s *Server) updateDomain(ctx context.Context, c *call, in *struct {
	DomainPath
	IfMatchHeader
	Body PatchDomain
}) (*domainOutput, error) {
	w, err := s.changer(c, in.Host)
	if err != nil {
		return nil, err
	}
	version, err := in.version()
	if err != nil {
		return nil, err
	}
	b := &in.Body
	p := domains.Patch{
		Scheme: b.Scheme.pointer(), CodeLength: b.CodeLength.pointer(), Strategy: b.Strategy.pointer(), RedirectStatus: b.RedirectStatus.pointer(),
		ForwardQuery: b.ForwardQuery.pointer(), SMaxAge: b.SMaxAge.pointer(), RootDestination: b.RootDestination.pointer(),
		NotFoundDestination: b.NotFoundDestination.pointer(), ExpiredDestination: b.ExpiredDestination.pointer(),
		NotStartedDestination: b.NotStartedDestination.pointer(), LimitDestination: b.LimitDestination.pointer(),
		QueryMode: b.QueryMode.pointer(), UTM: patchUTM(&b.UTM), Brand: patchBrand(&b.Brand), ClickIDParameter: b.ClickIDParameter.pointer(),
		Web: b.PatchDomainWeb.domain(),
	}
	if p.RedirectStatus != nil && b.RedirectStatus.Null {
		*p.RedirectStatus = http.StatusFound
	}
	if b.DefaultTTL.Set {
		ttl, err := parseTTL(b.DefaultTTL.Value)
		if err != nil {
			return nil, err
		}
		p.DefaultTTL = &ttl
	}
	d, err := s.o.Domains.Update(ctx, w, in.Host, p, version)
	if err != nil {
		return nil, err
	}
	return s.domainOutput(d), nil
}

func (s *Server) deleteDomain(ctx context.Context, c *call, in *struct {
	DomainPath
	IfMatchHeader
}) (*struct{}, error) {
	w, err := s.changer(c, in.Host)
	if err != nil {
		return nil, err
	}
	version, err := in.version()
	if err != nil {
		return nil, err
	}
	return nil, s.o.Domains.Delete(ctx, w, in.Host, version)
}
