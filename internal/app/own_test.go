package app

import (
	"context"
	"log/slog"
	"testing"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/config"
	"github.com/terselink/terse/internal/domains"
	"github.com/terselink/terse/internal/store/memstore"
)

// TestOwn: referrals are direct from the domains that a workspace can make links on, and no others.
func TestOwn(t *testing.T) {
	t.Parallel()
	clock := func() terse.Millis { return 1_800_000_000_000 }
	reg, err := domains.Open(t.Context(), domains.Options{Store: memstore.New(clock), Clock: clock, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(reg.Close)
	if _, err := reg.EnsureDefault(t.Context(), "shared.example", "https"); err != nil {
		t.Fatal(err)
	}
	for w, host := range map[terse.WorkspaceID]string{1: "one.example", 2: "two.example"} {
		if _, err := reg.Create(context.Background(), w, domains.New{Host: host}, nil); err != nil {
			t.Fatal(err)
		}
	}
	s := &server{domains: reg}
	for _, tt := range []struct {
		workspace terse.WorkspaceID
		host      string
		want      bool
	}{
		{1, "one.example", true}, {1, "one.example:443", true}, {2, "one.example", false}, {2, "two.example", true},
		{1, "shared.example", true}, {2, "shared.example", true}, {0, "shared.example", true}, {0, "one.example", false},
		{1, "example", false}, {1, "", false},
	} {
		if got := s.own(tt.workspace, []byte(tt.host)); got != tt.want {
			t.Errorf("%q for workspace %d: %v", tt.host, tt.workspace, got)
		}
	}
}

// TestEnrichSettings: what the configuration says reaches those who enrich, and the default is the zero value.
func TestEnrichSettings(t *testing.T) {
	t.Parallel()
	c := &config.Config{}
	if got := enrichSettings(c); got.RefPath || len(got.Hosting) != 0 {
		t.Errorf("%+v", got)
	}
	c.Clicks.ReferrerPath, c.Clicks.HostingASNs = true, []string{"AS64496"}
	if got := enrichSettings(c); !got.RefPath || len(got.Hosting) != 1 || got.Hosting[0] != 64496 {
		t.Errorf("%+v", got)
	}
}
