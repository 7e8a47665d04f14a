package redisbus

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/terselink/terse/internal/sleep"
)

const (
	// takeWait is how long a request for the next chunk waits at the server.
	takeWait = time.Second
	// beatEvery is how often a node says that it still runs its chunks.
	beatEvery = 2 * time.Second
	// claimEvery is how often a node looks for chunks of nodes that give no sign.
	claimEvery = 2 * time.Second
	// maxWork bounds the run of one chunk. Whoever needs longer gives no sign any more, and another node may take it.
	maxWork = 2 * time.Minute
	// replyWithin bounds the tries to send an outcome.
	replyWithin = 10 * time.Second
)

// task is a chunk that this node runs.
type task struct {
	id      string // of the entry
	replies string // the key of whoever handed it in
	number  string // among the chunks of its run
	chunk   string // packed
	mac     string // of all that
}

// worker is one call of Work.
type worker struct {
	q       *Queue
	run     func(ctx context.Context, chunk []byte) (outcome []byte)
	cursor  string // of the search for chunks of dead nodes
	claimAt time.Time

	mu    sync.Mutex
	tasks map[string]bool // ids
}

// busyPause is how often a node that has a run of its own looks whether it still has.
const busyPause = 100 * time.Millisecond

// Work takes chunks and has them run, until ctx ends. It returns when all have ended. While this node has a run of its own it takes
// none: it is busy with that one, and its chunks are for others.
func (q *Queue) Work(ctx context.Context, run func(ctx context.Context, chunk []byte) (outcome []byte)) {
	w := &worker{q: q, run: run, cursor: "0-0", tasks: map[string]bool{}}
	var running sync.WaitGroup
	defer func() { running.Wait(); q.leave(ctx) }()
	running.Go(func() { w.beat(ctx) })
	slots := make(chan struct{}, q.o.Slots)
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		if q.runs.Load() > 0 {
			<-slots
			if sleep.For(ctx, busyPause) != nil {
				return
			}
			continue
		}
		t, err := w.take(ctx)
		if ctx.Err() != nil {
			return
		}
		q.log.say("chunks of jobs of other nodes cannot be taken", err)
		if t == nil {
			<-slots
			if err != nil && sleep.For(ctx, retryPause) != nil {
				return
			}
			continue
		}
		w.mu.Lock()
		w.tasks[t.id] = true
		w.mu.Unlock()
		running.Go(func() {
			defer func() { <-slots }()
			w.do(ctx, t)
		})
	}
}

// take returns the next chunk; nil: there is none now.
func (w *worker) take(ctx context.Context) (*task, error) {
	q := w.q
	c, err := q.connect()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, takeWait+ioWithin)
	defer cancel()
	if time.Now().After(w.claimAt) {
		t, err := w.claim(ctx, c)
		if t != nil || err != nil {
			return t, err
		}
		w.claimAt = time.Now().Add(claimEvery)
	}
	read := c.B().Xreadgroup().Group(group, q.o.Name).Count(1).Block(takeWait.Milliseconds()).Streams().Key(q.stream).Id(">").Build()
	got, err := c.Do(ctx, read).AsXRead()
	switch {
	case rueidis.IsRedisNil(err):
		return nil, nil
	case missing(err):
		return nil, q.makeGroup(ctx, c)
	case err != nil:
		return nil, err
	}
	return q.signed(ctx, c, newTask(got[q.stream])), nil
}

// signed returns a chunk that a node has signed; nil, and the chunk is taken out of the queue, if none has.
func (q *Queue) signed(ctx context.Context, c rueidis.Client, t *task) *task {
	if t == nil || q.seal.verify(t.mac, sealedChunk, t.replies, t.number, t.chunk) {
		return t
	}
	q.bad.add(sealedChunk)
	err := firstError(c.DoMulti(ctx, c.B().Xack().Key(q.stream).Group(group).Id(t.id).Build(), c.B().Xdel().Key(q.stream).Id(t.id).Build()))
	if err != nil {
		q.o.Log.Debug("a chunk that was refused stays in the queue", "error", err)
	}
	return nil
}

// missing reports whether the server says that there is no such stream or group.
func missing(err error) bool {
	return err != nil && (strings.Contains(err.Error(), "NOGROUP") || strings.Contains(err.Error(), "no such key") || strings.Contains(err.Error(), "no longer exists"))
}

// makeGroup makes the stream and its group. Entries that are there already are for the group.
func (q *Queue) makeGroup(ctx context.Context, c rueidis.Client) error {
	made := c.DoMulti(ctx,
		c.B().XgroupCreate().Key(q.stream).Group(group).Id("0").Mkstream().Build(),
		c.B().Expire().Key(q.stream).Seconds(seconds(keysKeep)).Build())
	if err := made[0].Error(); err != nil && !strings.Contains(err.Error(), "BUSYGROUP") {
		return err
	}
	return made[1].Error()
}

