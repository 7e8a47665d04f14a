package domains

import (
	"context"
	"fmt"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/terselink/terse"
)

// reservations are the numbers of a domain that aliases reserve because they look like
// generated codes. Every other code that looks generated and was never issued is known
// not to exist without a question to the store (docs/codes.md).
//
// It is a filter: it may know a number that is not reserved, which costs one read, and
// never misses one that is. Until all stored reservations are in it, it knows nothing
// and the store is asked. 3 bytes a reservation; one answer in some 10,000 is a false yes.
type reservations struct {
	complete atomic.Bool // every stored reservation has been added
	layers   atomic.Pointer[[]*layer]
	mu       sync.Mutex // one addition at a time
}

// layer is a Bloom filter. A full one is followed by one four times as large.
type layer struct {
	words []atomic.Uint64
	left  int // additions until it is full; under reservations.mu
}

const (
	firstLayer   = 1 << 10 // reservations
	layerGrowth  = 4
	bitsPerEntry = 24
	probes       = 10 // of a layer that is full: 2 false in 100,000
)

var reservationSeed = maphash.MakeSeed()

// has reports whether n may be reserved.
// Hot path: 0 allocs/op, see TestRefusesAllocs.
func (r *reservations) has(n terse.LinkNumber) bool {
	layers := r.layers.Load()
	if layers == nil {
		return false
	}
	h := maphash.Comparable(reservationSeed, n)
	for _, l := range *layers {
		if l.has(h) {
			return true
		}
	}
	return false
}

func (r *reservations) add(n terse.LinkNumber) {
	if r.has(n) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var layers []*layer
	if p := r.layers.Load(); p != nil {
		layers = *p
	}
	if len(layers) == 0 || layers[len(layers)-1].left == 0 {
		size := firstLayer
		for range layers {
			size *= layerGrowth
		}
		layers = append(layers[:len(layers):len(layers)], &layer{words: make([]atomic.Uint64, size*bitsPerEntry/64), left: size})
		defer func() { r.layers.Store(&layers) }() // readers see it with the number in it
	}
	last := layers[len(layers)-1]
	last.left--
	last.add(maphash.Comparable(reservationSeed, n))
}

// The k-th bit of a hash is at h + k*step, as in every filter of this kind.
func (l *layer) bit(h uint64, k int) (word int, mask uint64) {
	at := (h + uint64(k)*(h>>32|1)) * 0x9e3779b97f4a7c15 >> 16 % (uint64(len(l.words)) * 64)
	return int(at / 64), 1 << (at % 64)
}

func (l *layer) has(h uint64) bool {
	for k := range probes {
		word, mask := l.bit(h, k)
		if l.words[word].Load()&mask == 0 {
			return false
		}
	}
	return true
}

func (l *layer) add(h uint64) {
	for k := range probes {
		word, mask := l.bit(h, k)
		l.words[word].Or(mask)
	}
}

// Reserve returns the number that an alias has to reserve (terse.Link.Reserves), 0 if it
// does not look like a generated code, and makes it known that it is about to. Call it
// before the alias is stored; what is then not stored costs nothing but a read.
func (d *Domain) Reserve(canonical []byte) terse.LinkNumber {
	x, ok := d.index(canonical)
	if !ok {
		return 0
	}
	n := d.reservation(x, len(canonical))
	d.live.reserved.add(n)
	return n
}

// reservation returns what stands for an index. One above MaxIndex fits no number and is
// never issued; one in the upper half of the space stands for it, which aliases share.
// Leases get there after 137 billion links of one length.
func (d *Domain) reservation(index uint64, length int) terse.LinkNumber {
	const half = terse.MaxIndex/2 + 1
	if index > terse.MaxIndex {
		index = half | index%half
	}
	return terse.NewLinkNumber(d.Number, terse.SpaceID(length), index)
}

// Refuses reports whether a canonical code is known not to exist by arithmetic alone: it
// has the form of a generated code that was never issued, and no alias reserves it. False
// means that the store has to be asked.
//
// Hot path: 0 allocs/op, see TestRefusesAllocs.
func (d *Domain) Refuses(canonical []byte) bool {
	if d.broken != nil || !d.live.reserved.complete.Load() {
		return false
	}
	x, ok := d.index(canonical)
	switch {
	case !ok:
		return false
	case x > terse.MaxIndex && !d.AllReserved:
		return false
	case x < d.live.next[len(canonical)].Load():
		return false
	}
	return !d.live.reserved.has(d.reservation(x, len(canonical)))
}

// loadReservations adds the stored reservations of every domain; until one is done, its
// unknown codes cost a read each. A store that fails is asked again until ctx ends.
func (r *Registry) loadReservations(ctx context.Context, list []*Domain) {
	for _, d := range list {
		for pause := 100 * time.Millisecond; ; pause = min(2*pause, time.Minute) {
			err := d.loadReservations(ctx, r.o.Store)
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				return
			}
			r.o.Log.Warn("unknown codes cost a read each: the reservations cannot be read", "domain", d.Host, "error", err)
			t := time.NewTimer(pause)
			select {
			case <-t.C:
			case <-ctx.Done():
				t.Stop()
				return
			}
		}
	}
}

// reservationPage is how many reservations are read at once.
const reservationPage = 10_000

func (d *Domain) loadReservations(ctx context.Context, store terse.Store) error {
	for s, p := range d.perms {
		if p == nil {
			continue
		}
		for from := uint64(0); ; {
			page, err := store.Reservations(ctx, d.Number, terse.SpaceID(s), from, reservationPage)
			if err != nil {
				return fmt.Errorf("load reservations of %s: %w", d.Host, err)
			}
			for _, index := range page {
				d.live.reserved.add(terse.NewLinkNumber(d.Number, terse.SpaceID(s), index))
			}
			if len(page) < reservationPage {
				break
			}
			from = page[len(page)-1] + 1
		}
	}
	d.live.reserved.complete.Store(true)
	return nil
}
