package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/auth"
	"github.com/terselink/terse/internal/export"
	"github.com/terselink/terse/internal/exports"
	"github.com/terselink/terse/internal/peers"
)

// Export is a file of clicks that is made in the background.
type Export struct {
	ID        string     `json:"id"`
	State     string     `json:"state" doc:"queued, running, done or failed."`
	Format    string     `json:"format"`
	From      time.Time  `json:"from"`
	To        time.Time  `json:"to"`
	Rows      int64      `json:"rows" doc:"Written so far."`
	Bytes     *int64     `json:"bytes" doc:"null before the end."`
	FileURL   *string    `json:"file_url" doc:"The path of the file on this control plane: whoever has it needs no key. Understands Range; null before the end."`
	Error     *string    `json:"error"`
	CreatedAt time.Time  `json:"created_at"`
	EndedAt   *time.Time `json:"ended_at"`
	ExpiresAt time.Time  `json:"expires_at" doc:"When the export and its file are deleted."`

	CompleteFrom *time.Time `json:"complete_from" doc:"Rows before it may be missing, because the workspace keeps clicks, or those of bots, for a shorter time; null: none are known to, or it has not begun."`
}

// NewExport is the body of a creation: the parameters of the list of clicks.
type NewExport struct {
	Format     string   `json:"format" doc:"ndjson, csv or parquet."`
	LinkID     string   `json:"link_id,omitempty" nullable:"true"`
	CampaignID string   `json:"campaign_id,omitempty" nullable:"true"`
	Domain     string   `json:"domain,omitempty" nullable:"true"`
	Tag        string   `json:"tag,omitempty" nullable:"true"`
	From       string   `json:"from,omitempty" nullable:"true"`
	To         string   `json:"to,omitempty" nullable:"true"`
	Period     string   `json:"period,omitempty" nullable:"true"`
	TZ         string   `json:"tz,omitempty" nullable:"true"`
	Bots       string   `json:"bots,omitempty" nullable:"true"`
	Filters    []string `json:"filters,omitempty" nullable:"true" doc:"Such as is,country,DE,AT."`
	All        bool     `json:"all,omitempty" nullable:"true" doc:"Every decision, whatever its outcome, of bots too unless bots says otherwise."`
	RawCSV     bool     `json:"raw_csv,omitempty" nullable:"true"`
}

type exportOutput struct {
	Location string `header:"Location"`
	Body     *Export
}

func (s *Server) registerExports() {
	register(s, operation{
		ID: "createExport", Method: http.MethodPost, Path: "/api/v1/exports", Tag: "Analytics", Scope: auth.ScopeAnalyticsRead, Status: http.StatusCreated,
		Summary: "Make a file of clicks in the background", Description: "It runs by itself, also over restarts of the server, and is kept for seven days.",
	}, s.createExport)
	register(s, operation{
		ID: "listExports", Method: http.MethodGet, Path: "/api/v1/exports", Tag: "Analytics", Scope: auth.ScopeAnalyticsRead, Status: http.StatusOK,
		Summary: "List exports, the newest first",
	}, s.listExports)
	register(s, operation{
		ID: "getExport", Method: http.MethodGet, Path: "/api/v1/exports/{id}", Tag: "Analytics", Scope: auth.ScopeAnalyticsRead, Status: http.StatusOK,
		Summary: "Get an export",
	}, s.getExport)
	register(s, operation{
		ID: "deleteExport", Method: http.MethodDelete, Path: "/api/v1/exports/{id}", Tag: "Analytics", Scope: auth.ScopeAnalyticsWrite, Status: http.StatusNoContent,
		Summary: "Delete an export and its file",
	}, s.deleteExport)
	s.mux.HandleFunc("GET /x/{workspace}/{id}/{token}", s.exportFile)
}

func (s *Server) exportManager() (*exports.Manager, error) {
	if s.o.Exports == nil {
		return nil, &terse.Error{Code: terse.CodeUnavailable, Reason: "analytics_disabled", Message: "this server records no analytics"}
	}
	return s.o.Exports, nil
}

func showExport(e *exports.Export) *Export {
	out := &Export{
		ID: e.ID, State: string(e.State), Format: string(e.Format), From: e.Query.From.Time(), To: e.Query.To.Time(), Rows: e.Rows, Error: orNull(e.Fault),
		CreatedAt: e.CreatedAt.Time(), EndedAt: timeOrNull(e.EndedAt), ExpiresAt: e.CreatedAt.Time().Add(exports.Keep), CompleteFrom: timeOrNull(e.CompleteFrom),
	}
	if e.State == exports.Done {
		out.Bytes = &e.Bytes
		out.FileURL = orNull("/x/" + e.Workspace.String() + "/" + e.ID + "/" + e.Token)
	}
	return out
}

