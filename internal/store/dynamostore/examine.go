package dynamostore

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go"
)

// Finding is something that an administrator should know about the table.
type Finding struct {
	What string // what was looked at
	Bad  bool   // it cannot work so; otherwise it could be better
	Text string // "" if all is well; else what is wrong and what to do
}

// Examine looks at the table without changing it, and says what would keep a store from working on it, or from working
// well. Rights are tried: to write, with conditions that no item meets.
func Examine(ctx context.Context, o Options) []Finding {
	o.setDefaults()
	o.ReadOnly, o.MaintainEvery = true, -1
	if o.Table == "" {
		return []Finding{{"table", true, "store.dynamodb.table is empty: name a table"}}
	}
	s := newStore(o)
	defer func() { _ = s.Close() }() // nothing was written
	e := &examination{s: s}
	if _, out := s.getItem(ctx, feedKey); out != nil {
		e.add("table", true, e.readable(out.err))
		if !denied(out.err) { // no table, or nobody there: nothing else can be seen
			return e.list
		}
	} else {
		e.add("table", true, "")
	}
	e.describe(ctx)
	e.timeToLive(ctx)
	e.rights(ctx)
	return e.list
}

type examination struct {
	s    *Store
	list []Finding
}

func (e *examination) add(what string, bad bool, text string) {
	e.list = append(e.list, Finding{what, bad, text})
}

// errorCode returns the code of an answer of DynamoDB; "": it is none.
func errorCode(err error) string {
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return api.ErrorCode()
	}
	return ""
}

// denied reports whether the role may not do what was asked.
func denied(err error) bool {
	code := errorCode(err)
	return code == "AccessDeniedException" || code == "AccessDenied"
}

// readable says why the table cannot be read.
func (e *examination) readable(err error) string {
	table := e.s.opts.Table
	switch code := errorCode(err); {
	case code == "ResourceNotFoundException":
		return fmt.Sprintf("there is no table %s in the region %s: terse dynamodb create-table makes it", table, e.s.opts.Config.Region)
	case denied(err):
		return fmt.Sprintf("table %s: the role may not dynamodb:GetItem (docs/dynamodb.md)", table)
	case code == "UnrecognizedClientException" || code == "InvalidSignatureException" || code == "ExpiredTokenException":
		return fmt.Sprintf("table %s: the credentials of AWS are not accepted (%s)", table, code)
	case code == "ValidationException":
		return fmt.Sprintf("table %s has other keys than pk (text) and sk (binary): terse dynamodb create-table makes one that has them", table)
	}
	return fmt.Sprintf("table %s does not answer: %v", table, err)
}

// describe looks at the keys, the index and how the table is billed.
func (e *examination) describe(ctx context.Context) {
	out, o := call(ctx, e.s, func(ctx context.Context) (*dynamodb.DescribeTableOutput, error) {
		return e.s.db.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: &e.s.opts.Table})
	})
	if o != nil {
		e.add("keys and index", false, e.unseen("dynamodb:DescribeTable", o.err))
		return
	}
	t := out.Table
	kinds := map[string]types.ScalarAttributeType{}
	for _, a := range t.AttributeDefinitions {
		kinds[aws.ToString(a.AttributeName)] = a.AttributeType
	}
	text := ""
	if !hasKeys(t.KeySchema, kinds, attrPK, attrSK) {
		text = "the keys are not pk (text) and sk (binary): terse dynamodb create-table makes a table that has them"
	}
	e.add("keys", true, text)
	e.index(t, kinds)
	e.capacity(t)
}

// hasKeys reports whether a key is a text and a binary attribute of these names.
func hasKeys(schema []types.KeySchemaElement, of map[string]types.ScalarAttributeType, pk, sk string) bool {
	if len(schema) != 2 || of[pk] != types.ScalarAttributeTypeS || of[sk] != types.ScalarAttributeTypeB {
		return false
	}
	for _, k := range schema {
		want := pk
		if k.KeyType == types.KeyTypeRange {
			want = sk
		}
		if aws.ToString(k.AttributeName) != want {
			return false
		}
	}
	return true
}

func (e *examination) index(t *types.TableDescription, of map[string]types.ScalarAttributeType) {
	text := fmt.Sprintf("there is no index %s: no link can be listed or searched (terse dynamodb create-table --print-cloudformation)", indexName)
	for _, ix := range t.GlobalSecondaryIndexes {
		if aws.ToString(ix.IndexName) != indexName {
			continue
		}
		switch {
		case !hasKeys(ix.KeySchema, of, attrGPK, attrGSK):
			text = fmt.Sprintf("the keys of %s are not gpk (text) and gsk (binary)", indexName)
		case ix.Projection == nil || ix.Projection.ProjectionType != types.ProjectionTypeAll:
			text = fmt.Sprintf("%s does not have all attributes (projection ALL): listings would show links without their fields", indexName)
		case ix.IndexStatus != types.IndexStatusActive:
			text = fmt.Sprintf("%s is %s: wait until it is ACTIVE", indexName, ix.IndexStatus)
		default:
			text = ""
		}
	}
	e.add("index "+indexName, true, text)
}

func (e *examination) capacity(t *types.TableDescription) {
	text := ""
	if b := t.BillingModeSummary; b == nil || b.BillingMode != types.BillingModePayPerRequest {
		var reads, writes int64
		if p := t.ProvisionedThroughput; p != nil {
			reads, writes = aws.ToInt64(p.ReadCapacityUnits), aws.ToInt64(p.WriteCapacityUnits)
		}
		text = fmt.Sprintf("%d reads and %d writes a second are provisioned for the table: a bulk insert takes about 4 write units a link and is throttled there; PAY_PER_REQUEST has no such bound", reads, writes)
	}
	e.add("capacity", false, text)
}

