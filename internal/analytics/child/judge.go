package child

import "time"

// ending is how a child ended.
type ending struct {
	opened bool // it had opened the database
	code   int  // its exit code, -1 for a signal
	killed bool // by SIGKILL: somebody else's doing, or the out-of-memory killer's
	lived  time.Duration
}

// How often opening may fail before the file is set aside.
const (
	failedOpens = 2
	killedOpens = 5
)

// judge decides what follows the end of a child. It is not safe for concurrent use.
type judge struct {
	failed, killed int // openings in a row that did not succeed
	delay          time.Duration
	minDelay       time.Duration
	maxDelay       time.Duration
}

// next returns how long to wait before the next start, and whether that one has to set
// the file aside.
func (j *judge) next(e ending) (delay time.Duration, setAside bool) {
	const healthy = 10 * time.Second
	if e.opened && e.lived >= healthy || j.delay == 0 {
		j.delay = j.minDelay
	} else {
		j.delay = min(2*j.delay, j.maxDelay)
	}
	switch {
	case e.opened:
		j.failed, j.killed = 0, 0
		setAside = e.code == exitDamaged
	case e.killed:
		j.killed++
	case e.code == exitUnusable, e.code == exitCrashed, e.code < 0:
		j.failed++
	default: // locked, or nothing that another file would mend
	}
	if j.failed >= failedOpens || j.killed >= killedOpens {
		setAside = true
	}
	if setAside {
		j.failed, j.killed = 0, 0
	}
	return j.delay, setAside
}
