package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/sleep"
)

// Answers of an engine that cannot answer.
var (
	errTimeout = &terse.Error{Code: terse.CodeUnavailable, Reason: "query_timeout",
		Message: "the query takes too long: use a shorter range or fewer filters, or try again when fewer queries run"}
	errDown = &terse.Error{Code: terse.CodeUnavailable, Reason: "analytics_down",
		Message: "analytics are not available at the moment; clicks are being recorded and will be counted"}
)

// Codes of ClickHouse's exceptions that mean something here.
const (
	codeTimeout    = 159
	codeTooSlow    = 160
	codeNoDatabase = 81
	codeExists     = 57
)

// exceptionCode returns the code of an exception of the server, 0 for any other error.
func exceptionCode(err error) int32 {
	if ex, ok := errors.AsType[*ch.Exception](err); ok {
		return ex.Code
	}
	return 0
}

// with returns a context for a statement: settings of the dialect and these, and an id if there is one.
func (e *Engine) with(ctx context.Context, id string, extra map[string]any) context.Context {
	s := ch.Settings{}
	if d := e.dialect.Load(); d != nil {
		maps.Copy(s, d.settings)
	}
	maps.Copy(s, extra)
	o := []ch.QueryOption{ch.WithSettings(s)}
	if id != "" {
		o = append(o, ch.WithQueryID(id))
	}
	return ch.Context(ctx, o...)
}

// within returns a context that ends after the time of an insert, unless it has a deadline already: maintenance and
// erasures do, because rollups of a large day and the removal of rows take longer.
func (e *Engine) within(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, e.o.InsertTimeout)
}

// exec runs a statement that returns nothing.
func (e *Engine) exec(ctx context.Context, text string) error {
	ctx, cancel := e.within(ctx)
	defer cancel()
	return e.conn.Exec(e.with(ctx, "", nil), text)
}

// scan runs a query and calls fn for every row.
func (e *Engine) scan(ctx context.Context, text string, fn func(row) error) error {
	return e.scanWith(ctx, text, nil, fn)
}

// question marks the context of what ask runs.
type question struct{}

// row is a row of an answer.
type row interface{ Scan(dst ...any) error }

func (e *Engine) scanWith(ctx context.Context, text string, settings map[string]any, fn func(row) error) (err error) {
	conn := e.conn
	if ctx.Value(question{}) != nil {
		conn = e.asking
	}
	rows, err := conn.Query(e.with(ctx, "", settings), text)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		if err := fn(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// number runs a query for one number.
func (e *Engine) number(ctx context.Context, text string) (n uint64, err error) {
	ctx, cancel := e.within(ctx)
	defer cancel()
	err = e.scan(ctx, text, func(r row) error { return r.Scan(&n) })
	return n, err
}

// ask runs fn, which asks a question, within the deadline, and makes its error one of the contract.
func (e *Engine) ask(ctx context.Context, op string, fn func(ctx context.Context) error) error {
	if e.dialect.Load() == nil {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%s: %w", op, err)
		}
		return errDown
	}
	began := time.Now()
	limited, cancel := context.WithTimeout(context.WithValue(ctx, question{}, true), e.o.QueryTimeout)
	defer cancel()
	err := limited.Err()
	if err == nil {
		err = fn(limited)
	}
	e.metrics.asked(op, time.Since(began), err)
	code := exceptionCode(err)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", op, errors.Join(ctx.Err(), err))
	case limited.Err() != nil, code == codeTimeout, code == codeTooSlow:
		return errTimeout
	case code == 0:
		down := *errDown
		down.Op, down.Err = op, err
		return &down
	}
	return &terse.Error{Code: terse.CodeUnavailable, Message: "the analytics engine failed", Op: op, Err: err}
}

// waitMutations waits until the mutations of a table are done. On 18.16 an ALTER returns before them. One that failed is an
// error at once: the server goes on trying it, and those behind it wait.
func (e *Engine) waitMutations(ctx context.Context, table string) error {
	for {
		n, reason, err := e.mutationsLeft(ctx, table)
		if err != nil || n == 0 {
			return err
		}
		if reason != "" {
			return fmt.Errorf("change of %s: %s", table, reason)
		}
		if err := sleep.For(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

func (e *Engine) mutationsLeft(ctx context.Context, table string) (n uint64, reason string, err error) {
	ctx, cancel := e.within(ctx)
	defer cancel()
	err = e.scan(ctx, e.dialect.Load().mutationsLeft(table), func(r row) error { return r.Scan(&n, &reason) })
	return n, reason, err
}

// mutate changes rows of a table and waits until it is done.
func (e *Engine) mutate(ctx context.Context, table, action string) error {
	if err := e.exec(ctx, e.dialect.Load().mutation(table, action)); err != nil {
		return err
	}
	return e.waitMutations(ctx, table)
}

// list joins the text of values.
func list[T any](values []T, text func(T) string) string {
	parts := make([]string, len(values))
	for i, v := range values {
		parts[i] = text(v)
	}
	return strings.Join(parts, ", ")
}
