package dynamostore

import (
	"context"
	"encoding/binary"
	"slices"
	"strings"

	"github.com/terselink/terse"
)

// Hints lead from a destination to the codes of plain links that have or had it. They are
// written before the links can be seen, so whoever sees a link finds it; what they name is
// verified by reading it, so a hint that is too much costs a read and nothing else.

const (
	codeSeparator = "\x00"    // no code holds it
	maxHintBytes  = 100 << 10 // of one hint, well below the 400 KB of an item
)

// hints returns the hints of the plain links of the chunk: one for each destination, or more if it
// has very many links. That of a single link
// in a small chunk is under its number, so that its deletion can delete it.
func (in *insertion) hints(chunk chunkID) []item {
	type group struct {
		first terse.LinkNumber
		codes []string
		bytes int
		part  int
	}
	groups := map[string]*group{}
	var out []item
	flush := func(pk string, g *group) {
		sk := be64(uint64(g.first))
		if len(g.codes) > 1 {
			sk = "m" + sk // of many: the deletion of the first leaves it
		}
		if chunk != (chunkID{}) {
			sk = hintSK(chunk, g.part)
		}
		it := key{pk, sk}.item()
		it["codes"] = bin([]byte(strings.Join(g.codes, codeSeparator)))
		out = append(out, it)
		g.codes, g.bytes = nil, 0
		g.part++
	}
	var order []string
	for i := range in.chunk.Links {
		l := &in.chunk.Links[i]
		if !l.Plain() {
			continue
		}
		pk := hintPK(l.Workspace, l.Number.Domain(), l.Destination)
		g := groups[pk]
		if g == nil {
			g = &group{}
			groups[pk] = g
			order = append(order, pk)
		}
		if g.bytes > maxHintBytes {
			flush(pk, g)
		}
		if len(g.codes) == 0 {
			g.first = l.Number
		}
		g.codes = append(g.codes, l.Code)
		g.bytes += len(l.Code) + 1
	}
	for _, pk := range order {
		flush(pk, groups[pk])
	}
	return out
}

func hintSK(chunk chunkID, part int) string {
	return string(binary.BigEndian.AppendUint16(chunk[:], uint16(part)))
}

// hintOf returns the hint of one plain link.
func hintOf(l *terse.Link) item {
	it := key{hintPK(l.Workspace, l.Number.Domain(), l.Destination), be64(uint64(l.Number))}.item()
	it["codes"] = bin([]byte(l.Code))
	return it
}

// FindPlain returns a plain link with the destination that has not ended.
func (s *Store) FindPlain(ctx context.Context, w terse.WorkspaceID, d terse.DomainID, destination string, at terse.Millis) (terse.Link, error) {
	const op = "find plain link"
	if err := s.enter(ctx, op); err != nil {
		return terse.Link{}, err
	}
	q := rangeQuery{pk: hintPK(w, d, destination)}
	for {
		page, next, o := s.query(ctx, q)
		if o != nil {
			return terse.Link{}, o.readErr(op)
		}
		var keys []key
		for _, it := range page {
			for code := range strings.SplitSeq(string(getBin(it, "codes")), codeSeparator) {
				keys = append(keys, linkKey(d, code))
			}
		}
		for part := range slices.Chunk(keys, maxBatchGet) {
			links, o, err := s.readLinks(ctx, part)
			if o != nil {
				return terse.Link{}, o.readErr(op)
			}
			if err != nil {
				return terse.Link{}, err
			}
			for _, l := range links {
				if l.Number != 0 && l.Workspace == w && l.Destination == destination && l.Plain() && !l.ExpiredAt(at) {
					return l, nil
				}
			}
		}
		if next == nil {
			return terse.Link{}, terse.ErrNotFound
		}
		q.start = next
	}
}
