package analytics

import (
	"context"
	"errors"
	"testing"

	"github.com/terselink/terse"
)

// TestCachedTerms: terms are asked for once a minute, after a failure once in five seconds, and of each workspace.
func TestCachedTerms(t *testing.T) {
	t.Parallel()
	now, asked := terse.Millis(1_000_000), 0
	var fail error
	terms := CachedTerms(func(ctx context.Context, w terse.WorkspaceID) (Terms, error) {
		asked++
		if _, ok := ctx.Deadline(); !ok {
			t.Error("a question without an end")
		}
		return Terms{Raw: int(w)}, errors.Join(fail, ctx.Err())
	}, func() terse.Millis { return now })
	for i, c := range []struct {
		wait  terse.Millis
		w     terse.WorkspaceID
		fail  error
		asked int // so far
	}{
		{0, 1, nil, 1}, {59_999, 1, nil, 1}, {0, 2, nil, 2}, {1, 1, terse.ErrUnavailable, 3}, {4_999, 1, terse.ErrUnavailable, 3}, {0, 2, nil, 3}, {1, 1, nil, 4}, {59_999, 1, nil, 4},
	} {
		now += c.wait
		fail = c.fail
		got, err := terms(t.Context(), c.w)
		if asked != c.asked || !errors.Is(err, c.fail) || err == nil && got.Raw != int(c.w) {
			t.Errorf("%d: %+v, %v, asked %d times, want %d", i, got, err, asked, c.asked)
		}
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := terms(gone, 3); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if got, err := terms(t.Context(), 3); err != nil || got.Raw != 3 {
		t.Errorf("after a caller that has gone: %+v, %v", got, err)
	}
}
