package edge

import (
	"bytes"
	"context"
	"encoding/binary"
	"maps"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/terselink/terse"
)

// evictEvery is how often the size of the copy is looked at.
const evictEvery = 10 * time.Second

// evictBatch is how many links are dropped in one write, so that changes do not wait for long.
const evictBatch = 500

// bound keeps the copy within its limit until ctx ends.
func (c *diskCopy) bound(ctx context.Context) {
	t := time.NewTicker(evictEvery)
	defer t.Stop()
	total := int64(0)
	if c.each(ctx, func(_ terse.LinkNumber, _ uint64, size int64) bool { total += size; return true }) != nil {
		return // ctx has ended, or the copy is out of service
	}
	c.bytes.Store(total) // what came meanwhile is counted when something is dropped
	for {
		if c.bytes.Load() > c.limit {
			if err := c.evict(ctx); err != nil && ctx.Err() == nil {
				c.fail(err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// each calls fn with every link, when it was used last and its size, until fn returns false.
func (c *diskCopy) each(ctx context.Context, fn func(n terse.LinkNumber, stamp uint64, size int64) bool) error {
	if c.broken() {
		return errCopy
	}
	it, err := c.db.NewIterWithContext(ctx, &pebble.IterOptions{LowerBound: []byte{keyLink}, UpperBound: []byte{keyLink + 1}})
	if err != nil {
		return err
	}
	for ok := it.First(); ok && ctx.Err() == nil; ok = it.Next() {
		e, err := parseEntry(it.Value())
		if err != nil || len(it.Key()) != 9 {
			continue // it is missing, see entry
		}
		if !fn(terse.LinkNumber(binary.BigEndian.Uint64(bytes.Clone(it.Key()[1:]))), e.stamp, int64(len(it.Key())+entryHead+len(e.payload))) {
			break
		}
	}
	if err := it.Close(); err != nil {
		return err
	}
	return ctx.Err()
}

// evict drops the links that were used longest ago, to a tenth below the limit.
func (c *diskCopy) evict(ctx context.Context) error {
	used := map[uint64]int64{} // bytes by stamp
	total := int64(0)
	if err := c.each(ctx, func(_ terse.LinkNumber, stamp uint64, size int64) bool {
		used[stamp] += size
		total += size
		return true
	}); err != nil {
		return err
	}
	c.bytes.Store(total)
	if total <= c.limit {
		return nil
	}
	excess := total - c.limit/10*9
	last, partly := uint64(0), int64(0) // everything before last goes, and so many bytes of it
	for _, stamp := range slices.Sorted(maps.Keys(used)) {
		if last, partly = stamp, excess; used[stamp] >= excess {
			break
		}
		excess -= used[stamp]
	}
	var drop []terse.LinkNumber
	if err := c.each(ctx, func(n terse.LinkNumber, stamp uint64, size int64) bool {
		if stamp > last || stamp == last && partly <= 0 {
			return true
		}
		if stamp == last {
			partly -= size
		}
		drop = append(drop, n)
		return true
	}); err != nil {
		return err
	}
	for batch := range slices.Chunk(drop, evictBatch) {
		if err := c.now(ctx, func(b *pebble.Batch) error {
			for _, n := range batch {
				if err := c.dropLink(b, n); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return err
		}
		c.evicted.Add(uint64(len(batch)))
	}
	return nil
}
