package clickhouse

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/analytics/enginetest"
	"github.com/terselink/terse/internal/testengine"
)

var update = flag.Bool("update", false, "write the golden files")

// TestStatements compares the statements of both dialects with files: there is no server of the modern one in the tests, so
// a change of what is sent to it must be seen.
func TestStatements(t *testing.T) {
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	from := time.Date(2026, 10, 20, 0, 0, 0, 0, zone)
	q := analytics.Query{
		Workspace: 3, From: terse.MillisOf(from), To: terse.MillisOf(from.AddDate(0, 0, 14)), Zone: zone, Interval: analytics.Day, By: analytics.Referrer, Search: "goo",
		Filters: []analytics.Filter{{Dim: analytics.Country, Values: []string{"DE", "AT"}}, {Dim: analytics.Tag, Not: true, Values: []string{"", "it's a\\b"}}},
	}
	if q, err = q.Normalize(); err != nil {
		t.Fatal(err)
	}
	for _, d := range []*dialect{legacy, modern} {
		t.Run(d.name, func(t *testing.T) {
			var list []string
			for _, k := range slices.Sorted(func(yield func(string) bool) {
				for k := range d.settings {
					if !yield(k) {
						return
					}
				}
			}) {
				list = append(list, fmt.Sprintf("-- setting %s = %v", k, d.settings[k]))
			}
			b, r := builder{d}, raw{from: q.From, to: q.To}
			byTag, byLink := q, q
			byTag.By, byLink.By, byLink.Search = analytics.Tag, analytics.Link, ""
			list = append(append(list, createTables(d)...), createSweeps(d), sweepers("visitor", "visitor != 0", dayIn([]int64{20_000}), 5))
			list = append(list, b.summary(r, q), b.timeseries(r, q, q.Buckets()), b.breakdown(r, "", q), b.breakdown(r, "", byTag), b.breakdown(r, "", byLink), clicksInto)
			groups, order := b.conversionsBy(byLink)
			list = append(list, groups+" -- by "+order, d.mutation("clicks", "DELETE WHERE workspace_id = 3"), d.mutationsLeft("clicks"))
			got := strings.ReplaceAll(strings.Join(list, "\n\n"), totalsMark, "\n-- totals\n") + "\n"
			path := filepath.Join("testdata", d.name+".sql")
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Errorf("(-want +got; -update writes it):\n%s", d)
			}
		})
	}
}

func TestDialectOf(t *testing.T) {
	for version, want := range map[[2]uint64]*dialect{{18, 16}: legacy, {21, 12}: legacy, {22, 7}: legacy, {22, 8}: modern, {25, 3}: modern} {
		if got := dialectOf(version[0], version[1]); got != want {
			t.Errorf("%v is %s, want %s", version, got.name, want.name)
		}
	}
}

func TestParseURL(t *testing.T) {
	for address, want := range map[string]string{
		"clickhouse://u:hunter2@h:9000/terse":            "",
		"clickhouse://u@a:9000/terse?secure=true":        "",
		"clickhouse://u:hunter2@a:9000,b:9000/terse":     "names several hosts",
		"clickhouse://u:hunter2@a,b:9000/terse":          "names several hosts",
		"clickhouse://h:9000":                            "",
		"http://u:hunter2@h:8123/terse":                  "begins with clickhouse://",
		"clickhouse://u:hunter2@h/terse":                 "names no port",
		"clickhouse:///terse?password=hunter2":           "names no host",
		"clickhouse://u:hunter2@h:9000/te-rse":           "other characters",
		"clickhouse://u:hunter2@h:9000/terse`; DROP":     "other characters",
		"clickhouse://u:hunter2@h:9000/terse?secure=hmm": "cannot be used",
		"clickhouse://u:hunter2%zz@h:9000/terse":         "is no URL",
	} {
		o, err := ParseURL(address)
		switch {
		case want == "" && (err != nil || o.Auth.Database != "terse"):
			t.Errorf("%s: %v", address, err)
		case want != "" && (terse.ErrorCode(err) != terse.CodeInvalid || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2")):
			t.Errorf("%s: %v; want %q without the password", address, err, want)
		}
	}
}

// TestBuckets: the server puts every instant into the bucket that BucketOf does, in every zone and interval.
func TestBuckets(t *testing.T) {
	e := open(t, Options{})
	r := rand.New(rand.NewPCG(5, 5))
	byDay := 0
	for range 60 {
		zone, err := time.LoadLocation(enginetest.Zones[r.IntN(len(enginetest.Zones))])
		if err != nil {
			t.Fatal(err)
		}
		q := analytics.Query{Workspace: 1, Zone: zone, Interval: []analytics.Interval{analytics.Minute, analytics.Hour, analytics.Day, analytics.Week, analytics.Month}[r.IntN(5)]}
		q.From = terse.MillisOf(time.Date(2019, 1, 1, 0, 0, 0, 0, time.UTC)) + terse.Millis(r.Int64N(5*365*86_400_000))
		length := map[analytics.Interval]int64{analytics.Minute: 1900 * 60_000, analytics.Hour: 80 * 86_400_000, analytics.Day: 1900 * 86_400_000, analytics.Week: 3600 * 86_400_000, analytics.Month: 3600 * 86_400_000}[q.Interval]
		q.To = q.From + 1 + terse.Millis(r.Int64N(length))
		if q, err = q.Normalize(); err != nil {
			t.Fatal(err)
		}
		starts := q.Buckets()
		at := []terse.Millis{q.From, q.To - 1}
		for range 300 {
			s := starts[r.IntN(len(starts))]
			at = append(at, q.From+terse.Millis(r.Int64N(int64(q.To-q.From))), max(s, q.From), max(s-1, q.From))
		}
		expr := bucket(starts, q)
		if strings.Contains(expr, "transform(") {
			byDay++
		}
		text := "SELECT ts_ms, toInt64(" + expr + ") FROM (SELECT ts_ms, toDate(toUInt16(intDiv(ts_ms, 86400000))) AS day FROM (SELECT toInt64(arrayJoin([" +
			list(at, func(m terse.Millis) string { return strconv.FormatInt(int64(m), 10) }) + "])) AS ts_ms))"
		if err := e.scan(t.Context(), text, func(rows row) error {
			var ts, got int64
			err := rows.Scan(&ts, &got)
			if want := analytics.BucketOf(starts, terse.Millis(ts)); int64(want) != got {
				t.Errorf("%s %s: %d is in bucket %d, want %d", q.Interval, zone, ts, got, want)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if t.Failed() {
			return
		}
	}
	if byDay == 0 {
		t.Error("no query was long enough for a look-up by day")
	}
}

// FuzzLiteral: the server reads a literal as the text that it was made of.
func FuzzLiteral(f *testing.F) {
	for _, s := range []string{"", "a'b", `a\`, "\x00", "\n\r\t\b", "é🎉", "\xff\xfe", `\'`, `'; DROP TABLE clicks; --`, "${x} {a:String} ? $1 @p"} {
		f.Add(s)
	}
	testengine.Address(f, testengine.ClickHouse)
	e := open(f, Options{})
	f.Fuzz(func(t *testing.T, s string) {
		var got string
		if err := e.scan(t.Context(), "SELECT "+literal(s), func(r row) error { return r.Scan(&got) }); err != nil || got != s {
			t.Errorf("%q came back as %q, %v", s, got, err)
		}
	})
}
