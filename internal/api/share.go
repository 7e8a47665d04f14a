package api

import (
	"context"
	"net/http"
	"net/url"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/auth"
	"github.com/terselink/terse/internal/shares"
)

// Share is a public link to statistics.
type Share struct {
	ID          string     `json:"id"`
	URL         string     `json:"url" doc:"The path of the page on this control plane."`
	Name        string     `json:"name"`
	LinkID      *string    `json:"link_id"`
	CampaignID  *string    `json:"campaign_id"`
	Domain      *string    `json:"domain"`
	Tag         *string    `json:"tag"`
	HasPassword bool       `json:"has_password"`
	ExpiresAt   *time.Time `json:"expires_at"`
	CreatedAt   time.Time  `json:"created_at"`
	CreatedBy   string     `json:"created_by"`
}

// NewShare is the body of a creation: at most one of link_id, campaign_id, domain and tag.
type NewShare struct {
	Name       string     `json:"name" doc:"The heading of the page: 1 to 200 bytes."`
	LinkID     string     `json:"link_id,omitempty" nullable:"true"`
	CampaignID string     `json:"campaign_id,omitempty" nullable:"true"`
	Domain     string     `json:"domain,omitempty" nullable:"true"`
	Tag        string     `json:"tag,omitempty" nullable:"true"`
	Password   string     `json:"password,omitempty" nullable:"true"`
	ExpiresAt  *time.Time `json:"expires_at,omitempty" nullable:"true"`
}

func (s *Server) registerShares() {
	register(s, operation{
		ID: "createShare", Method: http.MethodPost, Path: "/api/v1/shares", Tag: "Analytics", Scope: auth.ScopeAnalyticsWrite, Status: http.StatusCreated,
		Summary:     "Share statistics with whoever has the link",
		Description: "Of a link, a campaign, a domain, a tag or the workspace. Destinations and conversions are never shown, nor numbers below 3.",
	}, s.createShare)
	register(s, operation{
		ID: "listShares", Method: http.MethodGet, Path: "/api/v1/shares", Tag: "Analytics", Scope: auth.ScopeAnalyticsRead, Status: http.StatusOK,
		Summary: "List shares",
	}, s.listShares)
	register(s, operation{
		ID: "deleteShare", Method: http.MethodDelete, Path: "/api/v1/shares/{id}", Tag: "Analytics", Scope: auth.ScopeAnalyticsWrite, Status: http.StatusNoContent,
		Summary: "End a share", Description: "Copies of its numbers live on for up to a minute.",
	}, s.deleteShare)
	s.registerPublic()
}

func showShare(sh *shares.Share) *Share {
	out := &Share{
		ID: sh.ID, URL: "/s/" + sh.ID, Name: sh.Name, Domain: orNull(sh.Scope.Domain), Tag: orNull(sh.Scope.Tag), HasPassword: sh.PasswordHash != "",
		ExpiresAt: timeOrNull(sh.ExpiresAt), CreatedAt: sh.CreatedAt.Time(), CreatedBy: sh.CreatedBy,
	}
	if sh.Scope.Link != 0 {
		out.LinkID = orNull(sh.Scope.Link.String())
	}
	if sh.Scope.Campaign != 0 {
		out.CampaignID = orNull(sh.Scope.Campaign.String())
	}
	return out
}

type shareOutput struct{ Body *Share }

func (s *Server) createShare(ctx context.Context, c *call, in *struct{ Body NewShare }) (*shareOutput, error) {
	b := &in.Body
	// The scope is read as that of a query, so that it is held to the same rules.
	v := url.Values{}
	for name, value := range map[string]string{"link_id": b.LinkID, "campaign_id": b.CampaignID, "domain": b.Domain, "tag": b.Tag} {
		if value != "" {
			v.Set(name, value)
		}
	}
	c.query = v
	q, err := s.scopedQuery(ctx, c)
	if err != nil {
		return nil, err
	}
	sh, err := s.shares.Create(ctx, c.actor(), shares.NewShare{Scope: q.Scope, Name: b.Name, Password: b.Password, ExpiresAt: pointInTime(b.ExpiresAt)},
		answerWith(c.idem, func(made shares.Share) (int, map[string]string, any, error) {
			return http.StatusCreated, map[string]string{}, showShare(&made), nil
		}))
	if err != nil {
		return nil, err
	}
	return &shareOutput{showShare(&sh)}, nil
}

