package links

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"unsafe"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/domains"
	"github.com/terselink/terse/internal/failpoint"
)

// batch is some rows on their way through the pipeline. Batches are pooled and keep
// their buffers: a plain row leaves no garbage.
type batch struct {
	base   uint64       // index of the first row
	offset int64        // of the rows in the body
	line   uint64       // of the body on which buf begins, if they are counted
	entry  *ledgerEntry // what a run before did with these rows, or began; nil: nothing
	buf    []byte       // the rows; links point into it until the batch is written
	spans  [][2]int32   // where the rows are in buf

	rows   []rowState
	links  []terse.Link      // what to insert, then what was
	doms   []*domains.Domain // domain of each of links
	found  []terse.Link      // reused links
	fdoms  []*domains.Domain
	errs   []rowFault
	values valueParser
	reuse  []int32 // rows whose link may be one that exists

	issued  []domains.Issued // one for each of issuers; codes of links point into it
	indexes []uint64
	issuers []*domains.Domain         // the domains of the batch
	places  map[*domains.Domain]int32 // of issuers, once there are many
	order   []int32                   // links by issuer
	ends    []int32                   // where in order the links of each issuer end

	out                     []byte // the results
	created, reused, failed uint64
	err                     error  // ends the request
	panicked                bool   // err is a defect
	lost                    bool   // a row names a domain that cannot be used
	tries                   int    // runs that failed
	by                      string // the other process that made the results; "": this one
	done                    chan struct{}
}

// rowState says what became of a row: at is an index into links, found or errs.
type rowState struct {
	kind rowKind
	at   int32
}

type rowKind uint8

const (
	rowCreated rowKind = iota
	rowReused
	rowFailed
)

type rowFault struct {
	err        *terse.Error
	externalID string
}

// bulkPools keeps batches for the next request.
type bulkPools struct{ batches sync.Pool }

func (p *bulkPools) get() *batch {
	b, _ := p.batches.Get().(*batch)
	if b == nil {
		b = &batch{}
	}
	b.done = make(chan struct{})
	return b
}

func (p *bulkPools) put(b *batch) {
	b.reset()
	p.batches.Put(b)
}

// reset forgets the rows and keeps the buffers.
func (b *batch) reset() {
	clear(b.links)
	clear(b.found)
	clear(b.errs)
	b.buf, b.spans, b.rows, b.links, b.doms = b.buf[:0], b.spans[:0], b.rows[:0], b.links[:0], b.doms[:0]
	b.found, b.fdoms, b.errs, b.reuse, b.out = b.found[:0], b.fdoms[:0], b.errs[:0], b.reuse[:0], b.out[:0]
	b.issuers = b.issuers[:0]
	clear(b.places)
	b.values.joined = b.values.joined[:0]
	b.created, b.reused, b.failed, b.err, b.entry, b.panicked, b.lost, b.tries, b.by = 0, 0, 0, nil, nil, false, false, 0, ""
}

// view returns bytes as a string without a copy. The batch's buffers do not change
// until its results are written, and stores copy what they keep.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// run turns the rows into durable links and renders their results.
func (b *batch) run(p *pipeline) {
	defer func() {
		if r := recover(); r != nil { // a defect must not take the server down, nor pass for success
			b.panicked = true
			b.err = &terse.Error{Code: terse.CodeInternal, Err: fmt.Errorf("bulk batch: panic: %v", r)}
			p.s.o.Log.Error("bulk batch panicked", "panic", r, "rows", len(b.spans))
		}
	}()
	if p.ctx.Err() != nil {
		b.err = p.ctx.Err()
		return
	}
	if b.entry != nil && !b.entry.Begun {
		if b.err = b.replayChecked(p); b.err == nil {
			b.count()
			b.render(p)
		}
		return
	}
	if p.campaign != nil {
		if b.err = takesLinks(p.campaign.handle.Load()); b.err != nil {
			return
		}
	}
	b.parse(p)
	if p.elsewhere && b.lost { // this process may not know it yet
		b.err = fmt.Errorf("%w: a domain is not known", errDeclined)
		return
	}
	if p.o.DryRun {
		if b.err = b.checkFree(p); b.err != nil {
			return
		}
		b.count()
		b.render(p)
		return
	}
	if p.elsewhere && len(b.reuse) > 0 { // which takes locks of one process
		b.err = fmt.Errorf("%w: it reuses links", errDeclined)
		return
	}
	unlock, err := b.findReusable(p)
	if err != nil {
		b.err = err
		return
	}
	defer unlock()
	if p.o.Atomic && len(b.errs) > 0 {
		b.err = b.rowsError()
		return
	}
	if err := b.issue(p); err != nil {
		b.err = err
		return
	}
	failpoint.Hit(failpoint.CodesIssued)
	if err := b.insert(p); err != nil {
		b.err = err
		return
	}
	b.count()
	b.render(p)
	failpoint.Hit(failpoint.BatchDone)
}

