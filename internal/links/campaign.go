package links

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unsafe"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/campaigns"
	"github.com/terselink/terse/internal/domains"
	"github.com/terselink/terse/internal/rules"
)

// Limits of campaigns.
const (
	MaxCampaignName    = 200 // bytes
	MaxCampaignDomains = 1000
	MaxCampaignWeight  = 10_000 // of all its domains together
)

// NewCampaign describes a campaign to create. Zero values mean the defaults. The settings from Title on are those
// of all its links; their URLs, texts and UTM parameters may have placeholders.
type NewCampaign struct {
	Name               string
	Domains            []DomainWeight // none: the workspace's default
	Destination        string         // a template (package template)
	Fields             []string       // names of the values and their order; nil: those that the templates name
	Tags               []string
	Title              string
	ExpiresAt          terse.Millis
	StartsAt           terse.Millis
	ExpiredDestination string
	MaxClicks          uint64 // of each link
	Password           string
	RedirectStatus     int
	ForwardQuery       *bool
	ForwardPath        bool
	Rules              []terse.Rule
	Metadata           map[string]string
	Web                *terse.LinkWeb // nil: nothing; read only
}

// DomainWeight is a domain of a campaign and how often it has its turn.
type DomainWeight struct {
	Host   string
	Weight uint32 // 0: 1
}

// CampaignPatch changes a campaign: nil leaves a field as it is, a pointer to the zero
// value clears it. The fields never change.
type CampaignPatch struct {
	Name           *string
	Domains        *[]DomainWeight
	Destination    *string
	Status         *terse.Status
	ExpiresAt      *terse.Millis
	RedirectStatus *int
	SettingsPatch
}

// CreateCampaign makes a campaign without links, durable on return. What also returns for it
// goes into the same atomic write; nil: nothing. Errors: invalid with the field; unavailable.
func (s *Service) CreateCampaign(ctx context.Context, a Actor, n NewCampaign, also func(*campaigns.Campaign) ([]terse.Document, error)) (*campaigns.Campaign, error) {
	c := terse.Campaign{Workspace: a.Workspace, Settings: terse.LinkSettings{CreatedBy: a.By, Web: n.Web}}
	var err error
	if c.ExpiresAt, err = futureTime("expires_at", n.ExpiresAt, s.o.Clock()); err != nil {
		return nil, err
	}
	f := templateFields{names: slices.Clone(n.Fields), open: n.Fields == nil}
	if err := f.check(); err != nil {
		return nil, err
	}
	if n.Domains == nil {
		n.Domains = []DomainWeight{}
	}
	err = s.applyCampaign(ctx, a, &c, &f, &CampaignPatch{
		Name: &n.Name, Domains: &n.Domains, Destination: &n.Destination, RedirectStatus: &n.RedirectStatus,
		SettingsPatch: SettingsPatch{
			Title: &n.Title, Tags: &n.Tags, StartsAt: &n.StartsAt, ExpiredDestination: &n.ExpiredDestination, MaxClicks: &n.MaxClicks, Password: &n.Password,
			ForwardQuery: &n.ForwardQuery, ForwardPath: &n.ForwardPath, Rules: &n.Rules, Metadata: &n.Metadata,
		},
	})
	if err != nil {
		return nil, err
	}
	if c.Fields = f.names; c.Fields == nil {
		c.Fields = []string{}
	}
	return s.o.Campaigns.Create(ctx, c, also)
}

// CheckCampaign tells whether a campaign takes links. Returns an error of code not_found or
// conflict.
func (s *Service) CheckCampaign(ctx context.Context, a Actor, id terse.CampaignID) error {
	_, err := s.openCampaign(ctx, a, &BulkOptions{Campaign: id})
	return err
}

