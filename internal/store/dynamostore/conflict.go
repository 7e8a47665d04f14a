package dynamostore

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/sleep"
)

// facts are what the table holds of the keys of a chunk.
type facts struct {
	there map[key]bool   // items that count: of no chunk, or of a committed one
	next  map[key]uint64 // counters of spaces
}

// conflicts returns the links that are in the way of the chunk, ascending. A link is in the
// way if it could not be inserted after all links before it that are not.
func conflicts(links []terse.Link, f *facts) []int {
	var rows []int
	numbers := make(map[terse.LinkNumber]struct{}, len(links))
	names := make(map[key]struct{}, len(links))
	for i := range links {
		l := &links[i]
		k := linkKey(l.Number.Domain(), l.Code)
		_, number := numbers[l.Number]
		_, name := names[k]
		taken := number || name || f.there[k]
		if l.Named() {
			taken = taken || f.there[numberKey(l.Number)] || f.issued(l.Reserves)
		}
		if taken {
			rows = append(rows, i)
			continue
		}
		numbers[l.Number] = struct{}{}
		names[k] = struct{}{}
	}
	return rows
}

// issued reports whether the number that an alias would reserve has been leased to
// somebody. One that was reserved before it was leased has not.
func (f *facts) issued(n terse.LinkNumber) bool {
	return n != 0 && !f.there[reservationKey(n)] && n.Index() < f.next[spaceKey(n.Domain(), n.Space())]
}

// judge says why the chunk cannot go in: an *AliasConflictError, the error of a document, or an error
// of the reading. nil means that whatever was in the way is gone: the chunk may be tried
// again. self is the chunk that is writing, whose own items do not count.
func (in *insertion) judge(ctx context.Context, self chunkID) error {
	if rows, err := in.inTheWay(ctx, self); err != nil || len(rows) > 0 {
		if err != nil {
			return err
		}
		return &terse.AliasConflictError{Rows: rows}
	}
	return in.judgeDocuments(ctx)
}

func (in *insertion) inTheWay(ctx context.Context, self chunkID) ([]int, error) {
	var keys []key
	for i := range in.chunk.Links {
		l := &in.chunk.Links[i]
		keys = append(keys, linkKey(l.Number.Domain(), l.Code))
		if l.Named() {
			keys = append(keys, numberKey(l.Number))
		}
		if l.Reserves != 0 {
			keys = append(keys, reservationKey(l.Reserves), spaceKey(l.Reserves.Domain(), l.Reserves.Space()))
		}
	}
	f, err := in.read(ctx, keys, self)
	if err != nil {
		return nil, err
	}
	for i := range in.chunk.Links {
		if n := in.chunk.Links[i].Reserves; n != 0 {
			in.held[n] = f.there[reservationKey(n)]
		}
	}
	return conflicts(in.chunk.Links, f), nil
}

func (in *insertion) judgeDocuments(ctx context.Context) error {
	docs := in.chunk.Documents
	keys := make([]key, len(docs))
	for i := range docs {
		keys[i] = documentKey(docs[i].Workspace, docs[i].Kind, docs[i].ID)
	}
	found, o := in.s.getItems(ctx, keys)
	if o != nil {
		return o.readErr("insert links")
	}
	for i := range docs {
		if getNum(found[keys[i]], "document_version") != docs[i].Version-1 {
			return documentConflict(&docs[i])
		}
	}
	return nil
}

// read reads the keys, and waits for every large chunk that holds one of them to be decided.
func (in *insertion) read(ctx context.Context, keys []key, self chunkID) (*facts, error) {
	const op = "insert links"
	s := in.s
	if in.held == nil {
		in.held = map[terse.LinkNumber]bool{}
	}
	for {
		found, o := s.getItems(ctx, keys)
		if o != nil {
			return nil, o.readErr(op)
		}
		items := make([]item, 0, len(found))
		for _, it := range found {
			items = append(items, it)
		}
		states, o := s.chunkStates(ctx, items)
		if o != nil {
			return nil, o.readErr(op)
		}
		f := &facts{there: make(map[key]bool, len(found)), next: map[key]uint64{}}
		var contest []chunkID
		for k, it := range found {
			if _, ok := it["next_index"]; ok {
				f.next[k] = getNum(it, "next_index")
				continue
			}
			id, ok := getChunk(it)
			switch {
			case !ok || states[id].state == committed:
				f.there[k] = true
			case id == self:
			case states[id].state == aborted:
				in.mayOverwrite(id)
			default:
				contest = append(contest, id)
			}
		}
		if len(contest) == 0 {
			return f, nil
		}
		for _, id := range contest {
			if err := s.contest(ctx, self, id); err != nil {
				return nil, err
			}
		}
	}
}

// maxOver bounds the condition of a put; the oldest are forgotten and found again if need be.
const maxOver = 20

func (in *insertion) mayOverwrite(id chunkID) {
	for _, have := range in.over {
		if have == id {
			return
		}
	}
	if len(in.over) >= maxOver {
		in.over = in.over[1:]
	}
	in.over = append(in.over, id)
}

// contest returns when the other chunk is decided. Who is large and older gives the
// younger up; everybody else waits, so nobody waits in a circle. What has been undecided for
// Options.AbandonAfter is of a dead process, or of one that will begin again.
func (s *Store) contest(ctx context.Context, self, other chunkID) error {
	const op = "insert links"
	older := self != (chunkID{}) && string(self[:]) < string(other[:])
	pause := backoff
	for began := time.Now(); ; {
		if older || time.Since(began) > s.opts.AbandonAfter || s.abandoned(other) {
			if o := s.abort(ctx, other); o != nil {
				return o.readErr(op)
			}
			return nil
		}
		if err := sleep.For(ctx, pause/2+rand.N(pause/2)); err != nil {
			return &terse.Error{Code: terse.CodeUnavailable, Message: "the call was cancelled", Op: op, Err: err}
		}
		pause = min(2*pause, 10*backoff)
		if st, o := s.chunkState(ctx, other); o != nil {
			return o.readErr(op)
		} else if st.state != pending {
			return nil
		}
	}
}

// abandoned reports whether the chunk is too old to be under way.
func (s *Store) abandoned(id chunkID) bool {
	return int64(s.opts.Clock()-id.began()) > s.opts.AbandonAfter.Milliseconds()
}