// parse reads and validates every row.
func (b *batch) parse(p *pipeline) {
	var n NewLink // used for every row; parseRow leaves it zero but for what the row says
	now := p.s.o.Clock()
	b.rows = slices.Grow(b.rows, len(b.spans))
	b.links = slices.Grow(b.links, len(b.spans))
	b.doms = slices.Grow(b.doms, len(b.spans))
	for i, span := range b.spans {
		row := b.buf[span[0]:span[1]]
		var err error
		if len(row) > maxRow {
			err, n = errRowTooLong, NewLink{}
		} else {
			err = p.parseRow(&b.values, row, &n)
		}
		d := p.domainOf(b.base + uint64(i))
		if err == nil && n.Domain != "" && n.Domain != d.Host {
			d, err = p.s.domain(p.ctx, p.a, n.Domain)
			b.lost = b.lost || err != nil
		}
		if err == nil {
			b.links = append(b.links, terse.Link{})
			l := &b.links[len(b.links)-1]
			if err = p.build(l, d, &n, now); err != nil {
				b.links = b.links[:len(b.links)-1]
			}
		}
		if err != nil {
			b.fail(err, n.ExternalID)
			continue
		}
		if n.IfExists == IfExistsReuse {
			b.reuse = append(b.reuse, int32(len(b.rows)))
		}
		b.rows = append(b.rows, rowState{rowCreated, int32(len(b.links) - 1)})
		b.doms = append(b.doms, d)
	}
}

// domainOf returns the domain of a row that names none.
func (p *pipeline) domainOf(row uint64) *domains.Domain {
	if p.campaign != nil {
		return p.campaign.turns.of(row)
	}
	return p.def
}

// build fills a link from a row that was parsed.
func (p *pipeline) build(l *terse.Link, d *domains.Domain, n *NewLink, now terse.Millis) error {
	if p.campaign != nil {
		return p.s.buildCampaignLink(l, p.a, p.campaign.handle.Load(), d, n, now)
	}
	return p.s.build(l, p.a, d, n, now)
}

// fail records the error of the next row.
func (b *batch) fail(err error, externalID string) {
	b.rows = append(b.rows, rowState{rowFailed, int32(len(b.errs))})
	b.errs = append(b.errs, rowFault{rowError(err), externalID})
}

// rowError returns err as the error of a row.
func rowError(err error) *terse.Error {
	if e, ok := errors.AsType[*terse.Error](err); ok {
		return e
	}
	return &terse.Error{Code: terse.CodeInternal, Message: "internal error", Err: err}
}

func (b *batch) rowsError() error {
	e := &RowsError{Failed: uint64(len(b.errs))}
	for i, r := range b.rows {
		if r.kind == rowFailed && len(e.Rows) < 100 {
			fault := *b.errs[r.at].err
			fault.Message, fault.Field = strings.Clone(fault.Message), strings.Clone(fault.Field)
			e.Rows = append(e.Rows, RowError{b.base + uint64(i), &fault})
		}
	}
	return e
}

