package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/config"
)

// TestCopy: what the command asks for, what it says while it runs and at the end, and its exit codes.
func TestCopy(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		args []string
		err  error
		code int
		want []string // on either stream
	}{
		{"done", nil, nil, ExitOK, []string{
			"copying: 0 of 1,000,000 links\n", "copying: 500,000 of 1,000,000 links, 50,000 links/s, ETA 10s\n", "verifying: 0 of 1,000,000 links\n",
			"1,000,000 links on 2 domains and 30 documents are copied and verified in 20.0 s, 1,000 links compared field by field.", "Clicks are not in the store",
		}},
		{"as JSON", []string{"--json", "--quiet"}, nil, ExitOK, []string{`"links":1000000`, `"resumed":false`}},
		{"other than the source", nil, fmt.Errorf("%w: %w", ErrCopyDiffers, errors.New("links of domain 1: 2 in the source, 1 in the copy")), ExitDiffers, []string{"2 in the source, 1 in the copy"}},
		{"no place", nil, terse.Invalid("to", "is no place"), ExitUsage, []string{"--to is no place"}},
		{"in use", nil, &terse.Error{Code: terse.CodeConflict, Message: "is not empty"}, ExitFailed, []string{"is not empty"}},
		{"a sample of none", []string{"--sample", "0"}, nil, ExitUsage, []string{"--sample"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			at := time.Unix(1_790_000_000, 0)
			code := Main(context.Background(), Options{
				Args: append([]string{"copy", "--from", "pebble:./data", "--to", "postgres:", "--store-postgres-max-conns", "7"}, c.args...), Stdout: &out, Stderr: &out, Environ: []string{"TERSE_STORE_POSTGRES_URL=postgres://terse@db.example.com/terse"}, Now: func() time.Time { return at },
				Copy: func(_ context.Context, cfg *config.Config, _ *slog.Logger, o CopyOptions) (CopyReport, error) {
					if cfg.Store.Postgres.MaxConns != 7 || cfg.Store.Postgres.URL.Reveal() == "" {
						t.Errorf("the settings do not say where postgres: is: %+v", cfg.Store.Postgres)
					}
					if o.From != "pebble:./data" || o.To != "postgres:" || o.Sample != 1000 {
						t.Errorf("options %+v", o)
					}
					if c.err != nil {
						return CopyReport{}, c.err
					}
					o.Progress("copying", 0, 1_000_000)
					at = at.Add(10 * time.Second)
					o.Progress("copying", 500_000, 1_000_000)
					at = at.Add(10 * time.Second)
					o.Progress("verifying", 0, 1_000_000)
					return CopyReport{Links: 1_000_000, Documents: 30, Domains: 2, Sampled: 1000}, nil
				},
			})
			if code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			for _, want := range c.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("no %q in:\n%s", want, out.String())
				}
			}
		})
	}
}
