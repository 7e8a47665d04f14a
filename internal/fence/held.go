package fence

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/sleep"
)

// ErrLost says that the lock is not held any more, so nothing was written.
var ErrLost = &terse.Error{Code: terse.CodePrecondition, Reason: "lock_lost", Message: "another process has taken over"}

// Held is a lock that this process has, or had. Its methods may be called from many goroutines.
type Held struct {
	k       *Keeper
	name    string
	run     string
	ctx     context.Context
	cancel  context.CancelCauseFunc
	done    chan struct{} // closed when the renewal has ended
	gone    atomic.Bool   // lost or given back
	expires *time.Timer
	version atomic.Uint64 // of the document

	turn  chan struct{} // one write of the document at a time; a channel, so that waiting ends with a context
	doubt bool          // nobody knows whether the last write was applied; of whoever has the turn
}

// Context ends when the lock is lost or given back; its cause is ErrLost then.
func (h *Held) Context() context.Context { return h.ctx }

// Token returns a number that is larger than that of every holder before.
func (h *Held) Token() uint64 { return h.version.Load() }

// enter waits for the turn to write. Returns the error of ctx if that ends first.
func (h *Held) enter(ctx context.Context) error {
	select {
	case h.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (h *Held) document(version uint64, l lock) (terse.Document, error) {
	data, err := json.Marshal(l, json.Deterministic(true))
	if err != nil {
		return terse.Document{}, fmt.Errorf("encode lock %s: %w", h.name, err)
	}
	return terse.Document{Kind: terse.KindLock, ID: h.name, Version: version, Data: data}, nil
}

// mine returns the document of this holder with a version.
func (h *Held) mine(version uint64) (terse.Document, error) {
	return h.document(version, lock{Holder: h.k.o.Holder, Run: h.run})
}

// take writes this holder into the lock whose version was seen.
func (h *Held) take(ctx context.Context, seen uint64) error {
	ctx, cancel := context.WithTimeout(ctx, h.k.o.Lease/3)
	defer cancel()
	doc, err := h.mine(seen + 1)
	if err != nil {
		return err
	}
	err = h.k.o.Store.PutDocument(ctx, doc)
	if err != nil {
		// If it was applied after all, this holder comes back to its own document after patience. That is rare.
		return fmt.Errorf("take lock %s: %w", h.name, err)
	}
	h.version.Store(doc.Version)
	return nil
}

// start renews the lock that was taken by a write that began at a time.
func (h *Held) start(began time.Time) {
	k := h.k
	k.held.WithLabelValues(h.name).Set(1)
	k.o.Log.Info("this node has a duty", "duty", h.name, "token", h.Token())
	h.expires = time.AfterFunc(time.Until(began.Add(k.o.Lease)), h.lose)
	go func() {
		defer close(h.done)
		for sleep.For(h.ctx, k.o.Lease/4) == nil {
			if err := h.renew(h.ctx, nil); err != nil && h.ctx.Err() == nil {
				k.o.Log.Warn("a lock was not renewed; tried again until it is lost", "lock", h.name, "error", err)
			}
		}
	}()
}

// lose ends the duty. It waits for nothing: a renewal may hang.
func (h *Held) lose() {
	if h.ctx.Err() != nil || !h.gone.CompareAndSwap(false, true) {
		return
	}
	h.k.held.WithLabelValues(h.name).Set(0)
	h.k.lost.WithLabelValues(h.name).Inc()
	h.k.o.Log.Warn("this node has lost a duty: another takes over", "duty", h.name)
	h.cancel(ErrLost)
}

// Write inserts a chunk together with the next version of the lock: both or nothing. So it is written only if nobody
// else has taken the lock since this process did. Returns ErrLost if somebody has, and what InsertLinks returns
// otherwise; after ErrUnknownOutcome the caller looks whether the chunk is there.
func (h *Held) Write(ctx context.Context, chunk *terse.Chunk) error { return h.renew(ctx, chunk) }

// renew raises the version of the lock, with a chunk if there is one: nil if this process still had it. Returns ErrLost.
func (h *Held) renew(ctx context.Context, chunk *terse.Chunk) error {
	store := h.k.o.Store
	if err := h.enter(ctx); err != nil {
		return err
	}
	defer func() { <-h.turn }()
	if h.gone.Load() {
		return ErrLost
	}
	if h.k.o.Alone {
		if chunk == nil {
			return nil
		}
		return store.InsertLinks(ctx, chunk)
	}
	began := time.Now()
	if chunk == nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, h.k.o.Lease/3)
		defer cancel()
	}
	if h.doubt {
		doc, l, err := h.k.read(ctx, h.name)
		if err != nil {
			return err
		}
		if l.Run != h.run {
			h.lose()
			return ErrLost
		}
		h.version.Store(doc.Version)
		h.doubt = false
	}
	doc, err := h.mine(h.Token() + 1)
	if err != nil {
		return err
	}
	if chunk == nil {
		err = store.PutDocument(ctx, doc)
	} else {
		fenced := terse.Chunk{Links: chunk.Links, Documents: append([]terse.Document{doc}, chunk.Documents...)}
		err = store.InsertLinks(ctx, &fenced)
	}
	if err == nil {
		h.version.Store(doc.Version)
		if h.expires.Stop() { // else it is being lost right now
			h.expires.Reset(time.Until(began.Add(h.k.o.Lease)))
		}
		return nil
	}
	if terse.ErrorCode(err) == terse.CodeUnavailable {
		return err
	}
	h.doubt = true
	if errors.Is(err, terse.ErrVersion) || errors.Is(err, terse.ErrExists) || terse.ErrorCode(err) == terse.CodeConflict {
		// Either the lock is somebody else's, or something in the chunk is in the way, or an earlier write was applied whose outcome nobody knew.
		_, l, rerr := h.k.read(ctx, h.name)
		if rerr == nil && l.Run != h.run {
			h.lose()
			return ErrLost
		}
	}
	return err
}

// releaseTimeout bounds how long giving a lock back may take.
const releaseTimeout = 2 * time.Second

// Release gives the lock back and returns when nothing renews it any more. A second call does nothing.
func (h *Held) Release() {
	h.cancel(ErrLost)
	<-h.done
	h.k.held.WithLabelValues(h.name).Set(0)
	if !h.gone.CompareAndSwap(false, true) || h.k.o.Alone {
		return
	}
	h.expires.Stop()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(h.ctx), releaseTimeout)
	defer cancel()
	if h.enter(ctx) != nil {
		return // a write hangs
	}
	defer func() { <-h.turn }()
	if h.doubt {
		doc, l, err := h.k.read(ctx, h.name)
		if err != nil || l.Run != h.run {
			return
		}
		h.version.Store(doc.Version)
	}
	doc, err := h.document(h.Token()+1, lock{})
	if err == nil {
		err = h.k.o.Store.PutDocument(ctx, doc)
	}
	if err != nil {
		h.k.o.Log.Info("a lock was not given back; the next holder waits for it", "lock", h.name, "error", err)
	}
}
