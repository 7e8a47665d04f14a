package cli

import (
	"fmt"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/terselink/terse/client"
)

type conversionsCmd struct {
	clickQuery `embed:""`
	By         []string `help:"What to break conversions down by: anything that clicks can be but outcome, such as source, campaign, link or country; can be repeated." placeholder:"WHAT"`
	Metric     string   `help:"What breakdowns are ordered by and drawn in: sales, leads, customs, or revenue in --currency." enum:"sales,leads,customs,revenue" default:"sales" placeholder:"WHAT"`
	Currency   string   `help:"Show revenue in breakdowns, of sales in this currency, such as EUR." placeholder:"CODE"`
	Top        int      `short:"n" help:"Values to show of each breakdown." default:"8"`
	Search     string   `help:"Of breakdowns only values that contain this." placeholder:"TEXT"`
}

// conversionsReport is everything that the command shows; with --json it is the output.
type conversionsReport struct {
	Link        *client.Link                     `json:"link,omitempty"`
	Conversions *client.ConversionReport         `json:"conversions"`
	Breakdowns  map[string]*client.ConversionsBy `json:"breakdowns"`
}

func (c *conversionsCmd) Run(s *session) error {
	c.Currency = strings.ToUpper(c.Currency)
	switch {
	case c.All:
		return usage("--all: conversions have no outcome, so every one counts")
	case c.Metric == "revenue" && c.Currency == "":
		return usage("--currency: --metric revenue needs one, such as --currency EUR")
	}
	cl, err := s.connect()
	if err != nil {
		return err
	}
	q, link, err := c.query(s, cl)
	if err != nil {
		return err
	}
	r := &conversionsReport{Link: link, Breakdowns: map[string]*client.ConversionsBy{}}
	if err := c.fetch(s, cl, q, r); err != nil {
		return err
	}
	if s.g.JSON {
		return s.printJSON(r)
	}
	_, err = fmt.Fprint(s.Stdout, c.text(s.style(), r))
	return err
}

// fetch asks for all parts at once. The totals are a question of their own: those that come with a breakdown by bot are with bots.
func (c *conversionsCmd) fetch(s *session, cl *client.Client, q client.Query, r *conversionsReport) error {
	group, ctx := errgroup.WithContext(s.ctx)
	answers := make([]*client.ConversionReport, len(c.By))
	group.Go(func() (err error) { r.Conversions, err = cl.Conversions(ctx, q); return err })
	for i, by := range c.By {
		group.Go(func() (err error) {
			q := q
			q.By, q.Metric, q.Currency, q.Limit, q.Search = by, c.Metric, c.Currency, c.Top, c.Search
			answers[i], err = cl.Conversions(ctx, q)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for i, by := range c.By {
		if r.Breakdowns[by] = answers[i].By; answers[i].By == nil {
			return fmt.Errorf("the server answered without the breakdown by %s", printable(by))
		}
	}
	return nil
}

// text draws the report.
func (c *conversionsCmd) text(p style, r *conversionsReport) string {
	var b strings.Builder
	all := r.Conversions
	fmt.Fprintf(&b, "%s\n%s\n\n", p.bold(c.title(r.Link)), p.dim(c.span(all.From, all.To, c.By)))
	line := func(name, value, note string) {
		fmt.Fprintf(&b, "  %-20s %s", name, p.bold(fmt.Sprintf("%12s", value)))
		if note != "" {
			b.WriteString(p.dim("  " + note))
		}
		b.WriteByte('\n')
	}
	line("clicks", count(all.Clicks), "")
	line("leads", count(all.Leads), ofClicks(all.LeadClicks, all.Clicks))
	line("sales", count(all.Sales), ofClicks(all.SaleClicks, all.Clicks))
	if all.Refunds > 0 {
		line("refunds", count(all.Refunds), "revenue is less them")
	}
	line("customs", count(all.Customs), "")
	line("new customers", count(all.NewCustomers), "")
	line("returning customers", count(all.ReturningCustomers), "")
	if all.Pending > 0 {
		line("pending", count(all.Pending), "their clicks are not found yet; they count nowhere else")
	}
	for _, a := range all.Revenue {
		note := "sales " + count(a.Sales)
		if a.Refunds > 0 {
			note += ", refunds " + count(a.Refunds)
		}
		line(printable(a.Currency), money(a.Amount, a.Currency), note)
	}
	for _, by := range c.By {
		b.WriteString("\n" + c.chart(p, by, r.Breakdowns[by]))
	}
	return b.String()
}

// ofClicks says how many clicks led to conversions. That the clicks were in the range is not said: only the conversions are.
func ofClicks(led, clicks int64) string {
	text := "from " + count(led) + " clicks"
	if clicks > 0 {
		text += fmt.Sprintf(", %.1f for 100 clicks", 100*float64(led)/float64(clicks))
	}
	return text
}

// chart draws a breakdown in the metric, with the other numbers beside it.
func (c *conversionsCmd) chart(p style, by string, d *client.ConversionsBy) string {
	revenue := func(n int64) string { return money(n, c.Currency) + " " + printable(c.Currency) }
	var lines []barLine
	add := func(label string, n int64, notes ...string) {
		l := barLine{label: label, n: n, note: strings.Join(notes, ", ")}
		if c.Metric == "revenue" {
			l.text = money(n, c.Currency)
		}
		lines = append(lines, l)
	}
	for _, row := range d.Data {
		n := int64(0)
		var notes []string
		for _, m := range []struct {
			name string
			n    int64
		}{{"sales", row.Sales}, {"leads", row.Leads}, {"customs", row.Customs}} {
			if m.name == c.Metric {
				n = m.n
			} else {
				notes = append(notes, m.name+" "+count(m.n))
			}
		}
		if row.Refunds > 0 {
			notes = append(notes, "refunds "+count(row.Refunds))
		}
		if c.Metric == "revenue" {
			n = row.Revenue
		} else if c.Currency != "" {
			notes = append(notes, revenue(row.Revenue))
		}
		add(rowLabel(by, row.Value, row.Label), n, notes...)
	}
	if d.Other != 0 {
		add("(others)", d.Other)
	}
	head := by + ", " + c.Metric
	if c.Metric == "revenue" {
		head += " in " + printable(c.Currency)
	}
	return bars(p, head, "no conversions", lines, d.Total)
}
