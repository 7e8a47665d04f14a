package api

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/failpoint"
)

const (
	idempotencyHeader = "Idempotency-Key"
	// replayedHeader marks an answer that was given before.
	replayedHeader = "Idempotent-Replayed"
	// idempotencyKept is how long an answer is kept.
	idempotencyKept = 24 * time.Hour
	// idempotencyWait is how long a duplicate waits for the request under way.
	idempotencyWait = 10 * time.Second
)

// idempotency keeps the answers of POST requests that carry an Idempotency-Key.
//
// A success is kept, because it did something; an error is not, because it did
// nothing: the repetition is then executed afresh. The operation puts the record in the
// same atomic write as its effect (links, keys, workspaces, domains, campaigns, jobs, shares, exports and their schedules), so
// that a crash leaves both or neither. An upload is a file: it keeps the name of the key
// itself. Elsewhere (deletions, what is done to a job) a second execution changes nothing.
//
// A record is found by, and sealed with, a key derived from the API key that
// was presented: nobody else can find or read it, and answers that show a new
// key once do not lie in the store.
//
// The id of a record starts with the UTC day on which it was made, so that pruning
// reads nothing but what it deletes. A repetition looks at two days.
type idempotency struct {
	store terse.Store
	clock func() terse.Millis

	mu       sync.Mutex
	inFlight map[string]chan struct{} // closed when the request is done
}

// idemRequest is one request with an Idempotency-Key.
type idemRequest struct {
	i         *idempotency
	workspace terse.WorkspaceID
	seal      []byte // 32 bytes, of the API key presented
	name      string // of the Idempotency-Key under that API key
	request   string // what the request asks for, hashed with seal: a body may hold a password
	asks      []byte // method and URL
	body      []byte // of the request
	// stored says that the answer was put with the effect of the operation.
	stored bool
}

// idemRecord is a kept answer.
type idemRecord struct {
	Request   string            `json:"request"`
	ExpiresAt terse.Millis      `json:"expires_at"`
	Status    int               `json:"status"`
	Header    map[string]string `json:"header"`
	Body      []byte            `json:"body"` // nonce and AES-256-GCM of the body
}

// keptHeaders are the headers that belong to an answer, not to its transport.
var keptHeaders = []string{"Content-Type", "Etag", "Location"}

// privateName derives from the API key that was presented the key that seals records, and
// the name under which an Idempotency-Key is known: nobody without the API key can
// make either. Returns a problem if the Idempotency-Key is not acceptable.
func privateName(token, key string) (seal []byte, name string, err error) {
	bad := len(key) > 255
	for j := range len(key) {
		bad = bad || key[j] < ' ' || key[j] > '~'
	}
	if bad {
		return nil, "", newProblem(http.StatusUnprocessableEntity, "an Idempotency-Key has 1 to 255 printable ASCII characters").
			at("header."+idempotencyHeader, "has other than 1 to 255 printable ASCII characters")
	}
	if seal, err = hkdf.Key(sha256.New, []byte(token), nil, "terse idempotency 1", 32); err != nil {
		return nil, "", fmt.Errorf("derive idempotency key: %w", err)
	}
	mac := hmac.New(sha256.New, seal)
	mac.Write([]byte(key))
	return seal, hex.EncodeToString(mac.Sum(nil)), nil
}

func (i *idempotency) request(c *call, token, key string, r *http.Request, body []byte) (*idemRequest, error) {
	seal, name, err := privateName(token, key)
	if err != nil {
		return nil, err
	}
	q := &idemRequest{i: i, workspace: c.workspace, seal: seal, name: name, asks: fmt.Appendf(nil, "%s %s\n", r.Method, r.URL.RequestURI()), body: body}
	q.request = requestPrefix + q.sum(hmac.New(sha256.New, seal))
	return q, nil
}

// requestPrefix begins the hash of a request that nobody can guess without the API key. Records of before have a plain
// SHA-256.
const requestPrefix = "hmac-sha256:"

func (q *idemRequest) sum(h hash.Hash) string {
	h.Write(q.asks)
	h.Write(q.body)
	return hex.EncodeToString(h.Sum(nil))
}

