package clickhouse

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"regexp"
	"strings"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/clicks"
)

// MostRows is the largest Options.MaxRows that a configuration may have: so many clicks, at most, were on their way when
// a process ended.
const MostRows = 1_000_000

// Options configure an Engine. Zero values mean the defaults named.
type Options struct {
	// URL is clickhouse://user:password@host:port/database?option=value with the native port, of one server.
	// Options are those of clickhouse-go, as secure=true.
	URL string
	// Source names the spool that this process reads; each spool has a place of its own in ingest_offsets.
	Source string
	// Spool is the folder of the spool. "": nothing is ingested, but from a Feed.
	Spool string
	// Enrich is how events are made of what is in it. A Feed has its own.
	Enrich clicks.EnrichSettings
	// Feed, if not nil and without a Spool, is called while the server can be used: it calls IngestFeed when this process may, and returns
	// when ctx has ended, or with what IngestFeed returned. It is called again after an error.
	Feed func(ctx context.Context, e *Engine) error

	QueryTimeout  time.Duration // of a question; default 10 s
	InsertTimeout time.Duration // of an insert; default 60 s. A round of maintenance has an hour
	MaxRows       int           // clicks of an insert at most, which are held in memory; default 32,768
	SweepLinks    int           // different links that make a sweep (analytics.Sweeps), at least 2; default analytics.SweepLinks; negative: none are looked for
	MaxConns      int           // connections for questions at most; default 8. There are workConns more for the rest
	Log           *slog.Logger  // default: discarded
	Clock         func() time.Time

	scopeRows, topValues int // of rollups
}

func (o *Options) defaults() {
	o.QueryTimeout = or(o.QueryTimeout, 10*time.Second)
	o.InsertTimeout = or(o.InsertTimeout, time.Minute)
	o.MaxRows = or(o.MaxRows, 32_768)
	o.SweepLinks = or(o.SweepLinks, analytics.SweepLinks)
	o.MaxConns = or(o.MaxConns, 8)
	o.scopeRows = or(o.scopeRows, 500)
	o.topValues = or(o.topValues, 10_000)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
}

func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// databaseName is what a database of ours may be called: it is written into statements.
var databaseName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)

// ParseURL reads the address of a server. Returns an error of code invalid that says what is wrong and never
// shows the password.
func ParseURL(address string) (*ch.Options, error) {
	u, err := url.Parse(address)
	switch {
	case err != nil:
		return nil, terse.Invalid("analytics.clickhouse.url", "is no URL such as clickhouse://user@host:9000/terse")
	case u.Scheme != "clickhouse":
		return nil, terse.Invalid("analytics.clickhouse.url", "begins with clickhouse:// and names the native port (9000, with TLS 9440)")
	case u.Host == "":
		return nil, terse.Invalid("analytics.clickhouse.url", "names no host")
	case strings.Contains(u.Host, ","):
		return nil, terse.Invalid("analytics.clickhouse.url", "names several hosts: the tables of Terse are on one server, and a second one would have other clicks")
	case u.Port() == "":
		return nil, terse.Invalid("analytics.clickhouse.url", "names no port: the native one is 9000, with TLS 9440")
	}
	o, err := ch.ParseDSN(address)
	if err != nil {
		return nil, terse.Invalid("analytics.clickhouse.url", "cannot be used: %s", strings.ReplaceAll(err.Error(), address, "the URL"))
	}
	if o.Auth.Database == "" {
		o.Auth.Database = "terse"
	}
	if !databaseName.MatchString(o.Auth.Database) {
		return nil, terse.Invalid("analytics.clickhouse.url", "the name of the database has other characters than letters, digits and _")
	}
	return o, nil
}

// workConns are the connections that questions do not use: one each for ingest, maintenance, facts and the status.
const workConns = 4

// dial returns so many connections of the options. Nothing is dialled yet. Without a database the user's own
// one is used, so that ours can be made.
func dial(o *Options, withDatabase bool, conns int) (ch.Conn, string, error) {
	c, err := ParseURL(o.URL)
	if err != nil {
		return nil, "", err
	}
	database := c.Auth.Database
	if !withDatabase {
		c.Auth.Database = ""
	}
	c.MaxOpenConns, c.MaxIdleConns = conns, conns
	c.ConnMaxLifetime = 10 * time.Minute
	c.DialTimeout = or(c.DialTimeout, 5*time.Second)
	c.ReadTimeout = max(o.InsertTimeout, o.QueryTimeout) + 5*time.Second
	c.BlockBufferSize = 4
	conn, err := ch.Open(c)
	if err != nil {
		return nil, "", fmt.Errorf("open clickhouse: %w", err)
	}
	return conn, database, nil
}