// claim takes over a chunk whose node gives no sign any more; nil: there is none.
func (w *worker) claim(ctx context.Context, c rueidis.Client) (*task, error) {
	q := w.q
	idle := strconv.FormatInt(q.waits.claim.Milliseconds(), 10)
	list, err := c.Do(ctx, c.B().Xautoclaim().Key(q.stream).Group(group).Consumer(q.o.Name).MinIdleTime(idle).Start(w.cursor).Count(1).Build()).ToArray()
	switch {
	case missing(err):
		return nil, q.makeGroup(ctx, c)
	case err != nil && strings.Contains(err.Error(), "unknown command"): // before 6.2: whoever handed it in does it itself
		return nil, nil
	case err != nil || len(list) < 2:
		return nil, err
	}
	if w.cursor, err = list[0].ToString(); err != nil {
		return nil, err
	}
	entries, err := list[1].AsXRange()
	if err != nil {
		return nil, nil // an entry that was deleted: older servers say so by a null
	}
	t := q.signed(ctx, c, newTask(entries))
	if t != nil {
		q.o.Log.Info("a chunk of a job is taken over from a node that gives no sign", "chunk", t.id)
	}
	return t, nil
}

func newTask(entries []rueidis.XRangeEntry) *task {
	if len(entries) == 0 {
		return nil
	}
	e := &entries[0]
	return &task{id: e.ID, replies: e.FieldValues[fieldReplies], number: e.FieldValues[fieldNumber], chunk: e.FieldValues[fieldChunk], mac: e.FieldValues[fieldMAC]}
}

// do runs a chunk and sends the outcome. A chunk whose outcome cannot be sent stays for others.
func (w *worker) do(ctx context.Context, t *task) {
	q := w.q
	defer w.forget(t)
	outcome := []byte{}
	if chunk, err := unpack(t.chunk); err == nil {
		limited, cancel := context.WithTimeout(ctx, maxWork)
		stop := context.AfterFunc(limited, func() { w.forget(t) })
		outcome = w.run(limited, chunk)
		stop()
		cancel()
	}
	q.worked.Inc()
	// Also at a stop: what was done need not be done again.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), replyWithin)
	defer cancel()
	packed := pack(appendName(nil, q.o.Label, outcome))
	message := t.number + " " + q.seal.sign(sealedOutcome, t.replies, t.number, packed) + packed
	for {
		err := q.reply(ctx, t, message)
		if err == nil || sleep.For(ctx, retryPause) != nil {
			q.log.say("the outcome of a chunk cannot be sent", err)
			return
		}
	}
}

// reply sends an outcome and takes the chunk out of the queue.
func (q *Queue) reply(ctx context.Context, t *task, message string) error {
	c, err := q.connect()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, ioWithin)
	defer cancel()
	// A list must not be left without an end: whoever reads it may be gone.
	return c.Dedicated(func(d rueidis.DedicatedClient) error {
		return firstError(d.DoMulti(ctx,
			d.B().Multi().Build(),
			d.B().Rpush().Key(t.replies).Element(message).Build(),
			d.B().Expire().Key(t.replies).Seconds(seconds(keysKeep)).Build(),
			d.B().Xack().Key(q.stream).Group(group).Id(t.id).Build(),
			d.B().Xdel().Key(q.stream).Id(t.id).Build(),
			d.B().Exec().Build()))
	})
}

// maxName bounds the name of a node in front of an outcome, in bytes.
const maxName = 255

// appendName appends the name of the node that made an outcome, behind its length, and the outcome.
func appendName(dst []byte, name string, outcome []byte) []byte {
	name = name[:min(len(name), maxName)]
	return append(append(append(dst, byte(len(name))), name...), outcome...)
}

func cutName(b []byte) (name string, outcome []byte, ok bool) {
	if len(b) == 0 || len(b) <= int(b[0]) {
		return "", nil, false
	}
	n := 1 + int(b[0])
	return strings.ToValidUTF8(string(b[1:n]), "?"), b[n:], true
}

// forget ends the signs for a chunk.
func (w *worker) forget(t *task) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.tasks, t.id)
}

// beat says now and every beatEvery that this node is there and runs its chunks, and keeps the stream.
func (w *worker) beat(ctx context.Context) {
	for {
		if c, err := w.q.connect(); err == nil {
			call, cancel := context.WithTimeout(ctx, ioWithin)
			err := w.sign(call, c)
			cancel()
			if err != nil && ctx.Err() == nil {
				w.q.o.Log.Debug("redis was not told that this node takes chunks", "error", err)
			}
		}
		if sleep.For(ctx, beatEvery) != nil {
			return
		}
	}
}

func (w *worker) sign(ctx context.Context, c rueidis.Client) error {
	q := w.q
	if err := q.announce(ctx, c); err != nil {
		return err
	}
	w.mu.Lock()
	var ids []string
	for id := range w.tasks {
		ids = append(ids, id)
	}
	w.mu.Unlock()
	list := []rueidis.Completed{c.B().Expire().Key(q.stream).Seconds(seconds(keysKeep)).Build()}
	if len(ids) > 0 { // a claim of what one has already makes it fresh
		list = append(list, c.B().Xclaim().Key(q.stream).Group(group).Consumer(q.o.Name).MinIdleTime("0").Id(ids...).Justid().Build())
	}
	if err := firstError(c.DoMulti(ctx, list...)); err != nil && !missing(err) {
		return err
	}
	return nil
}