// applyCampaign changes c as p says, with templates of the fields f. It replaces what c refers to and modifies none
// of it.
func (s *Service) applyCampaign(ctx context.Context, a Actor, c *terse.Campaign, f *templateFields, p *CampaignPatch) error {
	kept := c.Settings.Web
	if c.ID == 0 {
		kept = nil
	}
	check := s.checker(p.Web.allowed(s.o.Workspaces(a.Workspace), kept))
	check.fields = f
	if c.ID != 0 {
		check.stored = campaigns.Braced(&c.Settings)
	}
	if p.Name != nil {
		if *p.Name == "" {
			return terse.Invalid("name", "a campaign has a name")
		}
		if err := checkText("name", *p.Name, MaxCampaignName); err != nil {
			return err
		}
		c.Name = *p.Name
	}
	if p.Destination != nil {
		var err error
		if c.Destination, err = check.url("destination", *p.Destination); err != nil {
			return err
		}
	}
	if p.Domains != nil {
		var err error
		if c.Domains, err = s.campaignDomains(ctx, a, *p.Domains); err != nil {
			return err
		}
	}
	assign(&c.Status, p.Status)
	if p.ExpiresAt != nil {
		// The past is allowed here: it is how a campaign is ended now.
		if *p.ExpiresAt < 0 || *p.ExpiresAt > latestTime {
			return terse.Invalid("expires_at", "not a time that can be kept")
		}
		c.ExpiresAt = *p.ExpiresAt
	}
	if p.RedirectStatus != nil {
		if *p.RedirectStatus != 0 && !domains.ValidRedirectStatus(*p.RedirectStatus) {
			return errRedirectStatus()
		}
		c.RedirectStatus = uint16(*p.RedirectStatus)
	}
	if err := p.apply(&c.Settings); err != nil {
		return err
	}
	if p.Rules != nil {
		if err := rules.CheckNames(c.Settings.Rules); err != nil {
			return err
		}
	}
	if c.ID == 0 {
		return check.settings(&c.Settings, c.ExpiresAt)
	}
	if err := s.checkSpan(c.Settings.StartsAt, c.ExpiresAt, p.StartsAt, p.ExpiresAt); err != nil {
		return err
	}
	return check.settings(&c.Settings, 0)
}

// campaignDomains finds the domains that a campaign names.
func (s *Service) campaignDomains(ctx context.Context, a Actor, list []DomainWeight) ([]terse.CampaignDomain, error) {
	if len(list) == 0 {
		list = []DomainWeight{{}}
	}
	if len(list) > MaxCampaignDomains {
		return nil, terse.Invalid("domains", "more than %d domains", MaxCampaignDomains)
	}
	out := make([]terse.CampaignDomain, 0, len(list))
	seen := make(map[terse.DomainID]bool, len(list))
	total := uint64(0)
	for i, dw := range list {
		d, err := s.domain(ctx, a, dw.Host)
		if err != nil {
			return nil, err
		}
		if seen[d.Number] {
			return nil, terse.Invalid(fmt.Sprintf("domains[%d]", i), "the domain is there twice")
		}
		seen[d.Number] = true
		weight := max(dw.Weight, 1)
		if total += uint64(weight); total > MaxCampaignWeight {
			return nil, terse.Invalid("domains", "the weights add up to more than %d", MaxCampaignWeight)
		}
		out = append(out, terse.CampaignDomain{Number: d.Number, Weight: weight})
	}
	return out, nil
}

// GetCampaign returns a campaign of the workspace. Returns ErrNotFound.
func (s *Service) GetCampaign(ctx context.Context, a Actor, id terse.CampaignID) (*campaigns.Campaign, error) {
	return s.o.Campaigns.Get(ctx, a.Workspace, id)
}

// ListCampaigns returns at most limit campaigns, oldest first, those after the given id.
func (s *Service) ListCampaigns(ctx context.Context, a Actor, after terse.CampaignID, limit int) ([]*campaigns.Campaign, error) {
	return s.o.Campaigns.List(ctx, a.Workspace, after, limit)
}

// UpdateCampaign changes a campaign, durable on return; the next visit of every link of it on
// this node follows. ifVersion 0 accepts any version. Returns ErrNotFound, ErrVersion, or
// invalid with the field.
func (s *Service) UpdateCampaign(ctx context.Context, a Actor, id terse.CampaignID, p CampaignPatch, ifVersion uint64) (*campaigns.Campaign, error) {
	return s.o.Campaigns.Update(ctx, a.Workspace, id, ifVersion, func(c *terse.Campaign) error {
		return s.applyCampaign(ctx, a, c, &templateFields{names: c.Fields}, &p)
	})
}

// DeleteCampaign ends a campaign for ever, and all its links with it. ifVersion 0 accepts
// any version. Those that were blocked for abuse stay blocked, and keep their aliases. Returns ErrNotFound, ErrVersion.
func (s *Service) DeleteCampaign(ctx context.Context, a Actor, id terse.CampaignID, ifVersion uint64) error {
	return s.o.Campaigns.Delete(ctx, a.Workspace, id, ifVersion)
}

