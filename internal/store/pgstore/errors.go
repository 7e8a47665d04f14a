package pgstore

import (
	"context"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/terselink/terse"
)

// The SQLSTATEs that are told apart.
const (
	stateUniqueViolation = "23505"
	stateSerialization   = "40001"
	stateDeadlock        = "40P01"
	stateCanceled        = "57014"
)

// sqlState returns the SQLSTATE of an error that the server sent, "" for any other.
func sqlState(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return ""
}

// violates reports whether the error is that of a unique key of one of the tables.
func violates(err error, tables ...string) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || e.Code != stateUniqueViolation {
		return false
	}
	for _, t := range tables {
		if e.TableName == t {
			return true
		}
	}
	return false
}

// again reports whether the server ended the transaction so that another could go on.
func again(err error) bool {
	s := sqlState(err)
	return s == stateDeadlock || s == stateSerialization
}

// lost reports whether the server, or a pooler in its name, ended the session: an error
// after which it is not known what became of a commit that was sent.
func lost(state string) bool {
	return strings.HasPrefix(state, "08") || strings.HasPrefix(state, "57P") || strings.HasPrefix(state, "58") || strings.HasPrefix(state, "XX")
}

// failure turns an error of the driver into one of the contract. sent says that the
// commit of the write had been sent.
func failure(ctx context.Context, op string, err error, sent bool) error {
	if _, ok := errors.AsType[*terse.Error](err); ok {
		return err
	}
	if _, ok := errors.AsType[*terse.AliasConflictError](err); ok {
		return err
	}
	e := &terse.Error{Code: terse.CodeUnavailable, Message: terse.ErrUnavailable.Message, Op: op, Err: err}
	if ctx.Err() != nil {
		e.Err = errors.Join(context.Cause(ctx), err)
		e.Message = "the database did not answer in time"
	}
	state := sqlState(err)
	switch {
	case sent && (state == "" || lost(state)): // pgconn.SafeToRetry does not know: a batch that lost its answer ends as "conn closed"
		e.Code, e.Message = terse.CodeUnknownOutcome, terse.ErrUnknownOutcome.Message
	case state == "", lost(state), again(err):
	case state == stateCanceled:
		e.Message = "the database took too long"
	case strings.HasPrefix(state, "53"): // too many connections, disk full
		e.Message = "the database is out of resources"
	case state == "25006": // a replica, or a server that is being switched over
		e.Message = "the database is read-only"
	case strings.HasPrefix(state, "28"), strings.HasPrefix(state, "3D"), state == "42501", state == "42P01", state == "3F000":
		e.Message = "the database refuses the server"
	default:
		e.Code, e.Message = terse.CodeInternal, ""
	}
	return e
}
