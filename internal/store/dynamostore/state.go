package dynamostore

import (
	"context"
	"sync"
)

// The states of a large chunk. A marker that is gone counts as aborted: it outlives its items.
const (
	pending   uint8 = 0
	committed uint8 = 1
	aborted   uint8 = 2
)

// chunkState is what a marker says.
type chunkState struct {
	state        uint8
	first, count uint64 // the numbers of the feed that it was committed with
}

// stateCache remembers decisions, which are for ever: a reader asks for a marker once. It keeps two
// generations of at most maxStates each.
type stateCache struct {
	mu       sync.Mutex
	now, old map[chunkID]chunkState
}

const maxStates = 1 << 16

func (c *stateCache) get(id chunkID) (chunkState, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	st, ok := c.now[id]
	if !ok {
		st, ok = c.old[id]
	}
	return st, ok
}

func (c *stateCache) put(id chunkID, st chunkState) {
	if st.state == pending {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.now) >= maxStates {
		c.old, c.now = c.now, nil
	}
	if c.now == nil {
		c.now = map[chunkID]chunkState{}
	}
	c.now[id] = st
}

// chunkState returns the state of a chunk.
func (s *Store) chunkState(ctx context.Context, id chunkID) (chunkState, *outcome) {
	if st, ok := s.states.get(id); ok {
		return st, nil
	}
	it, o := s.getItem(ctx, id.key())
	if o != nil {
		return chunkState{}, o
	}
	return s.readState(id, it), nil
}

func (s *Store) readState(id chunkID, it item) chunkState {
	st := chunkState{state: aborted}
	if it != nil {
		st = chunkState{state: uint8(getNum(it, "chunk_state")), first: getNum(it, "feed_first"), count: getNum(it, "feed_count")}
	}
	s.states.put(id, st)
	return st
}

// chunkStates returns the state of every chunk that the items belong to.
func (s *Store) chunkStates(ctx context.Context, items []item) (map[chunkID]chunkState, *outcome) {
	var states map[chunkID]chunkState
	var ask []chunkID
	for _, it := range items {
		id, ok := getChunk(it)
		if !ok {
			continue
		}
		if _, ok := states[id]; ok {
			continue
		}
		if states == nil {
			states = map[chunkID]chunkState{}
		}
		st, ok := s.states.get(id)
		if !ok {
			ask = append(ask, id)
		}
		states[id] = st
	}
	if len(ask) == 0 {
		return states, nil
	}
	keys := make([]key, len(ask))
	for i, id := range ask {
		keys[i] = id.key()
	}
	found, o := s.getItems(ctx, keys)
	if o != nil {
		return nil, o
	}
	for i, id := range ask {
		states[id] = s.readState(id, found[keys[i]])
	}
	return states, nil
}

// visible reports which of the items readers may see: those of no large chunk, and of committed ones.
func (s *Store) visible(ctx context.Context, items []item) ([]bool, *outcome) {
	states, o := s.chunkStates(ctx, items)
	if o != nil {
		return nil, o
	}
	out := make([]bool, len(items))
	for i, it := range items {
		id, ok := getChunk(it)
		out[i] = it != nil && (!ok || states[id].state == committed)
	}
	return out, nil
}
