package clicks

import (
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/agent"
	"github.com/terselink/terse/internal/geo"
)

const (
	idleRounds = 40 // empty rounds before the writer sleeps until it is woken
	totalsLook = time.Second
	retryFirst = 20 * time.Millisecond
	retryMost  = time.Second
	closeTries = 3 // attempts at a failing disk while closing
)

// writer is the one goroutine that turns slots into groups and appends them to
// the current segment.
type writer struct {
	r       *Recorder
	group   *groupBuilder
	visitor visitorHash
	agents  *agent.Parser // for the 80 % rung alone; made when it is first reached

	batch   [][]byte  // swapped buffers of one round
	waiting []*commit // of the same round
	pending []byte    // encoded groups not yet written
	scratch []byte    // a copy of pending for the file
	counts  []int     // the records of each pending group: for the counters
	totals  totals
	stood   uint64            // clicks that records of pending groups stand for, beside themselves: totals
	place   []byte            // scratch
	network []byte            // scratch
	keptOf  terse.WorkspaceID // whose kept is; 0: asked anew in every round
	kept    Kept
	cut     []byte // scratch of filtered queries
	host    []byte // scratch of referring hosts
	// countries are those that were told, so that none is allocated twice.
	countries map[[2]byte]string
	sampler   uint64

	file   vfs.File
	number uint64 // of the current segment
	size   int64
}

func newWriter(r *Recorder) *writer {
	return &writer{r: r, group: newGroupBuilder(), visitor: visitorHash{salts: r.o.Salts}, countries: map[[2]byte]string{}, batch: make([][]byte, len(r.shards))}
}

func (w *writer) run() {
	timer := time.NewTimer(w.r.o.FlushEvery)
	defer timer.Stop()
	// The first segment tells readers at once that the boot before is dead.
	if err := w.ensureSegment(); err != nil {
		w.failed(err)
	}
	for idle := 0; ; {
		var answer chan error
		timer.Reset(w.r.o.FlushEvery)
		tick := timer.C
		if idle >= idleRounds {
			w.r.asleep.Store(true)
			if w.r.empty() { // else a capture came between the last round and asleep
				tick = nil
				if w.totals.held > 0 { // there may be room for them without a click that says so
					timer.Reset(totalsLook)
					tick = timer.C
				}
			}
		}
		select {
		case <-tick:
		case <-w.r.wake:
		case answer = <-w.r.flush:
		case a := <-w.r.append:
			answer = a.answer
			w.add(&a)
		case <-w.r.stop:
			w.r.asleep.Store(false)
			w.finish()
			return
		}
		w.r.asleep.Store(false)
		if w.round() {
			idle = 0
		} else {
			idle++
		}
		w.write()
		if answer != nil && len(w.pending) > 0 { // stopped while the disk refused
			answer <- errStopped
			answer = nil
		}
		w.settle(answer)
	}
}

// empty reports whether no shard holds a click.
func (r *Recorder) empty() bool {
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.Lock()
		n := len(s.buf)
		s.mu.Unlock()
		if n > 0 {
			return false
		}
	}
	return true
}

// round swaps every shard's buffer and encodes what was in them.
func (w *writer) round() (any bool) {
	for i := range w.r.shards {
		s := &w.r.shards[i]
		s.mu.Lock()
		full := s.buf
		s.buf = s.spare[:0]
		if s.waiting != nil {
			w.waiting = append(w.waiting, s.waiting)
			s.waiting = nil
		}
		s.mu.Unlock()
		s.spare = full
		w.batch[i] = full
		any = any || len(full) > 0
	}
	if !any && w.totals.held == 0 {
		return false
	}
	now := w.r.o.Clock()
	w.visitor.refresh()
	w.keptOf, w.kept = 0, Kept{} // asked anew each round; nobody is asked for clicks of no workspace
	rung := rungOf(w.r.dirBytes.Load(), w.r.o.MaxBytes)
	if w.totalsDue(rung, now) {
		w.writeTotals()
	}
	for _, b := range w.batch {
		w.encode(b, now.UnixMilli(), rung)
	}
	w.endGroup()
	return any
}

// rung is a step of the degradation ladder (docs/clicks.md).
type rung uint8

const (
	rungAll    rung = iota // everything is recorded
	rungPeople             // 80 % of the cap: bots are not
	rungSample             // 95 %: one in sampleWeight of the others, with that weight
	rungNone               // at the cap: how many there were of each link (totals)
)

