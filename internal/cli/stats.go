package cli

import (
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/terselink/terse/client"
)

type statsCmd struct {
	clickQuery `embed:""`
	statsFlags `embed:""`
}

// statsFlags say what is shown of clicks.
type statsFlags struct {
	By     []string `help:"What to break clicks down by, such as country, region, city, device, os, browser, language, referrer, source, utm_source, link, campaign, tag, domain or bot; can be repeated." default:"country,referrer,device" placeholder:"WHAT"`
	Top    int      `short:"n" help:"Values to show of each breakdown." default:"8"`
	Search string   `help:"Of breakdowns only values that contain this." placeholder:"TEXT"`
	Metric string   `help:"What breakdowns are ordered by and drawn in: clicks or visitors." enum:"clicks,visitors" default:"clicks" placeholder:"WHAT"`

	Interval    string `help:"Column of the chart over time: minute, hour, day, week or month; as the range is long without it." enum:"minute,hour,day,week,month," default:"" placeholder:"WIDTH"`
	Compare     string `help:"Show the change since another time: previous, year, or custom, which is --compare-from to --compare-to." enum:"previous,year,custom," default:"" placeholder:"WITH"`
	CompareFrom string `help:"Begin of the other time, like --from; for --compare custom." placeholder:"WHEN"`
	CompareTo   string `help:"End of the other time, like --to; for --compare custom." placeholder:"WHEN"`

	Heatmap bool `help:"Show clicks by weekday and hour, too."`
}

// report is everything that the command shows; with --json it is the output.
type report struct {
	Link       *client.Link                 `json:"link,omitempty"`
	Campaign   *client.Campaign             `json:"campaign,omitempty"`
	Summary    *client.Summary              `json:"summary"`
	Timeseries *client.Timeseries           `json:"timeseries"`
	Breakdowns map[string]*client.Breakdown `json:"breakdowns"`
	Heatmap    *client.Heatmap              `json:"heatmap,omitempty"`
}

func (c *statsCmd) Run(s *session) error {
	cl, err := s.connect()
	if err != nil {
		return err
	}
	return c.show(s, cl, &report{})
}

// show fetches what the report has not yet and prints it.
func (c *statsCmd) show(s *session, cl *client.Client, r *report) error {
	q, link, err := c.query(s, cl)
	if err != nil {
		return err
	}
	if err := c.setComparison(s, &q); err != nil {
		return err
	}
	r.Link, r.Breakdowns = link, map[string]*client.Breakdown{}
	if err := c.fetch(s, cl, q, r); err != nil {
		return err
	}
	if s.g.JSON {
		return s.printJSON(r)
	}
	_, err = fmt.Fprint(s.Stdout, c.text(s.style(), r))
	return err
}

// setComparison writes the flags that choose the other range into the query.
func (c *statsCmd) setComparison(s *session, q *client.Query) (err error) {
	for _, f := range []struct{ name, text string }{{"compare-from", c.CompareFrom}, {"compare-to", c.CompareTo}} {
		switch {
		case c.Compare == "custom" && f.text == "":
			return usage("--%s: --compare custom needs it", f.name)
		case c.Compare != "custom" && f.text != "":
			return usage("--%s: is for --compare custom", f.name)
		}
	}
	if q.CompareFromDate, q.CompareFrom, err = s.rangeEnd("compare-from", c.CompareFrom, c.TZ); err != nil {
		return err
	}
	if q.CompareToDate, q.CompareTo, err = s.rangeEnd("compare-to", c.CompareTo, c.TZ); err != nil {
		return err
	}
	q.Compare = c.Compare
	return nil
}

