package cli

import (
	"strings"

	"github.com/terselink/terse/client"
)

// clickQuery are the flags that select clicks, the same for every command that shows any.
type clickQuery struct {
	Link       string `arg:"" optional:"" help:"Id or short URL; without it the whole workspace."`
	clickFlags `embed:""`
	Campaign   string `help:"Clicks of a campaign." placeholder:"ID"`
}

// clickFlags choose among the clicks of whatever a command is about.
type clickFlags struct {
	Period string   `help:"Time up to now: 24h, 7d, 30d and so on." default:"30d" placeholder:"PERIOD"`
	From   string   `help:"Begin, in place of --period: a time or a date." placeholder:"WHEN"`
	To     string   `help:"End; now without it." placeholder:"WHEN"`
	TZ     string   `name:"tz" help:"Time zone that days begin in, such as Europe/Berlin." default:"UTC" placeholder:"ZONE"`
	Bots   string   `help:"exclude, include or only; with --all include without it." enum:"exclude,include,only," default:"" placeholder:"HOW"`
	Domain string   `help:"Clicks of a domain." placeholder:"HOST"`
	Tag    string   `help:"Clicks of links with a tag." placeholder:"TAG"`
	Filter []string `short:"f" sep:"none" help:"Only clicks that match, such as is,country,DE,AT or not,device,mobile; can be repeated." placeholder:"FILTER"`
	All    bool     `help:"Every decision counts, also those that led nowhere."`
}

// query asks the server for the link, if there is one, and returns the query.
func (c *clickQuery) query(s *session, cl *client.Client) (q client.Query, link *client.Link, err error) {
	q = client.Query{Domain: c.Domain, CampaignID: c.Campaign, Tag: c.Tag, TZ: c.TZ, Bots: c.Bots, Filters: c.Filter, All: c.All}
	if c.From == "" && c.To == "" {
		q.Period = c.Period
	}
	if q.From, err = s.when("from", c.From); err != nil {
		return q, nil, err
	}
	if q.To, err = s.when("to", c.To); err != nil {
		return q, nil, err
	}
	if c.Link != "" {
		if link, err = s.link(cl, c.Link); err != nil {
			return q, nil, err
		}
		q.LinkID = link.ID
	}
	return q, link, nil
}

// title says whose clicks are shown.
func (c *clickQuery) title(link *client.Link) string {
	switch {
	case link != nil:
		return printable(link.ShortURL) + "  →  " + printable(link.Destination)
	case c.Campaign != "":
		return "all links of campaign " + printable(c.Campaign)
	case c.Tag != "":
		return "all links tagged " + printable(c.Tag)
	case c.Domain != "":
		return "all links on " + printable(c.Domain)
	}
	return "all links of the workspace"
}

// span says of when the clicks are, and of whom.
func (c *clickQuery) span(sum *client.Summary) string {
	what := "last " + c.Period
	if c.From != "" || c.To != "" {
		what = strings.TrimSpace(c.From + " to " + c.To)
	}
	if !sum.From.IsZero() && !sum.To.IsZero() {
		what += " (" + date(sum.From) + " to " + date(sum.To) + " UTC)"
	}
	bots := map[string]string{"exclude": "without bots", "include": "with bots", "only": "bots only"}[c.Bots]
	if bots == "" {
		bots = "without bots"
		if c.All {
			bots = "with bots"
		}
	}
	return what + ", " + bots
}
