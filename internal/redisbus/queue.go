package redisbus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/rueidis"

	"github.com/terselink/terse"
)

// QueueOptions configure a Queue. Every field is required.
type QueueOptions struct {
	Options
	// Version of the program: nodes of different versions have different queues, because chunks are of one version.
	Version string
	Name    string // of this node among all
	Label   string // of this node, for people
	Slots   int    // chunks that this node runs at a time
	// Secret is what all nodes of the instance know, and nobody else: chunks and outcomes are signed with what follows from it.
	Secret []byte
	Log    *slog.Logger
}

// Queue is where nodes hand chunks to each other: one stream with a consumer group, from which every entry is deleted
// when it was done. It is never trimmed. It is a prometheus.Collector.
type Queue struct {
	conn
	o      QueueOptions
	base   string // of the names of keys; the part in braces puts them on one node of a cluster
	stream string
	nodes  string // a sorted set of those that take chunks, by the time at which they said so
	log    lastWords
	waits  waits
	seal   sealer
	bad    *refusals

	runs   atomic.Int64 // of this node, open
	chunks *prometheus.CounterVec
	worked prometheus.Counter

	mu     sync.Mutex
	bytes  int           // of chunks that are handed in
	freed  chan struct{} // closed when bytes fell
	others int           // nodes that take chunks, this one not counted
	asked  time.Time     // when that was asked
	asking bool
	rest   time.Time // until then nothing is handed in: it did not work
}

const (
	group = "workers"
	// keysKeep is how long keys outlive the last who used them.
	keysKeep = 10 * time.Minute
	// maxFlightBytes bounds the chunks of one node that wait or are run elsewhere, compressed.
	maxFlightBytes = 32 << 20
	// askEvery is how often a node that hands chunks in looks who takes them.
	askEvery = time.Second
	// restAfter is how long nothing is handed in after that has failed.
	restAfter = 2 * time.Second
)

// waits are the durations by which a queue judges.
type waits struct {
	gone     time.Duration // a node that was silent for so long counts for nothing: it speaks every beatEvery
	claim    time.Duration // a chunk that was without a sign of its node for so long is taken by another one
	patience time.Duration // a chunk may wait so long for a node that takes it
	flight   time.Duration // a chunk may take so long altogether
}

var defaultWaits = waits{gone: 3 * beatEvery, claim: 10 * time.Second, patience: 5 * time.Second, flight: 45 * time.Second}

// NewQueue reads the options; nothing is connected. Returns an error of code invalid.
func NewQueue(o QueueOptions) (*Queue, error) {
	option, err := clientOption(o.URL)
	if err != nil {
		return nil, err
	}
	if len(o.Secret) < 32 {
		return nil, terse.Invalid("secret", "is shorter than 32 bytes")
	}
	base := fmt.Sprintf("%s:{%s:jobs:%s}:", o.Prefix, o.Instance, strings.NewReplacer("{", "", "}", "").Replace(o.Version))
	seal, err := newSealer(o.Secret, base)
	if err != nil {
		return nil, err
	}
	return &Queue{
		seal: seal, bad: newRefusals(o.Log),
		conn: newConn(option), o: o, base: base, stream: base + "chunks", nodes: base + "nodes", freed: make(chan struct{}), log: lastWords{log: o.Log}, waits: defaultWaits,
		chunks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "terse_job_chunks_total", Help: "Chunks of jobs that were handed to other nodes: answered, or taken back to be run here.",
		}, []string{"result"}),
		worked: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "terse_job_chunks_worked_total", Help: "Chunks of jobs of any node that this one has run.",
		}),
	}, nil
}

// Describe implements prometheus.Collector.
func (q *Queue) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(q, ch) }

// Collect implements prometheus.Collector.
func (q *Queue) Collect(ch chan<- prometheus.Metric) {
	q.chunks.Collect(ch)
	q.worked.Collect(ch)
	q.bad.count.Collect(ch)
}

