package api

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/auth"
)

// Erasure is the body of an erasure.
type Erasure struct {
	LinkID  string `json:"link_id,omitempty" nullable:"true" doc:"The link whose clicks are erased. It need not exist any more."`
	Visitor string `json:"visitor,omitempty" nullable:"true" doc:"The visitor whose clicks are erased: the column visitor of the record in 16 hexadecimal digits." example:"0123456789abcdef"`
}

// Erased is the answer to it.
type Erased struct {
	Clicks  int64       `json:"clicks" doc:"Clicks that were erased."`
	Remains []Remainder `json:"remains" doc:"What an erasure of this kind does not reach, if there is any of it; docs/analytics.md has more."`
}

// Remainder is something that an erasure does not reach.
type Remainder struct {
	What string `json:"what" enum:"spool,exports,conversions,pruned_days,anonymous_clicks"`
	Text string `json:"text" doc:"The same for people."`
}

// remainders are said whether there is any of them or not, for that is not looked for. The last is of visitors alone.
var remainders = []Remainder{
	{"spool", "the spool as it was written, which is never counted again, until clicks.keep_segments is over"},
	{"exports", "files that were exported before, and copies of the record elsewhere"},
	{"conversions", "leads and sales, with the place, the client and the source of the click that led to them"},
	{"pruned_days", "numbers of days whose clicks are all gone for their age, until analytics.rollup_days is over"},
	{"anonymous_clicks", "clicks that have no visitor: those of programs and of who objected, those that were only counted because the spool was full, and on days that are closed those of sweeps; nobody can tell whose they were"},
}

// eraseTimeout bounds an erasure, which may rewrite every day. One that is cut off goes on with the next call.
const eraseTimeout = 30 * time.Minute

func (s *Server) registerErasure() {
	register(s, operation{
		ID: "eraseClicks", Method: http.MethodPost, Path: "/api/v1/analytics/erase", Tag: "Analytics", Scope: auth.ScopeAnalyticsWrite, Status: http.StatusOK, limit: eraseTimeout,
		Summary: "Erase the history of a link or of a visitor",
		Description: "Removes clicks from the database, the record and all numbers, for good; the link itself stays. With both only the visitor's clicks on the link. " +
			"It rewrites the days concerned and may take minutes; to repeat it is safe. The spool forgets the clicks with its segments (clicks.keep_segments).",
	}, s.eraseClicks)
}

func (s *Server) eraseClicks(ctx context.Context, c *call, in *struct{ Body Erasure }) (*struct{ Body *Erased }, error) {
	e := analytics.Erasure{Workspace: c.workspace}
	if in.Body.LinkID != "" {
		n, err := terse.ParseLinkNumber(in.Body.LinkID)
		if err != nil {
			return nil, terse.Invalid("link_id", "is no id of a link")
		}
		e.Link = n
	}
	if in.Body.Visitor != "" {
		n, err := strconv.ParseUint(in.Body.Visitor, 16, 64)
		if err != nil || len(in.Body.Visitor) != 16 || in.Body.Visitor != strings.ToLower(in.Body.Visitor) {
			return nil, terse.Invalid("visitor", "is not 16 hexadecimal digits in lower case")
		}
		e.Visitor = n
	}
	if err := e.Check(); err != nil {
		return nil, err
	}
	if s.o.Analytics == nil {
		return nil, errAnalyticsDisabled
	}
	eraser, ok := s.o.Analytics.(analytics.Eraser)
	if !ok {
		return nil, &terse.Error{Code: terse.CodeUnavailable, Reason: "erasure_unsupported", Message: "this analytics engine cannot erase clicks"}
	}
	n, err := eraser.Erase(ctx, e)
	if err != nil {
		return nil, err
	}
	remains := remainders
	if e.Visitor == 0 {
		remains = remains[:len(remains)-1]
	}
	return &struct{ Body *Erased }{&Erased{Clicks: n, Remains: remains}}, nil
}
