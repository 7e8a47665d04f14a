package dynamostore

import (
	"context"
	"encoding/binary"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/terselink/terse"
)

// The change feed. A commit draws its numbers from one counter and puts an item for each in the same
// transaction, on the condition that nothing is there. A reader goes from number to number. Where
// one is missing that has been drawn, a writer is between the two steps, or dead: the reader stops there,
// and after Options.SealAfter puts a seal in its place. The writer's condition then fails, and it draws
// again. So no change ever appears below a number that a reader has passed. A seal reads as a
// change of nothing, which keeps the numbers without holes.
//
// The item of a large chunk may be a reference to its marker instead (chunk.go).

// dispenser draws numbers for all commits that wait, with one request at a time.
type dispenser struct {
	s *Store

	mu      sync.Mutex
	waiting []*drawing
	running bool
}

type drawing struct {
	n     int
	first uint64
	o     *outcome
	done  chan struct{}
}

// draw returns the first of n numbers that are nobody else's. They were drawn after the call began,
// so they are larger than those of every commit that had returned by then.
func (d *dispenser) draw(ctx context.Context, n int) (uint64, *outcome) {
	w := &drawing{n: n, done: make(chan struct{})}
	d.mu.Lock()
	d.waiting = append(d.waiting, w)
	if !d.running {
		d.running = true
		d.s.background.Go(d.run)
	}
	d.mu.Unlock()
	select {
	case <-w.done:
		return w.first, w.o
	case <-ctx.Done():
		return 0, &outcome{class: unsent, err: ctx.Err()}
	}
}

func (d *dispenser) run() {
	for {
		d.mu.Lock()
		batch := d.waiting
		d.waiting = nil
		if len(batch) == 0 {
			d.running = false
			d.mu.Unlock()
			return
		}
		d.mu.Unlock()
		total := 0
		for _, w := range batch {
			total += w.n
		}
		ctx, cancel := context.WithTimeout(d.s.base, attemptTimeout+d.s.opts.RetryFor)
		got, o := d.s.update(ctx, feedKey, "ADD feed_last :n SET feed_drawn_at = :t", "", nil, item{":n": inum(total), ":t": inum(d.s.opts.Clock())})
		cancel()
		if o != nil {
			o.maybe = false // numbers that were drawn and lost are sealed by a reader
		}
		next := getNum(got, "feed_last") - uint64(total) + 1
		for _, w := range batch {
			w.first, w.o = next, o
			next += uint64(w.n)
			close(w.done)
		}
	}
}

// feedTTL is how long an item of the feed stays: longer than forgetAfter, which moves the floor first.
const (
	forgetAfter = 48 * time.Hour
	feedTTL     = 96 * time.Hour
)

// changeItem is the item of a change. A reference counts only if its chunk was committed with its number.
func (s *Store) changeItem(seq uint64, ch *terse.Change, reference bool, chunk chunkID) item {
	k := changeKey(seq)
	now := s.opts.Clock()
	it := k.item()
	it["change"] = num(ch.Kind)
	it["workspace"] = num(ch.Workspace)
	it["at"] = inum(now)
	it[attrTTL] = inum(int64(now)/1000 + int64(feedTTL.Seconds()))
	it["link_version"] = num(ch.Version)
	if ch.Kind == terse.ChangeDocument {
		it["document_kind"], it["document"] = str(string(ch.DocKind)), str(ch.DocID)
	} else {
		it["runs"] = bin(appendRuns(nil, ch.Runs))
	}
	if reference {
		it["chunk_id"] = chunk.value()
	}
	return it
}

func (s *Store) sealItem(seq uint64) item {
	now := s.opts.Clock()
	it := changeKey(seq).item()
	it["sealed"], it["at"] = yes(), inum(now)
	it[attrTTL] = inum(int64(now)/1000 + int64(feedTTL.Seconds()))
	return it
}

func readChange(seq uint64, it item) (terse.Change, error) {
	ch := terse.Change{
		Seq: seq, Kind: terse.ChangeKind(getNum(it, "change")), Workspace: terse.WorkspaceID(getNum(it, "workspace")),
		At: terse.Millis(getInt(it, "at")), Version: getNum(it, "link_version"),
		DocKind: terse.Kind(getStr(it, "document_kind")), DocID: getStr(it, "document"),
	}
	if ch.Kind == terse.ChangeDocument {
		return ch, nil
	}
	var err error
	ch.Runs, err = parseRuns(getBin(it, "runs"))
	return ch, err
}

