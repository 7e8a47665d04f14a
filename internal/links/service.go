// Package links holds the rules about links, once, above every store: what a link
// may be, who may see it, how it is created, changed and listed, alone and by the
// million. It knows no engine and no HTTP.
//
// Invariants: a destination that reaches the store is rendered (package
// destination); a link of another workspace is ErrNotFound, byte for byte as if it
// did not exist; a code is issued once and an alias never equals an issued code.
package links

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/background"
	"github.com/terselink/terse/internal/campaigns"
	"github.com/terselink/terse/internal/code"
	"github.com/terselink/terse/internal/domains"
)

// Options configures a Service.
type Options struct {
	Store   terse.Store
	Domains *domains.Registry
	// Visitors counts redirects: while they come, bulk work steps back. nil: there are none.
	Visitors func() uint64
	// Campaigns is where campaigns are; nil: a registry of its own.
	Campaigns *campaigns.Registry
	// Workspaces returns what a workspace has switched on, from memory; nil: nothing.
	Workspaces func(terse.WorkspaceID) terse.WorkspaceSettings
	Clock      func() terse.Millis
	Log        *slog.Logger
	// OnChange hears of every link that was created alone or with an alias, changed
	// or deleted, after it is durable and before the caller is answered. A batch of
	// generated links is one Change without a code. nil: nobody listens.
	OnChange func(Change)
	// CatchUp learns what other processes have written so far. It is called before the first chunk of a run of another process
	// is run here, with the settings that the run began with. nil: nothing is to be learned.
	CatchUp func(context.Context) error
	// Apart is how many batches may wait for a store that is another process while others of this process are worked on, beside
	// those that have a turn: it bounds the connections that batches take from everybody else. 0: none, the store works here.
	Apart int
	// Processors is how many of them batches may fill; 0: all of the machine.
	Processors int
	// MaxBulkBytes bounds the decompressed body of one bulk request; 0: 4 GiB.
	MaxBulkBytes int64
	// MaxAtomicBytes bounds the body of a bulk request with atomic=true, which is held
	// in memory as a whole; 0: 64 MiB.
	MaxAtomicBytes int64
}

// Change tells caches that what they know of a code is old.
type Change struct {
	Domain  terse.DomainID
	Code    string // canonical; "": many links were created at once
	Number  terse.LinkNumber
	Version uint64 // of the link after the write; of a deletion the last one it had
	Deleted bool
	Created bool
}

// Service applies the rules. Its methods may be called from many goroutines.
type Service struct {
	o       Options
	batches bulkPools
	ledgers ledgers
	reuse   [256]sync.Mutex // by hash of (workspace, domain, destination): one if_exists=reuse at a time
	// background runs batches: they fill whole processors, and nobody waits for one as for a
	// redirect.
	background background.Pool

	runsMu sync.Mutex
	runs   []*otherRun
}

// New returns a Service.
func New(o Options) *Service {
	if o.MaxBulkBytes == 0 {
		o.MaxBulkBytes = 4 << 30
	}
	if o.MaxAtomicBytes == 0 {
		o.MaxAtomicBytes = 64 << 20
	}
	if o.Workspaces == nil {
		o.Workspaces = func(terse.WorkspaceID) terse.WorkspaceSettings { return terse.WorkspaceSettings{} }
	}
	if o.OnChange == nil {
		o.OnChange = func(Change) {}
	}
	if o.Campaigns == nil {
		o.Campaigns = campaigns.New(campaigns.Options{Store: o.Store, Clock: o.Clock})
	}
	if o.Processors == 0 {
		o.Processors = runtime.NumCPU()
	}
	return &Service{o: o, background: background.Pool{Foreground: o.Visitors, Processors: o.Processors, MostApart: o.Apart}}
}

// Actor is who acts: the workspace whose links are meant and the key that asks.
type Actor struct {
	Workspace terse.WorkspaceID
	By        string // id of the API key
	Block     Right
}

// Values of NewLink.IfExists.
const (
	IfExistsCreate = "create"
	IfExistsReuse  = "reuse"
)

// NewLink describes a link to create. Zero values mean the defaults.
type NewLink struct {
	Destination        string
	Domain             string // host; "": the workspace's default
	Code               string // makes it an alias
	Class              string // "" or ClassSecret
	Title              string
	ExternalID         string
	ExpiredDestination string
	IfExists           string
	Password           string
	Tags               []string
	ExpiresAt          terse.Millis
	StartsAt           terse.Millis
	MaxClicks          uint64
	RedirectStatus     int
	ForwardQuery       *bool
	ForwardPath        bool
	Rules              []terse.Rule
	Metadata           map[string]string
	Web                *terse.LinkWeb // nil: nothing; read only

	values string // of a row of a campaign: what Link.Values is to be
}

