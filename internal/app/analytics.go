package app

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/analytics/child"
	"github.com/terselink/terse/internal/analytics/clickhouse"
	"github.com/terselink/terse/internal/bucket"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/config"
)

// analyticsEngine is what a server wants of an engine.
type analyticsEngine interface {
	analytics.Engine
	analytics.FactSink
	analytics.Eraser
	prometheus.Collector
	// Stored is Recorded, and where the record is kept elsewhere the place before which it is there.
	Stored() clicks.Position
	// Recorded returns a place in the spool before which clicks are safe with the engine.
	Recorded() clicks.Position
	// SetRetention replaces how long clicks are kept; before the first call all are.
	SetRetention(ctx context.Context, r analytics.Retention) error
	Stop(ctx context.Context) error
}

// startAnalytics starts the engine that reads the spool. It does not wait until the engine answers.
func (s *server) startAnalytics(ctx context.Context, spool string) error {
	if _, err := retentionOf(s.cfg.Analytics); err != nil {
		return err
	}
	if s.cfg.Analytics.Engine == config.EngineClickHouse {
		o, err := clickHouseOptions(s.cfg)
		if err != nil {
			return fmt.Errorf("start analytics: %w", err)
		}
		o.Spool, o.Log = spool, s.log
		if s.cfg.Redis.ClickStreams && s.cfg.Has(config.RoleWorker) {
			o.Feed = s.countStreams
		}
		if s.analytics, err = clickhouse.Start(ctx, o); err != nil {
			return fmt.Errorf("start analytics: %w", err)
		}
	} else {
		if o := recordStore(s.cfg); o != nil { // what cannot work is said at the start, not by the analytics process
			b, err := bucket.Open(ctx, *o)
			if err != nil {
				return fmt.Errorf("record.s3: %w", err)
			}
			b.Close()
		}
		duck, err := child.Start(ctx, child.Options{
			Exe: s.o.AnalyticsExe, DataDir: s.cfg.Data, SpoolDir: spool, Store: recordStore(s.cfg), Log: s.log,
			MemoryLimit: int64(s.cfg.Analytics.MemoryLimit), Threads: s.cfg.Analytics.Threads, SweepLinks: cmp.Or(s.cfg.Analytics.SweepLinks, -1), Enrich: enrichSettings(s.cfg),
		})
		if err != nil {
			return fmt.Errorf("start analytics: %w", err)
		}
		s.analytics = duck
		if s.cfg.Record.Store == config.RecordS3 {
			s.registry.MustRegister(duck.RecordMetrics())
		}
	}
	s.registry.MustRegister(s.analytics)
	return nil
}

// clickHouseOptions returns the options of the configuration. It makes the name of this node's spool.
func clickHouseOptions(cfg *config.Config) (clickhouse.Options, error) {
	c := cfg.Analytics.ClickHouse
	name, err := spoolName(filepath.Join(cfg.Data, spoolNameFile))
	return clickhouse.Options{
		URL: c.URL.Reveal(), Source: name, QueryTimeout: c.QueryTimeout, InsertTimeout: c.InsertTimeout, MaxRows: c.InsertRows, MaxConns: c.MaxConns,
		SweepLinks: cmp.Or(cfg.Analytics.SweepLinks, -1), Enrich: enrichSettings(cfg),
	}, err
}

// enrichSettings returns what a valid configuration says of enrichment.
func enrichSettings(cfg *config.Config) clicks.EnrichSettings {
	asns, _ := cfg.Clicks.Hosting() // the configuration was checked
	return clicks.EnrichSettings{RefPath: cfg.Clicks.ReferrerPath, Hosting: asns}
}

// spoolNameFile holds the name by which a server that several nodes write to knows the spool of this one.
const spoolNameFile = "spool-name"

var spoolNames = regexp.MustCompile(`^[0-9a-f]{16}$`)

// spoolName reads the name, or makes one, which is durable on return.
func spoolName(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err == nil {
		name := strings.TrimSpace(string(b))
		if !spoolNames.MatchString(name) {
			return "", &terse.Error{Code: terse.CodePrecondition, Message: path + " does not hold the name of a spool; without it clicks could be counted twice"}
		}
		return name, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read name of spool: %w", err)
	}
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails
	name := hex.EncodeToString(id[:])
	if err := writeDurably(path, []byte(name+"\n")); err != nil {
		return "", fmt.Errorf("name spool: %w", err)
	}
	return name, nil
}

// retentionOf returns the rules that the analytics engine applies.
func retentionOf(a config.Analytics) (analytics.Retention, error) {
	r := analytics.Retention{Default: analytics.Terms{Raw: a.RawDays, Bots: a.BotDays}, Workspaces: map[terse.WorkspaceID]analytics.Terms{}, Rollups: a.RollupDays}
	terms, err := a.Terms()
	if err != nil {
		return r, fmt.Errorf("analytics.retention: %w", err)
	}
	for _, t := range terms {
		r.Workspaces[t.Workspace] = analytics.Terms{Raw: t.RawDays, Bots: t.BotDays}
	}
	return r, nil
}
