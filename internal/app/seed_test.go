package app

import (
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/config"
	"github.com/terselink/terse/internal/store/pebblestore"
	"github.com/terselink/terse/internal/storecopy"
)

// TestSeed fills a folder, reads back what is in it, and is refused a second time and beside a server.
func TestSeed(t *testing.T) {
	l, err := config.Load(config.Sources{Flags: map[string]string{"data": t.TempDir()}})
	if err != nil {
		t.Fatal(err)
	}
	cfg := l.Config
	to := time.Now().UTC().Truncate(24 * time.Hour)
	shown := map[string]int{}
	o := SeedOptions{
		Links: 20_000, Clicks: 30_000, Days: 7, Conversions: 100, Seed: 5, To: to, Log: slog.New(slog.DiscardHandler),
		Progress: func(what string, done, _ int) { shown[what] = done },
	}
	if err := Seed(t.Context(), cfg, o); err != nil {
		t.Fatal(err)
	}
	if shown["clicks"] != o.Clicks || shown["links"] == 0 {
		t.Errorf("progress %v", shown)
	}
	r, err := clicks.OpenReader(filepath.Join(cfg.Data, spoolDir), clicks.Position{})
	if err != nil {
		t.Fatal(err)
	}
	links, campaigns := map[terse.LinkNumber]bool{}, map[terse.CampaignID]bool{}
	n, err := r.Next(t.Context(), 10*o.Clicks, func(c *clicks.Raw) error {
		if c.At < terse.MillisOf(to.AddDate(0, 0, -o.Days)) || c.At >= terse.MillisOf(to) {
			t.Errorf("a click at %s", c.At.Time())
		}
		links[c.Link], campaigns[c.Campaign] = true, true
		return nil
	})
	if err != nil || n != o.Clicks || len(links) < 1000 || len(campaigns) < 4 {
		t.Errorf("%d clicks on %d links of %d campaigns, %v", n, len(links), len(campaigns), err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if err := Seed(t.Context(), cfg, o); terse.ErrorCode(err) != terse.CodeInvalid {
		t.Errorf("the same again: %v", err)
	}
	o.Seed++
	o.Clicks = 10
	if err := Seed(t.Context(), cfg, o); err != nil {
		t.Errorf("more: %v", err)
	}
	rec, err := clicks.Open(clicks.Options{Dir: filepath.Join(cfg.Data, spoolDir)})
	if err != nil {
		t.Fatal(err)
	}
	o.Seed++
	if err := Seed(t.Context(), cfg, o); terse.ErrorCode(err) != terse.CodeConflict {
		t.Errorf("beside a server: %v", err)
	}
	if err := rec.Close(); err != nil {
		t.Error(err)
	}
	store, err := pebblestore.Open(filepath.Join(cfg.Data, storeDir), pebblestore.Options{Clock: func() terse.Millis { return terse.MillisOf(time.Now()) }, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	docs, err := store.ListDocuments(t.Context(), 1, terse.KindConversion, "", 1000)
	if err != nil || len(docs) < 40 || len(docs) > 200 {
		t.Errorf("%d conversions, %v", len(docs), err)
	}
	if err := store.PutDocument(t.Context(), terse.Document{Kind: terse.KindMeta, ID: storecopy.StateID, Version: 1, Data: []byte("{}")}); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Error(err)
	}
	o.Seed++
	if err := Seed(t.Context(), cfg, o); terse.ErrorCode(err) != terse.CodeConflict || !strings.Contains(err.Error(), "copy") {
		t.Errorf("into a copy that was not finished: %v", err)
	}
}
