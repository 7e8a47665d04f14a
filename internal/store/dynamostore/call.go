package dynamostore

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"time"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/sleep"
)

// class is what the end of a request says about the table.
type class int

const (
	fine      class = iota
	condition       // a condition is not met; nothing was applied
	throttled       // over the capacity; nothing was applied
	contended       // another transaction holds an item; nothing was applied
	refused         // the request is wrong or not allowed; nothing was applied
	unsent          // the table was not reached
	unknown         // it may have been applied
)

// attemptTimeout ends one request that hangs; backoff is the first pause between two.
const (
	attemptTimeout = 10 * time.Second
	backoff        = 20 * time.Millisecond
	longestBackoff = 2 * time.Second
)

func classify(err error) class {
	if err == nil {
		return fine
	}
	if tx, ok := errors.AsType[*types.TransactionCanceledException](err); ok {
		return classifyReasons(tx.CancellationReasons)
	}
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		switch api.ErrorCode() {
		case "ConditionalCheckFailedException":
			return condition
		case "ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded", "ThrottlingError", "RequestThrottled":
			return throttled
		case "TransactionConflictException", "ReplicatedWriteConflictException":
			return contended
		case "TransactionInProgressException", "InternalServerError", "InternalServerErrorException", "ServiceUnavailable", "RequestTimeout":
			return unknown
		}
		if re, ok := errors.AsType[*awshttp.ResponseError](err); ok && re.HTTPStatusCode() >= 500 {
			return unknown
		}
		return refused
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return unsent
	}
	return unknown
}

// classifyReasons reads the reasons of a cancelled transaction one by one. A condition that is not met
// decides: repeating does not help against it.
func classifyReasons(reasons []types.CancellationReason) class {
	worst := unknown // no reason at all
	for _, r := range reasons {
		if r.Code == nil {
			continue
		}
		switch *r.Code {
		case "None":
		case "ConditionalCheckFailed":
			return condition
		case "ThrottlingError", "ProvisionedThroughputExceeded":
			worst = throttled
		case "TransactionConflict":
			if worst != throttled {
				worst = contended
			}
		default: // ValidationError, ItemCollectionSizeLimitExceeded
			return refused
		}
	}
	return worst
}

// failed returns the positions of the operations of a transaction whose condition is not met.
func failed(err error) []int {
	tx, ok := errors.AsType[*types.TransactionCanceledException](err)
	if !ok {
		return nil
	}
	var list []int
	for i, r := range tx.CancellationReasons {
		if r.Code != nil && *r.Code == "ConditionalCheckFailed" {
			list = append(list, i)
		}
	}
	return list
}

// outcome is how a request ended that did not do what it was asked to.
type outcome struct {
	class class
	// maybe says that an earlier attempt, or this one, may have been applied.
	maybe bool
	err   error
}

// call sends a request until it is answered, and at most for Options.RetryFor: it waits for
// its turn, and after throttling, conflicts and lost replies for a random time that doubles. Every
// request of this package can be repeated: it is a read, has a condition or overwrites with the same.
func call[T any](ctx context.Context, s *Store, send func(context.Context) (T, error)) (T, *outcome) {
	var (
		zero  T
		maybe bool
		began = time.Now()
		pause = backoff
	)
	for {
		if err := s.limit.acquire(ctx); err != nil {
			return zero, &outcome{class: unsent, maybe: maybe, err: err}
		}
		attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
		out, err := send(attempt)
		cancel()
		c := classify(err)
		s.limit.release(c == throttled)
		s.counters.requests.Add(1)
		switch c {
		case fine:
			return out, nil
		case condition, refused:
			return zero, &outcome{class: c, maybe: maybe, err: err}
		case unknown:
			maybe = true
		case throttled:
			s.counters.throttled.Add(1)
		case contended:
			s.counters.contended.Add(1)
		}
		if ctx.Err() != nil {
			return zero, &outcome{class: c, maybe: maybe, err: ctx.Err()}
		}
		if time.Since(began) > s.opts.RetryFor || s.closed.Load() {
			return zero, &outcome{class: c, maybe: maybe, err: err}
		}
		s.counters.retries.Add(1)
		if err := sleep.For(ctx, rand.N(pause)); err != nil {
			return zero, &outcome{class: c, maybe: maybe, err: err}
		}
		pause = min(2*pause, longestBackoff)
	}
}

// readErr is the error of a read that was not answered.
func (o *outcome) readErr(op string) error {
	if o.class == refused {
		return &terse.Error{Code: terse.CodeUnavailable, Message: "DynamoDB refused the request", Op: op, Err: o.err}
	}
	return &terse.Error{Code: terse.CodeUnavailable, Message: "DynamoDB cannot be reached now", Op: op, Err: o.err}
}

// writeErr is the error of a write that was not answered with yes; conditions are the caller's.
func (o *outcome) writeErr(op string) error {
	if o.maybe {
		return &terse.Error{Code: terse.CodeUnknownOutcome, Message: "DynamoDB did not say whether it applied the write", Op: op, Err: o.err}
	}
	return o.readErr(op)
}

// is reports whether the outcome is of one of the classes. A nil outcome is fine.
func (o *outcome) is(classes ...class) bool { return o != nil && slices.Contains(classes, o.class) }