// CreateOptions are what a caller adds to one creation.
type CreateOptions struct {
	// Documents returns what is put in the same atomic write as the link, such as
	// the record of the answer for an Idempotency-Key.
	Documents func(terse.Link) ([]terse.Document, error)
}

// Create makes a link, durable on return. created is false if if_exists=reuse found
// one, which is returned as it is. Errors: invalid with the field; conflict with
// reason alias_taken; unavailable; unknown_outcome.
func (s *Service) Create(ctx context.Context, a Actor, n NewLink, o CreateOptions) (link terse.Link, created bool, err error) {
	d, err := s.domain(ctx, a, n.Domain)
	if err != nil {
		return terse.Link{}, false, err
	}
	if err := s.build(&link, a, d, &n, s.o.Clock()); err != nil {
		return terse.Link{}, false, err
	}
	if n.IfExists == IfExistsReuse && link.Code == "" && link.Plain() {
		mu := s.reuseLock(a.Workspace, d.Number, link.Destination)
		mu.Lock()
		defer mu.Unlock()
		found, err := s.o.Store.FindPlain(ctx, a.Workspace, d.Number, link.Destination, s.o.Clock())
		if err == nil {
			s.setCode(d, &found)
			return found, false, s.putDocuments(ctx, found, o)
		}
		if !errors.Is(err, terse.ErrNotFound) {
			return terse.Link{}, false, fmt.Errorf("find link to reuse: %w", err)
		}
	}
	if err := s.number(ctx, d, &link); err != nil {
		return terse.Link{}, false, err
	}
	if err := s.insertOne(ctx, &link, o); err != nil {
		return terse.Link{}, false, err
	}
	s.o.OnChange(Change{Domain: d.Number, Code: link.Code, Number: link.Number, Version: 1, Created: true})
	return link, true, nil
}

func (s *Service) putDocuments(ctx context.Context, l terse.Link, o CreateOptions) error {
	if o.Documents == nil {
		return nil
	}
	docs, err := o.Documents(l)
	if err != nil {
		return err
	}
	for _, doc := range docs {
		if err := s.o.Store.PutDocument(ctx, doc); err != nil {
			return err
		}
	}
	return nil
}

// number gives a built link its number and, without an alias, its code.
func (s *Service) number(ctx context.Context, d *domains.Domain, l *terse.Link) error {
	if l.Code != "" {
		idx, err := s.o.Domains.IssueAliases(ctx, d, 1, nil)
		if err != nil {
			return fmt.Errorf("number link: %w", err)
		}
		l.Number = terse.NewLinkNumber(d.Number, terse.AliasSpace, idx[0])
		return nil
	}
	return s.issueOne(ctx, d, l)
}

func errAliasTaken(alias string) error {
	return &terse.Error{Code: terse.CodeConflict, Reason: "alias_taken", Field: "code", Message: "the code " + alias + " is taken"}
}

// DomainFor returns the domain that a new link of the workspace would go to: the one of the host, "" the default. Returns
// an error of code invalid, field "domain", or unavailable for one that is out of service.
func (s *Service) DomainFor(ctx context.Context, a Actor, host string) (*domains.Domain, error) {
	return s.domain(ctx, a, host)
}

// domain returns the domain that a new link goes to.
func (s *Service) domain(ctx context.Context, a Actor, host string) (*domains.Domain, error) {
	if host == "" {
		d, err := s.defaultDomain(ctx, a.Workspace)
		if err != nil {
			return nil, err
		}
		return usable(d)
	}
	d := s.o.Domains.ByName(host)
	if d == nil {
		if canonical, err := domains.ParseHost(host); err == nil {
			d = s.o.Domains.ByName(canonical)
		}
	}
	if d == nil || !d.Usable(a.Workspace) {
		return nil, errUnknownDomain(host)
	}
	return usable(d)
}

func usable(d *domains.Domain) (*domains.Domain, error) {
	if err := d.Broken(); err != nil {
		return nil, &terse.Error{Code: terse.CodeUnavailable, Message: "the domain is out of service", Field: "domain", Err: err}
	}
	return d, nil
}

func errUnknownDomain(host string) error {
	return &terse.Error{Code: terse.CodeInvalid, Reason: "unknown_domain", Field: "domain", Message: fmt.Sprintf("the domain %q is not one of this workspace", clip(host))}
}

// clip keeps a message short and printable whatever the input was.
func clip(s string) string {
	if len(s) > 80 {
		s = s[:80] + "…"
	}
	return strings.ToValidUTF8(s, "?")
}