// is reports whether the request is the one of a record.
func (q *idemRequest) is(rec *idemRecord) bool {
	if strings.HasPrefix(rec.Request, requestPrefix) {
		return rec.Request == q.request
	}
	return rec.Request == q.sum(sha256.New())
}

// begin makes the caller the only one on this node that handles the request, or
// waits for the one that does. done must be called if err is nil.
func (q *idemRequest) begin(ctx context.Context) (done func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, idempotencyWait)
	defer cancel()
	name := q.workspace.String() + q.name
	for {
		q.i.mu.Lock()
		busy, ok := q.i.inFlight[name]
		if !ok {
			mine := make(chan struct{})
			q.i.inFlight[name] = mine
			q.i.mu.Unlock()
			return func() {
				q.i.mu.Lock()
				delete(q.i.inFlight, name)
				q.i.mu.Unlock()
				close(mine)
			}, nil
		}
		q.i.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, errInProgress()
		}
	}
}

func errInProgress() error {
	return &terse.Error{Code: terse.CodeConflict, Reason: "idempotency_in_progress", Message: "a request with this Idempotency-Key is under way; try again"}
}

func errKeyReused() error {
	p := newProblem(http.StatusUnprocessableEntity, "the Idempotency-Key was used for another request").
		at("header."+idempotencyHeader, "was used for another request")
	p.Code = "idempotency_mismatch"
	return p
}

func day(t terse.Millis) string { return t.Time().Format("20060102") }

const dayMillis = terse.Millis(24 * 60 * 60 * 1000)

// find returns the kept answer; nil if there is none. Returns an error of code
// invalid if the key was used for another request.
func (q *idemRequest) find(ctx context.Context) (*idemRecord, error) {
	now := q.i.clock()
	for _, d := range []string{day(now), day(now - dayMillis)} {
		id := d + "-" + q.name
		doc, err := q.i.store.GetDocument(ctx, q.workspace, terse.KindIdempotency, id)
		if errors.Is(err, terse.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("find idempotency record: %w", err)
		}
		var rec idemRecord
		if err := json.Unmarshal(doc.Data, &rec); err != nil {
			return nil, fmt.Errorf("read idempotency record: %w", err)
		}
		if now >= rec.ExpiresAt {
			continue
		}
		if !q.is(&rec) {
			return nil, errKeyReused()
		}
		if rec.Body, err = q.open(id, rec.Body); err != nil {
			return nil, fmt.Errorf("open idempotency record: %w", err)
		}
		return &rec, nil
	}
	return nil, nil
}

// document returns the record of an answer.
func (q *idemRequest) document(status int, header map[string]string, body []byte) (terse.Document, error) {
	now := q.i.clock()
	id := day(now) + "-" + q.name
	aead, err := q.aead()
	if err != nil {
		return terse.Document{}, err
	}
	nonce := make([]byte, aead.NonceSize())
	rand.Read(nonce) // never fails: crypto/rand ends the process instead
	data, err := json.Marshal(idemRecord{
		Request: q.request, ExpiresAt: now + terse.Millis(idempotencyKept.Milliseconds()), Status: status, Header: header,
		Body: aead.Seal(nonce, nonce, body, []byte(id)),
	}, json.Deterministic(true))
	if err != nil {
		return terse.Document{}, fmt.Errorf("write idempotency record: %w", err)
	}
	return terse.Document{Workspace: q.workspace, Kind: terse.KindIdempotency, ID: id, Version: 1, Data: data}, nil
}

func (q *idemRequest) open(id string, sealed []byte) ([]byte, error) {
	aead, err := q.aead()
	if err != nil {
		return nil, err
	}
	n := aead.NonceSize()
	if len(sealed) < n {
		return nil, errors.New("the record is cut")
	}
	return aead.Open(nil, sealed[:n], sealed[n:], []byte(id))
}

