package duckdb

import (
	"context"
	"errors"
	"fmt"

	ddb "github.com/duckdb/duckdb-go/v2"
	"github.com/duckdb/duckdb-go/v2/mapping"
)

// writer is the one connection that writes. It is made with the lower level of the driver,
// because only that gives access to the memory of the chunks that are appended
// (appender), and an appender belongs to the transaction of its connection.
// Not safe for concurrent use.
type writer struct {
	db   mapping.Database
	conn mapping.Connection
	open bool
}

// connectWriter connects to the database of dsn, which is open in this process already: the
// driver's cache of instances hands out the same one. options are those that it was opened with.
func connectWriter(path string, options map[string]string) (*writer, error) {
	var config mapping.Config
	if mapping.CreateConfig(&config) == mapping.StateError {
		return nil, errors.New("create configuration")
	}
	defer mapping.DestroyConfig(&config)
	for name, value := range options {
		if mapping.SetConfig(config, name, value) == mapping.StateError {
			return nil, fmt.Errorf("configure %s=%s", name, value)
		}
	}
	w := &writer{}
	var message string
	if mapping.GetOrCreateFromCache(ddb.GetInstanceCache(), path, &w.db, config, &message) == mapping.StateError {
		mapping.Close(&w.db)
		return nil, errors.New(message)
	}
	if mapping.Connect(w.db, &w.conn) == mapping.StateError {
		mapping.Close(&w.db)
		return nil, errors.New("connect")
	}
	w.open = true
	return w, nil
}

// exec runs one statement. An argument is a string, an int64 or a uint64. The context is
// looked at before the statement, which is then run to its end.
func (w *writer) exec(ctx context.Context, query string, args ...any) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var result mapping.Result
	defer mapping.DestroyResult(&result)
	if len(args) == 0 {
		if mapping.Query(w.conn, query, &result) == mapping.StateError {
			return errors.New(mapping.ResultError(&result))
		}
		return nil
	}
	var st mapping.PreparedStatement
	defer mapping.DestroyPrepare(&st)
	if mapping.Prepare(w.conn, query, &st) == mapping.StateError {
		return errors.New(mapping.PrepareError(st))
	}
	for i, a := range args {
		n := mapping.IdxT(i + 1)
		var state mapping.State
		switch a := a.(type) {
		case string:
			state = mapping.BindVarchar(st, n, a)
		case int64:
			state = mapping.BindInt64(st, n, a)
		case uint64:
			state = mapping.BindUInt64(st, n, a)
		default:
			state = mapping.StateError
		}
		if state == mapping.StateError {
			return fmt.Errorf("bind parameter %d of type %T", n, a)
		}
	}
	if mapping.ExecutePrepared(st, &result) == mapping.StateError {
		return errors.New(mapping.ResultError(&result))
	}
	return nil
}

// close disconnects; the database closes with its last connection. Safe to call twice and on nil.
func (w *writer) close() {
	if w == nil || !w.open {
		return
	}
	w.open = false
	mapping.Disconnect(&w.conn)
	mapping.Close(&w.db)
}
