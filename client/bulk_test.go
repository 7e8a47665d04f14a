package client

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// answerRows is a server that answers every line as it comes.
func answerRows(t testing.TB) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		if err := rc.EnableFullDuplex(); err != nil {
			t.Error(err)
		}
		in := bufio.NewScanner(r.Body)
		n := 0
		for ; in.Scan(); n++ {
			fmt.Fprintf(w, `{"index":%d,"short_url":"http://h/%d","code":"%d","id":"link_%d"}`+"\n", n, n, n, n)
			if err := rc.Flush(); err != nil {
				return
			}
		}
		fmt.Fprintf(w, `{"done":true,"created":%d,"reused":0,"failed":0}`+"\n", n)
	}
}

// TestBulkFullDuplex sends a row only after the answer to the one before: it hangs
// if either side waits for the other to end.
func TestBulkFullDuplex(t *testing.T) {
	t.Parallel()
	c := serve(t, answerRows(t))
	answered := make(chan struct{})
	const rows = 50
	in := func(yield func(NewLink) bool) {
		for i := range rows {
			if i > 0 {
				<-answered
			}
			if !yield(NewLink{Destination: "https://example.com/"}) {
				return
			}
		}
	}
	// Rows pass a buffer, so the test writes past it with a pipe of its own.
	pr, pw := io.Pipe()
	go func() {
		for range in {
			io.WriteString(pw, "{}\n")
		}
		pw.Close()
	}()
	s, err := c.BulkStream(t.Context(), BulkOptions{}, pr)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for s.Next() {
		if s.Rows() < rows {
			answered <- struct{}{}
		}
	}
	if s.Err() != nil || s.Rows() != rows || s.Summary() != (BulkSummary{Created: rows}) {
		t.Errorf("%d rows, summary %+v, error %v", s.Rows(), s.Summary(), s.Err())
	}
}

func TestBulkIterator(t *testing.T) {
	t.Parallel()
	var body string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		body = string(b)
		if r.URL.RequestURI() != "/api/v1/links/bulk?atomic=true&campaign_id=camp_1&domain=h" || r.Header.Get("Content-Type") != "application/x-ndjson" ||
			r.Header.Get("Accept") != "application/x-ndjson" || r.Header.Get("Idempotency-Key") != "k" || r.Header.Get("Authorization") != "Bearer terse_k" {
			t.Errorf("request %s %v", r.URL, r.Header)
		}
		io.WriteString(w, `{"index":0,"short_url":"http://h/a","code":"a","id":"link_a","external_id":"e \"1\""}
{"index":1,"error":{"code":"invalid_destination","message":"no scheme"}}
{"done":true,"created":1,"reused":0,"failed":1}
`)
	})
	rows := func(yield func(NewLink) bool) {
		_ = yield(NewLink{Destination: "https://a.example/"}) && yield(NewLink{Destination: "b"})
	}
	var got []BulkResult
	for r, err := range c.Bulk(t.Context(), BulkOptions{Domain: "h", CampaignID: "camp_1", Atomic: true, IdempotencyKey: "k"}, rows) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, r)
	}
	want := []BulkResult{
		{Index: 0, ShortURL: "http://h/a", Code: "a", ID: "link_a", ExternalID: `e "1"`},
		{Index: 1, Err: &RowError{Code: "invalid_destination", Message: "no scheme"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("results (-want +got):\n%s", diff)
	}
	if wantBody := "{\"destination\":\"https://a.example/\"}\n{\"destination\":\"b\"}\n"; body != wantBody {
		t.Errorf("body %q, want %q", body, wantBody)
	}
}

func TestBulkLeftEarly(t *testing.T) {
	t.Parallel()
	c := serve(t, answerRows(t))
	endless := func(yield func(NewLink) bool) {
		for yield(NewLink{Destination: "https://example.com/"}) {
		}
	}
	n := 0
	for _, err := range c.Bulk(t.Context(), BulkOptions{}, endless) {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n == 3 {
			break
		}
	}
}

const wholeAnswer = `{"index":0,"short_url":"http://h/a","code":"a","id":"link_a"}
{"index":1,"error":{"code":"invalid_destination","message":"no scheme"}}
{"index":2,"short_url":"http://h/c","code":"c","id":"link_c"}
{"done":true,"created":2,"reused":0,"failed":1}
`

// TestBulkCutEverywhere ends the answer after each of its bytes: only the whole one
// is a success, and a cut one says how many rows are durable.
func TestBulkCutEverywhere(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"abort", "end"} {
		for at := range len(wholeAnswer) + 1 {
			c := serve(t, func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				io.WriteString(w, wholeAnswer[:at])
				http.NewResponseController(w).Flush()
				if how == "abort" && at < len(wholeAnswer) {
					panic(http.ErrAbortHandler)
				}
			})
			s, err := c.BulkStream(t.Context(), BulkOptions{}, strings.NewReader("x"))
			if err != nil {
				t.Fatal(how, at, err)
			}
			n := 0
			for s.Next() {
				n++
			}
			whole := at == len(wholeAnswer)
			if whole != (s.Err() == nil) {
				t.Fatalf("%s at %d: error %v", how, at, s.Err())
			}
			if !whole {
				cut, ok := errors.AsType[*CutError](s.Err())
				lines := min(strings.Count(wholeAnswer[:at], "\n"), 3)
				if !ok || cut.Durable != uint64(lines) || n != lines || s.Summary() != (BulkSummary{}) {
					t.Fatalf("%s at %d: error %v, %d rows, want %d; summary %+v", how, at, s.Err(), n, lines, s.Summary())
				}
			}
			if s.Next() {
				t.Fatalf("%s at %d: Next after the end", how, at)
			}
			s.Close()
			if err := s.Close(); err != nil {
				t.Fatalf("second Close: %v", err)
			}
		}
	}
}

