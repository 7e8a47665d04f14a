package dynamostore

import (
	"context"
	"slices"
	"sync"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/terselink/terse"
)

// purgeTable remembers how far the purge of a campaign has come through the listing of its workspace,
// so that the next call goes on there. Losing it costs reads.
type purgeTable struct {
	mu    sync.Mutex
	place map[countKey]string
}

func (t *purgeTable) get(k countKey) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.place[k]
}

func (t *purgeTable) set(k countKey, place string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.place == nil || len(t.place) > 1000 {
		t.place = map[countKey]string{}
	}
	if place == "" {
		delete(t.place, k)
	} else {
		t.place[k] = place
	}
}

// PurgeLinks removes about limit links of a campaign, which it finds in the index: one that was inserted in the
// last second may be found by a later purge only. Of a link that is ByCode its tombstone stays.
func (s *Store) PurgeLinks(ctx context.Context, w terse.WorkspaceID, c terse.CampaignID, limit int) (int, error) {
	const op = "purge links"
	if limit < 1 || limit > maxPage {
		return 0, terse.Invalid("limit", "must be 1 to %d", maxPage)
	}
	if c == 0 {
		return 0, terse.Invalid("campaign", "links without a campaign cannot be purged")
	}
	if err := s.enter(ctx, op); err != nil {
		return 0, err
	}
	k := countKey{w, c}
	place := s.purges.get(k)
	whole := place == "" // the pass began at the newest link
	for {
		var cursor []byte
		if place != "" {
			cursor = []byte(place)
		}
		list, next, err := s.list(ctx, op, w, &terse.ListQuery{Campaign: c, Limit: limit}, cursor)
		if err != nil {
			return 0, err
		}
		n, err := s.purge(ctx, op, k, list)
		if err == nil {
			s.purges.set(k, next)
		}
		if err != nil || n > 0 {
			return n, err
		}
		if place = next; place == "" {
			if whole {
				return 0, nil
			}
			whole = true // once more, from the newest
		}
	}
}

// purge removes the links that are still of the campaign.
func (s *Store) purge(ctx context.Context, op string, k countKey, list []stored) (int, error) {
	removed := 0
	for part := range slices.Chunk(list, (maxTransact-1)/2) {
		o := s.purgePart(ctx, k, part)
		if o == nil {
			removed += len(part)
			continue
		}
		if !o.is(condition) {
			return removed, o.writeErr(op)
		}
		// Some have changed, or are gone already.
		for i := range part {
			switch o := s.purgePart(ctx, k, part[i:i+1]); {
			case o == nil:
				removed++
			case !o.is(condition):
				return removed, o.writeErr(op)
			}
		}
	}
	return removed, nil
}

func (s *Store) purgePart(ctx context.Context, k countKey, part []stored) *outcome {
	ops := make([]types.TransactWriteItem, 0, 2*len(part)+1)
	for i := range part {
		l := &part[i]
		cond, values := l.unchanged()
		place := keyOf(l.item)
		if l.ByCode {
			it := place.item()
			it["deleted"], it["link_number"] = yes(), num(l.Number)
			ops = append(ops, s.putOp(it, cond, values))
		} else {
			ops = append(ops, s.deleteOp(place, cond, values))
		}
		if l.Named() {
			ops = append(ops, s.deleteOp(numberKey(l.Number), "", nil))
		}
	}
	return s.transact(ctx, append(ops, s.countOp(k, -int64(len(part)))))
}
