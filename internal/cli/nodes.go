package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/terselink/terse/internal/nodes"
)

type nodesCmd struct{}

func (nodesCmd) Run(s *session) error {
	cl, err := s.connect()
	if err != nil {
		return err
	}
	var t *table
	var living []nodes.Node
	if !s.g.JSON {
		t = s.table("NAME", "ROLES", "STATE", "VERSION", "UPTIME", "LAST SEEN")
	}
	for n, err := range cl.Nodes(s.ctx) {
		if err != nil {
			return err
		}
		if t == nil {
			if err := s.printJSON(n); err != nil {
				return err
			}
			continue
		}
		living = appendLiving(living, n)
		name, now := n.Name, s.Now()
		if n.Self {
			name += " *"
		}
		uptime := ""
		if n.State == "alive" {
			uptime = age(now.Sub(n.StartedAt))
		}
		t.row(name, strings.Join(n.Roles, ","), n.State, n.Version, uptime, age(now.Sub(n.SeenAt))+" ago")
	}
	if t == nil {
		return nil
	}
	if err := t.flush(); err != nil {
		return err
	}
	if text := nodes.CountsApart(living); text != "" {
		fmt.Fprintf(s.Stderr, "warning: %s\n", text)
	}
	return nil
}

// age writes how long something took in its two largest units; less than nothing, which clocks of two machines can make of it, is 0s.
func age(d time.Duration) string {
	d = max(d, 0)
	hours, minutes := int(d.Hours()), int(d.Minutes())
	switch {
	case hours >= 24:
		return fmt.Sprintf("%dd%dh", hours/24, hours%24)
	case hours >= 1:
		return fmt.Sprintf("%dh%dm", hours, minutes%60)
	}
	return d.Truncate(time.Second).String()
}
