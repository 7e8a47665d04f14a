package links

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/domains"
	"github.com/terselink/terse/internal/store/memstore"
)

type result struct {
	Index      *uint64 `json:"index"`
	ShortURL   string  `json:"short_url"`
	Code       string  `json:"code"`
	ID         string  `json:"id"`
	ExternalID string  `json:"external_id"`
	Existing   bool    `json:"existing"`
	Error      *struct {
		Code, Field, Message string
	} `json:"error"`
	Done            bool
	Created, Reused uint64
}

// ndjsonResults decodes the result lines and checks order and the done line.
func ndjsonResults(t testing.TB, out string) []result {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	var rs []result
	for i, line := range lines {
		var r result
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("result %d: %v: %q", i, err, line)
		}
		if i == len(lines)-1 {
			if !r.Done {
				t.Fatalf("no done line but %q", line)
			}
			return rs
		}
		if r.Index == nil || *r.Index != uint64(i) {
			t.Fatalf("result %d has index %v", i, r.Index)
		}
		rs = append(rs, r)
	}
	return rs
}

func TestBulkFormats(t *testing.T) {
	t.Parallel()
	ndjson := `{"destination":"https://example.com/0","external_id":"r-0"}

{ "destination" : "https://example.com/1" , "title" : "\u00fc" }
{"destination":"javascript:x","external_id":"r-2"}
{"destination":"https://example.com/3","code":"three"}
{"destination":"https://example.com/4","code":"three"}
{"destination":"https://example.com/5","unknown":1}
not json
{"destination":"https://example.com/7","destination":"https://example.com/7"}
{"destination":"https://example.com/8","domain":"nowhere.example"}`
	array := `[` + strings.Join([]string{
		`{"destination":"https://example.com/0","external_id":"r-0"}`, "\n" + `{ "destination" : "https://example.com/1" , "title" : "\u00fc" } `,
		`{"destination":"javascript:x","external_id":"r-2"}`, `{"destination":"https://example.com/3","code":"three"}`,
		`{"destination":"https://example.com/4","code":"three"}`, `{"destination":"https://example.com/5","unknown":1}`,
		`12`, `{"destination":"https://example.com/7","destination":"https://example.com/7"}`, `{"destination":"https://example.com/8","domain":"nowhere.example"}`,
	}, ",") + "\n]\n"
	table := "\ufeffdestination,external_id,title,code,domain\r\n" +
		"https://example.com/0,r-0,,,\r\nhttps://example.com/1,,ü,,\njavascript:x,r-2,,,\n\"https://example.com/3\",,,three,\nhttps://example.com/4,,\"a \"\"b\"\"\nc\",three,\n" +
		"https://example.com/5,,,,,1\nshort\nhttps://example.com/7,,\"x\"y,,\nhttps://example.com/8,,,,nowhere.example"
	wantCodes := []string{"", "", "invalid_destination", "", "alias_taken", "invalid_field", "invalid_json", "invalid_json", "unknown_domain"}
	wantCSV := []string{"", "", "invalid_destination", "", "invalid", "invalid_csv", "invalid_csv", "invalid_csv", "unknown_domain"}
	for _, tc := range []struct {
		name  string
		in    Format
		body  string
		codes []string
	}{{"ndjson", NDJSON, ndjson, wantCodes}, {"json", JSON, array, wantCodes}, {"csv", CSV, table, wantCSV}} {
		for name, wrap := range map[string]func(io.Reader) io.Reader{"whole": func(r io.Reader) io.Reader { return r }, "one byte": iotest.OneByteReader, "data and EOF": iotest.DataErrReader} {
			t.Run(tc.name+" "+name, func(t *testing.T) {
				t.Parallel()
				s := setup(t)
				var out bytes.Buffer
				sum, err := s.Bulk(t.Context(), actor, BulkOptions{In: tc.in}, wrap(strings.NewReader(tc.body)), &out)
				if err != nil {
					t.Fatalf("%v\n%s", err, out.String())
				}
				if sum != (BulkSummary{Created: 3, Failed: 6}) {
					t.Errorf("summary %+v\n%s", sum, out.String())
				}
				rs := ndjsonResults(t, out.String())
				if len(rs) != len(tc.codes) {
					t.Fatalf("%d results: %s", len(rs), out.String())
				}
				for i, want := range tc.codes {
					got := ""
					if rs[i].Error != nil {
						got = rs[i].Error.Code
					}
					if got != want {
						t.Errorf("row %d: error %q (%+v), want %q", i, got, rs[i].Error, want)
						continue
					}
					if want != "" {
						continue
					}
					l, err := s.Lookup(t.Context(), actor, rs[i].ShortURL)
					if err != nil || l.Destination != fmt.Sprintf("https://example.com/%d", i) || l.Number.String() != rs[i].ID || l.Code != rs[i].Code {
						t.Errorf("row %d leads to %+v, %v", i, l, err)
					}
				}
				if rs[0].ExternalID != "r-0" || rs[2].ExternalID != "r-2" {
					t.Errorf("external ids %q, %q", rs[0].ExternalID, rs[2].ExternalID)
				}
			})
		}
	}
}

