package terse

import (
	"errors"
	"fmt"
)

// Code classifies an error for every layer. internal/api maps each to one HTTP
// status; refinements that programs see (alias_taken) are Error.Reason.
type Code string

// The codes. Every write that fails says whether it was not applied (all codes
// but one) or may have been (CodeUnknownOutcome).
const (
	CodeInvalid        Code = "invalid"         // the input breaks a rule; Field names it
	CodeNotFound       Code = "not_found"       // known not to exist, or not visible to the caller
	CodeConflict       Code = "conflict"        // something else holds the name
	CodeGone           Code = "gone"            // existed and has ended
	CodeUnauthorized   Code = "unauthorized"    // no key, or a wrong one
	CodeForbidden      Code = "forbidden"       // the key lacks the scope
	CodeRateLimited    Code = "rate_limited"    // too many requests
	CodeTooLarge       Code = "too_large"       // a body or a field is over its limit
	CodePrecondition   Code = "precondition"    // the version the caller saw is not the current one
	CodeUnavailable    Code = "unavailable"     // a dependency is down; nothing was applied
	CodeUnknownOutcome Code = "unknown_outcome" // a write may or may not have been applied
	CodeInternal       Code = "internal"        // a defect
)

// Error is the error of every layer. Message is safe to show to the caller; Err
// is for the log.
type Error struct {
	Code    Code
	Reason  string // public refinement of Code, such as "alias_taken"; "" means Code itself
	Message string // for people; never holds a secret
	Field   string // the input field at fault, such as "destination"; "" if none
	Op      string // the operation that failed, lower case; "" if it adds nothing
	Err     error
}

// Error implements error.
func (e *Error) Error() string {
	s := e.Message
	if s == "" {
		s = string(e.Code)
	}
	if e.Field != "" {
		s = e.Field + ": " + s
	}
	if e.Op != "" {
		s = e.Op + ": " + s
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is an *Error of the same code that names no more
// than a code and a reason, so that errors.Is(err, ErrNotFound) matches every not_found.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	if !ok || t.Code != e.Code || t.Err != nil || t.Field != "" {
		return false
	}
	return t.Reason == "" || t.Reason == e.Reason
}

// PublicCode is the code that programs see: the reason if there is one.
func (e *Error) PublicCode() string {
	if e.Reason != "" {
		return e.Reason
	}
	return string(e.Code)
}

// Sentinels for the outcomes that callers test for with errors.Is. Stores return them
// as they are or wrapped.
var (
	// ErrNotFound: the thing is known not to exist.
	ErrNotFound = &Error{Code: CodeNotFound, Message: "not found"}
	// ErrVersion: the stored version differs from the one the caller saw; nothing was written.
	ErrVersion = &Error{Code: CodePrecondition, Message: "the version has changed"}
	// ErrExists: a document of that name exists; nothing was written.
	ErrExists = &Error{Code: CodeConflict, Message: "exists already"}
	// ErrSpaceFull: a lease would pass the cap of the space; the domain must grow.
	ErrSpaceFull = &Error{Code: CodeConflict, Reason: "space_full", Message: "the code space is full"}
	// ErrAliasTaken: the alias, or the code it looks like, is taken.
	ErrAliasTaken = &Error{Code: CodeConflict, Reason: "alias_taken", Field: "", Message: "the code is taken"}
	// ErrUnavailable: the store cannot be reached; nothing was written.
	ErrUnavailable = &Error{Code: CodeUnavailable, Message: "temporarily unavailable"}
	// ErrUnknownOutcome: the write may or may not have been applied. Callers
	// repeat it with the same keys, which is safe.
	ErrUnknownOutcome = &Error{Code: CodeUnknownOutcome, Message: "the outcome of the write is not known"}
)

// Invalid returns an error of code invalid for a field.
func Invalid(field, format string, args ...any) *Error {
	return &Error{Code: CodeInvalid, Field: field, Message: fmt.Sprintf(format, args...)}
}

// ErrorCode returns the code of err: CodeInternal for errors that are not ours.
func ErrorCode(err error) Code {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	if _, ok := errors.AsType[*AliasConflictError](err); ok {
		return CodeConflict
	}
	if _, ok := errors.AsType[*ForgottenError](err); ok {
		return CodeGone
	}
	return CodeInternal
}

// AliasConflictError says which links of a chunk could not be inserted because
// their alias is taken, or because their number is: nothing of the chunk was written.
type AliasConflictError struct {
	Rows []int // indexes into Chunk.Links, ascending
}

// Error implements error.
func (e *AliasConflictError) Error() string {
	return fmt.Sprintf("%d aliases of the chunk are taken", len(e.Rows))
}

// Is makes errors.Is(err, ErrAliasTaken) true.
func (e *AliasConflictError) Is(target error) bool { return target == error(ErrAliasTaken) }

// ForgottenError says that a position in the feed of changes is below its floor: what followed it may have been forgotten.
type ForgottenError struct {
	Floor uint64 // the lowest position after which no change is missing
}

// Error implements error.
func (e *ForgottenError) Error() string {
	return fmt.Sprintf("changes were forgotten: the feed is whole after %d", e.Floor)
}

// Message returns the part of err that may be shown to the caller: the message of
// an *Error, "internal error" for anything else.
func Message(err error) string {
	if e, ok := errors.AsType[*Error](err); ok && e.Message != "" {
		return e.Message
	}
	return "internal error"
}
