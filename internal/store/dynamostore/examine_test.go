package dynamostore_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/store/dynamostore"
)

// role stands between an examination and DynamoDB Local, which knows no rights: it refuses some operations as AWS does.
type role struct {
	next http.RoundTripper
	deny map[string]bool

	mu    sync.Mutex
	asked map[string]int
}

func (r *role) RoundTrip(req *http.Request) (*http.Response, error) {
	_, op, _ := strings.Cut(req.Header.Get("X-Amz-Target"), ".")
	r.mu.Lock()
	r.asked[op]++
	r.mu.Unlock()
	if r.deny[op] {
		return answer(req, 400, `{"__type":"com.amazon.coral.service#AccessDeniedException","message":"User: arn:aws:iam::1:role/terse is not authorized to perform: dynamodb:`+op+`"}`), nil
	}
	return r.next.RoundTrip(req)
}

// CloseIdleConnections lets the store close them.
func (r *role) CloseIdleConnections() { r.next.(*http.Transport).CloseIdleConnections() }

// items returns how many there are in a table.
func items(t *testing.T, o dynamostore.Options) int32 {
	t.Helper()
	out, err := dynamostore.Client(o.Config, o.Endpoint).Scan(t.Context(), &dynamodb.ScanInput{TableName: &o.Table})
	if err != nil {
		t.Fatal(err)
	}
	return out.Count
}

// examine returns what is wrong, by what was looked at, and leaves nothing behind.
func examine(t *testing.T, o dynamostore.Options, deny ...string) map[string]dynamostore.Finding {
	t.Helper()
	before := items(t, o)
	r := &role{next: o.Config.HTTPClient.(*http.Client).Transport, deny: map[string]bool{}, asked: map[string]int{}}
	for _, op := range deny {
		r.deny[op] = true
	}
	seen := o
	seen.Config.HTTPClient = &http.Client{Transport: r}
	list := map[string]dynamostore.Finding{}
	for _, f := range dynamostore.Examine(t.Context(), seen) {
		list[f.What] = f
	}
	if after := items(t, o); after != before {
		t.Errorf("%d items were %d before", after, before)
	}
	return list
}

// TestExamine: a table that CreateTable made has nothing wrong; each right that is missing is named.
func TestExamine(t *testing.T) {
	t.Parallel()
	o := newTable(t)
	list := examine(t, o)
	for _, what := range []string{"table", "keys", "index by_workspace", "capacity", "time to live", "rights"} {
		if f, ok := list[what]; !ok || f.Text != "" {
			t.Errorf("%s: %+v, looked at %v", what, f, ok)
		}
	}
	for op, want := range map[string]string{
		"GetItem": "table", "BatchGetItem": "rights", "Query": "rights", "PutItem": "rights", "UpdateItem": "rights", "DeleteItem": "rights", "BatchWriteItem": "rights",
	} {
		if f := examine(t, o, op)[want]; !f.Bad || !strings.Contains(f.Text, "may not dynamodb:"+op) {
			t.Errorf("without %s: %+v", op, f)
		}
	}
	if f := examine(t, o, "TransactWriteItems")["rights"]; !f.Bad || !strings.Contains(f.Text, "may not dynamodb:ConditionCheckItem (") {
		t.Errorf("without ConditionCheckItem: %+v", f)
	}
	list = examine(t, o, "DescribeTable", "DescribeTimeToLive")
	for what, want := range map[string]string{"keys and index": "dynamodb:DescribeTable", "time to live": "dynamodb:DescribeTimeToLive"} {
		if f := list[what]; f.Bad || !strings.Contains(f.Text, want) {
			t.Errorf("with the rights of a server: %+v", f)
		}
	}
	if f := list["rights"]; f.Text != "" {
		t.Errorf("with the rights of a server: %+v", f)
	}
}

