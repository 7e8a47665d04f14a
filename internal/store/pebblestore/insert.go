package pebblestore

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/failpoint"
)

const (
	// minBlock is the fewest links worth a block.
	minBlock = 16
	// preciseLimit is the largest chunk whose numbers are checked one by one with
	// point reads, which bloom filters answer, instead of range seeks.
	preciseLimit = 16
	// queueMin is the smallest chunk that is indexed later, from the queue.
	queueMin = 64
)

// insertState is the part of an op that inserts links. Its slices keep their room
// from chunk to chunk.
type insertState struct {
	order     []int32    // positions in the chunk, ascending by number
	rows      []rowRef   // links stored as rows
	blocks    []blockRef // links stored in blocks
	spans     []span     // all numbers of the chunk
	aliases   []aliasRef
	documents []documentRef
	keys      []byte // keys of aliases and documents
	conflicts []int  // positions in the chunk
	precise   bool   // check number by number
	twins     bool   // links of the chunk meet each other
	queue     bool   // the chunk is indexed later, from the queue
	queued    int64  // entries of the index queue

	enc       blockEncoder
	blockRows [blockSize]blockRow
	key       []byte
	value     []byte
	runs      []terse.Run
}

type rowRef struct {
	number   terse.LinkNumber
	position int32
}

type blockRef struct {
	first  terse.LinkNumber
	bitmap uint64
	at     int32 // where its links start in order
}

// span is the numbers from first to last.
type span struct{ first, last terse.LinkNumber }

type aliasRef struct {
	key, end int // in keys
	reserves terse.LinkNumber
	position int32
}

type documentRef struct {
	key, end int // in keys
	version  uint64
}

func (in *insertState) reset() {
	in.order, in.rows, in.blocks, in.spans = in.order[:0], in.rows[:0], in.blocks[:0], in.spans[:0]
	in.aliases, in.documents, in.keys, in.conflicts = in.aliases[:0], in.documents[:0], in.keys[:0], in.conflicts[:0]
	in.precise, in.twins, in.queue, in.queued = false, false, false, 0
	// Links belong to the caller: keep none of them alive.
	clear(in.blockRows[:])
	in.enc.settings = settingsCache{}
}

// againError asks InsertLinks to encode the chunk again, because the quick check found something
// near its numbers, or because blocks exist where the chunk has some.
type againError struct{ existing []terse.LinkNumber }

func (*againError) Error() string { return "the chunk must be encoded again" }

// InsertLinks implements terse.Store.
func (s *Store) InsertLinks(ctx context.Context, chunk *terse.Chunk) (err error) {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave(&err)
	if len(chunk.Links) == 0 && len(chunk.Documents) == 0 {
		return nil
	}
	for i := range chunk.Links {
		if err := checkLink(&chunk.Links[i]); err != nil {
			return err
		}
	}
	for i := range chunk.Documents {
		d := &chunk.Documents[i]
		if err := checkDocument(d); err != nil {
			return err
		}
		if slices.ContainsFunc(chunk.Documents[:i], func(e terse.Document) bool {
			return e.Workspace == d.Workspace && e.Kind == d.Kind && e.ID == d.ID
		}) {
			return terse.Invalid("documents", "the chunk puts a document twice")
		}
	}
	precise := len(chunk.Links) <= preciseLimit
	var existing []terse.LinkNumber // blocks of fresh numbers are never removed, so this grows and the loop ends
	for {
		var o *op
		if len(chunk.Links) >= queueMin {
			o = s.newChunkOp()
		} else {
			o = s.newOp()
		}
		o.check = (*Store).checkInsert
		o.insert.precise = precise
		if err := s.encodeInsert(o, chunk, existing); err != nil {
			s.free(o)
			return err
		}
		err := s.submit(ctx, o)
		again, ok := errors.AsType[*againError](err)
		if !ok {
			if err == nil {
				s.counters.links.Add(uint64(len(chunk.Links)))
			}
			return err
		}
		precise = true
		existing = append(existing, again.existing...)
	}
}

// checkLink refuses what could not be stored or read again. Rules about links are not its business.
func checkLink(l *terse.Link) error {
	switch n := l.Number; {
	case n == 0 || n>>63 != 0:
		return terse.Invalid("number", "out of range")
	case l.Named() && l.Code == "":
		return terse.Invalid("code", "a link that is found by its code must have one")
	case l.Workspace > 1<<31-1:
		return terse.Invalid("workspace", "out of range")
	case l.Campaign > 1<<63-1:
		return terse.Invalid("campaign", "out of range")
	case l.Reserves != 0 && (n.Space() != terse.AliasSpace || l.Reserves.Space() == terse.AliasSpace || l.Reserves.Domain() != n.Domain()):
		return terse.Invalid("reserves", "only an alias reserves, and only generated codes of its domain")
	}
	return nil
}