// fetch asks for all parts at once.
func (c *statsCmd) fetch(s *session, cl *client.Client, q client.Query, r *report) error {
	group, ctx := errgroup.WithContext(s.ctx)
	rows := make([]*client.Breakdown, len(c.By))
	if c.Heatmap {
		plain := q
		plain.Compare, plain.CompareFrom, plain.CompareTo, plain.CompareFromDate, plain.CompareToDate = "", time.Time{}, time.Time{}, "", ""
		group.Go(func() (err error) { r.Heatmap, err = cl.Heatmap(ctx, plain); return err })
	}
	group.Go(func() (err error) { r.Summary, err = cl.Summary(ctx, q); return err })
	group.Go(func() (err error) {
		q := q
		q.Interval = c.Interval
		r.Timeseries, err = cl.Timeseries(ctx, q)
		return err
	})
	for i, by := range c.By {
		group.Go(func() (err error) {
			q := q
			q.By, q.Metric, q.Limit, q.Search = by, c.Metric, c.Top, c.Search
			rows[i], err = cl.Breakdown(ctx, q)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for i, by := range c.By {
		r.Breakdowns[by] = rows[i]
	}
	return nil
}

// text draws the report.
func (c *statsCmd) text(p style, r *report) string {
	var b strings.Builder
	title := c.title(r.Link)
	if r.Campaign != nil {
		title = printable(r.Campaign.Name) + "  →  " + printable(r.Campaign.Destination) + "  (" + count(r.Campaign.Links) + " links)"
	}
	fmt.Fprintf(&b, "%s\n%s\n\n", p.bold(title), p.dim(c.span(r.Summary.From, r.Summary.To, c.By)))
	sum, before := r.Summary, r.Summary.Previous
	if before == nil {
		before = &client.Summary{}
	}
	for _, line := range []struct {
		name      string
		n, before int64
	}{
		{"clicks", sum.Clicks, before.Clicks}, {"visitors", sum.Visitors, before.Visitors}, {"by bots", sum.Bots, before.Bots}, {"from QR", sum.QR, before.QR},
	} {
		fmt.Fprintf(&b, "  %-10s %s", line.name, p.bold(fmt.Sprintf("%12s", count(line.n))))
		if sum.Previous != nil {
			b.WriteString(p.dim(fmt.Sprintf("  %8s  was %s", change(line.n, line.before), count(line.before))))
		}
		b.WriteByte('\n')
	}
	for _, line := range conversionLines(sum) {
		fmt.Fprintf(&b, "  %-10s %s\n", line[0], p.bold(fmt.Sprintf("%12s", line[1])))
	}
	if chart := timeChart(p, c.zone(), r.Timeseries); chart != "" {
		b.WriteString("\n" + chart)
	}
	for _, by := range c.By {
		b.WriteString("\n" + barChart(p, by, c.Metric, r.Breakdowns[by]))
	}
	if r.Heatmap != nil {
		b.WriteString("\n" + heatChart(p, c.TZ, r.Heatmap))
	}
	if lag := r.Summary.LagMS; lag > 5000 {
		fmt.Fprintf(&b, "\n%s\n", p.dim(fmt.Sprintf("Clicks of the last %d s are not counted yet.", (lag+999)/1000)))
	}
	return b.String()
}

// conversionLines are the conversions of the time; none if there were none.
func conversionLines(sum *client.Summary) (lines [][2]string) {
	if sum.Leads > 0 {
		lines = append(lines, [2]string{"leads", count(sum.Leads)})
	}
	if sum.Sales > 0 {
		lines = append(lines, [2]string{"sales", count(sum.Sales)})
	}
	if sum.Refunds > 0 {
		lines = append(lines, [2]string{"refunds", count(sum.Refunds)})
	}
	for _, a := range sum.Revenue {
		lines = append(lines, [2]string{printable(a.Currency), money(a.Amount, a.Currency)})
	}
	return lines
}

// change writes how much n is more or less than before.
func change(n, before int64) string {
	switch {
	case n == before:
		return "="
	case before == 0:
		return "new"
	}
	return fmt.Sprintf("%+.1f %%", 100*float64(n-before)/float64(before))
}
