package clickhouse

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
)

// run is a sequence of buckets of the same length.
type run struct {
	first int // index of its first bucket
	from  terse.Millis
	step  terse.Millis
}

// fewRuns are told apart by comparisons; each costs every row.
const fewRuns = 8

// bucket returns the expression for the index in starts of the bucket that a click falls into. The zone is
// nowhere in it: the instants are. Buckets of one length are found by division; where lengths vary, as of
// months and around clock changes, by the day.
func bucket(starts []terse.Millis, q analytics.Query) string {
	runs := runsOf(starts, q.To)
	if len(runs) > fewRuns && q.Interval != analytics.Hour && q.Interval != analytics.Minute {
		return bucketByDay(starts, q)
	}
	var b strings.Builder
	if len(runs) > 1 {
		b.WriteString("multiIf(")
	}
	for i, r := range runs {
		expr := fmt.Sprintf("%d + intDiv(ts_ms - %d, %d)", r.first, r.from, r.step)
		if i+1 < len(runs) {
			fmt.Fprintf(&b, "ts_ms < %d, %s, ", runs[i+1].from, expr)
		} else {
			b.WriteString(expr)
		}
	}
	if len(runs) > 1 {
		b.WriteString(")")
	}
	return b.String()
}

// runsOf divides the buckets into runs. The last bucket ends with the range, or later.
func runsOf(starts []terse.Millis, to terse.Millis) []run {
	var runs []run
	for i, t := range starts {
		end := to
		if i+1 < len(starts) {
			end = starts[i+1]
		}
		length := max(end-t, 1)
		if n := len(runs); n > 0 && (runs[n-1].step == length || i+1 == len(starts) && length <= runs[n-1].step) {
			continue
		}
		runs = append(runs, run{i, t, length})
	}
	return runs
}

// bucketByDay looks the bucket up that the UTC day begins in, and adds one for each start within the day. Days and
// longer buckets begin at most twice in a day.
func bucketByDay(starts []terse.Millis, q analytics.Query) string {
	first, last := dayOf(q.From), dayOf(q.To-1)
	var days, index []string
	var at [2]struct{ days, offsets []string }
	for day := first; day <= last; day++ {
		start := terse.Millis(day * dayMillis)
		i := max(analytics.BucketOf(starts, start), 0)
		d := strconv.FormatInt(day, 10)
		days, index = append(days, d), append(index, strconv.Itoa(i))
		within, _ := slices.BinarySearch(starts, start+1)
		for n := range at {
			if j := within + n; j < len(starts) && starts[j] < start+dayMillis && starts[j] > starts[0] {
				at[n].days, at[n].offsets = append(at[n].days, d), append(at[n].offsets, strconv.FormatInt(int64(starts[j])-int64(start), 10))
			}
		}
	}
	// Bare numbers: calls in the arrays would be analysed one by one, for seconds.
	lookUp := func(from, to []string, otherwise int) string {
		return fmt.Sprintf("transform(toUInt16(day), [%s], [%s], %d)", strings.Join(from, ", "), strings.Join(to, ", "), otherwise)
	}
	expr := lookUp(days, index, 0)
	for n := range at {
		if len(at[n].days) > 0 {
			expr += " + (ts_ms % " + strconv.Itoa(dayMillis) + " >= " + lookUp(at[n].days, at[n].offsets, dayMillis) + ")"
		}
	}
	return expr
}
