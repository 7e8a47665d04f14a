package dynamostore

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/sleep"
)

// A chunk of more than one transaction is written under a marker:
//
//  1. put the marker, which says pending;
//  2. put the links by transactions of up to 100 conditional puts, and hints and counts beside
//     them; every item names the marker, and readers look at the marker before they see it;
//  3. say committed in the marker, by one conditional write: a single update, or, if the chunk has
//     documents, a transaction with them.
//
// Anybody may say aborted instead, and one of the two comes first. What an aborted chunk has
// written is overwritten by whoever wants the keys, and cleared away by its writer or by
// maintenance.
//
// The feed: without documents the items of the feed are put before step 3 and refer to the marker, which
// then says with which numbers it was committed. A reader who meets a reference to a pending
// chunk takes the number away from it (void) after a while, as it seals a number that is missing.

// errAborted is the end of a chunk that somebody gave up.
var errAborted = errors.New("the chunk was given up by another writer")

// large writes the chunk under a marker.
func (in *insertion) large(ctx context.Context) (*outcome, error) {
	s := in.s
	id := newChunkID(s.opts.Clock())
	if o := s.putNew(ctx, in.marker(id)); o != nil {
		// Nothing hangs on a marker without links: it may be there or not.
		return &outcome{class: unsent, err: o.err}, nil
	}
	hinted := make(chan *outcome, 1)
	side := append(in.hints(id), in.countItems(id)...)
	go func() { hinted <- s.putItems(ctx, side) }()
	written, err := in.putAll(ctx, id)
	if o := <-hinted; err == nil && o != nil {
		err = o.readErr("insert links")
	}
	if err == nil {
		var o *outcome
		if o, err = in.decide(ctx, id); o == nil && err == nil {
			return nil, nil
		} else if o != nil && o.maybe {
			return o, nil
		} else if o != nil && o.class == condition { // of a document
			err = in.judgeDocuments(ctx)
			if err == nil {
				err = errAborted // it was met again meanwhile
			}
		} else if o != nil {
			err = o.readErr("insert links")
		}
	}
	s.goBackground(func(ctx context.Context) { in.giveUp(ctx, id, written, side) })
	if errors.Is(err, errAborted) {
		return &outcome{class: condition, err: err}, nil
	}
	return nil, err
}

// marker is the item that decides about the chunk. It is in the index while it is pending,
// with what maintenance needs to find the links.
func (in *insertion) marker(id chunkID) item {
	it := id.key().item()
	it["chunk_state"], it["links"] = num(pending), inum(len(in.chunk.Links))
	it[attrGPK], it[attrGSK] = str(pendingPK), id.value()
	var workspaces []terse.WorkspaceID
	from, to := in.chunk.Links[0].CreatedAt, in.chunk.Links[0].CreatedAt
	for i := range in.chunk.Links {
		l := &in.chunk.Links[i]
		if k := len(workspaces); k == 0 || workspaces[k-1] != l.Workspace {
			workspaces = append(workspaces, l.Workspace)
		}
		from, to = min(from, l.CreatedAt), max(to, l.CreatedAt)
	}
	slices.Sort(workspaces)
	var list []types.AttributeValue
	for _, w := range slices.Compact(workspaces) {
		list = append(list, num(w))
	}
	it["workspaces"] = &types.AttributeValueMemberL{Value: list}
	it["created_from"], it["created_to"] = inum(from), inum(to)
	return it
}

// groups divides the links into transactions: first those that are Named, where conflicts are
// found, then 100 at a time.
func (in *insertion) groups() (named, rest [][]int) {
	type open struct {
		rows         []int
		slots, bytes int
	}
	var n, r open
	add := func(list *[][]int, g *open, i, slots int) {
		size := linkBytes(&in.chunk.Links[i])
		if len(g.rows) > 0 && (g.slots+slots > maxTransact || g.bytes+size > maxBytes) {
			*list = append(*list, g.rows)
			*g = open{}
		}
		if g.rows == nil {
			g.rows = make([]int, 0, maxTransact)
		}
		g.rows = append(g.rows, i)
		g.slots += slots
		g.bytes += size
	}
	for i := range in.chunk.Links {
		if l := &in.chunk.Links[i]; l.Named() {
			add(&named, &n, i, in.slots(l))
		} else {
			add(&rest, &r, i, 1)
		}
	}
	if len(n.rows) > 0 {
		named = append(named, n.rows)
	}
	if len(r.rows) > 0 {
		rest = append(rest, r.rows)
	}
	return named, rest
}

