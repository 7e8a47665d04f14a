package badrows

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

func written(t testing.TB, f func(*Writer)) string {
	var out bytes.Buffer
	b := New(bufio.NewWriter(&out))
	f(b)
	if err := b.Flush(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestBadRows(t *testing.T) {
	t.Parallel()
	const code, message = "invalid_destination", `destination: "nope" is none`
	for _, c := range []struct{ row, want string }{
		{`{ "destination" : "nope", "a": [1, 2] }`, `{"terse_error":{"index":7,"code":"invalid_destination","message":"destination: \"nope\" is none"},"destination":"nope","a":[1,2]}`},
		{`{}`, `{"terse_error":{"index":7,"code":"invalid_destination","message":"destination: \"nope\" is none"}}`},
		{`{"terse_error":{"code":"x"},"destination":"nope"}`, `{"terse_error":{"index":7,"code":"invalid_destination","message":"destination: \"nope\" is none"},"destination":"nope"}`},
		{"{\"a\":\"\xff\"", `{"terse_error":{"index":7,"code":"invalid_destination","message":"destination: \"nope\" is none","row":"{\"a\":\"` + "\ufffd" + `\""}}`},
		{`[1]`, `{"terse_error":{"index":7,"code":"invalid_destination","message":"destination: \"nope\" is none","row":"[1]"}}`},
	} {
		got := written(t, func(b *Writer) {
			if err := b.Add(7, 0, []byte(c.row), code, message); err != nil {
				t.Fatal(err)
			}
		})
		if got != c.want+"\n" {
			t.Errorf("%s becomes\n%s, want\n%s", c.row, got, c.want)
		}
	}
	reason := `"row 7: invalid_destination: destination: ""nope"" is none"`
	for _, c := range []struct{ header, row, want string }{
		{"url,id\r", "nope,\"1,2\"\r", "terse_error,url,id\n" + reason + ",nope,\"1,2\"\n"},
		{"terse_error,url", "\"a,\"\"b\",nope", "terse_error,url\n" + reason + ",nope\n"},
		{"terse_error,url", "x", "terse_error,url\n" + reason + "\n"},
		{"url", "", "terse_error,url\n" + reason + ",\n"},
	} {
		got := written(t, func(b *Writer) {
			first, _, _ := strings.Cut(strings.TrimSpace(c.header), ",")
			err := b.Header([]byte(c.header), first, ',')
			if err = errors.Join(err, b.Add(7, 0, []byte(c.row), code, message)); err != nil {
				t.Fatal(err)
			}
		})
		if got != c.want {
			t.Errorf("%q, %q becomes\n%q, want\n%q", c.header, c.row, got, c.want)
		}
	}
}

// TestLine: where the line of the file is known, it stands beside the index; a file keeps what separates its columns.
func TestLine(t *testing.T) {
	t.Parallel()
	got := written(t, func(b *Writer) {
		if err := errors.Join(b.Header([]byte("terse_error;url"), "terse_error", ';'), b.Add(7, 9, []byte(`"old";nope`), "c", "m")); err != nil {
			t.Fatal(err)
		}
	})
	if want := "terse_error;url\n\"row 7, line 9: c: m\";nope\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := written(t, func(b *Writer) { _ = b.Add(7, 9, []byte(`{"a":1}`), "c", "m") }); got != `{"terse_error":{"index":7,"line":9,"code":"c","message":"m"},"a":1}`+"\n" {
		t.Error(got)
	}
}

// FuzzBadRows: whatever a row is, its line in the file of bad rows can be read, and has the
// row.
func FuzzBadRows(f *testing.F) {
	f.Add([]byte(`{"a":1}`))
	f.Add([]byte(`{"terse_error":{},"a":1}`))
	f.Add([]byte("\"a,\"\"b\",c"))
	f.Add([]byte("{\"terse_error\":1,\"terse_error\":2}"))
	f.Fuzz(func(t *testing.T, row []byte) {
		line := written(t, func(b *Writer) { _ = b.Add(1, 3, row, "c", "m") }) // a buffer takes everything
		v := jsontext.Value(line)
		if !v.IsValid() || strings.Count(line, "\n") != 1 {
			t.Fatalf("%q", line)
		}
		// A row of such a file that is bad again says so once.
		again := written(t, func(b *Writer) { _ = b.Add(1, 3, []byte(line), "c", "m") })
		if strings.Contains(line, `"row":`) {
			return
		}
		if again != line {
			t.Fatalf("%q becomes %q", line, again)
		}
	})
}

// FuzzCutField: the first column of a file of bad rows is taken off whole.
func FuzzCutField(f *testing.F) {
	f.Add("a \"b\"", "c,d")
	f.Fuzz(func(t *testing.T, first, rest string) {
		if strings.ContainsAny(first, "\r") {
			return
		}
		var b bytes.Buffer
		w := csv.NewWriter(&b)
		_ = w.Write([]string{first, "x"}) // a buffer takes everything
		w.Flush()
		record := strings.TrimSuffix(b.String(), "x\n") + rest
		if got, ok := cutField([]byte(record), ','); !ok || string(got) != rest {
			t.Fatalf("%q leaves %q, %v", record, got, ok)
		}
	})
}
