package cli

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/terselink/terse/client"
)

func TestMapColumns(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name, in, want string
		o              csvOptions
	}{
		{"names only: rows pass through byte for byte", "url,who\n\"a\",b\r\n,\"x\ny\"", "destination,who\n\"a\",b\r\n,\"x\ny\"", csvOptions{columns: map[string]string{"url": "destination"}, comma: ','}},
		{"header alone", "url", "destination\n", csvOptions{columns: map[string]string{"url": "destination"}, comma: ','}},
		{"header with a line break", "\"the\nurl\",external_id\nx,y\n", "destination,external_id\nx,y\n", csvOptions{columns: map[string]string{"the\nurl": "destination"}, comma: ','}},
		{"extra columns", "name,destination,x,external_id\na,b,c,d\n", "destination,external_id\nb,d\n", csvOptions{ignoreExtra: true, known: isLinkField, comma: ','}},
		{"order is kept", "external_id,destination\na,b\n", "external_id,destination\na,b\n", csvOptions{ignoreExtra: true, known: isLinkField, comma: ','}},
		{"other delimiter", "destination;external_id\n\"a;b\";\"c,d\"\n", "destination,external_id\na;b,\"c,d\"\n", csvOptions{comma: ';'}},
		{"short and long rows stay wrong", "x,destination,external_id\n1,a,b\n2,c\n3\n4,d,e,f\n5,g,h\n", "destination,external_id\na,b\nc\n\"\"\nd,e,\ng,h\n", csvOptions{ignoreExtra: true, known: isLinkField, comma: ','}},
		{"short by a column that is left out", "destination,x\na\nb,c\n", "destination\n\"\"\nb\n", csvOptions{ignoreExtra: true, known: isLinkField, comma: ','}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			for _, reader := range []io.Reader{strings.NewReader(tc.in), iotest.OneByteReader(strings.NewReader(tc.in))} {
				r, err := mapColumns(bufio.NewReader(reader), &tc.o)
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(r)
				if err != nil || string(got) != tc.want {
					t.Errorf("got %q, %v; want %q", got, err, tc.want)
				}
			}
		})
	}
	for name, in := range map[string]string{
		"no end":     strings.Repeat("x", maxHeader+1),
		"open quote": "\"destination\na,b\n",
		"nothing":    "",
	} {
		o := csvOptions{ignoreExtra: true, known: isLinkField, comma: ','}
		if _, err := mapColumns(bufio.NewReader(strings.NewReader(in)), &o); err == nil {
			t.Errorf("%s: a header was found", name)
		}
	}
	o := csvOptions{ignoreExtra: true, known: isLinkField, comma: ','}
	r, err := mapColumns(bufio.NewReader(strings.NewReader("destination,x\na,b\n\"c\"d,e\nf,27\" g\nh,i\n\"j,k\n")), &o)
	if err != nil {
		t.Fatal(err)
	}
	// Broken quotes cost their rows only; the server refuses what is sent for them.
	got, err := io.ReadAll(r)
	if want := "destination\na\n\"\"x\nx\"\nh\n\"\"x\n"; err != nil || string(got) != want {
		t.Errorf("broken quotes: %q, %v; want %q", got, err, want)
	}
}

// FuzzMapColumns holds the rewritten rows against those of encoding/csv: as many, in
// order, with the values of the columns that are kept.
func FuzzMapColumns(f *testing.F) {
	for _, s := range []string{"destination,x,code\na,b,c\n", "x,destination\n\"a\nb\",\n\n,\n", "destination\n\"\"\n", "code,destination\r\n\"\"\"\",é\r\n1\r\n1,2,3"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		o := csvOptions{ignoreExtra: true, known: isLinkField, comma: ','}
		r, err := mapColumns(bufio.NewReader(strings.NewReader(s)), &o)
		if err != nil {
			return
		}
		in := csv.NewReader(strings.NewReader(s))
		in.FieldsPerRecord = -1
		rows, err := in.ReadAll()
		if err != nil {
			return
		}
		out := csv.NewReader(r)
		out.FieldsPerRecord = -1
		mapped, err := out.ReadAll()
		if err != nil {
			t.Fatalf("%q: the rewritten rows do not parse: %v", s, err)
		}
		if len(mapped) != len(rows) {
			t.Fatalf("%q: %d rows became %d: %q", s, len(rows), len(mapped), mapped)
		}
		var keep []int
		for i, name := range rows[0] {
			if slices.Contains(fieldNames, strings.ToLower(strings.TrimSpace(name))) {
				keep = append(keep, i)
			}
		}
		for i, row := range rows[1:] {
			got := mapped[i+1]
			if len(row) != len(rows[0]) {
				if len(got) == len(keep) && len(keep) > 1 {
					t.Errorf("%q: row %d is of the wrong length and became right: %q", s, i, got)
				}
				continue
			}
			for j, k := range keep {
				if got[j] != row[k] {
					t.Errorf("%q: row %d, column %d is %q, want %q", s, i, j, got[j], row[k])
				}
			}
		}
	})
}