// reserve waits until so many bytes more may be handed in.
func (q *Queue) reserve(ctx context.Context, n int) error {
	if n > maxFlightBytes {
		return errors.New("the chunk is too long for the queue")
	}
	for {
		q.mu.Lock()
		if q.bytes+n <= maxFlightBytes {
			q.bytes += n
			q.mu.Unlock()
			return nil
		}
		freed := q.freed
		q.mu.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (q *Queue) release(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.bytes -= n
	close(q.freed)
	q.freed = make(chan struct{})
}

// failed keeps chunks here for a while.
func (q *Queue) failed() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.rest, q.others = time.Now().Add(restAfter), 0
}

// roomFor returns how many chunks other nodes are likely to run at a time, and for every three of them one that waits: whoever
// is done must not wait for the next one, and what waits when the rows end keeps the end waiting.
func (q *Queue) roomFor(others int) int { return others * (q.o.Slots + (q.o.Slots+2)/3) }

// room returns how many chunks may be handed in at a time now.
func (q *Queue) room(ctx context.Context) int {
	q.mu.Lock()
	now := time.Now()
	ask := !q.asking && now.Sub(q.asked) >= askEvery && now.After(q.rest)
	q.asking = q.asking || ask
	others := q.others
	q.mu.Unlock()
	if !ask {
		return q.roomFor(others)
	}
	others, err := q.ask(ctx)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.asking, q.asked, q.others = false, time.Now(), others
	if err != nil {
		q.rest, q.others = q.asked.Add(restAfter), 0
	}
	return q.roomFor(q.others)
}

// ask counts the other nodes that take chunks.
func (q *Queue) ask(ctx context.Context) (others int, err error) {
	c, err := q.connect()
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, ioWithin)
	defer cancel()
	now, err := serverTime(ctx, c)
	if err != nil {
		return 0, err
	}
	names, err := c.Do(ctx, c.B().Zrangebyscore().Key(q.nodes).Min(score(now.Add(-q.waits.gone))).Max("+inf").Build()).AsStrSlice()
	for _, name := range names {
		if name != q.o.Name {
			others++
		}
	}
	return others, err
}

// announce says whether this node takes chunks. Times are those of the server: the clocks of nodes differ.
func (q *Queue) announce(ctx context.Context, c rueidis.Client) error {
	if q.runs.Load() > 0 {
		return c.Do(ctx, c.B().Zrem().Key(q.nodes).Member(q.o.Name).Build()).Error()
	}
	now, err := serverTime(ctx, c)
	if err != nil {
		return err
	}
	return firstError(c.DoMulti(ctx,
		c.B().Zadd().Key(q.nodes).ScoreMember().ScoreMember(float64(now.UnixMilli()), q.o.Name).Build(),
		c.B().Zremrangebyscore().Key(q.nodes).Min("-inf").Max(score(now.Add(-keysKeep))).Build(),
		c.B().Expire().Key(q.nodes).Seconds(seconds(keysKeep)).Build()))
}

// leave says that this node takes no more chunks.
func (q *Queue) leave(ctx context.Context) {
	c, err := q.connect()
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), ioWithin)
	defer cancel()
	err = firstError(c.DoMulti(ctx,
		c.B().Zrem().Key(q.nodes).Member(q.o.Name).Build(),
		c.B().XgroupDelconsumer().Key(q.stream).Group(group).Consumername(q.o.Name).Build()))
	if err != nil && !missing(err) {
		q.o.Log.Debug("redis was not told that this node takes no more chunks", "error", err)
	}
}

// serverTime returns what the clock of the server says.
func serverTime(ctx context.Context, c rueidis.Client) (time.Time, error) {
	parts, err := c.Do(ctx, c.B().Time().Build()).AsIntSlice()
	if err != nil || len(parts) != 2 {
		return time.Time{}, fmt.Errorf("ask redis for the time: %w", err)
	}
	return time.Unix(parts[0], parts[1]*1000), nil
}

// score is a moment as it stands in the set of nodes.
func score(t time.Time) string { return strconv.FormatInt(t.UnixMilli(), 10) }

func firstError(results []rueidis.RedisResult) error {
	for _, r := range results {
		if err := r.Error(); err != nil {
			return err
		}
	}
	return nil
}

// pack compresses what is sent.
func pack(b []byte) string { return rueidis.BinaryString(s2.Encode(nil, b)) }

// maxPacked bounds what somebody may send to be unpacked.
const maxPacked = 256 << 20

func unpack(s string) ([]byte, error) {
	n, err := s2.DecodedLen([]byte(s))
	if err != nil || n > maxPacked {
		return nil, &terse.Error{Code: terse.CodeInvalid, Message: "what came through redis cannot be read", Err: err}
	}
	return s2.Decode(nil, []byte(s))
}

// lastWords logs trouble when it changes.
type lastWords struct {
	log *slog.Logger

	mu   sync.Mutex
	last string
}

func (l *lastWords) say(message string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err == nil:
		l.last = ""
	case l.last != err.Error():
		l.last = err.Error()
		l.log.Warn(message, "error", err)
	}
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }
