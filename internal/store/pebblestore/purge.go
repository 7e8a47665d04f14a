package pebblestore

import (
	"bytes"
	"context"
	"encoding/binary"
	"math/bits"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"github.com/terselink/terse"
)

// purgeStep is how many numbers one commit of a purge looks at: 16 blocks, less than a
// millisecond during which no other write is committed.
const purgeStep = 16 * blockSize

// PurgeLinks implements terse.Store. It goes through the entries of the campaign's list from the
// oldest; an entry goes when nothing of it is left, so what a crash or the limit cut short is begun again.
//
// Each step is planned on the committer, so no other write comes between what it reads and
// what it removes.
func (s *Store) PurgeLinks(ctx context.Context, w terse.WorkspaceID, c terse.CampaignID, limit int) (n int, err error) {
	if err := s.enter(ctx); err != nil {
		return 0, err
	}
	defer s.leave(&err)
	switch {
	case limit < 1 || limit > 10_000:
		return 0, terse.Invalid("limit", "must be from 1 to 10,000")
	case c == 0:
		return 0, terse.Invalid("campaign", "links without a campaign cannot be purged")
	}
	// What the index queue holds of these links would be written behind our back.
	if err := s.catchUp(ctx); err != nil {
		return 0, err
	}
	defer s.purges.Add(1) // before the caller goes on, no reader keeps a block that is gone
	prefix := appendCampaignPrefix(nil, w, c)
	for {
		seq, e, err := s.firstEntry(prefix)
		if err != nil {
			return n, err
		}
		if e == nil {
			return n, s.purgeLeft(ctx, w, c)
		}
		others := 0
		for _, run := range e.runs {
			end := run.First + terse.LinkNumber(run.Count)
			for at := run.First; at < end; {
				if n >= limit {
					return n, nil
				}
				to := min(end, blockOf(at)+purgeStep)
				step := purgePart{workspace: w, campaign: c, from: at, to: to}
				if err := s.purgeStep(ctx, &step); err != nil {
					return n, err
				}
				n += step.purged
				others += step.others
				at = to
			}
		}
		if err := s.dropEntry(ctx, w, binary.BigEndian.AppendUint64(bytes.Clone(prefix), seq), others == 0); err != nil {
			return n, err
		}
	}
}

// firstEntry returns the oldest entry of a campaign's list, nil if there is none.
func (s *Store) firstEntry(prefix []byte) (seq uint64, e *entry, err error) {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: upperBound(prefix)})
	if err != nil {
		return 0, nil, errRead("list", err)
	}
	defer closeIter(it, &err)
	if !it.First() {
		return 0, nil, nil
	}
	seq = binary.BigEndian.Uint64(it.Key()[len(prefix):])
	found, err := decodeEntry(seq, it.Value(), nil)
	return seq, &found, err
}

// dropEntry removes an entry of the campaign's list, and with alone the same entry of the workspace's:
// nothing that it names exists any more.
func (s *Store) dropEntry(ctx context.Context, w terse.WorkspaceID, key []byte, alone bool) error {
	o := s.newOp()
	o.check = func(s *Store, o *op) error {
		value, _, err := s.get(key, nil)
		if err != nil {
			return err
		}
		if err := o.batch.Delete(key, nil); err != nil {
			return errBatch(err)
		}
		list := append(appendListPrefix(nil, w), key[len(key)-8:]...)
		whole, found, err := s.get(list, nil)
		if err != nil || !found || !alone || !bytes.Equal(whole, value) {
			return err // an entry of several campaigns goes on being read
		}
		if err := o.batch.Delete(list, nil); err != nil {
			return errBatch(err)
		}
		return nil
	}
	return s.submit(ctx, o)
}

// purgeLeft removes the notes on links that left the campaign: nobody counts it again.
func (s *Store) purgeLeft(ctx context.Context, w terse.WorkspaceID, c terse.CampaignID) error {
	prefix := appendLeftPrefix(nil, w, c)
	o := s.newOp()
	o.check = func(s *Store, o *op) (err error) {
		it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: upperBound(prefix)})
		if err != nil {
			return errRead("links that left", err)
		}
		defer closeIter(it, &err)
		if !it.First() {
			return nil
		}
		if err := o.batch.DeleteRange(prefix, upperBound(prefix), nil); err != nil {
			return errBatch(err)
		}
		return nil
	}
	return s.submit(ctx, o)
}

// purgePart is the part of a purge that is one commit: the links of a campaign with numbers
// from from up to to, and those that share their blocks.
type purgePart struct {
	workspace terse.WorkspaceID
	campaign  terse.CampaignID
	from, to  terse.LinkNumber

	purged int // links that were removed
	others int // links from from to to that stay, of other campaigns
}

func (s *Store) purgeStep(ctx context.Context, p *purgePart) error {
	o := s.newOp()
	step := *p // the committer's: this call may end before it has run
	o.check = func(s *Store, o *op) error { return step.plan(s, o.batch) }
	if err := s.submit(ctx, o); err != nil {
		return err
	}
	p.purged, p.others = step.purged, step.others
	s.holes.add(p)
	return nil
}

// holes remembers where links were purged, by domain and space, until reclaim has been there. After
// a restart it is empty: then Pebble's own compactions find the space, later.
type holes struct {
	mu     sync.Mutex
	ranges map[terse.LinkNumber]hole // by number >> terse.IndexBits
}

type hole struct {
	from, to terse.LinkNumber
	links    int
}

// minReclaim is how many purged links of a space are worth a compaction.
const minReclaim = 10_000

func (h *holes) add(p *purgePart) {
	if p.purged == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ranges == nil {
		h.ranges = make(map[terse.LinkNumber]hole)
	}
	space := p.from >> terse.IndexBits
	r, ok := h.ranges[space]
	if !ok {
		r = hole{from: p.from, to: p.to}
	}
	h.ranges[space] = hole{min(r.from, p.from), max(r.to, p.to), r.links + p.purged}
}

// take returns the ranges that are worth a compaction, and forgets them.
func (h *holes) take() (list []hole) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for space, r := range h.ranges {
		if r.links >= minReclaim {
			list = append(list, r)
			delete(h.ranges, space)
		}
	}
	return list
}

// reclaim compacts where links were purged. Without it the space would come back when later
// writes happen to compact these tables, which for old links may be never.
func (s *Store) reclaim(ctx context.Context) error {
	for _, r := range s.holes.take() {
		for _, family := range []byte{famBlock, famRow} {
			low, high := appendNumberKey(nil, family, blockOf(r.from)), appendNumberKey(nil, family, r.to+blockSize)
			if err := s.db.Compact(ctx, low, high, false); err != nil {
				return unavailable("reclaim space", err)
			}
		}
	}
	return nil
}

func (p *purgePart) mine(r *row) bool {
	return r.workspace == p.workspace && r.campaign == p.campaign
}

func (p *purgePart) other(n terse.LinkNumber) {
	if n >= p.from && n < p.to {
		p.others++
	}
}

// plan fills the batch. A block goes when nobody else's link is in it; otherwise its purged links
// get tombstones, as deleted ones have.
func (p *purgePart) plan(s *Store, b *pebble.Batch) error {
	low, high := blockOf(p.from), blockOf(p.to-1)+blockSize
	rows, overridden, err := p.planRows(s, b, low, high)
	if err != nil {
		return err
	}
	keep, err := p.planBlocks(s, b, low, high, overridden)
	if err != nil {
		return err
	}
	for _, n := range rows {
		key := appendNumberKey(nil, famRow, n)
		if keep[blockOf(n)]&(1<<(n-blockOf(n))) != 0 {
			err = b.Set(key, appendTombstone(nil, n), nil)
		} else {
			err = b.Delete(key, nil)
		}
		if err != nil {
			return errBatch(err)
		}
	}
	return nil
}

// planRows removes what leads to the campaign's links that are stored as rows, and returns their
// numbers and, by block, which numbers have rows.
func (p *purgePart) planRows(s *Store, b *pebble.Batch, low, high terse.LinkNumber) (purged []terse.LinkNumber, overridden map[terse.LinkNumber]uint64, err error) {
	overridden = make(map[terse.LinkNumber]uint64)
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: appendNumberKey(nil, famRow, low), UpperBound: appendNumberKey(nil, famRow, high)})
	if err != nil {
		return nil, nil, errRead("rows", err)
	}
	defer closeIter(it, &err)
	var r row
	for ok := it.First(); ok; ok = it.Next() {
		n := terse.LinkNumber(binary.BigEndian.Uint64(it.Key()[1:]))
		overridden[blockOf(n)] |= 1 << (n - blockOf(n))
		live, err := r.decode(n, it.Value())
		switch {
		case err != nil:
			return nil, nil, err
		case !live: // stays: its number was given up by itself
		case !p.mine(&r):
			p.other(n)
		default:
			if err := dropHints(b, &r); err != nil {
				return nil, nil, err
			}
			// As in encodeDelete: the key of a generated code stays, and leads nowhere.
			if n.Space() == terse.AliasSpace {
				if err := b.Delete(appendAliasKey(nil, n.Domain(), string(r.code)), nil); err != nil {
					return nil, nil, errBatch(err)
				}
			}
			purged = append(purged, n)
			p.purged++
		}
	}
	return purged, overridden, nil
}

// planBlocks removes blocks and returns the bitmaps of those that stay.
func (p *purgePart) planBlocks(s *Store, b *pebble.Batch, low, high terse.LinkNumber, overridden map[terse.LinkNumber]uint64) (keep map[terse.LinkNumber]uint64, err error) {
	keep = make(map[terse.LinkNumber]uint64)
	lower, upper := appendNumberKey(nil, famBlock, low), appendNumberKey(nil, famBlock, high)
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return nil, errRead("blocks", err)
	}
	defer closeIter(it, &err)
	var blk block
	var r row
	var gone [][]byte
	for ok := it.First(); ok; ok = it.Next() {
		first := terse.LinkNumber(binary.BigEndian.Uint64(it.Key()[1:]))
		if err := blk.load(first, it.Value()); err != nil {
			return nil, err
		}
		var mine uint64
		foreign := false
		for rest := blk.bitmap &^ overridden[first]; rest != 0; rest &= rest - 1 {
			i := terse.LinkNumber(bits.TrailingZeros64(rest))
			blk.row(first+i, &r)
			if !p.mine(&r) {
				foreign = true
				p.other(first + i)
				continue
			}
			mine |= 1 << i
			if err := dropHints(b, &r); err != nil {
				return nil, err
			}
		}
		p.purged += bits.OnesCount64(mine)
		if !foreign {
			gone = append(gone, bytes.Clone(it.Key()))
			continue
		}
		keep[first] = blk.bitmap
		for ; mine != 0; mine &= mine - 1 {
			n := first + terse.LinkNumber(bits.TrailingZeros64(mine))
			if err := b.Set(appendNumberKey(nil, famRow, n), appendTombstone(nil, n), nil); err != nil {
				return nil, errBatch(err)
			}
		}
	}
	if len(keep) == 0 && len(gone) > 1 {
		// One range tombstone: tables that it covers are dropped without being read.
		if err := b.DeleteRange(lower, upper, nil); err != nil {
			return nil, errBatch(err)
		}
		return keep, nil
	}
	for _, key := range gone {
		if err := b.Delete(key, nil); err != nil {
			return nil, errBatch(err)
		}
	}
	return keep, nil
}

func dropHints(b *pebble.Batch, r *row) error {
	h, err := rowHints(r)
	if err != nil {
		return err
	}
	return h.each(func(key []byte) error {
		if err := b.Delete(key, nil); err != nil {
			return errBatch(err)
		}
		return nil
	})
}
