package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/cache"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/config"
	"github.com/terselink/terse/internal/sleep"
	"github.com/terselink/terse/internal/store/dynamostore"
	"github.com/terselink/terse/internal/store/pebblestore"
	"github.com/terselink/terse/internal/store/pgstore"
)

// BenchOptions say what Bench does.
type BenchOptions struct {
	Links     int // made, and then looked up
	URLLength int // of a destination, in bytes
	// Shared confirms that a database which servers may be using is written to.
	Shared bool
	Log    *slog.Logger
	// Progress is called now and then, from many goroutines, one at a time: with links, or with percents of the time for look-ups.
	Progress func(what string, done, total int)
}

// BenchReport is what Bench has measured. A rate is 0 if its part was not reached.
type BenchReport struct {
	Engine     string
	Links      int     // that were made within the time for it
	BulkRate   float64 // links a second, durable
	FirstVisit float64 // look-ups a second in the store, one link each
	Hot        float64 // look-ups a second in the memory of a node
	Clicks     float64 // captured and written a second
	Removed    int     // links, at the end
	// Of DynamoDB: units of the links that were made, and the price of a million of them in US dollars.
	WriteUnits, UnitsPerLink, CostPerMillion float64
}

const (
	// benchInsert and benchRead bound the parts of a measurement.
	benchInsert = 2 * time.Minute
	benchRead   = 5 * time.Second
	// benchRemove bounds the removal of the links, which goes on when the caller has given up.
	benchRemove = 15 * time.Minute
	// benchChunk links are one insert, as in a bulk request, and benchWriters of them are under way at once.
	benchChunk, benchWriters = 10_000, 4
	// benchReaders look links up at once: a node has so many visitors who wait for a store.
	benchReaders = 32
	// benchClicks bound the clicks that are captured, at some 150 bytes of disk each.
	benchClicks = 3_000_000
)

// What is measured is in a workspace and a campaign of its own, which have no documents, and on a domain that no node knows, far from those that are
// in use. The campaign is always the same, so that a run removes what one before it that was killed has left.
const (
	benchWorkspace = terse.WorkspaceID(1<<31 - 1)
	benchCampaign  = terse.CampaignID(1 << 62)
	benchSpace     = terse.SpaceID(7)
	benchDomains   = 1 << 12
)

// Bench measures the store of a configuration: links in bulk, look-ups of links that no memory has and of those that are in memory; and the capture of clicks. The embedded store is
// a new one in a temporary folder beside the data; a shared one is that of the servers, and everything is removed from it in the end, also when ctx ends.
// Returns what was measured until then with the error. Returns an error of code invalid if a shared store is not confirmed.
func Bench(ctx context.Context, cfg *config.Config, o BenchOptions) (report BenchReport, err error) {
	if o.Links < 1 || o.URLLength < len(benchURL) {
		return report, terse.Invalid("links", "there is at least one link, and a URL has at least %d bytes", len(benchURL))
	}
	report.Engine = cfg.Store.Engine
	shared := cfg.Store.Engine != config.EnginePebble
	if shared && !o.Shared {
		return report, terse.Invalid("store.engine", "is %s, which servers may be using: links are written to it and removed again, at its price", cfg.Store.Engine)
	}
	store, discard, err := benchStore(ctx, cfg, o.Log)
	if err != nil {
		return report, fmt.Errorf("open store: %w", err)
	}
	defer func() { err = errors.Join(err, store.Close(), discard()) }()
	b := &benchRun{o: o, store: store, report: &report, domain: terse.MaxDomain - terse.DomainID(rand.N(benchDomains))}
	b.first = rand.N(terse.MaxIndex - uint64(o.Links))
	if shared { // of an earlier run, and of this one
		if _, err := b.remove(ctx); err != nil {
			return report, err
		}
		defer func() {
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), benchRemove)
			defer cancel()
			n, rerr := b.remove(last)
			report.Removed = n
			err = errors.Join(err, rerr)
		}()
	}
	if err := b.insert(ctx); err != nil {
		return report, err
	}
	if err := b.visits(ctx); err != nil {
		return report, err
	}
	if err := b.hot(ctx); err != nil {
		return report, err
	}
	return report, b.capture(ctx, cfg)
}

// benchFolder makes a folder that is removed afterwards. The disk of the data folder is the one that counts.
func benchFolder(cfg *config.Config) (string, error) {
	at := cfg.Data
	if _, err := os.Stat(at); err != nil {
		at = filepath.Dir(filepath.Clean(at))
	}
	dir, err := os.MkdirTemp(at, ".bench-*")
	if err != nil {
		return "", fmt.Errorf("make folder: %w", err)
	}
	return dir, nil
}

