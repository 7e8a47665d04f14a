package links

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/domains"
	"github.com/terselink/terse/internal/failpoint"
)

// The bulk pipeline. A body of any size becomes links while it arrives:
//
//	read ─ blocks ─> assemble ─ batches of whole rows ─> work (parallel) ─> write in input order
//
// A batch is parsed, validated, given codes and inserted as one atomic chunk, and
// its results are written after the insert returned, so a result that was sent
// is durable. Every stage is bounded: a reader that is slow stops the writer of
// its own request and nothing else.

// Format is the form of rows and of results.
type Format uint8

// The formats.
const (
	NDJSON Format = iota
	CSV
	JSON
	// NoOutput writes no results: Each gets them.
	NoOutput
)

// Sizes of the pipeline. A batch is one insert: large enough that its fsync costs
// little a row, small enough that a few of them are little memory.
const (
	batchBytes = 1 << 20   // rows of one batch
	blockBytes = 256 << 10 // one read of the body
	maxRow     = 256 << 10 // one row; a longer one is an error of its own
)

// BulkOptions says how to read rows and write results.
type BulkOptions struct {
	Domain   string // host for rows that name none; "": the workspace's default
	Campaign terse.CampaignID
	// Atomic creates nothing unless all rows are valid and free. The body is then held
	// in memory and bounded by Options.MaxAtomicBytes.
	Atomic  bool
	In, Out Format
	// RawCSV writes values to CSV as they are. Without it a value that a spreadsheet
	// would run as a formula is prefixed with an apostrophe.
	RawCSV   bool
	MaxBytes int64 // of the body; 0: Options.MaxBulkBytes
	// Ledger makes the request repeatable: the same body with the same ledger creates its
	// links once, whatever happens in between, and is answered the same for seven days.
	// 1 to 200 characters; "": not repeatable.
	Ledger string
	// DryRun validates the rows and creates nothing. Results of rows that could be created
	// have "valid":true and no link.
	DryRun bool
	// Progress is told the counts so far after each batch was answered. May be nil.
	Progress func(BulkProgress)
	// Each is told what became of each row, in input order, after the results of its batch
	// were written to w. Its error ends the request. May be nil.
	Each func(*RowResult) error

	// Spread has other processes run batches of a request with a Ledger, or of a dry run. nil: all are run here.
	Spread Spread

	// Class of links that Generate makes: "" or ClassSecret.
	Class string

	generated bool // the body is one of Generate
}

// BulkSummary counts rows.
type BulkSummary struct {
	Created, Reused, Failed uint64
}

// BulkProgress is how far a request is after a batch, whose results were written.
type BulkProgress struct {
	BulkSummary
	Bytes int64 // of the body, up to the end of the batch
	// By is the other process that made the results of the batch, of ByRows rows; "": this one.
	By     string
	ByRows uint64
}

// RowError is the error of one row of an atomic request.
type RowError struct {
	Index uint64
	Err   *terse.Error
}

// RowsError says why an atomic request created nothing.
type RowsError struct {
	Rows   []RowError // the first of them, at most 100
	Failed uint64     // all of them
}

// Error implements error.
func (e *RowsError) Error() string { return fmt.Sprintf("%d rows are not valid or not free", e.Failed) }

// errBodyTooLarge and errRowTooLong: limits of a bulk body.
func errBodyTooLarge(limit int64) error {
	return &terse.Error{Code: terse.CodeTooLarge, Reason: "body_too_large", Field: "body", Message: fmt.Sprintf("the body is longer than %d bytes", limit)}
}

var errRowTooLong = &terse.Error{Code: terse.CodeInvalid, Reason: "row_too_large", Message: fmt.Sprintf("the row is longer than %d bytes", maxRow)}

