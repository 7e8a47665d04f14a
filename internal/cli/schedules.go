package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/terselink/terse/client"
)

// exportScheduleCmd are the commands about exports into the bucket of the server.
type exportScheduleCmd struct {
	Create exportScheduleCreateCmd `cmd:"" help:"Export the clicks of every hour or day into the bucket of the server."`
	List   exportScheduleListCmd   `cmd:"" help:"List the schedules, how far they are and what is wrong."`
	Get    exportScheduleGetCmd    `cmd:"" help:"Show a schedule."`
	Pause  exportSchedulePauseCmd  `cmd:"" help:"Stop a schedule for a while."`
	Resume exportScheduleResumeCmd `cmd:"" help:"Let a schedule go on; it makes up for what it missed."`
	Delete exportScheduleDeleteCmd `cmd:"" help:"Delete a schedule. Its objects stay."`
}

type exportScheduleCreateCmd struct {
	Every    string   `arg:"" help:"hourly or daily, of UTC." enum:"hourly,daily"`
	Name     string   `help:"What the schedule is called." placeholder:"NAME"`
	Format   string   `help:"csv, ndjson or parquet." enum:"csv,ndjson,parquet" default:"parquet" placeholder:"FORM"`
	RawCSV   bool     `name:"raw-csv" help:"Write values to CSV as they are, also those that a spreadsheet would run as a formula."`
	Prefix   string   `help:"What the names of its objects begin with; its id without it." placeholder:"PATH"`
	From     string   `help:"A time, a date of UTC or a duration ago (36h, 7d) in the first hour or day; now without it." placeholder:"WHEN"`
	Link     string   `help:"Clicks of a link: its id or short URL." placeholder:"LINK"`
	Campaign string   `help:"Clicks of a campaign." placeholder:"ID"`
	Bots     string   `help:"exclude, include or only; with --all include without it." enum:"exclude,include,only," default:"" placeholder:"HOW"`
	Domain   string   `help:"Clicks of a domain." placeholder:"HOST"`
	Tag      string   `help:"Clicks of links with a tag." placeholder:"TAG"`
	Filter   []string `short:"f" sep:"none" help:"Only clicks that match, such as is,country,DE,AT or not,device,mobile; can be repeated." placeholder:"FILTER"`
	All      bool     `help:"Every decision, also those that led nowhere."`
}

func (c *exportScheduleCreateCmd) Run(s *session) error {
	if c.RawCSV && c.Format != "csv" {
		return usage("--raw-csv: the objects are %s, in which values are always as they are", c.Format)
	}
	cl, err := s.connect()
	if err != nil {
		return err
	}
	n := client.NewExportSchedule{Name: c.Name, Every: c.Every, Format: c.Format, Prefix: c.Prefix,
		Query: client.Query{Domain: c.Domain, CampaignID: c.Campaign, Tag: c.Tag, Bots: c.Bots, Filters: c.Filter, All: c.All, RawCSV: c.RawCSV}}
	if n.From, err = s.past("from", c.From); err != nil {
		return err
	}
	if c.Link != "" {
		link, err := s.link(cl, c.Link)
		if err != nil {
			return err
		}
		n.Query.LinkID = link.ID
	}
	e, err := cl.CreateExportSchedule(s.ctx, n)
	if err != nil {
		return err
	}
	if s.g.JSON {
		return s.printJSON(e)
	}
	_, err = fmt.Fprintln(s.Stdout, e.ID)
	return err
}

type exportScheduleListCmd struct{}

func (exportScheduleListCmd) Run(s *session) error {
	cl, err := s.connect()
	if err != nil {
		return err
	}
	var list []*client.ExportSchedule
	for e, err := range cl.ExportSchedules(s.ctx) {
		if err != nil {
			return err
		}
		list = append(list, e)
	}
	return s.showSchedules(list...)
}

// showSchedules prints schedules, one a line.
func (s *session) showSchedules(list ...*client.ExportSchedule) error {
	if s.g.JSON {
		for _, e := range list {
			if err := s.printJSON(e); err != nil {
				return err
			}
		}
		return nil
	}
	t := s.table("ID", "NAME", "EVERY", "FORMAT", "STATE", "OBJECTS", "NEXT", "LAST OBJECT", "NOTE", "ERROR")
	for _, e := range list {
		t.row(e.ID, e.Name, e.Every, e.Format, e.State, count(e.Objects), e.NextFrom.UTC().Format(time.RFC3339), e.LastObject, scheduleNote(e), e.Error)
	}
	return t.flush()
}

// scheduleNote says which objects were made again, and which lack clicks; "" for none.
func scheduleNote(e *client.ExportSchedule) string {
	var notes []string
	if e.Again > 0 {
		notes = append(notes, count(e.Again)+" made again for clicks counted later")
	}
	if e.Incomplete > 0 {
		notes = append(notes, count(e.Incomplete)+" lacking clicks not kept any more")
	}
	return strings.Join(notes, ", ")
}

type exportScheduleGetCmd struct {
	ID string `arg:"" help:"Id of the schedule."`
}

func (c *exportScheduleGetCmd) Run(s *session) error {
	cl, err := s.connect()
	if err != nil {
		return err
	}
	e, err := cl.GetExportSchedule(s.ctx, c.ID)
	if err != nil {
		return err
	}
	return s.showSchedules(e)
}

type exportSchedulePauseCmd struct {
	ID string `arg:"" help:"Id of the schedule."`
}

func (c *exportSchedulePauseCmd) Run(s *session) error { return s.setScheduleState(c.ID, "paused") }

type exportScheduleResumeCmd struct {
	ID string `arg:"" help:"Id of the schedule."`
}

func (c *exportScheduleResumeCmd) Run(s *session) error { return s.setScheduleState(c.ID, "active") }

func (s *session) setScheduleState(id, state string) error {
	cl, err := s.connect()
	if err != nil {
		return err
	}
	e, err := cl.SetExportScheduleState(s.ctx, id, state)
	if err != nil {
		return err
	}
	return s.showSchedules(e)
}

type exportScheduleDeleteCmd struct {
	ID string `arg:"" help:"Id of the schedule."`
}

func (c *exportScheduleDeleteCmd) Run(s *session) error {
	cl, err := s.connect()
	if err != nil {
		return err
	}
	return cl.DeleteExportSchedule(s.ctx, c.ID)
}
