package dynamostore_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/store/dynamostore"
)

// faults stands between a store and DynamoDB Local, at the HTTP layer, and does what DynamoDB may do
// to any request: throttle it, cancel its transaction for such a reason, leave items of a batch unprocessed,
// fail, and lose the reply of what it has applied.
type faults struct {
	next http.RoundTripper

	mu   sync.Mutex
	r    *rand.Rand
	rate float64 // of requests that are struck
	hits map[string]int
}

func (f *faults) draw(n int) (int, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.r.IntN(n), f.r.Float64() < f.rate
}

func (f *faults) hit(what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hits[what]++
}

var errLost = errors.New("the reply was lost")

func (f *faults) RoundTrip(r *http.Request) (*http.Response, error) {
	_, op, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	kind, strike := f.draw(5)
	if !strike {
		return f.next.RoundTrip(r)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	switch {
	case kind == 0:
		f.hit("lost reply")
		resp, err := f.next.RoundTrip(r)
		if err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			err = errLost
		}
		return nil, err
	case kind == 1:
		f.hit("internal error")
		return answer(r, 500, `{"__type":"com.amazonaws.dynamodb.v20120810#InternalServerError","message":"injected"}`), nil
	case kind == 2 && op == "TransactWriteItems":
		f.hit("cancelled")
		var in struct{ TransactItems []jsontext.Value }
		if err := json.Unmarshal(body, &in); err != nil {
			return nil, err
		}
		reasons := make([]string, len(in.TransactItems))
		for i := range reasons {
			reasons[i] = `{"Code":"None"}`
		}
		i, conflict := f.draw(len(reasons))
		reasons[i] = `{"Code":"ThrottlingError","Message":"injected"}`
		if conflict || i%2 == 0 {
			reasons[i] = `{"Code":"TransactionConflict","Message":"injected"}`
		}
		return answer(r, 400, `{"__type":"com.amazonaws.dynamodb.v20120810#TransactionCanceledException","message":"injected","CancellationReasons":[`+strings.Join(reasons, ",")+`]}`), nil
	case op == "BatchWriteItem" || op == "BatchGetItem":
		f.hit("unprocessed")
		return f.half(r, op, body)
	}
	f.hit("throttled")
	return answer(r, 400, `{"__type":"com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException","message":"injected"}`), nil
}

// half lets a part of a batch through and says that the rest is unprocessed.
func (f *faults) half(r *http.Request, op string, body []byte) (*http.Response, error) {
	var in map[string]jsontext.Value
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, err
	}
	now, later := map[string]any{}, map[string]any{}
	if op == "BatchWriteItem" {
		var items map[string][]jsontext.Value
		if err := json.Unmarshal(in["RequestItems"], &items); err != nil {
			return nil, err
		}
		for table, list := range items {
			n, _ := f.draw(len(list))
			now[table], later[table] = list[n:], list[:n]
		}
	} else {
		var items map[string]map[string]jsontext.Value
		if err := json.Unmarshal(in["RequestItems"], &items); err != nil {
			return nil, err
		}
		for table, part := range items {
			var keys []jsontext.Value
			if err := json.Unmarshal(part["Keys"], &keys); err != nil {
				return nil, err
			}
			n, _ := f.draw(len(keys))
			now[table] = map[string]any{"Keys": keys[n:], "ConsistentRead": true}
			later[table] = map[string]any{"Keys": keys[:n], "ConsistentRead": true}
			if n == 0 {
				later = map[string]any{}
			}
		}
	}
	text, err := json.Marshal(map[string]any{"RequestItems": now})
	if err != nil {
		return nil, err
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(text)), int64(len(text))
	resp, err := f.next.RoundTrip(r)
	if err != nil || resp.StatusCode != 200 {
		return resp, err
	}
	defer resp.Body.Close()
	var out map[string]any
	if err := json.UnmarshalRead(resp.Body, &out); err != nil {
		return nil, err
	}
	out[map[string]string{"BatchWriteItem": "UnprocessedItems", "BatchGetItem": "UnprocessedKeys"}[op]] = later
	if text, err = json.Marshal(out); err != nil {
		return nil, err
	}
	return answer(r, 200, string(text)), nil
}

