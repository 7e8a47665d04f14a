package cli

import (
	"fmt"

	"github.com/alecthomas/kong"
)

// BenchOptions are what the command asks for.
type BenchOptions struct {
	Links, URLLength int
	Shared           bool
	Progress         func(what string, done, total int)
}

// BenchReport is what was measured, in things a second.
type BenchReport struct {
	Engine          string  `json:"engine"`
	Links           int     `json:"links"`
	LinksPerSecond  float64 `json:"links_per_second"`
	VisitsPerSecond float64 `json:"first_visits_per_second"`
	HotPerSecond    float64 `json:"hot_lookups_per_second"`
	ClicksPerSecond float64 `json:"clicks_per_second"`
	Removed         int     `json:"removed,omitzero"`
	// Of DynamoDB.
	WriteUnits     float64 `json:"write_units,omitzero"`
	UnitsPerLink   float64 `json:"write_units_per_link,omitzero"`
	CostPerMillion float64 `json:"usd_per_million_links,omitzero"`
}

type benchCmd struct {
	Links     float64      `help:"Links to make, such as 1e6." default:"100000" placeholder:"N"`
	URLLength int          `name:"url-length" help:"Bytes of a destination." default:"100" placeholder:"N"`
	OnShared  bool         `help:"Confirm that a database which servers may be using is written to."`
	Config    string       `help:"YAML file with settings ($TERSE_CONFIG)." placeholder:"FILE" type:"path"`
	Settings  kong.Plugins `embed:""`
}

func (benchCmd) Help() string {
	return "Measures the store that \"terse serve\" would use with the same settings: links in bulk (for two minutes at most), look-ups of links that no memory has, as a first visit is, of those in the memory of a node, and clicks captured into a spool (five seconds each). " +
		"The embedded store is a new one in a temporary folder on the disk of the data. PostgreSQL and DynamoDB are measured as they are, with --on-shared, which servers that use them notice as load: the links are of a workspace and a domain of their own, " +
		"and are removed in the end, also after Ctrl-C; what a run that was killed left is removed by the next. Run one at a time. For DynamoDB it tells write units and what a million links cost. No HTTP is measured."
}

func (c *benchCmd) Run(s *session) error {
	const most = 1e7
	if c.Links < 1 || c.Links > most || c.Links != float64(int(c.Links)) {
		return usage("--links: %v is no number from 1 to %v", c.Links, most)
	}
	if c.URLLength < 40 || c.URLLength > 2000 {
		return usage("--url-length is from 40 to 2000")
	}
	l, err := s.loadConfig(c.Config, c.Settings)
	if err != nil {
		return err
	}
	if l.Config.Store.Engine != "pebble" && !c.OnShared {
		return usage("store.engine is %s, which servers may be using: --on-shared confirms that links are written to it and removed again, at its price", l.Config.Store.Engine)
	}
	links := seedProgress{w: s.Stderr, now: s.Now, last: s.Now()}
	show := func(what string, done, total int) {
		if what == "links" || what == "removed" || what == "clicks" {
			links.show(what, done, total)
			return
		}
		fmt.Fprintf(s.Stderr, "%s: %d %% of the time\n", what, done*100/total)
	}
	r, err := s.Bench(s.ctx, l.Config, newLog(l.Config.Log, s.Stderr), BenchOptions{Links: int(c.Links), URLLength: c.URLLength, Shared: c.OnShared, Progress: show})
	if err != nil {
		return err
	}
	if s.g.JSON {
		return s.printJSON(r)
	}
	t := s.table("MEASURED", "RESULT")
	t.row("store", r.Engine)
	t.row("links in bulk", fmt.Sprintf("%s/s (%s links)", count(int(r.LinksPerSecond)), count(r.Links)))
	t.row("first visits", fmt.Sprintf("%s/s", count(int(r.VisitsPerSecond))))
	t.row("hot look-ups", fmt.Sprintf("%s/s", count(int(r.HotPerSecond))))
	t.row("clicks captured", fmt.Sprintf("%s/s", count(int(r.ClicksPerSecond))))
	if r.WriteUnits > 0 {
		t.row("write units", fmt.Sprintf("%s, %.2f a link", count(int(r.WriteUnits)), r.UnitsPerLink))
		t.row("a million links", fmt.Sprintf("$%.2f (US East, on demand)", r.CostPerMillion))
	}
	if err := t.flush(); err != nil {
		return err
	}
	if r.Links < int(c.Links) {
		fmt.Fprintf(s.Stderr, "the time for links was over before all %s were made\n", count(int(c.Links)))
	}
	return nil
}