// findReusable looks for links that rows with if_exists=reuse may return, and makes
// equal rows of the batch share one link. The locks it takes are held until the
// new links are inserted, so two requests cannot both find nothing.
func (b *batch) findReusable(p *pipeline) (unlock func(), err error) {
	unlock = func() {}
	if len(b.reuse) == 0 {
		return unlock, nil
	}
	type key struct {
		domain terse.DomainID
		dest   string
	}
	var stripes [256]bool
	var candidates []int32
	for _, r := range b.reuse {
		l := &b.links[b.rows[r].at]
		if l.Code != "" || !l.Plain() {
			continue
		}
		candidates = append(candidates, r)
		stripes[reuseStripe(l.Workspace, b.doms[b.rows[r].at].Number, l.Destination)] = true
	}
	for i, wanted := range stripes { // in ascending order, so that two batches cannot wait for each other
		if wanted {
			p.s.reuse[i].Lock()
		}
	}
	unlock = func() {
		for i, wanted := range stripes {
			if wanted {
				p.s.reuse[i].Unlock()
			}
		}
	}
	drop := make(map[int32]bool)   // links that are not needed
	first := make(map[key]int32)   // the row that makes the link of a destination
	share := make(map[int32]int32) // row -> row whose link it shares
	now := p.s.o.Clock()
	for _, r := range candidates {
		at := b.rows[r].at
		l, d := &b.links[at], b.doms[at]
		k := key{d.Number, l.Destination}
		if f, ok := first[k]; ok {
			share[r], drop[at] = f, true
			continue
		}
		first[k] = r
		found, err := p.s.o.Store.FindPlain(p.ctx, l.Workspace, d.Number, l.Destination, now)
		if errors.Is(err, terse.ErrNotFound) {
			continue
		}
		if err != nil {
			unlock()
			return nil, fmt.Errorf("find link to reuse: %w", err)
		}
		p.s.setCode(d, &found)
		b.rows[r] = rowState{rowReused, int32(len(b.found))}
		b.found, b.fdoms = append(b.found, found), append(b.fdoms, d)
		drop[at] = true
	}
	b.dropLinks(drop)
	for r, f := range share { // a shared row shows the link of the first, which is created or reused
		b.rows[r] = rowState{rowShared, f}
	}
	return unlock, nil
}

// rowShared: at is the row of the batch whose link this row returns too.
const rowShared rowKind = 3

// dropLinks removes links and renumbers the rows that point behind them.
func (b *batch) dropLinks(drop map[int32]bool) {
	if len(drop) == 0 {
		return
	}
	moved := make([]int32, len(b.links))
	kept := 0
	for i := range b.links {
		moved[i] = int32(kept)
		if !drop[int32(i)] {
			b.links[kept], b.doms[kept] = b.links[i], b.doms[i]
			kept++
		}
	}
	b.links, b.doms = b.links[:kept], b.doms[:kept]
	for i := range b.rows {
		if b.rows[i].kind == rowCreated {
			b.rows[i].at = moved[b.rows[i].at]
		}
	}
}

// insert writes the links as one chunk. Rows whose alias is taken become errors, and
// the rest is written without them; an atomic request ends there instead.
func (b *batch) insert(p *pipeline) error {
	for draw := 1; len(b.links) > 0 || p.ledger != nil; draw++ {
		chunk := terse.Chunk{Links: b.links}
		failpoint.Hit(failpoint.ChunkReady)
		if p.ledger != nil {
			doc, err := p.ledger.entry(b, p.s.o.Clock())
			if err != nil {
				return err
			}
			chunk.Documents = []terse.Document{doc}
		}
		var err error
		b.whileAway(p.s, func() { err = p.s.insertChunk(p.ctx, &chunk) })
		if err == nil {
			failpoint.Hit(failpoint.ChunkCommitted)
			break
		}
		if p.ledger != nil && (errors.Is(err, terse.ErrVersion) || terse.ErrorCode(err) == terse.CodeConflict && !errors.Is(err, terse.ErrAliasTaken)) {
			return &terse.Error{Code: terse.CodeUnavailable, Message: "another run has done the same rows", Op: "insert links", Err: err}
		}
		conflict, ok := errors.AsType[*terse.AliasConflictError](err)
		if !ok || len(conflict.Rows) == 0 || errors.Is(err, terse.ErrUnknownOutcome) {
			return fmt.Errorf("insert links: %w", err)
		}
		rows, err := b.redraw(p, conflict.Rows, draw)
		if err != nil {
			return err
		}
		if len(rows) == 0 {
			continue
		}
		taken := make(map[int32]bool, len(rows))
		for _, i := range rows {
			if !b.links[i].Named() {
				return &terse.Error{Code: terse.CodeInternal, Op: "insert links", Err: fmt.Errorf("number %s of a fresh lease is in use", b.links[i].Number)}
			}
			taken[int32(i)] = true
		}
		for i, r := range b.rows {
			if r.kind == rowCreated && taken[r.at] {
				l := &b.links[r.at]
				b.rows[i] = rowState{rowFailed, int32(len(b.errs))}
				b.errs = append(b.errs, rowFault{errTaken(l), l.ExternalID})
			}
		}
		if p.o.Atomic {
			return b.rowsError()
		}
		b.dropLinks(taken)
	}
	if len(b.links) > 0 {
		p.s.o.OnChange(Change{Created: true})
	}
	for i := range b.links {
		if l := &b.links[i]; l.Number.Space() == terse.AliasSpace {
			p.s.o.OnChange(Change{Domain: l.Number.Domain(), Code: strings.Clone(l.Code), Number: l.Number, Version: 1, Created: true})
		}
	}
	return nil
}

