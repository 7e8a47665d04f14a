package config

import (
	"strings"
	"testing"
)

// TestRedis checks which addresses are refused, and that no message shows the password.
func TestRedis(t *testing.T) {
	t.Parallel()
	const good = "redis://terse:hunter2@redis:6379/0"
	for _, c := range []struct {
		name, engine, url, prefix string
		key, want                 string // "" for none
		cache, replica            bool
	}{
		{name: "none", engine: EnginePostgres},
		{name: "with a database", engine: EnginePostgres, url: good},
		{name: "with TLS", engine: EngineDynamoDB, url: "rediss://redis.example.com"},
		{name: "embedded", engine: EnginePebble, url: good, key: "redis.url", want: "store.engine is pebble"},
		{name: "another scheme", engine: EnginePostgres, url: "http://terse:hunter2@redis/0", key: "redis.url", want: "begins with redis://"},
		{name: "no host", engine: EnginePostgres, url: "redis://:hunter2@/0", key: "redis.url", want: "names no host"},
		{name: "a database with a name", engine: EnginePostgres, url: "redis://:hunter2@redis/links", key: "redis.url", want: "number of a database"},
		{name: "a password that is not escaped", engine: EnginePostgres, url: "redis://:hunter2%zz@redis/0", key: "redis.url", want: "%XX"},
		{name: "a prefix with a space", engine: EnginePostgres, url: good, prefix: "my links", key: "redis.prefix", want: "1 to 64"},
		{name: "a link cache", engine: EnginePostgres, url: good, cache: true},
		{name: "a link cache in nothing", engine: EnginePostgres, cache: true, key: "redis.link_cache", want: "without redis.url"},
		{name: "a link cache of a replica", engine: EnginePostgres, url: good, cache: true, replica: true, key: "redis.link_cache", want: "may be old"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cfg := Default(16 << 30)
			cfg.Store.Engine, cfg.Redis.URL = c.engine, Secret(c.url)
			if c.engine == EnginePostgres {
				cfg.Store.Postgres.URL = "postgres://terse@db/terse"
			}
			cfg.Redis.LinkCache = c.cache
			if c.replica {
				cfg.Store.Postgres.ReplicaURL = "postgres://terse@replica/terse"
			}
			if c.prefix != "" {
				cfg.Redis.Prefix = c.prefix
			}
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
			text := problems[0].Error()
			if !strings.HasPrefix(text, c.key+":") || !strings.Contains(text, c.want) || strings.Contains(text, "hunter2") {
				t.Errorf("got %q, want one of %s about %q without the password", text, c.key, c.want)
			}
		})
	}
}

// TestClickStreams: a way for clicks that leads nowhere is refused, and nodes that only send want no ClickHouse.
func TestClickStreams(t *testing.T) {
	t.Parallel()
	const house = "clickhouse://terse@ch:9000/terse"
	for _, c := range []struct {
		name      string
		change    func(*Config)
		key, want string // "" for none
	}{
		{"every role", func(*Config) {}, "", ""},
		{"only redirects, without the server", func(c *Config) { c.Role, c.Analytics.ClickHouse.URL = []string{RoleRedirect}, "" }, "", ""},
		{"only redirects", func(c *Config) { c.Role = []string{RoleRedirect} }, "", ""},
		{"only works", func(c *Config) { c.Role = []string{RoleWorker} }, "", ""},
		{"redirects and works, without the server", func(c *Config) {
			c.Role, c.Analytics.ClickHouse.URL = []string{RoleRedirect, RoleWorker}, ""
		}, "analytics.clickhouse.url", "is missing"},
		{"without Redis", func(c *Config) { c.Redis.URL = "" }, "redis.click_streams", "without redis.url"},
		{"DuckDB", func(c *Config) { c.Analytics.Engine, c.Analytics.ClickHouse.URL = EngineDuckDB, "" }, "redis.click_streams", "analytics.engine is duckdb"},
		{"nobody counts", func(c *Config) { c.Analytics.Enabled = false }, "redis.click_streams", "analytics.enabled is false"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cfg := Default(16 << 30)
			cfg.Store.Engine, cfg.Store.Postgres.URL = EnginePostgres, "postgres://terse@db/terse"
			cfg.Redis.URL, cfg.Redis.ClickStreams = "redis://redis:6379/0", true
			cfg.Analytics.Engine, cfg.Analytics.ClickHouse.URL = EngineClickHouse, house
			c.change(cfg)
			problems := cfg.Validate(16 << 30)
			if c.key == "" {
				if len(problems) > 0 {
					t.Errorf("refused: %v", problems)
				}
				return
			}
			if len(problems) != 1 || !strings.HasPrefix(problems[0].Error(), c.key+":") || !strings.Contains(problems[0].Error(), c.want) {
				t.Errorf("got %v, want one of %s about %q", problems, c.key, c.want)
			}
		})
	}
}
