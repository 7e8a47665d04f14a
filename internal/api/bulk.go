package api

import (
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/negotiation"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/auth"
	"github.com/terselink/terse/internal/compress"
	"github.com/terselink/terse/internal/inflate"
	"github.com/terselink/terse/internal/links"
)

// bulkIdle is how long a bulk request may stand still: no byte of the body arrives, or
// no byte of the answer is taken.
const bulkIdle = 5 * time.Minute

// Types of bulk bodies and answers, in the order in which they are preferred.
const (
	typeNDJSON = "application/x-ndjson"
	typeCSV    = "text/csv"
	typeJSON   = "application/json"
)

var bulkTypes = []string{typeNDJSON, typeCSV, typeJSON}

var bulkFormats = map[string]links.Format{typeNDJSON: links.NDJSON, typeCSV: links.CSV, typeJSON: links.JSON}

var bulkOperation = operation{
	ID: "bulkLinks", Method: http.MethodPost, Path: "/api/v1/links/bulk", Tag: "Links", Scope: auth.ScopeLinksWrite, Status: http.StatusOK,
	Summary: "Create any number of links",
	Description: "The server answers while it reads: one result a row, in the order of the rows, each durable when it is sent. " +
		"A bad row is a result with an error. NDJSON and JSON answers end with a done record or a closing bracket, and every answer with the " +
		"trailers Terse-Created, Terse-Reused and Terse-Failed; an answer without them was cut. If the server cut it, the last line says why: " +
		"a record with done false and an error, in CSV one without an index.",
	Errors: []int{406, 409}, stream: true,
}

// registerBulk mounts the bulk operation. huma would read the whole body, so it only
// documents this one.
func (s *Server) registerBulk() {
	op := bulkOperation
	s.operations[op.ID] = &op
	s.mount(&op, s.bulk)

	doc := op.document()
	stringParam := func(name, in, description string) *huma.Param {
		return &huma.Param{Name: name, In: in, Description: description, Schema: &huma.Schema{Type: huma.TypeString}}
	}
	boolParam := func(name, description string) *huma.Param {
		return &huma.Param{Name: name, In: "query", Description: description, Schema: &huma.Schema{Type: huma.TypeBoolean}}
	}
	doc.Parameters = append(doc.Parameters,
		stringParam("domain", "query", "The host for rows that name none; without it the workspace's default."),
		stringParam("campaign_id", "query", "The campaign that the links join."),
		boolParam("atomic", "Creates nothing unless all rows are valid and free. The body is then bounded by the server's memory limit for it."),
		boolParam("dry_run", "Validates the rows and creates nothing."),
		boolParam("raw_csv", "Writes values to a CSV answer as they are, also those that a spreadsheet would run as a formula."),
		stringParam("Content-Encoding", "header", "gzip or zstd."),
		stringParam("Accept-Encoding", "header", "gzip or zstd compresses the answer, which still comes row by row."),
	)
	row := s.huma.OpenAPI().Components.Schemas.Schema(typeOf[NewLink](), true, "NewLink")
	result := s.huma.OpenAPI().Components.Schemas.Schema(typeOf[BulkResult](), true, "BulkResult")
	text := &huma.Schema{Type: huma.TypeString}
	doc.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
		typeNDJSON: {Schema: row}, typeCSV: {Schema: text}, typeJSON: {Schema: &huma.Schema{Type: huma.TypeArray, Items: row}},
	}}
	doc.Responses = map[string]*huma.Response{"200": {Description: "One result a row", Content: map[string]*huma.MediaType{
		typeNDJSON: {Schema: result}, typeCSV: {Schema: text}, typeJSON: {Schema: &huma.Schema{Type: huma.TypeArray, Items: result}},
	}}}
	problem := s.huma.OpenAPI().Components.Schemas.Schema(typeOf[Problem](), true, "Problem")
	for _, status := range doc.Errors {
		doc.Responses[strconv.Itoa(status)] = &huma.Response{
			Description: http.StatusText(status), Content: map[string]*huma.MediaType{"application/problem+json": {Schema: problem}},
		}
	}
	s.huma.OpenAPI().AddOperation(&doc)
}

// BulkResult is what became of one row; it documents what package links writes.
type BulkResult struct {
	Index      uint64     `json:"index" doc:"The row, from 0."`
	ShortURL   string     `json:"short_url,omitempty"`
	Code       string     `json:"code,omitempty"`
	ID         string     `json:"id,omitempty"`
	ExternalID string     `json:"external_id,omitempty"`
	Valid      bool       `json:"valid,omitempty" doc:"With dry_run: the link could be created."`
	Existing   bool       `json:"existing,omitempty" doc:"The link was there before (if_exists=reuse)."`
	Error      *ItemError `json:"error,omitempty" doc:"Why there is no link."`
}

// bulkRequest is a bulk request that was understood.
type bulkRequest struct {
	options links.BulkOptions
	outType string
}

