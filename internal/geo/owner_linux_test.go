package geo

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// TestInstallForeign: a file of somebody else, to whom the new one cannot be given, is not replaced; a dry run says so too.
func TestInstallForeign(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can act as somebody else")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "city.mmdb")
	if err := os.WriteFile(path, berlin, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, 4321, 4322); err != nil {
		t.Fatal(err)
	}
	for _, above := range []string{dir, filepath.Dir(dir)} { // the other user has to get there
		if err := os.Chmod(above, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, dry := range []bool{true, false} {
		var r *Installed
		var err error
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread() // for ever: the thread ends with the goroutine
			if err = syscall.Setfsuid(4321); err == nil {
				r, err = Install(t.Context(), InstallOptions{Kind: KindCity, Path: path, Fetch: fetch(potsdam), DryRun: dry})
			}
		}()
		<-done
		if err == nil || r != nil || !strings.Contains(err.Error(), "belongs to the user 0 and the group 0") {
			t.Fatalf("dry run %v: %+v, %v", dry, r, err)
		}
		if got := folder(t, path); len(got) != 1 || got["city.mmdb"] != string(berlin) {
			t.Errorf("files: %v", keysOf(got))
		}
	}
}