func TestBulkOut(t *testing.T) {
	t.Parallel()
	s := setup(t)
	body := `{"destination":"https://example.com/0","external_id":"=cmd"}` + "\n" + `{"destination":"x","external_id":"a,\"b"}` + "\n"
	out, _ := s.bulkString(t, BulkOptions{Out: CSV}, body)
	recs, err := csv.NewReader(strings.NewReader(out)).ReadAll()
	if err != nil || len(recs) != 3 || recs[1][4] != "'=cmd" || recs[2][4] != `a,"b` || recs[2][5] != "invalid_destination" || recs[1][0] != "0" {
		t.Fatalf("%q, %v", recs, err)
	}
	out, _ = s.bulkString(t, BulkOptions{Out: CSV, RawCSV: true}, body)
	if recs, err = csv.NewReader(strings.NewReader(out)).ReadAll(); err != nil || recs[1][4] != "=cmd" {
		t.Fatalf("%q, %v", recs, err)
	}
	out, _ = s.bulkString(t, BulkOptions{Out: JSON}, body)
	var rs []result
	if err := json.Unmarshal([]byte(out), &rs); err != nil || len(rs) != 2 || rs[0].ExternalID != "=cmd" || rs[1].Error == nil {
		t.Fatalf("%s: %v", out, err)
	}
	out, _ = s.bulkString(t, BulkOptions{Out: JSON}, "")
	if err := json.Unmarshal([]byte(out), &rs); err != nil || len(rs) != 0 {
		t.Fatalf("%s: %v", out, err)
	}
}

