package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/sleep"
)

// Engine is an analytics engine on a ClickHouse server. Open makes one, which answers nothing until Run has reached the
// server. It is a prometheus.Collector.
type Engine struct {
	o       Options
	conn    ch.Conn // of everything but questions, which could take all connections
	asking  ch.Conn // of questions
	metrics *metrics
	dialect atomic.Pointer[dialect] // nil: the server was not reached yet

	putting     sync.Mutex // held by PutFacts
	joining     sync.Mutex // held while conversions look for their clicks
	maintaining sync.Mutex // held by Tidy and Erase; before writing
	writing     sync.Mutex // held while clicks are written
	erasing     sync.Mutex // held while erased is replaced

	erased    erasures
	watermark atomic.Int64 // every click before it, in Unix ms, is in the table; 0: not known
	rejected  atomic.Int64
	count     counter

	// Of the goroutine that ingests.
	batch     batch
	buffers   columnBuffers
	inserting string          // what ids of inserts begin with
	fed       map[string]*fed // spools of a feed, by their names
	doubt     int             // clicks of the spool of this node that are looked up before they are written
	wrote     time.Time
	boot      int64
	insertSeq uint64
	offsetVer uint64
	joinNext  time.Time

	// Of the goroutine that holds maintaining.
	pruned    map[int64]string // conditions that were applied to a day by this process
	collected time.Time
	audited   time.Time
	sweptTo   terse.Millis // clicks before it were looked at for sweeps, late ones aside; 0: none by this process

	mu         sync.RWMutex
	version    string // of the server
	detail     string // why it is down, "" while it is not
	position   clicks.Position
	events     int64 // of this spool
	closed     map[int64]closed
	closedVer  uint64 // the newest version in closed
	closedRead time.Time
	openFrom   int64 // the first day that may have clicks that no rollup has
	touched    int64 // the first day that clicks came to since the last Tidy began
	lastNow    uint64
	retention  analytics.Retention
	ruled      bool // retention was set

	stop context.CancelFunc // of what Start began
	done chan struct{}
}

// Open checks the options and returns an engine. It does not speak to the server. Returns an error of code invalid for
// an address that cannot work.
func Open(o Options) (*Engine, error) {
	o.defaults()
	conn, _, err := dial(&o, true, workConns)
	if err != nil {
		return nil, err
	}
	asking, _, err := dial(&o, true, o.MaxConns)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	e := &Engine{o: o, conn: conn, asking: asking, pruned: map[int64]string{}, detail: "not reached yet", boot: o.Clock().UnixNano(), inserting: insertPrefix(o.Source)}
	e.metrics = newMetrics(e)
	return e, nil
}

// Start opens an engine and runs it until Stop.
func Start(_ context.Context, o Options) (*Engine, error) {
	e, err := Open(o)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	e.stop, e.done = cancel, make(chan struct{})
	go func() {
		defer close(e.done)
		e.Run(ctx)
	}()
	return e, nil
}

// Stop ends what Start began and closes the connections. What was not written yet stays in the spool.
func (e *Engine) Stop(ctx context.Context) error {
	if e.stop != nil {
		e.stop()
		select {
		case <-e.done:
		case <-ctx.Done(): // a server that is silent while it is greeted
		}
	}
	if err := errors.Join(e.conn.Close(), e.asking.Close()); err != nil {
		return fmt.Errorf("stop analytics: %w", err)
	}
	return nil
}

// Close is Stop.
func (e *Engine) Close() error { return e.Stop(context.Background()) }

const (
	firstRetry  = 200 * time.Millisecond
	lastRetry   = 15 * time.Second
	maintenance = 30 * time.Second
)

