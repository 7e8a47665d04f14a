package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/config"
	"github.com/terselink/terse/internal/store/dynamostore"
	"github.com/terselink/terse/internal/store/pebblestore"
	"github.com/terselink/terse/internal/store/pgstore"
	"github.com/terselink/terse/internal/storecopy"
)

// CopyOptions say which store to copy where. A place is an engine, a colon and what the engine needs:
// pebble:FOLDER, a data folder; postgres:URL; dynamodb:TABLE, with ?region= and ?endpoint=. Without
// what comes after the colon the configuration says it.
type CopyOptions struct {
	From, To string
	Sample   int // links that are compared field by field; 0: 1,000
	Progress func(storecopy.Progress)
	Log      *slog.Logger
}

// Copy copies everything that one store holds into another, and verifies it (package storecopy). Nobody
// else may use either meanwhile: a server that does is noticed and keeps its store.
func Copy(ctx context.Context, cfg *config.Config, o CopyOptions) (report storecopy.Report, err error) {
	from, err := parsePlace(cfg, "from", o.From)
	if err != nil {
		return report, err
	}
	to, err := parsePlace(cfg, "to", o.To)
	if err != nil {
		return report, err
	}
	if from == to {
		return report, terse.Invalid("to", "is where the copy comes from")
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	source, err := from.open(ctx, cfg, true, o.Log, cancel)
	if err != nil {
		return report, fmt.Errorf("open the source: %w", err)
	}
	defer func() { err = errors.Join(err, source.Close()) }()
	target, err := to.open(ctx, cfg, false, o.Log, cancel)
	if err != nil {
		return report, fmt.Errorf("open the target: %w", err)
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	opts := storecopy.Options{From: source, To: target, Sample: o.Sample, Progress: o.Progress}
	if to.engine == config.EngineDynamoDB {
		opts.ByCreation, opts.Settle = true, settle
	}
	report, err = storecopy.Run(ctx, opts)
	if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	return report, err
}

// settle waits for an index that lags behind its table.
func settle(ctx context.Context, attempt int) bool {
	t := time.NewTimer(2 * time.Second)
	defer t.Stop()
	select {
	case <-t.C:
		return attempt < 15
	case <-ctx.Done():
		return false
	}
}

// copyPlace is where a store is.
type copyPlace struct {
	engine           string
	at               string // folder, URL or table
	region, endpoint string
}

func parsePlace(cfg *config.Config, field, text string) (copyPlace, error) {
	engine, at, ok := strings.Cut(text, ":")
	if engine == "postgresql" || engine == config.EnginePostgres && strings.HasPrefix(at, "//") {
		engine, at = config.EnginePostgres, text // the URL itself
	}
	p := copyPlace{engine: engine, at: at}
	switch {
	case engine == "memory" || engine == "mem":
		return p, terse.Invalid(field, "memory keeps nothing that could be copied")
	case !ok:
		return p, terse.Invalid(field, "is not of the form pebble:FOLDER, postgres:URL or dynamodb:TABLE")
	case engine == config.EnginePebble:
		if p.at == "" {
			p.at = cfg.Data
		}
		var err error
		if p.at, err = filepath.Abs(p.at); err != nil {
			return p, fmt.Errorf("read the name of the folder: %w", err)
		}
	case engine == config.EnginePostgres:
		if p.at == "" {
			p.at = cfg.Store.Postgres.URL.Reveal()
		}
		if p.at == "" {
			return p, terse.Invalid(field, "needs a URL after postgres:, or in TERSE_STORE_POSTGRES_URL")
		}
	case engine == config.EngineDynamoDB:
		table, query, _ := strings.Cut(at, "?")
		q, err := url.ParseQuery(query)
		if err != nil {
			return p, terse.Invalid(field, "what follows the ? cannot be read")
		}
		p.at, p.region, p.endpoint = cfg.Store.DynamoDB.Table, cfg.Store.DynamoDB.Region, cfg.Store.DynamoDB.Endpoint
		if table != "" {
			p.at = table
		}
		for name, v := range q {
			switch name {
			case "region":
				p.region = v[0]
			case "endpoint":
				p.endpoint = v[0]
			default:
				return p, terse.Invalid(field, "knows region and endpoint, not %q", name)
			}
		}
	default:
		return p, terse.Invalid(field, "%q is no engine: pebble, postgres, dynamodb", engine)
	}
	return p, nil
}

// open opens the store for a copy: nobody else uses it from now on, and a source is not written. lost is called if another
// takes it away.
func (p copyPlace) open(ctx context.Context, cfg *config.Config, source bool, log *slog.Logger, lost context.CancelCauseFunc) (terse.Portable, error) {
	switch p.engine {
	case config.EnginePostgres:
		pg := cfg.Store.Postgres
		s, err := pgstore.Open(ctx, pgstore.Options{
			URL: p.at, MaxConns: pg.MaxConns, Pooler: pg.Pooler, ReadOnly: source, MaintainEvery: -1, Log: log,
			// One insert is a chunk of thousands of links on a database that may be busy.
			StatementTimeout: max(pg.StatementTimeout, time.Minute), CallTimeout: 2 * time.Minute,
		})
		if err != nil {
			return nil, err
		}
		if err := s.Claim(ctx, pgstore.ClaimOptions{Wait: claimWait}); err != nil {
			return nil, errors.Join(err, s.Close())
		}
		return s, nil
	case config.EngineDynamoDB:
		return p.openDynamoDB(ctx, cfg, source, log, lost)
	}
	dir := filepath.Join(p.at, storeDir)
	if source {
		if _, err := os.Stat(dir); err != nil {
			return nil, terse.Invalid("from", "%s is no data folder of the embedded store: there is no folder %s in it", p.at, storeDir)
		}
	}
	return pebblestore.Open(dir, pebblestore.Options{CacheBytes: int64(cfg.Store.CacheBytes), ReadOnly: source, MaintainEvery: -1, Log: log})
}

func (p copyPlace) openDynamoDB(ctx context.Context, cfg *config.Config, source bool, log *slog.Logger, lost context.CancelCauseFunc) (terse.Portable, error) {
	aws, err := dynamostore.LoadConfig(ctx, p.region)
	if err != nil {
		return nil, err
	}
	o := dynamostore.Options{
		Table: p.at, Config: aws, Endpoint: p.endpoint, MaxConcurrency: cfg.Store.DynamoDB.MaxConcurrency, KeepExpired: cfg.Store.DynamoDB.KeepExpired,
		ReadOnly: source, MaintainEvery: -1, Log: log,
	}
	if o.KeepExpired == 0 {
		o.KeepExpired = time.Nanosecond // 0 means the default there
	}
	s, err := dynamostore.Open(ctx, o)
	if err != nil {
		return nil, err
	}
	host, err := os.Hostname()
	if err != nil {
		host = "node"
	}
	// The same name again: a copy that was killed goes on without waiting for itself.
	if err := s.Claim(ctx, "terse copy on "+host, tableClaimWait); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	go func() {
		select {
		case <-s.Lost():
			lost(errors.New("another process has taken over the table of the copy"))
		case <-ctx.Done():
		}
	}()
	return s, nil
}
