package api

import (
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/links"
)

// Link is a link as the API shows it. All fields are always there but the clicks; null is none.
type Link struct {
	ID                 string            `json:"id" doc:"The id of the link, for ever." example:"link_0000400000r00"`
	ShortURL           string            `json:"short_url" example:"https://go.example.com/aB3dE5g"`
	Domain             string            `json:"domain" example:"go.example.com"`
	Code               string            `json:"code" doc:"The last part of the short URL." example:"aB3dE5g"`
	Destination        string            `json:"destination" example:"https://example.com/a?b=c"`
	Title              *string           `json:"title"`
	Tags               []string          `json:"tags"`
	ExternalID         *string           `json:"external_id"`
	CampaignID         *string           `json:"campaign_id"`
	Values             map[string]string `json:"values" doc:"Of a link of a campaign: what its template is filled with; else empty."`
	Status             string            `json:"status" enum:"active,disabled,expired,blocked"`
	CreatedAt          time.Time         `json:"created_at"`
	UpdatedAt          time.Time         `json:"updated_at"`
	CreatedBy          *string           `json:"created_by" doc:"The id of the API key that made it, if that was kept."`
	ExpiresAt          *time.Time        `json:"expires_at"`
	StartsAt           *time.Time        `json:"starts_at"`
	ExpiredDestination *string           `json:"expired_destination"`
	MaxClicks          *uint64           `json:"max_clicks"`
	HasPassword        bool              `json:"has_password"`
	RedirectStatus     int               `json:"redirect_status" doc:"In force: the link's own, else the domain's."`
	ForwardQuery       bool              `json:"forward_query" doc:"In force: the link's own, else the domain's."`
	ForwardPath        bool              `json:"forward_path"`
	Rules              []Rule            `json:"rules"`
	Metadata           map[string]string `json:"metadata"`
	LinkWeb
	Version       uint64     `json:"version" doc:"Grows with every change; also the ETag."`
	Clicks        *int64     `json:"clicks,omitempty" doc:"Clicks of people, of all time. Only where links are read, and absent while analytics do not answer."`
	LastClickedAt *time.Time `json:"last_clicked_at,omitempty" doc:"The time of the last of them; absent as clicks is, or if there is none."`
}

// Rule sends visitors that meet all conditions elsewhere.
type Rule struct {
	Conditions  []RuleCondition `json:"conditions" required:"false" doc:"All must hold; without any the rule matches everybody and is the last."`
	Destination string          `json:"destination,omitempty"`
	Variants    []RuleVariant   `json:"variants,omitempty"`
}

// RuleCondition compares one fact of the request with values.
type RuleCondition struct {
	Type   string   `json:"type" doc:"country, region, language, device, os, browser, query, referrer, time, weekday or bot." example:"country"`
	Key    string   `json:"key,omitempty" doc:"Of query: the name of the parameter; of time and weekday: the zone, UTC without it."`
	Not    bool     `json:"not,omitempty"`
	Values []string `json:"values" required:"false" doc:"Any of them; may be empty for query, referrer and bot: the fact is there."`
}

// RuleVariant is one of several destinations with a weight.
type RuleVariant struct {
	Destination string `json:"destination"`
	Weight      uint32 `json:"weight"`
}

// NewLink is the body of a creation.
type NewLink struct {
	Destination string `json:"destination" doc:"Where visitors go: an http or https URL of at most 8 KiB." example:"https://example.com/a?b=c"`
	Domain      string `json:"domain,omitempty" nullable:"true" doc:"The host; without it the workspace's default." example:"go.example.com"`
	Code        string `json:"code,omitempty" nullable:"true" doc:"Makes it an alias; without it a code is generated." example:"summer"`
	Class       string `json:"class,omitempty" nullable:"true" doc:"secret: a random code of 22 characters, for links that must not be found by guessing." example:"secret"`
	ExternalID  string `json:"external_id,omitempty" nullable:"true" doc:"Your own name for the link; need not be unique."`
	NewSettings
	IfExists string `json:"if_exists,omitempty" nullable:"true" doc:"create (default) or reuse: answer 200 with a live link of the same destination and no other settings, if there is one."`
}

// PatchLink is the body of a change: what is absent stays, null clears.
type PatchLink struct {
	Destination Optional[string] `json:"destination,omitempty"`
	ExternalID  Optional[string] `json:"external_id,omitempty"`
	Status      Optional[string] `json:"status,omitempty" doc:"active, disabled, or blocked, which takes the scope links:block to set and to lift."`
	PatchSettings
	BlockedReason Optional[string] `json:"blocked_reason,omitempty" doc:"With the status blocked: why."`
}

