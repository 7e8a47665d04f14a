package dynamostore

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/terselink/terse"
)

// Dump implements terse.Portable by a consistent Scan, which reads, and costs, the whole table: only a scan finds
// what nobody has the name of. The cursor is the key of the last item.
func (s *Store) Dump(ctx context.Context, after string, limit int) (terse.Part, error) {
	const op = "dump"
	if limit < 1 || limit > maxPage {
		return terse.Part{}, terse.Invalid("limit", "must be 1 to %d", maxPage)
	}
	start, err := parseKeyCursor(after)
	if err != nil {
		return terse.Part{}, err
	}
	if err := s.enter(ctx, op); err != nil {
		return terse.Part{}, err
	}
	in := &dynamodb.ScanInput{
		TableName: &s.opts.Table, ConsistentRead: aws.Bool(true), ExclusiveStartKey: start, ReturnConsumedCapacity: total,
		FilterExpression:          aws.String("begins_with(pk, :d) OR begins_with(pk, :s) OR begins_with(pk, :r) OR (deleted = :t AND NOT begins_with(pk, :o))"),
		ExpressionAttributeValues: item{":d": str("!d#"), ":s": str("!s#"), ":r": str("!r#"), ":o": str("!"), ":t": yes()},
	}
	out, o := call(ctx, s, func(ctx context.Context) (*dynamodb.ScanOutput, error) { return s.db.Scan(ctx, in) })
	if o != nil {
		return terse.Part{}, o.readErr(op)
	}
	s.counters.read(out.ConsumedCapacity)
	items, next := out.Items, out.LastEvaluatedKey
	if len(items) > limit {
		items = items[:limit]
		next = keyOf(items[limit-1]).item()
	}
	states, o := s.chunkStates(ctx, items)
	if o != nil {
		return terse.Part{}, o.readErr(op)
	}
	var part terse.Part
	for _, it := range items {
		if id, ok := getChunk(it); ok && states[id].state == aborted {
			continue // a reservation that nobody made
		}
		if err := addDumped(&part, it); err != nil {
			return terse.Part{}, err
		}
	}
	if next != nil {
		part.Next = formatKeyCursor(keyOf(next))
	}
	return part, nil
}

// addDumped adds an item to the part.
func addDumped(part *terse.Part, it item) error {
	k := keyOf(it)
	names := strings.SplitN(k.pk, "#", 3)
	if !strings.HasPrefix(k.pk, "!") {
		n := terse.LinkNumber(getNum(it, "link_number"))
		prefix := linkPK(n.Domain(), "")
		if n == 0 || !strings.HasPrefix(k.pk, prefix) || len(k.pk) == len(prefix) {
			return damaged(k.pk, fmt.Errorf("number %d", n))
		}
		part.Retired = append(part.Retired, terse.RetiredCode{Number: n, Code: k.pk[len(prefix):]})
		return nil
	}
	if len(names) != 3 {
		return damaged(k.pk, fmt.Errorf("%d parts", len(names)))
	}
	first, err := strconv.ParseUint(names[1], 10, 32)
	if err != nil {
		return damaged(k.pk, err)
	}
	if names[0] == "!d" {
		part.Documents = append(part.Documents, readDocument(terse.WorkspaceID(first), terse.Kind(names[2]), it))
		return nil
	}
	space, err := strconv.ParseUint(names[2], 10, 8)
	if err != nil || first > uint64(terse.MaxDomain) || space > uint64(terse.MaxSpace) {
		return damaged(k.pk, fmt.Errorf("no space of a domain"))
	}
	d, sp := terse.DomainID(first), terse.SpaceID(space)
	switch next := getNum(it, "next_index"); {
	case names[0] == "!s" && next > 0:
		part.Counters = append(part.Counters, terse.Counter{Domain: d, Space: sp, Next: next})
	case names[0] == "!r":
		if len(k.sk) != 8 || binary.BigEndian.Uint64([]byte(k.sk)) > terse.MaxIndex {
			return damaged(k.pk, fmt.Errorf("index of a reservation"))
		}
		part.Reserved = append(part.Reserved, terse.NewLinkNumber(d, sp, binary.BigEndian.Uint64([]byte(k.sk))))
	}
	return nil
}

func formatKeyCursor(k key) string {
	return hex.EncodeToString([]byte(k.pk)) + "." + hex.EncodeToString([]byte(k.sk))
}

// parseKeyCursor accepts what formatKeyCursor makes, and "" for the start.
func parseKeyCursor(s string) (item, error) {
	if s == "" {
		return nil, nil
	}
	pk, sk, _ := strings.Cut(s, ".")
	a, err := hex.DecodeString(pk)
	b, err2 := hex.DecodeString(sk)
	if k := (key{string(a), string(b)}); err != nil || err2 != nil || len(a) == 0 || len(b) == 0 || formatKeyCursor(k) != s {
		return nil, terse.Invalid("after", "not a cursor of this store")
	}
	return key{string(a), string(b)}.item(), nil
}

