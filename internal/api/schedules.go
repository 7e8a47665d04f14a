package api

import (
	"context"
	"net/http"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/auth"
	"github.com/terselink/terse/internal/export"
	"github.com/terselink/terse/internal/exports"
)

// ExportSchedule exports the clicks of every hour or day into a bucket.
type ExportSchedule struct {
	ID         string     `json:"id"`
	Name       string     `json:"name"`
	Every      string     `json:"every" doc:"hourly or daily, of UTC."`
	Format     string     `json:"format"`
	Prefix     string     `json:"prefix" doc:"What the names of its objects begin with, after the prefix of the server and the id of the workspace."`
	State      string     `json:"state" doc:"active; failing: the last attempt did not succeed, and another follows at retry_at; paused."`
	NextFrom   time.Time  `json:"next_from" doc:"The beginning of the next hour or day: those before it are exported."`
	Objects    int64      `json:"objects" doc:"Made so far."`
	LastObject *string    `json:"last_object"`
	LastRows   *int64     `json:"last_rows"`
	LastAt     *time.Time `json:"last_at"`
	Again      int64      `json:"again" doc:"How often an object was made again, for clicks of its time that were counted later."`
	LastAgain  *string    `json:"last_again" doc:"The object that was made again last."`
	AgainAt    *time.Time `json:"again_at"`
	Incomplete int64      `json:"incomplete" doc:"Objects that lack clicks, because the workspace did not keep all of their time any more when they were made."`
	Attempts   int        `json:"attempts" doc:"That failed since the last success."`
	Error      *string    `json:"error"`
	RetryAt    *time.Time `json:"retry_at"`
	CreatedAt  time.Time  `json:"created_at"`
}

// NewExportSchedule is the body of a creation.
type NewExportSchedule struct {
	Name       string   `json:"name,omitempty" nullable:"true"`
	Every      string   `json:"every" doc:"hourly or daily, of UTC."`
	Format     string   `json:"format" doc:"ndjson, csv or parquet."`
	Prefix     string   `json:"prefix,omitempty" nullable:"true" doc:"Default: the id."`
	From       string   `json:"from,omitempty" nullable:"true" doc:"A time in the first hour or day. Default: now."`
	LinkID     string   `json:"link_id,omitempty" nullable:"true"`
	CampaignID string   `json:"campaign_id,omitempty" nullable:"true"`
	Domain     string   `json:"domain,omitempty" nullable:"true"`
	Tag        string   `json:"tag,omitempty" nullable:"true"`
	Bots       string   `json:"bots,omitempty" nullable:"true"`
	Filters    []string `json:"filters,omitempty" nullable:"true" doc:"Such as is,country,DE,AT."`
	All        bool     `json:"all,omitempty" nullable:"true" doc:"Every decision, whatever its outcome, of bots too unless bots says otherwise."`
	RawCSV     bool     `json:"raw_csv,omitempty" nullable:"true"`
}

// ExportScheduleChange is the body of a change.
type ExportScheduleChange struct {
	State string `json:"state" doc:"active or paused. One that goes on makes up for what it missed."`
}

type exportScheduleOutput struct {
	Location string `header:"Location"`
	Body     *ExportSchedule
}

func (s *Server) registerExportSchedules() {
	register(s, operation{
		ID: "createExportSchedule", Method: http.MethodPost, Path: "/api/v1/exports/schedules", Tag: "Analytics", Scope: auth.ScopeAnalyticsWrite, Status: http.StatusCreated,
		Summary: "Export clicks into a bucket every hour or day",
		Description: "One object an hour or day, also if there were no clicks, in the bucket that the server's operator has set. It is made once all clicks of the time are counted, as far as the server knows, and again, " +
			"under the same name, when more of them come within 72 hours, as from an edge that was cut off; " +
			"what could not be made, as the server or the bucket was away, is made later.",
	}, s.createExportSchedule)
	register(s, operation{
		ID: "listExportSchedules", Method: http.MethodGet, Path: "/api/v1/exports/schedules", Tag: "Analytics", Scope: auth.ScopeAnalyticsRead, Status: http.StatusOK,
		Summary: "List export schedules, the oldest first",
	}, s.listExportSchedules)
	register(s, operation{
		ID: "getExportSchedule", Method: http.MethodGet, Path: "/api/v1/exports/schedules/{id}", Tag: "Analytics", Scope: auth.ScopeAnalyticsRead, Status: http.StatusOK,
		Summary: "Get an export schedule",
	}, s.getExportSchedule)
	register(s, operation{
		ID: "updateExportSchedule", Method: http.MethodPatch, Path: "/api/v1/exports/schedules/{id}", Tag: "Analytics", Scope: auth.ScopeAnalyticsWrite, Status: http.StatusOK,
		Summary: "Pause an export schedule, or let it go on",
	}, s.updateExportSchedule)
	register(s, operation{
		ID: "deleteExportSchedule", Method: http.MethodDelete, Path: "/api/v1/exports/schedules/{id}", Tag: "Analytics", Scope: auth.ScopeAnalyticsWrite, Status: http.StatusNoContent,
		Summary: "Delete an export schedule; its objects stay",
	}, s.deleteExportSchedule)
}

