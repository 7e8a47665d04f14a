package dynamostore

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/sleep"
)

// insertion is a chunk on its way into the table.
type insertion struct {
	s     *Store
	chunk *terse.Chunk
	// mu guards held and over while transactions run in parallel.
	mu sync.RWMutex
	// held are the indexes that the chunk wants to reserve and that are reserved already.
	held map[terse.LinkNumber]bool
	// over are the chunks that were given up and whose items may be overwritten.
	over []chunkID
	// shards is how many shards of the index each workspace uses for this chunk.
	shards int
	counts map[countKey]int64
}

type countKey struct {
	w terse.WorkspaceID
	c terse.CampaignID
}

// maxTries bounds how often an insert that met others is begun again.
const maxTries = 50

// maxDocuments is the most documents of a chunk: each takes two operations of a transaction.
const maxDocuments = 45

// InsertLinks inserts the chunk or nothing: as one transaction if it fits into one, else under a marker.
func (s *Store) InsertLinks(ctx context.Context, chunk *terse.Chunk) error {
	const op = "insert links"
	if err := checkChunk(chunk); err != nil {
		return err
	}
	if err := s.enter(ctx, op); err != nil {
		return err
	}
	if len(chunk.Links) == 0 && len(chunk.Documents) == 0 {
		return nil
	}
	in := &insertion{s: s, chunk: chunk, shards: s.shardsFor(len(chunk.Links))}
	if rows := conflicts(chunk.Links, &facts{}); len(rows) > 0 { // within the chunk
		return in.judge(ctx, chunkID{})
	}
	if err := in.prepare(ctx); err != nil {
		return err
	}
	large := in.operations() > maxTransact || in.bytes() > maxBytes
	for range maxTries {
		var o *outcome
		var err error
		if large {
			o, err = in.large(ctx)
		} else {
			o, err = in.small(ctx)
		}
		switch {
		case err != nil:
			return err
		case o == nil:
			s.counters.links.Add(uint64(len(chunk.Links)))
			return nil
		case !o.is(condition) || o.maybe:
			return o.writeErr(op)
		}
		if err := in.judge(ctx, chunkID{}); err != nil {
			return err
		}
		if err := sleep.For(ctx, rand.N(backoff)); err != nil {
			return &terse.Error{Code: terse.CodeUnavailable, Message: "the call was cancelled", Op: op, Err: err}
		}
	}
	return &terse.Error{Code: terse.CodeUnavailable, Message: "too many writers contend for the same links", Op: op}
}

// checkChunk refuses what no caller may send, whatever the store holds.
func checkChunk(chunk *terse.Chunk) error {
	for i := range chunk.Links {
		l := &chunk.Links[i]
		switch {
		case l.Number == 0:
			return terse.Invalid("number", "link %d of the chunk has no number", i)
		case l.Code == "":
			return terse.Invalid("code", "link %d of the chunk has no code to be found by", i)
		case l.Reserves != 0 && (l.Number.Space() != terse.AliasSpace || l.Reserves.Domain() != l.Number.Domain() || l.Reserves.Space() == terse.AliasSpace):
			return terse.Invalid("reserves", "link %d of the chunk reserves what only an alias of that domain could", i)
		}
	}
	if len(chunk.Documents) > maxDocuments {
		return terse.Invalid("documents", "at most %d in a chunk", maxDocuments)
	}
	seen := map[key]struct{}{}
	for i := range chunk.Documents {
		d := &chunk.Documents[i]
		if err := checkDocument(d); err != nil {
			return err
		}
		k := documentKey(d.Workspace, d.Kind, d.ID)
		if _, ok := seen[k]; ok {
			return terse.Invalid("documents", "the chunk puts a document twice")
		}
		seen[k] = struct{}{}
	}
	return nil
}

// prepare reads and writes what must be there before the links.
func (in *insertion) prepare(ctx context.Context) error {
	const op = "insert links"
	var reserving []key
	in.counts = map[countKey]int64{}
	workspaces := map[terse.WorkspaceID]struct{}{}
	for i := range in.chunk.Links {
		l := &in.chunk.Links[i]
		workspaces[l.Workspace] = struct{}{}
		if l.Reserves != 0 {
			reserving = append(reserving, reservationKey(l.Reserves))
		}
		if l.Campaign != 0 {
			in.counts[countKey{l.Workspace, l.Campaign}]++
		}
	}
	for w := range workspaces {
		if o := in.s.useShards(ctx, w, in.shards); o != nil {
			return o.readErr(op)
		}
	}
	in.held = map[terse.LinkNumber]bool{}
	if len(reserving) == 0 {
		return nil
	}
	f, err := in.read(ctx, reserving, chunkID{})
	if err != nil {
		return err
	}
	for i := range in.chunk.Links {
		if n := in.chunk.Links[i].Reserves; n != 0 && f.there[reservationKey(n)] {
			in.held[n] = true
		}
	}
	return nil
}

// slots is how many operations the link takes, spaces not counted.
func (in *insertion) slots(l *terse.Link) int {
	switch {
	case !l.Named():
		return 1
	case l.Reserves != 0 && !in.held[l.Reserves]:
		return 4 // itself, its number, the reservation, the space
	}
	return 2
}

// operations is how many operations one transaction for everything would have, at most.
func (in *insertion) operations() int {
	n := 2*len(in.chunk.Documents) + len(in.counts) + len(in.changes())
	for i := range in.chunk.Links {
		n += in.slots(&in.chunk.Links[i])
	}
	return n
}