func (e *examination) timeToLive(ctx context.Context) {
	const what = "time to live"
	out, o := call(ctx, e.s, func(ctx context.Context) (*dynamodb.DescribeTimeToLiveOutput, error) {
		return e.s.db.DescribeTimeToLive(ctx, &dynamodb.DescribeTimeToLiveInput{TableName: &e.s.opts.Table})
	})
	if o != nil {
		e.add(what, false, e.unseen("dynamodb:DescribeTimeToLive", o.err))
		return
	}
	d := out.TimeToLiveDescription
	on := d != nil && (d.TimeToLiveStatus == types.TimeToLiveStatusEnabled || d.TimeToLiveStatus == types.TimeToLiveStatusEnabling)
	switch {
	case !on:
		e.add(what, false, "it is off: links that have expired and old changes stay and are paid for. Enable it on the attribute ttl, or run terse dynamodb create-table again")
	case aws.ToString(d.AttributeName) != attrTTL:
		e.add(what, false, fmt.Sprintf("it is on the attribute %s, not on ttl: links that have expired and old changes stay and are paid for", aws.ToString(d.AttributeName)))
	default:
		e.add(what, false, "")
	}
}

// unseen says that something could not be looked at. Servers need no right to describe their table.
func (e *examination) unseen(right string, err error) string {
	if denied(err) {
		return fmt.Sprintf("not looked at: the role may not %s, which only this check uses (docs/dynamodb.md)", right)
	}
	return fmt.Sprintf("not looked at: %v", err)
}

// nobodyKey is that of an item that there never is.
var nobodyKey = single("!doctor")

// never is a condition that no item meets, and neither does the lack of one.
const never = "attribute_exists(pk) AND attribute_not_exists(pk)"

// rights tries each operation that a server uses. A condition that is not met is an answer of somebody who may write.
func (e *examination) rights(ctx context.Context) {
	s, table := e.s, &e.s.opts.Table
	k, cond := nobodyKey.item(), aws.String(never)
	var missing, wrong []string
	index := "index/" + indexName
	for _, op := range []struct {
		right string
		send  func(context.Context) error
	}{
		{"dynamodb:BatchGetItem", func(ctx context.Context) error {
			_, err := s.db.BatchGetItem(ctx, &dynamodb.BatchGetItemInput{RequestItems: map[string]types.KeysAndAttributes{*table: {Keys: []item{k}}}})
			return err
		}},
		{"dynamodb:Query", func(ctx context.Context) error { return e.query(ctx, nil, attrPK) }},
		{"dynamodb:Query on " + index, func(ctx context.Context) error { return e.query(ctx, aws.String(indexName), attrGPK) }},
		{"dynamodb:PutItem", func(ctx context.Context) error {
			_, err := s.db.PutItem(ctx, &dynamodb.PutItemInput{TableName: table, Item: k, ConditionExpression: cond})
			return err
		}},
		{"dynamodb:UpdateItem", func(ctx context.Context) error {
			_, err := s.db.UpdateItem(ctx, &dynamodb.UpdateItemInput{TableName: table, Key: k, ConditionExpression: cond})
			return err
		}},
		{"dynamodb:DeleteItem", func(ctx context.Context) error {
			_, err := s.db.DeleteItem(ctx, &dynamodb.DeleteItemInput{TableName: table, Key: k, ConditionExpression: cond})
			return err
		}},
		{"dynamodb:ConditionCheckItem", func(ctx context.Context) error {
			check := &types.ConditionCheck{TableName: table, Key: k, ConditionExpression: cond}
			_, err := s.db.TransactWriteItems(ctx, &dynamodb.TransactWriteItemsInput{TransactItems: []types.TransactWriteItem{{ConditionCheck: check}}})
			return err
		}},
		// It has no conditions: an item that there never is is deleted.
		{"dynamodb:BatchWriteItem", func(ctx context.Context) error {
			_, err := s.db.BatchWriteItem(ctx, &dynamodb.BatchWriteItemInput{RequestItems: map[string][]types.WriteRequest{*table: {{DeleteRequest: &types.DeleteRequest{Key: k}}}}})
			return err
		}},
	} {
		_, o := call(ctx, s, func(ctx context.Context) (struct{}, error) { return struct{}{}, op.send(ctx) })
		switch {
		case o == nil || o.class == condition:
		case denied(o.err):
			missing = append(missing, op.right)
		default:
			wrong = append(wrong, fmt.Sprintf("%s: %v", op.right, o.err))
		}
	}
	if len(missing) > 0 {
		wrong = append([]string{"the role may not " + strings.Join(missing, ", ") + " (docs/dynamodb.md)"}, wrong...)
	}
	e.add("rights", true, strings.Join(wrong, "; "))
}

// query asks the table, or an index, for a partition that there never is.
func (e *examination) query(ctx context.Context, index *string, pk string) error {
	_, err := e.s.db.Query(ctx, &dynamodb.QueryInput{
		TableName: &e.s.opts.Table, IndexName: index, Limit: aws.Int32(1), KeyConditionExpression: aws.String("#p = :p"),
		ExpressionAttributeNames: map[string]string{"#p": pk}, ExpressionAttributeValues: item{":p": str(nobodyKey.pk)},
	})
	return err
}
