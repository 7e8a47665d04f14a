package enginetest_test

import (
	"testing"

	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/analytics/enginetest"
	"github.com/terselink/terse/internal/clicks"
)

// TestReference holds the oracle to the example that was counted by hand and to the identities.
func TestReference(t *testing.T) {
	enginetest.Run(t, enginetest.Options{
		New:     func(_ *testing.T, events []clicks.Event) analytics.Engine { return enginetest.NewReference(events) },
		Events:  5000,
		Queries: 200,
	})
}
