package clicks

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/terselink/terse"
)

// SaltStore is what Share needs of a store: documents of kind KindSalt of the instance, one a day.
type SaltStore interface {
	ListDocuments(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, after string, limit int) ([]terse.Document, error)
	PutDocument(ctx context.Context, doc terse.Document) error
	DeleteDocument(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, id string, ifVersion uint64) error
}

// manySalts is more documents than there are salts: three, and those that nobody was there to delete.
const manySalts = 100

// Share makes the salts those of every machine that calls it with the same store, so that a visitor whom a load balancer sends
// to two of them is one visitor. Of a day the salt that is written first holds. A machine that cannot read the store has
// salts of its own until it can; then its visitors of that day count once more. Salts that are over are deleted
// from the store when they leave the file. Call it before the first click and every minute or so.
//
// Returns the error of the store; the next call finds out what an unknown outcome has done. The salts of the file stay usable.
func (s *FileSalts) Share(ctx context.Context, store SaltStore) error {
	if err := s.Maintain(); err != nil {
		return err
	}
	shared, err := s.readShared(ctx, store)
	if err != nil {
		return err
	}
	for day, salt := range s.Days() {
		if _, there := shared[day]; there || day < s.oldestDay() { // it ended since Maintain
			continue
		}
		err := store.PutDocument(ctx, terse.Document{Kind: terse.KindSalt, ID: day, Version: 1, Data: encodeSalt(salt)})
		switch {
		case err == nil:
			shared[day] = salt
		case errors.Is(err, terse.ErrExists): // another machine was quicker
			if shared, err = s.readShared(ctx, store); err != nil {
				return err
			}
		default:
			return fmt.Errorf("write the shared salt of %s: %w", day, err)
		}
	}
	return s.Adopt(shared)
}

// readShared returns the salts that are shared, by day, and deletes those that are over.
func (s *FileSalts) readShared(ctx context.Context, store SaltStore) (map[string][16]byte, error) {
	docs, err := store.ListDocuments(ctx, 0, terse.KindSalt, "", manySalts)
	if err != nil {
		return nil, fmt.Errorf("read shared salts: %w", err)
	}
	oldest := s.oldestDay()
	shared := make(map[string][16]byte, len(docs))
	for _, d := range docs {
		if d.ID < oldest {
			if err := store.DeleteDocument(ctx, 0, terse.KindSalt, d.ID, 0); err != nil && !errors.Is(err, terse.ErrNotFound) {
				return nil, fmt.Errorf("delete the shared salt of %s: %w", d.ID, err)
			}
			continue
		}
		if shared[d.ID], err = decodeSalt(d.Data); err != nil {
			return nil, fmt.Errorf("read the shared salt of %s: %w", d.ID, err)
		}
	}
	return shared, nil
}

// oldestDay is the first day whose salt is not over.
func (s *FileSalts) oldestDay() string { return dayName(dayOf(s.clock().Add(-saltGrace))) }

// A salt in a document is a JSON string of 32 hexadecimal digits.
func encodeSalt(salt [16]byte) []byte { return []byte(`"` + hex.EncodeToString(salt[:]) + `"`) }

func decodeSalt(data []byte) (salt [16]byte, err error) {
	if len(data) == 2+2*len(salt) {
		_, err = hex.Decode(salt[:], data[1:len(data)-1])
	}
	if err != nil || len(data) != 2+2*len(salt) {
		return salt, &terse.Error{Code: terse.CodeInternal, Message: "it is not 32 hexadecimal digits"}
	}
	return salt, nil
}
