package analytics

import (
	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/clicks"
)

// Of a link with few clicks on a day, engines keep no rows of its own. When retention has taken the clicks its number of that day is
// left, which is of people that redirected and knows neither visitors nor hours.

// ByDays reports whether such numbers say something of a query.
func (q Query) ByDays() bool {
	return q.Scope.Link != 0 && len(q.Filters) == 0 && q.RedirectsOnly() && q.Bots != BotsOnly
}

// AddDay adds the number of a day to a summary.
func (r *Summary) AddDay(n int64) {
	r.Clicks += n
	r.Humans += n
	r.Outcomes[Outcome.Text(uint64(clicks.OutcomeRedirect))] += n
}

// BucketOfDay returns the index of the point that has the number of a day, counted from 1970: the one that its noon lies in, so that
// days of any zone have one each; false if points are shorter than a day. starts are those of Query.Buckets.
func (q Query) BucketOfDay(starts []terse.Millis, day int64) (int, bool) {
	if q.Interval == Minute || q.Interval == Hour {
		return 0, false
	}
	return max(BucketOf(starts, terse.Millis(day)*dayMillis+dayMillis/2), 0), true
}