// defaultDomain returns the default domain of a workspace: its own choice, else the instance's.
func (s *Service) defaultDomain(ctx context.Context, w terse.WorkspaceID) (*domains.Domain, error) {
	doc, err := s.o.Store.GetDocument(ctx, 0, terse.KindWorkspace, w.String())
	if err != nil && !errors.Is(err, terse.ErrNotFound) {
		return nil, fmt.Errorf("read workspace: %w", err)
	}
	if err == nil {
		ws, err := decodeWorkspace(doc)
		if err != nil {
			return nil, err
		}
		if d := s.o.Domains.ByName(ws.DefaultDomain); d != nil {
			return d, nil
		}
	}
	if d := s.o.Domains.Default(); d != nil {
		return d, nil
	}
	return nil, terse.Invalid("domain", "the workspace has no default domain: name one")
}

// Get returns a link of the workspace. Returns ErrNotFound.
func (s *Service) Get(ctx context.Context, a Actor, n terse.LinkNumber) (terse.Link, error) {
	d := s.o.Domains.ByNumber(n.Domain())
	if n == 0 || d == nil {
		return terse.Link{}, terse.ErrNotFound
	}
	keys, dst := [1]terse.LinkKey{{Number: n}}, [1]terse.Link{}
	if d.Broken() == nil && d.Permuted(n) {
		if !d.Issued(n) {
			return terse.Link{}, terse.ErrNotFound
		}
		keys[0].Code = string(d.AppendCode(nil, n))
	}
	if err := s.o.Store.GetLinks(ctx, keys[:], dst[:]); err != nil {
		return terse.Link{}, fmt.Errorf("get link: %w", err)
	}
	if dst[0].Number == 0 || dst[0].Workspace != a.Workspace {
		return terse.Link{}, terse.ErrNotFound
	}
	if err := s.liveCampaign(ctx, &dst[0]); err != nil {
		return terse.Link{}, err
	}
	s.setCode(d, &dst[0])
	return dst[0], nil
}

// setCode fills in the code of a generated link that the store left out.
func (s *Service) setCode(d *domains.Domain, l *terse.Link) {
	if l.Code == "" && d.Broken() == nil && d.Permuted(l.Number) {
		l.Code = string(d.AppendCode(nil, l.Number))
	}
}

// LookupCode returns the link of the workspace that a code on a host leads to, and the host; "" is
// the workspace's default domain. Returns ErrNotFound, or invalid for what is no code or no domain.
func (s *Service) LookupCode(ctx context.Context, a Actor, host, code string) (terse.Link, string, error) {
	d, err := s.domain(ctx, a, host)
	if err != nil {
		return terse.Link{}, "", err
	}
	l, err := s.Lookup(ctx, a, d.Host+"/"+code)
	return l, d.Host, err
}

// Lookup returns the link of the workspace that a short URL leads to. The scheme
// may be left out. Returns ErrNotFound, or invalid for what is no short URL.
func (s *Service) Lookup(ctx context.Context, a Actor, shortURL string) (terse.Link, error) {
	rest := shortURL
	for _, scheme := range []string{"https://", "http://"} {
		if len(rest) >= len(scheme) && strings.EqualFold(rest[:len(scheme)], scheme) {
			rest = rest[len(scheme):]
			break
		}
	}
	host, path, ok := strings.Cut(rest, "/")
	path, _, _ = strings.Cut(path, "#")
	path, _, _ = strings.Cut(path, "?")
	path = strings.TrimSuffix(strings.TrimSuffix(path, "/"), "+")
	canonicalHost, valid := domains.AppendHost(nil, []byte(host))
	if !ok || !valid || path == "" {
		return terse.Link{}, terse.Invalid("short_url", "not a short URL such as https://go.example.com/code")
	}
	d := s.o.Domains.ByHost(canonicalHost)
	if d == nil {
		return terse.Link{}, terse.ErrNotFound
	}
	canonical, err := code.Canonical([]byte(path), d.Fold())
	if err != nil {
		return terse.Link{}, terse.ErrNotFound
	}
	l, err := d.Find(ctx, s.o.Store, []byte(canonical))
	if err != nil {
		return terse.Link{}, err
	}
	if l.Workspace != a.Workspace {
		return terse.Link{}, terse.ErrNotFound
	}
	return l, s.liveCampaign(ctx, &l)
}

