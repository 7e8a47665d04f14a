package app

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/auth"
	"github.com/terselink/terse/internal/campaigns"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/config"
	"github.com/terselink/terse/internal/conversions"
	"github.com/terselink/terse/internal/domains"
	"github.com/terselink/terse/internal/links"
	"github.com/terselink/terse/internal/seed"
	"github.com/terselink/terse/internal/store/pebblestore"
	"github.com/terselink/terse/internal/storecopy"
)

// SeedOptions say how much Seed makes up.
type SeedOptions struct {
	Links, Clicks int
	Days          int // that the clicks are spread over
	Conversions   int // about as many
	Seed          uint64
	To            time.Time // the end of the last day
	Log           *slog.Logger
	// Progress is called now and then, from one goroutine.
	Progress func(what string, done, total int)
}

// Seed fills a data folder that no server uses with believable links, clicks and conversions: links through the link service, clicks
// as segments of the spool, which the next server reads as if it had recorded them. Returns an error of
// code conflict if a server uses the folder; nothing is changed then.
func Seed(ctx context.Context, cfg *config.Config, o SeedOptions) (err error) {
	if o.Links < 1 || o.Clicks < 0 || o.Days < 1 {
		return terse.Invalid("links", "there is at least one link, and one day")
	}
	if cfg.Store.Engine != config.EnginePebble {
		return terse.Invalid("store.engine", "is %s; only the embedded store is seeded", cfg.Store.Engine)
	}
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		return fmt.Errorf("make data folder: %w", err)
	}
	importer, err := clicks.OpenImporter(clicks.ImporterOptions{Dir: filepath.Join(cfg.Data, spoolDir), Seed: o.Seed})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, importer.Close()) }()
	clock := func() terse.Millis { return terse.MillisOf(time.Now()) }
	store, err := pebblestore.Open(filepath.Join(cfg.Data, storeDir), pebblestore.Options{CacheBytes: int64(cfg.Store.CacheBytes), Clock: clock, Log: o.Log})
	if err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if err := storecopy.Unfinished(ctx, store); err != nil {
		return err
	}
	s := &seeder{o: o, store: store, importer: importer, plan: seed.Options{
		Seed: o.Seed, Links: o.Links, Clicks: o.Clicks, Days: o.Days, To: terse.MillisOf(o.To), Workspace: auth.DefaultWorkspace,
	}}
	if err := s.open(ctx, cfg, clock); err != nil {
		return err
	}
	defer s.domains.Close()
	if err := s.once(ctx); err != nil {
		return err
	}
	if err := s.makeLinks(ctx); err != nil {
		return err
	}
	return s.makeClicks(ctx)
}

// seeder is one run of Seed.
type seeder struct {
	o        SeedOptions
	plan     seed.Options
	store    terse.Store
	domains  *domains.Registry
	links    *links.Service
	importer *clicks.Importer
	made     []seed.Link
}

// open makes what a first start makes: workspace, owner key and default domain.
func (s *seeder) open(ctx context.Context, cfg *config.Config, clock func() terse.Millis) (err error) {
	if s.domains, err = domains.Open(ctx, domains.Options{Store: s.store, Clock: clock, Log: s.o.Log}); err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(cfg.RedirectAddr)
	if err != nil {
		return fmt.Errorf("read redirect address: %w", err)
	}
	host := "localhost"
	if port != "80" {
		host += ":" + port
	}
	if _, err := s.domains.EnsureDefault(ctx, host, "http"); err != nil {
		return fmt.Errorf("make default domain: %w", err)
	}
	if _, _, err := auth.Bootstrap(ctx, auth.BootstrapOptions{Store: s.store, Clock: clock, Dir: cfg.Data, Key: cfg.BootstrapKey.Reveal()}); err != nil {
		return fmt.Errorf("owner key: %w", err)
	}
	// Links are older than their clicks.
	begin := s.plan.To - terse.Millis(s.o.Days+1)*86_400_000
	s.links = links.New(links.Options{
		Store: s.store, Domains: s.domains, Campaigns: campaigns.New(campaigns.Options{Store: s.store, Clock: clock}), Log: s.o.Log,
		Clock: func() terse.Millis { return begin }, MaxBulkBytes: 1 << 50,
	})
	return nil
}

// once refuses to make the same clicks twice: their ids would be the same.
func (s *seeder) once(ctx context.Context) error {
	id := fmt.Sprintf("seed-%d-%d-%d-%d", s.o.Seed, s.plan.To, s.o.Clicks, s.o.Days)
	err := s.store.PutDocument(ctx, terse.Document{Kind: terse.KindMeta, ID: id, Version: 1, Data: []byte("{}")})
	if errors.Is(err, terse.ErrExists) {
		return terse.Invalid("seed", "this data is in the folder already: use another seed")
	}
	return err
}

