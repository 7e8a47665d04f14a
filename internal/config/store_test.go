package config

import (
	"strings"
	"testing"
)

// TestStore checks which combinations of engine and address are refused, and that no message shows the password.
func TestStore(t *testing.T) {
	t.Parallel()
	const good = "postgres://terse:hunter2@db:5432/terse"
	for _, c := range []struct {
		name, engine, url, replica string
		key, want                  string // "" for none
	}{
		{name: "embedded", engine: EnginePebble},
		{name: "postgres", engine: EnginePostgres, url: good, replica: good},
		{name: "no address", engine: EnginePostgres, key: "store.postgres.url", want: "is missing"},
		{name: "an address without the engine", engine: EnginePebble, url: good, key: "store.postgres.url", want: "store.engine is pebble"},
		{name: "a replica without the engine", engine: EnginePebble, replica: good, key: "store.postgres.replica_url", want: "store.engine is pebble"},
		{name: "another scheme", engine: EnginePostgres, url: "mysql://terse:hunter2@db/terse", key: "store.postgres.url", want: "begins with postgres://"},
		{name: "no host", engine: EnginePostgres, url: "postgres:///terse?password=hunter2", key: "store.postgres.url", want: "names no host"},
		{name: "no database", engine: EnginePostgres, url: "postgres://terse:hunter2@db:5432/", key: "store.postgres.url", want: "names no database"},
		{name: "a password that is not escaped", engine: EnginePostgres, url: "postgres://terse:hunter2%zz@db/terse", key: "store.postgres.url", want: "%XX"},
		{name: "an engine that there is not", engine: "mysql", key: "store.engine", want: "not one of"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cfg := Default(16 << 30)
			cfg.Store.Engine, cfg.Store.Postgres.URL, cfg.Store.Postgres.ReplicaURL = c.engine, Secret(c.url), Secret(c.replica)
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

// TestDynamoDB checks which tables and endpoints are refused.
func TestDynamoDB(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, engine, table, region, endpoint string
		key                                   string // "" for none
	}{
		{name: "a table alone", engine: EngineDynamoDB, table: "links"},
		{name: "everything", engine: EngineDynamoDB, table: "a.b-c_1", region: "eu-central-1", endpoint: "http://127.0.0.1:8000"},
		{name: "no table", engine: EngineDynamoDB, key: "store.dynamodb.table"},
		{name: "a bad name", engine: EngineDynamoDB, table: "my table", key: "store.dynamodb.table"},
		{name: "no URL", engine: EngineDynamoDB, table: "links", endpoint: "127.0.0.1:8000", key: "store.dynamodb.endpoint"},
		{name: "another scheme", engine: EngineDynamoDB, table: "links", endpoint: "ftp://db", key: "store.dynamodb.endpoint"},
		{name: "an endpoint without the engine", engine: EnginePebble, table: "links", endpoint: "http://127.0.0.1:8000", key: "store.dynamodb.endpoint"},
		{name: "a region without the engine", engine: EnginePebble, table: "links", region: "eu-central-1", key: "store.dynamodb.region"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cfg := Default(16 << 30)
			cfg.Store.Engine = c.engine
			cfg.Store.DynamoDB.Table, cfg.Store.DynamoDB.Region, cfg.Store.DynamoDB.Endpoint = c.table, c.region, c.endpoint
			problems := cfg.Validate(16 << 30)
			if c.key == "" && len(problems) > 0 {
				t.Fatalf("refused: %v", problems)
			}
			if c.key != "" && (len(problems) != 1 || !strings.HasPrefix(problems[0].Error(), c.key+":")) {
				t.Fatalf("got %v, want one problem of %s", problems, c.key)
			}
		})
	}
}