// TestBulkBadElements: elements that are too long or nest too deep are bad rows, as they are in NDJSON, and those around them
// have links, however the body comes; also when the request is repeated.
func TestBulkBadElements(t *testing.T) {
	t.Parallel()
	good := func(i int) string { return fmt.Sprintf(`{"destination":"https://example.com/%d"}`, i) }
	long := func(n int) string { return `{"title":"` + strings.Repeat(`a\"]`, n/4) + `","tags":["]",[{}]]}` }
	deep := strings.Repeat(`[`, 100) + strings.Repeat("]", 100)
	elements := []string{good(0), long(maxRow + 1), good(2), deep, good(4), long(3*batchBytes + 5), good(6), `{"title":` + deep + `}`, long(maxRow), long(maxRow / 2), good(10), long(2 * maxRow)}
	codes := []string{"", "row_too_large", "", "invalid_json", "", "row_too_large", "", "invalid_json", "row_too_large", "invalid_field", "", "row_too_large"}
	array := "[" + strings.Join(elements, " ,\n") + " ]"
	for name, body := range map[string]func() io.Reader{
		"whole":  func() io.Reader { return strings.NewReader(array) },
		"halves": func() io.Reader { return iotest.HalfReader(strings.NewReader(array)) },
		"marked": func() io.Reader { return iotest.DataErrReader(strings.NewReader(byteOrderMark + array)) },
		"pieces": func() io.Reader { return &pieceReader{strings.NewReader(array), 4099} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := setup(t)
			var first string
			for range 2 {
				var out bytes.Buffer
				sum, err := s.Bulk(t.Context(), actor, BulkOptions{In: JSON, Ledger: "l"}, body(), &out)
				if err != nil || sum != (BulkSummary{Created: 5, Failed: 7}) {
					t.Fatalf("%+v, %v\n%.2000s", sum, err, out.String())
				}
				for i, r := range ndjsonResults(t, out.String()) {
					got := ""
					if r.Error != nil {
						got = r.Error.Code
					}
					if *r.Index != uint64(i) || got != codes[i] {
						t.Errorf("row %d: %+v, want %q", i, r.Error, codes[i])
					}
				}
				if first == "" {
					first = out.String()
				} else if first != out.String() {
					t.Errorf("repeated:\n%.1000s\nfirst:\n%.1000s", out.String(), first)
				}
			}
			s = setup(t)
			var out bytes.Buffer
			if _, err := s.Bulk(t.Context(), actor, BulkOptions{In: JSON, Atomic: true}, body(), &out); err == nil {
				t.Error("an atomic request with bad rows is done")
			} else if e, ok := errors.AsType[*RowsError](err); !ok || e.Failed != 7 || out.Len() > 0 {
				t.Errorf("atomic: %v %s", err, out.String())
			}
		})
	}
	// Rows that are picked again are the same ones, and stand where they stood.
	var picked []string
	wanted := []uint64{0, 2, 6, 10}
	next := func() (uint64, bool) {
		if len(wanted) == 0 {
			return 0, false
		}
		i := wanted[0]
		wanted = wanted[1:]
		return i, true
	}
	if err := PickRows(strings.NewReader(byteOrderMark+array), PickOptions{In: JSON}, next, func(i, line uint64, row []byte) error {
		picked = append(picked, fmt.Sprint(i, " ", line, " ", strings.TrimSpace(string(row))))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if want := []string{"0 1 " + good(0), "2 3 " + good(2), "6 7 " + good(6), "10 11 " + good(10)}; !slices.Equal(picked, want) {
		t.Errorf("picked %q, want %q", picked, want)
	}
}

// pieceReader reads n bytes at a time.
type pieceReader struct {
	r io.Reader
	n int
}

func (p *pieceReader) Read(b []byte) (int, error) { return p.r.Read(b[:min(len(b), p.n)]) }

// TestByteOrderMark: rows of any form may begin with a byte order mark, however it comes; what only begins like one is no mark.
func TestByteOrderMark(t *testing.T) {
	t.Parallel()
	row := `{"destination":"https://example.com/0"}`
	for in, body := range map[Format]string{NDJSON: row + "\n" + row, JSON: "[" + row + "," + row + "]", CSV: "destination\nhttps://example.com/0\nhttps://example.com/0\n"} {
		for _, o := range []BulkOptions{{In: in}, {In: in, Atomic: true}} {
			s := setup(t)
			for name, r := range map[string]io.Reader{"whole": strings.NewReader(byteOrderMark + body), "one byte": iotest.OneByteReader(strings.NewReader(byteOrderMark + body))} {
				if sum, err := s.Bulk(t.Context(), actor, o, r, io.Discard); err != nil || sum.Created != 2 {
					t.Errorf("form %d, %s, atomic %v: %+v, %v", in, name, o.Atomic, sum, err)
				}
			}
		}
	}
	for _, text := range []string{"", "\xef", "\xef\xbb", "\xef\xbbx", "\xef\xef\xbb\xbf", "x\xef\xbb\xbf", byteOrderMark, byteOrderMark + byteOrderMark} {
		for name, r := range map[string]io.Reader{"whole": strings.NewReader(text), "one byte": iotest.OneByteReader(strings.NewReader(text)), "data and EOF": iotest.DataErrReader(strings.NewReader(text))} {
			got, err := io.ReadAll(withoutMark(r, NDJSON))
			if want := strings.TrimPrefix(text, byteOrderMark); err != nil || string(got) != want {
				t.Errorf("%q, %s: %q, %v, want %q", text, name, got, err, want)
			}
		}
	}
}

// TestAppendFault: the end of results that are not complete, in each of their forms.
func TestAppendFault(t *testing.T) {
	t.Parallel()
	sum := BulkSummary{Created: 3, Reused: 2, Failed: 1}
	for out, want := range map[Format]string{
		NDJSON:   `{"done":false,"created":3,"reused":2,"failed":1,"error":{"code":"body_cut","message":"it \"ended\", early"}}` + "\n",
		JSON:     ",\n" + `{"done":false,"created":3,"reused":2,"failed":1,"error":{"code":"body_cut","message":"it \"ended\", early"}}` + "\n",
		CSV:      `,,,,,body_cut,"it ""ended"", early"` + "\n",
		NoOutput: "",
	} {
		if got := string(AppendFault(nil, out, sum, "body_cut", `it "ended", early`)); got != want {
			t.Errorf("%d: %s, want %s", out, got, want)
		}
	}
}

func TestBulkBodyErrors(t *testing.T) {
	t.Parallel()
	row := `{"destination":"https://example.com/0"}`
	for _, tc := range []struct {
		name    string
		o       BulkOptions
		body    io.Reader
		code    string
		created uint64
	}{
		{"array not closed", BulkOptions{In: JSON}, strings.NewReader("[" + row + "," + row), "body_cut", 1},
		{"no array", BulkOptions{In: JSON}, strings.NewReader(row), "invalid_json", 0},
		{"empty JSON body", BulkOptions{In: JSON}, strings.NewReader(""), "body_cut", 0},
		{"trailing comma", BulkOptions{In: JSON}, strings.NewReader("[" + row + ",]"), "invalid_json", 1},
		{"two arrays", BulkOptions{In: JSON}, strings.NewReader("[" + row + "][]"), "invalid_json", 1},
		{"deep without end", BulkOptions{In: JSON}, strings.NewReader("[" + strings.Repeat("[", 1000)), "body_cut", 0},
		{"closing bracket", BulkOptions{In: JSON}, strings.NewReader("[}]"), "invalid_json", 0},
		{"endless element", BulkOptions{In: JSON}, strings.NewReader(`[{"destination":"` + strings.Repeat("x", maxRow*2)), "body_cut", 0},
		{"no header", BulkOptions{In: CSV}, strings.NewReader(""), "invalid_csv", 0},
		{"endless header", BulkOptions{In: CSV}, strings.NewReader(strings.Repeat("x", maxRow*2)), "row_too_large", 0},
		{"unknown column", BulkOptions{In: CSV}, strings.NewReader("destination,foo\n"), "unknown_column", 0},
		{"no destination", BulkOptions{In: CSV}, strings.NewReader("code\nx\n"), "invalid_csv", 0},
		{"column twice", BulkOptions{In: CSV}, strings.NewReader("destination,destination\nx\n"), "invalid_csv", 0},
		{"body fails", BulkOptions{}, io.MultiReader(strings.NewReader(row+"\n"), iotest.ErrReader(io.ErrUnexpectedEOF)), "body_cut", 1},
		{"too large", BulkOptions{MaxBytes: 100}, strings.NewReader(strings.Repeat(row+"\n", 10)), "body_too_large", 0},
		{"unknown domain", BulkOptions{Domain: "nowhere.example"}, strings.NewReader(row), "unknown_domain", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := setup(t)
			var out bytes.Buffer
			sum, err := s.Bulk(t.Context(), actor, tc.o, tc.body, &out)
			e, ok := errors.AsType[*terse.Error](err)
			if !ok || e.PublicCode() != tc.code {
				t.Fatalf("%v; want %s", err, tc.code)
			}
			if sum.Created > tc.created {
				t.Errorf("%d created", sum.Created)
			}
			if strings.Contains(out.String(), `"done"`) {
				t.Errorf("a failed stream says done: %s", out.String())
			}
			// What was answered exists, and nothing else does.
			p, _ := s.List(t.Context(), actor, Filter{})
			if n := strings.Count(out.String(), `"short_url"`); n > len(p.Links) || uint64(len(p.Links)) > tc.created {
				t.Errorf("%d links, %d answered", len(p.Links), n)
			}
		})
	}
}