func (q *idemRequest) aead() (cipher.AEAD, error) {
	block, err := aes.NewCipher(q.seal)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// answerWith returns a function that an operation hands to its atomic write: it
// makes the record of the answer that will be given. Nil without an Idempotency-Key.
func answerWith[T any](q *idemRequest, answer func(T) (status int, header map[string]string, body any, err error)) func(T) ([]terse.Document, error) {
	if q == nil {
		return nil
	}
	return func(v T) ([]terse.Document, error) {
		status, header, body, err := answer(v)
		if err != nil {
			return nil, err
		}
		b, err := marshal(body)
		if err != nil {
			return nil, err
		}
		header["Content-Type"] = "application/json"
		doc, err := q.document(status, header, b)
		if err != nil {
			return nil, err
		}
		q.stored = true
		return []terse.Document{doc}, nil
	}
}

// serveOnce serves a POST with an Idempotency-Key.
func (s *Server) serveOnce(w http.ResponseWriter, r *http.Request, c *call, body []byte, h http.HandlerFunc) {
	q, err := s.idem.request(c, bearer(r.Header.Get("Authorization")), r.Header.Get(idempotencyHeader), r, body)
	if err != nil {
		s.refuse(w, c, toProblem(c.op, err))
		return
	}
	done, err := q.begin(r.Context())
	if err != nil {
		s.refuse(w, c, toProblem(c.op, err))
		return
	}
	defer done()
	rec, err := q.find(r.Context())
	if err != nil {
		s.refuse(w, c, toProblem(c.op, err))
		return
	}
	if rec != nil {
		w.Header().Set(replayedHeader, "true")
		rec.send(w)
		return
	}
	c.idem = q
	a := &heldAnswer{header: w.Header()}
	h(a, r)
	if success := a.status >= 200 && a.status < 300; success && !q.stored {
		if err := q.keep(r.Context(), a); err != nil {
			// What was asked for is done: the answer must not deny it.
			s.o.Log.Warn("answer not kept for repetition", "request_id", c.requestID, "operation", c.op.ID, "error", err)
		}
	}
	if a.status == 0 {
		a.status = http.StatusOK // as net/http does for a handler that wrote nothing
	}
	failpoint.Hit(failpoint.AnswerStored)
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body.Bytes())
}

// keep stores an answer after the fact.
func (q *idemRequest) keep(ctx context.Context, a *heldAnswer) error {
	header := map[string]string{}
	for _, name := range keptHeaders {
		if v := a.header.Get(name); v != "" {
			header[name] = v
		}
	}
	doc, err := q.document(a.status, header, a.body.Bytes())
	if err != nil {
		return err
	}
	return q.i.store.PutDocument(context.WithoutCancel(ctx), doc)
}

func (rec *idemRecord) send(w http.ResponseWriter) {
	for name, v := range rec.Header {
		w.Header().Set(name, v)
	}
	w.WriteHeader(rec.Status)
	_, _ = w.Write(rec.Body)
}

// heldAnswer holds an answer back until it is kept.
type heldAnswer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *heldAnswer) Header() http.Header { return a.header }

func (a *heldAnswer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

func (a *heldAnswer) Write(b []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(b)
}

// SetReadDeadline lets huma set deadlines, which were set already.
func (a *heldAnswer) SetReadDeadline(time.Time) error { return nil }

// prune deletes records of a workspace that nobody can ask for any more. It reads no others.
func (i *idempotency) prune(ctx context.Context, w terse.WorkspaceID) error {
	oldest := day(i.clock() - dayMillis)
	for {
		docs, err := i.store.ListDocuments(ctx, w, terse.KindIdempotency, "", 500)
		if err != nil {
			return fmt.Errorf("prune idempotency records: %w", err)
		}
		if len(docs) == 0 {
			return nil
		}
		for _, doc := range docs {
			if d, _, _ := strings.Cut(doc.ID, "-"); d >= oldest {
				return nil
			}
			err := i.store.DeleteDocument(ctx, w, terse.KindIdempotency, doc.ID, 0)
			if err != nil && !errors.Is(err, terse.ErrNotFound) {
				return fmt.Errorf("prune idempotency records: %w", err)
			}
		}
	}
}
