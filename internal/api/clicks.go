package api

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/auth"
	"github.com/terselink/terse/internal/export"
)

// ClickRow is one click; its fields are those of exports.
type ClickRow = export.Row

// clickParameters are the parameters of analytics that select clicks.
var clickParameters = []string{"link_id", "campaign_id", "domain", "tag", "from", "to", "period", "tz", "bots", "f", "all"}

var listClicks = operation{
	ID: "listClicks", Method: http.MethodGet, Path: "/api/v1/clicks", Tag: "Analytics", Scope: auth.ScopeAnalyticsRead, Status: http.StatusOK,
	Summary: "List clicks, newest first",
	Description: "The rows that the summary of the same parameters counts; all=true lists every decision, of people and bots. " +
		"With format=ndjson, csv or parquet all of them stream in one answer, which is cut if it breaks off. No row holds an address.",
	stream: true,
}

func (s *Server) registerClicks() {
	doc := s.mountRaw(listClicks, s.serveClicks)
	param := func(name, text string) {
		schema := &huma.Schema{Type: huma.TypeString}
		if name == "f" {
			schema = &huma.Schema{Type: huma.TypeArray, Items: &huma.Schema{Type: huma.TypeString}}
		}
		doc.Parameters = append(doc.Parameters, &huma.Param{Name: name, In: "query", Schema: schema, Description: text})
	}
	for _, name := range clickParameters {
		param(name, map[string]string{
			"all":  "true: every decision, whatever its outcome; bots are then included unless bots says otherwise.",
			"f":    "Filter, repeatable: is or not, a dimension, and its values.",
			"bots": "exclude (default), include or only.",
		}[name])
	}
	param("format", "ndjson, csv or parquet: all rows in one answer.")
	param("raw_csv", "true: values that a spreadsheet would run as a formula get no apostrophe.")
	param("limit", "Rows: 1 to 1,000 of a page, 50 if absent; of a stream any number, all if absent.")
	param("cursor", "next_cursor of the page before.")
	page := s.huma.OpenAPI().Components.Schemas.Schema(typeOf[List[ClickRow]](), true, "ClickList")
	text := &huma.Schema{Type: huma.TypeString}
	doc.Responses["200"] = &huma.Response{Description: "Clicks", Content: map[string]*huma.MediaType{
		typeJSON: {Schema: page}, typeNDJSON: {Schema: text}, typeCSV: {Schema: text}, export.Parquet.ContentType(): {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}},
	}, Headers: map[string]*huma.Param{completeFromHeader: {
		Schema: &huma.Schema{Type: huma.TypeString, Format: "date-time"}, Description: "Rows before it may be missing, because the workspace keeps clicks, or those of bots, for a shorter time; absent: none are known to.",
	}}}
	s.huma.OpenAPI().AddOperation(doc)
}

// clicksRequest is a request for rows.
type clicksRequest struct {
	query  analytics.Query
	format export.Format // "": a page
	raw    bool
	limit  int64 // 0: the default
	after  terse.ClickID
}

// readClicks reads the parameters of a request for rows.
func (s *Server) readClicks(ctx context.Context, c *call, v url.Values) (req clicksRequest, err error) {
	own := url.Values{}
	for _, name := range []string{"format", "raw_csv", "limit", "cursor"} {
		if len(v[name]) > 1 {
			return req, terse.Invalid(name, "is given more than once")
		}
		if v.Has(name) {
			own.Set(name, v.Get(name))
			v.Del(name)
		}
	}
	if own.Has("format") {
		if req.format, err = export.ParseFormat(own.Get("format")); err != nil {
			return req, err
		}
	}
	if req.raw, err = parseFlag("raw_csv", own.Get("raw_csv")); err != nil {
		return req, err
	}
	if own.Has("limit") {
		if req.limit, err = strconv.ParseInt(own.Get("limit"), 10, 64); err != nil || req.limit < 1 || req.format == "" && req.limit > 1000 {
			return req, terse.Invalid("limit", "a page has 1 to 1000 entries")
		}
	}
	if text := own.Get("cursor"); text != "" {
		if req.after, err = terse.ParseClickID(text); err != nil {
			return req, errBadCursor()
		}
	}
	if err := onlyParameters(v, clickParameters); err != nil {
		return req, err
	}
	c.query = v
	req.query, err = s.analyticsQuery(ctx, c)
	return req, err
}

// onlyParameters refuses parameters that are none of names.
func onlyParameters(v url.Values, names []string) error {
	for name, values := range v {
		if !slices.Contains(names, name) {
			return terse.Invalid(name, "there is no such parameter")
		}
		if len(values) > 1 && name != "f" { // filters may be many
			return terse.Invalid(name, "is given more than once")
		}
	}
	return nil
}

