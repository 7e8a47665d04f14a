package clickstream

import "github.com/terselink/terse/internal/clicks"

// ReadEntry returns the spool of an entry, how many clicks are in it, and the place after them.
func ReadEntry(data []byte) (spool string, n int, end clicks.Position, err error) {
	e, err := parseEntry(data)
	if err != nil {
		return "", 0, end, err
	}
	events, err := clicks.NewGroupEvents(clicks.EnrichSettings{})
	if err != nil {
		return "", 0, end, err
	}
	for _, g := range e.groups {
		k, err := events.Each(g.data, e.node, func(*clicks.Event) error { return nil })
		if err != nil {
			return "", 0, end, err
		}
		n += k
	}
	return e.spool, n, e.to(), nil
}
