package dynamostore

import (
	"cmp"
	"context"
	"encoding/binary"
	"math/rand/v2"
	"strings"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/sleep"
)

// maintain does the background work now and then; on how many nodes at once does not matter.
func (s *Store) maintain(ctx context.Context) {
	for {
		// Not all nodes at the same moment.
		if sleep.For(ctx, s.opts.MaintainEvery/2+rand.N(s.opts.MaintainEvery)) != nil {
			return
		}
		if err := s.Maintain(ctx); err != nil && ctx.Err() == nil {
			s.opts.Log.Warn("dynamodb: background work failed; it is tried again", "error", err)
		}
	}
}

// Maintain forgets changes older than two days and clears away what dead processes left. It may be called at any
// time, on any number of nodes.
func (s *Store) Maintain(ctx context.Context) error {
	if err := s.enter(ctx, "maintain"); err != nil {
		return err
	}
	if err := s.moveFloor(ctx); err != nil {
		return err
	}
	if o := s.sweep(ctx); o != nil {
		return o.readErr("maintain")
	}
	return nil
}

// moveFloor moves the floor of the feed over the changes that are older than forgetAfter. The table's TTL removes them long after that,
// so a number above the floor that is missing was never used. A store does so before it draws its first number.
func (s *Store) moveFloor(ctx context.Context) error {
	const op = "forget changes"
	head, o := s.getItem(ctx, feedKey)
	if o != nil {
		return o.readErr(op)
	}
	floor, last := getNum(head, "feed_floor"), getNum(head, "feed_last")
	oldest := s.opts.Clock() - terse.Millis(forgetAfter.Milliseconds())
	// The first bucket whose first change is young, by bisection: times rise along the feed. One without
	// any item is old, but for the last, which is being written.
	low, high := floor>>bucketBits, last>>bucketBits
	for low < high {
		mid := low + (high-low)/2
		page, _, o := s.query(ctx, rangeQuery{pk: bucketPK(mid << bucketBits), limit: 1})
		if o != nil {
			return o.readErr(op)
		}
		if len(page) == 0 || terse.Millis(getInt(page[0], "at")) < oldest {
			low = mid + 1
		} else {
			high = mid
		}
	}
	// The bucket before begins old and may end young, and the last one was not looked at. The floor goes to a change that is there: one
	// with a smaller number that is not committed yet was drawn as long ago, and never will be.
	to := floor
	for bucket := low - min(low, 1); bucket <= low; bucket++ {
		page, o := s.queryAll(ctx, rangeQuery{pk: bucketPK(bucket << bucketBits)})
		if o != nil {
			return o.readErr(op)
		}
		for _, it := range page {
			if terse.Millis(getInt(it, "at")) >= oldest {
				bucket = low
				break
			}
			to = max(to, binary.BigEndian.Uint64(getBin(it, attrSK)))
		}
	}
	if _, known := head["feed_drawn_at"]; known && terse.Millis(getInt(head, "feed_drawn_at")) < oldest {
		to = last // nobody has drawn a number since: the table's TTL may have removed all of them
	}
	if to <= floor {
		return nil
	}
	_, o = s.update(ctx, feedKey, "SET feed_floor = :f", "attribute_not_exists(feed_floor) OR feed_floor < :f", nil, item{":f": num(to)})
	if o != nil && o.class != condition {
		return o.readErr(op)
	}
	return nil
}

func compareKeys(a, b key) int {
	return cmp.Or(strings.Compare(a.pk, b.pk), strings.Compare(a.sk, b.sk))
}
