package dynamostore_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/store/dynamostore"
)

// scan returns the items of the table that have the attribute.
func scan(t *testing.T, o dynamostore.Options, attribute string) []map[string]types.AttributeValue {
	t.Helper()
	db := dynamostore.Client(o.Config, o.Endpoint)
	var all []map[string]types.AttributeValue
	in := &dynamodb.ScanInput{TableName: &o.Table, FilterExpression: new("attribute_exists(#a)"), ExpressionAttributeNames: map[string]string{"#a": attribute}}
	for {
		out, err := db.Scan(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, out.Items...)
		if in.ExclusiveStartKey = out.LastEvaluatedKey; in.ExclusiveStartKey == nil {
			return all
		}
	}
}

// cuts has the transport of every dying store.
var cuts sync.Map

// kill makes a dying store die now.
func kill(s *dynamostore.Store) {
	c, _ := cuts.Load(s)
	c.(*cut).n.Store(0)
}

// dying returns a store that dies at its n-th request after opening.
func dying(t *testing.T, o dynamostore.Options, n int64) *dynamostore.Store {
	t.Helper()
	o.Config.HTTPClient = dynamostore.HTTPClient()
	hc := o.Config.HTTPClient.(*http.Client)
	c := &cut{next: hc.Transport}
	c.n.Store(1 << 40)
	hc.Transport = c
	o.RetryFor = time.Nanosecond
	s, err := dynamostore.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close(); c.next.(*http.Transport).CloseIdleConnections() })
	cuts.Store(s, c)
	c.n.Store(n)
	return s
}

// TestSweep: what a dead process has written of a large chunk is cleared away, with nothing of others.
func TestSweep(t *testing.T) {
	t.Parallel()
	o := newTable(t)
	o.AbandonAfter = time.Nanosecond
	s := open(t, o)
	kept := generated(t, s, 300, 5)
	if err := s.InsertLinks(t.Context(), &terse.Chunk{Links: kept}); err != nil {
		t.Fatal(err)
	}
	links := generated(t, s, 300, 5)
	links[7].Campaign = 0
	d := dying(t, o, 5) // marker, shards, some of three transactions, hints
	if err := d.InsertLinks(t.Context(), &terse.Chunk{Links: links}); err == nil {
		t.Fatal("the insert of a dying process succeeded")
	}
	_ = d.Close()
	before := len(scan(t, o, "chunk_id"))
	if before <= 300 {
		t.Fatalf("%d items of chunks: the dead process has left none", before)
	}
	if err := s.Maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Its 300 links, the count and the reference in the feed stay of the living.
	if after := len(scan(t, o, "chunk_id")); after != 302 {
		t.Errorf("%d items of chunks after the sweep, %d before, want 302", after, before)
	}
	if n := found(t, s, kept); n != 300 {
		t.Errorf("%d of the others' links are left", n)
	}
	if pending := scan(t, o, "gpk"); len(pending) != 300 {
		t.Errorf("%d items in the index, want the 300 links", len(pending))
	}
}

// TestFeedSeals: a number that a dead process drew does not hold the feed up for long, and reads as nothing.
func TestFeedSeals(t *testing.T) {
	t.Parallel()
	o := newTable(t)
	s := open(t, o)
	d := dying(t, o, 2) // draws a number, and no more
	doc := terse.Document{Workspace: 1, Kind: terse.KindMeta, ID: "x", Version: 1}
	if err := d.PutDocument(t.Context(), doc); err == nil {
		t.Fatal("the write of a dying process succeeded")
	}
	_ = d.Close()
	if err := s.PutDocument(t.Context(), doc); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	list, err := s.Changes(t.Context(), 0, 10)
	if err != nil || len(list) != 0 {
		t.Fatalf("the feed passes a number that may still be used: %+v, %v", list, err)
	}
	for len(list) == 0 {
		if time.Since(began) > time.Minute {
			t.Fatal("the feed still waits")
		}
		<-time.After(10 * time.Millisecond)
		if list, err = s.Changes(t.Context(), 0, 10); err != nil {
			t.Fatal(err)
		}
	}
	if len(list) != 2 || list[0].Seq != 1 || len(list[0].Runs) != 0 || list[1].Seq != 2 || list[1].DocID != "x" {
		t.Fatalf("the feed: %+v", list)
	}
}