// encodeInsert fills the op with everything that the chunk writes.
// Hot path: no allocation that grows with the chunk, see TestInsertAllocs.
func (s *Store) encodeInsert(o *op, chunk *terse.Chunk, existing []terse.LinkNumber) error {
	in := &o.insert
	links := chunk.Links
	ascending, uniform := true, true
	for i := range links {
		in.order = append(in.order, int32(i))
		if i > 0 {
			ascending = ascending && links[i-1].Number < links[i].Number
			uniform = uniform && links[i-1].Workspace == links[i].Workspace && links[i-1].Campaign == links[i].Campaign
		}
	}
	if !ascending {
		slices.SortStableFunc(in.order, func(a, b int32) int { return cmp.Compare(links[a].Number, links[b].Number) })
	}
	sameWorkspace := uniform || !slices.ContainsFunc(links, func(l terse.Link) bool { return l.Workspace != links[0].Workspace })

	for at := 0; at < len(in.order); {
		end, tagged := at+1, 0
		first := blockOf(links[in.order[at]].Number)
		for ; end < len(in.order) && blockOf(links[in.order[end]].Number) == first; end++ {
		}
		named := false
		for _, p := range in.order[at:end] {
			if links[p].Code != "" {
				tagged++
			}
			named = named || links[p].Named()
		}
		group := in.order[at:end]
		packed := false
		if len(group) >= minBlock && sameWorkspace && !named &&
			(tagged == 0 || tagged == len(group)) && in.covers(links, at, end, first) && !slices.Contains(existing, first) {
			var err error
			if packed, err = in.addBlock(o.batch, links, at, end, tagged != 0); err != nil {
				return err
			}
		}
		if !packed {
			for _, p := range group {
				if err := in.addRow(o.batch, &links[p], p); err != nil {
					return err
				}
			}
		}
		at = end
	}
	in.addSpans(links)
	in.findTwins(links)
	if len(links) > 0 {
		in.queue = len(links) >= queueMin
		if err := s.logInsert(o, links, uniform); err != nil {
			return err
		}
	}
	failpoint.Hit(failpoint.ChunkHalf)
	return s.putDocuments(o, chunk.Documents)
}

// covers reports whether the group order[at:end] is all that will come of its run of numbers: the chunk goes
// on below and above it, or it reaches the edges. Only such a group may become a block;
// another chunk may still hold the rest of a run at the edge of this one.
func (in *insertState) covers(links []terse.Link, at, end int, first terse.LinkNumber) bool {
	// A chunk may come of several leases: what is far away says nothing about this run.
	goesOn := func(i, j int) bool {
		a, b := links[in.order[i]].Number, links[in.order[j]].Number
		return a>>terse.IndexBits == b>>terse.IndexBits && b-a <= blockSize
	}
	below := links[in.order[at]].Number == first || at > 0 && goesOn(at-1, at)
	above := links[in.order[end-1]].Number == first+blockSize-1 || end < len(in.order) && goesOn(end-1, end)
	return below && above
}

func (in *insertState) addBlock(b *pebble.Batch, links []terse.Link, at, end int, tags bool) (bool, error) {
	rows := in.blockRows[:0]
	for i, p := range in.order[at:end] {
		if i > 0 && links[in.order[at+i-1]].Number == links[p].Number {
			return false, nil // resolveTwins will name it
		}
		settings, err := in.enc.settings.encode(links[p].Settings)
		if err != nil {
			return false, err
		}
		rows = append(rows, blockRow{link: &links[p], settings: settings})
	}
	value, bitmap, ok := in.enc.append(in.value[:0], rows, tags)
	in.value = value
	if !ok {
		return false, nil
	}
	first := blockOf(rows[0].link.Number)
	in.key = appendNumberKey(in.key[:0], famBlock, first)
	if err := b.Set(in.key, value, nil); err != nil {
		return false, errBatch(err)
	}
	in.blocks = append(in.blocks, blockRef{first: first, bitmap: bitmap, at: int32(at)})
	return true, nil
}

func (in *insertState) addRow(b *pebble.Batch, l *terse.Link, position int32) error {
	settings, err := in.enc.settings.encode(l.Settings)
	if err != nil {
		return err
	}
	named := l.Named()
	x := rowExtra{settings: settings, hasTag: !named && l.Code != ""}
	if x.hasTag {
		x.tag = codeTag(l.Code)
	}
	in.value = appendRow(in.value[:0], l, x)
	in.key = appendNumberKey(in.key[:0], famRow, l.Number)
	if err := b.Set(in.key, in.value, nil); err != nil {
		return errBatch(err)
	}
	in.rows = append(in.rows, rowRef{l.Number, position})
	if !named {
		return nil
	}
	at := len(in.keys)
	in.keys = appendAliasKey(in.keys, l.Number.Domain(), l.Code)
	in.aliases = append(in.aliases, aliasRef{at, len(in.keys), l.Reserves, position})
	// The value is the number of the row's key.
	if err := b.Set(in.keys[at:], in.key[1:], nil); err != nil {
		return errBatch(err)
	}
	return nil
}

func (in *insertState) addSpans(links []terse.Link) {
	for _, p := range in.order {
		n := links[p].Number
		if last := len(in.spans) - 1; last >= 0 && n-in.spans[last].last <= 1 {
			in.spans[last].last = n
			continue
		}
		in.spans = append(in.spans, span{n, n})
	}
}

