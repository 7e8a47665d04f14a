package storecopy

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"

	"github.com/cespare/xxhash/v2"
	"github.com/go-json-experiment/json"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/domains"
)

// Pages of reading. Parts are smaller, for documents may be large.
const (
	partSize = 1_000
	pageSize = 10_000
)

// Tally is how many things there are, and the sum of their digests, which does not depend on their order.
type Tally struct{ N, Digest uint64 }

func (t *Tally) add(digest uint64) {
	t.N++
	t.Digest += digest
}

// Survey is what a store holds.
type Survey struct {
	Kinds    map[terse.Kind]Tally     // documents
	Links    map[terse.DomainID]Tally // by domain
	Counters Tally
	Reserved Tally
	Retired  Tally

	workspaces map[terse.WorkspaceID]struct{}
	domains    []terse.Document
	state      *terse.Document // of a copy into this store
	sample     []terse.Link
	buf        []byte
}

// LinkCount returns the number of links.
func (v *Survey) LinkCount() uint64 {
	n := uint64(0)
	for _, t := range v.Links {
		n += t.N
	}
	return n
}

// DocumentCount returns the number of documents.
func (v *Survey) DocumentCount() uint64 {
	n := uint64(0)
	for _, t := range v.Kinds {
		n += t.N
	}
	return n
}

// digest is that of everything.
func (v *Survey) digest() uint64 {
	sum := v.Counters.Digest + v.Reserved.Digest + v.Retired.Digest
	for _, t := range v.Kinds {
		sum += t.Digest
	}
	for _, t := range v.Links {
		sum += t.Digest
	}
	return sum
}

