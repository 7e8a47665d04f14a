package api

import (
	"cmp"
	"slices"

	"github.com/terselink/terse/internal/analytics"
)

// few is the least number of clicks that a share shows as it is. What is below it must not be had by subtraction
// either: all numbers of a share add up to its clicks.
const few = 3

// atLeastFew hides small numbers.
func atLeastFew(n int64) *int64 {
	if n > 0 && n < few {
		return nil
	}
	return &n
}

// publicTop returns the values of a breakdown that a share lists. Those below few are part of "(other)" and not named;
// if they are below few together, which the total would tell, the next smallest value goes with them.
func publicTop(b analytics.Breakdown) []PublicValue {
	n, other := len(b.Data), b.Other
	for n > 0 && (b.Data[n-1].Clicks < few || other > 0 && other < few) {
		n--
		other += b.Data[n].Clicks
	}
	list := make([]PublicValue, 0, n+1)
	for _, v := range b.Data[:n] {
		list = append(list, PublicValue{v.Value, atLeastFew(v.Clicks)})
	}
	if other > 0 {
		list = append(list, PublicValue{"(other)", atLeastFew(other)}) // below few only if all clicks are
	}
	return list
}

// publicSeries returns the points of a time series that a share shows. Those below few are hidden. If their sum, which
// is what the others lack of all clicks, says what each of them is (there is one alone, or all are 1, or all 2), the
// smallest of the others is hidden too. If there is no other, the points without a click are hidden as well: then nobody
// knows when the clicks were.
func publicSeries(points []analytics.Point) []PublicPoint {
	var order []int // of those with clicks, the smallest first
	for i := range points {
		if points[i].Clicks > 0 {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(points[a].Clicks, points[b].Clicks) })
	hidden, sum := 0, int64(0)
	told := func() bool { return hidden == 1 || sum == int64(hidden) || sum == 2*int64(hidden) }
	for _, i := range order {
		if points[i].Clicks >= few && (hidden == 0 || !told()) {
			break
		}
		hidden++
		sum += points[i].Clicks
	}
	all := hidden > 0 && hidden == len(order) && told()
	list := make([]PublicPoint, len(points))
	for i, p := range points {
		list[i] = PublicPoint{p.T.Time(), &p.Clicks}
		if all || slices.Contains(order[:hidden], i) {
			list[i].Clicks = nil
		}
	}
	return list
}
