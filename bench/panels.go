//go:build linux

package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	_ "github.com/duckdb/duckdb-go/v2" // the peer: the same questions in plain SQL over the same files

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/analytics/duckdb"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/seed"
)

const panelDays = 30

// panelLinks is how many links n clicks are of: a million for the 100 million of the budget, and as many clicks a link with fewer.
func panelLinks(n int) int { return min(1_000_000, max(n/100, 1000)) }

// panels measures what a dashboard asks about the last 30 days: believable clicks go through the spool,
// enrichment and the engine, days are closed as they would have been, and each question is asked many
// times with a memory limit of 1 GB. Beside it plain DuckDB answers the same from the Parquet files.
func (b *bench) panels(ctx context.Context) (err error) {
	n := pick(b, b.panelClicks, 200_000)
	dir := b.panelDir
	if dir == "" {
		dir = filepath.Join(b.dir, "panels")
		defer func() { err = errors.Join(err, b.remove("panels")) }()
	}
	// A quarter past ten: the current day has clicks that are not closed.
	now := time.Date(2026, 11, 20, 10, 15, 0, 0, time.UTC)
	began := time.Now()
	made := filepath.Join(dir, fmt.Sprintf("made-%d", n)) // the spool is whole
	if _, err := os.Stat(made); err != nil {
		if err := seedSpool(dir, n, now); err != nil {
			return err
		}
		if err := os.WriteFile(made, nil, 0o600); err != nil {
			return err
		}
	}
	db, err := duckdb.Open(ctx, duckdb.Options{Dir: filepath.Join(dir, "analytics"), Record: filepath.Join(dir, "record"), MemoryLimit: 1 << 30, Clock: clockFrom(now)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	read := time.Now()
	if err := fillEngine(ctx, db, filepath.Join(dir, "spool")); err != nil {
		return err
	}
	ingested := time.Now()
	if err := db.Tidy(ctx); err != nil {
		return err
	}
	closed := time.Now()
	hasTags := filepath.Join(dir, fmt.Sprintf("tagged-%d", n)) // links have tags, and the days their numbers
	if _, err := os.Stat(hasTags); err != nil {
		if err := putTags(ctx, db, panelLinks(n)); err != nil {
			return err
		}
		if err := db.Tidy(ctx); err != nil {
			return err
		}
		if err := os.WriteFile(hasTags, nil, 0o600); err != nil {
			return err
		}
	}
	tagged := time.Now()
	files, err := filepath.Glob(filepath.Join(dir, "record", "clicks", "*", "*", "*.parquet"))
	if err != nil {
		return err
	}
	size := sizeOf(files)
	rollups, err := filepath.Glob(filepath.Join(dir, "record", "rollups", "*", "*.parquet"))
	if err != nil {
		return err
	}
	rows := db.Status(ctx).Rows
	b.report.detail("panels", "clicks read, classified and stored", "%d at %s", rows, amount(float64(rows)/ingested.Sub(read).Seconds(), "clicks/s"))
	b.report.detail("panels", "closing 30 days: Parquet and rollups", "%.0f s", closed.Sub(ingested).Seconds())
	b.report.detail("panels", "tags of these days", "%.0f s", tagged.Sub(closed).Seconds())
	b.report.detail("panels", "Parquet", "%.1f bytes a click; rollups %.1f, hot.duckdb %.1f", float64(size)/float64(rows), float64(sizeOf(rollups))/float64(rows), float64(sizeOf([]string{filepath.Join(dir, "analytics", duckdb.FileName)}))/float64(rows))
	b.say("panels: %d clicks, %.0f s to make, %.0f s to read, %.0f s to close, %.0f s for tags, %.1f B a click, rollups %.1f", rows, read.Sub(began).Seconds(), ingested.Sub(read).Seconds(), closed.Sub(ingested).Seconds(), tagged.Sub(closed).Seconds(), float64(size)/float64(rows), float64(sizeOf(rollups))/float64(rows))

	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		return err
	}
	from := time.Date(2026, 10, 22, 0, 0, 0, 0, zone)
	q := analytics.Query{Workspace: 1, Zone: zone, From: terse.MillisOf(from), To: terse.MillisOf(now), Interval: analytics.Day}
	var worst float64
	var worstName string
	for _, p := range panelsOf(db, q, panelLinks(n)) {
		times, err := askOften(ctx, pick(b, 40, 10), p.ask)
		if e, ok := errors.AsType[*terse.Error](err); ok && e.Reason == "query_timeout" {
			b.report.note("panels: %s had no answer within the deadline of a query, and is not in the figure", p.name)
			b.report.detail("panels", p.name, "no answer within the deadline of a query")
			b.say("panels: %-40s no answer within the deadline of a query", p.name)
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		p95 := quantile(times, 0.95)
		if p95 > worst {
			worst, worstName = p95, p.name
		}
		b.report.detail("panels", p.name, "p50 %.0f ms, p95 %.0f ms", quantile(times, 0.5), p95)
		b.say("panels: %-40s p50 %5.0f ms  p95 %5.0f ms", p.name, quantile(times, 0.5), p95)
	}
	peer, err := plainPanels(ctx, filepath.Join(dir, "record", "clicks"), q, pick(b, 5, 3))
	if err != nil {
		return err
	}
	var text []string
	for _, p := range peer {
		b.report.detail("panels", "plain DuckDB over the same Parquet: "+p.name, "%.0f ms median", p.ms)
		b.say("panels: plain DuckDB: %-26s %5.0f ms", p.name, p.ms)
		text = append(text, fmt.Sprintf("%s %.0f ms", p.name, p.ms))
	}
	b.report.measured("panel", worst, "%s, the slowest, over %s of 30 days; plain DuckDB over the same Parquet: %s", worstName, amount(float64(rows), "clicks"), strings.Join(text, ", "))
	return nil
}

// seedSpool writes n clicks of the days before now.
func seedSpool(dir string, n int, now time.Time) (err error) {
	o := seed.Options{Links: 1_000_000, Clicks: n, Days: panelDays, Seed: 1, To: terse.MillisOf(now), Workspace: 1}
	links := make([]seed.Link, panelLinks(n))
	for i := range links {
		links[i] = seed.Link{Number: terse.NewLinkNumber(1, 7, uint64(i)), Code: fmt.Sprintf("%07x", uint64(i)*2654435761%(1<<28))}
		if i%2 == 0 {
			links[i].Campaign = terse.CampaignID(1 + i%20)
		}
	}
	im, err := clicks.OpenImporter(clicks.ImporterOptions{Dir: filepath.Join(dir, "spool"), Seed: 1})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, im.Close()) }()
	for made := o.MakeClicks("go.example.com", links); ; {
		c := made.Next()
		if c == nil {
			return nil
		}
		if _, err := im.Write(c); err != nil {
			return err
		}
	}
}

