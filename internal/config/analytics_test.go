package config

import (
	"strings"
	"testing"
)

// TestAnalytics checks which combinations of engine and address are refused, and that no message shows the password.
func TestAnalytics(t *testing.T) {
	t.Parallel()
	const good = "clickhouse://terse:hunter2@ch:9000/terse"
	for _, c := range []struct {
		name, engine, url string
		key, want         string // "" for none
	}{
		{name: "embedded", engine: EngineDuckDB},
		{name: "clickhouse", engine: EngineClickHouse, url: good},
		{name: "no address", engine: EngineClickHouse, key: "analytics.clickhouse.url", want: "is missing"},
		{name: "an address without the engine", engine: EngineDuckDB, url: good, key: "analytics.clickhouse.url", want: "analytics.engine is duckdb"},
		{name: "another scheme", engine: EngineClickHouse, url: "http://terse:hunter2@ch:8123/terse", key: "analytics.clickhouse.url", want: "begins with clickhouse://"},
		{name: "no host", engine: EngineClickHouse, url: "clickhouse:///terse?password=hunter2", key: "analytics.clickhouse.url", want: "names no host"},
		{name: "no port", engine: EngineClickHouse, url: "clickhouse://terse:hunter2@ch/terse", key: "analytics.clickhouse.url", want: "names no port"},
		{name: "no database", engine: EngineClickHouse, url: "clickhouse://terse:hunter2@ch:9000/", key: "analytics.clickhouse.url", want: "names no database"},
		{name: "a password that is not escaped", engine: EngineClickHouse, url: "clickhouse://terse:hunter2%zz@ch:9000/terse", key: "analytics.clickhouse.url", want: "%XX"},
		{name: "an engine that there is not", engine: "druid", key: "analytics.engine", want: "not one of"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cfg := Default(16 << 30)
			cfg.Analytics.Engine, cfg.Analytics.ClickHouse.URL = c.engine, Secret(c.url)
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
