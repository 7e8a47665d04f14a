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

// AddDay adds the number of a day, counted from 1970, to the point that its noon lies in, so that days of any zone have one each; points
// shorter than a day get none. starts are those of Query.Buckets.
func (q Query) AddDay(points []Point, starts []terse.Millis, day, n int64) {
	if q.Interval == Minute || q.Interval == Hour {
		return
	}
	points[max(BucketOf(starts, terse.Millis(day)*dayMillis+dayMillis/2), 0)].Clicks += n
}