// DumpLinks implements terse.Portable: it merges the shards of the workspace as ListLinks does, oldest first. The index lags behind
// the table by moments.
func (s *Store) DumpLinks(ctx context.Context, w terse.WorkspaceID, after string, limit int) (terse.LinkPage, error) {
	const op = "dump links"
	if limit < 1 || limit > maxPage {
		return terse.LinkPage{}, terse.Invalid("limit", "must be 1 to %d", maxPage)
	}
	cursor, err := parseCursor(after)
	if err != nil {
		return terse.LinkPage{}, err
	}
	if err := s.enter(ctx, op); err != nil {
		return terse.LinkPage{}, err
	}
	from := string(position(0, 0))
	if cursor != nil {
		from = following(cursor)
	}
	shards, o := s.shardCount(ctx, w)
	if o != nil {
		return terse.LinkPage{}, o.readErr(op)
	}
	streams := make([]shardStream, shards)
	each := min(1000, 8+2*limit/shards)
	for i := range streams {
		streams[i].query = rangeQuery{pk: shardPK(w, i), from: from, index: true, oldest: true}
	}
	if o := s.fillAll(ctx, streams, each); o != nil {
		return terse.LinkPage{}, o.readErr(op)
	}
	var page terse.LinkPage
	last := ""
	for {
		t := oldest(streams)
		if t == nil {
			return page, nil
		}
		if len(page.Links) == limit {
			page.Next = cursorPrefix + hex.EncodeToString([]byte(last))
			return page, nil
		}
		last = t.head()
		if t.seen[0] {
			l, err := readLink(t.items[0])
			if err != nil {
				return terse.LinkPage{}, err
			}
			page.Links = append(page.Links, l)
		}
		t.items, t.seen = t.items[1:], t.seen[1:]
		if o := t.fill(ctx, s, each); o != nil {
			return terse.LinkPage{}, o.readErr(op)
		}
	}
}

// oldest returns the stream with the oldest link, nil if all are at their end.
func oldest(streams []shardStream) *shardStream {
	var best *shardStream
	for i := range streams {
		t := &streams[i]
		if len(t.items) > 0 && (best == nil || t.head() < best.head()) {
			best = t
		}
	}
	return best
}

// following returns the least place after one.
func following(place []byte) string {
	next := slices.Clone(place)
	for i := len(next) - 1; i >= 0; i-- {
		if next[i]++; next[i] != 0 {
			break
		}
	}
	return string(next)
}

// loadConcurrency is how many documents of a part are written at once.
const loadConcurrency = 64

// Load implements terse.Portable.
func (s *Store) Load(ctx context.Context, part *terse.Part) error {
	const op = "load"
	for i := range part.Documents {
		if err := checkDocument(&part.Documents[i]); err != nil {
			return err
		}
	}
	if err := s.enter(ctx, op); err != nil {
		return err
	}
	var items []item
	for i := range part.Documents {
		d := &part.Documents[i]
		it := documentKey(d.Workspace, d.Kind, d.ID).item()
		it["document_version"], it["data"] = num(d.Version), bin(slices.Clone(d.Data))
		items = append(items, it)
	}
	for _, r := range part.Retired {
		it := linkKey(r.Number.Domain(), r.Code).item()
		it["deleted"], it["link_number"] = yes(), num(r.Number)
		items = append(items, it)
	}
	reserved := make([]item, len(part.Reserved))
	for i, n := range part.Reserved {
		reserved[i] = reservationKey(n).item()
	}
	if o := s.putItems(ctx, reserved); o != nil {
		return o.writeErr(op)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	var once sync.Once
	var failure error
	work := make(chan item)
	for range min(loadConcurrency, s.opts.MaxConcurrency, len(items)) {
		wg.Go(func() {
			for it := range work {
				if err := s.loadItem(ctx, op, it); err != nil {
					once.Do(func() { failure = err })
					cancel()
				}
			}
		})
	}
	for _, it := range items {
		work <- it
	}
	close(work)
	wg.Wait()
	return failure
}

// loadItem puts an item whose key must be free or hold the same.
func (s *Store) loadItem(ctx context.Context, op string, it item) error {
	o := s.putNew(ctx, it)
	if o == nil {
		return nil
	}
	if o.class != condition {
		return o.writeErr(op)
	}
	have, o := s.getItem(ctx, keyOf(it))
	if o != nil {
		return o.readErr(op)
	}
	for name, v := range it {
		if !sameValue(v, have[name]) {
			return terse.ErrExists
		}
	}
	return nil
}

// sameValue compares the kinds of values that Load writes.
func sameValue(a, b types.AttributeValue) bool {
	switch a := a.(type) {
	case *types.AttributeValueMemberS:
		b, ok := b.(*types.AttributeValueMemberS)
		return ok && a.Value == b.Value
	case *types.AttributeValueMemberN:
		b, ok := b.(*types.AttributeValueMemberN)
		return ok && a.Value == b.Value
	case *types.AttributeValueMemberB:
		b, ok := b.(*types.AttributeValueMemberB)
		return ok && string(a.Value) == string(b.Value)
	case *types.AttributeValueMemberBOOL:
		b, ok := b.(*types.AttributeValueMemberBOOL)
		return ok && a.Value == b.Value
	}
	return false
}