const sampleWeight = 10

func rungOf(size, most int64) rung {
	switch {
	case size >= most:
		return rungNone
	case size >= most/100*95:
		return rungSample
	case size >= most/100*80:
		return rungPeople
	}
	return rungAll
}

// encode adds the slots of b to the group.
//
// Hot path: 0 allocs/op, see TestWriterAllocs.
func (w *writer) encode(b []byte, now int64, at rung) {
	var s slot
	rec := record{slot: &s}
	for len(b) > 0 {
		b = s.get(b)
		rec.weight = 1
		if at != rungAll && !w.admit(&rec, at, now) {
			continue
		}
		if s.at <= 0 {
			s.at = terse.Millis(now)
		}
		rec.visitor = 0
		if s.flags&flagsAnonymous == 0 {
			rec.visitor = w.visitor.of(&s)
		}
		rec.country, rec.place = w.told(s.country), nil
		if w.r.o.Geo != nil {
			w.locate(&rec)
		}
		rec.keepAgent, rec.network = false, nil
		if w.r.o.Kept != nil {
			w.keep(&rec)
		}
		w.cut = w.cut[:0]
		rec.referrer = cutQuery(s.referrer)
		if len(rec.referrer) > 0 && w.r.o.Own != nil && w.refersToItself(&rec) {
			rec.referrer = nil
		}
		rec.destination, w.cut = trackingOnlyURL(w.cut, s.destination)
		rec.query, w.cut = trackingOnly(w.cut, s.query)
		if w.group.full() {
			w.endGroup()
		}
		w.group.add(&rec)
	}
}

// told returns one of few strings for a country that was told; "" for none.
func (w *writer) told(country [2]byte) string {
	if country[0] == 0 {
		return ""
	}
	s, ok := w.countries[country]
	if !ok { // at most 26 x 26: what is told was checked
		s = string(country[:])
		w.countries[country] = s
	}
	return s
}

// tell puts the country that was told into a place, if any was. If it is another one the region and the city are wrong, too.
func tell(p *geo.Place, country string) {
	if country != "" && country != p.Country {
		p.Country, p.Region, p.City = country, "", ""
	}
}

// locate is the IP step: after it nothing of the address is used. A country that was told stays.
func (w *writer) locate(rec *record) {
	if !w.r.o.Geo.HasPlaces() {
		if rec.country == "" {
			rec.country = w.r.o.Geo.Country(rec.ip)
		}
		return
	}
	var p geo.Place
	w.r.o.Geo.Lookup(rec.ip, &p)
	tell(&p, rec.country)
	rec.country = p.Country
	if p.ASN != 0 || p.Region != "" || p.City != "" {
		w.place = appendPlace(w.place[:0], p.ASN, p.Region, p.City)
		rec.place = w.place
	}
}

// refersToItself reports whether a click comes from another page of a domain of its workspace.
func (w *writer) refersToItself(rec *record) bool {
	w.host = appendReferrerHost(w.host[:0], rec.referrer)
	for host := w.host; len(host) > 0; {
		if w.r.o.Own(rec.workspace, host) {
			return true
		}
		shorter := trimLabel(host)
		if len(shorter) == len(host) {
			return false
		}
		host = shorter
	}
	return false
}

// admit applies the ladder and counts what it refuses.
func (w *writer) admit(rec *record, at rung, now int64) bool {
	if w.agents == nil {
		w.agents = agent.New(agent.Options{})
	}
	ua, _, platform, _ := splitClient(rec.client)
	if rec.flags&(FlagHead|FlagPrefetch) != 0 || w.agents.Parse(ua, platform, false).Bot != 0 {
		w.r.stats.bots.Add(1)
		return false
	}
	if at == rungNone {
		if w.totals.add(rec.slot, now) {
			w.r.stats.held.Store(w.totals.held)
		} else {
			w.r.stats.spoolFull.Add(1)
		}
		return false
	}
	if at == rungSample {
		// A pseudo-random choice, so that no pattern of traffic is preferred.
		w.sampler = w.sampler*6364136223846793005 + 1442695040888963407
		if (w.sampler>>33)%sampleWeight != 0 {
			w.r.stats.sampled.Add(1)
			return false
		}
		rec.weight = sampleWeight
	}
	return true
}

