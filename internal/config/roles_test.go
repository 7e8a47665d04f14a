package config

import (
	"strings"
	"testing"
)

// TestRoles checks which parts of the roles are refused, and that the reason is said.
func TestRoles(t *testing.T) {
	t.Parallel()
	shared := func(c *Config) {
		c.Store.Engine, c.Store.Postgres.URL, c.Redis.URL = EnginePostgres, "postgres://terse@db/terse", "redis://cache:6379"
		c.Analytics.Engine, c.Analytics.ClickHouse.URL = EngineClickHouse, "clickhouse://terse@ch:9000/terse"
	}
	for _, c := range []struct {
		name      string
		names     string
		set       func(*Config)
		key, want string // "" for none
	}{
		{name: "all, embedded", names: "worker,control,redirect"},
		{name: "redirect", names: "redirect", set: shared},
		{name: "control", names: "control", set: shared},
		{name: "control and worker", names: "control,worker", set: shared},
		{name: "redirect without analytics", names: "redirect", set: func(c *Config) { shared(c); c.Analytics = Default(16 << 30).Analytics; c.Analytics.Enabled = false }},
		{name: "embedded", names: "redirect,control", key: "role", want: "worker is missing: store.engine pebble"},
		{name: "no messages", names: "control,worker", set: func(c *Config) { shared(c); c.Redis.URL = "" }, key: "role", want: "redirect is missing: other nodes"},
		{name: "worker alone", names: "worker", set: shared},
		{name: "worker alone, embedded", names: "worker", key: "role", want: "redirect and control is missing: store.engine pebble"},
		{name: "worker and redirect", names: "redirect,worker", set: shared},
		{name: "duckdb", names: "redirect", set: func(c *Config) { shared(c); c.Analytics = Default(16 << 30).Analytics }, key: "analytics.engine", want: "duckdb counts the clicks"},
		{name: "one that there is not", names: "redirect,control,worker,edge", set: shared, key: "role", want: "not one of"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cfg := Default(16 << 30)
			if c.set != nil {
				c.set(cfg)
			}
			cfg.Role = strings.Split(c.names, ",")
			problems := cfg.Validate(16 << 30)
			if c.want == "" {
				if len(problems) > 0 {
					t.Fatalf("refused: %v", problems)
				}
				return
			}
			if len(problems) != 1 {
				t.Fatalf("got %v, want one problem", problems)
			}
			if text := problems[0].Error(); !strings.HasPrefix(text, c.key+":") || !strings.Contains(text, c.want) {
				t.Errorf("got %q, want one of %s about %q", text, c.key, c.want)
			}
		})
	}
}
