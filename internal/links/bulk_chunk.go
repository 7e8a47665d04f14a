package links

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/domains"
)

// Chunks and their outcomes as processes of one version send them to each other. A chunk is a header as JSON behind its
// length, for each row how many bytes lie before it and how long it is, and the bytes of the batch. An outcome is a byte that says what
// it is, and either text or for each row what became of it.

// chunkHeader says what the rows of a chunk are.
type chunkHeader struct {
	Run       string            `json:"run"`
	Workspace terse.WorkspaceID `json:"workspace"`
	By        string            `json:"by"`
	Domain    string            `json:"domain,omitzero"`
	Campaign  terse.CampaignID  `json:"campaign,omitzero"`
	Fields    []string          `json:"fields,omitzero"` // of the campaign
	In        Format            `json:"in"`
	DryRun    bool              `json:"dry_run,omitzero"`
	Columns   []byte            `json:"columns,omitzero"` // of a CSV body
	Ledger    string            `json:"ledger,omitzero"`
	Seed      string            `json:"seed,omitzero"`
	Round     uint64            `json:"round,omitzero"`
	Base      uint64            `json:"base"`
	Offset    int64             `json:"offset"`
	Rows      int               `json:"rows"`
}

// Kinds of outcomes, and of rows in them.
const (
	outcomeDone     = 'd'
	outcomeDeclined = 'n'
	outcomeFailed   = 'f'
)

// appendChunk appends a batch as a chunk.
func (p *pipeline) appendChunk(dst []byte, b *batch) []byte {
	host := p.o.Domain
	if p.campaign == nil && p.def != nil {
		host = p.def.Host // which one is the default, the other process would have to ask the store for
	}
	h := chunkHeader{
		Run: p.runID, Workspace: p.a.Workspace, By: p.a.By, Domain: host, Campaign: p.o.Campaign, In: p.o.In, DryRun: p.o.DryRun,
		Columns: headerBytes(p.header), Base: b.base, Offset: b.offset, Rows: len(b.spans),
	}
	if p.campaign != nil {
		h.Fields = p.campaign.fields
	}
	if p.ledger != nil {
		h.Ledger, h.Seed, h.Round = p.ledger.id, p.ledger.seed, p.ledger.round
	}
	head, err := json.Marshal(&h)
	if err != nil { // of numbers and strings; those of a body were parsed before
		panic(fmt.Sprintf("encode chunk: %v", err))
	}
	dst = slices.Grow(dst, len(head)+len(b.buf)+6*len(b.spans)+16)
	dst = append(binary.AppendUvarint(dst, uint64(len(head))), head...)
	at := int32(0)
	for _, s := range b.spans {
		dst = binary.AppendUvarint(dst, uint64(s[0]-at))
		dst = binary.AppendUvarint(dst, uint64(s[1]-s[0]))
		at = s[1]
	}
	return append(dst, b.buf...)
}

var errBadChunk = errors.New("not a chunk of this version")

// openChunk reads a chunk. The batch is one of the pool.
func (s *Service) openChunk(ctx context.Context, chunk []byte) (*pipeline, *batch, error) {
	r := wireReader{b: chunk}
	var h chunkHeader
	if err := json.Unmarshal(r.bytes(), &h); err != nil || r.bad || h.Rows < 0 || h.Rows > len(r.b) {
		return nil, nil, errBadChunk
	}
	if err := s.catchUp(ctx, h.Run); err != nil {
		return nil, nil, err
	}
	p := &pipeline{
		s: s, a: Actor{Workspace: h.Workspace, By: h.By}, ctx: ctx, elsewhere: true,
		o: BulkOptions{Domain: h.Domain, Campaign: h.Campaign, In: h.In, DryRun: h.DryRun, Ledger: h.Ledger, Out: NoOutput},
	}
	for _, c := range h.Columns {
		p.header = append(p.header, csvColumn(c))
	}
	var err error
	if h.Campaign != 0 {
		if p.campaign, err = s.openCampaign(ctx, p.a, &p.o); err == nil && !slices.Equal(p.campaign.fields, h.Fields) {
			err = errors.New("the campaign has other fields here")
		}
		if err == nil {
			p.def = p.campaign.turns.of(0)
		}
	} else {
		p.def, err = s.domain(ctx, p.a, h.Domain)
	}
	if err != nil {
		return nil, nil, err
	}
	if !h.DryRun {
		p.ledger = &ledger{store: s.o.Store, workspace: h.Workspace, id: h.Ledger, seed: h.Seed, round: h.Round}
	}
	b := s.batches.get()
	b.base, b.offset = h.Base, h.Offset
	at := int32(0)
	for range h.Rows {
		start := at + int32(r.uvarint())
		at = start + int32(r.uvarint())
		b.spans = append(b.spans, [2]int32{start, at})
	}
	b.buf = append(b.buf[:0], r.b...)
	for i, span := range b.spans {
		if r.bad || span[0] < 0 || span[1] < span[0] || int(span[1]) > len(b.buf) || i > 0 && span[0] < b.spans[i-1][1] {
			s.batches.put(b)
			return nil, nil, errBadChunk
		}
	}
	return p, b, nil
}

// maxRuns is how many runs of other processes are remembered.
const maxRuns = 64

// otherRun is a run of another process.
type otherRun struct {
	name  string
	asked chan struct{} // closed when CatchUp has returned
	err   error         // of CatchUp
}