func TestBulkLongRow(t *testing.T) {
	t.Parallel()
	s := setup(t)
	good := `{"destination":"https://example.com/0"}` + "\n"
	body := good + `{"destination":"` + strings.Repeat("x", 3*maxRow) + "\"}\n" + good
	out, sum := s.bulkString(t, BulkOptions{}, body)
	rs := ndjsonResults(t, out)
	if sum.Created != 2 || sum.Failed != 1 || rs[1].Error.Code != "row_too_large" {
		t.Fatalf("%+v %s", sum, out)
	}
	s = setup(t)
	body = "destination,title\nhttps://example.com/0,x\nhttps://example.com/1,\"" + strings.Repeat("y\n", maxRow) + "\"\nhttps://example.com/2,z\n"
	out, sum = s.bulkString(t, BulkOptions{In: CSV}, body)
	if rs = ndjsonResults(t, out); sum.Created != 2 || sum.Failed != 1 || len(rs) != 3 {
		t.Fatalf("%+v %d", sum, len(rs))
	}
}

// TestBulkStrayQuote: a quote inside a field that is not quoted costs its own row only.
func TestBulkStrayQuote(t *testing.T) {
	t.Parallel()
	const rows = 30_000
	for _, stray := range [][]int{{10}, {10, 11}, {10, 29_000}, {0, rows - 1}} {
		s := setup(t)
		var b strings.Builder
		b.WriteString("destination,terse_ignored\n")
		for i := range rows {
			switch {
			case slices.Contains(stray, i):
				fmt.Fprintf(&b, "https://e.com/%d,27\" monitor\n", i)
			case i%100 == 99:
				fmt.Fprintf(&b, "\"https://e.com/%d\",\"two \"\"\nlines, \"\r\n", i)
			default:
				fmt.Fprintf(&b, "https://e.com/%d,x\n", i)
			}
		}
		out, sum := s.bulkString(t, BulkOptions{In: CSV}, b.String())
		rs := ndjsonResults(t, out)
		if sum.Created != uint64(rows-len(stray)) || sum.Failed != uint64(len(stray)) || len(rs) != rows {
			t.Fatalf("quotes in %v: %+v, %d results", stray, sum, len(rs))
		}
		for _, i := range stray {
			if rs[i].Error == nil || rs[i].Error.Code != "invalid_csv" {
				t.Errorf("row %d: %+v", i, rs[i])
			}
		}
	}
}