// spoolSource is what the analytics process reads with.
type spoolSource struct {
	*clicks.Reader
	enricher *clicks.Enricher
	event    clicks.Event
	end      func()
}

func (s *spoolSource) Next(ctx context.Context, most int, fn func(*clicks.Event) error) (int, error) {
	return s.Reader.Next(ctx, most, func(raw *clicks.Raw) error {
		s.enricher.Enrich(raw, &s.event)
		return fn(&s.event)
	})
}

// Wait ends the reading: everything was written before.
func (s *spoolSource) Wait(ctx context.Context) error {
	s.end()
	<-ctx.Done()
	return ctx.Err()
}

func fillEngine(ctx context.Context, db *duckdb.DB, spool string) (err error) {
	reader, err := clicks.OpenReader(spool, db.Position())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reader.Close()) }()
	enricher, err := clicks.NewEnricher(clicks.EnricherOptions{})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return db.Ingest(ctx, &spoolSource{Reader: reader, enricher: enricher, end: func() {
		if db.Position() == reader.Position() {
			cancel()
		}
	}})
}

// putTags gives every third of the links one tag of four, and every fifth campaign one.
func putTags(ctx context.Context, db *duckdb.DB, links int) error {
	tags := []string{"sms", "email", "print", "vip"}
	b := analytics.FactBatch{Reset: true, At: 1}
	for i := 0; i < links; i += 3 {
		b.Links = append(b.Links, analytics.LinkTags{Workspace: 1, Link: terse.NewLinkNumber(1, 7, uint64(i)), New: true, Tags: tags[i%4 : i%4+1]})
	}
	for i := 5; i <= 20; i += 5 {
		b.Campaigns = append(b.Campaigns, analytics.CampaignTags{Workspace: 1, Campaign: terse.CampaignID(i), Tags: []string{"autumn"}})
	}
	return db.PutFacts(ctx, b)
}

