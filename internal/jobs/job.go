package jobs

import (
	"crypto/rand"
	"encoding/binary"
	"strings"

	"github.com/terselink/terse"
)

// State is where a job is.
type State string

// The states. From queued a job goes to running; from there it ends, or goes back to
// queued when it has to wait. A job that has ended or is paused may be rolled back.
const (
	Queued     State = "queued"
	Running    State = "running"
	Paused     State = "paused"
	Done       State = "done"
	Failed     State = "failed"
	Cancelled  State = "cancelled"
	RolledBack State = "rolled_back"
)

// Ended reports whether nothing more happens by itself.
func (s State) Ended() bool {
	return s == Done || s == Failed || s == Cancelled || s == RolledBack
}

// Job is a job as it is stored.
type Job struct {
	ID        string            `json:"id"`
	Workspace terse.WorkspaceID `json:"workspace"`
	By        string            `json:"by"`            // id of the API key
	Node      string            `json:"node,omitzero"` // whose data folder has the upload; "": there was one node only
	// LostBy is the node that had the job, its upload and its files, when another one ended it: Node is that one since.
	LostBy string `json:"lost_by,omitzero"`
	Spec   Spec   `json:"spec"`
	State  State  `json:"state"`
	// RollingBack: what is queued or running is the rollback.
	RollingBack bool    `json:"rolling_back,omitzero"`
	Counts      Counts  `json:"counts"`
	Reached     float64 `json:"reached,omitzero"` // of the way, 0 to 1, when it last stopped
	Bytes       int64   `json:"bytes"`            // of the upload
	// Nodes are those that made the results of the last run, the node of the job first; none if it was that one alone.
	Nodes     []NodeRows   `json:"nodes,omitzero"`
	Report    *Report      `json:"report,omitzero"`
	Fault     *Fault       `json:"fault,omitzero"`    // why it failed, or waits
	Attempts  int          `json:"attempts,omitzero"` // failed in a row
	NotBefore terse.Millis `json:"not_before,omitzero"`
	Callback  *Callback    `json:"callback,omitzero"`
	CreatedAt terse.Millis `json:"created_at"`
	StartedAt terse.Millis `json:"started_at,omitzero"` // the first time
	EndedAt   terse.Millis `json:"ended_at,omitzero"`
	UpdatedAt terse.Millis `json:"updated_at"`
}

// NodeRows is how many rows of a job a node made the results of.
type NodeRows struct {
	Name string `json:"name"` // of the node, for people
	Rows uint64 `json:"rows"`
}

// Spec is what a job was asked to do.
type Spec struct {
	Upload       string            `json:"upload"`
	Format       string            `json:"format"`        // of the rows: ndjson, csv or json
	ResultFormat string            `json:"result_format"` // ndjson, csv or parquet
	Domain       string            `json:"domain,omitzero"`
	Campaign     terse.CampaignID  `json:"campaign,omitzero"`
	DryRun       bool              `json:"dry_run,omitzero"`
	Columns      map[string]string `json:"columns,omitzero"` // of a CSV file: its name -> the field, "" for one to leave out
}

// ErrorFormat is the form of the file of bad rows: that of the rows, as lines.
func (s *Spec) ErrorFormat() string {
	if s.Format == "csv" {
		return "csv"
	}
	return "ndjson"
}

// Counts say how far a job is. Rows is known once the file was read to its end.
type Counts struct {
	Rows       uint64 `json:"rows"`
	Done       uint64 `json:"done"` // rows with a result
	Created    uint64 `json:"created"`
	Reused     uint64 `json:"reused"`
	Failed     uint64 `json:"failed"`
	RolledBack uint64 `json:"rolled_back"`
}

// Report sums up the rows of a job.
type Report struct {
	Valid      uint64            `json:"valid"`
	Duplicates uint64            `json:"duplicates"` // rows with the external_id of an earlier one (dry runs only)
	Conflicts  uint64            `json:"conflicts"`  // rows whose code is taken, by a link or by an earlier row
	Invalid    map[string]uint64 `json:"invalid"`    // other rows without a link, by error code
	// DuplicateRows are the first of Duplicates.
	DuplicateRows []uint64 `json:"duplicate_rows,omitzero"`
}

// Fault says what went wrong.
type Fault struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Callback is a message about the end of a job.
type Callback struct {
	URL       string       `json:"url"`
	Secret    string       `json:"secret"`
	Delivery  string       `json:"delivery,omitzero"` // "", pending, delivered or failed
	Attempts  int          `json:"attempts,omitzero"`
	NextAt    terse.Millis `json:"next_at,omitzero"`
	LastError string       `json:"last_error,omitzero"`
}

// idDigits is Crockford's base 32: its byte order is its numeric order.
const idDigits = "0123456789abcdefghjkmnpqrstvwxyz"

// isID reports whether newID could have returned id.
func isID(prefix, id string) bool {
	digits, ok := strings.CutPrefix(id, prefix)
	return ok && len(digits) == 26 && strings.Trim(digits, idDigits) == ""
}

// idTime returns when an id of newID was made; otherwise, if it is none.
func idTime(prefix, id string, otherwise terse.Millis) terse.Millis {
	if !isID(prefix, id) {
		return otherwise
	}
	var at terse.Millis
	for _, digit := range []byte(id[len(prefix) : len(prefix)+timeDigits]) {
		at = at<<5 | terse.Millis(strings.IndexByte(idDigits, digit))
	}
	return at
}

// timeDigits is how many digits of an id hold its time: 48 bits, and two zero bits before them.
const timeDigits = 10

// firstID returns what no id that newID makes at a time or later is below.
func firstID(prefix string, at terse.Millis) string {
	out := []byte(prefix)
	for i := timeDigits - 1; i >= 0; i-- {
		out = append(out, idDigits[at>>(5*i)&31])
	}
	return string(out)
}

// newID returns prefix and 26 characters: 48 bits of time and 80 random ones, so ids sort
// by time and nobody guesses one.
func newID(prefix string, at terse.Millis) string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], uint64(at)<<16)
	rand.Read(b[6:]) // never fails: crypto/rand ends the process instead
	out := []byte(prefix)
	hi, lo := binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
	for i := 25; i >= 0; i-- {
		shift := uint(i * 5)
		var v uint64
		switch {
		case shift >= 64:
			v = hi >> (shift - 64)
		case shift > 59:
			v = lo>>shift | hi<<(64-shift)
		default:
			v = lo >> shift
		}
		out = append(out, idDigits[v&31])
	}
	return string(out)
}
