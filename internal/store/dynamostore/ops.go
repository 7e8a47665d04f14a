package dynamostore

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/terselink/terse/internal/sleep"
)

// The operations of DynamoDB that this package uses, each with its retries and its units
// counted. All reads of the table are consistent; those of the index cannot be.

const (
	maxTransact   = 100     // operations of a transaction
	maxBatchGet   = 100     // keys of a BatchGetItem
	maxBatchWrite = 25      // puts of a BatchWriteItem
	maxBytes      = 3 << 20 // of a transaction, below DynamoDB's 4 MiB
)

const total = types.ReturnConsumedCapacityTotal

func (s *Store) getItem(ctx context.Context, k key) (item, *outcome) {
	out, o := call(ctx, s, func(ctx context.Context) (*dynamodb.GetItemOutput, error) {
		return s.db.GetItem(ctx, &dynamodb.GetItemInput{
			TableName: &s.opts.Table, Key: k.item(), ConsistentRead: aws.Bool(true), ReturnConsumedCapacity: total,
		})
	})
	if o != nil {
		return nil, o
	}
	s.counters.read(out.ConsumedCapacity)
	return out.Item, nil
}

// getItems reads items by key; those that are missing are missing in the result.
func (s *Store) getItems(ctx context.Context, keys []key) (map[key]item, *outcome) {
	found := make(map[key]item, len(keys))
	var more []item
	seen := make(map[key]struct{}, len(keys))
	for _, k := range keys {
		if _, ok := seen[k]; !ok {
			seen[k] = struct{}{}
			more = append(more, k.item())
		}
	}
	pause := backoff
	began := time.Now()
	for len(more) > 0 {
		n := min(len(more), maxBatchGet)
		batch := more[:n]
		out, o := call(ctx, s, func(ctx context.Context) (*dynamodb.BatchGetItemOutput, error) {
			return s.db.BatchGetItem(ctx, &dynamodb.BatchGetItemInput{
				RequestItems:           map[string]types.KeysAndAttributes{s.opts.Table: {Keys: batch, ConsistentRead: aws.Bool(true)}},
				ReturnConsumedCapacity: total,
			})
		})
		if o != nil {
			return nil, o
		}
		for i := range out.ConsumedCapacity {
			s.counters.read(&out.ConsumedCapacity[i])
		}
		for _, it := range out.Responses[s.opts.Table] {
			found[keyOf(it)] = it
		}
		more = more[n:]
		if left := out.UnprocessedKeys[s.opts.Table].Keys; len(left) > 0 {
			more = append(left, more...)
			if o := s.unprocessed(ctx, len(left) == n, began, &pause); o != nil {
				return nil, o
			}
		}
	}
	return found, nil
}

// unprocessed waits before what DynamoDB left over is sent again.
func (s *Store) unprocessed(ctx context.Context, all bool, began time.Time, pause *time.Duration) *outcome {
	s.counters.unprocessed.Add(1)
	if time.Since(began) > s.opts.RetryFor {
		return &outcome{class: throttled, err: errUnprocessed}
	}
	if !all {
		*pause = backoff
	}
	if err := sleep.For(ctx, rand.N(*pause)); err != nil {
		return &outcome{class: throttled, err: err}
	}
	*pause = min(2**pause, longestBackoff)
	return nil
}

// putItems writes items that are hints: each may overwrite one of the same key. Nothing else is
// written without a condition.
func (s *Store) putItems(ctx context.Context, items []item) *outcome {
	more := make([]types.WriteRequest, len(items))
	for i, it := range items {
		more[i].PutRequest = &types.PutRequest{Item: it}
	}
	return s.batchWrite(ctx, more)
}

func (s *Store) batchWrite(ctx context.Context, more []types.WriteRequest) *outcome {
	pause := backoff
	began := time.Now()
	for len(more) > 0 {
		n := min(len(more), maxBatchWrite)
		batch := more[:n]
		out, o := call(ctx, s, func(ctx context.Context) (*dynamodb.BatchWriteItemOutput, error) {
			return s.db.BatchWriteItem(ctx, &dynamodb.BatchWriteItemInput{
				RequestItems: map[string][]types.WriteRequest{s.opts.Table: batch}, ReturnConsumedCapacity: total,
			})
		})
		if o != nil {
			return o
		}
		for i := range out.ConsumedCapacity {
			s.counters.write(&out.ConsumedCapacity[i])
		}
		more = more[n:]
		if left := out.UnprocessedItems[s.opts.Table]; len(left) > 0 {
			more = append(left, more...)
			if o := s.unprocessed(ctx, len(left) == n, began, &pause); o != nil {
				return o
			}
		}
	}
	return nil
}

// putNew writes an item under a key that must be free; condition in the outcome says that it is not.
func (s *Store) putNew(ctx context.Context, it item) *outcome {
	out, o := call(ctx, s, func(ctx context.Context) (*dynamodb.PutItemOutput, error) {
		return s.db.PutItem(ctx, &dynamodb.PutItemInput{
			TableName: &s.opts.Table, Item: it, ConditionExpression: aws.String(isFree), ReturnConsumedCapacity: total,
		})
	})
	if o == nil {
		s.counters.write(out.ConsumedCapacity)
	}
	return o
}

