package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/terselink/terse/internal/store/dynamostore"
	"github.com/terselink/terse/internal/store/metricstore"
)

// dynamoRetryFor is how long a request is repeated: visitors wait for it, and a bulk request repeats by chunk.
const dynamoRetryFor = 15 * time.Second

func (s *server) openDynamoDB(ctx context.Context) error {
	d := s.cfg.Store.DynamoDB
	cfg, err := dynamostore.LoadConfig(ctx, d.Region)
	if err != nil {
		return err
	}
	owner, err := nodeID(s.cfg.Data)
	if err != nil {
		return err
	}
	if s.shares() {
		owner = dynamostore.SharedOwner
	}
	o := dynamostore.Options{
		Table: d.Table, Config: cfg, Endpoint: d.Endpoint, MaxConcurrency: d.MaxConcurrency, KeepExpired: d.KeepExpired, RetryFor: dynamoRetryFor, Log: s.log,
	}
	if d.KeepExpired == 0 {
		o.KeepExpired = time.Nanosecond // 0 means the default there
	}
	late := s.networked()
	store, err := openPatiently(ctx, s, func() (*dynamostore.Store, error) { return dynamostore.Open(ctx, o) })
	if err != nil {
		return err
	}
	// Without change messages between nodes a second one would go on from what it has in memory. Until the claim nothing
	// is read that another node may change.
	if err := s.patiently(ctx, func() error { return store.Claim(ctx, owner, tableClaimWait) }); err != nil {
		return errors.Join(err, store.Close())
	}
	closed := make(chan struct{})
	s.onStop("claim of the table", func(context.Context) error { close(closed); return nil })
	go func() {
		select {
		case <-store.Lost():
			s.failed <- errors.New("another node has taken over the table: this one was out of its reach for too long")
		case <-closed:
		}
	}()
	s.registry.MustRegister(store.Collector())
	measured, err := metricstore.New(store, s.registry, time.Now)
	if err != nil {
		return errors.Join(err, store.Close())
	}
	s.engine.feed = store
	late.open(s.telling(measured), measured)
	return nil
}

// tableClaimWait is how long a start waits for a node that is going, or that has died elsewhere.
const tableClaimWait = 20 * time.Second

// nodeFile holds the name of the node in its data folder.
const nodeFile = "node"

// nodeID returns the id of the node that owns the data folder: the host, and what tells it from others there.
func nodeID(dir string) (string, error) {
	path := filepath.Join(dir, nodeFile)
	b, err := os.ReadFile(path)
	if err == nil && len(strings.TrimSpace(string(b))) > 0 {
		return strings.TrimSpace(string(b)), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read the name of the node: %w", err)
	}
	host, err := os.Hostname()
	if err != nil {
		host = "node"
	}
	name := host + "-" + strings.ToLower(rand.Text()[:8])
	if err := writeDurably(path, []byte(name+"\n")); err != nil { // jobs belong to it
		return "", fmt.Errorf("write the name of the node: %w", err)
	}
	return name, nil
}
