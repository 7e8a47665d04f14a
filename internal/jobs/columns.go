package jobs

import (
	"fmt"
	"slices"
	"strings"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/links"
)

// renameColumns returns the header line of a CSV file with the names of its columns
// replaced; a column that becomes "" is left out. Returns an error of code invalid if there
// is no column of a name that is mapped.
func renameColumns(names []string, columns map[string]string) (string, error) {
	used := 0
	var out strings.Builder
	for i, name := range names {
		if i > 0 {
			out.WriteByte(',')
		}
		if to, ok := columns[strings.TrimSpace(name)]; ok {
			if name = to; to == "" {
				name = links.IgnoredColumn
			}
			used++
		}
		out.WriteString(`"` + strings.ReplaceAll(name, `"`, `""`) + `"`)
	}
	if used < len(columns) {
		for from := range columns {
			if !slices.ContainsFunc(names, func(n string) bool { return strings.TrimSpace(n) == from }) {
				return "", &terse.Error{Code: terse.CodeInvalid, Reason: "unknown_column", Field: "columns",
					Message: fmt.Sprintf("the file has no column %q; it has %s", from, list(names))}
			}
		}
	}
	out.WriteByte('\n')
	return out.String(), nil
}

// list shows names in a message, which has an end.
func list(names []string) string {
	s := strings.ToValidUTF8(strings.Join(names, ", "), "\ufffd")
	if len(s) > 500 {
		s = strings.ToValidUTF8(s[:500], "") + " …"
	}
	return s
}