func TestBulkWrongAnswers(t *testing.T) {
	t.Parallel()
	row := func(i int) string { return fmt.Sprintf(`{"index":%d,"code":"a"}`+"\n", i) }
	const done1 = `{"done":true,"created":1,"reused":0,"failed":0}` + "\n"
	cases := []struct {
		name, body string
		durable    uint64
		want       string // part of the error
	}{
		{"row missing", row(0) + row(2), 1, "row 2 where row 1 was due"},
		{"row twice", row(0) + row(0), 1, "row 0 where row 1 was due"},
		{"index is no number", `{"index":"0"}` + "\n", 0, "was due"},
		{"index overflows", `{"index":18446744073709551616}` + "\n", 0, "was due"},
		{"fewer rows than counted", `{"done":true,"created":1,"reused":1,"failed":0}` + "\n", 0, "counts 2 rows and answered 0"},
		{"more after the end", row(0) + done1 + row(1), 1, "follows the last line"},
		{"not JSON", row(0) + "<html>\n", 1, "not JSON"},
		{"neither", row(0) + "{}\n", 1, "neither a result nor the end"},
		{"done is false", row(0) + `{"done":false}` + "\n", 1, "neither a result nor the end"},
		{"the server says why", row(0) + `{"done":false,"created":1,"reused":0,"failed":0,"error":{"code":"body_too_large","message":"the body is longer than 9 bytes"}}` + "\n", 1, "the body is longer than 9 bytes (body_too_large)"},
		{"error in place of the end", row(0) + `{"error":{"code":"unavailable","message":"the store is down"}}` + "\n", 1, "the store is down (unavailable)"},
		{"a line without end", row(0) + strings.Repeat("x", maxResultLine+1), 1, "longer than"},
		{"nothing", "", 0, "was closed"},
		{"no line break at the end", row(0) + strings.TrimSpace(done1), 1, "was closed"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := serve(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, tc.body) })
			s, err := c.BulkStream(t.Context(), BulkOptions{}, strings.NewReader("x\n"))
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			for s.Next() {
			}
			cut, ok := errors.AsType[*CutError](s.Err())
			if !ok || cut.Durable != tc.durable || !strings.Contains(cut.Error(), tc.want) {
				t.Errorf("error %v, want %q after %d rows", s.Err(), tc.want, tc.durable)
			}
		})
	}
}

func TestBulkUnusualFieldOrder(t *testing.T) {
	t.Parallel()
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, `{"code":"a","index":0}`+"\n"+`{ "index": 1, "code": "b" }`+"\n"+`{"failed":0,"created":2,"reused":0,"done":true}`+"\n")
	})
	s, err := c.BulkStream(t.Context(), BulkOptions{}, strings.NewReader(""))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	codes := ""
	for r, err := range s.Results() {
		if err != nil {
			t.Fatal(err)
		}
		codes += r.Code
	}
	if codes != "ab" || s.Summary().Created != 2 {
		t.Errorf("codes %q, summary %+v", codes, s.Summary())
	}
}

