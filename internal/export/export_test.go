package export_test

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"
	"github.com/parquet-go/parquet-go"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/analytics/enginetest"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/export"
)

func everything() analytics.Query {
	return analytics.Query{Workspace: enginetest.Workspace, From: enginetest.SpanFrom, To: enginetest.SpanTo, Bots: analytics.BotsInclude, Every: true}
}

// write returns the file of all clicks of a reference engine, and the clicks.
func write(t *testing.T, f export.Format, n int) ([]byte, []clicks.Event) {
	t.Helper()
	ref := enginetest.NewReference(enginetest.Events(9, n))
	var all []clicks.Event
	for p := (analytics.Page{Limit: analytics.MaxClicks}); ; {
		rows, err := ref.Clicks(t.Context(), everything(), p)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, rows...)
		if len(rows) < p.Limit {
			break
		}
		p.After = terse.ClickID(rows[len(rows)-1].ID)
	}
	var b bytes.Buffer
	w := export.NewWriter(f, &b, export.WriterOptions{})
	got, err := export.Copy(t.Context(), ref, everything(), export.CopyOptions{}, w)
	if err := errors.Join(err, w.Close()); err != nil || got != int64(len(all)) {
		t.Fatalf("%d rows of %d, %v", got, len(all), err)
	}
	return b.Bytes(), all
}

// TestFormats reads every row of every format back.
func TestFormats(t *testing.T) {
	file, all := write(t, export.NDJSON, 8000)
	if len(all) <= analytics.MaxClicks {
		t.Fatalf("%d clicks are one page: the test proves little", len(all))
	}
	lines := bytes.Split(bytes.TrimSuffix(file, []byte("\n")), []byte("\n"))
	if len(lines) != len(all) {
		t.Fatalf("%d lines, want %d", len(lines), len(all))
	}
	for i := range all {
		var row export.Row
		if err := json.Unmarshal(lines[i], &row, json.RejectUnknownMembers(true)); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(export.RowOf(&all[i]), row); d != "" {
			t.Fatal(d)
		}
	}

	file, all = write(t, export.CSV, 2000)
	rows, err := csv.NewReader(bytes.NewReader(file)).ReadAll()
	if err != nil || len(rows) != len(all)+1 || rows[0][0] != "id" || rows[0][len(rows[0])-1] != "ip" {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	for i := range all {
		if id, err := terse.ParseClickID(rows[i+1][0]); err != nil || id != terse.ClickID(all[i].ID) {
			t.Fatalf("row %d is %v, %v", i, rows[i+1], err)
		}
	}

	file, all = write(t, export.Parquet, 3000)
	type some struct {
		EventID string `parquet:"event_id"`
		Ts      int64  `parquet:"ts,timestamp(millisecond)"`
		LinkID  int64  `parquet:"link_id"`
		Visitor int64  `parquet:"visitor"`
		City    string `parquet:"city"`
		Weight  int32  `parquet:"weight"`
	}
	read, err := parquet.Read[some](bytes.NewReader(file), int64(len(file)))
	if err != nil || len(read) != len(all) {
		t.Fatalf("%d rows, %v", len(read), err)
	}
	for i, r := range read {
		ev := &all[i]
		if r.Ts != int64(ev.At) || r.LinkID != int64(ev.Link) || uint64(r.Visitor) != ev.Visitor || r.City != ev.City || r.Weight != int32(ev.Weight) || len(r.EventID) != 36 {
			t.Fatalf("row %d is %+v, want %+v", i, r, ev)
		}
	}
}

// TestEmpty: a file without clicks is whole all the same.
func TestEmpty(t *testing.T) {
	for _, f := range []export.Format{export.NDJSON, export.CSV, export.Parquet} {
		var b bytes.Buffer
		if err := export.NewWriter(f, &b, export.WriterOptions{}).Close(); err != nil {
			t.Fatal(err)
		}
		switch f {
		case export.CSV:
			if !strings.HasPrefix(b.String(), "id,ts,") || strings.Count(b.String(), "\n") != 1 {
				t.Errorf("CSV: %q", b.String())
			}
		case export.Parquet:
			if _, err := parquet.OpenFile(bytes.NewReader(b.Bytes()), int64(b.Len())); err != nil {
				t.Error(err)
			}
		default:
			if b.Len() != 0 {
				t.Errorf("NDJSON: %q", b.String())
			}
		}
	}
}

// TestFormulas: what a spreadsheet would run is made harmless, unless raw values are asked for.
func TestFormulas(t *testing.T) {
	ev := clicks.Event{Code: "=cmd()", UTMTerm: "-1+2", UTMContent: "plain"}
	for raw, want := range map[bool]string{false: "'=cmd()", true: "=cmd()"} {
		var b bytes.Buffer
		w := export.NewWriter(export.CSV, &b, export.WriterOptions{RawCSV: raw})
		if err := errors.Join(w.Write(&ev), w.Close()); err != nil {
			t.Fatal(err)
		}
		rows, err := csv.NewReader(&b).ReadAll()
		if err != nil || rows[1][6] != want {
			t.Errorf("raw %v: %q, %v", raw, rows, err)
		}
	}
}

// flaky fails every other call.
type flaky struct {
	export.Source
	n   int
	err error
}

func (f *flaky) Clicks(ctx context.Context, q analytics.Query, p analytics.Page) ([]clicks.Event, error) {
	if f.n++; f.n%2 == 1 {
		return nil, f.err
	}
	return f.Source.Clicks(ctx, q, p)
}

// TestCopySurvivesRestarts: an engine that is down for a moment does not cut a file, one that refuses does.
func TestCopySurvivesRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ref := enginetest.NewReference(enginetest.Events(9, 12_000))
		w := export.NewWriter(export.NDJSON, io.Discard, export.WriterOptions{})
		whole, err := export.Copy(t.Context(), ref, everything(), export.CopyOptions{}, w)
		if err != nil {
			t.Fatal(err)
		}
		got, err := export.Copy(t.Context(), &flaky{Source: ref, err: terse.ErrUnavailable}, everything(), export.CopyOptions{}, w)
		if err != nil || got != whole {
			t.Errorf("%d rows of %d, %v", got, whole, err)
		}
		if _, err = export.Copy(t.Context(), &flaky{Source: ref, err: terse.Invalid("from", "is bad")}, everything(), export.CopyOptions{}, w); terse.ErrorCode(err) != terse.CodeInvalid {
			t.Errorf("got %v", err)
		}
	})
}

