package jobs

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/terselink/terse"
)

// cut ends with an error, as a connection that breaks.
type cut struct{ io.Reader }

func (c cut) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func TestUpload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		u, err := b.Uploads.Create(ws, NewUpload{Filename: "a.csv", ContentType: "text/csv", Size: 10})
		if err != nil {
			t.Fatal(err)
		}
		add := func(offset int64, r io.Reader) (Upload, error) {
			return b.Uploads.Append(ws, u.ID, offset, r, func() {})
		}
		if got, err := add(0, cut{strings.NewReader("abc")}); !errors.Is(err, io.ErrUnexpectedEOF) || got.Offset != 3 {
			t.Fatalf("a cut body: %d, %v", got.Offset, err)
		}
		for _, offset := range []int64{0, 2, 4, 11} {
			_, err := add(offset, strings.NewReader("x"))
			if oe, ok := errors.AsType[*OffsetError](err); !ok || oe.Offset != 3 || terse.ErrorCode(err) != terse.CodeConflict {
				t.Fatalf("offset %d: %v", offset, err)
			}
		}
		if got, err := add(3, strings.NewReader("12345678")); terse.ErrorCode(err) != terse.CodeTooLarge || got.Offset != 3 {
			t.Fatalf("too much: %d, %v", got.Offset, err)
		}
		if _, err := b.Uploads.Append(2, u.ID, 3, strings.NewReader("x"), func() {}); terse.ErrorCode(err) != terse.CodeNotFound {
			t.Fatalf("another workspace: %v", err)
		}
		b.stop()
		// What a killed process had written beyond what it acknowledged counts: it is there.
		f, err := os.OpenFile(b.Uploads.path(u.ID, ".data"), os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.WriteString("de")
		if err = errors.Join(err, f.Close(), os.WriteFile(b.Uploads.path("upl_cut", ".data"), nil, 0o600), os.WriteFile(b.Uploads.path("upl_bad", ".json"), []byte("{"), 0o600)); err != nil {
			t.Fatal(err)
		}
		b.start()
		if got, err := b.Uploads.Get(ws, u.ID); err != nil || got.Offset != 5 || got.Size != 10 || got.Filename != "a.csv" {
			t.Fatalf("after a restart: %+v, %v", got, err)
		}
		if _, err := os.Stat(b.Uploads.path("upl_cut", ".data")); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("a creation that was cut stays: %v", err)
		}
		if got, err := add(5, strings.NewReader("fghij")); err != nil || !got.Complete() {
			t.Fatalf("%+v, %v", got, err)
		}
		if _, err := b.Uploads.seal(ws, u.ID); err != nil {
			t.Fatal(err)
		}
		_, err = add(10, strings.NewReader(""))
		wantCode(t, err, "upload_in_use")
		if err := b.DeleteUpload(ws, u.ID); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(b.Uploads.path(u.ID, ".data")); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("a deleted upload stays: %v", err)
		}
		for _, c := range []struct {
			name string
			size int64
			code string
		}{{"a\n", 1, "invalid"}, {strings.Repeat("a", 256), 1, "invalid"}, {"a", -2, "invalid"}, {"a", 4<<20 + 1, "too_large"}} {
			_, err := b.Uploads.Create(ws, NewUpload{Filename: c.name, Size: c.size})
			wantCode(t, err, c.code)
		}
	})
}

// TestUploadTakeover: a request that goes on ends the one that hangs.
func TestUploadTakeover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		u, err := b.Uploads.Create(ws, NewUpload{Filename: "a.csv", Size: -1})
		if err != nil {
			t.Fatal(err)
		}
		r, w := io.Pipe()
		hung := make(chan error, 1)
		go func() {
			_, err := b.Uploads.Append(ws, u.ID, 0, r, func() { r.Close() })
			hung <- err
		}()
		if _, err := w.Write([]byte("abc")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		_, err = b.Uploads.Append(ws, u.ID, 0, strings.NewReader("x"), func() {})
		if oe, ok := errors.AsType[*OffsetError](err); !ok || oe.Offset != 3 {
			t.Fatalf("the second request: %v", err)
		}
		if err := <-hung; !errors.Is(err, io.ErrClosedPipe) {
			t.Fatalf("the first request: %v", err)
		}
	})
}

// TestUploadKey: a creation that is repeated, also by another process after a kill, finds
// its upload.
func TestUploadKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		create := func(w terse.WorkspaceID, key, request string) (string, error) {
			u, err := b.Uploads.Create(w, NewUpload{Filename: "a.csv", Size: -1, Key: key, Request: request})
			return u.ID, err
		}
		first, err := create(ws, "k", "r")
		if err != nil {
			t.Fatal(err)
		}
		b.stop()
		b.start()
		if again, err := create(ws, "k", "r"); err != nil || again != first {
			t.Fatalf("%s, %v; want %s", again, err, first)
		}
		if _, err := create(ws, "k", "other"); !errors.Is(err, ErrOtherRequest) {
			t.Fatalf("another request: %v", err)
		}
		for name, f := range map[string]func() (string, error){
			"another key":       func() (string, error) { return create(ws, "k2", "r") },
			"no key":            func() (string, error) { return create(ws, "", "r") },
			"another workspace": func() (string, error) { return create(2, "k", "r") },
			"a day later":       func() (string, error) { time.Sleep(23 * time.Hour); time.Sleep(time.Hour); return create(ws, "k", "r") },
		} {
			if id, err := f(); err != nil || id == first {
				t.Errorf("%s: %s, %v", name, id, err)
			}
		}
	})
}
