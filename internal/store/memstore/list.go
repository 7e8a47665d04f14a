package memstore

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/terselink/terse"
)

// maxPage is the largest page that the contract lets a caller ask for.
const maxPage = 10_000

// ListLinks walks the order of the workspace backwards from the cursor, which
// names the last place that was looked at.
func (s *Store) ListLinks(ctx context.Context, w terse.WorkspaceID, q terse.ListQuery) (terse.LinkPage, error) {
	if q.Limit < 1 || q.Limit > maxPage {
		return terse.LinkPage{}, terse.Invalid("limit", "must be 1 to %d", maxPage)
	}
	from, err := parseCursor(q.Cursor)
	if err != nil {
		return terse.LinkPage{}, err
	}
	if err := s.enter(ctx, "list links"); err != nil {
		return terse.LinkPage{}, err
	}
	defer s.mu.Unlock()

	order := s.order[w]
	i := len(order)
	if q.Cursor != "" {
		i, _ = slices.BinarySearchFunc(order, from, compareEntries)
	}
	var page terse.LinkPage
	for i--; i >= 0; i-- {
		l, ok := s.links[order[i].number]
		if !ok || !selects(&q, &l) {
			continue
		}
		page.Links = append(page.Links, clone(&l))
		if len(page.Links) == q.Limit {
			break
		}
	}
	if i > 0 {
		page.Next = formatCursor(order[i])
	}
	return page, nil
}

// CountLinks implements terse.Store. It looks at every link of the workspace, as engines that keep
// data must not.
func (s *Store) CountLinks(ctx context.Context, w terse.WorkspaceID, c terse.CampaignID) (uint64, error) {
	if err := s.enter(ctx, "count links"); err != nil {
		return 0, err
	}
	defer s.mu.Unlock()
	n := uint64(0)
	for _, e := range s.order[w] {
		if l, ok := s.links[e.number]; ok && l.Campaign == c {
			n++
		}
	}
	return n, nil
}

// PurgeLinks implements terse.Store.
func (s *Store) PurgeLinks(ctx context.Context, w terse.WorkspaceID, c terse.CampaignID, limit int) (int, error) {
	if limit < 1 || limit > maxPage {
		return 0, terse.Invalid("limit", "must be 1 to %d", maxPage)
	}
	if c == 0 {
		return 0, terse.Invalid("campaign", "links without a campaign cannot be purged")
	}
	if err := s.enter(ctx, "purge links"); err != nil {
		return 0, err
	}
	defer s.mu.Unlock()
	n := 0
	for _, e := range s.order[w] {
		if l, ok := s.links[e.number]; ok && l.Campaign == c && n < limit {
			s.removeLocked(&l)
			s.dead[l.Number] = struct{}{}
			n++
		}
	}
	return n, nil
}

// selects reports whether the link passes every filter of the query.
func selects(q *terse.ListQuery, l *terse.Link) bool {
	return (q.Domain == 0 || l.Number.Domain() == q.Domain) &&
		(q.Campaign == 0 || l.Campaign == q.Campaign) &&
		(q.ExternalID == "" || l.ExternalID == q.ExternalID) &&
		(q.Tag == "" || (l.Settings != nil && slices.Contains(l.Settings.Tags, q.Tag))) &&
		(q.CreatedFrom == 0 || l.CreatedAt >= q.CreatedFrom) &&
		(q.CreatedTo == 0 || l.CreatedAt < q.CreatedTo)
}

func compareEntries(a, b entry) int {
	return cmp.Or(cmp.Compare(a.seq, b.seq), cmp.Compare(a.number, b.number))
}

// cursorPrefix tells the cursors of this engine from those of others.
const cursorPrefix = "mem1_"

func formatCursor(e entry) string {
	b := binary.BigEndian.AppendUint64(nil, e.seq)
	b = binary.BigEndian.AppendUint64(b, uint64(e.number))
	return cursorPrefix + hex.EncodeToString(b)
}

// parseCursor accepts exactly what formatCursor makes, and "".
func parseCursor(s string) (entry, error) {
	if s == "" {
		return entry{}, nil
	}
	digits, ok := strings.CutPrefix(s, cursorPrefix)
	b, err := hex.DecodeString(digits)
	if !ok || err != nil || len(b) != 16 || strings.ToLower(digits) != digits {
		return entry{}, terse.Invalid("cursor", "not a cursor of this store")
	}
	return entry{
		seq:    binary.BigEndian.Uint64(b),
		number: terse.LinkNumber(binary.BigEndian.Uint64(b[8:])),
	}, nil
}
