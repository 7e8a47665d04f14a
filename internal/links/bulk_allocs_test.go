package links

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
)

// TestBatchAllocs: plain rows leave no garbage, in every form: a batch of a thousand costs a
// handful of allocations from parsing to the results.
func TestBatchAllocs(t *testing.T) {
	s := setup(t)
	const rows = 1000
	for in, row := range map[Format]string{
		NDJSON: `{"destination":"https://shop.example/p/%d?u=9f3","external_id":"r-%d"}` + "\n",
		CSV:    "https://shop.example/p/%d?u=9f3,r-%d\n",
		JSON:   `{"destination":"https://shop.example/p/%d?u=9f3","external_id":"r-%d"},`,
	} {
		var body strings.Builder
		if in == JSON {
			body.WriteString("[")
		}
		for i := range rows {
			fmt.Fprintf(&body, row, i, i)
		}
		buf := []byte(strings.TrimSuffix(body.String(), ",") + map[Format]string{JSON: "]"}[in])
		_, spans, err := newCutter(in).cut(buf, true)
		if err != nil || len(spans) != rows {
			t.Fatalf("format %d: %d rows, %v", in, len(spans), err)
		}
		n := 0
		p := &pipeline{
			s: s.Service, a: actor, ctx: t.Context(), def: s.domains.Default(), header: csvHeader{0, 1},
			o: BulkOptions{In: in, Out: NDJSON, Each: func(r *RowResult) error { n += len(r.Row); return nil }},
		}
		b := &batch{}
		run := func() {
			b.reset()
			b.buf, b.spans = append(b.buf[:0], buf...), append(b.spans[:0], spans...)
			b.parse(p)
			if err := b.issue(p); err != nil {
				t.Fatal(err)
			}
			b.count()
			b.render(p)
			if err := b.each(p); err != nil {
				t.Fatal(err)
			}
		}
		if a := testing.AllocsPerRun(20, run); a > 20 || b.created != rows || n == 0 {
			t.Errorf("format %d: %.0f allocations for %d rows, %d created, errors %v", in, a, rows, b.created, b.errs)
		}
	}
}

// FuzzForms: a row means the same as NDJSON and as CSV, whichever of the parsers reads it.
func FuzzForms(f *testing.F) {
	f.Add("https://example.com/", "r-1", "my-code")
	f.Add("https://example.com/ü\"", "a,b", "")
	f.Add("", "=cmd", "x\ny")
	f.Fuzz(func(t *testing.T, destination, external, code string) {
		if !utf8.ValidString(destination+external+code) || strings.Contains(destination+external+code, "\r") || strings.HasPrefix(external, "'") {
			return // CR LF within quotes and guarded formulas are what CSV alone has
		}
		line, err := json.Marshal(struct {
			Destination string `json:"destination"`
			ExternalID  string `json:"external_id"`
			Code        string `json:"code"`
		}{destination, external, code})
		if err != nil {
			t.Fatal(err)
		}
		var record bytes.Buffer
		w := csv.NewWriter(&record)
		_ = w.Write([]string{destination, external, code}) // a buffer takes everything
		w.Flush()
		var fromJSON, fromFull, fromCSV NewLink
		errJSON, errFull := parseJSON(line, &fromJSON), parseFullJSON(line, &fromFull)
		errCSV := csvHeader{0, 1, 3}.parse(bytes.TrimSuffix(record.Bytes(), []byte("\n")), &fromCSV)
		if errJSON != nil || errFull != nil || errCSV != nil {
			t.Fatalf("%s: %v, %v, %v", line, errJSON, errFull, errCSV)
		}
		want := fmt.Sprintf("%+v", fromFull)
		if got := fmt.Sprintf("%+v", fromJSON); got != want {
			t.Fatalf("%s: %s, want %s", line, got, want)
		}
		if got := fmt.Sprintf("%+v", fromCSV); got != want {
			t.Fatalf("%q: %s, want %s", record.String(), got, want)
		}
	})
}
