package dynamostore

import (
	"context"
	"fmt"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/sleep"
)

// A claim makes one node the only user of the table: until nodes tell each other what changes, a second
// one would go on answering from what it has in memory. It is an item with the name of the owner, one of its process, and a number that
// rises. Whoever wants it watches the number; no clock of another machine is believed.

const (
	claimBeat = 3 * time.Second
	// claimDead is how long the number stands still before its owner counts as dead.
	claimDead = 12 * time.Second
	// releaseTimeout is how long a store that closes tries to give its claim back.
	releaseTimeout = 3 * time.Second
)

// SharedOwner is the owner of a table that several nodes use together, because they tell each other what they write: each
// claims it in this name and raises the same number. None gives it back: it lapses when the last one has gone.
const SharedOwner = "several nodes with redis.url"

var claimKey = single("!o")

// Claim takes the table for the owner, whom a restart gets it back for at once, and keeps it until Close. It
// waits for the owner before to be gone, and returns an error of code conflict if that one still lives after wait.
func (s *Store) Claim(ctx context.Context, owner string, wait time.Duration) error {
	const op = "claim the table"
	if err := s.enter(ctx, op); err != nil {
		return err
	}
	began, since := time.Now(), time.Now()
	var seen uint64
	var by string
	for {
		it, o := s.getItem(ctx, claimKey)
		if o != nil {
			return o.readErr(op)
		}
		if beat, who := getNum(it, "claim_beat"), getStr(it, "claim_owner"); beat != seen || who != by {
			seen, by, since = beat, who, time.Now()
		}
		if by == "" || by == owner || time.Since(since) >= claimDead {
			o := s.beat(ctx, owner, seen)
			if o == nil {
				break
			}
			if o.class != condition {
				return o.writeErr(op)
			}
			continue // somebody was faster, or an earlier attempt was applied
		}
		if time.Since(began) > wait {
			return &terse.Error{Code: terse.CodeConflict, Op: op, Message: fmt.Sprintf("the table belongs to the running node %s; one node may use it, or several that all have redis.url", by)}
		}
		if err := sleep.For(ctx, 500*time.Millisecond); err != nil {
			return &terse.Error{Code: terse.CodeUnavailable, Message: "the call was cancelled", Op: op, Err: err}
		}
	}
	s.goBackground(func(ctx context.Context) { s.keepClaim(ctx, owner, seen+1) })
	return nil
}

// beat raises the number that was seen.
func (s *Store) beat(ctx context.Context, owner string, seen uint64) *outcome {
	cond := "claim_beat = :s"
	values := item{":o": str(owner), ":r": str(s.run), ":n": num(seen + 1), ":s": num(seen)}
	if seen == 0 {
		cond = "attribute_not_exists(claim_beat)"
		delete(values, ":s")
	}
	_, o := s.update(ctx, claimKey, "SET claim_owner = :o, claim_run = :r, claim_beat = :n", cond, nil, values)
	return o
}

// keepClaim raises the number until the store closes, and gives the claim back then.
func (s *Store) keepClaim(ctx context.Context, owner string, beat uint64) {
	for sleep.For(ctx, claimBeat) == nil {
		switch o := s.beat(ctx, owner, beat); {
		case o == nil:
			beat++
		case o.class == condition:
			it, ro := s.getItem(ctx, claimKey)
			if ro != nil {
				continue
			}
			shared := owner == SharedOwner && getStr(it, "claim_owner") == owner
			if getStr(it, "claim_run") != s.run && !shared {
				close(s.lost)
				return
			}
			beat = getNum(it, "claim_beat") // an attempt whose reply was lost
		}
	}
	if owner == SharedOwner {
		return
	}
	// The context is over with the store; what is left to say is worth a moment.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.releaseFor)
	defer cancel()
	s.release(last)
}

// release gives the claim back: the number goes on, without an owner. It rises, so that a beat that Close cut off
// and that arrives after this finds a number it did not see and does not take the table again.
func (s *Store) release(ctx context.Context) {
	_, o := s.update(ctx, claimKey, "REMOVE claim_owner ADD claim_beat :one", "claim_run = :r", nil, item{":r": str(s.run), ":one": num(uint64(1))})
	if o != nil && o.class != condition {
		s.opts.Log.Warn("dynamodb: the claim of the table was not given back; a new node waits for it", "error", o.err)
	}
}

// Lost is closed when another node has taken the table over: this one was out of reach for too long, and must not
// go on answering from its memory.
func (s *Store) Lost() <-chan struct{} { return s.lost }