// clockFrom returns a clock that began at a moment of the past.
func clockFrom(t time.Time) func() time.Time {
	began := time.Now()
	return func() time.Time { return t.Add(time.Since(began)) }
}

// panel is one question.
type panel struct {
	name string
	ask  func(context.Context) error
}

func panelsOf(db *duckdb.DB, q analytics.Query, links int) []panel {
	with := func(change func(*analytics.Query)) analytics.Query {
		c := q
		change(&c)
		return c
	}
	summary := func(q analytics.Query) func(context.Context) error {
		return func(ctx context.Context) error { _, err := db.Summary(ctx, q); return err }
	}
	by := func(dim analytics.Dimension) func(context.Context) error {
		c := with(func(c *analytics.Query) { c.By = dim })
		return func(ctx context.Context) error { _, err := db.Breakdown(ctx, c); return err }
	}
	series := func(q analytics.Query) func(context.Context) error {
		return func(ctx context.Context) error { _, err := db.Timeseries(ctx, q); return err }
	}
	only := func(dim analytics.Dimension, values ...string) analytics.Filter {
		return analytics.Filter{Dim: dim, Values: values}
	}
	list := []panel{
		{"summary", summary(q)},
		{"chart by day", series(q)},
		{"chart by hour", series(with(func(c *analytics.Query) { c.Interval = analytics.Hour }))},
		{"heat map", func(ctx context.Context) error {
			_, err := db.Slots(ctx, with(func(c *analytics.Query) { c.To -= c.To % 900_000 }))
			return err
		}},
		{"one link: summary", summary(with(func(c *analytics.Query) { c.Scope.Link = terse.NewLinkNumber(1, 7, 0) }))},
		{"a quiet link: summary", summary(with(func(c *analytics.Query) { c.Scope.Link = terse.NewLinkNumber(1, 7, uint64(links/2)) }))},
		{"one campaign: chart", series(with(func(c *analytics.Query) { c.Scope.Campaign = 1 }))},
		{"totals of 100 links", func(ctx context.Context) error {
			var links []terse.LinkNumber
			for i := range 100 {
				links = append(links, terse.NewLinkNumber(1, 7, uint64(i*37)))
			}
			_, err := db.LinkTotals(ctx, q.Workspace, links)
			return err
		}},
		{"one filter: summary", summary(with(func(c *analytics.Query) { c.Filters = []analytics.Filter{only(analytics.Country, "DE")} }))},
		{"crossed filters: summary", summary(with(func(c *analytics.Query) {
			c.Filters = []analytics.Filter{only(analytics.Country, "DE"), only(analytics.Device, "mobile")}
		}))},
		{"crossed filters: by source", func(ctx context.Context) error {
			_, err := db.Breakdown(ctx, with(func(c *analytics.Query) {
				c.By, c.Filters = analytics.Source, []analytics.Filter{only(analytics.Country, "DE"), only(analytics.Device, "mobile")}
			}))
			return err
		}},
		{"one tag: summary", summary(with(func(c *analytics.Query) { c.Scope.Tag = "vip" }))},
		{"by tag", by(analytics.Tag)},
		{"one tag: chart by day", series(with(func(c *analytics.Query) { c.Scope.Tag = "vip" }))},
		{"one tag: by country", func(ctx context.Context) error {
			_, err := db.Breakdown(ctx, with(func(c *analytics.Query) { c.Scope.Tag, c.By = "vip", analytics.Country }))
			return err
		}},
		{"one filter: chart by day", series(with(func(c *analytics.Query) { c.Filters = []analytics.Filter{only(analytics.Country, "DE")} }))},
	}
	for _, dim := range []analytics.Dimension{analytics.Link, analytics.Campaign, analytics.Country, analytics.Referrer, analytics.Source, analytics.Browser, analytics.Device, analytics.UTMSource, analytics.Destination} {
		list = append(list, panel{"by " + string(dim), by(dim)})
	}
	return list
}

