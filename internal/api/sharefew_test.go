package api

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/terselink/terse/internal/analytics"
)

func few2text(list []*int64) string {
	var b strings.Builder
	for _, n := range list {
		if n == nil {
			b.WriteString(" -")
		} else {
			fmt.Fprintf(&b, " %d", *n)
		}
	}
	return strings.TrimSpace(b.String())
}

// TestPublicTop: small values have no name, and cannot be had by subtraction from the total.
func TestPublicTop(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		rows  []int64
		other int64
		want  string
	}{
		{[]int64{9, 5, 4}, 0, "9 5 4"},
		{[]int64{9, 5, 2}, 0, "9 7"},
		{[]int64{9, 5, 1, 1}, 0, "9 7"},
		{[]int64{9, 5, 2, 1}, 0, "9 5 3"},
		{[]int64{9, 5, 4}, 1, "9 5 5"},
		{[]int64{9, 5, 4}, 3, "9 5 4 3"},
		{[]int64{9, 2}, 0, "11"},
		{[]int64{1, 1}, 0, "-"},
		{[]int64{2}, 0, "-"},
		{nil, 0, ""},
	} {
		b := analytics.Breakdown{Other: c.other}
		for i, n := range c.rows {
			b.Data = append(b.Data, analytics.Value{Value: fmt.Sprint(i), Clicks: n})
		}
		var got []*int64
		for _, v := range publicTop(b) {
			got = append(got, v.Clicks)
		}
		if text := few2text(got); text != c.want {
			t.Errorf("%v and %d others: %q, want %q", c.rows, c.other, text, c.want)
		}
	}
}

// TestPublicSeries: hidden points are not told by what the others lack of all clicks.
func TestPublicSeries(t *testing.T) {
	t.Parallel()
	show := func(points []int64) []*int64 {
		series := make([]analytics.Point, len(points))
		for i, n := range points {
			series[i].Clicks = n
		}
		var got []*int64
		for _, p := range publicSeries(series) {
			got = append(got, p.Clicks)
		}
		return got
	}
	for _, c := range []struct {
		points []int64
		want   string
	}{
		{[]int64{0, 5, 3, 9}, "0 5 3 9"},
		{[]int64{0, 5, 2, 9}, "0 - - 9"},
		{[]int64{0, 1, 2, 9}, "0 - - 9"},
		{[]int64{0, 1, 1, 9}, "0 - - -"},
		{[]int64{2, 2, 7, 9, 0}, "- - - 9 0"},
		{[]int64{0, 1, 3, 9}, "0 - - -"},
		{[]int64{0, 2, 0, 2}, "- - - -"},
		{[]int64{0, 0, 1}, "- - -"},
		{[]int64{0, 0}, "0 0"},
		{nil, ""},
	} {
		if text := few2text(show(c.points)); text != c.want {
			t.Errorf("%v: %q, want %q", c.points, text, c.want)
		}
	}
	// Whoever knows the total and that hidden points have a click or more finds at least two answers for every small one.
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		points := make([]int64, 2+r.IntN(6))
		for i := range points {
			points[i] = int64(r.IntN(6))
		}
		shown := show(points)
		if !slices.Contains(shown, nil) {
			if slices.Contains(points, 1) || slices.Contains(points, 2) {
				t.Fatalf("%v is shown", points)
			}
			continue
		}
		hidden, sum := int64(0), int64(0)
		for i, n := range shown {
			if n == nil {
				hidden++
				sum += points[i]
			} else if *n > 0 && *n < few {
				t.Fatalf("%v: %s", points, few2text(shown))
			}
		}
		zeros := !slices.ContainsFunc(shown, func(n *int64) bool { return n != nil }) // and zeros may be hidden
		if !zeros && (hidden < 2 || sum <= hidden) {
			t.Fatalf("%v: %s tells what is hidden", points, few2text(shown))
		}
	}
}
