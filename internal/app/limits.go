package app

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/geo"
)

// cookieKeyID is the document that holds the key of cookies.
const cookieKeyID = "cookie-key"

// nodeSecretID is the document that holds what the nodes of an instance know, and nobody else: no edge node reads it.
const nodeSecretID = "node-secret"

// nodeSecret returns the secret from which follows what nodes sign for each other, and makes it for the first one that needs it.
func nodeSecret(ctx context.Context, store terse.Store) ([]byte, error) {
	return keyMadeOnce(ctx, store, nodeSecretID, "secret of the nodes")
}

// cookieKey returns the key that signs cookies of the redirect plane, and makes it on the
// first start. It is in the store, so that every node and every restart has the same.
func cookieKey(ctx context.Context, store terse.Store) ([]byte, error) {
	return keyMadeOnce(ctx, store, cookieKeyID, "cookie key")
}

// keyMadeOnce returns the key of 32 random bytes that a document of the instance holds.
func keyMadeOnce(ctx context.Context, store terse.Store, id, what string) ([]byte, error) {
	type record struct {
		Key []byte `json:"key"`
	}
	r, err := madeOnce(ctx, store, id, func() record {
		r := record{make([]byte, 32)}
		rand.Read(r.Key) // never fails
		return r
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	if len(r.Key) < 32 {
		return nil, &terse.Error{Code: terse.CodeInternal, Op: "read " + what, Message: "the key is damaged"}
	}
	return r.Key, nil
}

// madeOnce returns a document of the instance that fresh makes for the first node that needs it, and that stays.
func madeOnce[T any](ctx context.Context, store terse.Store, id string, fresh func() T) (record T, err error) {
	for range 2 {
		doc, err := store.GetDocument(ctx, 0, terse.KindMeta, id)
		if err == nil {
			if err := json.Unmarshal(doc.Data, &record); err != nil {
				return record, &terse.Error{Code: terse.CodeInternal, Message: "the document is damaged", Err: err}
			}
			return record, nil
		}
		if !errors.Is(err, terse.ErrNotFound) {
			return record, err
		}
		record = fresh()
		data, err := json.Marshal(record)
		if err != nil {
			return record, err
		}
		err = store.PutDocument(ctx, terse.Document{Kind: terse.KindMeta, ID: id, Version: 1, Data: data})
		if err == nil {
			return record, nil
		}
		if !errors.Is(err, terse.ErrExists) { // another node was first: read what it made
			return record, err
		}
	}
	return record, &terse.Error{Code: terse.CodeUnavailable, Message: "the document appears and disappears"}
}

// openPlaces opens the databases of places once, for rules and for clicks.
func (s *server) openPlaces() error {
	if s.places != nil {
		return nil
	}
	var err error
	s.places, err = geo.Open(geo.Options{CityPath: s.cfg.Geo.CityMMDB, ASNPath: s.cfg.Geo.ASNMMDB, Log: s.log})
	if err != nil {
		return fmt.Errorf("open places: %w", err)
	}
	s.runUntilStop("places", func(ctx context.Context) { s.places.Watch(ctx, time.Minute) })
	return nil
}
