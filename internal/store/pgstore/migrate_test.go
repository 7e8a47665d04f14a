package pgstore

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/testengine"
)

// hurried is a store whose calls end soon.
func hurried(url string) Options {
	return Options{URL: url, StatementTimeout: 200 * time.Millisecond, CallTimeout: 2 * time.Second, MaintainEvery: -1}
}

// TestSlowMigration changes tables for longer than any other call may take, in one statement and in all of them, while
// another node waits.
func TestSlowMigration(t *testing.T) {
	for name, set := range map[string]func(url string) Options{
		"direct": hurried,
		"pooler": func(url string) Options {
			o := hurried(url)
			o.Pooler = true
			return o
		},
	} {
		t.Run(name, func(t *testing.T) {
			url := newDatabase(t, "")
			// One statement of the first migration takes longer than StatementTimeout and CallTimeout. Limits of the database are
			// those of its owner, who may want them for everything else.
			exec(t, url, `create function slow() returns event_trigger language plpgsql as 'begin perform pg_sleep(3); end'`,
				`create event trigger slow on ddl_command_start when tag in ('CREATE VIEW') execute function slow()`,
				`do $$ begin execute format('alter database %I set lock_timeout = ''200ms''', current_database()); end $$`)
			var nodes sync.WaitGroup
			for range 2 {
				nodes.Go(func() {
					s, err := Open(context.Background(), set(url))
					if err != nil {
						t.Errorf("Open: %v", err)
						return
					}
					if err := s.Close(); err != nil {
						t.Error(err)
					}
				})
			}
			nodes.Wait()
			open(t, Options{URL: url, ReadOnly: true}) // requires the tables of this version
		})
	}
}

// TestMigrationWait checks that the wait for a node that changes tables ends with its context, and with a server that went silent.
func TestMigrationWait(t *testing.T) {
	url := newDatabase(t, "")
	holder, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close(context.Background())
	if _, err := holder.Exec(t.Context(), "select pg_advisory_lock($1::bigint)", int64(migrationLock)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	began := time.Now()
	if _, err := Open(ctx, hurried(url)); !errors.Is(err, terse.ErrUnavailable) || ctx.Err() == nil {
		t.Errorf("Open ended after %v with %v, want that it waits until its context ends and is unavailable", time.Since(began), err)
	}
	p, through := testengine.NewProxy(t, url)
	ended := make(chan error, 1)
	go func() {
		_, err := Open(context.Background(), hurried(through))
		ended <- err
	}()
	waits := func() (n int) {
		if err := holder.QueryRow(t.Context(), "select count(*) from pg_locks where locktype = 'advisory' and not granted and database = (select oid from pg_database where datname = current_database())").
			Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for i := 0; waits() == 0; i++ {
		if i == 1200 {
			t.Fatal("nobody waits for the lock")
		}
		<-time.After(50 * time.Millisecond)
	}
	p.Hold()
	select {
	case err := <-ended:
		if !errors.Is(err, terse.ErrUnavailable) {
			t.Errorf("Open with a server that went silent: %v", err)
		}
	case <-time.After(time.Minute):
		t.Error("Open waits for a server that went silent")
		p.Pass()
		p.Drop()
		<-ended
	}
}
