package cli

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/terselink/terse/client"
)

type clicksCmd struct {
	clickQuery `embed:""`
	Limit      *int `short:"n" help:"Clicks to list; 0 is all, 20 without it." placeholder:"N"`
	Follow     bool `short:"F" help:"Show clicks as they come, at most 20 a second, until interrupted, of all links or the one that is named; of the other flags only --domain, --campaign, --tag and --tz. With --json every line has a type: click, counters or gap."`
}

// defaultLimit is how many clicks are listed without a flag.
const defaultLimit = 20

func (c *clicksCmd) Run(s *session) error {
	zone, err := location(c.TZ)
	if err != nil {
		return err
	}
	if err := c.followable(); err != nil {
		return err
	}
	cl, err := s.connect()
	if err != nil {
		return err
	}
	q, _, err := c.query(s, cl)
	if err != nil {
		return err
	}
	if c.Follow {
		return c.follow(s, cl, q, zone)
	}
	limit := defaultLimit
	if c.Limit != nil {
		limit = *c.Limit
	}
	if q.Limit = 1000; limit > 0 {
		q.Limit = min(limit, q.Limit)
	}
	var t *table
	if !s.g.JSON {
		t = s.table("TIME ("+zone.String()+")", "LINK", "OUTCOME", "COUNTRY", "DEVICE", "BROWSER", "REFERRER", "BOT")
	}
	n := 0
	for click, err := range cl.Clicks(s.ctx, q) {
		if err != nil {
			return err
		}
		if t == nil {
			if err := s.printJSON(click); err != nil {
				return err
			}
		} else {
			t.row(click.Ts.In(zone).Format("2006-01-02 15:04:05"), click.Domain+"/"+click.Code, click.Outcome, click.Country, click.Device, click.Browser, click.Referrer, botOf(click))
		}
		if n++; n == limit {
			break
		}
	}
	if t == nil {
		return nil
	}
	return t.flush()
}

// botOf names what made a click; "" for a person.
func botOf(c *client.Click) string {
	if c.Bot == "human" {
		return ""
	}
	if c.BotName != "" {
		return c.BotName
	}
	return c.Bot
}

// followable refuses what the live view cannot do: a flag that is ignored shows other clicks than those asked for.
func (c *clicksCmd) followable() error {
	if !c.Follow {
		return nil
	}
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"period", c.Period != ""}, {"from", c.From != ""}, {"to", c.To != ""}, {"bots", c.Bots != ""}, {"filter", len(c.Filter) > 0}, {"all", c.All}, {"limit", c.Limit != nil},
	} {
		if f.set {
			return usage("--%s: does not go with --follow, which shows every click as it comes", f.name)
		}
	}
	return nil
}

// followPause is how long to wait before a broken live view is opened again.
const followPause = time.Second

// follow shows the live view until the user has seen enough; a connection that breaks is opened again
// after the last event.
func (c *clicksCmd) follow(s *session, cl *client.Client, q client.Query, zone *time.Location) error {
	p := s.style()
	last, partial := "", 0
	for {
		var printErr error
		err := cl.LiveClicks(s.ctx, q, last, func(ev client.LiveEvent) bool {
			if ev.ID != "" {
				last = ev.ID
			}
			if ev.Counters != nil {
				partial = c.notePartial(s, p, partial, ev.Counters)
			}
			printErr = c.show(s, p, ev, zone)
			return printErr == nil
		})
		switch {
		case printErr != nil:
			return printErr
		case s.ctx.Err() != nil:
			return nil // seen enough
		}
		// What the server refuses, it refuses again; a break may pass.
		if e, ok := errors.AsType[*client.Error](err); ok && e.Status != 503 && e.Status != 429 {
			return err
		}
		fmt.Fprintln(s.Stderr, p.dim("reconnecting: "+printable(fmt.Sprint(err))))
		select {
		case <-time.After(followPause):
		case <-s.ctx.Done():
			return nil
		}
	}
}

// partialSeconds is for how long a view is not whole before that is said: it is not for the first seconds.
const partialSeconds = 5

// notePartial says once that clicks of other nodes are missing. It returns for how many seconds they are.
func (c *clicksCmd) notePartial(s *session, p style, seconds int, now *client.LiveCounters) int {
	if !now.Partial {
		return 0
	}
	if seconds++; seconds == partialSeconds {
		fmt.Fprintln(s.Stderr, p.dim(fmt.Sprintf("… clicks of other nodes are missing: this is what %d of them have", now.Nodes)))
	}
	return seconds
}

// liveJSON is an event of the live view as a line of JSON: the type, and beside it what a click or counters have.
type liveJSON struct {
	Type string `json:"type"` // click, counters or gap
	*client.Click
	*client.LiveCounters
}

// show prints one event: clicks, and the counters of seconds that had more clicks than were shown. As JSON it is every event.
func (c *clicksCmd) show(s *session, p style, ev client.LiveEvent, zone *time.Location) (err error) {
	switch {
	case s.g.JSON && ev.Click != nil:
		return s.printJSON(liveJSON{Type: "click", Click: ev.Click})
	case s.g.JSON && ev.Counters != nil:
		return s.printJSON(liveJSON{Type: "counters", LiveCounters: ev.Counters})
	case s.g.JSON:
		return s.printJSON(liveJSON{Type: "gap"})
	case ev.Click != nil:
		_, err = fmt.Fprintln(s.Stdout, liveLine(p, ev.Click, zone))
	case ev.Gap:
		_, err = fmt.Fprintln(s.Stdout, p.dim("… some clicks were not shown"))
	case ev.Counters != nil && ev.Counters.Total > ev.Counters.Shown:
		_, err = fmt.Fprintln(s.Stdout, p.dim(fmt.Sprintf("… showing %s of %s a second", count(ev.Counters.Shown), count(ev.Counters.Total))))
	}
	return err
}

// liveLine is one click on one line, its time on the clock of the zone.
func liveLine(p style, c *client.Click, zone *time.Location) string {
	parts := []string{p.dim(c.Ts.In(zone).Format("15:04:05.000 MST")), p.bold(printable(c.Domain + "/" + c.Code))}
	if c.Outcome != "redirect" {
		parts = append(parts, printable(c.Outcome))
	}
	for _, text := range []string{c.Country, c.City, c.Device, c.OS, c.Browser, c.Source} {
		if text != "" {
			parts = append(parts, printable(text))
		}
	}
	if c.Source == "" && c.Referrer != "" {
		parts = append(parts, printable(c.Referrer))
	}
	if bot := botOf(c); bot != "" {
		parts = append(parts, "bot: "+printable(bot))
	}
	return strings.Join(parts, "  ")
}
