package dynamostore

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"github.com/terselink/terse"
)

var errRuns = errors.New("the runs of a change are damaged")

// stallTable remembers since when readers have waited at a number of the feed.
type stallTable struct {
	mu    sync.Mutex
	since map[uint64]time.Time
}

// waited reports whether the number has been missing for at least d.
func (t *stallTable) waited(seq uint64, d time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.since == nil || len(t.since) > 1000 { // of readers that never came back
		t.since = map[uint64]time.Time{}
	}
	from, ok := t.since[seq]
	if !ok {
		t.since[seq] = time.Now()
		return d <= 0
	}
	return time.Since(from) >= d
}

func (t *stallTable) passed(seq uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.since, seq)
}

// Changes reads the feed up to the first number that is missing.
func (s *Store) Changes(ctx context.Context, after uint64, limit int) ([]terse.Change, error) {
	const op = "changes"
	if limit < 1 {
		return nil, terse.Invalid("limit", "at least 1")
	}
	if err := s.enter(ctx, op); err != nil {
		return nil, err
	}
	head, o := s.getItem(ctx, feedKey)
	if o != nil {
		return nil, o.readErr(op)
	}
	last, floor := getNum(head, "feed_last"), getNum(head, "feed_floor")
	if after < floor {
		return nil, &terse.ForgottenError{Floor: floor}
	}
	next := after + 1
	var out []terse.Change
	for next <= last && len(out) < limit {
		page, _, o := s.query(ctx, rangeQuery{pk: bucketPK(next), from: be64(next), to: be64(last), limit: limit - len(out)})
		if o != nil {
			return nil, o.readErr(op)
		}
		reached := next
		for _, it := range page {
			if binary.BigEndian.Uint64(getBin(it, attrSK)) != next {
				break
			}
			ch, wait, err := s.settle(ctx, next, it)
			if err != nil {
				return nil, err
			}
			if wait {
				return out, nil
			}
			s.stalls.passed(next)
			out = append(out, ch)
			next++
		}
		if next != reached {
			continue
		}
		// Nothing is under the number that comes next.
		if !s.stalls.waited(next, s.opts.SealAfter) {
			return out, nil
		}
		if o := s.putNew(ctx, s.sealItem(next)); o == nil {
			s.counters.sealed.Add(1)
		} else if o.class != condition {
			return nil, o.readErr(op)
		}
	}
	return out, nil
}

// headSpan is how far below the last number that was drawn a change may still appear: far more than commits that are
// under way at once draw before one of their numbers is sealed.
const headSpan = 4096

// FeedHead returns a position such that every change that Changes does not show yet has a larger Seq. It reads the end
// of the feed only.
func (s *Store) FeedHead(ctx context.Context) (uint64, error) {
	const op = "feed head"
	if err := s.enter(ctx, op); err != nil {
		return 0, err
	}
	head, o := s.getItem(ctx, feedKey)
	if o != nil {
		return 0, o.readErr(op)
	}
	last := getNum(head, "feed_last")
	at := max(getNum(head, "feed_floor"), last-min(last, headSpan))
	for {
		list, err := s.Changes(ctx, at, headSpan)
		if e, ok := errors.AsType[*terse.ForgottenError](err); ok { // the floor has just moved
			at = e.Floor
			continue
		}
		if err != nil || len(list) == 0 {
			return at, err
		}
		if at = list[len(list)-1].Seq; at >= last {
			return at, nil
		}
	}
}

// settle reads the item of a number. If it refers to a chunk that is not decided, wait says that
// the reader has to stop before it.
func (s *Store) settle(ctx context.Context, seq uint64, it item) (ch terse.Change, wait bool, err error) {
	if getBool(it, "sealed") {
		return nothing(seq, it), false, nil
	}
	if id, ok := getChunk(it); ok {
		st, o := s.chunkState(ctx, id)
		if o != nil {
			return terse.Change{}, false, o.readErr("changes")
		}
		if st.state == pending {
			if !s.stalls.waited(seq, s.opts.SealAfter) {
				return terse.Change{}, true, nil
			}
			if st, o = s.void(ctx, id, seq); o != nil {
				return terse.Change{}, false, o.readErr("changes")
			}
		}
		if st.state != committed || seq < st.first || seq-st.first >= st.count {
			return nothing(seq, it), false, nil
		}
	}
	ch, err = readChange(seq, it)
	return ch, false, err
}

// void takes from a chunk that has not committed the numbers up to seq, and returns its state then.
func (s *Store) void(ctx context.Context, id chunkID, seq uint64) (chunkState, *outcome) {
	_, o := s.update(ctx, id.key(), "SET void_upto = :s", "chunk_state = :p AND (attribute_not_exists(void_upto) OR void_upto < :s)", nil,
		item{":s": num(seq), ":p": num(pending)})
	if o != nil && o.class != condition {
		return chunkState{}, o
	}
	if o == nil {
		s.counters.sealed.Add(1)
	}
	return s.chunkState(ctx, id)
}