// CampaignHosts returns the hosts of a campaign's domains and their weights.
func (s *Service) CampaignHosts(c *campaigns.Campaign) []DomainWeight {
	out := make([]DomainWeight, 0, len(c.Domains))
	for _, cd := range c.Domains {
		if d := s.o.Domains.ByNumber(cd.Number); d != nil {
			out = append(out, DomainWeight{Host: d.Host, Weight: cd.Weight})
		}
	}
	return out
}

// liveCampaign returns ErrNotFound for a link whose campaign was deleted: it ended with it.
func (s *Service) liveCampaign(ctx context.Context, l *terse.Link) error {
	if l.Campaign == 0 {
		return nil
	}
	_, err := s.o.Campaigns.Handle(ctx, l.Workspace, l.Campaign)
	return err
}

// Value is a value of a campaign's link.
type Value struct{ Field, Value string }

// loadTimeout bounds how long Shown waits for a campaign that is not in memory.
const loadTimeout = 5 * time.Second

// Shown returns a link as visitors meet it, with what its campaign gives it, and its values
// in the order of the campaign's fields. A link without a campaign is returned as it is. If the
// campaign cannot be read, the destination stays empty.
func (s *Service) Shown(l *terse.Link) (terse.Link, []Value) {
	if l.Campaign == 0 {
		return *l, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), loadTimeout)
	defer cancel()
	c, err := s.o.Campaigns.Get(ctx, l.Workspace, l.Campaign)
	if err != nil {
		return *l, nil
	}
	return s.under(c, l)
}

// under gives a link what its campaign gives it; package redirect does the same for a
// compiled link.
func (s *Service) under(c *campaigns.Campaign, l *terse.Link) (terse.Link, []Value) {
	out := *l
	if out.Destination == "" {
		if url, ok := c.Template.Append(nil, l.Values); ok {
			out.Destination = string(url)
		}
	}
	out.Status = max(out.Status, c.Status)
	if c.ExpiresAt != 0 && (l.ExpiresAt == 0 || l.DefaultExpiry || c.ExpiresAt < l.ExpiresAt) {
		out.ExpiresAt, out.DefaultExpiry = c.ExpiresAt, false
	}
	if out.RedirectStatus == 0 {
		out.RedirectStatus = c.RedirectStatus
	}
	set := c.Under(l)
	if rulesOf(c, l) {
		set.Rules = expandRules(c, l.Values)
	}
	out.Settings = keep(&set)
	return out, splitValues(c.Fields, l.Values)
}

// rulesOf reports whether the rules of the campaign decide for its link: not if it has a
// destination or rules of its own.
func rulesOf(c *campaigns.Campaign, l *terse.Link) bool {
	return c.Rules != nil && l.Destination == "" && (l.Settings == nil || len(l.Settings.Rules) == 0)
}

// RuledBy returns the campaign whose rules decide for a link as it is stored, nil if its own do
// or there are none.
func (s *Service) RuledBy(ctx context.Context, l *terse.Link) (*campaigns.Campaign, error) {
	if l.Campaign == 0 {
		return nil, nil
	}
	c, err := s.o.Campaigns.Get(ctx, l.Workspace, l.Campaign)
	if err != nil || !rulesOf(c, l) {
		return nil, err
	}
	return c, nil
}

// expandRules returns the rules of the campaign as they are for the values of a link. A destination
// that the values make none stays the template: visitors then meet a link that does not exist.
func expandRules(c *campaigns.Campaign, values string) []terse.Rule {
	out := slices.Clone(c.Settings.Rules)
	next := 0
	expand := func(text string) string {
		url, ok := c.Targets[next].Append(nil, values)
		next++
		if !ok {
			return text
		}
		return string(url)
	}
	for i := range out {
		r := &out[i]
		if len(r.Variants) == 0 {
			r.Destination = expand(r.Destination)
			continue
		}
		r.Variants = slices.Clone(r.Variants)
		for j := range r.Variants {
			r.Variants[j].Destination = expand(r.Variants[j].Destination)
		}
	}
	return out
}

// splitValues names the values of a link.
func splitValues(fields []string, joined string) []Value {
	out := make([]Value, len(fields))
	for i, f := range fields {
		var v string
		v, joined, _ = strings.Cut(joined, string(terse.FieldSeparator))
		out[i] = Value{f, v}
	}
	return out
}

