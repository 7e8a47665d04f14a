package cli

import (
	"strconv"
	"strings"

	"github.com/terselink/terse/client"
)

type linksExplainCmd struct {
	Link      string `arg:"" help:"Id or short URL."`
	IP        string `name:"ip" help:"Address of the visitor." placeholder:"ADDRESS"`
	Country   string `help:"Country, in place of the one of the address." placeholder:"CODE"`
	Region    string `help:"Region, such as DE-BE." placeholder:"CODE"`
	Language  string `help:"Accept-Language header." placeholder:"HEADER"`
	UserAgent string `help:"User-Agent header." placeholder:"HEADER"`
	Query     string `help:"Query of the short URL." placeholder:"QUERY"`
	Referrer  string `help:"Page that the visitor comes from." placeholder:"URL"`
	Path      string `help:"What follows the code in the path." placeholder:"PATH"`
	OptOut    bool   `help:"The browser asks not to be followed (Sec-GPC, DNT)."`
	At        string `help:"When, as for shorten --expires; without it now." placeholder:"WHEN"`
}

func (c *linksExplainCmd) Run(s *session) error {
	v := client.Visit{
		IP: c.IP, Country: c.Country, Region: c.Region, Language: c.Language, UserAgent: c.UserAgent, Query: c.Query, Referrer: c.Referrer, Path: c.Path, OptOut: c.OptOut,
	}
	var err error
	if v.Time, err = s.when("at", c.At); err != nil {
		return err
	}
	cl, err := s.connect()
	if err != nil {
		return err
	}
	id, err := s.linkID(cl, c.Link)
	if err != nil {
		return err
	}
	e, err := cl.Explain(s.ctx, id, v)
	if err != nil {
		return err
	}
	if s.g.JSON {
		return s.printJSON(e)
	}
	return s.printExplanation(e)
}

func (s *session) printExplanation(e *client.Explanation) error {
	winner := "none: the destination of the link"
	if e.Rule != nil {
		winner = "rules[" + strconv.Itoa(*e.Rule) + "]"
		if e.Variant != nil {
			winner += ".variants[" + strconv.Itoa(*e.Variant) + "]"
		}
		if e.RulesOf == "campaign" {
			winner += " of the campaign"
		}
	}
	answer := e.Answer
	if e.Status != 0 {
		answer += " (" + strconv.Itoa(e.Status) + ")"
	}
	t := s.table("outcome", e.Outcome)
	for _, kv := range [][2]string{
		{"answer", answer}, {"leads to", e.Location}, {"when used up", e.LimitDestination}, {"store", e.Store}, {"pixels", strings.Join(e.Pixels, ", ")},
		{"destination", e.Destination}, {"rule", winner}, {"country", e.Country}, {"device", e.Device}, {"os", e.OS}, {"browser", e.Browser}, {"bot", e.Bot},
	} {
		if kv[1] != "" {
			t.row(kv[0], kv[1])
		}
	}
	for i, r := range e.Rules {
		t.row("rules["+strconv.Itoa(i)+"]", map[bool]string{true: "matches", false: "does not match"}[r.Matched])
		for _, c := range r.Conditions {
			saw := c.Saw
			if saw == "" {
				saw = "nothing known"
			}
			t.row("  "+c.Type, map[bool]string{true: "holds: ", false: "fails: "}[c.Holds]+saw)
		}
	}
	return t.flush()
}
