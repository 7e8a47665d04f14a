package export

import (
	"context"
	"errors"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/clicks"
)

// Source hands out pages of clicks. Analytics engines are sources.
type Source interface {
	Clicks(ctx context.Context, q analytics.Query, p analytics.Page) ([]clicks.Event, error)
}

// CopyOptions say what Copy reads.
type CopyOptions struct {
	After terse.ClickID // begin after this row; zero: with the newest
	Most  int64         // stop after so many rows; 0: all
	// Progress, if it is not nil, is called after every page with the rows so far. An error ends the copy.
	Progress func(rows int64) error
}

// How a page is asked for again while the engine is down, as during a restart of its process.
const (
	tries      = 8
	slowTries  = 2 // after ErrTooSlow, which is likely to come again
	firstPause = 100 * time.Millisecond
)

// ErrTooSlow matches the error of a query that did not finish within its deadline.
var ErrTooSlow = &terse.Error{Code: terse.CodeUnavailable, Reason: "query_timeout"}

// Copy writes the clicks of the query, newest first, to w and returns how many rows. It holds one
// page in memory. Clicks that arrive meanwhile are newer than what was read and are not
// written. The caller closes w.
func Copy(ctx context.Context, src Source, q analytics.Query, o CopyOptions, w Writer) (rows int64, err error) {
	p := analytics.Page{After: o.After, Limit: analytics.MaxClicks}
	for {
		if o.Most > 0 {
			p.Limit = int(min(int64(analytics.MaxClicks), o.Most-rows))
		}
		events, err := page(ctx, src, q, p)
		if err != nil {
			return rows, err
		}
		for i := range events {
			if err := w.Write(&events[i]); err != nil {
				return rows, err
			}
			rows++
		}
		if o.Progress != nil {
			if err := o.Progress(rows); err != nil {
				return rows, err
			}
		}
		if len(events) < p.Limit || rows == o.Most {
			return rows, nil
		}
		p.After = terse.ClickID(events[len(events)-1].ID)
	}
}

// page asks for one page, again while the engine is not available.
func page(ctx context.Context, src Source, q analytics.Query, p analytics.Page) (events []clicks.Event, err error) {
	pause := firstPause
	for i := 1; ; i++ {
		events, err = src.Clicks(ctx, q, p)
		if terse.ErrorCode(err) != terse.CodeUnavailable || i == tries || i >= slowTries && errors.Is(err, ErrTooSlow) || ctx.Err() != nil {
			return events, err
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil, ctx.Err()
		}
		pause *= 2
	}
}