// survey reads a whole store. It keeps a sample of links, and calls seen with their number now and then.
func survey(ctx context.Context, s terse.Portable, sample int, seen func(links uint64)) (*Survey, error) {
	v := &Survey{Kinds: map[terse.Kind]Tally{}, Links: map[terse.DomainID]Tally{}, workspaces: map[terse.WorkspaceID]struct{}{}}
	err := eachPart(ctx, s, "", func(p *terse.Part) error { v.addPart(p); return nil })
	if err != nil {
		return nil, err
	}
	n := uint64(0)
	random := rand.New(rand.NewPCG(1, 2)) // any links will do, and the same every time
	for _, w := range v.sortedWorkspaces() {
		err := eachPage(ctx, s, w, "", func(page *terse.LinkPage) error {
			for i := range page.Links {
				l := &page.Links[i]
				v.addLink(l)
				n++
				if len(v.sample) < sample {
					v.sample = append(v.sample, *l)
				} else if at := random.Uint64N(n); at < uint64(sample) {
					v.sample[at] = *l
				}
			}
			seen(n)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return v, nil
}

// eachPart calls f with every part of a dump after a place.
func eachPart(ctx context.Context, s terse.Portable, after string, f func(*terse.Part) error) error {
	for {
		var p terse.Part
		if err := again(ctx, func() (err error) { p, err = s.Dump(ctx, after, partSize); return err }); err != nil {
			return err
		}
		if err := f(&p); err != nil || p.Next == "" {
			return err
		}
		after = p.Next
	}
}

// eachPage calls f with every page of a workspace's links after a place, while the next one is read.
func eachPage(ctx context.Context, s terse.Portable, w terse.WorkspaceID, after string, f func(*terse.LinkPage) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		page terse.LinkPage
		err  error
	}
	pages := make(chan result, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(pages)
		for {
			var r result
			r.err = again(ctx, func() (err error) { r.page, err = s.DumpLinks(ctx, w, after, pageSize); return err })
			select {
			case pages <- r:
			case <-ctx.Done():
				return
			}
			if r.err != nil || r.page.Next == "" {
				return
			}
			after = r.page.Next
		}
	}()
	defer func() { cancel(); <-done }()
	for r := range pages {
		if r.err != nil {
			return r.err
		}
		if err := f(&r.page); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (v *Survey) sortedWorkspaces() []terse.WorkspaceID {
	return slices.Sorted(maps.Keys(v.workspaces))
}

// addPart counts a part. The documents of the copy itself, of the feed and of the instance are not a part of what is copied.
func (v *Survey) addPart(p *terse.Part) {
	for i := range p.Documents {
		d := &p.Documents[i]
		if isState(d) {
			v.state = d
			continue
		}
		if isOwn(d) {
			continue
		}
		t := v.Kinds[d.Kind]
		t.add(v.documentDigest(d))
		v.Kinds[d.Kind] = t
		v.workspaces[d.Workspace] = struct{}{}
		switch {
		case d.Workspace == 0 && d.Kind == terse.KindWorkspace:
			if w, err := terse.ParseWorkspaceID(d.ID); err == nil {
				v.workspaces[w] = struct{}{}
			}
		case d.Workspace == 0 && d.Kind == terse.KindDomain:
			v.domains = append(v.domains, *d)
		}
	}
	for _, c := range p.Counters {
		v.buf = binary.BigEndian.AppendUint64(append(v.buf[:0], 'n', byte(c.Space)), uint64(c.Domain)<<40|c.Next)
		v.Counters.add(xxhash.Sum64(v.buf))
		if c.Domain == 0 && c.Space == domains.WorkspaceCounter {
			for w := range c.Next { // every number that a workspace was ever given
				v.workspaces[terse.WorkspaceID(w)] = struct{}{}
			}
		}
	}
	for _, n := range p.Reserved {
		v.buf = binary.BigEndian.AppendUint64(append(v.buf[:0], 'r'), uint64(n))
		v.Reserved.add(xxhash.Sum64(v.buf))
	}
	for _, r := range p.Retired {
		v.buf = binary.BigEndian.AppendUint64(append(v.buf[:0], 'x'), uint64(r.Number))
		v.buf = append(v.buf, r.Code...)
		v.Retired.add(xxhash.Sum64(v.buf))
	}
}

func (v *Survey) documentDigest(d *terse.Document) uint64 {
	b := binary.BigEndian.AppendUint64(append(v.buf[:0], 'd'), uint64(d.Workspace))
	b = appendText(b, string(d.Kind))
	b = appendText(b, d.ID)
	b = binary.BigEndian.AppendUint64(b, d.Version)
	v.buf = append(b, d.Data...)
	return xxhash.Sum64(v.buf)
}

func (v *Survey) addLink(l *terse.Link) {
	b := append(v.buf[:0], 'l', byte(l.Status), byte(l.RedirectStatus>>8), byte(l.RedirectStatus), flags(l))
	for _, n := range []uint64{uint64(l.Number), uint64(l.Workspace), uint64(l.Campaign), l.Version, uint64(l.CreatedAt), uint64(l.UpdatedAt), uint64(l.ExpiresAt)} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	b = appendText(b, l.Destination)
	b = appendText(b, l.Values)
	b = appendText(b, l.ExternalID)
	if l.Named() { // not every engine keeps the code of others
		b = appendText(b, l.Code)
	}
	v.buf = append(b, canonical(l.Settings)...)
	t := v.Links[l.Number.Domain()]
	t.add(xxhash.Sum64(v.buf))
	v.Links[l.Number.Domain()] = t
}

func flags(l *terse.Link) byte {
	b := byte(0)
	if l.ByCode {
		b |= 1
	}
	if l.DefaultExpiry {
		b |= 2
	}
	return b
}

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// none is the canonical form of settings of which nothing is set.
var none = encode(&terse.LinkSettings{})

// canonical returns settings in a form in which nil and empty ones, and nil and empty lists, are alike.
func canonical(s *terse.LinkSettings) string {
	if s == nil {
		return ""
	}
	if text := encode(s); text != none {
		return text
	}
	return ""
}

func encode(s *terse.LinkSettings) string {
	b, err := json.Marshal(s, json.Deterministic(true))
	if err != nil { // text that is no UTF-8, which no link service lets in: it is compared as it prints
		return fmt.Sprintf("%+v", *s)
	}
	return string(b)
}
