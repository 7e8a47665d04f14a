package links

import (
	"context"
	"encoding/csv"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/store/memstore"
)

// troubled fails some inserts of links in one of three ways.
type troubled struct {
	terse.Store
	n    atomic.Int64
	fail func(n int64, insert func() error) error
}

func (s *troubled) InsertLinks(ctx context.Context, c *terse.Chunk) error {
	insert := func() error { return s.Store.InsertLinks(ctx, c) }
	if len(c.Links) == 0 {
		return insert()
	}
	return s.fail(s.n.Add(1), insert)
}

// TestTakeOver: a batch whose worker panics, fails or does not know is taken over; the
// others are not touched, the results stay in order, and no row has two links.
func TestTakeOver(t *testing.T) {
	const batches = 6
	for name, fail := range map[string]func(int64, func() error) error{
		"panic before": func(n int64, insert func() error) error {
			if n%2 == 1 && n < 6 {
				panic("a defect")
			}
			return insert()
		},
		"panic after": func(n int64, insert func() error) error {
			err := insert()
			if n%2 == 1 && n < 6 {
				panic("a defect")
			}
			return err
		},
		"unavailable": func(n int64, insert func() error) error {
			if n < 4 {
				return terse.ErrUnavailable
			}
			return insert()
		},
		"never": func(int64, func() error) error { panic("a defect") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var now terse.Millis = 1_800_000_000_000
				inner := memstore.New(func() terse.Millis { return now })
				s := setupOn(t, &troubled{Store: inner, fail: fail}, &now)
				var body strings.Builder
				rows := 0
				for body.Len() < batches*batchBytes {
					fmt.Fprintf(&body, "{\"destination\":\"https://example.com/%d/%s\",\"external_id\":\"r%d\"}\n", rows, strings.Repeat("x", 2000), rows)
					rows++
				}
				var out strings.Builder
				next := uint64(0)
				sum, err := s.Bulk(t.Context(), actor, BulkOptions{Ledger: "l", MaxBytes: 1 << 30, Each: func(r *RowResult) error {
					if r.Index != next || r.ExternalID != fmt.Sprintf("r%d", next) || !strings.Contains(string(r.Row), r.ExternalID) {
						t.Errorf("row %d (%s) where %d was due", r.Index, r.ExternalID, next)
					}
					next++
					return nil
				}}, strings.NewReader(body.String()), &out)
				if name == "never" {
					if terse.ErrorCode(err) != terse.CodeInternal || strings.Contains(terse.Message(err), "defect") {
						t.Fatalf("%+v, %v", sum, err)
					}
					return
				}
				if err != nil || sum.Created != uint64(rows) || strings.Count(out.String(), "short_url") != rows || next != uint64(rows) {
					t.Fatalf("%+v, %v; want %d rows", sum, err, rows)
				}
				total := 0
				for q := (terse.ListQuery{Limit: 10_000}); ; {
					p, err := inner.ListLinks(t.Context(), testWorkspace, q)
					if err != nil {
						t.Fatal(err)
					}
					if total += len(p.Links); p.Next == "" {
						break
					}
					q.Cursor = p.Next
				}
				if total != rows {
					t.Fatalf("%d links, want %d", total, rows)
				}
			})
		})
	}
}