// TestBulkRefused checks that a refusal is read as one, and before a large body is sent.
func TestBulkRefused(t *testing.T) {
	t.Parallel()
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusUnauthorized)
		io.WriteString(w, `{"title":"Unauthorized","code":"unauthorized","detail":"no key"}`)
	})
	body := &countingReader{r: io.LimitReader(zeros{}, 1<<30)}
	_, err := c.BulkStream(t.Context(), BulkOptions{Format: CSV}, body)
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Code != "unauthorized" {
		t.Fatalf("error %v", err)
	}
	if body.n != 0 {
		t.Errorf("%d bytes were read before the refusal", body.n)
	}
}

func TestBulkInputFails(t *testing.T) {
	t.Parallel()
	c := serve(t, answerRows(t))
	broken := io.MultiReader(strings.NewReader("{}\n{}\n"), failingReader{errors.New("disk on fire")})
	s, err := c.BulkStream(t.Context(), BulkOptions{}, broken)
	if err == nil {
		defer s.Close()
		for s.Next() {
		}
		err = s.Err()
	}
	if err == nil || !strings.Contains(err.Error(), "read the rows: disk on fire") {
		t.Errorf("error %v", err)
	}

	bad := func(yield func(NewLink) bool) { yield(NewLink{Destination: "\xff"}) }
	for _, err = range c.Bulk(t.Context(), BulkOptions{}, bad) {
	}
	if err == nil || !strings.Contains(err.Error(), "encode row 0") {
		t.Errorf("error of a row that is not UTF-8: %v", err)
	}
}

func TestBulkCancelled(t *testing.T) {
	t.Parallel()
	began := make(chan struct{})
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		rc.EnableFullDuplex()
		fmt.Fprintln(w, `{"index":0,"code":"a"}`)
		rc.Flush()
		close(began)
		io.Copy(io.Discard, r.Body) // until the client goes away
	})
	ctx, cancel := context.WithCancel(t.Context())
	pr, pw := io.Pipe()
	defer pw.Close()
	s, err := c.BulkStream(ctx, BulkOptions{}, pr)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if !s.Next() {
		t.Fatal(s.Err())
	}
	<-began
	cancel()
	if s.Next() {
		t.Fatal("a result after the end")
	}
	cut, ok := errors.AsType[*CutError](s.Err())
	if !ok || cut.Durable != 1 || !errors.Is(cut, context.Canceled) {
		t.Errorf("error %v", s.Err())
	}
}

