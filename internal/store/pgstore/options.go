package pgstore

import (
	"log/slog"
	"time"
)

// Options configure a Store. URL is required.
type Options struct {
	// URL leads to the primary: postgres://user:password@host:port/database?sslmode=…
	URL string
	// ReplicaURL leads to a streaming replica that Store.Replica reads from. "": none.
	ReplicaURL string
	// ReadOnly opens tables that exist and are up to date, changes none, and refuses every write. Behind a
	// pooler it is this program alone that keeps to it.
	ReadOnly bool
	// MaxConns bounds the connections to the primary, and again to the replica. 0 means 16.
	MaxConns int
	// Pooler says that the URL leads to a pooler that hands out connections by the
	// transaction, such as PgBouncer: nothing is then kept on a connection.
	Pooler bool
	// CallTimeout ends a call whose context has no earlier deadline. 0 means 30 s.
	CallTimeout time.Duration
	// StatementTimeout is how long the server works on one statement. It is below
	// CallTimeout, so that a slow statement costs its caller an error and not the connection. 0 means 10 s.
	StatementTimeout time.Duration
	// ConnectTimeout bounds the opening of a connection. 0 means 5 s.
	ConnectTimeout time.Duration
	// FeedMaxAge is how long changes are kept. 0 means 24 hours.
	FeedMaxAge time.Duration
	// MaintainEvery is the pause between rounds of forgetting old changes. 0 means ten
	// minutes, negative never; then it is not measured either how long the feed is held up.
	MaintainEvery time.Duration
	// Log receives what happens in the background. nil discards it.
	Log *slog.Logger
}

func (o *Options) setDefaults() {
	if o.MaxConns == 0 {
		o.MaxConns = 16
	}
	if o.CallTimeout == 0 {
		o.CallTimeout = 30 * time.Second
	}
	if o.StatementTimeout == 0 {
		o.StatementTimeout = 10 * time.Second
	}
	if o.ConnectTimeout == 0 {
		o.ConnectTimeout = 5 * time.Second
	}
	if o.FeedMaxAge == 0 {
		o.FeedMaxAge = 24 * time.Hour
	}
	if o.MaintainEvery == 0 {
		o.MaintainEvery = 10 * time.Minute
	}
	if o.ReadOnly {
		o.MaintainEvery = -1
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

// Limits of one call.
const (
	maxPage   = 10_000 // the largest page of a listing
	scanLimit = 20_000 // links that one page looks at, at most
	tries     = 4      // of a transaction that met another one: deadlocks, conflicts that went away
)
