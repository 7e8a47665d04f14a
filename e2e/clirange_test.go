package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse/client"
	"github.com/terselink/terse/e2e/proc"
)

// TestCommandRange asks a real server for days by the command line: the last day is in, and days are those of the zone. On the way it
// asks for what else the command line has of clicks.
func TestCommandRange(t *testing.T) {
	waits(t)
	s := start(t, proc.Options{Env: quick})
	out, errs, code := terse(t, s, "shorten", "https://example.com/")
	if code != 0 {
		t.Fatalf("shorten: exit %d, %s", code, errs)
	}
	short := strings.TrimSpace(out)
	if _, errs, code := terse(t, s, "convert", "--link", short, "--customer", "c-1", "--kind", "sale", "--amount", "1999", "--currency", "jpy"); code != 0 {
		t.Errorf("convert: exit %d, %s", code, errs)
	}
	// The clicks lie between before and after, which midnight may separate.
	before := time.Now()
	for range 3 {
		v := newVisitor(s, "User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")
		if status, _, err := v.look("GET", pathOf(short)); err != nil || status != 302 {
			t.Fatalf("visit: %d, %v", status, err)
		}
		v.close()
	}
	after := time.Now()
	c := newClient(t, s)
	until(t, 3*time.Minute, "three clicks are counted", func() bool {
		sum, err := c.Summary(t.Context(), client.Query{Period: "2d"})
		return err == nil && sum.Clicks == 3
	})
	until(t, time.Minute, "the sale is counted", func() bool {
		r, err := c.Conversions(t.Context(), client.Query{})
		return err == nil && r.Sales == 1
	})
	out, errs, code = terse(t, s, "conversions", short, "--by", "link", "--metric", "revenue", "--currency", "jpy")
	if code != 0 || strings.Count(out, " 1,999 ") != 2 || !strings.Contains(out, "new customers                   1\n") {
		t.Errorf("conversions: exit %d, %s%s", code, out, errs)
	}
	for _, args := range [][]string{
		{"stats", "--compare", "custom", "--compare-from", "2026-01-01", "--compare-to", "2026-01-31", "--interval", "day", "--metric", "visitors", "--by", "bot", "--heatmap"},
		{"stats", "--compare", "previous", "--by", "outcome"},
		{"export", "clicks", "--raw-csv"},
	} {
		if out, errs, code := terse(t, s, args...); code != 0 || strings.Count(out, "\n") < 4 {
			t.Errorf("%v: exit %d, %s%s", args, code, out, errs)
		}
	}
	out, errs, code = terse(t, s, "export", "clicks", "--job", "--raw-csv")
	if code != 0 {
		t.Fatalf("export clicks --job: exit %d, %s", code, errs)
	}
	id := strings.TrimSpace(out)
	if out, errs, code := terse(t, s, "export", "cancel", id); code != 0 || out != "deleted "+id+"\n" {
		t.Errorf("export cancel: exit %d, %s%s", code, out, errs)
	}
	if out, errs, code := terse(t, s, "export", "list"); code != 0 || strings.Contains(out, id) {
		t.Errorf("export list: exit %d, %s%s", code, out, errs)
	}
	// At any time of the day at least one of these zones has another date than UTC.
	for _, zone := range []string{"UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago"} {
		loc, err := time.LoadLocation(zone)
		if err != nil {
			t.Fatal(err)
		}
		day := func(at time.Time, plus int) string { return at.In(loc).AddDate(0, 0, plus).Format(time.DateOnly) }
		for _, tc := range []struct {
			from, to string
			want     int64
		}{
			{day(before, 0), day(after, 0), 3}, // that very day, which is the last
			{day(before, -9), day(after, 0), 3},
			{day(before, -9), day(before, -1), 0},
			{"2h", "", 3}, // so long ago
			{"9d", "2h", 0},
		} {
			args := []string{"stats", "--json", "--by", "country", "--tz", zone, "--from", tc.from}
			rows := []string{"export", "clicks", "--format", "ndjson", "--tz", zone, "--from", tc.from}
			if tc.to != "" {
				args, rows = append(args, "--to", tc.to), append(rows, "--to", tc.to)
			}
			var got struct{ Summary struct{ Clicks int64 } }
			out, errs, code := terse(t, s, args...)
			if err := json.Unmarshal([]byte(out), &got, json.MatchCaseInsensitiveNames(true)); code != 0 || err != nil || got.Summary.Clicks != tc.want {
				t.Errorf("%v: exit %d, %s%v, %d clicks, want %d", args, code, errs, err, got.Summary.Clicks, tc.want)
			}
			if out, errs, code := terse(t, s, rows...); code != 0 || int64(strings.Count(out, "\n")) != tc.want {
				t.Errorf("%v: exit %d, %s%d rows, want %d", rows, code, errs, strings.Count(out, "\n"), tc.want)
			}
		}
	}
}
