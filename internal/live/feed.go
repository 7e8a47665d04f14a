package live

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/export"
)

// The events.
const (
	EventClick    = "click"    // a sampled click: export.Row
	EventCounters = "counters" // of a second: Counters
	EventGap      = "gap"      // what came since lastID is not known any more
)

// Message is one server-sent event.
type Message struct {
	ID    string // names a place in the feed, to resume after; "" for EventGap
	Event string
	Data  []byte // JSON, never modified
}

// Counters is what a second brought. All numbers are sums of weights.
type Counters struct {
	T       time.Time `json:"t"`       // the end of the second
	Clicks  int64     `json:"clicks"`  // of people, redirected
	Bots    int64     `json:"bots"`    // of bots, redirected
	Refused int64     `json:"refused"` // not redirected: expired, unknown and so on
	Total   int64     `json:"total"`   // all three
	Shown   int64     `json:"shown"`   // how many of them came as EventClick
	LagMs   int64     `json:"lag_ms"`  // clicks of this age are being read; 0: the view is up to date
	Nodes   int       `json:"nodes"`   // whose clicks are in it
	Partial bool      `json:"partial"` // clicks of other nodes are missing, or may be
}

type feedKey struct {
	workspace terse.WorkspaceID
	scope     analytics.Scope
}

// feed is the messages of a workspace or of one thing of it.
type feed struct {
	key      feedKey
	boot     string // so that ids of an earlier feed are not taken for its own
	watchers map[*Watcher]bool
	left     time.Time // when the last watcher went; zero: there was none

	lost  bool // a message EventGap was sent in this second
	seq   uint64
	ring  *[RingSize]Message // message n is at n % RingSize; nil: nobody has watched
	count Counters           // of all nodes
	other others
}

func newFeed(k feedKey) *feed {
	return &feed{key: k, boot: newBoot(), watchers: map[*Watcher]bool{}}
}

func newBoot() string { return strconv.FormatUint(rand.Uint64(), 36) }

// rest forgets the messages: nobody here resumes any more.
func (f *feed) rest() { f.ring, f.boot, f.seq = nil, newBoot(), 0 }

// clickTag says whether a click has a tag. known: false if it could not be found out.
type clickTag struct {
	tag        string
	has, known bool
}

// tagged reports whether a click with these tags has the feed's.
func (f *feed) tagged(tags []clickTag) bool {
	return slices.ContainsFunc(tags, func(t clickTag) bool { return t.tag == f.key.scope.Tag && t.has })
}

// unknown reports whether nobody can say if a click has the feed's tag.
func (f *feed) unknown(tags []clickTag) bool {
	return slices.ContainsFunc(tags, func(t clickTag) bool { return t.tag == f.key.scope.Tag && !t.known })
}

// gap returns the message that clicks may be missing, once a second.
func (f *feed) gap() Message {
	if f.lost {
		return Message{}
	}
	f.lost = true
	return Message{Event: EventGap, Data: []byte("{}")}
}

// wants reports whether a click of the workspace belongs to the feed, whatever its tags.
func (f *feed) wants(ev *clicks.Event) bool {
	s := &f.key.scope
	return (s.Link == 0 || s.Link == ev.Link) && (s.Campaign == 0 || s.Campaign == ev.Campaign) && (s.Domain == "" || s.Domain == ev.Domain)
}

// take counts a click of this node and returns its message, or none if the second has shown enough, or nobody here watches.
func (f *feed) take(ev *clicks.Event) Message {
	w := int64(max(ev.Weight, 1))
	of := func(c *Counters) {
		c.Total += w
		switch {
		case ev.Outcome != clicks.OutcomeRedirect:
			c.Refused += w
		case ev.Bot != clicks.Human:
			c.Bots += w
		default:
			c.Clicks += w
		}
	}
	of(&f.count)
	asked := f.other.takes(of)
	shows := f.ring != nil && f.count.Shown < MaxSampled && f.other.shownHere < f.other.share
	if !asked && !shows {
		return Message{}
	}
	row := encode(export.RowOf(ev))
	if asked {
		f.other.rows = append(f.other.rows, row)
	}
	if !shows {
		return Message{}
	}
	f.count.Shown++
	f.other.shownHere++
	return f.message(EventClick, row)
}

// second returns the counters and begins anew.
func (f *feed) second(now time.Time, lag int64) Message {
	var m Message
	if f.ring != nil {
		f.count.T, f.count.LagMs = now.UTC(), max(lag, f.count.LagMs)
		m = f.message(EventCounters, encode(f.count))
	}
	f.count, f.lost = Counters{}, false
	return m
}

func encode(v any) []byte {
	data, err := json.Marshal(v, json.Deterministic(true))
	if err != nil { // a text that is not UTF-8, which enrichment repairs
		return []byte("{}")
	}
	return data
}

// message makes the next message and keeps it.
func (f *feed) message(event string, data []byte) Message {
	f.seq++
	m := Message{ID: fmt.Sprintf("%s-%d", f.boot, f.seq), Event: event, Data: data}
	f.ring[f.seq%RingSize] = m
	return m
}

// resume hands a new watcher what came after lastID; "" is now.
func (f *feed) resume(w *Watcher, lastID string) {
	if lastID == "" {
		return
	}
	boot, digits, _ := strings.Cut(lastID, "-")
	last, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || boot != f.boot || last > f.seq || f.seq-last > RingSize {
		w.c <- Message{Event: EventGap, Data: []byte("{}")}
		return
	}
	for n := last + 1; n <= f.seq; n++ {
		w.c <- f.ring[n%RingSize]
	}
}
