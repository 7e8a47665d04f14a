package clicks

// Node returns the name of the node that wrote the segment that is being read.
func (r *Reader) Node() string { return r.header.node }

// GroupEvents makes events of groups that Reader.NextGroups handed out, perhaps of several spools. Not safe for concurrent use.
type GroupEvents struct {
	reader   Reader // for what it does with a group alone
	enricher *Enricher
	event    Event // reused: an event is borrowed until fn returns
}

// NewGroupEvents returns one that has seen no click yet.
func NewGroupEvents(set EnrichSettings) (*GroupEvents, error) {
	enricher, err := NewEnricher(EnricherOptions{EnrichSettings: set})
	if err != nil {
		return nil, err
	}
	return &GroupEvents{enricher: enricher}, nil
}

// Check returns an error of code invalid unless group is one whole group that can be read.
func (g *GroupEvents) Check(group []byte) error {
	info, err := parseGroupHeader(group)
	if err != nil || len(group) != info.size() || g.reader.check(info, group[groupHeader:]) != nil {
		return errGroups
	}
	return nil
}

// Each calls fn with the events of a group that Check has passed, recorded by a node, and returns how many there were. An event is
// borrowed until fn returns, whose error ends the call.
func (g *GroupEvents) Each(group []byte, node string, fn func(*Event) error) (n int, err error) {
	info, err := parseGroupHeader(group)
	if err == nil {
		err = g.reader.group.reset(info, group[groupHeader:])
	}
	if err != nil {
		return 0, errGroups
	}
	raw := &g.reader.raw
	raw.Node = node
	for ; n < info.records; n++ {
		if g.reader.group.next(raw) != nil {
			return n, errGroups
		}
		g.enricher.Enrich(raw, &g.event)
		if err := fn(&g.event); err != nil {
			return n, err
		}
	}
	return n, nil
}

// InSegment returns the place that lies so many bytes into the segment of p.
func (p Position) InSegment(offset int64) Position {
	p.Offset = offset
	return p
}

// SameSegment reports whether two places are in one segment.
func (p Position) SameSegment(q Position) bool { return p.InSegment(0) == q.InSegment(0) }