func (s *Server) listShares(ctx context.Context, c *call, in *pageInput) (*listOutput[*Share], error) {
	limit, err := pageSize(in.Limit)
	if err != nil {
		return nil, err
	}
	list, err := s.shares.List(ctx, c.workspace, in.Cursor, limit+1)
	if err != nil {
		return nil, err
	}
	return &listOutput[*Share]{Body: page(list, limit, showShare, func(sh *shares.Share) string { return sh.ID })}, nil
}

func (s *Server) deleteShare(ctx context.Context, c *call, in *idPath) (*struct{}, error) {
	return nil, s.shares.Delete(ctx, c.workspace, in.ID)
}

// PublicStats is what a share shows.
type PublicStats struct {
	Name     string                   `json:"name"`
	From     time.Time                `json:"from"`
	To       time.Time                `json:"to"`
	Clicks   *int64                   `json:"clicks" doc:"Of people; null: at least 1 and below 3."`
	Visitors *int64                   `json:"visitors" doc:"Distinct per UTC day; null: at least 1 and below 3."`
	Interval string                   `json:"interval"`
	Series   []PublicPoint            `json:"series"`
	Top      map[string][]PublicValue `json:"top" doc:"By country, device, browser, os and source, largest first; (other) is the rest, values of fewer than 3 clicks in it."`
}

// PublicPoint is one bucket of time.
type PublicPoint struct {
	T      time.Time `json:"t"`
	Clicks *int64    `json:"clicks" doc:"null: not shown, because it is below 3 or would tell what another such point is."`
}

// PublicValue is one value of a dimension.
type PublicValue struct {
	Value  string `json:"value"`
	Clicks *int64 `json:"clicks" doc:"null: at least 1 and below 3."`
}

// publicPeriods are those that a share can be seen in.
var publicPeriods = map[string]bool{"24h": true, "7d": true, "30d": true, "90d": true}

// publicBy are the dimensions that a share shows: none of them tells a destination or a person.
var publicBy = []analytics.Dimension{analytics.Country, analytics.Device, analytics.Browser, analytics.OS, analytics.Source}

// publicCache keeps what shares show for a minute, so that a page that many look at asks the engine once.
type publicCache struct {
	flight singleflight.Group

	mu      sync.Mutex
	entries map[string]publicEntry
}

type publicEntry struct {
	stats *PublicStats
	until terse.Millis
}

const (
	publicFor  = 60_000 // ms
	publicMost = 2000   // entries
)

// publicStats returns the numbers of a share from the last minute. A result must not be modified.
func (s *Server) publicStats(ctx context.Context, sh *shares.Share, period string) (*PublicStats, error) {
	key, now := sh.ID+" "+period, s.o.Clock()
	p := &s.public
	p.mu.Lock()
	e, ok := p.entries[key]
	p.mu.Unlock()
	if ok && now < e.until {
		return e.stats, nil
	}
	v, err, _ := p.flight.Do(key, func() (any, error) {
		// Whoever asked first may go away: the others still want the answer.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
		defer cancel()
		stats, err := s.readPublic(ctx, sh, period)
		if err != nil {
			return nil, err
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.entries == nil || len(p.entries) >= publicMost {
			p.entries = map[string]publicEntry{} // a minute's worth is soon made again
		}
		p.entries[key] = publicEntry{stats, now + publicFor}
		return stats, nil
	})
	if err != nil {
		return nil, err
	}
	return v.(*PublicStats), nil
}

// readPublic asks the engine.
func (s *Server) readPublic(ctx context.Context, sh *shares.Share, period string) (*PublicStats, error) {
	if s.o.Analytics == nil {
		return nil, &terse.Error{Code: terse.CodeUnavailable, Reason: "analytics_disabled", Message: "this server records no analytics"}
	}
	q, err := analytics.ParseQuery(url.Values{"period": {period}}, analytics.ParseOptions{Workspace: sh.Workspace, Now: s.o.Clock().Time()})
	if err != nil {
		return nil, err
	}
	q.Scope, q.Limit = sh.Scope, 8
	sum, err := s.o.Analytics.Summary(ctx, q)
	if err != nil {
		return nil, err
	}
	ts, err := s.o.Analytics.Timeseries(ctx, q)
	if err != nil {
		return nil, err
	}
	out := &PublicStats{
		Name: sh.Name, From: q.From.Time(), To: q.To.Time(), Clicks: atLeastFew(sum.Clicks), Visitors: atLeastFew(sum.Visitors),
		Interval: string(ts.Interval), Series: publicSeries(ts.Points), Top: map[string][]PublicValue{},
	}
	for _, by := range publicBy {
		q.By = by
		b, err := s.o.Analytics.Breakdown(ctx, q)
		if err != nil {
			return nil, err
		}
		out.Top[string(by)] = publicTop(b)
	}
	return out, nil
}