// link returns what the API shows of a link.
func (s *Server) link(l *terse.Link) *Link {
	shown, values := s.o.Links.Shown(l)
	l = &shown
	out := &Link{
		ID: l.Number.String(), ShortURL: s.o.Links.ShortURL(l), Code: l.Code, Destination: l.Destination,
		Values: map[string]string{}, Tags: []string{}, ExternalID: orNull(l.ExternalID), Status: s.o.Links.Status(l),
		CreatedAt: l.CreatedAt.Time(), UpdatedAt: l.UpdatedAt.Time(), ExpiresAt: timeOrNull(l.ExpiresAt),
		RedirectStatus: int(l.RedirectStatus), Rules: []Rule{}, Metadata: map[string]string{}, Version: l.Version,
	}
	if l.Campaign != 0 {
		id := l.Campaign.String()
		out.CampaignID = &id
		out.Values = make(map[string]string, len(values))
		for _, v := range values {
			out.Values[v.Field] = v.Value
		}
	}
	d := s.o.Links.Domain(l)
	if d != nil {
		out.Domain = d.Host
		out.ForwardQuery = d.ForwardQuery
		if out.RedirectStatus == 0 {
			out.RedirectStatus = d.RedirectStatus
		}
	}
	set := l.Settings
	if set != nil && set.ForwardQuery != nil {
		out.ForwardQuery = *set.ForwardQuery
	}
	showLinkWeb(out, set, d)
	if set == nil {
		return out
	}
	out.Title, out.StartsAt, out.ExpiredDestination = orNull(set.Title), timeOrNull(set.StartsAt), orNull(set.ExpiredDestination)
	out.CreatedBy, out.HasPassword, out.ForwardPath = orNull(set.CreatedBy), set.PasswordHash != "", set.ForwardPath
	if set.Tags != nil {
		out.Tags = set.Tags
	}
	if set.Metadata != nil {
		out.Metadata = set.Metadata
	}
	if set.MaxClicks != 0 {
		out.MaxClicks = &set.MaxClicks
	}
	out.Rules = fromRules(set.Rules)
	return out
}

func (n *NewLink) domain() links.NewLink {
	return links.NewLink{
		Destination: n.Destination, Domain: n.Domain, Code: n.Code, Class: n.Class, Title: n.Title, ExternalID: n.ExternalID,
		ExpiredDestination: n.ExpiredDestination, IfExists: n.IfExists, Password: n.Password, Tags: n.Tags,
		ExpiresAt: pointInTime(n.ExpiresAt), StartsAt: pointInTime(n.StartsAt), MaxClicks: n.MaxClicks,
		RedirectStatus: n.RedirectStatus, ForwardQuery: n.ForwardQuery, ForwardPath: n.ForwardPath,
		Rules: toRules(n.Rules), Metadata: n.Metadata, Web: n.NewLinkWeb.domain(),
	}
}

// domain translates the patch. A status other than the two that can be set, and null
// for it, is an error of code invalid.
func (p *PatchLink) domain() (links.Patch, error) {
	out := links.Patch{
		Destination: p.Destination.pointer(), ExternalID: p.ExternalID.pointer(), ExpiresAt: patchTime(&p.ExpiresAt), RedirectStatus: p.RedirectStatus.pointer(),
		BlockedReason: p.BlockedReason.pointer(), SettingsPatch: p.PatchSettings.domain(),
	}
	var err error
	if out.Status, err = patchStatus(&p.Status); p.Status.Value == links.StatusBlocked {
		out.Status, err = new(terse.StatusBlocked), nil
	} else if err != nil {
		err = terse.Invalid("status", "the status is active, disabled or blocked")
	}
	return out, err
}

// patchStatus reads a status that can be set; null is none.
func patchStatus(o *Optional[string]) (*terse.Status, error) {
	if !o.Set {
		return nil, nil
	}
	status, ok := map[string]terse.Status{links.StatusActive: terse.StatusActive, links.StatusDisabled: terse.StatusDisabled}[o.Value]
	if !ok {
		return nil, terse.Invalid("status", "the status is active or disabled")
	}
	return &status, nil
}

// pointer returns nil for an absent field, and a pointer to the zero value for null.
func (o *Optional[T]) pointer() *T {
	if !o.Set {
		return nil
	}
	return &o.Value
}

func patchTime(o *Optional[time.Time]) *terse.Millis {
	if !o.Set {
		return nil
	}
	var m terse.Millis
	if !o.Null {
		m = pointInTime(&o.Value)
	}
	return &m
}

// pointInTime converts a time of a request; nil is 0, never. Moments before 1970
// become the first one after it, because 0 and less would not say that they are past.
func pointInTime(t *time.Time) terse.Millis {
	if t == nil {
		return 0
	}
	return terse.Millis(max(t.UnixMilli(), 1))
}

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func timeOrNull(m terse.Millis) *time.Time {
	if m == 0 {
		return nil
	}
	t := m.Time()
	return &t
}

// TransformSchema implements huma.SchemaTransformer.
func (n *NewLink) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	s.Description = "A link to create. Only destination is required; null means the same as absent."
	return s
}

// TransformSchema implements huma.SchemaTransformer.
func (p *PatchLink) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	s.Description = "A change: what is absent stays as it is, null clears."
	return s
}
