package geo

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func gzipped(t *testing.T, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func archived(t *testing.T, files ...string) []byte { // name, content, …
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		if err := w.WriteHeader(&tar.Header{Name: files[i], Mode: 0o644, Size: int64(len(files[i+1])), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, files[i+1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return gzipped(t, b.Bytes())
}

func fetch(data []byte) func(context.Context, io.Writer) error {
	return func(_ context.Context, w io.Writer) error {
		_, err := w.Write(data)
		return err
	}
}

// folder returns the names and contents of the files beside path.
func folder(t *testing.T, path string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(filepath.Dir(path), e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = string(b)
	}
	return files
}

var (
	berlin  = smallDB("city", cityRecord("DE", "BE", "Berlin"))
	potsdam = smallDB("city", cityRecord("DE", "BB", "Potsdam"))
	network = smallDB("asn", map[string]any{"autonomous_system_number": uint32(64500)})
)

// TestInstall puts databases in place in every form they are published in, and a server takes each over.
func TestInstall(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "new", "city.mmdb")
	install := func(data []byte) *Installed {
		t.Helper()
		sum := sha256.Sum256(data)
		r, err := Install(t.Context(), InstallOptions{Kind: KindCity, Path: path, Fetch: fetch(data), SHA256: strings.ToUpper(hex.EncodeToString(sum[:]))})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := install(berlin); r.HadOld || r.Unchanged || r.Previous != "" || r.New.Type != "Test-city" || r.New.Built.Unix() != 1_700_000_000 || r.New.Bytes != int64(len(berlin)) {
		t.Fatalf("%+v", r)
	}
	db, err := Open(Options{CityPath: path})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if r := install(archived(t, "GeoLite2_1/LICENSE.txt", "text", "GeoLite2_1/GeoLite2-City.mmdb", string(potsdam))); !r.HadOld || r.OldErr != nil || r.Previous != path+Previous {
		t.Fatalf("%+v", r)
	}
	if err := db.Reload(); err != nil {
		t.Fatal(err)
	}
	var p Place
	if db.Lookup(addr("8.8.8.8"), &p); p.City != "Potsdam" {
		t.Errorf("the server has %+v", p)
	}
	want := map[string]string{"city.mmdb": string(potsdam), "city.mmdb" + Previous: string(berlin)}
	check := func(what string) {
		t.Helper()
		got := folder(t, path)
		for name := range want {
			if got[name] != want[name] || len(got) != len(want) {
				t.Fatalf("%s: files %v, want %v", what, keysOf(got), keysOf(want))
			}
		}
	}
	check("archive")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode: %v, %v", info.Mode(), err)
	}
	if r := install(gzipped(t, potsdam)); !r.Unchanged {
		t.Errorf("%+v", r)
	}
	check("unchanged")
	if r, err := Install(t.Context(), InstallOptions{Kind: KindCity, Path: path, Fetch: fetch(berlin), DryRun: true}); err != nil || r.Unchanged {
		t.Errorf("%+v, %v", r, err)
	}
	check("dry run")
	before, err := os.ReadFile(path + Previous)
	if err != nil {
		t.Fatal(err)
	}
	install(before) // goes back
	want = map[string]string{"city.mmdb": string(berlin), "city.mmdb" + Previous: string(potsdam)}
	check("back")
	// What cannot be read is replaced, and does not take the place of what was kept.
	if err := os.WriteFile(path, []byte("broken"), 0o644); err != nil {
		t.Fatal(err)
	}
	if r := install(berlin); r.OldErr == nil || r.Previous != "" {
		t.Errorf("%+v", r)
	}
	check("in place of a broken one")
	// A link to a file stays one.
	link := filepath.Join(t.TempDir(), "link.mmdb")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	path, link = link, path
	install(potsdam)
	if info, err := os.Lstat(path); err != nil || info.Mode().Type() != os.ModeSymlink {
		t.Errorf("the link is gone: %v, %v", info, err)
	}
	path = link
	want = map[string]string{"city.mmdb": string(potsdam), "city.mmdb" + Previous: string(berlin)}
	check("through a link")
}

func keysOf(m map[string]string) (list []string) {
	for k, v := range m {
		list = append(list, k+"="+hex.EncodeToString([]byte(v[:min(len(v), 8)])))
	}
	return list
}

// TestInstallRefuses: whatever is wrong with the new database, the folder is what it was.
func TestInstallRefuses(t *testing.T) {
	t.Parallel()
	flipped := bytes.Clone(berlin)
	flipped[2] ^= 0x40
	errFetch := errors.New("the line was cut")
	for _, tt := range []struct {
		name string
		o    InstallOptions
		want string
	}{
		{"page", InstallOptions{Fetch: fetch([]byte("<html>Too many requests</html>"))}, ""},
		{"nothing", InstallOptions{Fetch: fetch(nil)}, ""},
		{"cut", InstallOptions{Fetch: fetch(berlin[:len(berlin)-20])}, ""},
		{"cut gzip", InstallOptions{Fetch: fetch(gzipped(t, berlin)[:60])}, "unpack"},
		{"damaged", InstallOptions{Fetch: fetch(flipped)}, ""},
		{"zip", InstallOptions{Fetch: fetch([]byte("PK\x03\x04 and more"))}, "zip"},
		{"archive of something else", InstallOptions{Fetch: fetch(archived(t, "README", "text"))}, "without a .mmdb"},
		{"networks", InstallOptions{Fetch: fetch(network)}, "of the kind asn?"},
		{"countries as networks", InstallOptions{Kind: KindASN, Fetch: fetch(potsdam)}, "of the kind city?"},
		{"another kind", InstallOptions{Fetch: fetch(smallDB("anonymous", map[string]any{"is_anonymous": "yes"}))}, "neither country nor network"},
		{"wrong sum", InstallOptions{Fetch: fetch(potsdam), SHA256: strings.Repeat("ab", 32)}, "its SHA-256 is"},
		{"too large", InstallOptions{Fetch: fetch(potsdam), MaxBytes: 100}, "larger than the limit"},
		{"bomb", InstallOptions{Fetch: fetch(gzipped(t, make([]byte, 4<<20))), MaxBytes: 1 << 20}, "larger than the limit"},
		{"cut fetch", InstallOptions{Fetch: func(_ context.Context, w io.Writer) error {
			_, err := w.Write(potsdam)
			return errors.Join(err, errFetch)
		}}, errFetch.Error()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, had := range []bool{true, false} {
				tt.o.Path = filepath.Join(t.TempDir(), "city.mmdb")
				if had {
					if err := os.WriteFile(tt.o.Path, berlin, 0o644); err != nil {
						t.Fatal(err)
					}
				}
				if tt.o.Kind == "" {
					tt.o.Kind = KindCity
				}
				r, err := Install(t.Context(), tt.o)
				if err == nil || r != nil || !strings.Contains(err.Error(), tt.want) {
					t.Fatalf("%+v, %v; want %q", r, err, tt.want)
				}
				if got := folder(t, tt.o.Path); had && (len(got) != 1 || got["city.mmdb"] != string(berlin)) || !had && len(got) != 0 {
					t.Errorf("files: %v", keysOf(got))
				}
			}
		})
	}
}

// TestInstallHalf: a database of which half is missing is what a running server would refuse, too.
func TestInstallHalf(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "city.mmdb")
	if err := os.WriteFile(path, embedded, 0o644); err != nil {
		t.Fatal(err)
	}
	r, err := Install(t.Context(), InstallOptions{Kind: KindCity, Path: path, Fetch: fetch(berlin)})
	if err == nil || r != nil || !strings.Contains(err.Error(), "half of it is missing") {
		t.Fatalf("%+v, %v", r, err)
	}
}

// TestInstallTwice: while one works on a file another does not, and the end of the first frees it. What a killed one left is used again.
func TestInstallTwice(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "city.mmdb")
	for _, left := range []string{path + ".download", path + ".new"} {
		if err := os.WriteFile(left, make([]byte, 10_000), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var second error
	_, err := Install(t.Context(), InstallOptions{Kind: KindCity, Path: path, Fetch: func(ctx context.Context, w io.Writer) error {
		_, second = Install(ctx, InstallOptions{Kind: KindCity, Path: path, Fetch: fetch(potsdam)})
		return fetch(berlin)(ctx, w)
	}})
	if err != nil || second == nil || !strings.Contains(second.Error(), "another update") {
		t.Fatalf("first: %v, second: %v", err, second)
	}
	if got := folder(t, path); len(got) != 1 || got["city.mmdb"] != string(berlin) {
		t.Errorf("files: %v", keysOf(got))
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err = Install(ctx, InstallOptions{Kind: KindCity, Path: path, Fetch: func(ctx context.Context, w io.Writer) error {
		defer cancel()
		return fetch(potsdam)(ctx, w)
	}})
	if got := folder(t, path); !errors.Is(err, context.Canceled) || len(got) != 1 || got["city.mmdb"] != string(berlin) {
		t.Errorf("%v; files: %v", err, keysOf(got))
	}
}
