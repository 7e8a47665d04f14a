package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/terselink/terse/e2e/proc"
)

// TestFirstStart is a start without any key: the server makes one, shows it once and keeps it for the command
// line of its user. Flags beat the environment.
func TestFirstStart(t *testing.T) {
	var addrs [2]string
	for i := range addrs {
		var err error
		if addrs[i], err = proc.FreeAddr(); err != nil {
			t.Fatal(err)
		}
	}
	o := proc.Options{
		RedirectAddr: addrs[0], ControlAddr: addrs[1],
		Args: []string{"--redirect-addr", addrs[0], "--control-addr", addrs[1]},
		// Port 1 would be refused or out of reach: the flags have to win.
		Env: append([]string{"TERSE_BOOTSTRAP_KEY=", "TERSE_REDIRECT_ADDR=127.0.0.1:1", "TERSE_CONTROL_ADDR=127.0.0.1:1"}, quick...),
	}
	s := start(t, o)
	file := filepath.Join(s.Data, "owner.key")
	kept, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	key := strings.TrimSpace(string(kept))
	if len(key) < 32 {
		t.Errorf("the key is %q", key)
	}
	until(t, time.Minute, "the key is shown, once", func() bool { return strings.Count(s.Log(), key) == 1 })
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's file has mode %v: %v", info.Mode(), err)
	}
	if info, err = os.Stat(s.Data); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the data folder has mode %v: %v", info.Mode(), err)
	}
	out, errs, code := terse(t, s, "shorten", "https://example.com/")
	if code != 0 {
		t.Fatalf("the command line has no key: exit %d, %s%s", code, out, errs)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	o.Data = s.Data
	again := start(t, o)
	if strings.Contains(again.Log(), key) {
		t.Error("the key is shown again at the second start")
	}
	if _, errs, code := terse(t, again, "links", "list"); code != 0 {
		t.Errorf("the key of the first start is no good: %s", errs)
	}
}

// TestBadStart is a start that cannot work: it ends at once with a reason.
func TestBadStart(t *testing.T) {
	running := start(t, proc.Options{Env: quick})
	for _, tt := range []struct {
		name string
		o    proc.Options
		want string
	}{
		{"unknown flag", proc.Options{Args: []string{"--redirect-adr", "x"}}, "--redirect-adr"},
		{"unknown variable", proc.Options{Env: []string{"TERSE_CACHE_BITES=1"}}, "cache_bites"},
		{"absurd limit", proc.Options{Env: []string{"TERSE_CACHE_BYTES=0"}}, "cache.bytes"},
		{"no number", proc.Options{Env: []string{"TERSE_ANALYTICS_THREADS=two"}}, "analytics.threads"},
		{"impossible shape", proc.Options{Env: []string{"TERSE_ROLE=redirect"}}, "role"},
		{"short key", proc.Options{Env: []string{"TERSE_BOOTSTRAP_KEY=short"}}, "bootstrap_key"},
		{"address taken", proc.Options{RedirectAddr: running.RedirectAddr}, "in use"},
		{"missing file", proc.Options{Args: []string{"--config", "/nowhere/terse.yaml"}}, "/nowhere/terse.yaml"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.o.Bin, tt.o.Data, tt.o.NoWait = bin, filepath.Join(t.TempDir(), "data"), true
			s, err := proc.Start(t.Context(), tt.o)
			if err != nil {
				t.Fatal(err)
			}
			code, err := s.Wait(proc.EndWithin)
			if err != nil || code == 0 {
				t.Errorf("exit code %d: %v", code, err)
			}
			if log := s.Log(); !strings.Contains(strings.ToLower(log), tt.want) || strings.Contains(log, "goroutine ") {
				t.Errorf("the reason does not name %q:\n%s", tt.want, log)
			}
		})
	}
}
