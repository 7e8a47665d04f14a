package clicks

import (
	"context"
	"sync/atomic"
)

// EventReader reads the spool of this node and makes events of its records.
type EventReader struct {
	reader      *Reader
	enricher    *Enricher
	event       Event // reused: an event is borrowed until fn returns
	quarantined atomic.Int64
}

// OpenEvents returns a reader of the spool in dir that begins at from; see OpenReader.
func OpenEvents(dir string, from Position, set EnrichSettings) (*EventReader, error) {
	enricher, err := NewEnricher(EnricherOptions{EnrichSettings: set})
	if err != nil {
		return nil, err
	}
	reader, err := OpenReader(dir, from)
	if err != nil {
		return nil, err
	}
	return &EventReader{reader: reader, enricher: enricher}, nil
}

// Next calls fn with the events that follow Position; see Reader.Next. An event is borrowed until fn returns.
func (s *EventReader) Next(ctx context.Context, most int, fn func(*Event) error) (int, error) {
	n, err := s.reader.Next(ctx, most, func(raw *Raw) error {
		s.enricher.Enrich(raw, &s.event)
		return fn(&s.event)
	})
	s.quarantined.Store(int64(s.reader.Stats().Quarantined))
	return n, err
}

// Position returns the place after the last group that was handed out whole.
func (s *EventReader) Position() Position { return s.reader.Position() }

// Wait returns when there may be more, or with the error of ctx.
func (s *EventReader) Wait(ctx context.Context) error { return s.reader.Wait(ctx) }

// Close closes the reader.
func (s *EventReader) Close() error { return s.reader.Close() }

// Quarantined returns how many damaged places were met. It may be called at any time.
func (s *EventReader) Quarantined() int64 { return s.quarantined.Load() }
