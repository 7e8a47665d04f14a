package child

import (
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/analytics/duckdb"
	"github.com/terselink/terse/internal/bucket"
	"github.com/terselink/terse/internal/clicks"
)

// config is what the child is told on its standard input.
type config struct {
	Dir         string                `json:"dir"` // of the database
	RecordDir   string                `json:"record_dir"`
	SpoolDir    string                `json:"spool_dir"` // to read
	Socket      string                `json:"socket"`    // to listen on
	MemoryLimit int64                 `json:"memory_limit"`
	Threads     int                   `json:"threads"`
	WALBytes    int64                 `json:"wal_bytes"`
	Retention   duckdb.Retention      `json:"retention"`
	SweepLinks  int                   `json:"sweep_links"`
	Store       *bucket.Options       `json:"store"` // the record store; null: none
	Enrich      clicks.EnrichSettings `json:"enrich"`
	SetAside    bool                  `json:"set_aside"` // the file is unusable: begin a new one
}

// Exit codes of the child.
const (
	exitFailed   = 1  // anything else: its last log line says what
	exitCrashed  = 2  // of the Go runtime, when C++ code aborts or faults
	exitDamaged  = 65 // the file must be set aside
	exitUnusable = 66 // the file could not be opened
	exitStore    = 69 // the record store is needed to begin, and cannot be read
	exitLocked   = 75 // another process has the file
)

// opened is the line on standard output that says that the database is open and queries are answered.
const opened = "opened"

// maxBody bounds a message of either side: 10,000 link totals are below 1 MiB, 5,000 clicks
// with texts of the greatest length below 40.
const maxBody = 64 << 20

// wireQuery is analytics.Query with the zone by name.
type wireQuery struct {
	Workspace terse.WorkspaceID
	Scope     analytics.Scope
	From, To  terse.Millis
	Zone      string
	Interval  analytics.Interval
	By        analytics.Dimension
	Metric    analytics.Metric
	Bots      analytics.Bots
	Filters   []analytics.Filter
	Limit     int
	Search    string
	Currency  string
	Every     bool
}

func toWire(q analytics.Query) wireQuery {
	w := wireQuery{q.Workspace, q.Scope, q.From, q.To, "UTC", q.Interval, q.By, q.Metric, q.Bots, q.Filters, q.Limit, q.Search, q.Currency, q.Every}
	if q.Zone != nil {
		w.Zone = q.Zone.String()
	}
	return w
}

func (w wireQuery) query() (analytics.Query, error) {
	zone, err := time.LoadLocation(w.Zone)
	if err != nil {
		return analytics.Query{}, terse.Invalid("tz", "is not known to the analytics engine")
	}
	return analytics.Query{Workspace: w.Workspace, Scope: w.Scope, From: w.From, To: w.To, Zone: zone, Interval: w.Interval,
		By: w.By, Metric: w.Metric, Bots: w.Bots, Filters: w.Filters, Limit: w.Limit, Search: w.Search, Currency: w.Currency, Every: w.Every}, nil
}

// wireClicks asks for Clicks.
type wireClicks struct {
	Query wireQuery
	Page  analytics.Page
}

// wireFacts is the answer of FactsAt.
type wireFacts struct {
	Seq   uint64
	Known bool
}

// wireLinks asks for LinkTotals.
type wireLinks struct {
	Workspace terse.WorkspaceID
	Links     []terse.LinkNumber
}

// wireTotal is one link of the answer.
type wireTotal struct {
	Link  terse.LinkNumber
	Total analytics.LinkTotal
}

// wireStatus is analytics.Status and what only the supervisor reads.
type wireStatus struct {
	Status       analytics.Status
	Rejected     int64
	Recorded     clicks.Position // clicks before it are in the record
	Stored       clicks.Position // and in the record store, if there is one
	Mirror       duckdb.MirrorStatus
	RecordErrors int64 // failed attempts to move clicks into the record
	Quarantined  int64 // damaged places of the spool, since the child started
	Sweeps       int64 // found since the child started
}

// wireError is a terse.Error; the cause stays in the child's log and the text.
type wireError struct {
	Code    terse.Code
	Reason  string
	Message string
	Field   string
	Cause   string
}

func toWireError(err error) wireError {
	e, ok := errors.AsType[*terse.Error](err)
	if !ok {
		return wireError{Code: terse.CodeUnavailable, Message: "the analytics engine failed", Cause: err.Error()}
	}
	w := wireError{Code: e.Code, Reason: e.Reason, Message: e.Message, Field: e.Field}
	if e.Err != nil {
		w.Cause = e.Err.Error()
	}
	return w
}

func (w wireError) err() error {
	e := &terse.Error{Code: w.Code, Reason: w.Reason, Message: w.Message, Field: w.Field}
	if w.Cause != "" {
		e.Err = errors.New(w.Cause)
	}
	return e
}

func readJSON(r io.Reader, v any) error { return json.UnmarshalRead(io.LimitReader(r, maxBody), v) }

// writeAnswer writes an answer; clicks have a form of their own (events.go).
func writeAnswer(w http.ResponseWriter, status int, v any) {
	if events, ok := v.([]clicks.Event); ok {
		_, _ = w.Write(appendEvents(nil, events)) // fails if the parent has gone
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.MarshalWrite(w, v, json.OmitZeroStructFields(true)) // fails if the parent has gone
}
