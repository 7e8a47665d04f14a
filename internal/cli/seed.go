package cli

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/alecthomas/kong"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/config"
)

// SeedOptions are what the command asks for.
type SeedOptions struct {
	Links, Clicks, Days, Conversions int
	Seed                             uint64
	To                               time.Time // the end of the last day
	Progress                         func(what string, done, total int)
}

type seedCmd struct {
	Links       float64      `help:"Links to make, such as 1e6." default:"10000" placeholder:"N"`
	Clicks      float64      `help:"Clicks to make, such as 1e8." default:"1e6" placeholder:"N"`
	Days        int          `help:"Days that the clicks are spread over, up to today." default:"30" placeholder:"N"`
	Conversions float64      `help:"Leads and sales to make, about." default:"1000" placeholder:"N"`
	Seed        uint64       `help:"The same number and day make the same data." default:"1" placeholder:"N"`
	Config      string       `help:"YAML file with settings ($TERSE_CONFIG)." placeholder:"FILE" type:"path"`
	Settings    kong.Plugins `embed:""`
}

func (seedCmd) Help() string {
	return "Fills the data folder with made-up links, clicks and conversions, for a look around, tests and measurements. No server may use the folder meanwhile; " +
		"the next one that does counts the clicks as if it had recorded them."
}

func (c *seedCmd) Run(s *session) error {
	const most = 1e10
	for name, n := range map[string]float64{"links": c.Links, "clicks": c.Clicks, "conversions": c.Conversions} {
		if n < 0 || n > most || n != float64(int(n)) {
			return usage("--%s: %v is no number from 0 to %v", name, n, most)
		}
	}
	if c.Links < 1 || c.Days < 1 || c.Days > 3650 {
		return usage("there is at least one link, and clicks of 1 to 3650 days")
	}
	l, err := s.loadConfig(c.Config, c.Settings)
	if err != nil {
		return err
	}
	if err := s.unused(l.Config); err != nil {
		return err
	}
	began := s.Now()
	p := seedProgress{w: s.Stderr, now: s.Now, last: began}
	o := SeedOptions{
		Links: int(c.Links), Clicks: int(c.Clicks), Days: c.Days, Conversions: int(c.Conversions), Seed: c.Seed,
		To: began.UTC().Truncate(24 * time.Hour), Progress: p.show,
	}
	if err := s.Seed(s.ctx, l.Config, newLog(l.Config.Log, s.Stderr), o); err != nil {
		if e, ok := errors.AsType[*terse.Error](err); ok && e.Code == terse.CodeConflict {
			return fmt.Errorf("%w\n\nStop the server of %s first, or name another folder with --data", err, l.Config.Data)
		}
		return err
	}
	_, err = fmt.Fprintf(s.Stdout, "%s links, %s clicks and about %s conversions of %d days are in %s. Start the server: terse serve --data %s\n",
		count(o.Links), count(o.Clicks), count(o.Conversions), o.Days, l.Config.Data, l.Config.Data)
	return err
}

// unused refuses a data folder whose server has left a note and answers, before anything is touched.
func (s *session) unused(cfg *config.Config) error {
	info, err := config.ReadServerInfo(cfg.Data)
	if err != nil || info.ControlURL == "" {
		return nil // locks tell the rest
	}
	return fmt.Errorf("a server at %s uses %s: stop it first, or name another folder with --data", info.ControlURL, cfg.Data)
}

// seedProgress prints a line every few seconds.
type seedProgress struct {
	w    io.Writer
	now  func() time.Time
	last time.Time
	what string
	at   int
}

func (p *seedProgress) show(what string, done, total int) {
	now := p.now()
	if what != p.what {
		p.what, p.at, p.last = what, 0, now
	}
	since := now.Sub(p.last)
	if since < 2*time.Second && done < total {
		return
	}
	rate := 0.0
	if since > 0 {
		rate = float64(done-p.at) / since.Seconds()
	}
	fmt.Fprintf(p.w, "%s: %s of %s (%s/s)\n", what, count(done), count(total), count(int(rate)))
	p.at, p.last = done, now
}
