package analytics

import (
	"context"
	"sync"
	"time"

	"github.com/terselink/terse"
)

const (
	termsFor     = time.Minute            // what a workspace keeps is remembered
	termsRest    = 5 * time.Second        // after a failure nobody is asked
	termsTimeout = 500 * time.Millisecond // of a question
	termsMost    = 10_000                 // workspaces
)

// TermsFunc says how long a workspace keeps its clicks.
type TermsFunc func(ctx context.Context, w terse.WorkspaceID) (Terms, error)

// CachedTerms returns ask with a memory, for remarks to answers that must neither wait for the settings nor ask for them each
// time: terms are up to a minute old, an error up to five seconds, and a question takes half a second at most. What
// decides on clicks asks itself. It is safe for concurrent use.
func CachedTerms(ask TermsFunc, clock func() terse.Millis) TermsFunc {
	type known struct {
		terms Terms
		err   error
		until terse.Millis
	}
	var mu sync.Mutex
	cache := map[terse.WorkspaceID]known{}
	return func(ctx context.Context, w terse.WorkspaceID) (Terms, error) {
		now := clock()
		mu.Lock()
		k, ok := cache[w]
		mu.Unlock()
		if ok && now < k.until {
			return k.terms, k.err
		}
		asked, cancel := context.WithTimeout(ctx, termsTimeout)
		defer cancel()
		terms, err := ask(asked, w)
		if err != nil && ctx.Err() != nil {
			return Terms{}, err // whoever asked has gone, which says nothing of the settings
		}
		k = known{terms: terms, err: err, until: now + terse.Millis(termsFor.Milliseconds())}
		if err != nil {
			k.until = now + terse.Millis(termsRest.Milliseconds())
		}
		mu.Lock()
		defer mu.Unlock()
		if len(cache) >= termsMost {
			clear(cache)
		}
		cache[w] = k
		return terms, err
	}
}