// stringBytes returns the bytes of a string for reading only.
func stringBytes(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// exportPage is how many links an export reads at a time.
const exportPage = 5000

// ExportLinks writes every link of a campaign to w, as NDJSON or CSV, the newest first,
// with constant memory. w is flushed after each page if it has a method Flush() error. Returns
// ErrNotFound before anything is written.
func (s *Service) ExportLinks(ctx context.Context, a Actor, id terse.CampaignID, form Format, rawCSV bool, w io.Writer) error {
	c, err := s.o.Campaigns.Get(ctx, a.Workspace, id)
	if err != nil {
		return err
	}
	flusher, _ := w.(interface{ Flush() error })
	e := exporter{s: s, c: c, p: &pipeline{o: BulkOptions{RawCSV: rawCSV, Out: form}}, now: s.o.Clock()}
	if form == CSV {
		e.header()
	}
	q := terse.ListQuery{Campaign: id, Limit: exportPage}
	for {
		page, err := s.o.Store.ListLinks(ctx, a.Workspace, q)
		if err != nil {
			return fmt.Errorf("list links: %w", err)
		}
		for i := range page.Links {
			e.link(&page.Links[i])
		}
		if _, err := w.Write(e.out); err != nil {
			return err
		}
		if flusher != nil {
			if err := flusher.Flush(); err != nil {
				return err
			}
		}
		e.out = e.out[:0]
		if page.Next == "" {
			return nil
		}
		q.Cursor = page.Next
	}
}

// exporter renders links of one campaign.
type exporter struct {
	s   *Service
	c   *campaigns.Campaign
	p   *pipeline // for its CSV
	now terse.Millis
	out []byte
}

func (e *exporter) header() {
	e.out = append(e.out, "short_url,code,id,external_id,destination,status,created_at"...)
	for _, f := range e.c.Fields {
		e.out = append(append(e.out, ','), f...)
	}
	e.out = append(e.out, '\n')
}

func (e *exporter) link(l *terse.Link) {
	d := e.s.Domain(l)
	if d == nil {
		return
	}
	e.s.setCode(d, l)
	shown, values := e.s.under(e.c, l)
	status := StatusActive
	switch {
	case shown.Status != terse.StatusActive:
		status = shown.Status.String()
	case shown.ExpiredAt(e.now):
		status = StatusExpired
	}
	created := l.CreatedAt.Time()
	if e.p.o.Out == CSV {
		e.out = e.p.appendCSV(e.out, d.ShortURL(l.Code))
		for _, v := range []string{l.Code, l.Number.String(), l.ExternalID, shown.Destination, status} {
			e.out = e.p.appendCSV(append(e.out, ','), v)
		}
		e.out = created.AppendFormat(append(e.out, ','), time.RFC3339)
		for _, v := range values {
			e.out = e.p.appendCSV(append(e.out, ','), v.Value)
		}
		e.out = append(e.out, '\n')
		return
	}
	e.out = append(e.out, `{"short_url":"`...)
	e.out = d.AppendShortURL(e.out, l.Code)
	for _, kv := range [][2]string{{"code", l.Code}, {"id", l.Number.String()}, {"external_id", l.ExternalID}, {"destination", shown.Destination}, {"status", status}} {
		if kv[1] == "" {
			continue
		}
		e.out = append(append(append(e.out, `","`...), kv[0]...), `":"`...)
		e.out = appendEscaped(e.out, kv[1])
	}
	e.out = append(e.out, `","created_at":"`...)
	e.out = created.AppendFormat(e.out, time.RFC3339)
	e.out = append(e.out, `","values":{`...)
	for i, v := range values {
		if i > 0 {
			e.out = append(e.out, ',')
		}
		e.out = append(append(append(e.out, '"'), v.Field...), `":"`...)
		e.out = append(appendEscaped(e.out, v.Value), '"')
	}
	e.out = append(e.out, "}}\n"...)
}

// CountLinks returns how many links of a campaign exist.
func (s *Service) CountLinks(ctx context.Context, a Actor, id terse.CampaignID) (uint64, error) {
	n, err := s.o.Store.CountLinks(ctx, a.Workspace, id)
	if err != nil {
		return 0, fmt.Errorf("count links: %w", err)
	}
	return n, nil
}