// readBulk reads everything of a bulk request but its body.
func readBulk(r *http.Request) (*bulkRequest, error) {
	inType, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	in, ok := bulkFormats[canonicalType(inType)]
	if err != nil || !ok || params["charset"] != "" && !strings.EqualFold(params["charset"], "utf-8") {
		return nil, newProblem(http.StatusUnsupportedMediaType, "the body must be application/x-ndjson, text/csv or application/json, in UTF-8").
			header("Accept", strings.Join(bulkTypes, ", "))
	}
	req := &bulkRequest{options: links.BulkOptions{In: in}, outType: canonicalType(inType)}
	if accept := r.Header.Get("Accept"); accept != "" && accept != "*/*" {
		// Stands first, so that */* after something that is not offered means it.
		if req.outType = negotiation.SelectQValue(accept, append([]string{req.outType}, bulkTypes...)); req.outType == "" {
			p := newProblem(http.StatusNotAcceptable, "the answer can be application/x-ndjson, text/csv or application/json")
			return nil, p
		}
	}
	req.options.Out = bulkFormats[req.outType]
	if key := r.Header.Get(idempotencyHeader); key != "" {
		_, name, err := privateName(bearer(r.Header.Get("Authorization")), key)
		if err != nil {
			return nil, err
		}
		req.options.Ledger = name
	}
	for name, values := range r.URL.Query() {
		v := values[0]
		switch {
		case len(values) > 1:
			err = terse.Invalid(name, "is given more than once")
		case name == "domain":
			req.options.Domain = v
		case name == "campaign_id":
			if req.options.Campaign, err = terse.ParseCampaignID(v); err != nil || req.options.Campaign == 0 {
				err = &terse.Error{Code: terse.CodeNotFound, Field: "campaign_id", Message: "there is no such campaign"}
			}
		case name == "atomic":
			req.options.Atomic, err = parseFlag(name, v)
		case name == "dry_run":
			req.options.DryRun, err = parseFlag(name, v)
		case name == "raw_csv":
			req.options.RawCSV, err = parseFlag(name, v)
		default:
			err = terse.Invalid(name, "there is no such parameter")
		}
		if err != nil {
			return nil, err
		}
	}
	return req, nil
}

// canonicalType maps the other names that NDJSON goes by.
func canonicalType(t string) string {
	switch t {
	case "application/ndjson", "application/jsonl", "application/x-jsonlines":
		return typeNDJSON
	}
	return t
}

func parseFlag(name, v string) (bool, error) {
	switch v {
	case "true", "1":
		return true, nil
	case "false", "0", "":
		return false, nil
	}
	return false, terse.Invalid(name, "is true or false")
}

// bulk serves POST /api/v1/links/bulk: body in and results out at the same time.
func (s *Server) bulk(w http.ResponseWriter, r *http.Request) {
	s.serveBulk(w, r, callOf(r.Context()), 0)
}

// serveBulk makes links of the rows of the body, in a campaign if one is named.
func (s *Server) serveBulk(w http.ResponseWriter, r *http.Request, c *call, campaign terse.CampaignID) {
	req, err := readBulk(r)
	if err == nil && campaign != 0 {
		if req.options.Campaign != 0 && req.options.Campaign != campaign {
			err = terse.Invalid("campaign_id", "is not the campaign of the path")
		}
		req.options.Campaign = campaign
	}
	if err != nil {
		s.refuse(w, c, toProblem(c.op, err))
		return
	}
	rc := http.NewResponseController(w)
	// HTTP/1.1 would otherwise read the rest of the body before the first byte of the
	// answer. HTTP/2 is always full duplex and says that it cannot be asked to be.
	_ = rc.EnableFullDuplex()
	maxBytes := s.o.MaxBulkBytes
	if r.ContentLength > maxBytes {
		w.Header().Set("Connection", "close") // full duplex: nobody drains the body
		s.refuse(w, c, toProblem(c.op, errBodyTooLarge(maxBytes)))
		return
	}
	req.options.MaxBytes = maxBytes
	body, err := newBulkBody(r.Body, rc, r.Header.Get("Content-Encoding"))
	if err != nil {
		w.Header().Set("Connection", "close")
		s.refuse(w, c, toProblem(c.op, err))
		return
	}
	defer body.stop()
	out := newBulkWriter(w, r, req.outType)
	sum, err := s.o.Links.Bulk(r.Context(), c.actor(), req.options, body, out)
	s.endBulk(w, r, out, body.linger, sum, err)
}