// serveClicks serves GET /api/v1/clicks.
func (s *Server) serveClicks(w http.ResponseWriter, r *http.Request) error {
	c := callOf(r.Context())
	req, err := s.readClicks(r.Context(), c, r.URL.Query())
	if err != nil {
		return err
	}
	if req.format == "" {
		return s.clickPage(w, r, req)
	}
	return s.clickFile(w, r, req)
}

// completeFromHeader says from when on rows are complete, where retention has taken some of the range.
const completeFromHeader = "Terse-Complete-From"

// sayComplete sets the header of an answer that has rows, if the workspace does not keep all clicks of the range one by
// one any more. While the settings cannot be read there is no header: rows do not wait for a remark.
func (s *Server) sayComplete(ctx context.Context, h http.Header, q analytics.Query) {
	if s.terms == nil {
		return
	}
	terms, err := s.terms(ctx, q.Workspace)
	if err != nil {
		s.o.Log.Debug("not known how long clicks are kept, so an answer is not said to be incomplete", "request_id", callOf(ctx).requestID, "error", err)
		return
	}
	if from := terms.CompleteFrom(q, s.o.Clock()); from != 0 {
		h.Set(completeFromHeader, from.Time().Format(time.RFC3339))
	}
}

func (s *Server) clickPage(w http.ResponseWriter, r *http.Request, req clicksRequest) error {
	ctx, cancel := context.WithTimeout(r.Context(), callTimeout)
	defer cancel()
	limit := 50
	if req.limit != 0 {
		limit = int(req.limit)
	}
	events, err := s.o.Analytics.Clicks(ctx, req.query, analytics.Page{After: req.after, Limit: limit})
	if err != nil {
		return err
	}
	out := List[ClickRow]{Data: make([]ClickRow, len(events))}
	for i := range events {
		out.Data[i] = export.RowOf(&events[i])
	}
	if len(events) == limit {
		out.NextCursor = &out.Data[limit-1].ID
	}
	s.sayComplete(ctx, w.Header(), req.query)
	w.Header().Set("Content-Type", typeJSON)
	if _, err := w.Write(mustMarshal(&out)); err != nil {
		panic(http.ErrAbortHandler)
	}
	return nil
}

// clickFile streams all rows. Its first page is read before the answer begins, so that what
// cannot be answered is a problem and no file.
func (s *Server) clickFile(w http.ResponseWriter, r *http.Request, req clicksRequest) error {
	rc := http.NewResponseController(w)
	started := false
	out := export.NewWriter(req.format, writerFunc(func(b []byte) (int, error) {
		if !started {
			started = true
			h := w.Header()
			s.sayComplete(r.Context(), h, req.query)
			h.Set("Content-Type", req.format.ContentType())
			h.Set("Content-Disposition", fmt.Sprintf(`attachment; filename="clicks.%s"`, req.format))
		}
		return w.Write(b)
	}), export.WriterOptions{RawCSV: req.raw})
	extend := func(int64) error {
		_ = rc.SetWriteDeadline(time.Now().Add(callTimeout)) // writers without deadlines are fine
		return nil
	}
	_ = extend(0)
	_, err := export.Copy(r.Context(), s.o.Analytics, req.query, export.CopyOptions{After: req.after, Most: req.limit, Progress: extend}, out)
	if err == nil {
		err = out.Close()
	}
	if err == nil && !started { // NDJSON without a row
		s.sayComplete(r.Context(), w.Header(), req.query)
		w.Header().Set("Content-Type", req.format.ContentType())
		w.WriteHeader(http.StatusOK)
	}
	if err != nil && (started || r.Context().Err() != nil) {
		s.o.Log.Info("export of clicks cut", "request_id", callOf(r.Context()).requestID, "error", err)
		panic(http.ErrAbortHandler)
	}
	return err
}

type writerFunc func(b []byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// totalsTimeout bounds what the click totals of a page of links may take: a list is not
// held up by analytics.
const totalsTimeout = 500 * time.Millisecond

// addTotals fills in the clicks of links with one query for all of them. They stay absent if
// analytics do not answer in time.
func (s *Server) addTotals(ctx context.Context, c *call, numbers []terse.LinkNumber, shown []*Link) {
	if s.o.Analytics == nil || len(numbers) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, totalsTimeout)
	defer cancel()
	totals, err := s.o.Analytics.LinkTotals(ctx, c.workspace, numbers)
	if err != nil {
		return // counted and logged by the engine
	}
	for i, n := range numbers {
		t := totals[n]
		shown[i].Clicks, shown[i].LastClickedAt = &t.Clicks, timeOrNull(t.Last)
	}
}
