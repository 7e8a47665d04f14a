//go:build linux

package main

import (
	"bytes"
	"encoding/csv"
	"io"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
)

func TestRows(t *testing.T) {
	const rows = 5000
	seen := map[string]bool{}
	for i := range uint64(rows) {
		for _, length := range []int{shortDestination, longDestination} {
			d := string(appendDestination(nil, i, length))
			if len(d) != length || seen[d] {
				t.Fatalf("row %d: %q", i, d)
			}
			seen[d] = true
		}
	}
	type row struct {
		Destination string `json:"destination"`
		ExternalID  string `json:"external_id"`
	}
	check := func(i int, r row) {
		t.Helper()
		if r.Destination != string(appendDestination(nil, uint64(i), longDestination)) || r.ExternalID == "" {
			t.Fatalf("row %d is %+v", i, r)
		}
	}
	var array []row
	if err := json.Unmarshal(jsonArray.body(rows, longDestination), &array); err != nil || len(array) != rows {
		t.Fatalf("JSON: %d rows, %v", len(array), err)
	}
	for i, r := range array {
		check(i, r)
	}
	for i, line := range strings.Split(strings.TrimSpace(string(ndjson.body(rows, longDestination))), "\n") {
		var r row
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		check(i, r)
	}
	records, err := csvRecords(csvForm.body(rows, longDestination))
	if err != nil || len(records) != rows+1 {
		t.Fatalf("CSV: %d records, %v", len(records), err)
	}
	for i, r := range records[1:] {
		check(i, row{r[0], r[1]})
	}
}

func csvRecords(b []byte) ([][]string, error) { return csv.NewReader(bytes.NewReader(b)).ReadAll() }

// TestRowReader proves that a streamed body is the whole one.
func TestRowReader(t *testing.T) {
	r := &rowReader{f: &ndjson, length: shortDestination, rows: 10_000}
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, ndjson.body(10_000, shortDestination)) || r.read != int64(len(got)) {
		t.Errorf("%d bytes, %d counted: %v", len(got), r.read, err)
	}
}

func TestMark(t *testing.T) {
	v := func(f float64) *float64 { return &f }
	for _, tt := range []struct {
		b    budget
		want string
	}{
		{budget{Bar: 1, Goal: 2, Measured: v(2)}, "goal"},
		{budget{Bar: 1, Goal: 2, Measured: v(1)}, "bar"},
		{budget{Bar: 1, Goal: 2, Measured: v(0.9)}, "BELOW"},
		{budget{Bar: 5, Goal: 1, AtMost: true, Measured: v(1)}, "goal"},
		{budget{Bar: 5, Goal: 1, AtMost: true, Measured: v(5)}, "bar"},
		{budget{Bar: 5, Goal: 1, AtMost: true, Measured: v(5.1)}, "BELOW"},
		{budget{Bar: 5, Goal: 1}, "-"},
	} {
		if got := tt.b.mark(); got != tt.want {
			t.Errorf("%+v is marked %q, want %q", tt.b, got, tt.want)
		}
	}
}

func TestReport(t *testing.T) {
	r := newReport(true)
	r.measured("bulk", 1.5e6, "raw Pebble %d", 7)
	r.detail("bulk", "rows", "%d", 3)
	r.note("something was SKIPPED")
	var out bytes.Buffer
	r.print(&out)
	for _, want := range []string{"1.50 M links/s", "raw Pebble 7", "quick run", "SKIPPED", "not run", "not measured here", "  bar  "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the report lacks %q:\n%s", want, out.String())
		}
	}
	path, err := r.save(t.TempDir())
	if err != nil || !strings.HasSuffix(path, ".json") {
		t.Errorf("saved as %q: %v", path, err)
	}
}

func TestRatio(t *testing.T) {
	// The machine was half as fast in the second round.
	if got := ratio([]float64{80, 40, 70}, []float64{100, 50, 100}); got != 0.8 {
		t.Errorf("the ratio is %v", got)
	}
}

func TestMedian(t *testing.T) {
	if median(nil) != 0 || median([]float64{3}) != 3 || median([]float64{9, 1, 5}) != 5 || median([]float64{4, 1, 3, 2}) != 2.5 {
		t.Error("a median is wrong")
	}
}