// nothing is what a seal reads as.
func nothing(seq uint64, it item) terse.Change {
	return terse.Change{Seq: seq, Kind: terse.ChangeInserted, At: terse.Millis(getInt(it, "at"))}
}

// appendRuns writes runs as pairs of varints: the distance to the end of the run before, and the count.
func appendRuns(dst []byte, runs []terse.Run) []byte {
	var end uint64
	for _, r := range runs {
		dst = binary.AppendUvarint(dst, uint64(r.First)-end)
		dst = binary.AppendUvarint(dst, r.Count)
		end = uint64(r.First) + r.Count
	}
	return dst
}

func parseRuns(b []byte) ([]terse.Run, error) {
	var runs []terse.Run
	var end uint64
	for len(b) > 0 {
		gap, n := binary.Uvarint(b)
		if n <= 0 {
			return nil, damaged("runs", errRuns)
		}
		count, m := binary.Uvarint(b[n:])
		if m <= 0 {
			return nil, damaged("runs", errRuns)
		}
		first := end + gap
		if first < end || count > 1<<63 || first+count < first || first+count > 1<<63 {
			return nil, damaged("runs", errRuns)
		}
		runs = append(runs, terse.Run{First: terse.LinkNumber(first), Count: count})
		end = first + count
		b = b[n+m:]
	}
	return runs, nil
}

// commit writes one transaction: the operations that build returns and an item of the feed
// for each change. build is called before every attempt, after the numbers were drawn. An outcome of
// class condition is about the operations, whose positions failed gives.
func (s *Store) commit(ctx context.Context, changes []terse.Change, build func() ([]types.TransactWriteItem, *outcome)) *outcome {
	for {
		first, o := s.feed.draw(ctx, len(changes))
		if o != nil {
			return o
		}
		ops, o := build()
		if o != nil {
			s.resolve(ctx, first, len(changes), o)
			return o
		}
		n := len(ops)
		for i := range changes {
			ops = append(ops, s.putOp(s.changeItem(first+uint64(i), &changes[i], false, chunkID{}), isFree, nil))
		}
		o = s.transact(ctx, ops)
		if o == nil {
			return nil
		}
		if applied := s.resolve(ctx, first, len(changes), o); applied {
			return nil
		}
		if o.class == condition && onlySealed(failed(o.err), n) {
			continue // a reader was faster
		}
		return o
	}
}

// onlySealed reports whether no condition but those of the feed's items, which come from n on, failed.
func onlySealed(positions []int, n int) bool {
	for _, p := range positions {
		if p < n {
			return false
		}
	}
	return len(positions) > 0
}

// resolve finds out whether a commit that failed was applied after all: the item under its first number is
// the witness. Where there is none it puts a seal, after which the commit cannot be applied any
// more. If the caller does not wait any longer, that goes on behind its back, and an outcome that
// may be applied stays so.
func (s *Store) resolve(ctx context.Context, first uint64, n int, o *outcome) (applied bool) {
	if ctx.Err() != nil {
		s.goBackground(func(base context.Context) {
			ctx, cancel := context.WithTimeout(base, resolveTimeout)
			defer cancel()
			_, _ = s.sealOrFind(ctx, first, n)
		})
		return false
	}
	dctx, cancel := s.detached()
	defer cancel()
	applied, known := s.sealOrFind(dctx, first, n)
	if known {
		o.maybe = false
	}
	return applied
}

// sealOrFind seals the numbers of a commit, or finds that it was applied. known is false if the table
// did not answer.
func (s *Store) sealOrFind(ctx context.Context, first uint64, n int) (applied, known bool) {
	for i := range uint64(n) {
		o := s.putNew(ctx, s.sealItem(first+i))
		switch {
		case o == nil:
		case o.class != condition:
			return false, false
		case i == 0:
			it, o := s.getItem(ctx, changeKey(first))
			if o != nil {
				return false, false
			}
			if it != nil && !getBool(it, "sealed") {
				return true, true
			}
		}
	}
	return false, true
}