// TestExamineTables: tables that are not as CreateTable makes them.
func TestExamineTables(t *testing.T) {
	t.Parallel()
	cfg, endpoint := client(t)
	t.Cleanup(cfg.HTTPClient.(*http.Client).CloseIdleConnections) // after the tables were deleted
	db := dynamostore.Client(cfg, endpoint)
	attr := func(name string, kind types.ScalarAttributeType) types.AttributeDefinition {
		return types.AttributeDefinition{AttributeName: &name, AttributeType: kind}
	}
	keys := func(pk, sk string) []types.KeySchemaElement {
		return []types.KeySchemaElement{{AttributeName: &pk, KeyType: types.KeyTypeHash}, {AttributeName: &sk, KeyType: types.KeyTypeRange}}
	}
	text, bytes := types.ScalarAttributeTypeS, types.ScalarAttributeTypeB
	right := []types.AttributeDefinition{attr("pk", text), attr("sk", bytes)}
	for name, c := range map[string]struct {
		in   dynamodb.CreateTableInput
		what string
		bad  bool
		want string
	}{
		"no index":    {dynamodb.CreateTableInput{AttributeDefinitions: right, KeySchema: keys("pk", "sk"), BillingMode: types.BillingModePayPerRequest}, "index by_workspace", true, "there is no index"},
		"no ttl":      {dynamodb.CreateTableInput{AttributeDefinitions: right, KeySchema: keys("pk", "sk"), BillingMode: types.BillingModePayPerRequest}, "time to live", false, "it is off"},
		"provisioned": {dynamodb.CreateTableInput{AttributeDefinitions: right, KeySchema: keys("pk", "sk"), BillingMode: types.BillingModeProvisioned, ProvisionedThroughput: &types.ProvisionedThroughput{ReadCapacityUnits: aws.Int64(7), WriteCapacityUnits: aws.Int64(5)}}, "capacity", false, "7 reads and 5 writes"},
		"other keys":  {dynamodb.CreateTableInput{AttributeDefinitions: []types.AttributeDefinition{attr("pk", text), attr("sk", text)}, KeySchema: keys("pk", "sk"), BillingMode: types.BillingModePayPerRequest}, "table", true, "other keys than pk"},
		"part of the index": {dynamodb.CreateTableInput{
			AttributeDefinitions: append([]types.AttributeDefinition{attr("gpk", text), attr("gsk", bytes)}, right...), KeySchema: keys("pk", "sk"), BillingMode: types.BillingModePayPerRequest,
			GlobalSecondaryIndexes: []types.GlobalSecondaryIndex{{IndexName: aws.String("by_workspace"), KeySchema: keys("gpk", "gsk"), Projection: &types.Projection{ProjectionType: types.ProjectionTypeKeysOnly}}},
		}, "index by_workspace", true, "projection ALL"},
		"no table": {what: "table", bad: true, want: "create-table makes it"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := dynamostore.Options{Table: "examined-" + strings.ReplaceAll(name, " ", "-"), Config: cfg, Endpoint: endpoint, RetryFor: time.Minute}
			if c.in.KeySchema != nil {
				c.in.TableName = &o.Table
				if _, err := db.CreateTable(t.Context(), &c.in); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					if _, err := db.DeleteTable(context.Background(), &dynamodb.DeleteTableInput{TableName: &o.Table}); err != nil {
						t.Error(err)
					}
				})
				if err := dynamodb.NewTableExistsWaiter(db).Wait(t.Context(), &dynamodb.DescribeTableInput{TableName: &o.Table}, time.Minute); err != nil {
					t.Fatal(err)
				}
			}
			for _, f := range dynamostore.Examine(t.Context(), o) {
				if f.What == c.what {
					if f.Bad != c.bad || !strings.Contains(f.Text, c.want) {
						t.Errorf("%+v, want %q", f, c.want)
					}
					return
				}
			}
			t.Errorf("nothing is said of %s", c.what)
		})
	}
}

// TestReadOnly: opening a store for reading leaves the floor of the feed where it was, and for writing does not.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	o := newTable(t)
	s := open(t, o)
	if err := s.PutDocument(t.Context(), terse.Document{Workspace: 1, Kind: terse.KindDomain, ID: "1", Version: 1, Data: []byte("{}")}); err != nil {
		t.Fatal(err)
	}
	floor := func() string {
		out, err := dynamostore.Client(o.Config, o.Endpoint).GetItem(t.Context(), &dynamodb.GetItemInput{TableName: &o.Table, Key: map[string]types.AttributeValue{
			"pk": &types.AttributeValueMemberS{Value: "!q"}, "sk": &types.AttributeValueMemberB{Value: []byte{0}},
		}, ConsistentRead: aws.Bool(true)})
		if err != nil {
			t.Fatal(err)
		}
		n, _ := out.Item["feed_floor"].(*types.AttributeValueMemberN)
		if n == nil {
			return ""
		}
		return n.Value
	}
	before := floor()
	o.Clock = func() terse.Millis { return terse.MillisOf(time.Now().Add(10 * 24 * time.Hour)) } // all changes are old
	read := o
	read.ReadOnly, read.MaintainEvery = true, time.Millisecond
	open(t, read)
	if got := floor(); got != before {
		t.Errorf("the floor is %q, was %q", got, before)
	}
	open(t, o)
	if got := floor(); got == before {
		t.Errorf("the floor is %q as before: this test sees nothing", got)
	}
}