// TestPickRows: rows are found again by the indexes that they had.
func TestPickRows(t *testing.T) {
	t.Parallel()
	for in, body := range map[Format]string{
		NDJSON: "\n{0}\n\n{1}\r\n{2}\n" + strings.Repeat("{3}\n", 400_000) + "{4}",
		CSV:    "a,b\n0,\"\n\"\n1,1\n2,2\n" + strings.Repeat("3,\"x\"\n", 400_000) + "4,4",
		JSON:   "[ \"0\",\"1\", \"2\"," + strings.Repeat("\"3\",", 400_000) + "\"4\"]",
	} {
		want := []uint64{0, 2, 3, 300_000, 400_003}
		var got []string
		var lines []uint64
		i := 0
		err := PickRows(strings.NewReader(body), PickOptions{In: in}, func() (uint64, bool) {
			if i == len(want) {
				return 0, false
			}
			i++
			return want[i-1], true
		}, func(index, line uint64, row []byte) error {
			lines = append(lines, line)
			got = append(got, fmt.Sprint(index, string(row)))
			return nil
		})
		if err != nil || len(got) != len(want) {
			t.Fatalf("format %d: %q, %v", in, got, err)
		}
		if want := map[Format][]uint64{NDJSON: {2, 5, 6, 300_003, 400_006}, CSV: {2, 5, 6, 300_003, 400_006}, JSON: {1, 1, 1, 1, 1}}[in]; !slices.Equal(lines, want) {
			t.Errorf("format %d: lines %d, want %d", in, lines, want)
		}
		for k, digit := range []string{"0", "2", "3", "3", "4"} {
			if !strings.HasPrefix(got[k], fmt.Sprint(want[k])) || !strings.Contains(strings.TrimPrefix(got[k], fmt.Sprint(want[k])), digit) {
				t.Errorf("format %d: row %d is %q", in, want[k], got[k])
			}
		}
	}
}

// TestPickRowsOfSpaces: a line of spaces is a row for encoding/csv, and none for Bulk.
func TestPickRowsOfSpaces(t *testing.T) {
	t.Parallel()
	const body = "a\tb\r\n0\t0\n\r\n\n\t\n \r\n1\t\"\n\"\n\t\t\n2\t2"
	for spaces, want := range map[bool]string{
		true:  `0 2 "0\t0" 1 5 "\t" 2 6 " \r" 3 7 "1\t\"\n\"" 4 9 "\t\t" 5 10 "2\t2" `,
		false: `0 2 "0\t0" 1 7 "1\t\"\n\"" 2 10 "2\t2" `,
	} {
		index, got := uint64(0), ""
		err := PickRows(strings.NewReader(body), PickOptions{In: CSV, EncodingCSV: spaces, Comma: '\t'}, func() (uint64, bool) {
			index++
			return index - 1, true
		}, func(index, line uint64, row []byte) error {
			got += fmt.Sprintf("%d %d %q ", index, line, row)
			return nil
		})
		if err != nil || got != want {
			t.Errorf("lines of spaces are rows: %t: %s, %v; want %s", spaces, got, err, want)
		}
	}
	r := csv.NewReader(strings.NewReader(body))
	r.Comma, r.FieldsPerRecord = '\t', -1
	if rows, err := r.ReadAll(); err != nil || len(rows) != 7 {
		t.Errorf("encoding/csv reads %d records, %v; want the header and 6", len(rows), err)
	}
}

// TestPickRowsComma: quotes open a field behind the separator that the body has.
func TestPickRowsComma(t *testing.T) {
	t.Parallel()
	index, got := uint64(0), ""
	err := PickRows(strings.NewReader("a;b\n0;\"\n\"\n1,\";1\n2;2\n"), PickOptions{In: CSV, Comma: ';'}, func() (uint64, bool) {
		index++
		return index - 1, true
	}, func(index, line uint64, row []byte) error {
		got += fmt.Sprintf("%d %d %q ", index, line, row)
		return nil
	})
	if want := `0 2 "0;\"\n\"" 1 4 "1,\";1" 2 5 "2;2" `; err != nil || got != want {
		t.Errorf("%s, %v; want %s", got, err, want)
	}
}

func TestSuggest(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"url": "destination", "Long URL": "destination", "destinatoin": "destination", "expires at": "expires_at", "External-ID": "external_id",
		"slug": "code", "tgas": "tags", "tilte": "title", "zzz": "", "": "", "ü": "", "id": "external_id", "rule": "rules",
	} {
		if got := suggest(name, csvColumns); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}