// capture records clicks in a spool of its own until the time is over or there are many, and counts those that are on their way to the disk when it
// is closed. Full buffers, which drop clicks on a server, are waited for.
func (b *benchRun) capture(ctx context.Context, cfg *config.Config) (err error) {
	dir, err := benchFolder(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	recorder, err := clicks.Open(clicks.Options{Dir: filepath.Join(dir, spoolDir), BufferBytes: int(cfg.Clicks.BufferBytes), SyncEvery: cfg.Clicks.SyncEvery, Log: b.o.Log})
	if err != nil {
		return fmt.Errorf("open click spool: %w", err)
	}
	var captured atomic.Int64
	var visitors sync.WaitGroup
	began := time.Now()
	for v := range runtime.GOMAXPROCS(0) {
		visitors.Go(func() {
			c := clicks.Click{
				Workspace: benchWorkspace, Campaign: benchCampaign, Domain: "bench.invalid", Outcome: clicks.OutcomeRedirect, IP: netip.AddrFrom4([4]byte{192, 0, 2, byte(v)}),
				UserAgent: []byte("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"), Language: []byte("en-US,en;q=0.9"),
			}
			for i := 0; ctx.Err() == nil && time.Since(began) < benchRead && captured.Load() < benchClicks; i++ {
				c.Link, c.Code = terse.NewLinkNumber(b.domain, benchSpace, b.first+uint64(i%b.report.Links)), []byte(benchCode(b.first+uint64(i%b.report.Links)))
				if recorder.Capture(uint32(v), &c) {
					captured.Add(1)
				} else if sleep.For(ctx, 100*time.Microsecond) != nil {
					return
				}
				if i%4096 == 0 {
					b.progress("clicks", int(min(captured.Load(), benchClicks-1)), benchClicks)
				}
			}
		})
	}
	visitors.Wait()
	if err := recorder.Close(); err != nil {
		return fmt.Errorf("close click spool: %w", err)
	}
	b.report.Clicks = float64(captured.Load()) / time.Since(began).Seconds()
	return ctx.Err()
}

// benchStore opens the store, and returns what removes it after it was closed.
func benchStore(ctx context.Context, cfg *config.Config, log *slog.Logger) (store terse.Store, discard func() error, err error) {
	discard = func() error { return nil }
	switch cfg.Store.Engine {
	case config.EnginePostgres:
		p := cfg.Store.Postgres
		store, err = pgstore.Open(ctx, pgstore.Options{URL: p.URL.Reveal(), MaxConns: p.MaxConns, Pooler: p.Pooler, StatementTimeout: max(p.StatementTimeout, time.Minute), MaintainEvery: -1, Log: log})
		return store, discard, err
	case config.EngineDynamoDB:
		t := cfg.Store.DynamoDB
		aws, err := dynamostore.LoadConfig(ctx, t.Region)
		if err != nil {
			return nil, nil, err
		}
		store, err = dynamostore.Open(ctx, dynamostore.Options{Table: t.Table, Config: aws, Endpoint: t.Endpoint, MaxConcurrency: t.MaxConcurrency, KeepExpired: -1, MaintainEvery: -1, Log: log})
		return store, discard, err
	}
	dir, err := benchFolder(cfg)
	if err != nil {
		return nil, nil, err
	}
	store, err = pebblestore.Open(filepath.Join(dir, storeDir), pebblestore.Options{CacheBytes: int64(cfg.Store.CacheBytes), MaintainEvery: -1, Log: log})
	if err != nil {
		return nil, nil, errors.Join(err, os.RemoveAll(dir))
	}
	return store, func() error { return os.RemoveAll(dir) }, nil
}

// benchRun is one run of Bench.
type benchRun struct {
	o      BenchOptions
	store  terse.Store
	report *BenchReport
	domain terse.DomainID
	first  uint64 // index of the first link

	mu   sync.Mutex
	said time.Time
}

const benchURL = "https://bench.invalid/000000000/"

// link returns the link with a number among those of the run.
func (b *benchRun) link(i int, now terse.Millis) terse.Link {
	url := fmt.Sprintf("https://bench.invalid/%09d/", i)
	return terse.Link{
		Number: terse.NewLinkNumber(b.domain, benchSpace, b.first+uint64(i)), Code: benchCode(b.first + uint64(i)), Workspace: benchWorkspace, Campaign: benchCampaign,
		Version: 1, CreatedAt: now, UpdatedAt: now, Destination: url + strings.Repeat("x", b.o.URLLength-len(url)),
	}
}

// benchCode is a code of eight characters.
func benchCode(index uint64) string {
	const letters = "abcdefghjkmnpqrstuvwxyz23456789_"
	var code [8]byte
	for i := range code {
		code[i] = letters[index%32]
		index /= 32
	}
	return string(code[:])
}

func (b *benchRun) progress(what string, done, total int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now := time.Now(); b.o.Progress != nil && (done >= total || now.Sub(b.said) > time.Second) {
		b.said = now
		b.o.Progress(what, done, total)
	}
}

// insert makes the links in chunks, as a bulk request does, until all are made or the time is over.
func (b *benchRun) insert(ctx context.Context) error {
	var before dynamostore.Usage
	dynamo, counts := b.store.(*dynamostore.Store)
	if counts {
		before = dynamo.Usage()
	}
	now := terse.MillisOf(time.Now())
	var next, made atomic.Int64
	errs := make([]error, benchWriters)
	var writers sync.WaitGroup
	began := time.Now()
	for w := range benchWriters {
		writers.Go(func() {
			list := make([]terse.Link, 0, benchChunk)
			for errs[w] == nil && ctx.Err() == nil && time.Since(began) < benchInsert {
				from := int(next.Add(benchChunk)) - benchChunk
				if from >= b.o.Links {
					return
				}
				list = list[:0]
				for i := from; i < min(from+benchChunk, b.o.Links); i++ {
					list = append(list, b.link(i, now))
				}
				if errs[w] = b.store.InsertLinks(ctx, &terse.Chunk{Links: list}); errs[w] == nil {
					b.progress("links", int(made.Add(int64(len(list)))), b.o.Links)
				}
			}
		})
	}
	writers.Wait()
	took := time.Since(began)
	b.report.Links = int(made.Load())
	b.report.BulkRate = float64(made.Load()) / took.Seconds()
	if n := float64(made.Load()); counts && n > 0 {
		used := dynamo.Usage()
		used.WriteUnits -= before.WriteUnits
		used.ReadUnits -= before.ReadUnits
		b.report.WriteUnits, b.report.UnitsPerLink, b.report.CostPerMillion = used.WriteUnits, used.WriteUnits/n, used.Cost()/n*1e6
	}
	return errors.Join(append(errs, ctx.Err())...)
}

// visits looks links up in the store, each in a request of its own, in no order: what the first visit of a link costs that no memory has.
func (b *benchRun) visits(ctx context.Context) (err error) {
	b.report.FirstVisit, err = b.lookUp(ctx, "first visits", benchReaders, 1, func(ctx context.Context, i int) error {
		l := b.link(i, 0)
		found := [1]terse.Link{}
		if err := b.store.GetLinks(ctx, []terse.LinkKey{{Number: l.Number, Code: l.Code}}, found[:]); err != nil {
			return err
		}
		if found[0].Destination != l.Destination {
			return &terse.Error{Code: terse.CodeInternal, Message: "a link that was made is not what the store says it is"}
		}
		return nil
	})
	return err
}

// hot looks links up in the memory of a node, which has them all.
func (b *benchRun) hot(ctx context.Context) (err error) {
	const most = 100_000
	keys := make([][]byte, min(b.report.Links, most))
	memory, err := cache.New(cache.Options[terse.Link]{
		Clock: func() terse.Millis { return terse.MillisOf(time.Now()) }, MaxBytes: 1 << 30,
		Load: func(_ context.Context, _ terse.DomainID, code []byte) (cache.Loaded[terse.Link], error) {
			l := terse.Link{Code: string(code), Version: 1}
			return cache.Loaded[terse.Link]{Value: l, Number: 1, Version: 1}, nil
		},
	})
	if err != nil {
		return err
	}
	defer memory.Close()
	for i := range keys {
		keys[i] = cache.AppendKey(nil, b.domain, benchCode(b.first+uint64(i)))
		if _, err := memory.Fetch(keys[i]); err != nil {
			return err
		}
	}
	now := terse.MillisOf(time.Now())
	var missed atomic.Int64
	b.report.Hot, err = b.lookUp(ctx, "hot look-ups", runtime.GOMAXPROCS(0), 4096, func(_ context.Context, i int) error {
		if memory.Get(keys[i%len(keys)], now) == nil {
			missed.Add(1)
		}
		return nil
	})
	if n := missed.Load(); err == nil && n > 0 {
		err = fmt.Errorf("%d look-ups found nothing in memory", n)
	}
	return err
}

// lookUp asks for links in no order, with so many readers, until the time is over or something fails, and returns how many a second. together are
// asked for between two looks at the clock.
func (b *benchRun) lookUp(ctx context.Context, what string, readers, together int, one func(ctx context.Context, i int) error) (float64, error) {
	if b.report.Links == 0 {
		return 0, terse.ErrNotFound
	}
	var done atomic.Int64
	errs := make([]error, readers)
	var wg sync.WaitGroup
	began := time.Now()
	for r := range readers {
		wg.Go(func() {
			draw := rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
			for errs[r] == nil && ctx.Err() == nil && time.Since(began) < benchRead {
				for range together {
					if errs[r] = one(ctx, draw.IntN(b.report.Links)); errs[r] != nil {
						return
					}
				}
				done.Add(int64(together))
				b.progress(what, int(min(time.Since(began)*100/benchRead, 99)), 100)
			}
		})
	}
	wg.Wait()
	return float64(done.Load()) / time.Since(began).Seconds(), errors.Join(append(errs, ctx.Err())...)
}

// remove takes away the links of this run and of earlier ones.
func (b *benchRun) remove(ctx context.Context) (removed int, err error) {
	for {
		n, err := b.store.PurgeLinks(ctx, benchWorkspace, benchCampaign, benchChunk)
		if err != nil {
			return removed, fmt.Errorf("remove links (the next terse bench does): %w", err)
		}
		if n == 0 {
			return removed, nil
		}
		removed += n
		b.progress("removed", removed, max(b.report.Links, removed))
	}
}
