package clickhouse

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/uuid"

	"github.com/terselink/terse/internal/clicks"
)

// maxMonths bounds the partitions of one insert: a server refuses one with more than 100.
const maxMonths = 12

// batch is what is written between two positions: copies of events.
type batch struct {
	events []clicks.Event
	texts  interner
}

// interner makes one copy of texts that repeat: an event is borrowed, and most of its texts come again and again.
type interner struct {
	texts map[string]string
	bytes int // of the texts, with what an entry takes
}

const (
	// mostTextBytes bounds the texts that are kept from one batch to the next.
	mostTextBytes = 8 << 20
	entryBytes    = 48
)

func (m *interner) copy(s string) string {
	if s == "" {
		return ""
	}
	if v, ok := m.texts[s]; ok {
		return v
	}
	key := strings.Clone(s)
	v := key
	m.bytes += len(key) + entryBytes
	if !utf8.ValidString(s) { // as in every engine
		v = strings.ToValidUTF8(s, "\uFFFD")
		m.bytes += len(v)
	}
	if m.texts == nil {
		m.texts = map[string]string{}
	}
	m.texts[key] = v
	return v
}

// trim forgets the texts if they take too much.
func (m *interner) trim() {
	if m.bytes > mostTextBytes {
		*m = interner{}
	}
}

// add keeps a copy of an event.
func (b *batch) add(ev *clicks.Event) {
	c := *ev
	for _, s := range []*string{&c.Domain, &c.Code, &c.Destination, &c.Trigger, &c.BotName, &c.Country, &c.Region, &c.City, &c.Device, &c.OS, &c.OSVersion, &c.Browser, &c.BrowserVer,
		&c.Language, &c.RefHost, &c.RefPath, &c.Source, &c.UTMSource, &c.UTMMedium, &c.UTMCampaign, &c.UTMTerm, &c.UTMContent, &c.Node, &c.UserAgent, &c.IP} {
		*s = b.texts.copy(*s)
	}
	b.events = append(b.events, c)
}

// reset empties the batch and keeps its memory.
func (b *batch) reset() {
	clear(b.events)
	b.events = b.events[:0]
	b.texts.trim()
}

// groups divides the events into inserts of few months. There is nearly always one.
func (b *batch) groups() [][]clicks.Event {
	month := func(ev *clicks.Event) int {
		t := ev.At.Time()
		return t.Year()*12 + int(t.Month())
	}
	first := month(&b.events[0])
	if !slices.ContainsFunc(b.events, func(ev clicks.Event) bool { m := month(&ev); return m < first || m >= first+maxMonths }) {
		return [][]clicks.Event{b.events}
	}
	byYear := map[int][]clicks.Event{}
	for i := range b.events {
		byYear[month(&b.events[i])/maxMonths] = append(byYear[month(&b.events[i])/maxMonths], b.events[i])
	}
	groups := make([][]clicks.Event, 0, len(byYear))
	for _, year := range slices.Sorted(maps.Keys(byYear)) {
		groups = append(groups, byYear[year])
	}
	return groups
}

// clicksInto is the statement of an insert.
var clicksInto = "INSERT INTO clicks (event_id, day, " + names(columns) + ")"

// insert writes events as one block. After an error it is not known whether they were written.
func (e *Engine) insert(ctx context.Context, id string, events []clicks.Event) (err error) {
	ctx, cancel := context.WithTimeout(ctx, e.o.InsertTimeout)
	defer cancel()
	b, err := e.conn.PrepareBatch(e.with(ctx, id, nil), clicksInto)
	if err != nil {
		return err
	}
	defer func() {
		if !b.IsSent() {
			_ = b.Abort() // the error is that of before
		}
	}()
	if err := e.fill(b, events); err != nil {
		return err
	}
	return b.Send()
}

// dateOf returns a day as clickhouse-go writes it.
func dateOf(day int64) time.Time { return time.Unix(day*86_400, 0).UTC() }

// columnBuffers are the values of one column at a time.
type columnBuffers struct {
	ids   []uuid.UUID
	texts []string
	i64   []int64
	u64   []uint64
	u32   []uint32
	u16   []uint16
	u8    []uint8
}

func (e *Engine) fill(b driver.Batch, events []clicks.Event) error {
	buf := &e.buffers
	buf.ids, buf.u16 = buf.ids[:0], buf.u16[:0]
	days := make([]time.Time, 0, len(events))
	for i := range events {
		buf.ids = append(buf.ids, events[i].ID)
		days = append(days, dateOf(dayOf(events[i].At)))
	}
	if err := b.Column(0).Append(buf.ids); err != nil {
		return fmt.Errorf("event_id: %w", err)
	}
	if err := b.Column(1).Append(days); err != nil {
		return fmt.Errorf("day: %w", err)
	}
	for i, c := range columns {
		if err := b.Column(i + 2).Append(buf.values(&c, events)); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

// values returns a column of events, in memory that is used again for the next column.
func (buf *columnBuffers) values(c *column, events []clicks.Event) any {
	switch c.kind {
	case kindName, kindText:
		buf.texts = buf.texts[:0]
		for i := range events {
			buf.texts = append(buf.texts, c.text(&events[i]))
		}
		return buf.texts
	case kindMillis:
		return numbers(&buf.i64, c, events)
	case kindID, "UInt64":
		return numbers(&buf.u64, c, events)
	case "UInt32":
		return numbers(&buf.u32, c, events)
	case "UInt16":
		return numbers(&buf.u16, c, events)
	}
	return numbers(&buf.u8, c, events)
}

func numbers[T int64 | uint64 | uint32 | uint16 | uint8](buf *[]T, c *column, events []clicks.Event) []T {
	*buf = (*buf)[:0]
	for i := range events {
		*buf = append(*buf, T(c.number(&events[i])))
	}
	return *buf
}

// offsetRows is where places of spools are kept.
const offsetRows = "ingest_offsets (source, ver, position, events)"

// nextVer returns the version after one. The clock may stand still or go back; versions must not.
func (e *Engine) nextVer(last uint64) uint64 { return max(last+1, uint64(e.o.Clock().UnixNano())) }

// writeOffset names the place of the spool of this node after its events were written.
func (e *Engine) writeOffset(ctx context.Context, pos clicks.Position, events int64) error {
	e.offsetVer = e.nextVer(e.offsetVer)
	return e.rows(ctx, offsetRows, [][]any{{e.o.Source, e.offsetVer, pos.String(), uint64(events)}})
}

// readOffset returns the place of a spool: the zero Position in a new database.
func (e *Engine) readOffset(ctx context.Context, source string) (pos clicks.Position, events int64, ver uint64, err error) {
	ctx, cancel := e.within(ctx)
	defer cancel()
	var text string
	var n uint64
	err = e.scan(ctx, "SELECT position, events, ver FROM ingest_offsets WHERE source = "+literal(source)+" ORDER BY ver DESC LIMIT 1", func(r row) error {
		return r.Scan(&text, &n, &ver)
	})
	if err != nil {
		return pos, 0, 0, err
	}
	pos, err = clicks.ParsePosition(text)
	return pos, int64(n), ver, err
}