// TestCopyLimits: at most so many rows, beginning after one.
func TestCopyLimits(t *testing.T) {
	ref := enginetest.NewReference(enginetest.Events(9, 3000))
	w := export.NewWriter(export.NDJSON, io.Discard, export.WriterOptions{})
	first, err := ref.Clicks(t.Context(), everything(), analytics.Page{Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	var seen int64
	n, err := export.Copy(t.Context(), ref, everything(), export.CopyOptions{After: terse.ClickID(first[9].ID), Most: 7, Progress: func(rows int64) error { seen = rows; return nil }}, w)
	if err != nil || n != 7 || seen != 7 {
		t.Errorf("%d rows, %d seen, %v", n, seen, err)
	}
	stop := errors.New("enough")
	if _, err := export.Copy(t.Context(), ref, everything(), export.CopyOptions{Progress: func(int64) error { return stop }}, w); !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
}

func TestParseFormat(t *testing.T) {
	for _, s := range []string{"", "xml", "CSV"} {
		if _, err := export.ParseFormat(s); terse.ErrorCode(err) != terse.CodeInvalid {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, f := range []export.Format{export.NDJSON, export.CSV, export.Parquet} {
		if got, err := export.ParseFormat(string(f)); err != nil || got != f || f.ContentType() == "" {
			t.Errorf("%s: %v, %v", f, got, err)
		}
	}
}
