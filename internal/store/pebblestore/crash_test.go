package pebblestore

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

var crashSeeds = flag.Int("crash.seeds", 0, "how many power cuts TestPowerCut makes (0: 60 with -short, else 300)")

// powerCut takes the state that a power cut would leave, once, just before the n-th operation
// on the file system, together with what the client knew at that moment.
type powerCut struct {
	mem     *vfs.MemFS
	ledger  *ledger
	left    atomic.Int64
	percent int
	seed    uint64

	once   sync.Once
	after  *vfs.MemFS
	knew   *ledger
	inside errorfs.Op
}

// MaybeError implements errorfs.Injector. It never injects an error.
func (p *powerCut) MaybeError(op errorfs.Op) error {
	if p.left.Add(-1) == 0 {
		p.cut(op)
	}
	return nil
}

func (p *powerCut) String() string { return "power cut" }

func (p *powerCut) cut(op errorfs.Op) {
	p.once.Do(func() {
		// At one moment: a call that began and ended in between would be in the state and not in what is known. No
		// writer holds the ledger while it writes.
		p.inside = op
		p.ledger.mu.Lock()
		defer p.ledger.mu.Unlock()
		p.knew = p.ledger.clone()
		p.after = p.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: p.percent, RNG: rand.New(rand.NewPCG(p.seed, 2))})
	})
}

// TestPowerCut runs two writers, cuts the power at a random operation on the file system, and
// compares what the next start finds with what was acknowledged. One time in three
// the next start is cut off, too.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	seeds := *crashSeeds
	if seeds == 0 {
		seeds = 300
		if testing.Short() {
			seeds = 60
		}
		if raceEnabled {
			seeds = 12
		}
	}
	for seed := range uint64(seeds) {
		if err := cutPower(seed); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

func cutPower(seed uint64) error {
	ctx := context.Background()
	r := rand.New(rand.NewPCG(seed, 1))
	p := &powerCut{mem: vfs.NewCrashableMem(), ledger: newLedger(), percent: []int{0, 50, 100}[r.IntN(3)], seed: seed}
	p.left.Store(1 + r.Int64N(600))
	s, err := Open("store", memOptions(errorfs.Wrap(p.mem, p)))
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	errs := make([]error, 2)
	for id := range errs {
		w := &writer{id: id, r: rand.New(rand.NewPCG(seed, uint64(10+id))), s: s, l: p.ledger}
		wg.Go(func() {
			for i := 0; i < 60 && errs[w.id] == nil && p.left.Load() > 0; i++ {
				errs[w.id] = w.step(ctx)
				if w.r.IntN(15) == 0 && errs[w.id] == nil {
					errs[w.id] = s.db.Flush()
				}
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	p.cut(errorfs.Op{Path: "end"})
	if err := s.Close(); err != nil {
		return err
	}

	mem := p.after
	if r.IntN(3) == 0 { // cut off the next start
		again := &powerCut{mem: mem, ledger: p.knew, percent: p.percent, seed: seed + 1}
		again.left.Store(1 + r.Int64N(60))
		s, err := Open("store", memOptions(errorfs.Wrap(mem, again)))
		if err != nil {
			return fmt.Errorf("first start after a cut before %v: %w", p.inside, err)
		}
		again.cut(errorfs.Op{Path: "end"})
		if err := s.Close(); err != nil {
			return err
		}
		mem = again.after
	}
	if s, err = Open("store", memOptions(mem)); err != nil {
		return fmt.Errorf("start after a cut before %v: %w", p.inside, err)
	}
	if err := p.knew.check(ctx, s); err != nil {
		return fmt.Errorf("after a cut before %v with %d %% of what was not synced: %w", p.inside, p.percent, err)
	}
	return s.Close()
}
