package api

import (
	"context"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/agent"
	"github.com/terselink/terse/internal/auth"
	"github.com/terselink/terse/internal/geo"
	"github.com/terselink/terse/internal/rules"
)

// Places finds the country and the region of an address. *geo.DB is one.
type Places interface {
	Lookup(ip netip.Addr, p *geo.Place)
}

// RequestFacts describe a visit that is thought of. What is absent is not known, as for a
// visitor who does not send it.
type RequestFacts struct {
	IP        string     `json:"ip,omitempty" doc:"Address of the visitor: gives country and region where these are absent, and with user_agent the variant." example:"192.0.2.1"`
	Country   string     `json:"country,omitempty" example:"DE"`
	Region    string     `json:"region,omitempty" example:"DE-BE"`
	Language  string     `json:"language,omitempty" doc:"An Accept-Language header." example:"de-AT,en;q=0.5"`
	UserAgent string     `json:"user_agent,omitempty"`
	Device    string     `json:"device,omitempty" doc:"Instead of what user_agent says, as os, browser and bot."`
	OS        string     `json:"os,omitempty"`
	Browser   string     `json:"browser,omitempty"`
	Bot       string     `json:"bot,omitempty"`
	Query     string     `json:"query,omitempty" example:"utm_source=mail"`
	Referrer  string     `json:"referrer,omitempty" example:"https://news.example.com/"`
	Path      string     `json:"path,omitempty" doc:"What follows the code and a slash in the path." example:"more/path"`
	OptOut    bool       `json:"opt_out,omitempty" doc:"The browser asks not to be followed: Sec-GPC or DNT."`
	Kept      uint8      `json:"kept,omitempty" doc:"The target that the browser kept in the link's cookie."`
	Time      *time.Time `json:"time,omitempty" doc:"When; without it now."`
}

// ExplainedCondition says whether a condition holds.
type ExplainedCondition struct {
	Type  string `json:"type"`
	Holds bool   `json:"holds"`
	Saw   string `json:"saw" doc:"The fact it was compared with; empty if it is not known."`
}

// ExplainedRule says whether a rule matches.
type ExplainedRule struct {
	Matched    bool                 `json:"matched" doc:"All its conditions hold. Only the first such rule counts."`
	Conditions []ExplainedCondition `json:"conditions"`
}

// LinkExplanation says what a visit would get.
type LinkExplanation struct {
	Outcome          string          `json:"outcome" enum:"redirect,password,preview,blocked,disabled,expired,not_found,ahead" doc:"What the visit counts as. password: the form, then the destination. ahead: what a browser fetches before a visit is refused where clicks are limited. Clicks used up are not looked at."`
	Answer           string          `json:"answer" enum:"redirect,page,form,preview,app,pixels,frame" doc:"What the visit gets: a redirect, a page that it leads nowhere, the form for the password, the page for link previews, that opens an app, with pixels, or with the destination in a frame."`
	Status           int             `json:"status" doc:"Of the answer." example:"302"`
	Destination      *string         `json:"destination" doc:"Where the visit leads, before its query and path are forwarded; null for a page that leads nowhere."`
	Location         *string         `json:"location" doc:"Where the visit leads, with its query, its path and UTM parameters."`
	LimitDestination *string         `json:"limit_destination" doc:"Where visits lead once max_clicks are used up; null: a page, or there is no limit."`
	Store            *string         `json:"store" doc:"Of the page that opens an app: where the app is to be had."`
	Pixels           []string        `json:"pixels" doc:"The providers that the page tells of the visit."`
	NoIndex          bool            `json:"noindex" doc:"Redirects of the link carry X-Robots-Tag: noindex."`
	ReferrerPolicy   string          `json:"referrer_policy" doc:"Of redirects of the link."`
	SetsCookie       bool            `json:"sets_cookie" doc:"The browser is told to keep the variant."`
	Rule             *int            `json:"rule" doc:"Index of the rule that won; null: none, the link's own destination."`
	Variant          *int            `json:"variant" doc:"Index of its variant, for this address and User-Agent; null: it has none."`
	RulesOf          *string         `json:"rules_of" enum:"link,campaign" doc:"Whose rules decide; null: there are none."`
	Target           int             `json:"target" doc:"What a click records: destinations and variants counted through all rules, from 1; 0: none."`
	Country          string          `json:"country"`
	Device           string          `json:"device"`
	OS               string          `json:"os"`
	Browser          string          `json:"browser"`
	Bot              string          `json:"bot"`
	Rules            []ExplainedRule `json:"rules"`
}

type explainOutput struct{ Body LinkExplanation }

