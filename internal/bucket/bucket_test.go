package bucket_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/bucket"
	"github.com/terselink/terse/internal/bucket/buckettest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// write makes a file of so many bytes, which differ from one another.
func write(t *testing.T, size int) (path string, data []byte) {
	t.Helper()
	data = make([]byte, size)
	for i := range data {
		data[i] = byte(i>>8 ^ i>>16 ^ i*7)
	}
	path = filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, data
}

func get(t *testing.T, b *bucket.Bucket, name string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sub", "got")
	if err := b.Get(t.Context(), name, path); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*.tmp")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	return data
}

// TestObjects puts, lists, fetches and deletes objects of sizes around that of a part.
func TestObjects(t *testing.T) {
	t.Parallel()
	o := buckettest.New(t)
	o.Prefix, o.PartBytes = "/a b/c=1/", 5<<20
	b := buckettest.Open(t, o.WithPage(2))
	want := map[string]int{"clicks/dt=2026-11-03/hour=07/node-1.parquet": 1000, "empty": 0, "part": 5 << 20, "parts": 12<<20 + 1, "with space+plus&and/ümlaut": 3}
	for name, size := range want {
		path, data := write(t, size)
		for range 2 { // a put that is repeated changes nothing
			if err := b.Put(t.Context(), name, path); err != nil {
				t.Fatal(err)
			}
		}
		if got := get(t, b, name); !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes came back, %d were put", name, len(got), size)
		}
	}
	var names []string
	err := b.List(t.Context(), "", func(name string, size int64) error {
		names = append(names, name)
		if size != int64(want[name]) {
			t.Errorf("%s is listed with %d bytes", name, size)
		}
		return nil
	})
	if err != nil || len(names) != len(want) || !slices.IsSorted(names) {
		t.Errorf("listed %v: %v", names, err)
	}
	stop := errors.New("stop")
	if err := b.List(t.Context(), "clicks/", func(name string, _ int64) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("a list that is stopped: %v", err)
	}
	o.Prefix = "other"
	if names := buckettest.Names(t, buckettest.Open(t, o)); len(names) != 0 {
		t.Errorf("under another prefix are %v", names)
	}
	path, _ := write(t, 5)
	if err := b.Put(t.Context(), "parts", path); err != nil {
		t.Fatal(err)
	}
	if got := get(t, b, "parts"); len(got) != 5 {
		t.Errorf("a put over an object leaves %d bytes", len(got))
	}
	for range 2 {
		if err := b.Delete(t.Context(), "parts"); err != nil {
			t.Errorf("delete: %v", err)
		}
	}
	if err := b.Get(t.Context(), "parts", filepath.Join(t.TempDir(), "x")); !errors.Is(err, terse.ErrNotFound) {
		t.Errorf("an object that is deleted: %v", err)
	}
	if err := b.Put(t.Context(), "x", filepath.Join(t.TempDir(), "x")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

// TestReplace: of two writers that saw the same version one wins.
func TestReplace(t *testing.T) {
	t.Parallel()
	b := buckettest.Open(t, buckettest.New(t))
	if _, _, err := b.Read(t.Context(), "owner"); !errors.Is(err, terse.ErrNotFound) {
		t.Fatalf("before: %v", err)
	}
	if err := b.Replace(t.Context(), "owner", "", []byte("one")); err != nil {
		t.Fatal(err)
	}
	if err := b.Replace(t.Context(), "owner", "", []byte("two")); terse.ErrorCode(err) != terse.CodeConflict {
		t.Errorf("a second first version: %v", err)
	}
	data, tag, err := b.Read(t.Context(), "owner")
	if err != nil || string(data) != "one" {
		t.Fatalf("read %q: %v", data, err)
	}
	if err := b.Replace(t.Context(), "owner", tag, []byte("three")); err != nil {
		t.Fatal(err)
	}
	if err := b.Replace(t.Context(), "owner", tag, []byte("four")); terse.ErrorCode(err) != terse.CodeConflict {
		t.Errorf("over an old version: %v", err)
	}
	if data, _, err := b.Read(t.Context(), "owner"); err != nil || string(data) != "three" {
		t.Errorf("read %q: %v", data, err)
	}
}

// TestReadTooLarge: an object that does not fit is refused, not cut.
func TestReadTooLarge(t *testing.T) {
	t.Parallel()
	b := buckettest.Open(t, buckettest.New(t))
	for size, want := range map[int]terse.Code{1 << 20: "", 1<<20 + 1: terse.CodeTooLarge} {
		path, data := write(t, size)
		if err := b.Put(t.Context(), "x", path); err != nil {
			t.Fatal(err)
		}
		got, _, err := b.Read(t.Context(), "x")
		if want == "" && (err != nil || !bytes.Equal(got, data)) || want != "" && terse.ErrorCode(err) != want {
			t.Errorf("%d bytes: %d came, %v", size, len(got), err)
		}
	}
}

// TestGetLocalFault: the disk that does not take the file is not the bucket's fault, and nothing is left behind.
func TestGetLocalFault(t *testing.T) {
	t.Parallel()
	b := buckettest.Open(t, buckettest.New(t))
	path, _ := write(t, 10)
	if err := b.Put(t.Context(), "x", path); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	taken := filepath.Join(dir, "taken")
	if err := os.MkdirAll(filepath.Join(taken, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	err := b.Get(t.Context(), "x", taken)
	if _, ok := errors.AsType[*os.LinkError](err); !ok || !strings.HasPrefix(err.Error(), "get x: ") {
		t.Errorf("over a folder: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*.tmp")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestFaults: every way of not getting there has its code, and no message has the secret.
func TestFaults(t *testing.T) {
	t.Parallel()
	good := buckettest.New(t)
	for _, c := range []struct {
		name  string
		spoil func(o *bucket.Options)
		want  terse.Code
	}{
		{"wrong secret", func(o *bucket.Options) { o.SecretAccessKey = "hunter2hunter2" }, terse.CodeForbidden},
		{"unknown key", func(o *bucket.Options) { o.AccessKeyID, o.SecretAccessKey = "nobody", "hunter2hunter2" }, terse.CodeForbidden},
		{"no bucket", func(o *bucket.Options) { o.Bucket = "not-there-" + o.Bucket }, terse.CodePrecondition},
		{"nobody listens", func(o *bucket.Options) { o.Endpoint = "http://127.0.0.1:1" }, terse.CodeUnavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := good
			o.Attempts = 1
			c.spoil(&o)
			b := buckettest.Open(t, o)
			path, _ := write(t, 10)
			for op, err := range map[string]error{
				"ping": b.Ping(t.Context()), "put": b.Put(t.Context(), "x", path), "replace": b.Replace(t.Context(), "x", "", nil),
				"list": b.List(t.Context(), "", func(string, int64) error { return nil }),
			} {
				if terse.ErrorCode(err) != c.want || strings.Contains(fmt.Sprint(err), "hunter2") {
					t.Errorf("%s: %v, want %s", op, err, c.want)
				}
			}
		})
	}
	for name, o := range map[string]bucket.Options{"no name": {}, "half a key pair": {Bucket: "b", AccessKeyID: "x"}} {
		if _, err := bucket.Open(t.Context(), o); terse.ErrorCode(err) != terse.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestCuts: a connection that ends before a request was read or before its answer was is no failure, the request is made again.
func TestCuts(t *testing.T) {
	t.Parallel()
	good := buckettest.New(t)
	proxy, o := buckettest.Behind(t, good)
	b := buckettest.Open(t, o)
	path, data := write(t, 300_000)
	for _, answer := range []bool{false, true} {
		for _, at := range []string{"PUT /", "GET /", "DELETE /"} {
			proxy.Cut(at, answer)
			name := fmt.Sprintf("%v-%c", answer, at[0])
			if err := b.Put(t.Context(), name, path); err != nil {
				t.Errorf("put, cut at %s, %v: %v", at, answer, err)
			}
			if got := get(t, b, name); !bytes.Equal(got, data) {
				t.Errorf("cut at %s, %v: %d bytes came back", at, answer, len(got))
			}
			if err := b.Delete(t.Context(), name); err != nil {
				t.Errorf("delete, cut at %s, %v: %v", at, answer, err)
			}
		}
	}
	o.Attempts, o.Timeout = 1, 200*time.Millisecond
	b = buckettest.Open(t, o)
	proxy.Hold()
	if err := b.Ping(t.Context()); terse.ErrorCode(err) != terse.CodeUnavailable {
		t.Errorf("a server that says nothing: %v", err)
	}
	proxy.Drop()
	proxy.Pass()
}