func (s *seeder) actor() links.Actor {
	return links.Actor{Workspace: auth.DefaultWorkspace, By: auth.OwnerSubject}
}

// makeLinks makes campaigns and links. The links of their own come first: most clicks go to them.
func (s *seeder) makeLinks(ctx context.Context) error {
	groups, own := s.plan.Plan()
	rows := s.plan.Rows()
	if err := s.bulk(ctx, links.BulkOptions{}, own, 0, rows.AppendRow); err != nil {
		return err
	}
	for _, g := range groups {
		c, err := s.links.CreateCampaign(ctx, s.actor(), links.NewCampaign{Name: g.Name, Destination: g.Destination, Tags: g.Tags}, nil)
		if err != nil {
			return fmt.Errorf("make campaign: %w", err)
		}
		if err := s.bulk(ctx, links.BulkOptions{Campaign: c.ID}, g.Links, c.ID, seed.AppendCampaignRow); err != nil {
			return err
		}
	}
	return nil
}

// bulk makes n links of rows, and keeps what clicks need of them.
func (s *seeder) bulk(ctx context.Context, o links.BulkOptions, n int, c terse.CampaignID, row func(dst []byte, i int) []byte) error {
	r, w := io.Pipe()
	go func() {
		buf := bufio.NewWriterSize(w, 1<<20)
		var line []byte
		for i := range n {
			line = row(line[:0], i)
			if _, err := buf.Write(line); err != nil {
				return // the reader has ended and says why
			}
		}
		_ = w.CloseWithError(buf.Flush()) // nil is the end
	}()
	o.In, o.Out = links.NDJSON, links.NDJSON
	results := &resultReader{s: s, campaign: c}
	sum, err := s.links.Bulk(ctx, s.actor(), o, r, results)
	if err == nil && sum.Failed > 0 {
		err = fmt.Errorf("%d links were refused", sum.Failed)
	}
	if err = errors.Join(err, results.err); err != nil {
		_ = r.CloseWithError(err)
		return fmt.Errorf("make links: %w", err)
	}
	return nil
}

// resultReader takes the results of a bulk request apart.
type resultReader struct {
	s        *seeder
	campaign terse.CampaignID
	rest     []byte
	err      error
}

func (w *resultReader) Write(b []byte) (int, error) {
	w.rest = append(w.rest, b...)
	left := w.rest
	for {
		line, rest, whole := bytes.Cut(left, []byte("\n"))
		if !whole {
			w.rest = append(w.rest[:0], left...)
			return len(b), nil
		}
		left = rest
		var row struct {
			ID   string `json:"id"`
			Code string `json:"code"`
		}
		if err := json.Unmarshal(line, &row); err != nil {
			w.err = err
			return 0, err
		}
		if row.ID != "" {
			n, err := terse.ParseLinkNumber(row.ID)
			if err != nil {
				w.err = err
				return 0, err
			}
			w.s.made = append(w.s.made, seed.Link{Number: n, Campaign: w.campaign, Code: row.Code})
			if len(w.s.made)%10_000 == 0 {
				w.s.o.Progress("links", len(w.s.made), w.s.o.Links)
			}
		}
	}
}

// conversionDays is how far back conversions may lie.
const conversionDays = 365

// makeClicks makes clicks, and conversions of some.
func (s *seeder) makeClicks(ctx context.Context) error {
	maker := s.plan.MakeClicks(s.domains.Default().Host, s.made)
	every := 0
	if s.o.Conversions > 0 {
		every = max(1, s.o.Clicks*8/10/s.o.Conversions) // about eight in ten clicks are of people and lead somewhere
	}
	service := conversions.New(conversions.Options{Store: s.store, Clock: func() terse.Millis { return s.plan.To }, Find: s.links.LookupCode})
	var batch []conversions.NewConversion
	put := func() error {
		err := service.RecordAll(ctx, s.actor(), batch)
		batch = batch[:0]
		return err
	}
	for i := 0; ; i++ {
		c := maker.Next()
		if c == nil {
			s.o.Progress("clicks", i, s.o.Clicks)
			return put()
		}
		id, err := s.importer.Write(c)
		if err != nil {
			return err
		}
		if conv, ok := maker.Converts(i, every); ok && conv.At > s.plan.To-conversionDays*86_400_000 {
			n := conversions.NewConversion{Click: id.String(), Kind: conv.Kind, Customer: conv.Customer, At: conv.At, Invoice: "made-up-" + id.String()}
			if conv.Kind == "sale" {
				n.Amount, n.Currency = conv.Amount, "EUR"
			}
			if batch = append(batch, n); len(batch) == 1000 {
				if err := put(); err != nil {
					return err
				}
			}
		}
		if i%100_000 == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			s.o.Progress("clicks", i, s.o.Clicks)
		}
	}
}
