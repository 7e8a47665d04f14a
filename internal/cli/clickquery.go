package cli

import (
	"cmp"
	"encoding/csv"
	"slices"
	"strings"
	"time"

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
	Period string   `help:"Time up to now: 24h, 7d, 30d, today, mtd and so on; 30d without it." placeholder:"PERIOD"`
	From   string   `help:"Begin, in place of --period: a time, a date, or a duration ago (36h, 7d)." placeholder:"WHEN"`
	To     string   `help:"End, like --from; a date is included. Now without it." placeholder:"WHEN"`
	TZ     string   `name:"tz" help:"Time zone that days begin in, such as Europe/Berlin." default:"UTC" placeholder:"ZONE"`
	Bots   string   `help:"exclude, include or only; with --all include without it." enum:"exclude,include,only," default:"" placeholder:"HOW"`
	Domain string   `help:"Clicks of a domain." placeholder:"HOST"`
	Tag    string   `help:"Clicks of links with a tag." placeholder:"TAG"`
	Filter []string `short:"f" sep:"none" help:"Only clicks that match, such as is,country,DE,AT or not,device,mobile; can be repeated." placeholder:"FILTER"`
	All    bool     `help:"Every decision counts, also those that led nowhere."`
}

// defaultPeriod is the range without any flag, that of the server.
const defaultPeriod = "30d"

// query asks the server for the link, if there is one, and returns the query.
func (c *clickQuery) query(s *session, cl *client.Client) (q client.Query, link *client.Link, err error) {
	q = client.Query{Domain: c.Domain, CampaignID: c.Campaign, Tag: c.Tag, TZ: c.TZ, Bots: c.Bots, Filters: c.Filter, All: c.All}
	if err := c.setRange(s, &q); err != nil {
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

// span says of when the clicks are, and of whom; by are the dimensions of the breakdowns beneath it.
func (c *clickQuery) span(from, to time.Time, by []string) string {
	what := cmp.Or(c.Period, defaultPeriod)
	if what[0] >= '0' && what[0] <= '9' { // not so today and mtd
		what = "last " + what
	}
	switch {
	case c.From != "" && c.To != "":
		what = c.From + " to " + c.To
	case c.From != "":
		what = "from " + c.From
	case c.To != "":
		what = "up to " + c.To
	}
	if !from.IsZero() && !to.IsZero() {
		loc := c.zone()
		what += " (" + dateIn(from, loc) + " to " + dateIn(to, loc) + " " + loc.String() + ")"
	}
	return what + ", " + c.whose(by)
}

// zone is the zone of --tz, in which days begin and times are shown.
func (c *clickFlags) zone() *time.Location {
	loc, err := location(c.TZ)
	if err != nil {
		return time.UTC // a zone that only the server knows
	}
	return loc
}

// whose says whether bots are among the clicks, by the rules of the server: what names bots or outcomes is with bots unless --bots says
// otherwise, a filter for the whole report and a breakdown for itself.
func (c *clickQuery) whose(by []string) string {
	switch {
	case c.Bots == "exclude":
		return "without bots"
	case c.Bots == "only":
		return "bots only"
	case c.Bots == "include", c.All, slices.ContainsFunc(c.Filter, filtersBots):
		return "with bots"
	}
	var but []string
	for _, dim := range by {
		if namesBots(dim) {
			but = append(but, printable(dim))
		}
	}
	if len(but) > 0 {
		return "without bots, but with them by " + strings.Join(but, " and by ")
	}
	return "without bots"
}

// namesBots reports whether a question that names the dimension is with bots by default.
func namesBots(dim string) bool { return dim == "bot" || dim == "bot_name" || dim == "outcome" }

// filtersBots reports whether a filter such as is,bot,ai names such a dimension. The server judges those that cannot be read.
func filtersBots(filter string) bool {
	fields, err := csv.NewReader(strings.NewReader(filter)).Read()
	return err == nil && len(fields) > 1 && namesBots(fields[1])
}
