package cli

import (
	"cmp"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // the machine may have no database of zones

	"github.com/terselink/terse/client"
)

// when reads a point in time that something ends or begins at: a duration is so long from now. Times and dates
// without a zone are of UTC; "" is the zero time.
func (s *session) when(flag, text string) (time.Time, error) { return s.instant(flag, text, false) }

// past is when for what has happened: a duration is so long ago.
func (s *session) past(flag, text string) (time.Time, error) { return s.instant(flag, text, true) }

// instant reads a point in time; ago says that a duration leads back from now.
func (s *session) instant(flag, text string, ago bool) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range append([]string{time.RFC3339, time.DateOnly}, clockLayouts...) {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	if d, ok := duration(text); ok {
		if ago {
			d = -d
		}
		return s.Now().Add(d).UTC().Truncate(time.Second), nil
	}
	return time.Time{}, notATime(flag, text)
}

// clockLayouts are times that do not say in which zone they are.
var clockLayouts = []string{"2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02 15:04"}

func notATime(flag, text string) error {
	return usage("--%s: %q is not a time such as 2027-01-31T18:00:00Z, a date such as 2027-01-31 or a duration such as 36h or 30d", flag, text)
}

// rangeEnd reads an end of a range of clicks. A date stays one, for the server to read in the zone of the query with the last
// day included; a time that does not name its zone is on the clock of that zone, and a duration is so long ago.
func (s *session) rangeEnd(flag, text, zone string) (date string, t time.Time, err error) {
	if _, err := time.Parse(time.DateOnly, text); err == nil {
		return text, t, nil
	}
	for _, layout := range clockLayouts {
		if _, err := time.Parse(layout, text); err != nil {
			continue
		}
		loc, err := location(zone)
		if err != nil {
			return "", t, err
		}
		t, err = time.ParseInLocation(layout, text, loc)
		return "", t, err
	}
	t, err = s.past(flag, text)
	return "", t, err
}

// setRange writes the flags that begin and end a range into the query.
func (c *clickFlags) setRange(s *session, q *client.Query) (err error) {
	switch {
	case c.From == "" && c.To == "":
		q.Period = cmp.Or(c.Period, defaultPeriod)
		return nil
	case c.Period != "":
		return usage("--period: excludes --from and --to")
	}
	if q.FromDate, q.From, err = s.rangeEnd("from", c.From, c.TZ); err != nil {
		return err
	}
	q.ToDate, q.To, err = s.rangeEnd("to", c.To, c.TZ)
	return err
}

// location is the zone of --tz.
func location(zone string) (*time.Location, error) {
	loc, err := time.LoadLocation(zone)
	if err != nil || zone == "Local" { // which is another zone at the server
		return nil, usage("--tz: %q is no time zone such as Europe/Berlin", zone)
	}
	return loc, nil
}

// duration reads what time.ParseDuration does, and days and weeks. Only a positive one counts.
func duration(text string) (time.Duration, bool) {
	unit := time.Duration(0)
	switch {
	case strings.HasSuffix(text, "d"):
		unit = 24 * time.Hour
	case strings.HasSuffix(text, "w"):
		unit = 7 * 24 * time.Hour
	}
	if unit != 0 {
		n, err := strconv.Atoi(text[:len(text)-1])
		return time.Duration(n) * unit, err == nil && n > 0 && n < 100_000
	}
	d, err := time.ParseDuration(text)
	return d, err == nil && d > 0
}
