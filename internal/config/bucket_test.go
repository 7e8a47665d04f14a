package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestBuckets checks which places for the record and for exports are refused, and that no message shows the secret.
func TestBuckets(t *testing.T) {
	t.Parallel()
	full := S3{Bucket: "clicks", Prefix: "a/b", Region: "eu-central-1", Endpoint: "https://s3.example.com", PathStyle: true, AccessKeyID: "AKIA", SecretAccessKey: "hunter2"}
	with := func(f func(s *S3)) S3 {
		s := full
		f(&s)
		return s
	}
	clickHouse := func(c *Config) {
		c.Store.Engine, c.Store.Postgres.URL, c.Redis.URL = EnginePostgres, "postgres://terse@db/terse", "redis://cache:6379"
		c.Analytics.Engine, c.Analytics.ClickHouse.URL = EngineClickHouse, "clickhouse://terse@ch:9000/terse"
	}
	for _, c := range []struct {
		name      string
		store     string
		record    S3
		exports   S3
		off       bool // analytics
		set       func(*Config)
		key, want string // "" for none
	}{
		{name: "local", store: RecordLocal},
		{name: "everything", store: RecordS3, record: full, exports: with(func(s *S3) { s.Prefix = "a/c" })},
		{name: "a bucket alone", store: RecordS3, record: S3{Bucket: "my.clicks-1"}},
		{name: "exports alone", store: RecordLocal, exports: S3{Bucket: "exports"}},
		{name: "no bucket", store: RecordS3, key: "record.s3.bucket", want: "is missing"},
		{name: "a bucket that is not used", store: RecordLocal, record: S3{Bucket: "clicks"}, key: "record.s3.bucket", want: "record.store is local"},
		{name: "a region that is not used", store: RecordLocal, record: S3{Region: "x"}, key: "record.s3.region", want: "record.store is local"},
		{name: "an endpoint without a bucket", store: RecordLocal, exports: S3{Endpoint: "https://x"}, key: "exports.s3.endpoint", want: "exports.s3.bucket is not"},
		{name: "a bad name", store: RecordS3, record: S3{Bucket: "My_Bucket"}, key: "record.s3.bucket", want: "not the name"},
		{name: "half a key pair", store: RecordS3, record: with(func(s *S3) { s.AccessKeyID = "" }), key: "record.s3.access_key_id", want: "go together"},
		{name: "no URL", store: RecordS3, record: with(func(s *S3) { s.Endpoint = "s3.example.com:9000" }), key: "record.s3.endpoint", want: "not a URL"},
		{name: "a password in the URL", store: RecordS3, record: with(func(s *S3) { s.Endpoint = "https://a:hunter2@s3.example.com" }), key: "record.s3.endpoint", want: "not a URL"},
		{name: "a prefix that climbs", store: RecordS3, record: with(func(s *S3) { s.Prefix = "a/../b" }), key: "record.s3.prefix", want: "not the beginning"},
		{name: "no analytics", store: RecordS3, record: full, off: true, key: "record.store", want: "analytics.enabled"},
		{name: "clickhouse", store: RecordS3, record: full, set: clickHouse, key: "record.store", want: "keeps no record"},
		{name: "clickhouse through Redis, without its address", store: RecordS3, record: full, set: func(c *Config) {
			clickHouse(c)
			c.Role, c.Redis.ClickStreams, c.Analytics.ClickHouse.URL = []string{RoleRedirect}, true, ""
		}, key: "record.store", want: "keeps no record"},
		{name: "a bucket beside clickhouse", store: RecordLocal, record: S3{Bucket: "clicks"}, set: clickHouse, key: "record.s3.bucket", want: "record.store is local"},
		{name: "an edge node", store: RecordS3, record: full, set: func(c *Config) {
			c.Upstream, c.UpstreamKey, c.Role = "https://control.example.com", "key", []string{RoleRedirect}
		}, key: "record.store", want: "sends its clicks to its control plane"},
		{name: "a worker with the file of other nodes", store: RecordS3, record: full, set: func(c *Config) {
			clickHouse(c)
			c.Role, c.Analytics = []string{RoleWorker}, Default(16<<30).Analytics
		}},
		{name: "one place for both", store: RecordS3, record: full, exports: with(func(s *S3) { s.Prefix = "/a/" }), key: "exports.s3.prefix", want: "different prefixes"},
		{name: "another store", store: "gcs", key: "record.store", want: "not one of"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cfg := Default(16 << 30)
			cfg.Record, cfg.Exports.S3, cfg.Analytics.Enabled = Record{Store: c.store, S3: c.record}, c.exports, !c.off
			if c.set != nil {
				c.set(cfg)
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
			if text := problems[0].Error(); !strings.HasPrefix(text, c.key+":") || !strings.Contains(text, c.want) || strings.Contains(text, "hunter2") {
				t.Errorf("got %q, want one of %s about %q without the secret", text, c.key, c.want)
			}
		})
	}
}

// TestBucketSecret reads the secret of a key pair from a file.
func TestBucketSecret(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte("hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := Load(Sources{Environ: []string{
		"TERSE_RECORD_STORE=s3", "TERSE_RECORD_S3_BUCKET=clicks", "TERSE_RECORD_S3_ACCESS_KEY_ID=terse", "TERSE_RECORD_S3_SECRET_ACCESS_KEY_FILE=" + path,
	}})
	if err != nil {
		t.Fatal(err)
	}
	if got := l.Config.Record.S3.SecretAccessKey.Reveal(); got != "hunter2" {
		t.Errorf("got %q", got)
	}
	for _, v := range l.Values() {
		if strings.Contains(v.Value, "hunter2") {
			t.Errorf("%s is shown", v.Key)
		}
	}
}