func (s *Server) registerExplain() {
	register(s, operation{
		ID: "explainLink", Method: http.MethodPost, Path: "/api/v1/links/{id}/explain", Tag: "Links", Scope: auth.ScopeLinksRead, Status: http.StatusOK,
		Summary: "Explain where a visit would lead", Description: "Nothing is counted, and nothing changes.",
	}, s.explainLink)
}

func (s *Server) explainLink(ctx context.Context, c *call, in *struct {
	LinkPath
	Body RequestFacts
}) (*explainOutput, error) {
	n, err := parseLinkID(in.ID)
	if err != nil {
		return nil, err
	}
	l, err := s.o.Links.Get(ctx, c.actor(), n)
	if err != nil {
		return nil, err
	}
	campaign, err := s.o.Links.RuledBy(ctx, &l)
	if err != nil {
		return nil, err
	}
	l, _ = s.o.Links.Shown(&l)
	var set terse.LinkSettings
	if l.Settings != nil {
		set = *l.Settings
	}
	compiled, err := rules.Compile(set.Rules)
	if err != nil {
		return nil, err
	}
	target := func(n uint8) (url string, ok bool) { return compiled.Targets()[n-1], true }
	if campaign != nil {
		target = func(n uint8) (string, bool) {
			url, ok := campaign.Targets[n-1].Append(nil, l.Values)
			return string(url), ok
		}
	}
	f, err := s.facts(&in.Body)
	if err != nil {
		return nil, err
	}
	out := &explainOutput{}
	b := &out.Body
	switch {
	case campaign != nil:
		b.RulesOf = new("campaign")
	case len(set.Rules) > 0:
		b.RulesOf = new("link")
	}
	b.Country, b.Device, b.OS, b.Browser, b.Bot = f.Country, f.Device, f.OS, f.Browser, f.Bot
	b.Rules, b.Pixels = make([]ExplainedRule, len(set.Rules)), []string{}
	for i, e := range compiled.Explain(f) {
		b.Rules[i] = ExplainedRule{Matched: e.Matched, Conditions: []ExplainedCondition{}}
		for j, cond := range e.Conditions {
			b.Rules[i].Conditions = append(b.Rules[i].Conditions, ExplainedCondition{set.Rules[i].Conditions[j].Type, cond.Holds, cond.Saw})
		}
	}
	s.explainOutcome(b, &l, &set, compiled.Decide(l.Number, f), target, f, &in.Body)
	return out, nil
}

// facts makes the facts of a visit that is thought of.
func (s *Server) facts(in *RequestFacts) (*rules.Facts, error) {
	f := &rules.Facts{
		Now: s.o.Clock(), Country: in.Country, Region: in.Region, Language: []byte(in.Language), Query: []byte(in.Query), Referrer: []byte(in.Referrer), Prefer: in.Kept,
	}
	if in.Time != nil {
		f.Now = pointInTime(in.Time)
	}
	if in.Query != "" {
		if _, err := url.ParseQuery(in.Query); err != nil {
			return nil, terse.Invalid("query", "not a query such as a=1&b=2")
		}
	}
	if strings.ContainsAny(in.Path, "?#") {
		return nil, terse.Invalid("path", "has a query or a fragment")
	}
	for _, fact := range [][2]string{{"country", in.Country}, {"device", in.Device}, {"bot", in.Bot}} {
		if why := rules.CheckFact(fact[0], fact[1]); why != "" {
			return nil, terse.Invalid(fact[0], "%s", why)
		}
	}
	if in.IP != "" {
		ip, err := netip.ParseAddr(in.IP)
		if err != nil {
			return nil, terse.Invalid("ip", "not an address such as 192.0.2.1")
		}
		ip = ip.Unmap().WithZone("")
		if s.o.Places != nil {
			var p geo.Place
			s.o.Places.Lookup(ip, &p)
			f.Country, f.Region = either(f.Country, p.Country), either(f.Region, p.Region)
		}
		f.Visitor = rules.Visitor(ip.As16(), []byte(in.UserAgent))
	}
	if in.UserAgent != "" {
		info := agent.New(agent.Options{CacheEntries: 1}).Parse([]byte(in.UserAgent), nil, false)
		f.Device, f.OS, f.Browser, f.Bot = info.Device, info.OS, info.Browser, rules.BotName(info.Bot)
	}
	f.Device, f.OS, f.Browser, f.Bot = either(in.Device, f.Device), either(in.OS, f.OS), either(in.Browser, f.Browser), either(in.Bot, f.Bot)
	return f, nil
}

// either returns a, or b if a is empty.
func either(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