func answer(r *http.Request, status int, body string) *http.Response {
	return &http.Response{
		StatusCode: status, Status: http.StatusText(status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header: http.Header{"Content-Type": {"application/x-amz-json-1.0"}}, ContentLength: int64(len(body)), Body: io.NopCloser(strings.NewReader(body)),
	}
}

// generated leases numbers and makes links of a campaign, or plain ones.
func generated(t testing.TB, s terse.Store, n int, campaign terse.CampaignID) []terse.Link {
	t.Helper()
	l, err := s.Lease(t.Context(), terse.LeaseRequest{Domain: 1, Space: 7, Count: uint64(n)})
	if err != nil {
		t.Fatal(err)
	}
	links := make([]terse.Link, 0, n)
	for i := l.Start; i < l.End; i++ {
		links = append(links, terse.Link{
			Number: terse.NewLinkNumber(1, 7, i), Workspace: 1, Version: 1, CreatedAt: terse.MillisOf(time.Now()), UpdatedAt: terse.MillisOf(time.Now()),
			Code: fmt.Sprintf("%07d", i), Destination: fmt.Sprintf("https://example.com/%d", i), Campaign: campaign,
		})
	}
	at := links[0].CreatedAt
	for i := range links {
		links[i].CreatedAt, links[i].UpdatedAt = at, at
	}
	return links
}

// found returns how many of the links are stored, as they are.
func found(t testing.TB, s terse.Store, links []terse.Link) int {
	t.Helper()
	n := 0
	for part := range slices.Chunk(links, 1000) {
		keys, dst := make([]terse.LinkKey, len(part)), make([]terse.Link, len(part))
		for i := range part {
			keys[i] = terse.LinkKey{Number: part[i].Number, Code: part[i].Code}
		}
		if err := s.GetLinks(t.Context(), keys, dst); err != nil {
			t.Fatal(err)
		}
		for i := range dst {
			if dst[i].Number == 0 {
				continue
			}
			if dst[i].Number != part[i].Number || dst[i].Destination != part[i].Destination || dst[i].Code != part[i].Code {
				t.Fatalf("got %+v, want %+v", dst[i], part[i])
			}
			n++
		}
	}
	return n
}

// inFeed returns how many numbers of links were inserted according to the feed, which must have no holes.
func inFeed(t testing.TB, s terse.Store, w terse.WorkspaceID) map[terse.LinkNumber]int {
	t.Helper()
	seen := map[terse.LinkNumber]int{}
	for after, idle := uint64(0), 0; idle < 50; {
		list, err := s.Changes(t.Context(), after, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) == 0 {
			idle++
			<-time.After(10 * time.Millisecond)
		}
		for _, ch := range list {
			idle = 0
			if after++; ch.Seq != after {
				t.Fatalf("change %d comes after %d", ch.Seq, after-1)
			}
			for _, r := range ch.Runs {
				for i := range r.Count {
					if ch.Workspace == w {
						seen[r.First+terse.LinkNumber(i)]++
					}
				}
			}
		}
	}
	return seen
}

// DynamoDB Local takes some 2,000 links a second on two cores.
var throttledLinks = flag.Int("throttled-links", 20_000, "links that TestThrottled inserts")

// TestThrottled inserts links by many chunks at once while many requests are struck, and
// looks at everything that a reader can see.
func TestThrottled(t *testing.T) {
	n, chunk, rate := *throttledLinks, 10_000, 1.0/12
	if testing.Short() {
		n, chunk, rate = 3_000, 1_000, 0.4
	}
	o := newTable(t)
	clean := open(t, o)
	f := &faults{r: rand.New(rand.NewPCG(1, 2)), rate: rate, hits: map[string]int{}}
	o.Config.HTTPClient = dynamostore.HTTPClient()
	hc := o.Config.HTTPClient.(*http.Client)
	f.next = hc.Transport
	hc.Transport = f
	t.Cleanup(f.next.(*http.Transport).CloseIdleConnections)
	s := open(t, o)

	const campaign = 7
	links := generated(t, clean, n, campaign)
	for i := range links {
		if i%10 == 0 {
			links[i].Campaign = 0 // plain: with a hint
		}
	}
	var wg sync.WaitGroup
	work := make(chan []terse.Link)
	for range 3 {
		wg.Go(func() {
			for part := range work {
				// What is unknown is repeated with the same numbers, as the bulk pipeline does.
				for {
					err := s.InsertLinks(t.Context(), &terse.Chunk{Links: part})
					if err == nil {
						break
					}
					if conflict, ok := errors.AsType[*terse.AliasConflictError](err); ok && len(conflict.Rows) == len(part) {
						break // it was applied
					}
					if code := terse.ErrorCode(err); code != terse.CodeUnknownOutcome && code != terse.CodeUnavailable {
						t.Errorf("InsertLinks: %v", err)
						return
					}
				}
			}
		})
	}
	for part := range slices.Chunk(links, chunk) {
		work <- part
	}
	close(work)
	wg.Wait()

	if got := found(t, clean, links); got != n {
		t.Errorf("%d links are stored, want %d", got, n)
	}
	if got, err := clean.CountLinks(t.Context(), 1, campaign); err != nil || got != uint64(n-n/10) {
		t.Errorf("CountLinks: %d, %v, want %d", got, err, n-n/10)
	}
	listed := map[terse.LinkNumber]bool{}
	for q := (terse.ListQuery{Limit: 10_000}); ; {
		p, err := clean.ListLinks(t.Context(), 1, q)
		if err != nil {
			t.Fatal(err)
		}
		for i := range p.Links {
			if listed[p.Links[i].Number] {
				t.Fatalf("%s is listed twice", p.Links[i].Number)
			}
			listed[p.Links[i].Number] = true
		}
		if q.Cursor = p.Next; q.Cursor == "" {
			break
		}
	}
	if len(listed) != n {
		t.Errorf("%d links are listed, want %d", len(listed), n)
	}
	seen := inFeed(t, clean, 1)
	for i := range links {
		if seen[links[i].Number] != 1 {
			t.Fatalf("%s is %d times in the feed", links[i].Number, seen[links[i].Number])
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, what := range []string{"lost reply", "internal error", "cancelled", "throttled", "unprocessed"} {
		if f.hits[what] == 0 {
			t.Errorf("no request was struck by %q: %v", what, f.hits)
		}
	}
	t.Logf("struck: %v; %+v", f.hits, s.Usage())
}

// cut is a process that dies: from the n-th request on nothing leaves it, and of the n-th the reply, or the
// request itself, is lost.
type cut struct {
	next  http.RoundTripper
	n     atomic.Int64
	apply bool
}

func (c *cut) RoundTrip(r *http.Request) (*http.Response, error) {
	switch n := c.n.Add(-1); {
	case n > 0:
		return c.next.RoundTrip(r)
	case n == 0 && c.apply:
		resp, err := c.next.RoundTrip(r)
		if err == nil {
			resp.Body.Close()
		}
	}
	return nil, errLost
}

// TestDeadWriter kills a writer at every request of an insert, before and after the request is applied. Others
// see all of the chunk or nothing, can insert it again, and find nothing of it twice.
func TestDeadWriter(t *testing.T) {
	o := newTable(t)
	o.AbandonAfter = time.Nanosecond // who is dead is known at once
	s := open(t, o)
	for _, kind := range []string{"small", "large", "large with a document", "named"} {
		for _, apply := range []bool{false, true} {
			if testing.Short() && (kind == "large" || kind == "named") {
				continue
			}
			t.Run(fmt.Sprintf("%s/applied %v", kind, apply), func(t *testing.T) {
				for n := int64(1); ; n++ {
					chunk := chunkOf(t, s, kind, n, apply)
					d := o
					d.Config.HTTPClient = dynamostore.HTTPClient()
					hc := d.Config.HTTPClient.(*http.Client)
					c := &cut{next: hc.Transport, apply: apply}
					c.n.Store(1 << 40)
					hc.Transport = c
					d.RetryFor = time.Nanosecond
					dying, err := dynamostore.Open(t.Context(), d)
					if err != nil {
						t.Fatal(err)
					}
					c.n.Store(n)
					err = dying.InsertLinks(t.Context(), chunk)
					_ = dying.Close()
					c.next.(*http.Transport).CloseIdleConnections()
					applied := found(t, s, chunk.Links)
					if applied != 0 && applied != len(chunk.Links) {
						t.Fatalf("request %d: %d of %d links are there", n, applied, len(chunk.Links))
					}
					if err == nil && applied == 0 {
						t.Fatalf("request %d: the insert returned nil and did nothing", n)
					}
					if err != nil && !errors.Is(err, terse.ErrUnknownOutcome) && applied != 0 {
						t.Fatalf("request %d: the insert was applied and returned %v", n, err)
					}
					again := s.InsertLinks(t.Context(), chunk)
					if conflict, ok := errors.AsType[*terse.AliasConflictError](again); again != nil && (!ok || applied == 0 || len(conflict.Rows) != len(chunk.Links)) {
						t.Fatalf("request %d: the repetition returned %v, %d links were there", n, again, applied)
					}
					if got := found(t, s, chunk.Links); got != len(chunk.Links) {
						t.Fatalf("request %d: %d links after the repetition", n, got)
					}
					for i := range chunk.Documents {
						if _, err := s.GetDocument(t.Context(), 1, chunk.Documents[i].Kind, chunk.Documents[i].ID); err != nil {
							t.Fatalf("request %d: the document: %v", n, err)
						}
					}
					if err == nil && c.n.Load() > 0 {
						return // it lived to the end
					}
				}
			})
		}
	}
	if err := s.Maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	for n, times := range inFeed(t, s, 1) {
		if times != 1 {
			t.Errorf("%s is %d times in the feed", n, times)
		}
	}
}

func chunkOf(t *testing.T, s terse.Store, kind string, n int64, apply bool) *terse.Chunk {
	t.Helper()
	name := fmt.Sprintf("%s-%d-%v", strings.ReplaceAll(kind, " ", "-"), n, apply)
	switch kind {
	case "small":
		return &terse.Chunk{Links: generated(t, s, 3, 0)}
	case "named":
		links := generated(t, s, 120, 3)
		l, err := s.Lease(t.Context(), terse.LeaseRequest{Domain: 1, Space: terse.AliasSpace, Count: 1})
		if err != nil {
			t.Fatal(err)
		}
		alias := links[0]
		alias.Number, alias.Code = terse.NewLinkNumber(1, terse.AliasSpace, l.Start), name
		alias.Reserves = terse.NewLinkNumber(1, 9, 1000+l.Start)
		return &terse.Chunk{Links: append(links, alias)}
	}
	chunk := &terse.Chunk{Links: generated(t, s, 120, 3)}
	if kind == "large with a document" {
		chunk.Documents = []terse.Document{{Workspace: 1, Kind: terse.KindLedger, ID: name, Version: 1, Data: []byte("{}")}}
	}
	return chunk
}
