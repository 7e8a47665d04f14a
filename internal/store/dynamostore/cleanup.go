package dynamostore

import (
	"context"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/terselink/terse"
)

// giveUp aborts the chunk and clears away what it wrote: the rows of the groups and the items beside
// them. What it does not get to, maintenance does.
func (in *insertion) giveUp(ctx context.Context, id chunkID, written [][]int, side []item) {
	s := in.s
	if o := s.abort(ctx, id); o != nil {
		return
	}
	if st, o := s.chunkState(ctx, id); o != nil || st.state == committed {
		return
	}
	var keys []key
	for _, rows := range written {
		for _, i := range rows {
			l := &in.chunk.Links[i]
			keys = append(keys, linkKey(l.Number.Domain(), l.Code))
			if l.Named() {
				keys = append(keys, numberKey(l.Number))
			}
			if l.Reserves != 0 {
				keys = append(keys, reservationKey(l.Reserves))
			}
		}
	}
	_ = s.clear(ctx, id, keys, keysOf(side))
}

func keysOf(items []item) []key {
	keys := make([]key, len(items))
	for i, it := range items {
		keys[i] = keyOf(it)
	}
	return keys
}

// clear deletes the items under keys that are of the chunk, and own, which are nobody else's.
func (s *Store) clear(ctx context.Context, id chunkID, keys, own []key) *outcome {
	for part := range slices.Chunk(keys, maxTransact) {
		ops := make([]types.TransactWriteItem, len(part))
		for i, k := range part {
			ops[i] = s.deleteOp(k, "attribute_not_exists(pk) OR chunk_id = :c", item{":c": id.value()})
		}
		o := s.transact(ctx, ops)
		if o.is(condition) { // some belong to somebody else by now
			for _, k := range part {
				if o = s.deleteOf(ctx, id, k); o != nil && o.class != condition {
					return o
				}
			}
			o = nil
		}
		if o != nil {
			return o
		}
	}
	more := make([]types.WriteRequest, len(own))
	for i, k := range own {
		more[i].DeleteRequest = &types.DeleteRequest{Key: k.item()}
	}
	return s.batchWrite(ctx, more)
}

// deleteOf deletes an item if it is of the chunk.
func (s *Store) deleteOf(ctx context.Context, id chunkID, k key) *outcome {
	out, o := call(ctx, s, func(ctx context.Context) (*dynamodb.DeleteItemOutput, error) {
		return s.db.DeleteItem(ctx, &dynamodb.DeleteItemInput{
			TableName: &s.opts.Table, Key: k.item(), ConditionExpression: aws.String("chunk_id = :c"),
			ExpressionAttributeValues: item{":c": id.value()}, ReturnConsumedCapacity: total,
		})
	})
	if o == nil {
		s.counters.write(out.ConsumedCapacity)
	}
	return o
}

// sweep gives up the large chunks of dead processes and clears their links away, which it finds
// in the index by the times and workspaces in the marker.
func (s *Store) sweep(ctx context.Context) *outcome {
	q := rangeQuery{pk: pendingPK, index: true}
	for {
		page, next, o := s.query(ctx, q)
		if o != nil {
			return o
		}
		for _, it := range page {
			b := getBin(it, attrGSK)
			if len(b) != len(chunkID{}) || !s.abandoned(chunkID(b)) {
				continue
			}
			if o := s.sweepChunk(ctx, chunkID(b), it); o != nil {
				return o
			}
		}
		if next == nil {
			return nil
		}
		q.start = next
	}
}

func (s *Store) sweepChunk(ctx context.Context, id chunkID, marker item) *outcome {
	from := string(position(terse.Millis(getInt(marker, "created_from")), 0))
	to := string(position(terse.Millis(getInt(marker, "created_to")), 1<<64-1))
	var workspaces []terse.WorkspaceID
	if list, ok := marker["workspaces"].(*types.AttributeValueMemberL); ok {
		for _, v := range list.Value {
			workspaces = append(workspaces, terse.WorkspaceID(getNum(item{"w": v}, "w")))
		}
	}
	if o := s.abort(ctx, id); o != nil {
		return o
	}
	if st, o := s.chunkState(ctx, id); o != nil || st.state != aborted {
		return o // it has committed after all
	}
	for _, w := range workspaces {
		shards, o := s.shardCount(ctx, w)
		if o != nil {
			return o
		}
		for shard := range shards {
			items, o := s.queryAll(ctx, rangeQuery{pk: shardPK(w, shard), from: from, to: to, index: true})
			if o != nil {
				return o
			}
			var keys, own []key
			for _, it := range items {
				if have, ok := getChunk(it); !ok || have != id {
					continue
				}
				l, err := readLink(it)
				if err != nil {
					continue
				}
				keys = append(keys, keyOf(it))
				if l.Named() {
					keys = append(keys, numberKey(l.Number))
				}
				if l.Campaign != 0 {
					own = append(own, key{countPK(l.Workspace, l.Campaign), countSK(id)})
				}
				if l.Plain() {
					own = append(own, key{hintPK(l.Workspace, l.Number.Domain(), l.Destination), hintSK(id, 0)})
				}
			}
			slices.SortFunc(own, compareKeys)
			if o := s.clear(ctx, id, keys, slices.Compact(own)); o != nil {
				return o
			}
		}
	}
	return nil
}
