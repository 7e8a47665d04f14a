package inflate

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/terselink/terse"
)

func pack(t testing.TB, encoding string, plain []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	switch encoding {
	case Gzip:
		w = gzip.NewWriter(&b)
	case Zstd:
		z, err := zstd.NewWriter(&b)
		if err != nil {
			t.Fatal(err)
		}
		w = z
	default:
		return plain
	}
	if _, err := w.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func unpack(encoding string, r io.Reader) ([]byte, error) {
	z := New(r, encoding)
	defer z.Close()
	return io.ReadAll(z)
}

func TestReader(t *testing.T) {
	plain := []byte(strings.Repeat("https://example.com/some/path\n", 5000))
	for _, encoding := range []string{Identity, Gzip, Zstd} {
		packed := pack(t, encoding, plain)
		got, err := unpack(encoding, iotest.OneByteReader(bytes.NewReader(packed)))
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%q: %d bytes, %v", encoding, len(got), err)
		}
		broken := errors.New("broken")
		if _, err := unpack(encoding, io.MultiReader(bytes.NewReader(packed[:len(packed)/2]), iotest.ErrReader(broken))); !errors.Is(err, broken) {
			t.Errorf("%q: a broken source is %v", encoding, err)
		}
		if encoding == Identity {
			continue
		}
		for name, bad := range map[string][]byte{"cut": packed[:len(packed)-5], "other": plain, "empty": nil} {
			_, err := unpack(encoding, bytes.NewReader(bad))
			if name == "empty" && encoding == Zstd && err == nil {
				continue // no frame is a valid stream of zstd
			}
			if e, ok := errors.AsType[*terse.Error](err); !ok || e.Reason != "bad_compression" {
				t.Errorf("%q, %s: %v", encoding, name, err)
			}
		}
	}
}

// TestBomb: what expands too much is refused before it has cost anything.
func TestBomb(t *testing.T) {
	for _, encoding := range []string{Gzip, Zstd} {
		packed := pack(t, encoding, make([]byte, 200<<20))
		z := New(bytes.NewReader(packed), encoding)
		n, err := io.Copy(io.Discard, z)
		z.Close()
		if e, ok := errors.AsType[*terse.Error](err); !ok || e.Reason != "compression_ratio" || n > 2*Free {
			t.Errorf("%q: %d bytes, %v", encoding, n, err)
		}
	}
}

func TestNames(t *testing.T) {
	for name, want := range map[string][2]string{"a.csv.gz": {Gzip, "a.csv"}, "A.CSV.ZST": {Zstd, "A.CSV"}, "a.csv": {"", "a.csv"}, ".gz": {"", ".gz"}, "": {"", ""}} {
		if e, plain := ByName(name); e != want[0] || plain != want[1] {
			t.Errorf("%q: %q, %q", name, e, plain)
		}
	}
	for s, want := range map[string]string{"": "", " GZIP ": Gzip, "x-gzip": Gzip, "zstd": Zstd, "identity": ""} {
		if e, ok := ParseEncoding(s); !ok || e != want {
			t.Errorf("%q: %q, %v", s, e, ok)
		}
	}
	if _, ok := ParseEncoding("br"); ok {
		t.Error("br is known")
	}
}

func FuzzReader(f *testing.F) {
	f.Add(pack(f, Gzip, []byte("hello")), true)
	f.Add(pack(f, Zstd, []byte("hello")), false)
	f.Add([]byte("hello"), true)
	f.Fuzz(func(t *testing.T, b []byte, gz bool) {
		encoding := Zstd
		if gz {
			encoding = Gzip
		}
		z := New(bytes.NewReader(b), encoding)
		defer z.Close()
		n, err := io.Copy(io.Discard, z)
		if err == nil && n > Free && n/Ratio > int64(len(b)) {
			t.Fatalf("%d bytes of %d", n, len(b))
		}
		if _, ok := errors.AsType[*terse.Error](err); err != nil && !ok {
			t.Fatalf("a fault without a code: %v", err)
		}
	})
}
