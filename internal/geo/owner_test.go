package geo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// TestInstallAtOnce: of many that update one file at once each succeeds or says that another is running, and none loses its scratch files
// to the end of another while it works.
func TestInstallAtOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "city.mmdb")
	var wg sync.WaitGroup
	errNone := errors.New("there is no new one")
	for range 8 { // they end as soon as they have begun, over and over
		wg.Go(func() {
			for range 3_000 {
				_, _ = Install(t.Context(), InstallOptions{Kind: KindCity, Path: path, Fetch: func(context.Context, io.Writer) error { return errNone }})
			}
		})
	}
	for i := range 8 {
		wg.Go(func() {
			for j := range 200 {
				data := berlin
				if (i+j)%2 == 0 {
					data = potsdam
				}
				_, err := Install(t.Context(), InstallOptions{Kind: KindCity, Path: path, Fetch: func(ctx context.Context, w io.Writer) error {
					for range 20 { // time for the one before to end
						runtime.Gosched()
						if _, err := os.Stat(path + ".download"); err != nil {
							return err
						}
					}
					return fetch(data)(ctx, w)
				}})
				if err != nil && !strings.Contains(err.Error(), "another update") && !strings.Contains(err.Error(), "appears and disappears") {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got := folder(t, path); got["city.mmdb"] != string(berlin) && got["city.mmdb"] != string(potsdam) || len(got) > 2 {
		t.Errorf("files: %v", keysOf(got))
	}
}

// TestInstallDryRun: a dry run makes neither a file nor a folder.
func TestInstallDryRun(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "new", "geo", "city.mmdb")
	r, err := Install(t.Context(), InstallOptions{Kind: KindCity, Path: path, Fetch: fetch(berlin), DryRun: true})
	if err != nil || r.HadOld || r.Unchanged || r.New.Bytes != int64(len(berlin)) {
		t.Fatalf("%+v, %v", r, err)
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
}

// TestInstallDanglingLink: a link that leads nowhere is not made a file.
func TestInstallDanglingLink(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, to := filepath.Join(dir, "city.mmdb"), filepath.Join(dir, "disk", "city.mmdb")
	if err := os.Symlink(to, path); err != nil {
		t.Fatal(err)
	}
	r, err := Install(t.Context(), InstallOptions{Kind: KindCity, Path: path, Fetch: fetch(berlin)})
	if err == nil || r != nil || !strings.Contains(err.Error(), "is a link to a file that does not exist") {
		t.Fatalf("%+v, %v", r, err)
	}
	if got, err := os.Readlink(path); err != nil || got != to {
		t.Errorf("the link is %q, %v", got, err)
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
}

// ownerOf returns user, group and mode.
func ownerOf(t *testing.T, path string) string {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	s := info.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("%d:%d %o", s.Uid, s.Gid, info.Mode().Perm())
}

// TestInstallOwner: what root updates belongs to whom it belonged to, and what root makes to whom the folder belongs to.
func TestInstallOwner(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root may give files away")
	}
	dir := t.TempDir()
	if err := os.Chown(dir, 4321, 4322); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "new", "geo", "city.mmdb")
	install := func(data []byte) {
		t.Helper()
		if _, err := Install(t.Context(), InstallOptions{Kind: KindCity, Path: path, Fetch: fetch(data)}); err != nil {
			t.Fatal(err)
		}
	}
	check := func(path, want string) {
		t.Helper()
		if got := ownerOf(t, path); got != want {
			t.Errorf("%s is of %s, want %s", path, got, want)
		}
	}
	install(berlin)
	check(path, "4321:4322 644")
	check(filepath.Dir(path), "4321:4322 755")
	check(filepath.Join(dir, "new"), "4321:4322 755")
	if err := os.Chown(path, 5321, 5322); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	install(potsdam)
	check(path, "5321:5322 640")
	check(path+Previous, "5321:5322 640")
}
