package changes

import (
	"sync"

	"github.com/terselink/terse"
)

// recent remembers the versions of links that this node knows already, because it wrote them itself or heard a message, so
// that the feed does not make it look again. What is forgotten costs that look, no more. Numbers of links are never used
// again; ids of documents may be, so documents are not in here.
type recent struct {
	mu       sync.Mutex
	now, old map[terse.LinkNumber]uint64 // versions
}

// deletedVersion is the version of what is gone: none is newer.
const deletedVersion = 1<<64 - 1

// maxRecent is how many links one of the two generations holds, at some 40 bytes each.
const maxRecent = 1 << 16

// note remembers that a version is known.
func (r *recent) note(n terse.LinkNumber, version uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.now) >= maxRecent || r.now == nil {
		r.old, r.now = r.now, make(map[terse.LinkNumber]uint64)
	}
	r.now[n] = max(r.now[n], r.old[n], version)
}

// knows reports whether the version or a newer one is known.
func (r *recent) knows(n terse.LinkNumber, version uint64) bool {
	v, ok := r.version(n)
	return ok && v >= version
}

// version returns the newest version that is known.
func (r *recent) version(n terse.LinkNumber) (version uint64, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	v, ok := r.now[n]
	if !ok {
		v, ok = r.old[n]
	}
	return v, ok
}
