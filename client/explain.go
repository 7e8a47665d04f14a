package client

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// Visit describes a visit that is thought of. Zero fields are not known, as for a visitor
// who does not send them; a zero Time is now.
type Visit struct {
	IP        string    `json:"ip,omitzero"`
	Country   string    `json:"country,omitzero"`
	Region    string    `json:"region,omitzero"`
	Language  string    `json:"language,omitzero"` // an Accept-Language header
	UserAgent string    `json:"user_agent,omitzero"`
	Device    string    `json:"device,omitzero"`
	OS        string    `json:"os,omitzero"`
	Browser   string    `json:"browser,omitzero"`
	Bot       string    `json:"bot,omitzero"`
	Query     string    `json:"query,omitzero"`
	Referrer  string    `json:"referrer,omitzero"`
	Path      string    `json:"path,omitzero"`    // what follows the code and a slash
	OptOut    bool      `json:"opt_out,omitzero"` // Sec-GPC or DNT
	Kept      uint8     `json:"kept,omitzero"`    // target that the browser kept in the link's cookie
	Time      time.Time `json:"time,omitzero"`
}

// Explanation says what a visit would get, and what became of each rule.
type Explanation struct {
	Outcome          string          `json:"outcome"` // redirect, password, preview, blocked, disabled, expired, not_found or ahead
	Destination      string          `json:"destination"`
	Answer           string          `json:"answer"`            // redirect, page, form, preview, app, pixels or frame
	Status           int             `json:"status"`            // of the answer
	Location         string          `json:"location"`          // the destination with query, path and UTM parameters
	LimitDestination string          `json:"limit_destination"` // once max_clicks are used up
	Store            string          `json:"store"`             // of the page that opens an app
	Pixels           []string        `json:"pixels"`            // providers that the page tells of the visit
	NoIndex          bool            `json:"noindex"`
	ReferrerPolicy   string          `json:"referrer_policy"`
	SetsCookie       bool            `json:"sets_cookie"`       // the browser is told to keep the variant
	Rule             *int            `json:"rule"`              // index of the rule that won; nil: none
	Variant          *int            `json:"variant"`           // index of its variant
	RulesOf          string          `json:"rules_of,omitzero"` // whose rules decide: link or campaign; "": there are none
	Target           int             `json:"target"`            // what a click records
	Country          string          `json:"country"`
	Device           string          `json:"device"`
	OS               string          `json:"os"`
	Browser          string          `json:"browser"`
	Bot              string          `json:"bot"`
	Rules            []ExplainedRule `json:"rules"`
}

// ExplainedRule says whether a rule matches.
type ExplainedRule struct {
	Matched    bool `json:"matched"`
	Conditions []struct {
		Type  string `json:"type"`
		Holds bool   `json:"holds"`
		Saw   string `json:"saw"`
	} `json:"conditions"`
}

// Explain returns where a visit of a link would lead and why. Nothing is counted.
func (c *Client) Explain(ctx context.Context, id string, v Visit) (*Explanation, error) {
	var out Explanation
	if err := c.do(ctx, &call{method: http.MethodPost, path: "/links/" + url.PathEscape(id) + "/explain", in: v, out: &out}); err != nil {
		return nil, err
	}
	return &out, nil
}
