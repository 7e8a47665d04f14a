package analytics

import (
	"slices"
	"strings"

	"github.com/terselink/terse/internal/clicks"
)

// Found reports whether a click is among those that q.Search keeps: the text of its
// value, or for links host/code, contains the search. The query has passed Normalize.
func (q Query) Found(ev *clicks.Event) bool {
	if q.Search == "" {
		return true
	}
	text := q.By.Of(ev)
	if q.By == Link {
		text = ev.Domain + "/" + ev.Code
	}
	return strings.Contains(strings.ToLower(text), q.Search)
}

// SearchNumbers returns the numbers that q.Search finds, for the dimensions that have
// few: rule, outcome, bot. False for all others, which engines search by text. A
// number without a name, from a newer version, is found by its digits.
func (q Query) SearchNumbers() (found []uint64, ok bool) {
	if k := kinds[q.By]; k != kindNumber && k != kindNamed {
		return nil, false
	}
	found = []uint64{}
	for n := range uint64(256) {
		if strings.Contains(strings.ToLower(q.By.Text(n)), q.Search) {
			found = append(found, n)
		}
	}
	return slices.Clip(found), true
}
