package dynamostore

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"
	"sync"

	"github.com/terselink/terse"
)

// maxPage is the largest page that the contract lets a caller ask for, scanLimit how many links one
// call looks at for it at least before it returns fewer.
const (
	maxPage   = 10_000
	scanLimit = 5_000
)

// shardStream is the links of one shard, newest first.
type shardStream struct {
	query rangeQuery
	items []item
	seen  []bool
	done  bool // nothing is behind items
}

func (t *shardStream) head() string { return string(getBin(t.items[0], attrGSK)) }

// fill reads the next page of a stream that has run dry.
func (t *shardStream) fill(ctx context.Context, s *Store, limit int) *outcome {
	for len(t.items) == 0 && !t.done {
		t.query.limit = limit
		page, next, o := s.query(ctx, t.query)
		if o != nil {
			return o
		}
		if t.seen, o = s.visible(ctx, page); o != nil {
			return o
		}
		t.items, t.query.start, t.done = page, next, next == nil
	}
	return nil
}

// ListLinks merges the shards of the workspace, newest first. The cursor is the place of the last link looked at.
func (s *Store) ListLinks(ctx context.Context, w terse.WorkspaceID, q terse.ListQuery) (terse.LinkPage, error) {
	const op = "list links"
	if q.Limit < 1 || q.Limit > maxPage {
		return terse.LinkPage{}, terse.Invalid("limit", "must be 1 to %d", maxPage)
	}
	cursor, err := parseCursor(q.Cursor)
	if err != nil {
		return terse.LinkPage{}, err
	}
	if err := s.enter(ctx, op); err != nil {
		return terse.LinkPage{}, err
	}
	list, next, err := s.list(ctx, op, w, &q, cursor)
	if err != nil {
		return terse.LinkPage{}, err
	}
	page := terse.LinkPage{Links: make([]terse.Link, len(list))}
	for i := range list {
		page.Links[i] = list[i].Link
	}
	if next != "" {
		page.Next = cursorPrefix + hex.EncodeToString([]byte(next))
	}
	return page, nil
}

// list returns the links of a page and the place of the last one that it looked at, "" at the end.
func (s *Store) list(ctx context.Context, op string, w terse.WorkspaceID, q *terse.ListQuery, cursor []byte) (found []stored, last string, err error) {
	from, to, some := bounds(q, cursor)
	if !some {
		return nil, "", nil
	}
	shards, o := s.shardCount(ctx, w)
	if o != nil {
		return nil, "", o.readErr(op)
	}
	streams := make([]shardStream, shards)
	each := min(1000, 8+2*q.Limit/shards)
	if q.Campaign != 0 || q.Tag != "" || q.ExternalID != "" || q.Domain != 0 {
		each = max(each, 2*scanLimit/shards)
	}
	for i := range streams {
		streams[i].query = rangeQuery{pk: shardPK(w, i), from: from, to: to, index: true}
	}
	if o := s.fillAll(ctx, streams, each); o != nil {
		return nil, "", o.readErr(op)
	}
	for looked := 0; ; looked++ {
		t := newest(streams)
		if t == nil {
			return found, "", nil
		}
		if len(found) == q.Limit || looked >= max(scanLimit, 2*q.Limit) {
			return found, last, nil
		}
		last = t.head()
		if it := t.items[0]; t.seen[0] {
			l, err := readLink(it)
			if err != nil {
				return nil, "", err
			}
			if selects(q, &l) {
				found = append(found, stored{l, it})
			}
		}
		t.items, t.seen = t.items[1:], t.seen[1:]
		if o := t.fill(ctx, s, each); o != nil {
			return nil, "", o.readErr(op)
		}
	}
}

// fillAll reads the first page of every shard, many at once.
func (s *Store) fillAll(ctx context.Context, streams []shardStream, limit int) *outcome {
	outcomes := make([]*outcome, len(streams))
	var wg sync.WaitGroup
	for i := range streams {
		wg.Go(func() { outcomes[i] = streams[i].fill(ctx, s, limit) })
	}
	wg.Wait()
	for _, o := range outcomes {
		if o != nil {
			return o
		}
	}
	return nil
}

// newest returns the stream with the newest link, nil if all are at their end.
func newest(streams []shardStream) *shardStream {
	var best *shardStream
	for i := range streams {
		t := &streams[i]
		if len(t.items) > 0 && (best == nil || t.head() > best.head()) {
			best = t
		}
	}
	return best
}

// bounds returns the range of sort keys that the query and its cursor leave, both inclusive.
func bounds(q *terse.ListQuery, cursor []byte) (from, to string, some bool) {
	from = string(position(max(0, q.CreatedFrom), 0))
	to = string(position(1<<63-1, 1<<64-1))
	if q.CreatedTo != 0 {
		if q.CreatedTo < 0 {
			return "", "", false
		}
		to = string(position(q.CreatedTo-1, 1<<64-1))
	}
	if cursor != nil {
		before := slices.Clone(cursor)
		for i := len(before) - 1; i >= 0; i-- {
			before[i]--
			if before[i] != 0xff {
				break
			}
		}
		if string(before) > string(cursor) { // it was the least
			return "", "", false
		}
		to = min(to, string(before))
	}
	return from, to, from <= to
}

// selects reports whether the link passes every filter of the query.
func selects(q *terse.ListQuery, l *terse.Link) bool {
	return (q.Domain == 0 || l.Number.Domain() == q.Domain) &&
		(q.Campaign == 0 || l.Campaign == q.Campaign) &&
		(q.ExternalID == "" || l.ExternalID == q.ExternalID) &&
		(q.Tag == "" || (l.Settings != nil && slices.Contains(l.Settings.Tags, q.Tag))) &&
		(q.CreatedFrom == 0 || l.CreatedAt >= q.CreatedFrom) &&
		(q.CreatedTo == 0 || l.CreatedAt < q.CreatedTo)
}

// cursorPrefix tells the cursors of this engine from those of others.
const cursorPrefix = "ddb1_"

// parseCursor returns the place in a cursor, nil for "". It accepts exactly what ListLinks makes.
func parseCursor(s string) ([]byte, error) {
	if s == "" {
		return nil, nil
	}
	digits, ok := strings.CutPrefix(s, cursorPrefix)
	b, err := hex.DecodeString(digits)
	if !ok || err != nil || len(b) != 16 || strings.ToLower(digits) != digits || binary.BigEndian.Uint64(b)>>63 != 0 {
		return nil, terse.Invalid("cursor", "not a cursor of this store")
	}
	return b, nil
}