// whileAway runs what waits for the store, within a turn of the background. A batch that has locks of destinations keeps its
// turn: others would wait for the locks in it.
func (b *batch) whileAway(s *Service, f func()) {
	if len(b.reuse) == 0 {
		s.background.Apart(f)
		return
	}
	f()
}

// maxVerify bounds how often a write of unknown outcome is looked up and repeated.
const maxVerify = 3

// insertChunk inserts, and settles an unknown outcome: the chunk is atomic and its
// numbers are ours alone, so one link of it tells whether it was applied.
func (s *Service) insertChunk(ctx context.Context, chunk *terse.Chunk) error {
	unknown := false
	for try := 0; ; try++ {
		err := s.o.Store.InsertLinks(ctx, chunk)
		if errors.Is(err, terse.ErrUnknownOutcome) {
			unknown = true
		}
		if err == nil || !unknown {
			return err
		}
		// From here on whatever a repetition meets, a conflict with itself or a store
		// that is down, says nothing about the first try.
		if try == maxVerify || ctx.Err() != nil || len(chunk.Links) == 0 {
			return fmt.Errorf("%w: %w", terse.ErrUnknownOutcome, err)
		}
		l := &chunk.Links[0]
		keys, dst := [1]terse.LinkKey{{Number: l.Number, Code: l.Code}}, [1]terse.Link{}
		// A store that takes no more writes may still show what it never synced.
		if s.o.Store.Ping(ctx) == nil && s.o.Store.GetLinks(ctx, keys[:], dst[:]) == nil && dst[0].Number == l.Number {
			return nil
		}
	}
}

func (b *batch) count() {
	for _, r := range b.rows {
		switch r.kind {
		case rowCreated:
			b.created++
		case rowFailed:
			b.failed++
		default:
			b.reused++
		}
	}
}

// replayChecked replays the batch if it is the one that the entry is about.
func (b *batch) replayChecked(p *pipeline) error {
	if int64(len(b.buf)) != b.entry.Bytes || p.ledger.hash(b.buf) != b.entry.Hash {
		return errMismatch()
	}
	return b.replay(p, b.entry)
}

// checkFree finds the aliases that a dry run could not create: those that exist, those
// that are issued codes, and those that stand in the batch twice.
func (b *batch) checkFree(p *pipeline) error {
	type key struct {
		domain terse.DomainID
		alias  string
	}
	seen := make(map[key]bool)
	for i, r := range b.rows {
		if r.kind != rowCreated || b.links[r.at].Code == "" {
			continue
		}
		l, d := &b.links[r.at], b.doms[r.at]
		k := key{d.Number, l.Code}
		taken := seen[k] || l.Reserves != 0 && d.Issued(l.Reserves)
		seen[k] = true
		if !taken {
			_, err := p.s.o.Store.GetAlias(p.ctx, d.Number, l.Code)
			if err != nil && !errors.Is(err, terse.ErrNotFound) {
				return fmt.Errorf("look up alias: %w", err)
			}
			taken = err == nil
		}
		if taken {
			b.rows[i] = rowState{rowFailed, int32(len(b.errs))}
			b.errs = append(b.errs, rowFault{rowError(errAliasTaken(strings.Clone(l.Code))), l.ExternalID})
		}
	}
	return nil
}