// putAll writes all links, many transactions at once, and returns the groups that may be in the table.
func (in *insertion) putAll(ctx context.Context, id chunkID) (written [][]int, err error) {
	named, rest := in.groups()
	for _, groups := range [][][]int{named, rest} {
		var (
			next  atomic.Int64
			once  sync.Once
			wg    sync.WaitGroup
			stop  atomic.Bool
			tried = min(len(groups), in.s.opts.MaxConcurrency)
		)
		for range tried {
			wg.Go(func() {
				for !stop.Load() {
					i := int(next.Add(1)) - 1
					if i >= len(groups) {
						return
					}
					if e := in.putGroup(ctx, id, groups[i]); e != nil {
						stop.Store(true)
						once.Do(func() { err = e })
						return
					}
				}
			})
		}
		wg.Wait()
		written = append(written, groups[:min(int(next.Load()), len(groups))]...)
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

// putGroup writes one transaction of links.
func (in *insertion) putGroup(ctx context.Context, id chunkID, rows []int) error {
	const op = "insert links"
	s := in.s
	for range maxTries {
		ops, err := in.linkOps(rows, id)
		if err != nil {
			return err
		}
		o := s.transact(ctx, ops)
		if o == nil {
			return nil
		}
		if o.class != condition {
			// The marker is not committed, so whatever is written is nowhere to be seen.
			return o.readErr(op)
		}
		if o.maybe {
			// An attempt whose reply was lost may have been applied, all of it.
			it, o := s.getItem(ctx, linkKey(in.chunk.Links[rows[0]].Number.Domain(), in.chunk.Links[rows[0]].Code))
			if o != nil {
				return o.readErr(op)
			}
			if have, ok := getChunk(it); ok && have == id {
				return nil
			}
		}
		in.mu.Lock()
		conflict, err := in.inTheWay(ctx, id)
		in.mu.Unlock()
		if err != nil {
			return err
		}
		if len(conflict) > 0 {
			return &terse.AliasConflictError{Rows: conflict}
		}
		if err := sleep.For(ctx, rand.N(backoff)); err != nil {
			return &terse.Error{Code: terse.CodeUnavailable, Message: "the call was cancelled", Op: op, Err: err}
		}
	}
	return errAborted
}

// decide commits the chunk. An outcome of class condition is about a document.
func (in *insertion) decide(ctx context.Context, id chunkID) (*outcome, error) {
	s := in.s
	changes := in.changes()
	for {
		first, o := s.feed.draw(ctx, len(changes))
		if o != nil {
			return o, nil
		}
		if len(in.chunk.Documents) > 0 {
			o = s.transact(ctx, in.decision(id, first, changes))
		} else {
			o = in.decideByReference(ctx, id, first, changes)
		}
		if o == nil {
			s.states.put(id, chunkState{state: committed, first: first, count: uint64(len(changes))})
			return nil, nil
		}
		if ctx.Err() != nil && o.maybe {
			s.goBackground(func(ctx context.Context) { _ = s.abort(ctx, id) })
			return o, nil
		}
		dctx, cancel := s.detached()
		st, so := s.chunkState(dctx, id)
		if so == nil && st.state == pending && o.class != condition {
			// After this nothing that is under way can commit it.
			if so = s.abort(dctx, id); so == nil {
				st, so = s.chunkState(dctx, id)
			}
		}
		if so != nil {
			cancel()
			return o, nil
		}
		o.maybe = false
		if st.state != committed {
			_, _ = s.sealOrFind(dctx, first, len(changes))
		}
		cancel()
		switch {
		case st.state == committed:
			return nil, nil
		case o.class != condition:
			return o, nil
		case st.state == aborted:
			return nil, errAborted
		}
		// The number was taken away, or a document is in the way.
		if docs := failed(o.err); slices.ContainsFunc(docs, func(p int) bool { return p > 0 && p <= len(in.chunk.Documents) }) {
			return o, nil
		}
	}
}

// commitExpr and commitCond are the decision, as an update of the marker.
const (
	commitExpr = "SET chunk_state = :c, feed_first = :f, feed_count = :n REMOVE gpk, gsk"
	commitCond = "chunk_state = :p AND (attribute_not_exists(void_upto) OR void_upto < :f)"
)

func commitValues(first uint64, n int) item {
	return item{":c": num(committed), ":p": num(pending), ":f": num(first), ":n": inum(n)}
}

// decision is the transaction that commits a chunk with documents: marker, documents, feed.
func (in *insertion) decision(id chunkID, first uint64, changes []terse.Change) []types.TransactWriteItem {
	s := in.s
	ops := []types.TransactWriteItem{s.updateOp(id.key(), commitExpr, commitCond, commitValues(first, len(changes)))}
	for i := range in.chunk.Documents {
		ops = append(ops, s.documentOp(&in.chunk.Documents[i]))
	}
	for i := range changes {
		ops = append(ops, s.putOp(s.changeItem(first+uint64(i), &changes[i], false, chunkID{}), isFree, nil))
	}
	return ops
}

// decideByReference commits a chunk without a transaction.
func (in *insertion) decideByReference(ctx context.Context, id chunkID, first uint64, changes []terse.Change) *outcome {
	s := in.s
	for i := range changes {
		o := s.putNew(ctx, s.changeItem(first+uint64(i), &changes[i], true, id))
		if o != nil && o.class == condition && o.maybe {
			it, ro := s.getItem(ctx, changeKey(first+uint64(i)))
			if have, ok := getChunk(it); ro == nil && ok && have == id {
				o = nil // the attempt whose reply was lost
			}
		}
		if o != nil {
			o.maybe = false // a reference decides nothing
			return o
		}
	}
	_, o := s.update(ctx, id.key(), commitExpr, commitCond, nil, commitValues(first, len(changes)))
	return o
}

// abortedTTL is how long the marker of a chunk that was given up stays: long after its items are cleared away.
const abortedTTL = 30 * 24 * time.Hour

// abort gives a chunk up, unless it is decided already.
func (s *Store) abort(ctx context.Context, id chunkID) *outcome {
	_, o := s.update(ctx, id.key(), "SET chunk_state = :a, #ttl = :t REMOVE gpk, gsk", "chunk_state = :p", map[string]string{"#ttl": attrTTL},
		item{":a": num(aborted), ":p": num(pending), ":t": inum(int64(s.opts.Clock())/1000 + int64(abortedTTL.Seconds()))})
	if o.is(condition) {
		return nil
	}
	if o == nil {
		s.counters.abandoned.Add(1)
		s.states.put(id, chunkState{state: aborted})
	}
	return o
}
