// Package sleep waits, and stops waiting when there is no more reason to.
package sleep

import (
	"context"
	"time"
)

// For returns nil after d, or the error of ctx as soon as that has ended.
func For(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