// linkBytes estimates the size of a link in a request.
func linkBytes(l *terse.Link) int {
	n := 400 + len(l.Code) + len(l.Destination) + len(l.Values) + len(l.ExternalID)
	if l.Settings != nil {
		n += 2000 + len(l.Settings.Title) + len(l.Settings.ExpiredDestination)
		for k, v := range l.Settings.Metadata {
			n += len(k) + len(v)
		}
		for _, r := range l.Settings.Rules {
			n += 1000 + len(r.Destination)
			for _, v := range r.Variants {
				n += len(v.Destination)
			}
		}
	}
	return n
}

func (in *insertion) bytes() int {
	n := 0
	for i := range in.chunk.Links {
		n += linkBytes(&in.chunk.Links[i])
	}
	for i := range in.chunk.Documents {
		n += len(in.chunk.Documents[i].Data)
	}
	return n
}

// small writes the chunk as one transaction.
func (in *insertion) small(ctx context.Context) (*outcome, error) {
	s := in.s
	hinted := make(chan *outcome, 1)
	hints := in.hints(chunkID{})
	if len(hints) > 0 {
		s.background.Go(func() { hinted <- s.putItems(ctx, hints) })
	} else {
		hinted <- nil
	}
	all := make([]int, len(in.chunk.Links))
	for i := range all {
		all[i] = i
	}
	var failedAt error
	o := s.commit(ctx, in.changes(), func() ([]types.TransactWriteItem, *outcome) {
		// The hints must be there before the links are.
		o := <-hinted
		hinted <- o
		if o != nil {
			return nil, &outcome{class: o.class, err: o.err}
		}
		ops, err := in.linkOps(all, chunkID{})
		if err != nil {
			failedAt = err
			return nil, &outcome{class: refused, err: err}
		}
		for i := range in.chunk.Documents {
			ops = append(ops, s.documentOp(&in.chunk.Documents[i]))
		}
		for k, n := range in.counts {
			ops = append(ops, s.countOp(k, n))
		}
		return ops, nil
	})
	return o, failedAt
}

// linkOps returns the operations that put the links of the given rows.
func (in *insertion) linkOps(rows []int, chunk chunkID) ([]types.TransactWriteItem, error) {
	s := in.s
	in.mu.RLock()
	defer in.mu.RUnlock()
	free, values := in.isFree()
	ops := make([]types.TransactWriteItem, 0, len(rows)+4)
	put := func(it item) { ops = append(ops, s.putOp(it, free, values)) }
	least := map[key]uint64{} // of the indexes that are reserved in a space
	reserved := map[terse.LinkNumber]bool{}
	for _, i := range rows {
		l := &in.chunk.Links[i]
		it, err := s.linkItem(l, shardPK(l.Workspace, shardOf(l.Number, in.shards)), chunk)
		if err != nil {
			return nil, err
		}
		put(it)
		if !l.Named() {
			continue
		}
		it = numberKey(l.Number).item()
		it["code"] = str(l.Code)
		setChunk(it, chunk)
		put(it)
		if n := l.Reserves; n != 0 && !in.held[n] && !reserved[n] {
			reserved[n] = true
			it = reservationKey(n).item()
			setChunk(it, chunk)
			put(it)
			k := spaceKey(n.Domain(), n.Space())
			if old, ok := least[k]; !ok || n.Index() < old {
				least[k] = n.Index()
			}
		}
	}
	for k, index := range least {
		cond := "attribute_not_exists(next_index) OR next_index <= :i"
		ops = append(ops, types.TransactWriteItem{ConditionCheck: &types.ConditionCheck{
			TableName: &s.opts.Table, Key: k.item(), ConditionExpression: &cond, ExpressionAttributeValues: item{":i": num(index)},
		}})
	}
	return ops, nil
}

func setChunk(it item, chunk chunkID) {
	if chunk != (chunkID{}) {
		it["chunk_id"] = chunk.value()
	}
}

// isFree is the condition that a key is free, or holds what was given up.
func (in *insertion) isFree() (string, item) {
	if len(in.over) == 0 {
		return isFree, nil
	}
	cond, values := isFree+" OR chunk_id IN (", item{}
	for i, id := range in.over {
		name := ":o" + string(rune('a'+i))
		if i > 0 {
			cond += ", "
		}
		cond += name
		values[name] = id.value()
	}
	return cond + ")", values
}

// maxRuns bounds the runs of one change, whose item must stay below 400 KB.
const maxRuns = 20_000

// changes returns what the feed says about the chunk: for each workspace its links, then the documents.
func (in *insertion) changes() []terse.Change {
	numbers := map[terse.WorkspaceID][]terse.LinkNumber{}
	for i := range in.chunk.Links {
		l := &in.chunk.Links[i]
		numbers[l.Workspace] = append(numbers[l.Workspace], l.Number)
	}
	workspaces := make([]terse.WorkspaceID, 0, len(numbers))
	for w := range numbers {
		workspaces = append(workspaces, w)
	}
	slices.Sort(workspaces)
	var out []terse.Change
	for _, w := range workspaces {
		slices.Sort(numbers[w])
		for part := range slices.Chunk(runs(numbers[w]), maxRuns) {
			out = append(out, terse.Change{Kind: terse.ChangeInserted, Workspace: w, Version: 1, Runs: part})
		}
	}
	for i := range in.chunk.Documents {
		out = append(out, documentChange(&in.chunk.Documents[i]))
	}
	return out
}

// runs joins ascending numbers into runs.
func runs(numbers []terse.LinkNumber) []terse.Run {
	var out []terse.Run
	for _, n := range numbers {
		if k := len(out) - 1; k >= 0 && out[k].First+terse.LinkNumber(out[k].Count) == n {
			out[k].Count++
			continue
		}
		out = append(out, terse.Run{First: n, Count: 1})
	}
	return out
}