func TestBulkAtomic(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.create(t, NewLink{Destination: "https://example.com/", Code: "taken"})
	good := `{"destination":"https://example.com/0","code":"free"}` + "\n"
	for _, body := range []string{good + `{"destination":"x"}`, good + `{"destination":"https://example.com/","code":"taken"}`, good + good} {
		var out bytes.Buffer
		_, err := s.Bulk(t.Context(), actor, BulkOptions{Atomic: true}, strings.NewReader(body), &out)
		e, ok := errors.AsType[*RowsError](err)
		if !ok || len(e.Rows) != 1 || e.Rows[0].Index != 1 || out.Len() != 0 {
			t.Fatalf("%q: %v, wrote %q", body, err, out.String())
		}
		if p, _ := s.List(t.Context(), actor, Filter{}); len(p.Links) != 1 {
			t.Fatalf("%q left %d links", body, len(p.Links))
		}
	}
	out, sum := s.bulkString(t, BulkOptions{Atomic: true, In: CSV}, "destination,code\nhttps://example.com/0,free\nhttps://example.com/1,\n")
	if len(ndjsonResults(t, out)) != 2 || sum.Created != 2 {
		t.Fatalf("%+v %s", sum, out)
	}
}

func TestBulkReuse(t *testing.T) {
	t.Parallel()
	s := setup(t)
	known := s.create(t, NewLink{Destination: "https://example.com/known"})
	row := func(dest string) string {
		return `{"destination":"https://example.com/` + dest + `","if_exists":"reuse"}` + "\n"
	}
	out, sum := s.bulkString(t, BulkOptions{}, row("known")+row("new")+row("new")+row("known")+`{"destination":"https://example.com/new"}`+"\n")
	rs := ndjsonResults(t, out)
	if sum != (BulkSummary{Created: 2, Reused: 3}) || rs[0].Code != known.Code || rs[3].Code != known.Code || rs[1].Code != rs[2].Code || rs[4].Code == rs[1].Code || rs[1].Existing || !rs[2].Existing {
		t.Fatalf("%+v\n%s", sum, out)
	}
	out, sum = s.bulkString(t, BulkOptions{}, row("new"))
	if sum.Reused != 1 || sum.Created != 0 {
		t.Fatalf("%+v\n%s", sum, out)
	}
}

