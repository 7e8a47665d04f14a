package nodes

import (
	"fmt"
	"slices"
	"strings"
)

// ownEngine is the analytics engine (Node.Analytics) whose numbers are of the clicks of its own process.
const ownEngine = "duckdb"

// CountsApart says in words that living nodes of one store answer questions about clicks with different numbers, because one of them has
// an engine of its own and others record clicks or answer questions, too; "" if they do not. A node that names no engine has none, or is of
// an older version.
func CountsApart(living []Node) string {
	var own, names []string
	for i := range living {
		n := &living[i]
		redirects := slices.Contains(n.Roles, "redirect")
		if !redirects && (n.Analytics == "" || !slices.Contains(n.Roles, "control")) {
			continue // it neither records clicks nor answers for them
		}
		names = append(names, n.Name)
		if n.Analytics == ownEngine {
			own = append(own, n.Name)
		}
	}
	if len(own) == 0 || len(names) < 2 {
		return ""
	}
	slices.Sort(own)
	slices.Sort(names)
	return fmt.Sprintf("analytics.engine is duckdb at %s, which counts the clicks of its own process alone, and %s record clicks or answer for them: statistics depend on which node answers, and none has all clicks. "+
		"Nodes that share a store share clickhouse (docs/cluster.md)", strings.Join(own, ", "), strings.Join(names, ", "))
}