// TestFloor: changes older than two days are forgotten, and a reader of them can tell.
func TestFloor(t *testing.T) {
	t.Parallel()
	o := newTable(t)
	var now atomic.Int64
	now.Store(1_790_000_000_000)
	o.Clock = func() terse.Millis { return terse.Millis(now.Load()) }
	s := open(t, o)
	const old, young = 700, 20
	put := func(i int) {
		if err := s.PutDocument(t.Context(), terse.Document{Workspace: 1, Kind: terse.KindMeta, ID: fmt.Sprint(i), Version: 1}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range old {
		put(i)
	}
	now.Add(3 * 24 * time.Hour.Milliseconds())
	for i := range young {
		put(old + i)
	}
	if err := s.Maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err := s.Changes(t.Context(), old-1, 10_000)
	if e, ok := errors.AsType[*terse.ForgottenError](err); !ok || e.Floor != old {
		t.Fatalf("below the floor: %v", err)
	}
	list, err := s.Changes(t.Context(), old, 10_000)
	if err != nil || len(list) != young {
		t.Fatalf("%d changes, %v", len(list), err)
	}
	if last := list[len(list)-1]; last.Seq != old+young || last.DocID != fmt.Sprint(old+young-1) {
		t.Errorf("the feed ends with %+v", last)
	}
	for i := 1; i < len(list); i++ {
		if list[i].Seq != list[i-1].Seq+1 {
			t.Fatalf("%d comes after %d", list[i].Seq, list[i-1].Seq)
		}
	}
	// Nobody used the table for so long that its TTL has removed everything.
	var gone []map[string]types.AttributeValue
	for _, it := range scan(t, o, "change") {
		gone = append(gone, map[string]types.AttributeValue{"pk": it["pk"], "sk": it["sk"]})
	}
	for _, k := range gone {
		if _, err := dynamostore.Client(o.Config, o.Endpoint).DeleteItem(t.Context(), &dynamodb.DeleteItemInput{TableName: &o.Table, Key: k}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	now.Add(9 * 24 * time.Hour.Milliseconds())
	s = open(t, o)
	if _, err := s.Changes(t.Context(), old+young-1, 10); err == nil {
		t.Error("a reader of changes that the table has removed is not told")
	}
	put(old + young)
	if list, err = s.Changes(t.Context(), old+young, 10); err != nil || len(list) != 1 || list[0].Seq != old+young+1 {
		t.Errorf("after the floor: %+v, %v", list, err)
	}
}

// TestTransactions: n generated links take exactly ⌈n/100⌉ transactions.
func TestTransactions(t *testing.T) {
	t.Parallel()
	s := open(t, newTable(t))
	for _, n := range []int{1, 99, 100, 101, 1000, 1001} {
		links := generated(t, s, n, 0)
		before := s.Usage()
		if err := s.InsertLinks(t.Context(), &terse.Chunk{Links: links}); err != nil {
			t.Fatal(err)
		}
		after := s.Usage()
		if got, want := after.Transactions-before.Transactions, uint64(n+99)/100; got != want {
			t.Errorf("%d links: %d transactions, want %d", n, got, want)
		}
		if after.Links-before.Links != uint64(n) {
			t.Errorf("%d links are counted as %d", n, after.Links-before.Links)
		}
		if after.WriteUnits <= before.WriteUnits || after.Cost() <= before.Cost() {
			t.Errorf("%d links cost nothing: %+v", n, after)
		}
	}
}

// TestExpiry: the attribute that DynamoDB deletes by is the end of the link and the time it is kept.
func TestExpiry(t *testing.T) {
	t.Parallel()
	o := newTable(t)
	o.KeepExpired = 10 * time.Second
	s := open(t, o)
	links := generated(t, s, 2, 0)
	links[1].ExpiresAt = 2_000_000_000_999
	if err := s.InsertLinks(t.Context(), &terse.Chunk{Links: links}); err != nil {
		t.Fatal(err)
	}
	items := scan(t, o, "destination")
	for _, it := range items {
		ttl, _ := it["ttl"].(*types.AttributeValueMemberN)
		switch _, expires := it["expires_at"]; {
		case expires && (ttl == nil || ttl.Value != "2000000010"):
			t.Errorf("the time to live is %v", it["ttl"])
		case !expires && ttl != nil:
			t.Errorf("a link without an end has a time to live: %v", it)
		}
	}
	if len(items) != 2 {
		t.Errorf("%d links", len(items))
	}
}

// TestBlockedStays: the table does not remove a blocked link, and does once the block is lifted.
func TestBlockedStays(t *testing.T) {
	t.Parallel()
	o := newTable(t)
	o.KeepExpired = 10 * time.Second
	s := open(t, o)
	links := generated(t, s, 1, 0)
	l := links[0]
	l.ExpiresAt = 2_000_000_000_999
	if err := s.InsertLinks(t.Context(), &terse.Chunk{Links: []terse.Link{l}}); err != nil {
		t.Fatal(err)
	}
	for i, status := range []terse.Status{terse.StatusActive, terse.StatusBlocked, terse.StatusDisabled, terse.StatusBlocked, terse.StatusActive} {
		if i > 0 {
			l.Status, l.Version = status, l.Version+1
			if err := s.UpdateLink(t.Context(), &l, l.Version-1); err != nil {
				t.Fatal(err)
			}
		}
		items := scan(t, o, "destination")
		if len(items) != 1 {
			t.Fatalf("%d links", len(items))
		}
		ttl, _ := items[0]["ttl"].(*types.AttributeValueMemberN)
		switch {
		case status == terse.StatusBlocked && items[0]["ttl"] != nil:
			t.Errorf("change %d: a blocked link has the time to live %v", i, items[0]["ttl"])
		case status != terse.StatusBlocked && (ttl == nil || ttl.Value != "2000000010"):
			t.Errorf("change %d: with status %d the time to live is %v", i, status, items[0]["ttl"])
		}
	}
}

// TestUnreachable: without the table every call says that it is unavailable, and soon.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	o := newTable(t)
	s := dying(t, o, 1)
	if err := s.Ping(t.Context()); !errors.Is(err, terse.ErrUnavailable) {
		t.Errorf("Ping: %v", err)
	}
	if _, err := s.GetAlias(t.Context(), 1, "x"); !errors.Is(err, terse.ErrUnavailable) {
		t.Errorf("GetAlias: %v", err)
	}
	o.Table = "no-such-table"
	if _, err := dynamostore.Open(t.Context(), o); !errors.Is(err, terse.ErrUnavailable) {
		t.Errorf("Open without the table: %v", err)
	}
	o.Table = ""
	if _, err := dynamostore.Open(t.Context(), o); terse.ErrorCode(err) != terse.CodeInvalid {
		t.Errorf("Open without a name: %v", err)
	}
}

// TestCreateTableAgain: a table that is there is left as it is.
func TestCreateTableAgain(t *testing.T) {
	t.Parallel()
	o := newTable(t)
	s := open(t, o)
	links := generated(t, s, 1, 0)
	if err := s.InsertLinks(t.Context(), &terse.Chunk{Links: links}); err != nil {
		t.Fatal(err)
	}
	if err := dynamostore.CreateTable(context.Background(), dynamostore.Client(o.Config, o.Endpoint), o.Table); err != nil {
		t.Fatal(err)
	}
	if n := found(t, s, links); n != 1 {
		t.Error("the link is gone")
	}
}

func TestCollector(t *testing.T) {
	t.Parallel()
	s := open(t, newTable(t))
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(s.Collector())
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, f := range families {
		m := f.GetMetric()[0]
		values[f.GetName()] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
	}
	if values["terse_store_dynamodb_requests_total"] < 1 || values["terse_store_dynamodb_concurrency_limit"] < 1 {
		t.Errorf("%v", values)
	}
	if got, want := values["terse_store_dynamodb_cost_dollars_total"], s.Usage().Cost(); got <= 0 || got != want {
		t.Errorf("it has cost $%v, want $%v", got, want)
	}
}

// TestFirstReaders: many readers that meet a chunk for the first time all see it.
func TestFirstReaders(t *testing.T) {
	t.Parallel()
	o := newTable(t)
	s := open(t, o)
	links := generated(t, s, 150, 0)
	if err := s.InsertLinks(t.Context(), &terse.Chunk{Links: links}); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		fresh := open(t, o)
		var wg sync.WaitGroup
		start := make(chan struct{})
		for g := range 32 {
			wg.Go(func() {
				<-start
				dst := make([]terse.Link, 1)
				l := links[g]
				if err := fresh.GetLinks(t.Context(), []terse.LinkKey{{Number: l.Number, Code: l.Code}}, dst); err != nil || dst[0].Number != l.Number {
					t.Errorf("got %v, %v", dst[0].Number, err)
				}
			})
		}
		close(start)
		wg.Wait()
	}
}
