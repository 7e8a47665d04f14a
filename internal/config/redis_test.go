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