func (w *writer) endGroup() {
	if n := w.group.n; n > 0 {
		w.pending = w.group.appendGroup(w.pending)
		w.counts = append(w.counts, n)
	}
}

// write appends the pending groups to the segment. While the disk refuses it
// stays here: the shards fill, and captures are dropped and counted.
func (w *writer) write() {
	wait := retryFirst
	for len(w.pending) > 0 {
		err := w.tryWrite()
		if err == nil {
			return
		}
		w.failed(err)
		select {
		case <-time.After(wait):
		case <-w.r.stop:
			return // finish tries again
		}
		wait = min(2*wait, retryMost)
	}
}

// tryWrite makes one attempt. A segment that a write failed on is given up: its
// end may hold half a group, and nothing may follow that.
func (w *writer) tryWrite() error {
	if err := w.ensureSegment(); err != nil {
		return err
	}
	// vfs.File.Write may change what it is given, and a failed write is tried again.
	w.scratch = append(w.scratch[:0], w.pending...)
	if _, err := w.file.Write(w.scratch); err != nil {
		w.abandon()
		return fmt.Errorf("write segment: %w", err)
	}
	w.size += int64(len(w.pending))
	w.r.written.Store(&Position{w.r.boot, w.number, w.size})
	w.r.dirBytes.Add(int64(len(w.pending)))
	w.r.stats.bytes.Add(uint64(len(w.pending)))
	for _, n := range w.counts {
		w.r.stats.spooled.Add(uint64(n))
		w.r.stats.groups.Add(1)
	}
	w.r.stats.totals.Add(w.stood)
	w.pending, w.counts, w.stood = w.pending[:0], w.counts[:0], 0
	return nil
}

// ensureSegment makes a new segment if there is none, the current one is full,
// or its fsync failed: what such a file holds is not known any more.
func (w *writer) ensureSegment() error {
	if w.file != nil && (w.size >= w.r.o.SegmentBytes || w.r.syncer.rotate.Swap(false)) {
		w.abandon()
	}
	if w.file != nil {
		return nil
	}
	w.number++
	fs := w.r.o.FS
	path := fs.PathJoin(w.r.o.Dir, segmentID{w.r.boot, w.number}.name())
	file, err := fs.Create(path, spoolCategory)
	if err != nil {
		return fmt.Errorf("create segment: %w", err)
	}
	header := appendSegmentHeader(nil, w.r.o.Clock().UnixMilli(), w.r.o.Node)
	if _, err := file.Write(header); err != nil {
		_ = file.Close()
		_ = fs.Remove(path) // else a full disk would fill with names
		return fmt.Errorf("create segment: %w", err)
	}
	w.file, w.size = file, int64(len(header))
	w.r.written.Store(&Position{w.r.boot, w.number, w.size})
	w.r.dirBytes.Add(w.size)
	w.r.stats.bytes.Add(uint64(w.size))
	w.r.stats.segments.Add(1)
	w.r.syncer.begin(file)
	return nil
}

// abandon leaves the current segment to the syncer, which syncs and closes it.
func (w *writer) abandon() {
	w.r.syncer.end(w.file)
	w.file = nil
}

func (w *writer) failed(err error) {
	if w.r.stats.writeErrors.Add(1) == 1 {
		w.r.o.Log.Error("clicks cannot be written; redirects go on, clicks wait in memory and are then dropped", "err", err)
	}
}

// settle hands everyone who waits for this round to the syncer.
func (w *writer) settle(answer chan error) {
	w.r.syncer.written(w.waiting, answer)
	clear(w.waiting)
	w.waiting = w.waiting[:0]
}

// finish writes the last clicks and ends the syncer.
func (w *writer) finish() {
	var err error
	for range closeTries {
		if err = w.tryWrite(); err == nil || len(w.pending) == 0 {
			break
		}
		w.failed(err)
	}
	w.round()
	w.writeTotals() // above the cap if need be: they are all that there is of those clicks
	for range closeTries {
		if len(w.pending) == 0 {
			err = nil
			break
		}
		if err = w.tryWrite(); err != nil {
			w.failed(err)
		}
	}
	for _, n := range w.counts {
		w.r.stats.disk.Add(uint64(n))
	}
	w.r.stats.disk.Add(w.stood)
	if w.file != nil {
		w.abandon()
	}
	w.settle(nil)
	w.r.syncer.finish(err)
}
