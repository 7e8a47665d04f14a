package analytics

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/terselink/terse"
)

func TestSweeps(t *testing.T) {
	at := func(list ...int) (clicks []SweepClick) { // each on a link of its own
		for i, ms := range list {
			clicks = append(clicks, SweepClick{terse.Millis(ms), terse.LinkNumber(i + 1)})
		}
		return clicks
	}
	sameLink := at(0, 1, 2, 3, 4, 5, 6)
	for i := range sameLink {
		sameLink[i].Link = terse.LinkNumber(1 + i%4)
	}
	for name, tt := range map[string]struct {
		clicks []SweepClick
		want   []SweepSpan
	}{
		"nothing":                  {nil, nil},
		"four links":               {at(0, 1, 2, 3), nil},
		"five at once":             {at(7, 7, 7, 7, 7), []SweepSpan{{7, 7}}},
		"five in two seconds":      {at(0, 500, 1000, 1500, 2000), []SweepSpan{{0, 2000}}},
		"a millisecond more":       {at(0, 500, 1000, 1500, 2001), nil},
		"four links, many times":   {sameLink, nil},
		"a person before":          {at(0, 3000, 3001, 3002, 3003, 3004), []SweepSpan{{3000, 3004}}},
		"a click within the time":  {at(0, 1, 2, 3, 4, 1900, 2500), []SweepSpan{{0, 1900}}},
		"a sweep that goes on":     {at(0, 500, 1000, 1500, 2000, 2500, 3000), []SweepSpan{{0, 3000}}},
		"two sweeps of one person": {at(0, 1, 2, 3, 4, 9000, 9001, 9002, 9003, 9004), []SweepSpan{{0, 4}, {9000, 9004}}},
	} {
		if got := Sweeps(tt.clicks, SweepLinks); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}

// TestSweepsProperty: a click is in a span if and only if some window of two seconds that begins with a click and holds
// it has enough links, counted one by one.
func TestSweepsProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		links := rapid.IntRange(2, 6).Draw(t, "links")
		var clicks []SweepClick
		now := terse.Millis(0)
		for range rapid.IntRange(0, 60).Draw(t, "n") {
			now += terse.Millis(rapid.SampledFrom([]int{0, 1, 300, 999, 2000, 2001, 5000}).Draw(t, "gap"))
			clicks = append(clicks, SweepClick{now, terse.LinkNumber(rapid.IntRange(1, 8).Draw(t, "link"))})
		}
		spans := Sweeps(clicks, links)
		for i := 1; i < len(spans); i++ {
			if spans[i].From <= spans[i-1].To {
				t.Fatalf("%v overlap", spans)
			}
		}
		for _, c := range clicks {
			want := false
			for _, start := range clicks {
				seen := map[terse.LinkNumber]bool{}
				for _, other := range clicks {
					if other.At >= start.At && other.At <= start.At+SweepWindow {
						seen[other.Link] = true
					}
				}
				want = want || len(seen) >= links && c.At >= start.At && c.At <= start.At+SweepWindow
			}
			got := slices.ContainsFunc(spans, func(s SweepSpan) bool { return c.At >= s.From && c.At <= s.To })
			if got != want {
				t.Fatalf("the click at %d is in a sweep: %v, want %v; %v of %v", c.At, got, want, spans, clicks)
			}
		}
	})
}