// isFree is the condition of every put of something new.
const isFree = "attribute_not_exists(pk)"

// update is an UpdateItem; it returns the attributes that it set.
func (s *Store) update(ctx context.Context, k key, expr, cond string, names map[string]string, values item) (item, *outcome) {
	in := &dynamodb.UpdateItemInput{
		TableName: &s.opts.Table, Key: k.item(), UpdateExpression: &expr, ExpressionAttributeNames: names,
		ExpressionAttributeValues: values, ReturnValues: types.ReturnValueUpdatedNew, ReturnConsumedCapacity: total,
	}
	if cond != "" {
		in.ConditionExpression = &cond
	}
	out, o := call(ctx, s, func(ctx context.Context) (*dynamodb.UpdateItemOutput, error) { return s.db.UpdateItem(ctx, in) })
	if o != nil {
		return nil, o
	}
	s.counters.write(out.ConsumedCapacity)
	return out.Attributes, nil
}

// transact sends a transaction. Each attempt has a token of its own: whether an earlier one was applied is found
// out from what it wrote.
func (s *Store) transact(ctx context.Context, ops []types.TransactWriteItem) *outcome {
	s.counters.transactions.Add(1)
	out, o := call(ctx, s, func(ctx context.Context) (*dynamodb.TransactWriteItemsOutput, error) {
		return s.db.TransactWriteItems(ctx, &dynamodb.TransactWriteItemsInput{
			TransactItems: ops, ClientRequestToken: aws.String(newToken()), ReturnConsumedCapacity: total,
		})
	})
	if o != nil {
		return o
	}
	for i := range out.ConsumedCapacity {
		s.counters.write(&out.ConsumedCapacity[i])
	}
	return nil
}

// rangeQuery selects the items of one partition with sort keys in [from, to], "" for no bound.
type rangeQuery struct {
	pk, from, to string
	limit        int // 0: a page of DynamoDB
	start        item
	index        bool // by_workspace, newest first
	oldest       bool // of the index: oldest first
}

// query returns one page and where the next one starts, nil at the end.
func (s *Store) query(ctx context.Context, q rangeQuery) ([]item, item, *outcome) {
	in := &dynamodb.QueryInput{
		TableName: &s.opts.Table, ExclusiveStartKey: q.start, ReturnConsumedCapacity: total,
		KeyConditionExpression:    aws.String("pk = :p"),
		ExpressionAttributeValues: item{":p": str(q.pk)},
	}
	pk, sk := attrPK, attrSK
	if q.index {
		pk, sk = attrGPK, attrGSK
		in.IndexName, in.ScanIndexForward = aws.String(indexName), aws.Bool(q.oldest)
	} else {
		in.ConsistentRead = aws.Bool(true)
	}
	expr := pk + " = :p"
	switch {
	case q.from != "" && q.to != "":
		expr += " AND " + sk + " BETWEEN :f AND :t"
		in.ExpressionAttributeValues[":f"], in.ExpressionAttributeValues[":t"] = bin([]byte(q.from)), bin([]byte(q.to))
	case q.from != "":
		expr += " AND " + sk + " >= :f"
		in.ExpressionAttributeValues[":f"] = bin([]byte(q.from))
	case q.to != "":
		expr += " AND " + sk + " <= :t"
		in.ExpressionAttributeValues[":t"] = bin([]byte(q.to))
	}
	in.KeyConditionExpression = &expr
	if q.limit > 0 {
		in.Limit = aws.Int32(int32(min(q.limit, 100_000)))
	}
	out, o := call(ctx, s, func(ctx context.Context) (*dynamodb.QueryOutput, error) { return s.db.Query(ctx, in) })
	if o != nil {
		return nil, nil, o
	}
	s.counters.read(out.ConsumedCapacity)
	return out.Items, out.LastEvaluatedKey, nil
}

// queryAll returns all pages.
func (s *Store) queryAll(ctx context.Context, q rangeQuery) ([]item, *outcome) {
	var all []item
	for {
		page, next, o := s.query(ctx, q)
		if o != nil {
			return nil, o
		}
		all = append(all, page...)
		if next == nil {
			return all, nil
		}
		q.start = next
	}
}

// Operations of transactions.

func (s *Store) putOp(it item, cond string, values item) types.TransactWriteItem {
	p := &types.Put{TableName: &s.opts.Table, Item: it, ExpressionAttributeValues: values}
	if cond != "" {
		p.ConditionExpression = &cond
	}
	return types.TransactWriteItem{Put: p}
}

func (s *Store) updateOp(k key, expr, cond string, values item) types.TransactWriteItem {
	u := &types.Update{TableName: &s.opts.Table, Key: k.item(), UpdateExpression: &expr, ExpressionAttributeValues: values}
	if cond != "" {
		u.ConditionExpression = &cond
	}
	return types.TransactWriteItem{Update: u}
}

func (s *Store) deleteOp(k key, cond string, values item) types.TransactWriteItem {
	d := &types.Delete{TableName: &s.opts.Table, Key: k.item(), ExpressionAttributeValues: values}
	if cond != "" {
		d.ConditionExpression = &cond
	}
	return types.TransactWriteItem{Delete: d}
}
