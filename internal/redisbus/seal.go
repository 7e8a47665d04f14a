package redisbus

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Chunks and outcomes are signed, because Redis is no place of trust: who writes there must not make links. A signature is
// HMAC-SHA-256 under a key that follows from a secret in the store and the name of the queue, over what it is of and the parts, each behind
// its length (docs/redis.md). A chunk is bound to its run and its number, and an outcome to both; that a chunk is run twice, the
// ledger of the job sees to.

// macSize is the length of a signature.
const macSize = sha256.Size

// What is signed.
const (
	sealedChunk   = "chunk"
	sealedOutcome = "outcome"
)

// sealLabel tells the key from others that follow from the same secret.
const sealLabel = "terse jobs 1 "

type sealer struct{ key []byte }

func newSealer(secret []byte, queue string) (sealer, error) {
	return sealerFor(secret, sealLabel+queue)
}

func sealerFor(secret []byte, info string) (sealer, error) {
	key, err := hkdf.Key(sha256.New, secret, nil, info, sha256.Size)
	if err != nil {
		return sealer{}, fmt.Errorf("key of signatures: %w", err)
	}
	return sealer{key}, nil
}

// sign returns the signature of a chunk or an outcome, packed.
func (s sealer) sign(what, replies, number, packed string) string {
	h := hmac.New(sha256.New, s.key)
	var length [8]byte
	for _, part := range []string{what, replies, number, packed} {
		binary.BigEndian.PutUint64(length[:], uint64(len(part)))
		h.Write(length[:])
		h.Write([]byte(part))
	}
	return string(h.Sum(nil))
}

func (s sealer) verify(mac, what, replies, number, packed string) bool {
	return hmac.Equal([]byte(mac), []byte(s.sign(what, replies, number, packed)))
}

// refusals counts what was not signed by a node, and says so at most once a minute.
type refusals struct {
	log   *slog.Logger
	keys  string // whose
	count *prometheus.CounterVec

	mu   sync.Mutex
	said time.Time
	kept int // since then
}

const refusalsEvery = time.Minute

func newRefusals(log *slog.Logger) *refusals {
	return refusalsOf(log, "jobs", prometheus.CounterOpts{
		Name: "terse_job_chunks_refused_total", Help: "Chunks of jobs and outcomes that came through Redis and that no node of this instance has signed.",
	}, sealedChunk, sealedOutcome)
}

func refusalsOf(log *slog.Logger, keys string, o prometheus.CounterOpts, whats ...string) *refusals {
	r := &refusals{log: log, keys: keys, count: prometheus.NewCounterVec(o, []string{"what"})}
	for _, what := range whats {
		r.count.WithLabelValues(what)
	}
	return r
}

func (r *refusals) add(what string) {
	r.count.WithLabelValues(what).Inc()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kept++
	if !r.said.IsZero() && time.Since(r.said) < refusalsEvery {
		return
	}
	r.log.Error("somebody else writes to the keys of "+r.keys+" in redis: what no node has signed is refused", "what", what, "refused", r.kept)
	r.said, r.kept = time.Now(), 0
}