// TestBulkAliasRace lets bulk requests claim the same aliases: each has one winner and
// everybody hears the truth.
func TestBulkAliasRace(t *testing.T) {
	t.Parallel()
	s := setup(t)
	var body strings.Builder
	const aliases = 500
	for i := range aliases {
		fmt.Fprintf(&body, `{"destination":"https://example.com/%d","code":"alias-%d"}`+"\n", i, i)
	}
	var wg sync.WaitGroup
	outs := make([]string, 4)
	for i := range outs {
		wg.Go(func() { outs[i], _ = s.bulkString(t, BulkOptions{}, body.String()) })
	}
	wg.Wait()
	winners := map[string]int{}
	for _, out := range outs {
		for _, r := range ndjsonResults(t, out) {
			if r.Error == nil {
				winners[r.Code]++
			} else if r.Error.Code != "alias_taken" {
				t.Fatalf("%+v", r.Error)
			}
		}
	}
	if len(winners) != aliases {
		t.Fatalf("%d aliases won", len(winners))
	}
	for a, n := range winners {
		if n != 1 {
			t.Fatalf("%s was won %d times", a, n)
		}
	}
}

// TestBulkMany streams many rows over several domains: every one resolves, none twice.
func TestBulkMany(t *testing.T) {
	t.Parallel()
	s := setup(t)
	for i := range 5 {
		if _, err := s.domains.Create(t.Context(), testWorkspace, domains.New{Host: fmt.Sprintf("d%d.example.com", i)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	const rows = 60_000
	pr, pw := io.Pipe()
	go func() {
		for i := range rows {
			fmt.Fprintf(pw, `{"destination":"https://example.com/p/%d","domain":"d%d.example.com","external_id":"r-%d"}`+"\n", i, i%5, i)
		}
		pw.Close()
	}()
	var out bytes.Buffer
	sum, err := s.Bulk(t.Context(), actor, BulkOptions{}, pr, &out)
	if err != nil || sum.Created != rows {
		t.Fatalf("%+v, %v", sum, err)
	}
	seen := map[string]bool{}
	for i, r := range ndjsonResults(t, out.String()) {
		if seen[r.ShortURL] || r.ExternalID != fmt.Sprintf("r-%d", i) {
			t.Fatalf("row %d: %+v", i, r)
		}
		seen[r.ShortURL] = true
		if i%997 == 0 {
			if l, err := s.Lookup(t.Context(), actor, r.ShortURL); err != nil || l.Destination != fmt.Sprintf("https://example.com/p/%d", i) {
				t.Fatalf("row %d leads to %+v, %v", i, l, err)
			}
		}
	}
}

// TestBulkAnswersWhileReading sends a row only after the result of the one before came.
func TestBulkAnswersWhileReading(t *testing.T) {
	t.Parallel()
	s := setup(t)
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	go func() {
		_, err := s.Bulk(t.Context(), actor, BulkOptions{}, inR, outW)
		outW.CloseWithError(err)
	}()
	dec := json.NewDecoder(outR)
	for i := range 20 {
		fmt.Fprintf(inW, `{"destination":"https://example.com/%d"}`+"\n", i)
		var r result
		if err := dec.Decode(&r); err != nil || *r.Index != uint64(i) || r.Code == "" {
			t.Fatalf("row %d: %+v, %v", i, r, err)
		}
	}
	inW.Close()
	var r result
	if err := dec.Decode(&r); err != nil || !r.Done || r.Created != 20 {
		t.Fatalf("%+v, %v", r, err)
	}
}

// TestBulkWriterFails: a client that goes away ends its request and nothing else.
func TestBulkWriterFails(t *testing.T) {
	t.Parallel()
	s := setup(t)
	body := strings.Repeat(`{"destination":"https://example.com/0"}`+"\n", 100_000)
	_, err := s.Bulk(t.Context(), actor, BulkOptions{}, strings.NewReader(body), &failingWriter{left: 1 << 20})
	if !errors.Is(err, io.ErrClosedPipe) {
		t.Fatalf("%v", err)
	}
	if _, sum := s.bulkString(t, BulkOptions{}, `{"destination":"https://example.com/0"}`); sum.Created != 1 {
		t.Fatal("the next request suffers")
	}
}

type failingWriter struct{ left int }

func (w *failingWriter) Write(b []byte) (int, error) {
	if w.left -= len(b); w.left < 0 {
		return 0, io.ErrClosedPipe
	}
	return len(b), nil
}

func FuzzParseJSON(f *testing.F) {
	for _, s := range []string{
		`{"destination":"https://example.com/","external_id":"x"}`, `{}`, `{"a":1}`, `{"destination":"a","destination":"b"}`, ` {"code":"x"} `, `{"destination":"\u0041"}`,
		`{"destination":"ü"}`, `null`, `{"destination":null}`, `{"Destination":"x"}`, `{"tags":["a"],"expires_at":"2027-01-01T00:00:00Z"}`, `{"destination":"x"}{}`, "{\"destination\":\"\xff\"}",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var plain, full NewLink
		if !parsePlainJSON([]byte(s), &plain) {
			if parseJSON([]byte(s), &full) == nil && !json.Valid([]byte(s)) {
				t.Fatalf("%q is not JSON but was accepted", s)
			}
			return
		}
		if err := parseFullJSON([]byte(s), &full); err != nil {
			t.Fatalf("%q: plain accepts, full: %v", s, err)
		}
		if fmt.Sprintf("%+v", plain) != fmt.Sprintf("%+v", full) {
			t.Fatalf("%q: plain %+v, full %+v", s, plain, full)
		}
	})
}

// FuzzCSV compares the scanner with encoding/csv on the records both accept.
func FuzzCSV(f *testing.F) {
	for _, s := range []string{"a,b,c", `"a ""b""",,"c,d"`, "\"a\nb\",c", "a\r", `"`, `a"b`, `"a"b`, ",", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var c csvCutter
		n, rows, err := c.cut([]byte(s), true)
		if err != nil || n > len(s) {
			t.Fatalf("cut(%q) = %d, %v", s, n, err)
		}
		if len(rows) == 0 || len(s) > batchBytes {
			return
		}
		row := s[rows[0][0]:rows[0][1]]
		var sc csvScanner
		sc.reset([]byte(row))
		var got []string
		for {
			v, ok, err := sc.next()
			if err != nil {
				return
			}
			if !ok {
				break
			}
			got = append(got, v)
		}
		if strings.ContainsAny(row, "\r") {
			return // encoding/csv folds CRLF inside quotes
		}
		want, err := csv.NewReader(strings.NewReader(row)).Read()
		if err != nil {
			t.Fatalf("%q: encoding/csv refuses: %v", row, err)
		}
		if strings.Join(got, "\x00") != strings.Join(want, "\x00") {
			t.Fatalf("%q: %q, want %q", row, got, want)
		}
	})
}

// recordsOf is the rule of csvCutter, byte by byte.
func recordsOf(s string, comma byte) (records []string) {
	at, from := fieldStart, 0
	for i := range len(s) {
		switch b := s[i]; {
		case b == '"' && (at == fieldStart || at == behindQuote):
			at = quoted
		case at == quoted:
			if b == '"' {
				at = behindQuote
			}
		case b == '\n':
			records = append(records, s[from:i])
			at, from = fieldStart, i+1
		case b == comma:
			at = fieldStart
		default:
			at = unquoted
		}
	}
	if from < len(s) {
		records = append(records, s[from:])
	}
	return slices.DeleteFunc(records, func(r string) bool { return blank([]byte(r)) })
}

// FuzzCSVCutter feeds a body in pieces: the records are those of recordsOf, and what recordEnd says of
// a record that comes in two parts is what it says of the whole.
func FuzzCSVCutter(f *testing.F) {
	for _, s := range []string{
		"a,b\nc,27\" monitor\nd,e\nf,5\" nail\ng", "a,\"b\nc\"\nd", "\"a\"\"\n\",b\nc", "\"a\"b\nc,\"d\n\"\n", "a\"\"b\nc", ",\"\n\",\"\n", "a;\"b\nc\"\n", "\"a\" ,\"\nb\"\n", "\"a\n\n",
	} {
		f.Add(s, uint64(1))
	}
	f.Fuzz(func(t *testing.T, s string, seed uint64) {
		if len(s) > maxRow {
			return
		}
		rnd := rand.New(rand.NewPCG(seed, 1))
		for _, comma := range []byte{0, ';'} {
			sep := max(comma, ',')
			want := recordsOf(s, sep)
			c := csvCutter{comma: comma}
			var pending []byte
			var got []string
			for rest, eof := s, false; !eof; {
				n := min(len(rest), 1+rnd.IntN(5))
				pending, rest = append(pending, rest[:n]...), rest[n:]
				eof = len(rest) == 0
				n, rows, err := c.cut(pending, eof)
				if err != nil {
					t.Fatal(err)
				}
				for _, r := range rows {
					got = append(got, string(pending[r[0]:r[1]]))
				}
				pending = append(pending[:0], pending[n:]...)
				c.shift(n)
			}
			if !slices.Equal(got, want) {
				t.Fatalf("%q: %q, want %q", s, got, want)
			}
			cut := rnd.IntN(len(s) + 1)
			end, at := recordEnd([]byte(s), sep, fieldStart)
			first, behind := recordEnd([]byte(s[:cut]), sep, fieldStart)
			if first < 0 {
				if first, behind = recordEnd([]byte(s[cut:]), sep, behind); first >= 0 {
					first += cut
				}
				if first != end || behind != at {
					t.Fatalf("%q in two parts at %d: %d %d, whole %d %d", s, cut, first, behind, end, at)
				}
			} else if first != end {
				t.Fatalf("%q: the record ends at %d in a part, at %d in the whole", s, first, end)
			}
		}
	})
}

// FuzzArrayCutter feeds a valid array in random pieces: the elements are those that
// encoding/json sees.
func FuzzArrayCutter(f *testing.F) {
	for _, s := range []string{`[]`, `[1,2]`, ` [ {"a":"]"} , "\"" ] `, `[[1],[2,3]]`, `[1,]`, `[`, `1`, `[]]`} {
		f.Add(s, uint64(1))
	}
	f.Fuzz(func(t *testing.T, s string, seed uint64) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		c := newCutter(JSON)
		var pending []byte
		var got []string
		rest := s
		failed := false
		for eof := false; !eof && !failed; {
			n := min(len(rest), 1+rnd.IntN(5))
			pending, rest = append(pending, rest[:n]...), rest[n:]
			eof = len(rest) == 0
			for {
				n, rows, err := c.cut(pending, eof)
				if n > 0 {
					for _, r := range rows {
						got = append(got, string(pending[r[0]:r[1]]))
					}
					pending = append(pending[:0], pending[n:]...)
					c.shift(n)
				}
				failed = failed || err != nil
				if n == 0 || err != nil {
					break
				}
			}
		}
		var want []json.RawMessage
		if json.Unmarshal([]byte(s), &want) != nil || len(s) > maxRow || want == nil {
			return
		}
		if failed || len(got) != len(want) {
			t.Fatalf("%q: %q, failed %v", s, got, failed)
		}
		for i := range got {
			if strings.Trim(got[i], " \t\r\n") != string(want[i]) {
				t.Fatalf("%q: element %d is %q", s, i, got[i])
			}
		}
	})
}

func bulkBody(rows int) []byte {
	var b bytes.Buffer
	for i := range rows {
		fmt.Fprintf(&b, `{"destination":"https://shop.example.com/products/%08d?utm_source=sms&utm_campaign=spring&r=%016x","external_id":"r-%d"}`+"\n", i%5000, rand.Uint64(), i)
	}
	return b.Bytes()
}

// nullStore takes chunks and keeps nothing: what is left is the pipeline itself.
type nullStore struct{ terse.Store }

func (nullStore) InsertLinks(ctx context.Context, c *terse.Chunk) error { return nil }

func BenchmarkBulkPipeline(b *testing.B) {
	now := terse.Millis(1_800_000_000_000)
	s := setupOn(b, nullStore{memstore.New(func() terse.Millis { return now })}, &now)
	const rows = 200_000
	body := bulkBody(rows)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		sum, err := s.Bulk(b.Context(), actor, BulkOptions{}, bytes.NewReader(body), io.Discard)
		if err != nil || sum.Created != rows {
			b.Fatal(sum, err)
		}
	}
	b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "links/s")
}
