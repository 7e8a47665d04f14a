package clicks

import "context"

// Tail reads clicks as they are recorded, enriched, for a view that is not kept: what it
// reads is read by others too, and nothing waits for it. Repeat is not filled in. Not
// safe for concurrent use.
type Tail struct {
	reader   *Reader
	enricher *Enricher
	event    Event
}

// OpenTail returns a tail of the spool in dir that begins at from; Recorder.Position is the end of
// what was written.
func OpenTail(dir string, from Position, set EnrichSettings) (*Tail, error) {
	// One slot is the least that a repeat table has: a tail sees too little for repeats.
	enricher, err := NewEnricher(EnricherOptions{EnrichSettings: set, RepeatBytes: 1 << 12})
	if err != nil {
		return nil, err
	}
	reader, err := OpenReader(dir, from)
	if err != nil {
		return nil, err
	}
	return &Tail{reader: reader, enricher: enricher}, nil
}

// Next is Reader.Next with events, which are borrowed until fn returns.
func (t *Tail) Next(ctx context.Context, most int, fn func(*Event) error) (int, error) {
	return t.reader.Next(ctx, most, func(raw *Raw) error {
		t.enricher.Enrich(raw, &t.event)
		t.event.Repeat = false
		return fn(&t.event)
	})
}

// Wait returns when there may be more to read, or with the error of ctx.
func (t *Tail) Wait(ctx context.Context) error { return t.reader.Wait(ctx) }

// Close ends the tail.
func (t *Tail) Close() error { return t.reader.Close() }
