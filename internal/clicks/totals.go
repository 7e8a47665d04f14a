package clicks

import (
	"time"

	"github.com/terselink/terse"
)

// At the cap of the spool there is no room for each click, but for how many there were of each link: they are counted in
// memory and written as rows of that weight, which say nothing of who came. So totals of links, campaigns, domains and
// workspaces stay right, by the hour.
const (
	totalsEvery = time.Minute
	totalsBytes = 16 << 20 // of memory, as entry counts it
	// totalsReserve is the part of the cap above it that totals may use. What is beyond waits in memory for room, or the end
	// of the process.
	totalsReserve = 50
)

// totalKey is what is told apart.
type totalKey struct {
	link    terse.LinkNumber
	hour    int64
	outcome Outcome
	flags   Flag
}

const (
	totalFlags   = FlagQR | FlagNoTrack
	totalsHour   = int64(time.Hour / time.Millisecond)
	totalMost    = 1<<16 - 1 // a weight
	totalOverall = 160       // bytes of an entry beside its texts
)

type total struct {
	n            uint64
	last         terse.Millis
	workspace    terse.WorkspaceID
	campaign     terse.CampaignID
	domain, code string
}

// totals counts clicks that are not recorded one by one. The zero value is ready.
type totals struct {
	byKey map[totalKey]*total
	bytes int
	held  uint64       // clicks in byKey
	since terse.Millis // the first of them
}

// add counts a click. It reports false if its link is not known or there is no memory left.
func (t *totals) add(s *slot, now int64) bool {
	if s.link == 0 {
		return false
	}
	at := s.at
	if at <= 0 {
		at = terse.Millis(now)
	}
	key := totalKey{s.link, int64(at) / totalsHour, s.outcome, s.flags & totalFlags}
	e := t.byKey[key]
	if e == nil {
		size := totalOverall + len(s.domain) + len(s.code)
		if t.bytes+size > totalsBytes {
			return false
		}
		if t.byKey == nil {
			t.byKey = map[totalKey]*total{}
		}
		if t.held == 0 {
			t.since = terse.Millis(now)
		}
		t.bytes += size
		e = &total{workspace: s.workspace, campaign: s.campaign, domain: string(s.domain), code: string(s.code)}
		t.byKey[key] = e
	}
	e.n++
	e.last = max(e.last, at)
	t.held++
	return true
}

// totalsDue reports whether the totals are to be written now.
func (w *writer) totalsDue(at rung, now time.Time) bool {
	switch {
	case w.totals.held == 0:
		return false
	case at != rungNone:
		return true
	}
	return terse.MillisOf(now)-w.totals.since >= terse.Millis(totalsEvery/time.Millisecond) && w.r.dirBytes.Load() < w.r.o.MaxBytes+w.r.o.MaxBytes/totalsReserve
}

// writeTotals adds the totals to the group and forgets them.
func (w *writer) writeTotals() {
	nobody := make([]byte, clientHeader)
	for key, e := range w.totals.byKey {
		for e.n > 0 {
			n := min(e.n, totalMost)
			e.n -= n
			if w.group.full() {
				w.endGroup()
			}
			w.group.add(&record{weight: uint16(n), slot: &slot{
				at: e.last, link: key.link, workspace: e.workspace, campaign: e.campaign, outcome: key.outcome, flags: key.flags | flagTotal,
				domain: []byte(e.domain), code: []byte(e.code), client: nobody,
			}})
			w.stood += n - 1
		}
	}
	w.endGroup()
	w.totals = totals{}
	w.r.stats.held.Store(0)
}
