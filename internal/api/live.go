package api

import (
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/auth"
	"github.com/terselink/terse/internal/live"
)

var liveClicks = operation{
	ID: "liveClicks", Method: http.MethodGet, Path: "/api/v1/clicks/live", Tag: "Analytics", Scope: auth.ScopeAnalyticsRead, Status: http.StatusOK,
	Summary: "Watch clicks as they come",
	Description: "Server-sent events: counters every second, and at most 20 clicks a second, sampled. Last-Event-ID resumes within the last 500 events; " +
		"an event gap says that some are lost. A client that does not keep up is disconnected. " +
		"The clicks are those of all nodes that can be heard: counters say of how many (nodes), and whether any are missing (partial).",
	Errors: []int{409}, stream: true,
}

var liveParameters = []string{"link_id", "campaign_id", "domain", "tag"}

func (s *Server) registerLive() {
	doc := s.mountRaw(liveClicks, s.serveLive)
	for _, name := range liveParameters {
		doc.Parameters = append(doc.Parameters, &huma.Param{Name: name, In: "query", Schema: &huma.Schema{Type: huma.TypeString}, Description: "Only its clicks."})
	}
	doc.Parameters = append(doc.Parameters, &huma.Param{Name: "Last-Event-ID", In: "header", Schema: &huma.Schema{Type: huma.TypeString},
		Description: "The id of the last event that arrived."})
	doc.Responses["200"] = &huma.Response{Description: "Events named click, counters and gap",
		Content: map[string]*huma.MediaType{"text/event-stream": {Schema: &huma.Schema{Type: huma.TypeString}}}}
	s.huma.OpenAPI().AddOperation(doc)
}

// liveScope reads the scope of a live view.
func (s *Server) liveScope(r *http.Request, c *call) (analytics.Scope, error) {
	v := r.URL.Query()
	if err := onlyParameters(v, liveParameters); err != nil {
		return analytics.Scope{}, err
	}
	c.query = v
	q, err := s.scopedQuery(r.Context(), c)
	if err == nil && q.Scope.Campaign != 0 {
		// Unlike its numbers, which outlive it, a campaign that is gone has nothing to watch.
		_, err = s.o.Links.GetCampaign(r.Context(), c.actor(), q.Scope.Campaign)
	}
	return q.Scope, err
}

// serveLive serves the live view until the client goes, is too slow, or the server stops.
func (s *Server) serveLive(w http.ResponseWriter, r *http.Request) error {
	c := callOf(r.Context())
	scope, err := s.liveScope(r, c)
	if err != nil {
		return err
	}
	if s.o.Live == nil {
		return &terse.Error{Code: terse.CodeUnavailable, Reason: "analytics_disabled", Message: "this server records no clicks"}
	}
	watcher, err := s.o.Live.Watch(c.workspace, scope, r.Header.Get("Last-Event-ID"))
	if err != nil {
		return err
	}
	defer watcher.Leave()
	rc := http.NewResponseController(w)
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // a proxy such as nginx would hold events back
	w.WriteHeader(http.StatusOK)
	heartbeat := time.NewTicker(s.o.Heartbeat)
	defer heartbeat.Stop()
	buf := append(make([]byte, 0, 4096), "retry: 2000\n\n"...)
	for {
		_ = rc.SetWriteDeadline(time.Now().Add(callTimeout)) // writers without deadlines are fine
		if _, err := w.Write(buf); err != nil || rc.Flush() != nil {
			return nil
		}
		buf = buf[:0]
		select {
		case m, ok := <-watcher.C:
			if !ok {
				return nil
			}
			buf = appendEvent(buf, m)
			for range len(watcher.C) { // what has piled up goes out at once
				if m, ok := <-watcher.C; ok {
					buf = appendEvent(buf, m)
				}
			}
		case <-heartbeat.C:
			if !s.stillAdmitted(r, c) {
				return nil
			}
			buf = append(buf, ": still there\n\n"...)
		case <-r.Context().Done():
			return nil
		case <-s.o.Live.Stopping():
			return nil
		}
	}
}

// appendEvent appends one server-sent event. Its data is JSON on one line.
func appendEvent(dst []byte, m live.Message) []byte {
	if m.ID != "" {
		dst = append(append(append(dst, "id: "...), m.ID...), '\n')
	}
	dst = append(append(append(dst, "event: "...), m.Event...), '\n')
	return append(append(append(dst, "data: "...), m.Data...), "\n\n"...)
}
