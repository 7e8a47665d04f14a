package cli

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/config"
)

// CopyOptions are what the command asks for.
type CopyOptions struct {
	From, To string
	Sample   int
	// Progress is told what is done: "reading", "copying" or "verifying", how many links of it, and of how many; 0 if
	// that is not known.
	Progress func(phase string, done, total uint64)
}

// CopyReport is what was copied.
type CopyReport struct {
	Links     uint64 `json:"links"`
	Documents uint64 `json:"documents"`
	Domains   int    `json:"domains"` // with links
	Sampled   int    `json:"compared_field_by_field"`
	Resumed   bool   `json:"resumed"`
}

// ErrCopyDiffers is wrapped by the error of a copy that is not like its source.
var ErrCopyDiffers = errors.New("the copy differs")

type copyCmd struct {
	From     string       `help:"Where everything is now: pebble:FOLDER, postgres:URL or dynamodb:TABLE." required:"" placeholder:"ENGINE:PLACE"`
	To       string       `help:"Where it goes: one of the same, and empty." required:"" placeholder:"ENGINE:PLACE"`
	Sample   int          `help:"Links to compare field by field at the end." default:"1000" placeholder:"N"`
	Quiet    bool         `help:"Show no progress."`
	Config   string       `help:"YAML file with settings ($TERSE_CONFIG)." placeholder:"FILE" type:"path"`
	Settings kong.Plugins `embed:""`
}

func (copyCmd) Help() string {
	return "Moves between engines: copies every link, domain, campaign, key, workspace and whatever else the store of a server holds into an empty store of another engine, " +
		"with the same codes, ids, versions and times, and verifies it. Stop the server first. A copy that was interrupted goes on where it was when the command is repeated. " +
		"FOLDER is a data folder; what is left out after the colon comes from the settings, such as TERSE_STORE_POSTGRES_URL, which keeps a password out of the list of processes. " +
		"A table is made with terse dynamodb create-table first; dynamodb:TABLE?region=…&endpoint=… says where it is. " +
		"Clicks are not in the store: keep the data folder, or move its other folders by hand (docs/operating.md). " +
		"The exit code is 4 if the copy is not like its source."
}

func (c *copyCmd) Run(s *session) error {
	if c.Sample < 1 || c.Sample > 1_000_000 {
		return usage("--sample: %d is no number from 1 to 1000000", c.Sample)
	}
	engine, err := c.configured()
	if err != nil {
		return err
	}
	l, err := s.loadSources(c.Config, c.Settings, func(from *config.Sources) {
		if engine != "" {
			from.Flags["store.engine"] = engine
		}
	})
	if err != nil {
		return err
	}
	began := s.Now()
	p := copyProgress{meter: s.meter(c.Quiet), now: s.Now}
	report, err := s.Copy(s.ctx, l.Config, newLog(l.Config.Log, s.Stderr), CopyOptions{From: c.From, To: c.To, Sample: c.Sample, Progress: p.show})
	p.meter.stop()
	if err != nil {
		if e, ok := errors.AsType[*terse.Error](err); ok && e.Code == terse.CodeInvalid && (e.Field == "from" || e.Field == "to") {
			return &ExitError{ExitUsage, fmt.Errorf("--%s %s", e.Field, e.Message)}
		}
		if errors.Is(err, ErrCopyDiffers) {
			return &ExitError{ExitDiffers, err}
		}
		return err
	}
	if s.g.JSON {
		return s.printJSON(report)
	}
	took := s.Now().Sub(began)
	resumed := ""
	if report.Resumed {
		resumed = ", the last part of them now"
	}
	_, err = fmt.Fprintf(s.Stdout, "%s links on %s domains and %s documents are copied%s and verified in %.1f s, %s links compared field by field.\n"+
		"Clicks are not in the store: start the server on the data folder that it had.\n",
		count(report.Links), count(report.Domains), count(report.Documents), resumed, took.Seconds(), count(report.Sampled))
	return err
}

// configured returns the engine whose place is left to the settings, "" if there is none.
func (c *copyCmd) configured() (engine string, err error) {
	for _, place := range []string{c.From, c.To} {
		switch name := strings.TrimSuffix(place, ":"); {
		case name == place || name != config.EnginePostgres && name != config.EngineDynamoDB:
		case engine != "":
			return "", usage("the settings say where one store is: name the other one, of --from and --to, with its place")
		default:
			engine = name
		}
	}
	return engine, nil
}

// copyProgress tells how far a copy is.
type copyProgress struct {
	meter *meter
	now   func() time.Time
	phase string
	began time.Time
	first uint64 // that were done when the phase began
}

func (p *copyProgress) show(phase string, done, total uint64) {
	now := p.now()
	fresh := phase != p.phase
	if fresh {
		p.phase, p.began, p.first = phase, now, done
	}
	elapsed := now.Sub(p.began)
	rate := perSecond(done-p.first, elapsed)
	text := fmt.Sprintf("%s: %s links", phase, count(done))
	part := 0.0
	if total > 0 {
		text = fmt.Sprintf("%s: %s of %s links", phase, count(done), count(total))
		part = float64(done) / float64(total)
	}
	if done > p.first && elapsed > 0 {
		text += fmt.Sprintf(", %s links/s", count(rate))
		if total > done && rate > 0 {
			text += ", ETA " + (time.Duration(float64(total-done)/float64(rate)) * time.Second).Round(time.Second).String()
		}
	}
	p.meter.show(part, text, fresh)
}