func (s *Server) createExport(ctx context.Context, c *call, in *struct{ Body NewExport }) (*exportOutput, error) {
	m, err := s.exportManager()
	if err != nil {
		return nil, err
	}
	b := &in.Body
	format, err := export.ParseFormat(b.Format)
	if err != nil {
		return nil, err
	}
	q, err := s.queryOfBody(ctx, c, map[string]string{
		"link_id": b.LinkID, "campaign_id": b.CampaignID, "domain": b.Domain, "tag": b.Tag, "from": b.From, "to": b.To, "period": b.Period, "tz": b.TZ, "bots": b.Bots,
	}, b.Filters, b.All)
	if err != nil {
		return nil, err
	}
	e, err := m.Create(ctx, c.workspace, c.who.Subject, exports.NewExport{Query: q, Format: format, RawCSV: b.RawCSV},
		answerWith(c.idem, func(made exports.Export) (int, map[string]string, any, error) {
			return http.StatusCreated, map[string]string{"Location": exportLocation(&made)}, showExport(&made), nil
		}))
	if err != nil {
		return nil, err
	}
	return &exportOutput{Location: exportLocation(&e), Body: showExport(&e)}, nil
}

// queryOfBody is analyticsQuery for the clicks that a body names: parameters by their names in a URL, empty ones left out.
// The query can be stored.
func (s *Server) queryOfBody(ctx context.Context, c *call, parameters map[string]string, filters []string, all bool) (analytics.Query, error) {
	v := url.Values{}
	for name, value := range parameters {
		if value != "" {
			v.Set(name, value)
		}
	}
	if len(filters) > 0 {
		v["f"] = filters
	}
	if all {
		v.Set("all", "true")
	}
	c.query = v
	q, err := s.analyticsQuery(ctx, c)
	if err != nil {
		return q, fieldOfBody(err)
	}
	if q.Filters == nil {
		q.Filters = []analytics.Filter{}
	}
	return q, nil
}

// fieldOfBody gives an error of a query that was made from a body the name that its field has there.
func fieldOfBody(err error) error {
	e, ok := errors.AsType[*terse.Error](err)
	if !ok || e.Field != "f" {
		return err
	}
	mended := *e
	mended.Field = "filters"
	return &mended
}

func exportLocation(e *exports.Export) string { return "/api/v1/exports/" + e.ID }

func (s *Server) listExports(ctx context.Context, c *call, _ *struct{}) (*listOutput[*Export], error) {
	m, err := s.exportManager()
	if err != nil {
		return nil, err
	}
	list, err := m.List(ctx, c.workspace)
	if err != nil {
		return nil, err
	}
	out := &listOutput[*Export]{Body: List[*Export]{Data: make([]*Export, len(list))}}
	for i := range list {
		out.Body.Data[i] = showExport(&list[i])
	}
	return out, nil
}

func (s *Server) getExport(ctx context.Context, c *call, in *idPath) (*exportOutput, error) {
	m, err := s.exportManager()
	if err != nil {
		return nil, err
	}
	e, err := m.Get(ctx, c.workspace, in.ID)
	if err != nil {
		return nil, err
	}
	return &exportOutput{Body: showExport(&e)}, nil
}

func (s *Server) deleteExport(ctx context.Context, c *call, in *idPath) (*struct{}, error) {
	m, err := s.exportManager()
	if err != nil {
		return nil, err
	}
	return nil, m.Delete(ctx, c.workspace, in.ID)
}

// downloadTimeout bounds the download of a file of any size.
const downloadTimeout = 2 * time.Hour

// exportFile serves the file of an export to whoever has its URL.
func (s *Server) exportFile(w http.ResponseWriter, r *http.Request) {
	op, c := &operation{ID: "exportFile"}, callOf(r.Context())
	m, err := s.exportManager()
	if err != nil {
		s.refuse(w, c, toProblem(op, err))
		return
	}
	workspace, err := terse.ParseWorkspaceID(r.PathValue("workspace"))
	if err != nil {
		s.refuse(w, c, toProblem(op, terse.ErrNotFound))
		return
	}
	f, e, err := m.File(r.Context(), workspace, r.PathValue("id"), r.PathValue("token"))
	if there, ok := errors.AsType[*exports.OtherNodeError](err); ok && there.Node != "" && s.mayPassOn(r) {
		var t *peers.Target
		if t, err = s.target(r.Context(), there.Node, there); err == nil {
			s.passOn(w, r, c, op, t)
			return
		}
	}
	if err != nil {
		s.refuse(w, c, toProblem(op, err))
		return
	}
	defer f.Close()
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(downloadTimeout)) // writers without deadlines are fine
	h := w.Header()
	h.Set("Content-Type", e.Format.ContentType())
	h.Set("Content-Disposition", fmt.Sprintf(`attachment; filename="%s.%s"`, e.ID, e.Format))
	h.Set("X-Robots-Tag", "noindex, nofollow")
	h.Set("ETag", `"`+e.ID+`"`) // the file never changes
	http.ServeContent(w, r, "", time.Time{}, f)
}
