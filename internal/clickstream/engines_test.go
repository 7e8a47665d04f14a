package clickstream_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/rueidis"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/analytics/clickhouse"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/clickstream"
	"github.com/terselink/terse/internal/redisbus"
	"github.com/terselink/terse/internal/testengine"
)

// These tests have real engines between real spools and real tables.

var quiet = slog.New(slog.DiscardHandler)

// database returns the address of a database that does not exist yet. The server that tests start is thrown away with its databases.
func database(t testing.TB) string {
	t.Helper()
	u, err := url.Parse(testengine.Address(t, testengine.ClickHouse))
	if err != nil {
		t.Fatal(err)
	}
	u.Path = fmt.Sprintf("/terse_stream_%x", rand.Uint64())
	u.RawQuery = "compress=none" // a proxy sees what is in it
	return u.String()
}

func remote(t testing.TB, address string) *redisbus.Clicks {
	t.Helper()
	c, err := redisbus.NewClicks(redisbus.ClicksOptions{
		Options: redisbus.Options{URL: address, Prefix: "test", Instance: "i"}, Secret: make([]byte, 32), Log: quiet,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func record(t testing.TB, n int) (dir string, recorder *clicks.Recorder) {
	t.Helper()
	dir = t.TempDir()
	recorder, err := clicks.Open(clicks.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := recorder.Close(); err != nil {
			t.Error(err)
		}
	})
	visit(t, recorder, n)
	return dir, recorder
}

func visit(t testing.TB, recorder *clicks.Recorder, n int) {
	t.Helper()
	for i := range n {
		c := clicks.Click{
			At: terse.MillisOf(time.Now()), Workspace: 1, Link: terse.LinkNumber(i%5000 + 1), Domain: "go.test", Code: fmt.Appendf(nil, "c%d", i%5000), Language: []byte("de"),
			Destination: "https://example.com/some/page", Referrer: []byte("https://www.example.org/"),
			UserAgent: fmt.Appendf(nil, "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/%d.0.0.0 Safari/537.36", 100+i%40),
		}
		for !recorder.Capture(uint32(i), &c) {
			if err := recorder.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := recorder.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// send sends the clicks of a spool until the test ends.
func send(t testing.TB, r clickstream.Remote, dir, name string) *clickstream.Sender {
	t.Helper()
	s := clickstream.NewSender(clickstream.SenderOptions{Remote: r, Dir: dir, Spool: name, Log: quiet})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
		_ = s.Finish(context.Background())
	})
	return s
}

// count starts an engine that counts what comes through the stream.
func count(t testing.TB, address string, r clickstream.Remote) (e *clickhouse.Engine, stop func()) {
	t.Helper()
	e, err := clickhouse.Start(t.Context(), clickhouse.Options{URL: address, Source: "worker", InsertTimeout: time.Minute, Feed: func(ctx context.Context, e *clickhouse.Engine) error {
		rc, err := clickstream.NewReceiver(clickstream.ReceiverOptions{Remote: r, Place: e.Place, Counters: clickstream.NewCounters(), Log: quiet})
		if err != nil {
			return err
		}
		return e.IngestFeed(ctx, rc)
	}})
	if err != nil {
		t.Fatal(err)
	}
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		if err := e.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return e, stop
}

// total returns how many clicks are counted; -1: the server does not answer.
func total(t testing.TB, e *clickhouse.Engine) int {
	now := time.Now()
	s, err := e.Summary(t.Context(), analytics.Query{
		Workspace: 1, From: terse.MillisOf(now.Add(-24 * time.Hour)), To: terse.MillisOf(now.Add(24 * time.Hour)), Bots: analytics.BotsInclude,
	})
	if err != nil {
		return -1
	}
	return int(s.Total)
}

// found returns how many clicks the engine looked up and found written.
func found(t *testing.T, e *clickhouse.Engine) float64 {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(e)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "terse_clickhouse_clicks_found_total" {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatal("no such metric")
	return 0
}

// reaches waits until so many clicks are counted, and fails if there are more.
func reaches(t testing.TB, e *clickhouse.Engine, want int) {
	t.Helper()
	end := time.Now().Add(5 * time.Minute)
	for {
		n := total(t, e)
		if n == want {
			return
		}
		if n > want || time.Now().After(end) {
			t.Fatalf("%d clicks are counted, %d were made", n, want)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestEngines: clicks of two nodes, while the connections of who counts are cut after the rows and before the place of the spools, and before
// entries are done; another one goes on each time; Redis is emptied and filled. Every click is counted once.
func TestEngines(t *testing.T) {
	redis := testengine.NewRedis(t)
	direct := database(t)
	houseProxy, house := testengine.NewProxy(t, direct)
	redisProxy, through := testengine.NewProxy(t, redis.URL)
	dirA, a := record(t, 3000)
	dirB, b := record(t, 20)
	r := remote(t, redis.URL)
	senderA, senderB := send(t, r, dirA, "aaaa"), send(t, r, dirB, "bbbb")
	made := 3020

	houseProxy.Cut("INSERT INTO ingest_offsets", false)
	one, stop := count(t, house, remote(t, through))
	reaches(t, one, made)
	for end := time.Now().Add(2 * time.Minute); found(t, one) == 0; time.Sleep(20 * time.Millisecond) { // the rows are seen before the places are tried
		if time.Now().After(end) {
			t.Fatal("nothing was cut between the rows and the places: the test proves little")
		}
	}
	visit(t, a, 500)
	redisProxy.Cut("XACK", false)
	made += 500
	reaches(t, one, made)
	stop()
	visit(t, b, 500)
	made += 500

	two, stop := count(t, direct, r)
	reaches(t, two, made)
	redis.Do("FLUSHALL")
	visit(t, a, 700)
	visit(t, b, 30)
	redis.Do("FLUSHALL")
	made += 730
	reaches(t, two, made)

	redis.Do("CONFIG", "SET", "maxmemory", "1")
	visit(t, a, 400)
	made += 400
	end := time.Now().Add(2 * time.Minute)
	for senderA.Trouble() == "" && time.Now().Before(end) {
		time.Sleep(20 * time.Millisecond)
	}
	if senderA.Trouble() == "" {
		t.Error("a full server, and no trouble")
	}
	reaches(t, two, made-400)
	if senderA.Stored().Compare(a.Position()) >= 0 {
		t.Error("the spool may be trimmed before its clicks are stored")
	}
	redis.Do("CONFIG", "SET", "maxmemory", "0")
	reaches(t, two, made)
	stop()
	visit(t, a, 100)
	redis.Kill()
	redis.Start()
	made += 100
	three, _ := count(t, direct, r)
	reaches(t, three, made)
	for end = time.Now().Add(2 * time.Minute); senderA.Stored() != a.Position() || senderB.Stored() != b.Position(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the spools may not be trimmed although every click is stored")
		}
	}
	reaches(t, three, made)
}

// sent waits until the stream has the clicks of a spool up to a place.
func sent(t *testing.T, redis *testengine.RedisServer, spool string, at clicks.Position) {
	t.Helper()
	option, err := rueidis.ParseURL(redis.URL)
	if err != nil {
		t.Fatal(err)
	}
	option.DisableCache = true
	c, err := rueidis.NewClient(option)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		list, err := c.Do(t.Context(), c.B().Xrange().Key(heldStream).Start("-").End("+").Build()).AsXRange()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			name, n, to, err := clickstream.ReadEntry([]byte(e.FieldValues["e"]))
			if err != nil {
				t.Fatal(err)
			}
			if name == spool && n > 0 && to == at {
				return
			}
		}
	}
	t.Fatalf("the clicks of %s do not come into the stream", spool)
}

// heldStream is the key of the stream of remote.
const heldStream = "test:{i:clicks}:stream"

// TestHeldEngines: a real server that is full, then one with no room aside, cannot keep the copy of an entry with which processes ended. The
// clicks of the other spool are counted all the time, the stream does not grow behind the entry, and with room the spool goes on by itself.
func TestHeldEngines(t *testing.T) {
	redis := testengine.NewRedis(t, "--maxmemory-policy", "noeviction")
	const stream, aside = heldStream, "test:{i:clicks}:aside"
	dirA, a := record(t, 100)
	dirB, b := record(t, 30)
	r, address := remote(t, redis.URL), database(t)
	sender := send(t, r, dirA, "aaaa")
	send(t, r, dirB, "bbbb")
	worker, stop := count(t, address, remote(t, redis.URL)) // each is another process that is killed: what it has done and not deleted, another one deletes
	reaches(t, worker, 130)
	stop()
	state := func() clickstream.State {
		st, err := r.State(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	eventually := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal(what)
			}
		}
	}
	visit(t, a, 10)
	sent(t, redis, "aaaa", a.Position())
	list, err := r.Read(t.Context(), 1000)
	if err != nil || len(list) == 0 {
		t.Fatalf("%d entries, %v", len(list), err)
	}
	last, lost := "", 0      // entry with clicks, perhaps of several
	for _, m := range list { // ten processes ended with that one in their hands
		redis.Do("XCLAIM", stream, "store", "owner", "0", m.ID, "RETRYCOUNT", "0")
		if spool, n, _, err := clickstream.ReadEntry(m.Entry); err != nil {
			t.Fatal(err)
		} else if spool == "aaaa" && n > 0 {
			last, lost = m.ID, n
		}
	}
	if lost == 0 {
		t.Fatal("no entry has clicks")
	}
	redis.Do("XCLAIM", stream, "store", "owner", "0", last, "RETRYCOUNT", "10")
	visit(t, a, 500)
	visit(t, b, 50)
	sent(t, redis, "aaaa", a.Position())
	sent(t, redis, "bbbb", b.Position())
	redis.Do("CONFIG", "SET", "maxmemory", "1")

	made := 100 + 30 + 10 - lost + 50
	worker, stop = count(t, address, remote(t, redis.URL))
	reaches(t, worker, made)
	if st := state(); st.Pending == 0 || st.Aside != 0 {
		t.Errorf("%+v: nothing waits for its copy", st)
	}
	stop()
	redis.Do("CONFIG", "SET", "maxmemory", "0")
	for range 1000 {
		redis.Do("XADD", aside, "*", "why", "full")
	}
	for range 4 {
		worker, stop = count(t, address, remote(t, redis.URL))
		for range 5 {
			visit(t, b, 100)
			visit(t, a, 100)
			made += 100
			reaches(t, worker, made)
		}
		stop()
	}
	worker, _ = count(t, address, remote(t, redis.URL))
	eventually("the stream grows behind the entry", func() bool { st := state(); return st.Pending == 1 && st.Entries <= 2 })
	redis.Do("DEL", aside)
	reaches(t, worker, made+500+2000)
	eventually("the spool may not be trimmed although every click is stored", func() bool { return sender.Stored() == a.Position() })
	if st := state(); st.Aside != 1 {
		t.Errorf("%+v: one copy is to be there", st)
	}
}

// TestOlderCopy: Redis comes back with what it had some time ago, as after the promotion of a replica that was behind: entries that are counted, some that
// were not, older marks and counts of deliveries. Every click is counted once, also when it happens again, and when nobody counted meanwhile.
func TestOlderCopy(t *testing.T) {
	redis := testengine.NewRedis(t) // it saves nothing by itself
	dirA, a := record(t, 1000)
	dirB, b := record(t, 20)
	r, address := remote(t, redis.URL), database(t)
	senderA, senderB := send(t, r, dirA, "aaaa"), send(t, r, dirB, "bbbb")
	worker, stop := count(t, address, r)
	made := 1020
	reaches(t, worker, made)
	stop()
	visit(t, a, 300)
	made += 300
	sent(t, redis, "aaaa", a.Position())
	redis.Do("SAVE")
	older := func() { redis.Kill(); redis.Start() }

	worker, stop = count(t, address, r)
	visit(t, b, 200)
	made += 200
	reaches(t, worker, made)
	for range 2 { // while it counts, and what is in the copy is counted
		older()
		visit(t, a, 100)
		visit(t, b, 10)
		made += 110
		reaches(t, worker, made)
	}
	stop()
	visit(t, a, 50)
	older() // while nobody counts: these are lost from the stream, or come after it
	visit(t, b, 50)
	made += 100
	worker, _ = count(t, address, r)
	reaches(t, worker, made)
	for end := time.Now().Add(2 * time.Minute); senderA.Stored() != a.Position() || senderB.Stored() != b.Position(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the spools may not be trimmed although every click is stored")
		}
	}
	reaches(t, worker, made)
	if st, err := r.State(t.Context()); err != nil || st.Aside != 0 {
		t.Errorf("%+v, %v: something is set aside", st, err)
	}
}

// TestFromDirect: a node that inserted its clicks itself begins to send them, and the other way round, between two starts.
func TestFromDirect(t *testing.T) {
	redis := testengine.NewRedis(t)
	address := database(t)
	dir, recorder := record(t, 1000)
	own := func() (*clickhouse.Engine, func()) {
		e, err := clickhouse.Start(t.Context(), clickhouse.Options{URL: address, Source: "aaaa", Spool: dir})
		if err != nil {
			t.Fatal(err)
		}
		return e, func() {
			if err := e.Stop(context.Background()); err != nil {
				t.Error(err)
			}
		}
	}
	e, stop := own()
	reaches(t, e, 1000)
	stop()
	visit(t, recorder, 100)
	r := remote(t, redis.URL)
	sender := send(t, r, dir, "aaaa")
	worker, stop := count(t, address, r)
	reaches(t, worker, 1100)
	for end := time.Now().Add(2 * time.Minute); sender.Stored() != recorder.Position(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the sender does not learn that its clicks are stored")
		}
	}
	stop()
	visit(t, recorder, 100)
	e, stop = own()
	reaches(t, e, 1200)
	stop()
}

const benchClicks = 200_000

// BenchmarkDirect is the way of clicks from the spool of a node into ClickHouse.
func BenchmarkDirect(b *testing.B) {
	dir, _ := record(b, benchClicks)
	n := 0
	for b.Loop() {
		e, err := clickhouse.Start(b.Context(), clickhouse.Options{URL: database(b), Source: "aaaa", Spool: dir})
		if err != nil {
			b.Fatal(err)
		}
		arrives(b, e)
		n += benchClicks
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "clicks/s")
}

// BenchmarkStream is the same way through Redis, from four nodes.
func BenchmarkStream(b *testing.B) {
	redis := testengine.NewRedis(b)
	var dirs []string
	for range 4 {
		dir, _ := record(b, benchClicks/4)
		dirs = append(dirs, dir)
	}
	r := remote(b, redis.URL)
	n := 0
	for b.Loop() {
		ctx, cancel := context.WithCancel(b.Context())
		var senders sync.WaitGroup
		for i, dir := range dirs {
			s := clickstream.NewSender(clickstream.SenderOptions{Remote: r, Dir: dir, Spool: fmt.Sprintf("%d-%d", n, i), Log: quiet})
			senders.Go(func() {
				s.Run(ctx)
				_ = s.Finish(ctx) // closes what it reads
			})
		}
		e, err := clickhouse.Start(b.Context(), clickhouse.Options{URL: database(b), Source: "worker", Feed: func(ctx context.Context, e *clickhouse.Engine) error {
			rc, err := clickstream.NewReceiver(clickstream.ReceiverOptions{Remote: r, Place: e.Place, Counters: clickstream.NewCounters(), Log: quiet})
			if err != nil {
				return err
			}
			return e.IngestFeed(ctx, rc)
		}})
		if err != nil {
			b.Fatal(err)
		}
		arrives(b, e)
		cancel()
		senders.Wait()
		redis.Do("FLUSHALL")
		n += benchClicks
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "clicks/s")
}

// arrives waits for all clicks of a benchmark, and stops the engine.
func arrives(b *testing.B, e *clickhouse.Engine) {
	b.Helper()
	for total(b, e) < benchClicks {
		time.Sleep(5 * time.Millisecond)
	}
	if err := e.Stop(context.Background()); err != nil && !errors.Is(err, context.Canceled) {
		b.Fatal(err)
	}
}