// Run reaches the server, ingests the spool and maintains the tables until ctx ends. Whatever fails is tried again,
// after pauses that grow; clicks wait in the spool meanwhile.
func (e *Engine) Run(ctx context.Context) {
	pause := firstRetry
	for ctx.Err() == nil {
		began := time.Now()
		err := e.session(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > lastRetry {
			pause = firstRetry
		}
		e.down(err)
		e.metrics.restarts.Inc()
		if sleep.For(ctx, pause) != nil {
			return
		}
		pause = min(2*pause, lastRetry)
	}
}

// down notes why the server cannot be used. It is logged when it changes.
func (e *Engine) down(err error) {
	detail := "tried again: " + err.Error()
	e.mu.Lock()
	changed := e.detail != detail
	e.detail = detail
	e.mu.Unlock()
	if changed {
		e.o.Log.Error("clickhouse cannot be used; clicks wait in the spool", "error", err)
	}
}

// session works until something fails.
func (e *Engine) session(ctx context.Context) error {
	if err := e.connect(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var src *clicks.EventReader
	if e.o.Spool != "" {
		var err error
		if src, err = clicks.OpenEvents(e.o.Spool, e.Position(), e.o.Enrich); err != nil {
			return fmt.Errorf("open spool: %w", err)
		}
		defer func() { _ = src.Close() }() // it was read only
	}
	e.mu.Lock()
	was := e.detail
	e.detail = ""
	e.mu.Unlock()
	if was != "" {
		e.o.Log.Info("clickhouse is in use", "version", e.version, "position", e.Position().String())
	}
	maintained := make(chan struct{})
	go func() {
		defer close(maintained)
		e.maintain(ctx)
	}()
	var err error
	switch {
	case src != nil:
		err = e.Ingest(ctx, src)
	case e.o.Feed != nil:
		err = e.o.Feed(ctx, e)
	default:
		<-ctx.Done()
	}
	cancel()
	<-maintained
	return err
}

// maintain tidies twice a minute. Trouble is logged and tried again: it stops no clicks.
func (e *Engine) maintain(ctx context.Context) {
	for {
		if err := e.Tidy(ctx); err != nil && ctx.Err() == nil {
			e.metrics.maintenance.Inc()
			e.o.Log.Error("the tables cannot be maintained; tried again", "error", err)
		}
		if sleep.For(ctx, maintenance) != nil {
			return
		}
	}
}

// loadState reads what this process must know before it answers or writes.
func (e *Engine) loadState(ctx context.Context) error {
	if err := e.readErasures(ctx); err != nil {
		return err
	}
	if _, _, err := e.readClosed(ctx); err != nil {
		return err
	}
	pos, events, ver, err := e.readOffset(ctx, e.o.Source)
	if err != nil {
		return fmt.Errorf("read position: %w", err)
	}
	e.offsetVer = max(e.offsetVer, ver)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.position, e.events = pos, events
	return nil
}

// Position returns the place in the spool before which every click is in the table.
func (e *Engine) Position() clicks.Position {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.position
}

// Recorded is Position: segments before it may be trimmed.
func (e *Engine) Recorded() clicks.Position { return e.Position() }

// Stored is Position: the server is where clicks are kept.
func (e *Engine) Stored() clicks.Position { return e.Position() }

// Rejected returns how many clicks were skipped since Open.
func (e *Engine) Rejected() int64 { return e.rejected.Load() }

// lag returns for how long clicks have not been queryable yet, in ms: 0 if there is none yet.
func (e *Engine) lag() int64 {
	w := e.watermark.Load()
	if w == 0 {
		return 0
	}
	return max(0, e.o.Clock().UnixMilli()-w)
}

// Status implements analytics.Engine.
func (e *Engine) Status(ctx context.Context) (s analytics.Status) {
	e.mu.RLock()
	s = analytics.Status{State: analytics.StateReady, Position: e.position, Detail: e.detail}
	e.mu.RUnlock()
	defer func() { s.LagMs, s.LagKnown = e.lag(), e.watermark.Load() != 0 }() // what others have counted is learned with the rows
	if e.dialect.Load() == nil || s.Detail != "" {
		s.State = analytics.StateDown
		return s
	}
	var err error
	if s.Rows, err = e.counted(ctx); err != nil {
		s.State, s.Detail = analytics.StateDown, "does not answer: "+err.Error()
	}
	return s
}

// countedFor is how long a count of the clicks is good for: a status is asked for as often as somebody likes.
const countedFor = 2 * time.Second

// counter is the newest count of the clicks.
type counter struct {
	mu   sync.Mutex
	at   time.Time
	rows int64
	err  error
}

// counted returns how many clicks there are, or why the server does not say. A change from one to the other is logged.
func (e *Engine) counted(ctx context.Context) (int64, error) {
	c := &e.count
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.at) < countedFor {
		return c.rows, c.err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second) // the answer is for others too
	defer cancel()
	err := e.scan(ctx, "SELECT toInt64(sum(rows)) FROM system.parts WHERE database = currentDatabase() AND table = 'clicks' AND active", func(r row) error { return r.Scan(&c.rows) })
	if err != nil && c.err == nil {
		e.o.Log.Warn("clickhouse does not say how many clicks there are", "error", err)
	}
	if err == nil && e.o.Spool == "" {
		e.learnWatermark(ctx)
	}
	c.at, c.err = time.Now(), err
	return c.rows, err
}

// Check reaches the server of the options once, changes nothing, and says in words what it found. Returns an error if
// the engine could not work there.
func Check(ctx context.Context, o Options) (found string, err error) {
	o.defaults()
	e, err := Open(o)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	v, err := e.conn.ServerVersion()
	database := "the database is there"
	if exceptionCode(err) == codeNoDatabase {
		own := e.conn
		defer func() { err = errors.Join(err, own.Close()) }()
		var name string
		if e.conn, name, err = dial(&e.o, false, 1); err != nil {
			e.conn = own
			return "", err
		}
		v, err = e.conn.ServerVersion()
		database = "the database " + name + " will be made"
	}
	if err != nil {
		return "", fmt.Errorf("cannot be reached: %w", err)
	}
	var readOnly, rows uint64
	if err := e.scan(ctx, "SELECT toUInt64(value) FROM system.settings WHERE name = 'readonly'", func(r row) error { return r.Scan(&readOnly) }); err != nil {
		return "", fmt.Errorf("does not answer: %w", err)
	}
	if readOnly != 0 {
		return "", &terse.Error{Code: terse.CodePrecondition, Message: "the user may only read: it needs to create tables in its database, insert and alter"}
	}
	if err := e.scan(ctx, "SELECT toUInt64(sum(rows)) FROM system.parts WHERE database = currentDatabase() AND table = 'clicks' AND active", func(r row) error { return r.Scan(&rows) }); err != nil {
		return "", fmt.Errorf("system.parts cannot be read: %w", err)
	}
	d := dialectOf(v.Version.Major, v.Version.Minor)
	return fmt.Sprintf("version %d.%d (%s dialect), %s, %d clicks", v.Version.Major, v.Version.Minor, d.name, database, rows), nil
}

var _ prometheus.Collector = (*Engine)(nil)
