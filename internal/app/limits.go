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

// cookieKey returns the key that signs cookies of the redirect plane, and makes it on the
// first start. It is in the store, so that every node and every restart has the same.
func cookieKey(ctx context.Context, store terse.Store) ([]byte, error) {
	var record struct {
		Key []byte `json:"key"`
	}
	for range 2 {
		doc, err := store.GetDocument(ctx, 0, terse.KindMeta, cookieKeyID)
		if err == nil {
			if err := json.Unmarshal(doc.Data, &record); err != nil || len(record.Key) < 32 {
				return nil, &terse.Error{Code: terse.CodeInternal, Op: "read cookie key", Message: "the key is damaged", Err: err}
			}
			return record.Key, nil
		}
		if !errors.Is(err, terse.ErrNotFound) {
			return nil, fmt.Errorf("read cookie key: %w", err)
		}
		record.Key = make([]byte, 32)
		rand.Read(record.Key) // never fails
		data, err := json.Marshal(record)
		if err != nil {
			return nil, err
		}
		err = store.PutDocument(ctx, terse.Document{Kind: terse.KindMeta, ID: cookieKeyID, Version: 1, Data: data})
		if err == nil {
			return record.Key, nil
		}
		if !errors.Is(err, terse.ErrExists) { // another node was first: read what it made
			return nil, fmt.Errorf("keep cookie key: %w", err)
		}
	}
	return nil, &terse.Error{Code: terse.CodeUnavailable, Op: "read cookie key", Message: "the key appears and disappears"}
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
