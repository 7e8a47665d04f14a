package dynamostore

import (
	"context"
	"math/bits"
	"sync"

	"github.com/terselink/terse"
)

// The links of a workspace are spread over shards of the index, so that a bulk insert does not
// run into the 1,000 writes a second that one partition takes. How many a workspace uses is in an
// item of its own, raised before the first link goes to a new shard, and never lowered. A listing
// reads them all, so a workspace that never had a bulk insert keeps few.

const (
	fewShards = 4
	maxShards = 256
)

// shardsFor returns how many shards a chunk of n links uses: a power of two.
func (s *Store) shardsFor(n int) int {
	most := max(fewShards, s.opts.BulkShards)
	return min(most, max(fewShards, 1<<bits.Len(uint(n/100))))
}

// shardOf spreads consecutive numbers evenly.
func shardOf(n terse.LinkNumber, shards int) int { return int(uint64(n) % uint64(shards)) }

// shardCache remembers the shard counts that are known to be written.
type shardCache struct {
	mu    sync.Mutex
	known map[terse.WorkspaceID]int
}

func (c *shardCache) atLeast(w terse.WorkspaceID, n int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.known[w] >= n
}

func (c *shardCache) set(w terse.WorkspaceID, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil || len(c.known) > 100_000 {
		c.known = map[terse.WorkspaceID]int{}
	}
	c.known[w] = max(c.known[w], n)
}

// useShards makes sure that listings of the workspace look at n shards.
func (s *Store) useShards(ctx context.Context, w terse.WorkspaceID, n int) *outcome {
	if n <= fewShards || s.shards.atLeast(w, n) {
		return nil
	}
	_, o := s.update(ctx, workspaceKey(w), "SET shards_used = :n", "attribute_not_exists(shards_used) OR shards_used < :n", nil, item{":n": inum(n)})
	if o != nil && o.class != condition {
		return o
	}
	s.shards.set(w, n)
	return nil
}

// shardCount returns how many shards the links of the workspace are in.
func (s *Store) shardCount(ctx context.Context, w terse.WorkspaceID) (int, *outcome) {
	it, o := s.getItem(ctx, workspaceKey(w))
	if o != nil {
		return 0, o
	}
	return max(fewShards, min(maxShards, int(getNum(it, "shards_used")))), nil
}
