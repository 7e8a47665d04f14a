package dynamostore

import (
	"context"
	"math/rand/v2"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/terselink/terse"
)

// The count of a campaign is the sum of its parts: sixteen counters that small transactions
// add to, so that two of them seldom meet, and one item for each large chunk, which counts if the chunk does.

const countShards = 16

func countSK(chunk chunkID) string { return "k" + string(chunk[:]) }

// countOp adds to the count.
func (s *Store) countOp(k countKey, n int64) types.TransactWriteItem {
	sk := string([]byte{'s', byte(rand.N(countShards))})
	return s.updateOp(key{countPK(k.w, k.c), sk}, "ADD links_total :n", "", item{":n": inum(n)})
}

// countItems returns the parts of a large chunk.
func (in *insertion) countItems(chunk chunkID) []item {
	var out []item
	for k, n := range in.counts {
		it := key{countPK(k.w, k.c), countSK(chunk)}.item()
		it["links_total"], it["chunk_id"] = inum(n), chunk.value()
		out = append(out, it)
	}
	return out
}

// CountLinks returns how many links of the workspace are in the campaign. Links that the table's TTL has
// removed still count.
func (s *Store) CountLinks(ctx context.Context, w terse.WorkspaceID, c terse.CampaignID) (uint64, error) {
	const op = "count links"
	if err := s.enter(ctx, op); err != nil {
		return 0, err
	}
	items, o := s.queryAll(ctx, rangeQuery{pk: countPK(w, c)})
	if o != nil {
		return 0, o.readErr(op)
	}
	seen, o := s.visible(ctx, items)
	if o != nil {
		return 0, o.readErr(op)
	}
	var n int64
	for i, it := range items {
		if seen[i] || strings.HasPrefix(string(getBin(it, attrSK)), "s") {
			n += getInt(it, "links_total")
		}
	}
	return uint64(max(0, n)), nil
}