// sizeOf returns the bytes of files.
func sizeOf(files []string) (size int64) {
	for _, f := range files {
		if info, err := os.Stat(f); err == nil {
			size += info.Size()
		}
	}
	return size
}

// askOften asks n times and returns the times in ms.
func askOften(ctx context.Context, n int, ask func(context.Context) error) ([]float64, error) {
	if err := ask(ctx); err != nil { // warm
		return nil, err
	}
	times := make([]float64, n)
	for i := range times {
		began := time.Now()
		if err := ask(ctx); err != nil {
			return nil, err
		}
		times[i] = time.Since(began).Seconds() * 1e3
	}
	return times, nil
}

func quantile(times []float64, p float64) float64 {
	sorted := slices.Sorted(slices.Values(times))
	return sorted[min(int(p*float64(len(sorted))), len(sorted)-1)]
}

type plainPanel struct {
	name string
	ms   float64
}

// plainPanels asks plain DuckDB the same in SQL that a person would write, over the files of closed days.
func plainPanels(ctx context.Context, folder string, q analytics.Query, times int) (list []plainPanel, err error) {
	db, err := sql.Open("duckdb", "?memory_limit=1GB&threads=2")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	from := fmt.Sprintf(" FROM read_parquet('%s/*/*/*.parquet') WHERE workspace_id = %d AND ts >= make_timestamp(%d) AND ts < make_timestamp(%d) AND outcome = 'redirect' AND bot = 0",
		folder, uint64(q.Workspace), int64(q.From)*1000, int64(q.To)*1000)
	for _, p := range []struct{ name, text string }{
		{"summary", "SELECT sum(c), sum(v) FROM (SELECT ts::DATE, sum(weight) AS c, count(DISTINCT visitor) FILTER (visitor <> 0) AS v" + from + " GROUP BY 1)"},
		{"chart by day", "SELECT (ts + INTERVAL 1 HOUR)::DATE AS d, ts::DATE AS u, sum(weight), count(DISTINCT visitor) FILTER (visitor <> 0)" + from + " GROUP BY d, u"},
		{"by country", "SELECT split_part(place, chr(31), 1) AS country, sum(weight) AS c" + from + " GROUP BY country ORDER BY c DESC LIMIT 10"},
		{"by link", "SELECT link_id, sum(weight) AS c" + from + " GROUP BY link_id ORDER BY c DESC LIMIT 10"},
	} {
		ask := func(ctx context.Context) (err error) {
			rows, err := db.QueryContext(ctx, p.text)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, rows.Close()) }()
			n := 0
			for rows.Next() {
				n++
			}
			if n == 0 {
				return errors.Join(errors.New("no rows"), rows.Err())
			}
			return rows.Err()
		}
		ms, err := askOften(ctx, times, ask)
		if err != nil {
			return nil, fmt.Errorf("plain DuckDB, %s: %w", p.name, err)
		}
		list = append(list, plainPanel{p.name, quantile(ms, 0.5)})
	}
	return list, nil
}