// findTwins asks for the precise check if links of the chunk meet each other.
func (in *insertState) findTwins(links []terse.Link) {
	for i := 1; i < len(in.order) && !in.twins; i++ {
		in.twins = links[in.order[i]].Number == links[in.order[i-1]].Number
	}
	if len(in.aliases) > 1 {
		slices.SortFunc(in.aliases, func(a, b aliasRef) int { return bytes.Compare(in.alias(a), in.alias(b)) })
		for i := 1; i < len(in.aliases) && !in.twins; i++ {
			in.twins = bytes.Equal(in.alias(in.aliases[i-1]), in.alias(in.aliases[i]))
		}
	}
	in.precise = in.precise || in.twins
}

// alias returns the key of an alias.
func (in *insertState) alias(a aliasRef) []byte { return in.keys[a.key:a.end] }

// logInsert adds a change, a list entry and campaign entries for every workspace of the chunk.
func (s *Store) logInsert(o *op, links []terse.Link, uniform bool) error {
	in := &o.insert
	if uniform {
		return s.logWorkspace(o, links, in.order, links[0].Campaign != 0)
	}
	order := slices.Clone(in.order)
	slices.SortStableFunc(order, func(a, b int32) int { return cmp.Compare(links[a].Workspace, links[b].Workspace) })
	for len(order) > 0 {
		n := 1
		for n < len(order) && links[order[n]].Workspace == links[order[0]].Workspace {
			n++
		}
		if err := s.logWorkspace(o, links, order[:n], false); err != nil {
			return err
		}
		part := order[:n]
		order = order[n:]
		slices.SortStableFunc(part, func(a, b int32) int { return cmp.Compare(links[a].Campaign, links[b].Campaign) })
		for len(part) > 0 {
			n := 1
			for n < len(part) && links[part[n]].Campaign == links[part[0]].Campaign {
				n++
			}
			if c := links[part[0]].Campaign; c != 0 {
				o.logCampaign(links[part[0]].Workspace, c, 0, in.entry(links, part[:n]))
			}
			part = part[n:]
		}
	}
	return nil
}

// logWorkspace logs links of one workspace, in order; campaign says that all are of one campaign.
func (s *Store) logWorkspace(o *op, links []terse.Link, order []int32, campaign bool) error {
	in := &o.insert
	w := links[order[0]].Workspace
	e := in.entry(links, order)
	o.logChange(&terse.Change{Kind: terse.ChangeInserted, Workspace: w, At: s.opts.Clock(), Runs: e.runs, Version: 1})
	var prefix [16]byte
	o.beginLog(appendListPrefix(prefix[:0], w)...)
	o.logBuf = appendEntry(o.logBuf, e)
	o.endLog()
	if campaign {
		o.logCampaign(w, links[order[0]].Campaign, 0, e)
	}
	if in.queue {
		o.beginLog(famQueue)
		o.logBuf = appendRuns(o.logBuf, e.runs)
		o.endLog()
		in.queued++
		return nil
	}
	for _, p := range order {
		if err := setHints(o.batch, linkHints(&links[p])); err != nil {
			return err
		}
	}
	return nil
}

func (o *op) logCampaign(w terse.WorkspaceID, c terse.CampaignID, moved uint64, e entry) {
	e.moved = moved
	var prefix [16]byte
	o.beginLog(appendCampaignPrefix(prefix[:0], w, c)...)
	o.logBuf = appendEntry(o.logBuf, e)
	o.endLog()
}

// entry is the value of a list entry: the links of one write, and when they were created.
type entry struct {
	moved      uint64 // the version in which the one link came to the campaign; 0: created there
	from, last terse.Millis
	runs       []terse.Run
}

// entry describes links in order of number. Its runs are valid until the next call.
func (in *insertState) entry(links []terse.Link, order []int32) entry {
	e := entry{from: links[order[0]].CreatedAt, last: links[order[0]].CreatedAt, runs: in.runs[:0]}
	for _, p := range order {
		l := &links[p]
		e.from, e.last = min(e.from, l.CreatedAt), max(e.last, l.CreatedAt)
		if last := len(e.runs) - 1; last >= 0 && e.runs[last].First+terse.LinkNumber(e.runs[last].Count) == l.Number {
			e.runs[last].Count++
			continue
		}
		e.runs = append(e.runs, terse.Run{First: l.Number, Count: 1})
	}
	in.runs = e.runs
	return e
}

func appendEntry(dst []byte, e entry) []byte {
	dst = binary.AppendUvarint(dst, e.moved)
	dst = binary.AppendUvarint(dst, zigzag(int64(e.from)))
	dst = binary.AppendUvarint(dst, uint64(e.last-e.from))
	return appendRuns(dst, e.runs)
}

func decodeEntry(seq uint64, value []byte, runs []terse.Run) (entry, error) {
	d := decoder{b: value}
	e := entry{moved: d.uvarint(), from: terse.Millis(d.varint())}
	e.last = e.from + terse.Millis(d.uvarint())
	e.runs = d.runs(runs)
	if d.bad || len(d.b) != 0 {
		return entry{}, errDamaged("list entry", terse.LinkNumber(seq), "cut or too long")
	}
	return e, nil
}