// Delete ends a link for ever: its code is never used again. ifVersion 0 accepts any
// version. Returns ErrNotFound, ErrVersion, and an error of code forbidden for a link with a block that the
// actor may not lift.
func (s *Service) Delete(ctx context.Context, a Actor, n terse.LinkNumber, ifVersion uint64) error {
	l, err := s.Get(ctx, a, n)
	if err != nil {
		return err
	}
	var block *terse.Block
	if l.Settings != nil {
		block = l.Settings.Block
	}
	if err := a.mayLift(l.Status, block); err != nil {
		return err
	}
	if err := s.o.Store.DeleteLink(ctx, terse.LinkKey{Number: n, Code: l.Code}, ifVersion); err != nil {
		return fmt.Errorf("delete link: %w", err)
	}
	s.o.OnChange(Change{Domain: n.Domain(), Code: l.Code, Number: n, Version: l.Version, Deleted: true})
	return nil
}

// ShortURL returns the short URL of a link.
func (s *Service) ShortURL(l *terse.Link) string {
	d := s.Domain(l)
	if d == nil {
		return ""
	}
	return d.ShortURL(l.Code)
}

// Domain returns the domain of a link, nil if it is gone.
func (s *Service) Domain(l *terse.Link) *domains.Domain {
	return s.o.Domains.ByNumber(l.Number.Domain())
}

// The values of Status and Filter.Status.
const (
	StatusActive   = "active"
	StatusDisabled = "disabled"
	StatusExpired  = "expired"
	StatusBlocked  = "blocked"
)

// Status returns active, disabled, expired or blocked, as of now.
func (s *Service) Status(l *terse.Link) string {
	if l.Campaign != 0 {
		shown, _ := s.Shown(l)
		l = &shown
	}
	switch {
	case l.Status != terse.StatusActive:
		return l.Status.String()
	case l.ExpiredAt(s.o.Clock()):
		return StatusExpired
	}
	return StatusActive
}

// Filter selects links of a workspace; zero fields select everything.
type Filter struct {
	Domain      string // host
	Tag         string
	Status      string
	ExternalID  string
	Query       string // part of code, destination or title, any case
	Campaign    terse.CampaignID
	CreatedFrom terse.Millis // inclusive
	CreatedTo   terse.Millis // exclusive
	Limit       int          // 0: 50; at most 1,000
	Cursor      string
}

// maxListPages bounds the store calls of one List: a filter that matches little ends
// in a page with a cursor instead of a long wait.
const maxListPages = 50

// List returns links of the workspace, newest first. A page may be short, even
// empty, while Next says that there is more.
func (s *Service) List(ctx context.Context, a Actor, f Filter) (terse.LinkPage, error) {
	if f.Limit == 0 {
		f.Limit = 50
	}
	if f.Limit < 1 || f.Limit > 1000 {
		return terse.LinkPage{}, terse.Invalid("limit", "a page has 1 to 1000 links")
	}
	if !slices.Contains([]string{"", StatusActive, StatusDisabled, StatusExpired, StatusBlocked}, f.Status) {
		return terse.LinkPage{}, terse.Invalid("status", "the status is active, disabled, expired or blocked")
	}
	q := terse.ListQuery{
		Campaign: f.Campaign, Tag: f.Tag, ExternalID: f.ExternalID, CreatedFrom: f.CreatedFrom, CreatedTo: f.CreatedTo, Cursor: f.Cursor,
	}
	if f.Domain != "" {
		d, err := s.domain(ctx, a, f.Domain)
		if err != nil {
			return terse.LinkPage{}, err
		}
		q.Domain = d.Number
	}
	var page terse.LinkPage
	for range maxListPages {
		q.Limit = f.Limit - len(page.Links)
		p, err := s.o.Store.ListLinks(ctx, a.Workspace, q)
		if err != nil {
			return terse.LinkPage{}, fmt.Errorf("list links: %w", err)
		}
		for i := range p.Links {
			l := &p.Links[i]
			if err := s.liveCampaign(ctx, l); errors.Is(err, terse.ErrNotFound) {
				continue
			} else if err != nil {
				return terse.LinkPage{}, err
			}
			if d := s.Domain(l); d != nil {
				s.setCode(d, l)
			}
			if s.matches(l, &f) {
				page.Links = append(page.Links, *l)
			}
		}
		page.Next, q.Cursor = p.Next, p.Next
		if p.Next == "" || len(page.Links) == f.Limit {
			break
		}
	}
	return page, nil
}

// matches applies what stores do not filter by.
func (s *Service) matches(l *terse.Link, f *Filter) bool {
	if f.Status != "" && s.Status(l) != f.Status {
		return false
	}
	if f.Query == "" {
		return true
	}
	q := strings.ToLower(f.Query)
	if l.Campaign != 0 {
		shown, _ := s.Shown(l)
		l = &shown
	}
	has := func(v string) bool { return strings.Contains(strings.ToLower(v), q) }
	return has(l.Code) || has(l.Destination) || l.Settings != nil && has(l.Settings.Title)
}