// catchUp learns what other processes wrote before a run that is new here began: once, however many chunks come at first.
func (s *Service) catchUp(ctx context.Context, run string) (err error) {
	if s.o.CatchUp == nil {
		return nil
	}
	mine := &otherRun{name: run, asked: make(chan struct{}), err: errors.New("what other processes wrote was not learned")}
	for {
		known := s.knownRun(mine)
		if known == nil {
			break
		}
		select {
		case <-known.asked:
		case <-ctx.Done():
			return ctx.Err()
		}
		if known.err == nil {
			return nil
		} // else it is forgotten, and the next one asks
	}
	defer func() {
		if mine.err != nil {
			s.runsMu.Lock()
			s.runs = slices.DeleteFunc(s.runs, func(r *otherRun) bool { return r == mine })
			s.runsMu.Unlock()
		}
		close(mine.asked)
	}()
	mine.err = s.o.CatchUp(ctx)
	return mine.err
}

// knownRun returns what is known of a run; nil: nothing was, and now mine is.
func (s *Service) knownRun(mine *otherRun) *otherRun {
	s.runsMu.Lock()
	defer s.runsMu.Unlock()
	for _, r := range s.runs {
		if r.name == mine.name {
			return r
		}
	}
	if s.runs = append(s.runs, mine); len(s.runs) > maxRuns {
		s.runs = s.runs[1:]
	}
	return nil
}

// RunChunk runs a chunk that a process of the same version has handed to Spread.Do, and returns the outcome. Links that
// the outcome tells of are durable. It may be called more than once for a chunk, here and elsewhere, at the same time too.
func (s *Service) RunChunk(ctx context.Context, chunk []byte) (outcome []byte) {
	defer func() {
		if r := recover(); r != nil { // of a defect in what is around the batch
			s.o.Log.Error("a chunk panicked", "panic", r, "stack", string(debug.Stack()))
			outcome = []byte{outcomeFailed}
		}
	}()
	p, b, err := s.openChunk(ctx, chunk)
	if err != nil {
		return append([]byte{outcomeDeclined}, err.Error()...)
	}
	defer s.batches.put(b)
	if p.ledger != nil {
		b.entry, b.err = p.ledger.begin(ctx, b, s.o.Clock())
	}
	if b.err == nil {
		s.background.Do(func() { b.run(p) })
	}
	switch {
	case errors.Is(b.err, errDeclined):
		return append([]byte{outcomeDeclined}, b.err.Error()...)
	case b.err != nil:
		return append([]byte{outcomeFailed}, b.err.Error()...)
	}
	return b.appendOutcome(nil)
}

// appendOutcome appends what became of the rows.
func (b *batch) appendOutcome(dst []byte) []byte {
	dst = append(dst, outcomeDone)
	var last uint64
	for i := range b.rows {
		kind, d, l := b.result(i)
		if l == nil {
			f := &b.errs[b.rows[i].at]
			dst = append(dst, byte(rowFailed))
			for _, text := range []string{f.externalID, string(f.err.Code), f.err.Reason, f.err.Field, f.err.Message} {
				dst = appendWireText(dst, text)
			}
			continue
		}
		if kind == rowShared {
			kind = rowReused
		}
		dst = append(dst, byte(kind))
		dst = binary.AppendUvarint(dst, uint64(d.Number))
		dst = binary.AppendUvarint(dst, zigzag(int64(uint64(l.Number)-last)))
		last = uint64(l.Number)
		dst = appendWireText(appendWireText(dst, l.Code), l.ExternalID)
	}
	return dst
}

// takeOutcome gives the batch what another process made of its rows, and renders the results. Links point into outcome.
func (b *batch) takeOutcome(p *pipeline, outcome []byte) error {
	if len(outcome) == 0 {
		return errBadChunk
	}
	kind, rest := outcome[0], outcome[1:]
	switch kind {
	case outcomeDone:
	case outcomeDeclined:
		return fmt.Errorf("%w: %s", errDeclined, rest)
	default:
		return fmt.Errorf("the other process failed: %s", rest)
	}
	r := wireReader{b: rest}
	var last uint64
	var d *domains.Domain
	for range b.spans {
		kind := rowKind(r.byte())
		if kind == rowFailed {
			f := rowFault{err: &terse.Error{}, externalID: r.text()}
			f.err.Code, f.err.Reason, f.err.Field, f.err.Message = terse.Code(r.text()), r.text(), r.text(), r.text()
			b.rows = append(b.rows, rowState{rowFailed, int32(len(b.errs))})
			b.errs = append(b.errs, f)
			continue
		}
		number := terse.DomainID(r.uvarint())
		last += uint64(unzigzag(r.uvarint()))
		l := terse.Link{Number: terse.LinkNumber(last), Code: r.text(), ExternalID: r.text()}
		if d == nil || d.Number != number {
			d = p.s.o.Domains.ByNumber(number)
		}
		switch {
		case r.bad || d == nil: // a domain that is not known here
			return errBadChunk
		case kind == rowCreated:
			b.rows = append(b.rows, rowState{rowCreated, int32(len(b.links))})
			b.links, b.doms = append(b.links, l), append(b.doms, d)
		case kind == rowReused:
			b.rows = append(b.rows, rowState{rowReused, int32(len(b.found))})
			b.found, b.fdoms = append(b.found, l), append(b.fdoms, d)
		default:
			return errBadChunk
		}
	}
	if r.bad || len(r.b) > 0 {
		return errBadChunk
	}
	b.count()
	b.render(p)
	return nil
}

func appendWireText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// wireReader reads what other processes send. What it returns points into b.
type wireReader struct {
	b   []byte
	bad bool // something was missing: all that was read since is zero
}

func (r *wireReader) byte() byte {
	if r.bad || len(r.b) == 0 {
		r.bad = true
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *wireReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if r.bad || n <= 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

// bytes reads a length and so many bytes.
func (r *wireReader) bytes() []byte {
	n := r.uvarint()
	if r.bad || n > uint64(len(r.b)) {
		r.bad = true
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *wireReader) text() string { return view(r.bytes()) }