func TestBulkServerGone(t *testing.T) {
	t.Parallel()
	c, err := New(Options{Server: "http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.BulkStream(t.Context(), BulkOptions{}, strings.NewReader("x")); err == nil {
		t.Error("a stream without a server")
	}
	for _, err := range c.Bulk(t.Context(), BulkOptions{}, func(yield func(NewLink) bool) { yield(NewLink{}) }) {
		if err == nil {
			t.Error("a result without a server")
		}
	}
}

func TestBulkConnectionBreaksFirst(t *testing.T) {
	t.Parallel()
	c := serve(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	_, err := c.BulkStream(t.Context(), BulkOptions{}, strings.NewReader("{}\n"))
	cut, ok := errors.AsType[*CutError](err)
	if !ok || cut.Durable != 0 || !strings.Contains(err.Error(), "before its first row") {
		t.Errorf("error %v", err)
	}
}

func TestDecode(t *testing.T) {
	t.Parallel()
	cases := []struct {
		line string
		want BulkResult
		fast bool
	}{
		{`{"index":0,"short_url":"http://h/a","code":"a","id":"link_a","external_id":"r-0"}`, BulkResult{ShortURL: "http://h/a", Code: "a", ID: "link_a", ExternalID: "r-0"}, true},
		{`{"index":12}`, BulkResult{Index: 12}, true},
		{`{"index":1,"error":{"code":"c","message":"m"}}`, BulkResult{Index: 1, Err: &RowError{Code: "c", Message: "m"}}, true},
		{`{"index":1,"external_id":"e","error":{"code":"c","message":""}}`, BulkResult{Index: 1, ExternalID: "e", Err: &RowError{Code: "c"}}, true},
		{`{"index":1,"error":{"code":"c","message":"m"},"external_id":"e"}`, BulkResult{Index: 1, ExternalID: "e", Err: &RowError{Code: "c", Message: "m"}}, true},
		{`{"index":1,"external_id":"a\u00e4\"b"}`, BulkResult{Index: 1, ExternalID: `aä"b`}, false},
		{`{"index":1,"external_id":null}`, BulkResult{Index: 1}, false},
		{`{"index":1,"error":{"code":"c","message":"say \"m\""}}`, BulkResult{Index: 1, Err: &RowError{Code: "c", Message: `say "m"`}}, false},
		{`{"index":1,"error":{"message":"m","code":"c","field":"x"}}`, BulkResult{Index: 1, Err: &RowError{Code: "c", Field: "x", Message: "m"}}, false},
		{`{"index":1,"error":{"code":"c","field":"x","message":"m"}}`, BulkResult{Index: 1, Err: &RowError{Code: "c", Field: "x", Message: "m"}}, true},
		{`{"index":1,"code":"a","existing":true}`, BulkResult{Index: 1, Code: "a", Existing: true}, true},
		{`{"index":1,"code":"a","existing":false}`, BulkResult{Index: 1, Code: "a"}, false},
		{`{"index":1,"error":{}}`, BulkResult{Index: 1, Err: &RowError{Code: "unknown"}}, false},
		{`{"index":1,"reused":true,"code":"a"}`, BulkResult{Index: 1, Code: "a"}, false},
		{` { "code" : "a" , "index" : 1 } `, BulkResult{Index: 1, Code: "a"}, false},
	}
	for _, tc := range cases {
		var r RawResult
		if fast := r.scan([]byte(tc.line)); fast != tc.fast {
			t.Errorf("%s: fast path %v, want %v", tc.line, fast, tc.fast)
		}
		if err := r.decode([]byte(tc.line)); err != nil {
			t.Errorf("%s: %v", tc.line, err)
		} else if diff := cmp.Diff(tc.want, r.result()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.line, diff)
		}
	}
	for _, line := range []string{``, `{}`, `{"index":}`, `{"index":1`, `{"index":1,}`, `{"index":1,"code":"a}`, `{"index":-1}`, `{"index":01}`, `{"index":1}x`, `[1]`, `{"index":1,"error":{"code":"c"`} {
		var r RawResult
		if err := r.decode([]byte(line)); err == nil {
			t.Errorf("%q was read as %+v", line, r.result())
		}
	}
}

// FuzzDecode holds the fast path against the decoder.
func FuzzDecode(f *testing.F) {
	for line := range strings.Lines(wholeAnswer) {
		f.Add([]byte(strings.TrimSpace(line)))
	}
	f.Add([]byte(`{"index":1,"external_id":"\u00e4","error":{"code":"","message":""}}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		var fast, slow RawResult
		if !fast.scan(line) || slow.unmarshal(line) != nil {
			return
		}
		if diff := cmp.Diff(slow.result(), fast.result()); diff != "" {
			t.Errorf("%q: the fast path differs (-decoder +fast):\n%s", line, diff)
		}
	})
}

var benchLine = []byte(`{"index":123456,"short_url":"https://go.example.com/aB3dE5g","code":"aB3dE5g","id":"link_0000080000f4d","external_id":"r-123456"}`)

func TestDecodeAllocs(t *testing.T) {
	var r RawResult
	if n := testing.AllocsPerRun(100, func() {
		if err := r.decode(benchLine); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocs/op, want 0", n)
	}
}

func BenchmarkDecode(b *testing.B) {
	var r RawResult
	b.SetBytes(int64(len(benchLine)))
	b.ReportAllocs()
	for b.Loop() {
		if err := r.decode(benchLine); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkBulkRead is the client's side of a million results, without a network.
func BenchmarkBulkRead(b *testing.B) {
	const rows = 1_000_000
	var answer bytes.Buffer
	for i := range rows {
		fmt.Fprintf(&answer, `{"index":%d,"short_url":"https://go.example.com/aB3dE5g","code":"aB3dE5g","id":"link_0000080000f4d","external_id":"r-%d"}`+"\n", i, i)
	}
	fmt.Fprintf(&answer, `{"done":true,"created":%d,"reused":0,"failed":0}`+"\n", rows)
	b.ReportAllocs()
	start := time.Now()
	n := 0
	for b.Loop() {
		s := &BulkStream{cancel: func() {}, body: http.NoBody, in: &inputReader{}, r: bufio.NewReaderSize(bytes.NewReader(answer.Bytes()), maxResultLine)}
		var r RawResult
		for s.Next() {
			if err := s.Decode(&r); err != nil {
				b.Fatal(err)
			}
		}
		if s.Err() != nil {
			b.Fatal(s.Err())
		}
		n += rows
	}
	b.ReportMetric(float64(n)/time.Since(start).Seconds(), "rows/s")
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

type failingReader struct{ err error }

func (f failingReader) Read([]byte) (int, error) { return 0, f.err }

type countingReader struct {
	r io.Reader
	n int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
