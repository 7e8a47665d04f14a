package edge

import "github.com/terselink/terse"

// recent remembers the versions of links that changes have told of, so that an answer that is older than a change is not kept. It
// need remember no longer than a request takes.
type recent struct{ now, old map[terse.LinkNumber]uint64 }

// deletedVersion is the version of what is gone: none is newer.
const deletedVersion = 1<<64 - 1

const maxRecent = 1 << 16

func (r *recent) note(n terse.LinkNumber, version uint64) {
	if r.now == nil || len(r.now) >= maxRecent {
		r.old, r.now = r.now, make(map[terse.LinkNumber]uint64)
	}
	r.now[n] = max(r.now[n], r.old[n], version)
}

// version returns the version that is known of a link at least.
func (r *recent) version(n terse.LinkNumber) uint64 { return max(r.now[n], r.old[n]) }
