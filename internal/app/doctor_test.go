package app

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/terselink/terse/internal/auth"
	"github.com/terselink/terse/internal/config"
)

// TestDoctor checks what is said of configurations with one thing wrong each.
func TestDoctor(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	for _, c := range []struct {
		name  string
		spoil func(t *testing.T, cfg *config.Config)
		what  string // "" for none
		state string
		text  string
	}{
		{name: "nothing wrong", spoil: func(*testing.T, *config.Config) {}},
		{"a data folder for everybody", func(t *testing.T, cfg *config.Config) { must(t, os.Chmod(cfg.Data, 0o755)) }, "data folder", FindingWarning, "chmod 700"},
		{"no place for the data folder", func(_ *testing.T, cfg *config.Config) { cfg.Data += "/a/b" }, "data folder", FindingProblem, "cannot be made"},
		{"an owner key for everybody", func(t *testing.T, cfg *config.Config) {
			must(t, os.WriteFile(filepath.Join(cfg.Data, auth.OwnerFile), []byte("key"), 0o644))
		}, "owner key", FindingProblem, "chmod 600"},
		{"a port that is taken", func(_ *testing.T, cfg *config.Config) { cfg.RedirectAddr = taken.Addr().String() }, "redirect_addr", FindingProblem, "cannot be listened on"},
		{"an API for everybody", func(_ *testing.T, cfg *config.Config) { cfg.ControlAddr = ":0" }, "control plane", FindingWarning, "firewall"},
		{"a folder that is no store", func(t *testing.T, cfg *config.Config) { must(t, os.Mkdir(filepath.Join(cfg.Data, storeDir), 0o700)) }, "store", FindingProblem, "no database"},
		{"a bucket that does not answer", func(_ *testing.T, cfg *config.Config) {
			cfg.Record = config.Record{Store: config.RecordS3, S3: config.S3{Bucket: "clicks", Endpoint: "http://127.0.0.1:1", AccessKeyID: "terse", SecretAccessKey: "hunter2"}}
		}, "bucket of the record", FindingProblem, "does not answer"},
		{"a Redis that does not answer", func(_ *testing.T, cfg *config.Config) { cfg.Redis.URL = "redis://:hunter2@127.0.0.1:1/0" }, "redis", FindingProblem, "nobody listens"},
		{"a database that does not answer", func(_ *testing.T, cfg *config.Config) {
			cfg.Store.Engine, cfg.Store.Postgres.URL = config.EnginePostgres, "postgres://terse:hunter2@127.0.0.1:1/terse"
		}, "store: database", FindingProblem, "unavailable"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cfg := config.Default(16 << 30)
			cfg.Data = t.TempDir()
			must(t, os.Chmod(cfg.Data, 0o700))
			cfg.RedirectAddr, cfg.ControlAddr = "127.0.0.1:0", "127.0.0.1:0"
			c.spoil(t, cfg)
			found := false
			for _, f := range Doctor(t.Context(), cfg) {
				if strings.Contains(f.Text, "hunter2") {
					t.Errorf("the password is shown: %+v", f)
				}
				switch {
				case f.What == c.what:
					found = true
					if f.State != c.state || !strings.Contains(f.Text, c.text) {
						t.Errorf("got %+v, want %s about %q", f, c.state, c.text)
					}
				case f.State != FindingOK && f.What != "disk": // of the machine
					t.Errorf("beside what is wrong: %+v", f)
				}
			}
			if !found && c.what != "" {
				t.Errorf("nothing is said of %s", c.what)
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