func (s *Server) scheduler() (*exports.Scheduler, error) {
	if s.o.Schedules == nil {
		return nil, &terse.Error{Code: terse.CodeUnavailable, Reason: "analytics_disabled", Message: "this server records no analytics"}
	}
	return s.o.Schedules, nil
}

func showSchedule(e *exports.Schedule) *ExportSchedule {
	attempts, fault, retry := e.Failing()
	out := &ExportSchedule{
		ID: e.ID, Name: e.Name, Every: string(e.Every), Format: string(e.Format), Prefix: e.Prefix, State: "active", NextFrom: e.Next.Time(), Objects: e.Objects,
		LastObject: orNull(e.Object), LastAt: timeOrNull(e.DoneAt),
		Again: e.Again, LastAgain: orNull(e.AgainObject), AgainAt: timeOrNull(e.AgainAt), Incomplete: e.Incomplete, Attempts: attempts, Error: orNull(fault), RetryAt: timeOrNull(retry), CreatedAt: e.CreatedAt.Time(),
	}
	if e.Object != "" {
		out.LastRows = &e.Rows
	}
	switch {
	case e.Paused:
		out.State, out.RetryAt = "paused", nil
	case attempts > 0:
		out.State = "failing"
	}
	return out
}

func (s *Server) createExportSchedule(ctx context.Context, c *call, in *struct{ Body NewExportSchedule }) (*exportScheduleOutput, error) {
	m, err := s.scheduler()
	if err != nil {
		return nil, err
	}
	b := &in.Body
	format, err := export.ParseFormat(b.Format)
	if err != nil {
		return nil, err
	}
	n := exports.NewSchedule{Name: b.Name, Every: exports.Every(b.Every), Format: format, RawCSV: b.RawCSV, Prefix: b.Prefix}
	if b.From != "" {
		t, err := time.Parse(time.RFC3339, b.From)
		if err != nil {
			return nil, terse.Invalid("from", "is not a time such as 2026-11-03T00:00:00Z")
		}
		n.From = max(terse.MillisOf(t), 1)
	}
	n.Query, err = s.queryOfBody(ctx, c, map[string]string{"link_id": b.LinkID, "campaign_id": b.CampaignID, "domain": b.Domain, "tag": b.Tag, "bots": b.Bots}, b.Filters, b.All)
	if err != nil {
		return nil, err
	}
	e, err := m.Create(ctx, c.workspace, c.who.Subject, n, answerWith(c.idem, func(made exports.Schedule) (int, map[string]string, any, error) {
		return http.StatusCreated, map[string]string{"Location": scheduleLocation(&made)}, showSchedule(&made), nil
	}))
	if err != nil {
		return nil, err
	}
	return &exportScheduleOutput{Location: scheduleLocation(&e), Body: showSchedule(&e)}, nil
}

func scheduleLocation(e *exports.Schedule) string { return "/api/v1/exports/schedules/" + e.ID }

func (s *Server) listExportSchedules(ctx context.Context, c *call, _ *struct{}) (*listOutput[*ExportSchedule], error) {
	m, err := s.scheduler()
	if err != nil {
		return nil, err
	}
	list, err := m.List(ctx, c.workspace)
	if err != nil {
		return nil, err
	}
	out := &listOutput[*ExportSchedule]{Body: List[*ExportSchedule]{Data: make([]*ExportSchedule, len(list))}}
	for i := range list {
		out.Body.Data[i] = showSchedule(&list[i])
	}
	return out, nil
}

func (s *Server) getExportSchedule(ctx context.Context, c *call, in *idPath) (*exportScheduleOutput, error) {
	m, err := s.scheduler()
	if err != nil {
		return nil, err
	}
	e, err := m.Get(ctx, c.workspace, in.ID)
	if err != nil {
		return nil, err
	}
	return &exportScheduleOutput{Body: showSchedule(&e)}, nil
}

func (s *Server) updateExportSchedule(ctx context.Context, c *call, in *struct {
	ID   string `path:"id"`
	Body ExportScheduleChange
}) (*exportScheduleOutput, error) {
	m, err := s.scheduler()
	if err != nil {
		return nil, err
	}
	if in.Body.State != "active" && in.Body.State != "paused" {
		return nil, terse.Invalid("state", "%q is not active or paused", in.Body.State)
	}
	e, err := m.SetPaused(ctx, c.workspace, in.ID, in.Body.State == "paused")
	if err != nil {
		return nil, err
	}
	return &exportScheduleOutput{Body: showSchedule(&e)}, nil
}

func (s *Server) deleteExportSchedule(ctx context.Context, c *call, in *idPath) (*struct{}, error) {
	m, err := s.scheduler()
	if err != nil {
		return nil, err
	}
	return nil, m.Delete(ctx, c.workspace, in.ID)
}
