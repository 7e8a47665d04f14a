package memstore

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/terselink/terse"
)

// dumped is one thing of a dump, under a key that gives the order.
type dumped struct {
	key string
	add func(*terse.Part)
}

// Dump implements terse.Portable. The cursor is the key of the last thing.
func (s *Store) Dump(ctx context.Context, after string, limit int) (terse.Part, error) {
	if limit < 1 || limit > maxPage {
		return terse.Part{}, terse.Invalid("limit", "must be 1 to %d", maxPage)
	}
	last, err := hex.DecodeString(after)
	if err != nil || len(last) > 0 && !strings.Contains("dnrx", string(last[:1])) {
		return terse.Part{}, terse.Invalid("after", "not a cursor of this store")
	}
	if err := s.enter(ctx, "dump"); err != nil {
		return terse.Part{}, err
	}
	defer s.mu.Unlock()
	var all []dumped
	for k, d := range s.docs {
		all = append(all, dumped{fmt.Sprintf("d%08x%02x%s%s", k.workspace, len(k.kind), k.kind, k.id), func(p *terse.Part) {
			d.Data = slices.Clone(d.Data)
			p.Documents = append(p.Documents, d)
		}})
	}
	for k, next := range s.next {
		all = append(all, dumped{fmt.Sprintf("n%08x%02x", k.domain, k.space), func(p *terse.Part) {
			p.Counters = append(p.Counters, terse.Counter{Domain: k.domain, Space: k.space, Next: next})
		}})
	}
	for _, n := range s.reserved {
		all = append(all, dumped{fmt.Sprintf("r%016x", uint64(n)), func(p *terse.Part) { p.Reserved = append(p.Reserved, n) }})
	}
	for k, n := range s.aliases {
		if _, live := s.links[n]; !live {
			all = append(all, dumped{fmt.Sprintf("x%08x%s", k.domain, k.alias), func(p *terse.Part) {
				p.Retired = append(p.Retired, terse.RetiredCode{Number: n, Code: k.alias})
			}})
		}
	}
	slices.SortFunc(all, func(a, b dumped) int { return strings.Compare(a.key, b.key) })
	i := 0
	if after != "" {
		i, _ = slices.BinarySearchFunc(all, string(last)+"\x00", func(d dumped, key string) int { return strings.Compare(d.key, key) })
	}
	var part terse.Part
	end := min(i+limit, len(all))
	for _, d := range all[i:end] {
		d.add(&part)
	}
	if end < len(all) {
		part.Next = hex.EncodeToString([]byte(all[end-1].key))
	}
	return part, nil
}

// DumpLinks implements terse.Portable.
func (s *Store) DumpLinks(ctx context.Context, w terse.WorkspaceID, after string, limit int) (terse.LinkPage, error) {
	if limit < 1 || limit > maxPage {
		return terse.LinkPage{}, terse.Invalid("limit", "must be 1 to %d", maxPage)
	}
	from, err := parseCursor(after)
	if err != nil {
		return terse.LinkPage{}, err
	}
	if err := s.enter(ctx, "dump links"); err != nil {
		return terse.LinkPage{}, err
	}
	defer s.mu.Unlock()
	order := s.order[w]
	i, found := slices.BinarySearchFunc(order, from, compareEntries)
	if found {
		i++
	}
	var page terse.LinkPage
	for ; i < len(order); i++ {
		l, ok := s.links[order[i].number]
		if !ok {
			continue
		}
		if len(page.Links) == limit {
			page.Next = formatCursor(from)
			break
		}
		page.Links = append(page.Links, clone(&l))
		from = order[i]
	}
	return page, nil
}

// Load implements terse.Portable.
func (s *Store) Load(ctx context.Context, part *terse.Part) error {
	for i := range part.Documents {
		if err := checkDocument(&part.Documents[i]); err != nil {
			return err
		}
	}
	if err := s.enter(ctx, "load"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	for i := range part.Documents {
		d := part.Documents[i]
		old, ok := s.docs[keyOf(&d)]
		if ok && (old.Version != d.Version || string(old.Data) != string(d.Data)) {
			return terse.ErrExists
		}
		d.Kind, d.ID, d.Data = terse.Kind(strings.Clone(string(d.Kind))), strings.Clone(d.ID), slices.Clone(d.Data)
		s.docs[keyOf(&d)] = d
	}
	for _, n := range part.Reserved {
		if i, ok := slices.BinarySearch(s.reserved, n); !ok {
			s.reserved = slices.Insert(s.reserved, i, n)
		}
	}
	for _, r := range part.Retired {
		key := aliasKey{r.Number.Domain(), strings.Clone(r.Code)}
		old, taken := s.aliases[key]
		if _, live := s.links[old]; taken && (live || old != r.Number) {
			return terse.ErrExists
		}
		s.aliases[key] = r.Number
	}
	return nil
}
