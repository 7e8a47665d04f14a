package api

import (
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/links"
)

// NewSettings are what a link, or a campaign for all of its links, is created with beside where it leads.
type NewSettings struct {
	Title              string            `json:"title,omitempty" nullable:"true"`
	Tags               []string          `json:"tags,omitempty" nullable:"true"`
	ExpiresAt          *time.Time        `json:"expires_at,omitempty" nullable:"true"`
	StartsAt           *time.Time        `json:"starts_at,omitempty" nullable:"true"`
	ExpiredDestination string            `json:"expired_destination,omitempty" nullable:"true"`
	MaxClicks          uint64            `json:"max_clicks,omitempty" nullable:"true" doc:"Clicks after which the link ends; of a campaign: each of its links."`
	Password           string            `json:"password,omitempty" nullable:"true"`
	RedirectStatus     int               `json:"redirect_status,omitempty" nullable:"true" doc:"301, 302, 303, 307 or 308; without it the domain's."`
	ForwardQuery       *bool             `json:"forward_query,omitempty" nullable:"true" doc:"Adds the visitor's query to the destination; without it as the domain says."`
	ForwardPath        bool              `json:"forward_path,omitempty" nullable:"true"`
	Rules              []Rule            `json:"rules,omitempty" nullable:"true"`
	Metadata           map[string]string `json:"metadata,omitempty" nullable:"true"`
	NewLinkWeb
}

// PatchSettings are NewSettings in the body of a change.
type PatchSettings struct {
	Title              Optional[string]            `json:"title,omitempty"`
	Tags               Optional[[]string]          `json:"tags,omitempty"`
	ExpiresAt          Optional[time.Time]         `json:"expires_at,omitempty" doc:"A time in the past ends the link now; of a campaign: all its links."`
	StartsAt           Optional[time.Time]         `json:"starts_at,omitempty"`
	ExpiredDestination Optional[string]            `json:"expired_destination,omitempty"`
	MaxClicks          Optional[uint64]            `json:"max_clicks,omitempty"`
	Password           Optional[string]            `json:"password,omitempty"`
	RedirectStatus     Optional[int]               `json:"redirect_status,omitempty"`
	ForwardQuery       Optional[bool]              `json:"forward_query,omitempty"`
	ForwardPath        Optional[bool]              `json:"forward_path,omitempty"`
	Rules              Optional[[]Rule]            `json:"rules,omitempty"`
	Metadata           Optional[map[string]string] `json:"metadata,omitempty"`
	PatchLinkWeb
}

// domain translates all but the expiry and the status of redirects, which are not among the settings there.
func (p *PatchSettings) domain() links.SettingsPatch {
	out := links.SettingsPatch{
		Title: p.Title.pointer(), Tags: p.Tags.pointer(), StartsAt: patchTime(&p.StartsAt), ExpiredDestination: p.ExpiredDestination.pointer(),
		MaxClicks: p.MaxClicks.pointer(), Password: p.Password.pointer(), ForwardQuery: patchBool(&p.ForwardQuery), ForwardPath: p.ForwardPath.pointer(),
		Metadata: p.Metadata.pointer(), Web: p.PatchLinkWeb.domain(),
	}
	if p.Rules.Set {
		rules := toRules(p.Rules.Value)
		out.Rules = &rules
	}
	return out
}

// fromRules returns rules as the API shows them.
func fromRules(rules []terse.Rule) []Rule {
	out := make([]Rule, 0, len(rules))
	for _, r := range rules {
		rule := Rule{Conditions: []RuleCondition{}, Destination: r.Destination}
		for _, c := range r.Conditions {
			rule.Conditions = append(rule.Conditions, RuleCondition(c))
		}
		for _, v := range r.Variants {
			rule.Variants = append(rule.Variants, RuleVariant(v))
		}
		out = append(out, rule)
	}
	return out
}

func toRules(rules []Rule) []terse.Rule {
	var out []terse.Rule
	for _, r := range rules {
		rule := terse.Rule{Destination: r.Destination}
		for _, c := range r.Conditions {
			rule.Conditions = append(rule.Conditions, terse.Condition(c))
		}
		for _, v := range r.Variants {
			rule.Variants = append(rule.Variants, terse.Variant(v))
		}
		out = append(out, rule)
	}
	return out
}
