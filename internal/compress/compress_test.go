package compress

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/terselink/terse/internal/inflate"
)

var encodings = []string{inflate.Identity, inflate.Gzip, inflate.Zstd}

// Every encoding gives back what was written, also from an encoder that was used before, and nothing.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	for _, encoding := range encodings {
		for _, want := range []string{"", "x", strings.Repeat("https://example.com/p/1\n", 100_000), "again"} {
			var b bytes.Buffer
			z := New(encoding, &b)
			for part := []byte(want); len(part) > 0; {
				n := min(len(part), 70_001)
				if _, err := z.Write(part[:n]); err != nil {
					t.Fatal(err)
				}
				part = part[n:]
			}
			if err := z.Close(); err != nil {
				t.Fatal(err)
			}
			if err := z.Close(); err != nil {
				t.Errorf("%q: second Close: %v", encoding, err)
			}
			if encoding != inflate.Identity && len(want) > 1000 && b.Len() > len(want)/10 {
				t.Errorf("%s: %d bytes of %d", encoding, b.Len(), len(want))
			}
			got, err := io.ReadAll(inflate.New(&b, encoding))
			if err != nil || string(got) != want {
				t.Errorf("%q: %d bytes became %d, %v", encoding, len(want), len(got), err)
			}
		}
	}
}

// What was flushed can be read before more comes, and a stream without Close has no end.
func TestFlush(t *testing.T) {
	t.Parallel()
	for _, encoding := range encodings[1:] {
		pr, pw := io.Pipe()
		next := make(chan struct{})
		failed := make(chan error, 1)
		go func() {
			z := New(encoding, pw)
			for range 3 {
				_, err := io.WriteString(z, "row\n")
				if err == nil {
					err = z.Flush()
				}
				if err == nil {
					err = z.Flush() // of nothing
				}
				if err != nil {
					failed <- err
					return
				}
				<-next
			}
			failed <- pw.Close()
		}()
		r := inflate.New(pr, encoding)
		for range 3 {
			row := make([]byte, 4)
			if _, err := io.ReadFull(r, row); err != nil || string(row) != "row\n" {
				t.Fatalf("%s: %q, %v", encoding, row, err)
			}
			next <- struct{}{}
		}
		if rest, err := io.ReadAll(r); err == nil {
			t.Errorf("%s: a stream without an end ends with %q and no error", encoding, rest)
		}
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
}

func TestAccepted(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]string{
		"":                              "",
		"gzip":                          "gzip",
		"zstd":                          "zstd",
		"GZIP":                          "gzip",
		"x-gzip":                        "gzip",
		"gzip, deflate, br, zstd":       "zstd",
		"zstd, gzip":                    "zstd",
		"gzip;q=1, zstd;q=0.5":          "gzip",
		"gzip ; q=0.2 , zstd ; Q=0.9":   "zstd",
		"gzip;q=0":                      "",
		"zstd;q=0.0, gzip":              "gzip",
		"identity":                      "",
		"identity, gzip;q=0.5":          "",
		"identity;q=0.5, gzip":          "gzip",
		"identity;q=0, *":               "",
		"*":                             "",
		"br":                            "",
		"gzip;q=2":                      "",
		"gzip;q=NaN":                    "",
		"gzip;q=":                       "",
		",, ;q=1,zstd;level=1;q=0.001,": "zstd",
	} {
		if got := Accepted(header); got != want {
			t.Errorf("Accepted(%q) = %q, want %q", header, got, want)
		}
	}
}

// No header makes an encoding that it does not name.
func FuzzAccepted(f *testing.F) {
	for _, s := range []string{"", "gzip", "zstd;q=0", "gzip;q=0.5, zstd;q=0.1", "identity, *;q=0", ";;,=q"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		if got := Accepted(header); got != "" && got != "gzip" && got != "zstd" || !strings.Contains(strings.ToLower(header), got) {
			t.Errorf("Accepted(%q) = %q", header, got)
		}
	})
}