// TestFaultsUnread: rows that made no link and that the input no longer has are an error, not left out.
func TestFaultsUnread(t *testing.T) {
	t.Parallel()
	list, err := newFaultList()
	if err != nil {
		t.Fatal(err)
	}
	defer list.close()
	for _, i := range []uint64{0, 1} {
		if err := list.add(&client.RawResult{Index: i, ErrorCode: []byte("invalid"), ErrorMessage: []byte("no")}); err != nil {
			t.Fatal(err)
		}
	}
	in := &bulkInput{format: client.CSV, comma: ',', again: func() (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader("destination\nx\n")), nil
	}}
	var out bytes.Buffer
	err = list.write(bufio.NewWriter(&out), in)
	if err == nil || !strings.Contains(err.Error(), "the input ends before row 1") {
		t.Errorf("error %v", err)
	}
	if want := "terse_error,destination\n\"row 0, line 2: invalid: no\",x\n"; out.String() != want {
		t.Errorf("wrote %q, want %q", &out, want)
	}
}

// TestCSVWriter reads back what was written.
func TestCSVWriter(t *testing.T) {
	t.Parallel()
	values := []string{"", "plain", "a,b", `say "hi"`, "two\nlines", "carriage\rreturn", "=1+1", "+49 30", "-1", "@x", "\ttab", "\x00", "'", "a=b", " space "}
	for _, raw := range []bool{false, true} {
		var b bytes.Buffer
		w := bufio.NewWriter(&b)
		c := newCSVWriter(w, raw)
		for i, v := range values {
			if err := c.write(nil, &client.RawResult{Index: uint64(i), ShortURL: []byte("u"), ExternalID: []byte(v), ErrorMessage: []byte(v)}); err != nil {
				t.Fatal(err)
			}
		}
		w.Flush()
		rows, err := csv.NewReader(&b).ReadAll()
		if err != nil || len(rows) != len(values)+1 {
			t.Fatalf("%d rows, %v", len(rows), err)
		}
		for i, v := range values {
			want := v
			if !raw && v != "" && strings.ContainsRune("=+-@\t\r\x00", rune(v[0])) {
				want = "'" + v
			}
			if got := rows[i+1]; got[4] != want || got[6] != want || got[1] != "u" || got[5] != "" {
				t.Errorf("raw %v: %q came back as %q, want %q", raw, v, got, want)
			}
		}
	}
}

func BenchmarkCSVWriter(b *testing.B) {
	w := bufio.NewWriterSize(io.Discard, outputBuffer)
	c := newCSVWriter(w, false)
	r := client.RawResult{Index: 123456, ShortURL: []byte("https://go.example.com/aB3dE5g"), Code: []byte("aB3dE5g"), ID: []byte("link_0000080000f4d"), ExternalID: []byte("r-123456")}
	b.ReportAllocs()
	for b.Loop() {
		if err := c.write(nil, &r); err != nil {
			b.Fatal(err)
		}
	}
}

func TestProgressLines(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		in := &bulkInput{size: 1000}
		c := &rowFlags{Output: "x"}
		p := c.progress(&session{Options: Options{Stdout: &b, Stderr: &b, Now: time.Now}}, in)
		in.read.Store(250)
		for i := range 5000 {
			p.row(i == 0)
		}
		time.Sleep(2*lineEvery + time.Second) // in the bubble: takes no time
		p.stop()
		p.summary(client.BulkSummary{Created: 4998, Reused: 1, Failed: 1})
		want := `5,000 rows, 1,000 rows/s, 1 failed, ETA 15s
5,000 rows, 500 rows/s, 1 failed, ETA 30s
5,000 rows in 11.0 s (454 rows/s): 4,998 created, 1 reused, 1 failed
`
		if b.String() != want {
			t.Errorf("got\n%swant\n%s", b.String(), want)
		}
	})
}

func TestIsLoopback(t *testing.T) {
	t.Parallel()
	for server, want := range map[string]bool{
		"http://127.0.0.1:8081": true, "http://127.9.9.9": true, "http://[::1]:8081": true, "http://localhost:1": true,
		"http://10.0.0.1:8081": false, "https://terse.example": false, "http://127.0.0.1.evil.example": false, "http://localhost.evil.example": false, ":": false, "": false,
	} {
		if got := isLoopback(server); got != want {
			t.Errorf("isLoopback(%q) = %v", server, got)
		}
	}
}

// TestMeterLines: without a terminal there is a line at first, one every few seconds, and the
// last.
func TestMeterLines(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		s := &session{Options: Options{Stderr: &b, Now: time.Now}}
		m := s.meter(false)
		for i := range 13 {
			m.show(float64(i)/13, fmt.Sprint(i, " s"), false)
			time.Sleep(time.Second)
		}
		m.show(1, "all", true)
		m.stop()
		quiet := s.meter(true)
		quiet.show(1, "nothing", true)
		quiet.stop()
		if want := "0 s\n5 s\n10 s\nall\n"; b.String() != want {
			t.Errorf("got %q, want %q", b.String(), want)
		}
	})
}