// Bulk creates a link for each row of body and writes one result a row to w in input
// order, while it reads. Results that were written are durable. A bad row is a
// result; an error of the body or of the store ends the stream: what was written
// before it stands. If nothing had been written, the caller may answer with the error.
// w is flushed after each batch if it has a method Flush() error.
func (s *Service) Bulk(ctx context.Context, a Actor, o BulkOptions, body io.Reader, w io.Writer) (BulkSummary, error) {
	if o.MaxBytes == 0 {
		o.MaxBytes = s.o.MaxBulkBytes
	}
	var def *domains.Domain
	var rows *campaignRows
	var err error
	if o.Campaign != 0 {
		if rows, err = s.openCampaign(ctx, a, &o); err != nil {
			return BulkSummary{}, err
		}
		def, rows.plain, rows.class = rows.turns.of(0), o.generated, o.Class
	} else if def, err = s.domain(ctx, a, o.Domain); err != nil {
		return BulkSummary{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var led *ledger
	if o.Ledger != "" && !o.DryRun {
		release, ok := s.ledgers.acquire(fmt.Sprintf("%d/%s", a.Workspace, o.Ledger))
		if !ok {
			return BulkSummary{}, errInProgress()
		}
		defer release()
		if led, err = openLedger(ctx, s.o.Store, a.Workspace, o); err != nil {
			return BulkSummary{}, err
		}
	}
	p := &pipeline{
		ledger: led,
		s:      s, a: a, o: o, def: def, campaign: rows, ctx: ctx, cancel: cancel,
		blocks: make(chan []byte, 2), free: make(chan []byte, 3),
		work: make(chan *batch), idle: make(chan struct{}, 1), written: make(chan struct{}, 1), w: w, line: 1,
	}
	if err := p.openSpread(); err != nil {
		return BulkSummary{}, err
	}
	under := s.inFlight()
	if p.spread != nil {
		under += p.spread.Window()
	}
	p.order = make(chan *batch, under)
	body = withoutMark(body, o.In)
	if o.Atomic {
		return p.runAtomic(body)
	}
	return p.run(body)
}

// inFlight is how many batches one request has under way: enough to keep every core
// busy while some wait for the disk.
func (s *Service) inFlight() int { return s.o.Processors + 3 }

type pipeline struct {
	s        *Service
	a        Actor
	o        BulkOptions
	def      *domains.Domain
	ctx      context.Context
	cancel   context.CancelFunc
	header   csvHeader     // columns of a CSV body, known before the first batch
	campaign *campaignRows // nil: rows are links
	ledger   *ledger       // nil: the request is not repeatable
	spread   Spread        // nil: every batch is run here
	runID    string        // names this run to other processes
	declined atomic.Int32  // chunks that other processes left to this one
	// elsewhere: this is one chunk of a request that another process has. What cannot be done here is declined.
	elsewhere bool
	offset    int64  // of the next batch in the body
	line      uint64 // of the body, from 1, on which the next batch begins; counted only for Each

	blocks chan []byte // bytes of the body in order
	free   chan []byte // blocks to fill again
	work   chan *batch
	order  chan *batch   // batches in input order
	idle   chan struct{} // told when nothing is in flight
	// written is told when the results of a batch were written.
	written chan struct{}
	flying  atomic.Int64 // batches handed out and not yet written

	readErr error // set before blocks is closed

	w     io.Writer
	begun bool // something was written
	sum   BulkSummary
}

// run drives the pipeline. It returns when every goroutine of it has ended, except
// that a Read of the body may be left behind until its connection is closed.
func (p *pipeline) run(body io.Reader) (BulkSummary, error) {
	go p.read(body)
	var workers sync.WaitGroup
	for range p.s.inFlight() - 1 {
		workers.Go(func() {
			for b := range p.work {
				p.s.background.Do(func() { b.run(p) })
				p.ended(b, &workers)
			}
		})
	}
	sending, stopSending := context.WithCancel(p.ctx)
	defer stopSending()
	p.startSenders(sending, &workers)
	var assembleErr error
	assembled := make(chan struct{})
	go func() {
		defer close(assembled)
		assembleErr = p.assemble()
		close(p.work)
		stopSending()
		close(p.order)
	}()
	writeErr := p.write()
	if writeErr != nil {
		p.cancel()
		for b := range p.order { // let the rest end before the buffers go
			<-b.done
			p.s.batches.put(b)
		}
	}
	<-assembled
	workers.Wait()
	if writeErr != nil {
		return p.sum, writeErr
	}
	if assembleErr != nil {
		return p.sum, assembleErr
	}
	return p.sum, p.finish()
}

// read fills blocks from the body until it ends, fails or is too long.
func (p *pipeline) read(body io.Reader) {
	defer close(p.blocks)
	for range cap(p.free) {
		p.free <- make([]byte, blockBytes)
	}
	var total int64
	for {
		var block []byte
		select {
		case block = <-p.free:
		case <-p.ctx.Done():
			return
		}
		n, err := body.Read(block[:blockBytes])
		total += int64(n)
		if total > p.o.MaxBytes {
			p.readErr = errBodyTooLarge(p.o.MaxBytes)
			return
		}
		select {
		case p.blocks <- block[:n]:
		case <-p.ctx.Done():
			return
		}
		if err == io.EOF {
			return
		}
		if err != nil {
			p.readErr = bodyError(err)
			return
		}
	}
}

// bodyError keeps errors that already say what is wrong with the body (too large,
// bad compression) and names the rest for what it is: the body was cut.
func bodyError(err error) error {
	if _, ok := errors.AsType[*terse.Error](err); ok {
		return err
	}
	return &terse.Error{Code: terse.CodeInvalid, Reason: "body_cut", Field: "body", Message: "the body ended before it was complete", Err: err}
}

// assemble cuts the body into batches of whole rows. A batch is handed out when it is
// full, and at once when nothing is in flight, so that somebody who sends one row
// and waits gets its result.
func (p *pipeline) assemble() error {
	c := newCutter(p.o.In)
	var pending []byte // bytes not handed out yet; begins at the start of a row
	var base uint64    // index of the first row in pending
	first := true
	flush := func(n int, rows [][2]int32, entry *ledgerEntry) error {
		if len(rows) > 0 {
			if err := p.waitForRoom(); err != nil {
				return err
			}
			b := p.s.batches.get()
			b.buf = append(b.buf[:0], pending[:n]...)
			b.spans = append(b.spans[:0], rows...)
			b.base, b.offset, b.line, b.entry = base, p.offset, p.line, entry
			base += uint64(len(b.spans))
			p.flying.Add(1)
			select {
			case p.order <- b:
			case <-p.ctx.Done():
				p.s.batches.put(b)
				return p.ctx.Err()
			}
			p.work <- b // workers take every batch, whatever happens
		}
		p.passed(pending[:n])
		pending = append(pending[:0], pending[n:]...)
		c.shift(n)
		return nil
	}
	for {
		eof := false
		select {
		case block, ok := <-p.blocks:
			if !ok {
				eof = true
				break
			}
			pending = append(pending, block...)
			p.free <- block
		case <-p.idle:
		case <-p.ctx.Done():
			return p.ctx.Err()
		}
		if eof && p.readErr == nil && p.ctx.Err() != nil {
			return p.ctx.Err()
		}
		if first && p.o.In == CSV {
			n, err := p.readHeader(pending, eof && p.readErr == nil)
			if err != nil {
				return err
			}
			if n == 0 && !eof {
				continue
			}
			p.passed(pending[:n])
			pending = append(pending[:0], pending[n:]...)
			if p.ledger != nil {
				p.ledger.seed += string(headerBytes(p.header))
			}
		}
		first = false
		for {
			whole := eof && p.readErr == nil
			limit, entry, err := p.ledgerLimit(len(pending), eof)
			if err != nil {
				return err
			}
			if limit < 0 {
				break // the rest of a batch of the first request has yet to come
			}
			if limit < len(pending) {
				whole = p.o.In != JSON // what ends there was whole before
			}
			n, rows, err := c.cut(pending[:limit], whole)
			if err == nil && entry != nil && n != limit {
				return errMismatch()
			}
			if err != nil {
				// The rows before the fault are complete: they are done first.
				if n > 0 {
					if ferr := flush(n, rows, nil); ferr != nil {
						return ferr
					}
				}
				return err
			}
			if n == 0 || !eof && n < batchBytes && entry == nil && limit == len(pending) && p.flying.Load() > 0 {
				break
			}
			if err := flush(n, rows, entry); err != nil {
				return err
			}
		}
		if eof {
			return p.readErr
		}
	}
}

// passed moves offset and line past bytes of the body.
func (p *pipeline) passed(b []byte) {
	p.offset += int64(len(b))
	if p.o.Each != nil {
		p.line += uint64(bytes.Count(b, newline))
	}
}

// ledgerLimit returns how many of the pending bytes the next batch may have: none but
// those of the entry it repeats, or those before the next entry. -1: more bytes are needed.
func (p *pipeline) ledgerLimit(pending int, eof bool) (limit int, entry *ledgerEntry, err error) {
	if p.ledger == nil {
		return pending, nil, nil
	}
	if end := p.ledger.end; end != nil && (p.offset+int64(pending) > end.Bytes || eof && p.offset+int64(pending) < end.Bytes) {
		return 0, nil, errMismatch()
	}
	e, err := p.ledger.next(p.ctx, p.offset)
	if err != nil || e == nil {
		return pending, nil, err
	}
	want := e.Offset - p.offset
	if want == 0 {
		want, entry = e.Bytes, e
	}
	if want <= int64(pending) {
		return int(want), entry, nil
	}
	if eof && p.readErr == nil {
		return 0, nil, errMismatch()
	}
	if entry != nil || eof {
		return -1, nil, nil
	}
	return pending, nil, nil
}

// write writes the results of batches in input order.
func (p *pipeline) write() error {
	flusher, _ := p.w.(interface{ Flush() error })
	for b := range p.order {
		<-b.done
		err := b.err
		if err == nil {
			p.sum.Created += b.created
			p.sum.Reused += b.reused
			p.sum.Failed += b.failed
			if err = p.begin(); err == nil {
				_, err = p.w.Write(b.out)
			}
			if err == nil {
				err = b.each(p)
			}
			if err == nil && flusher != nil {
				err = flusher.Flush()
			}
			if p.o.Progress != nil {
				now := BulkProgress{BulkSummary: p.sum, Bytes: b.offset + int64(len(b.buf))}
				if b.by != "" {
					now.By, now.ByRows = b.by, uint64(len(b.spans))
				}
				p.o.Progress(now)
			}
			failpoint.Hit(failpoint.ResultsWritten)
		}
		p.s.batches.put(b)
		left := p.flying.Add(-1)
		select { // after the number is less: who is woken looks at it
		case p.written <- struct{}{}:
		default:
		}
		if left == 0 {
			select {
			case p.idle <- struct{}{}:
			default:
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// runAtomic reads the whole body, validates it and inserts all of it or nothing.
func (p *pipeline) runAtomic(body io.Reader) (BulkSummary, error) {
	limit := min(p.o.MaxBytes, p.s.o.MaxAtomicBytes)
	if p.o.DryRun {
		return p.sum, terse.Invalid("atomic", "a dry run creates nothing, so it cannot be atomic")
	}
	buf, err := io.ReadAll(io.LimitReader(body, limit+1))
	if err != nil {
		return p.sum, bodyError(err)
	}
	if int64(len(buf)) > limit {
		return p.sum, errBodyTooLarge(limit)
	}
	if p.o.In == CSV {
		n, err := p.readHeader(buf, true)
		if err != nil {
			return p.sum, err
		}
		p.passed(buf[:n])
		buf = buf[n:]
		if p.ledger != nil {
			p.ledger.seed += string(headerBytes(p.header))
		}
	}
	b := &batch{buf: buf, line: p.line}
	if p.ledger != nil {
		if b.entry, err = p.ledger.next(p.ctx, 0); err != nil {
			return p.sum, err
		}
	}
	p.offset = int64(len(buf))
	c := newCutter(p.o.In)
	for done := 0; ; {
		n, rows, err := c.cut(buf[done:], true)
		if err != nil {
			return p.sum, err
		}
		if n == 0 {
			break
		}
		for _, r := range rows {
			b.spans = append(b.spans, [2]int32{r[0] + int32(done), r[1] + int32(done)})
		}
		done += n
		c.shift(n)
	}
	p.s.background.Do(func() { b.run(p) })
	if b.err != nil {
		return p.sum, b.err
	}
	p.sum = BulkSummary{Created: b.created, Reused: b.reused}
	if err := p.begin(); err != nil {
		return p.sum, err
	}
	if p.o.Progress != nil {
		p.o.Progress(BulkProgress{BulkSummary: p.sum, Bytes: p.offset})
	}
	if _, err := p.w.Write(b.out); err != nil {
		return p.sum, err
	}
	if err := b.each(p); err != nil {
		return p.sum, err
	}
	return p.sum, p.finish()
}

// cutter finds whole rows in a growing buffer.
type cutter interface {
	// cut returns the length of the longest prefix that holds whole rows, at most
	// about batchBytes of it, and where its rows are. 0 means more bytes are needed, or
	// at eof that there are none. An error may come with rows that stand before it.
	cut(buf []byte, eof bool) (n int, rows [][2]int32, err error)
	// shift says that the n bytes that the last cut returned were taken away. Until
	// then cut is asked again about the same bytes and more.
	shift(n int)
}

func newCutter(f Format) cutter {
	switch f {
	case CSV:
		return &csvCutter{}
	case JSON:
		return &arrayCutter{}
	}
	return &lineCutter{}
}

// lineCutter splits lines. Lines of nothing but white space are no rows. A line that is
// too long becomes a row of maxRow+1 bytes, which is refused as too long, and is
// skipped to its end.
type lineCutter struct {
	rows     [][2]int32
	skipping bool // buf begins in the rest of a line that was too long
	skipNext bool // skipping, once the bytes of the last cut are taken away
}

func (c *lineCutter) shift(int) { c.skipping = c.skipNext }

func (c *lineCutter) cut(buf []byte, eof bool) (int, [][2]int32, error) {
	c.rows = c.rows[:0]
	c.skipNext = c.skipping
	pos := 0
	for pos < len(buf) && pos < batchBytes {
		i := bytes.IndexByte(buf[pos:], '\n')
		end, next := pos+i, pos+i+1
		if i < 0 {
			switch {
			case c.skipNext:
				return len(buf), c.rows, nil
			case len(buf)-pos > maxRow:
				c.rows = append(c.rows, [2]int32{int32(pos), int32(pos + maxRow + 1)})
				c.skipNext = true
				return len(buf), c.rows, nil
			case !eof:
				return pos, c.rows, nil
			}
			end, next = len(buf), len(buf)
		}
		if c.skipNext {
			c.skipNext = false
		} else if !blank(buf[pos:end]) {
			c.rows = append(c.rows, [2]int32{int32(pos), int32(end)})
		}
		pos = next
	}
	return pos, c.rows, nil
}

func blank(line []byte) bool {
	for _, c := range line {
		if c != ' ' && c != '\t' && c != '\r' {
			return false
		}
	}
	return true
}
