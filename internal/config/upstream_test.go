package config

import (
	"strings"
	"testing"
)

// TestUpstream checks what an edge node cannot be beside one, and that it needs nothing else.
func TestUpstream(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		set  func(*Config)
		want string // "": it works
	}{
		{name: "an edge", set: func(*Config) {}},
		{name: "no key", set: func(c *Config) { c.UpstreamKey = "" }, want: "upstream_key"},
		{name: "a key alone", set: func(c *Config) { c.Upstream, c.Role = "", Default(1<<33).Role }, want: "upstream_key"},
		{name: "no address", set: func(c *Config) { c.Upstream = "control.example.com" }, want: "upstream"},
		{name: "a password in the address", set: func(c *Config) { c.Upstream = "https://u:p@control.example.com" }, want: "upstream"},
		{name: "every role", set: func(c *Config) { c.Role = Default(1 << 33).Role }, want: "role"},
		{name: "a database", set: func(c *Config) { c.Store.Engine, c.Store.Postgres.URL = EnginePostgres, "postgres://db/terse" }, want: "store.engine"},
		{name: "redis", set: func(c *Config) { c.Redis.URL = "redis://cache" }, want: "redis.url"},
		{name: "clickhouse", set: func(c *Config) {
			c.Analytics.Engine, c.Analytics.ClickHouse.URL = EngineClickHouse, "clickhouse://ch/terse"
		}, want: "analytics.engine"},
	} {
		cfg := Default(1 << 33)
		cfg.Upstream, cfg.UpstreamKey, cfg.Role = "https://control.example.com", "terse_key", []string{RoleRedirect}
		c.set(cfg)
		var got []string
		for _, err := range cfg.Validate(1 << 33) {
			got = append(got, err.Error())
		}
		if all := strings.Join(got, "\n"); c.want == "" && all != "" || !strings.Contains(all, c.want) {
			t.Errorf("%s: %q", c.name, all)
		}
	}
}
