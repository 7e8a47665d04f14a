package dynamostore

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/google/go-cmp/cmp"

	"github.com/terselink/terse"
)

func FuzzParseCursor(f *testing.F) {
	for _, s := range []string{"", "ddb1_", "ddb1_00000000000000010000000000000002", "ddb1_0000000000000001000000000000000A", "mem1_00000000000000010000000000000002", "ddb1_ff000000000000010000000000000002"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		b, err := parseCursor(s)
		if err != nil {
			if terse.ErrorCode(err) != terse.CodeInvalid {
				t.Fatalf("%q: %v", s, err)
			}
			return
		}
		from, to, some := bounds(&terse.ListQuery{}, b)
		if some && (from > to || s != "" && to >= string(b)) {
			t.Fatalf("%q: the range is %x to %x", s, from, to)
		}
	})
}

func FuzzParseRuns(f *testing.F) {
	f.Add([]byte{})
	f.Add(appendRuns(nil, []terse.Run{{First: 5, Count: 3}, {First: 9, Count: 1}, {First: 1 << 62, Count: 1 << 30}}))
	f.Add([]byte{0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		runs, err := parseRuns(b)
		if err != nil {
			return
		}
		again, err := parseRuns(appendRuns(nil, runs))
		if err != nil || !slices.Equal(again, runs) {
			t.Fatalf("%x is read as %v, which is read as %v, %v", b, runs, again, err)
		}
	})
}

// FuzzReadLink: whatever is in an item, it is read or refused, and what is read can be written and is the same.
func FuzzReadLink(f *testing.F) {
	f.Add("5#abc", "219902325560", "1", "7", "{}", []byte{1})
	f.Add("5#", "0", "-1", "99999999999999999999", `{"tags":["a"]}`, []byte{})
	s := &Store{}
	s.opts.setDefaults()
	f.Fuzz(func(t *testing.T, pk, number, version, at, settings string, chunk []byte) {
		n := func(v string) types.AttributeValue { return &types.AttributeValueMemberN{Value: v} }
		it := item{attrPK: str(pk), "link_number": n(number), "link_version": n(version), "created_at": n(at), "settings": str(settings), "chunk_id": bin(chunk)}
		l, err := readLink(it)
		if err != nil {
			if terse.ErrorCode(err) != terse.CodeInternal {
				t.Fatal(err)
			}
			return
		}
		out, err := s.linkItem(&l, "1#0", chunkID{})
		if err != nil {
			t.Fatal(err)
		}
		again, err := readLink(out)
		if d := cmp.Diff(l, again); err != nil || d != "" {
			t.Fatalf("%v (-want +got):\n%s", err, d)
		}
	})
}

func TestClassify(t *testing.T) {
	t.Parallel()
	reason := func(codes ...string) error {
		e := &types.TransactionCanceledException{}
		for _, c := range codes {
			e.CancellationReasons = append(e.CancellationReasons, types.CancellationReason{Code: &c})
		}
		return e
	}
	for _, tc := range []struct {
		err  error
		want class
	}{
		{nil, fine},
		{reason("None", "ConditionalCheckFailed", "TransactionConflict"), condition},
		{reason("None", "TransactionConflict"), contended},
		{reason("TransactionConflict", "ThrottlingError"), throttled},
		{reason("ProvisionedThroughputExceeded", "TransactionConflict"), throttled},
		{reason("None", "ValidationError"), refused},
		{reason(), unknown},
		{&types.ConditionalCheckFailedException{}, condition},
		{&types.ProvisionedThroughputExceededException{}, throttled},
		{&types.RequestLimitExceeded{}, throttled},
		{&types.TransactionConflictException{}, contended},
		{&types.TransactionInProgressException{}, unknown},
		{&types.InternalServerError{}, unknown},
		{&types.ResourceNotFoundException{}, refused},
		{&net.OpError{Op: "dial", Err: errors.New("refused")}, unsent},
		{&net.OpError{Op: "read", Err: errors.New("reset")}, unknown},
		{context.Canceled, unknown},
	} {
		if got := classify(tc.err); got != tc.want {
			t.Errorf("%v: class %d, want %d", tc.err, got, tc.want)
		}
	}
}

func TestLimiter(t *testing.T) {
	t.Parallel()
	now := time.Unix(1, 0)
	l := newLimiter(64, func() time.Time { return now })
	begin := l.current()
	for range begin {
		if err := l.acquire(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.acquire(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("one more than the limit: %v", err)
	}
	turn := make(chan error)
	go func() { turn <- l.acquire(t.Context()) }()
	l.release(true)
	l.release(true) // the same event
	if got, want := l.current(), begin*7/10; got != want {
		t.Errorf("the limit is %d after throttling, want %d", got, want)
	}
	for range begin - 2 {
		l.release(false)
	}
	if err := <-turn; err != nil {
		t.Fatal(err)
	}
	l.release(false)
	for range 10_000 {
		if err := l.acquire(t.Context()); err != nil {
			t.Fatal(err)
		}
		l.release(false)
	}
	if got := l.current(); got != 64 {
		t.Errorf("the limit has grown to %d, want the maximum, 64", got)
	}
	for range 100 {
		now = now.Add(time.Second)
		if err := l.acquire(t.Context()); err != nil {
			t.Fatal(err)
		}
		l.release(true)
	}
	if got := l.current(); got != 1 {
		t.Errorf("the limit has fallen to %d, want 1", got)
	}
}

func TestShards(t *testing.T) {
	t.Parallel()
	s := &Store{}
	s.opts.setDefaults()
	for n, want := range map[int]int{1: 4, 100: 4, 399: 4, 400: 8, 1000: 16, 10_000: 128, 1_000_000: 128} {
		if got := s.shardsFor(n); got != want {
			t.Errorf("%d links use %d shards, want %d", n, got, want)
		}
	}
	seen := map[int]int{}
	for i := range uint64(1280) {
		seen[shardOf(terse.NewLinkNumber(1, 7, i), 128)]++
	}
	if len(seen) != 128 || seen[0] != 10 {
		t.Errorf("1,280 consecutive numbers lie in %d shards, %d in the first", len(seen), seen[0])
	}
}

// TestCloudFormation: the template and CreateTable use the same names.
func TestCloudFormation(t *testing.T) {
	t.Parallel()
	text := CloudFormation("links")
	for _, want := range []string{`TableName: "links"`, "PAY_PER_REQUEST", "IndexName: by_workspace", "AttributeName: gsk, KeyType: RANGE", "AttributeName: ttl, Enabled: true", "PointInTimeRecoveryEnabled: true"} {
		if !strings.Contains(text, want) {
			t.Errorf("the template lacks %q:\n%s", want, text)
		}
	}
}

func TestStateCacheKeepsDecisionsOnly(t *testing.T) {
	t.Parallel()
	var c stateCache
	id := newChunkID(1)
	c.put(id, chunkState{state: pending})
	if _, ok := c.get(id); ok {
		t.Error("a pending chunk is remembered")
	}
	c.put(id, chunkState{state: committed, first: 3, count: 1})
	for range 3 * maxStates / 2 {
		c.put(newChunkID(2), chunkState{state: aborted})
	}
	if st, ok := c.get(id); !ok || st.first != 3 {
		t.Error("a decision is forgotten too early")
	}
	for range 2 * maxStates {
		c.put(newChunkID(2), chunkState{state: aborted})
	}
	if len(c.now)+len(c.old) > 2*maxStates {
		t.Errorf("%d states are kept", len(c.now)+len(c.old))
	}
}
