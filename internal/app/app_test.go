package app

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/terselink/terse"
)

// TestEndedByStop: a stop while the server waits for its database is an orderly one, whatever call it cuts off.
func TestEndedByStop(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		want bool
	}{
		{terse.ErrUnavailable, true},
		{terse.ErrUnknownOutcome, true},
		{&terse.Error{Code: terse.CodeUnknownOutcome, Message: "nobody knows", Err: context.Canceled}, true},
		{context.Canceled, true},
		{terse.ErrNotFound, false},
		{errors.New("the address is in use"), false},
	} {
		if got := endedByStop(fmt.Errorf("open store: %w", c.err)); got != c.want {
			t.Errorf("%v: %t", c.err, got)
		}
	}
}
