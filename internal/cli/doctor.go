package cli

import (
	"fmt"

	"github.com/alecthomas/kong"
)

// Finding is what a check of the doctor found.
type Finding struct {
	What  string `json:"what"`
	State string `json:"state"` // ok, warning or problem
	Text  string `json:"text,omitempty"`
}

type doctorCmd struct {
	Config   string       `help:"YAML file with settings ($TERSE_CONFIG)." placeholder:"FILE" type:"path"`
	Settings kong.Plugins `embed:""`
}

func (doctorCmd) Help() string {
	return "Looks at everything that \"terse serve\" would use with the same settings (configuration, data folder, addresses, store) and says in words what is wrong. It changes nothing; " +
		"a server may be running. The exit code is 1 if something cannot work."
}

func (c *doctorCmd) Run(s *session) error {
	l, err := s.loadConfig(c.Config, c.Settings)
	if err != nil {
		return err
	}
	list := append([]Finding{{What: "configuration", State: "ok"}}, s.Doctor(s.ctx, l.Config)...)
	problems := 0
	t := s.table("CHECK", "STATE", "")
	for _, f := range list {
		if f.State == "problem" {
			problems++
		}
		if s.g.JSON {
			if err := s.printJSON(f); err != nil {
				return err
			}
			continue
		}
		t.row(f.What, f.State, f.Text)
	}
	if !s.g.JSON {
		if err := t.flush(); err != nil {
			return err
		}
	}
	if problems > 0 {
		return fmt.Errorf("%d of %d checks found a problem", problems, len(list))
	}
	return nil
}
