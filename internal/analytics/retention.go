package analytics

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/terselink/terse"
)

// Terms say for how many days after its own a click is kept. 0: for ever.
type Terms struct {
	Raw  int `json:"raw"`  // clicks one by one
	Bots int `json:"bots"` // clicks of bots one by one, if shorter
}

// Since returns the first instant from which on every click that bots selects is still kept one by one at a time; 0: all
// of them are.
func (t Terms) Since(now terse.Millis, bots Bots) terse.Millis {
	days := t.Raw
	if bots != BotsExclude && t.Bots > 0 && (days == 0 || t.Bots < days) {
		days = t.Bots
	}
	if days == 0 {
		return 0
	}
	return max(0, (now/dayMillis-terse.Millis(days))*dayMillis)
}

// CompleteFrom returns Since where it cuts the range of a query: rows before it may be missing. 0: none are, by these terms:
// what shorter terms took before they were lengthened is gone, and is not known of here.
func (t Terms) CompleteFrom(q Query, now terse.Millis) terse.Millis {
	if since := t.Since(now, q.Bots); q.From < since {
		return since
	}
	return 0
}

// Retention says how long clicks are kept. Days go when they are over. Rollups, and so every
// number but those of crossed filters, stay.
type Retention struct {
	Default    Terms                       `json:"default"`
	Workspaces map[terse.WorkspaceID]Terms `json:"workspaces,omitempty"` // in place of the default
	Rollups    int                         `json:"rollups"`              // days that rollups are kept; 0: for ever
}

// Of returns the terms of a workspace.
func (r Retention) Of(w terse.WorkspaceID) Terms {
	if t, ok := r.Workspaces[w]; ok {
		return t
	}
	return r.Default
}

// Over returns the condition of the clicks of a day of that age, in days, whose time is over: "" for
// none, "true" for all. Any other is SQL of every
// engine, on the columns workspace_id and bot.
func (r Retention) Over(age int64) string {
	past := func(days int) bool { return days > 0 && age > int64(days) }
	cond := func(t Terms) string {
		switch {
		case past(t.Raw):
			return "true"
		case past(t.Bots):
			return "bot <> 0"
		}
		return ""
	}
	var parts, others []string
	all := cond(r.Default) == "true"
	for _, w := range slices.Sorted(maps.Keys(r.Workspaces)) {
		id := fmt.Sprintf("%d", w)
		others = append(others, id)
		c := cond(r.Workspaces[w])
		all = all && c == "true"
		switch c {
		case "":
		case "true":
			parts = append(parts, "(workspace_id = "+id+")")
		default:
			parts = append(parts, "(workspace_id = "+id+" AND "+c+")")
		}
	}
	if all {
		return "true"
	}
	switch c := cond(r.Default); {
	case c == "":
	case len(others) == 0:
		parts = append(parts, "("+c+")")
	default:
		who := "workspace_id NOT IN (" + strings.Join(others, ", ") + ")"
		if c != "true" {
			who = c + " AND " + who
		}
		parts = append(parts, "("+who+")")
	}
	return strings.Join(parts, " OR ")
}
