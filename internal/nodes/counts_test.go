package nodes

import (
	"strings"
	"testing"
)

// TestCountsApart: nodes that count their clicks apart are named, and arrangements whose numbers are whole are left in peace.
func TestCountsApart(t *testing.T) {
	t.Parallel()
	node := func(name, roles, engine string) Node {
		return Node{Name: name, Roles: strings.Split(roles, ","), Analytics: engine}
	}
	const all = "redirect,control,worker"
	for name, c := range map[string]struct {
		list []Node
		want string // of the text; "": nothing is said
	}{
		"one":                             {[]Node{node("a", all, "duckdb")}, ""},
		"two":                             {[]Node{node("b", all, "duckdb"), node("a", all, "duckdb")}, "duckdb at a, b, which"},
		"three, and one is meant so":      {[]Node{node("a", all, "clickhouse"), node("b", all, "duckdb"), node("c", "control", "clickhouse")}, "duckdb at b, which counts the clicks of its own process alone, and a, b, c record"},
		"clickhouse":                      {[]Node{node("a", all, "clickhouse"), node("b", "redirect", "")}, ""},
		"a worker beside it":              {[]Node{node("a", all, "duckdb"), node("b", "worker", "")}, ""},
		"a control plane without numbers": {[]Node{node("a", all, "duckdb"), node("b", "control", "")}, ""},
		"a redirect plane that says none": {[]Node{node("a", all, "duckdb"), node("b", "redirect", "")}, "and a, b record"},
		"no engine at all":                {[]Node{node("a", all, ""), node("b", all, "")}, ""},
	} {
		if got := CountsApart(c.list); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