// endBulk ends the answer of a bulk request: whole, as a problem, or cut. linger gives a client that still sends
// the time to read why.
func (s *Server) endBulk(w http.ResponseWriter, r *http.Request, out *bulkWriter, linger func(), sum links.BulkSummary, err error) {
	c := callOf(r.Context())
	gone := r.Context().Err() != nil // nobody waits for it
	s.metrics.bulk(sum)
	if err == nil {
		err = out.finish(sum)
	}
	if err == nil {
		return
	}
	if out.started || gone {
		// Too late for a status: an answer that breaks off is the sign of the error, and its last line says which.
		if !gone && out.fault(sum, bulkProblem(c.op, err)) == nil {
			linger()
		}
		s.o.Log.Info("bulk request cut", "request_id", c.requestID, "created", sum.Created, "reused", sum.Reused, "failed", sum.Failed, "error", err)
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Connection", "close") // what is left of the body is not read
	s.refuse(w, c, bulkProblem(c.op, err))
}

func errBodyTooLarge(limit int64) error {
	return &terse.Error{Code: terse.CodeTooLarge, Reason: "body_too_large", Message: fmt.Sprintf("the body is longer than %d bytes", limit)}
}

// bulkProblem translates an error of the whole request.
func bulkProblem(op *operation, err error) *Problem {
	rows, ok := errors.AsType[*links.RowsError](err)
	if !ok {
		if e, ok := errors.AsType[*terse.Error](err); ok && e.Field == "body" {
			stripped := *e
			stripped.Field = ""
			return toProblem(op, &stripped).at("body", e.Message)
		}
		return toProblem(op, err)
	}
	p := newProblem(http.StatusUnprocessableEntity, fmt.Sprintf("%d rows are not valid or not free; nothing was created", rows.Failed))
	p.Code = "rows_invalid"
	for _, row := range rows.Rows {
		location := "body[" + strconv.FormatUint(row.Index, 10) + "]"
		if row.Err.Field != "" {
			location += "." + row.Err.Field
		}
		p.at(location, row.Err.PublicCode()+": "+row.Err.Message)
	}
	return p
}

// bulkWriter sends results. It holds back what comes before the first flush, so that
// an error before the first result can still have a status of its own.
type bulkWriter struct {
	w           http.ResponseWriter
	rc          *http.ResponseController
	contentType string
	encoding    string           // of the answer, as package inflate names it
	encoder     *compress.Writer // nil without an encoding, and before start
	plain       bool             // no trailers: the rows are not results
	held        []byte
	started     bool
}

// newBulkWriter returns the writer of an answer that is compressed if the client wants that.
func newBulkWriter(w http.ResponseWriter, r *http.Request, contentType string) *bulkWriter {
	return &bulkWriter{
		w: w, rc: http.NewResponseController(w), contentType: contentType,
		encoding: compress.Accepted(strings.Join(r.Header.Values("Accept-Encoding"), ",")),
	}
}

// heldBack bounds what is held back.
const heldBack = 4096

func (b *bulkWriter) Write(p []byte) (int, error) {
	if !b.started && len(b.held)+len(p) <= heldBack {
		b.held = append(b.held, p...)
		return len(p), nil
	}
	if err := b.start(); err != nil {
		return 0, err
	}
	return b.write(p)
}

func (b *bulkWriter) write(p []byte) (int, error) {
	if b.encoder != nil {
		return b.encoder.Write(p)
	}
	return b.w.Write(p)
}

// Flush sends what was written.
func (b *bulkWriter) Flush() error {
	if err := b.start(); err != nil {
		return err
	}
	if b.encoder != nil {
		if err := b.encoder.Flush(); err != nil {
			return err
		}
	}
	return b.rc.Flush()
}

// start sends the header and what was held back, once, and gives the client time
// to take what is about to be written.
func (b *bulkWriter) start() error {
	_ = b.rc.SetWriteDeadline(time.Now().Add(bulkIdle)) // writers without deadlines are fine
	if b.started {
		return nil
	}
	b.started = true
	h := b.w.Header()
	h.Set("Content-Type", b.contentType)
	if b.contentType == typeCSV {
		h.Set("Content-Type", typeCSV+"; charset=utf-8; header=present")
	}
	if !b.plain {
		h.Set("Trailer", "Terse-Created, Terse-Reused, Terse-Failed")
	}
	h.Add("Vary", "Accept-Encoding")
	if b.encoding != inflate.Identity {
		h.Set("Content-Encoding", b.encoding)
		b.encoder = compress.New(b.encoding, b.w)
	}
	b.w.WriteHeader(http.StatusOK)
	held := b.held
	b.held = nil
	_, err := b.write(held)
	return err
}

// fault writes why an answer of results is not complete, and sends it.
func (b *bulkWriter) fault(sum links.BulkSummary, p *Problem) error {
	if _, err := b.write(links.AppendFault(nil, bulkFormats[b.contentType], sum, p.Code, p.Detail)); err != nil {
		return err
	}
	return b.Flush()
}

// end writes the last bytes of a complete answer. One that is cut goes without, so
// that decompressing it fails too.
func (b *bulkWriter) end() error {
	if err := b.start(); err != nil || b.encoder == nil {
		return err
	}
	return b.encoder.Close()
}

// finish ends a complete answer of results.
func (b *bulkWriter) finish(sum links.BulkSummary) error {
	if err := b.end(); err != nil {
		return err
	}
	h := b.w.Header()
	h.Set("Terse-Created", strconv.FormatUint(sum.Created, 10))
	h.Set("Terse-Reused", strconv.FormatUint(sum.Reused, 10))
	h.Set("Terse-Failed", strconv.FormatUint(sum.Failed, 10))
	return b.rc.Flush()
}
