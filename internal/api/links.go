package api

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/auth"
	"github.com/terselink/terse/internal/links"
)

// maxDelete bounds the ids of one links/delete.
const maxDelete = 1000

type linkOutput struct {
	Status   int
	ETag     string `header:"ETag" doc:"The version in quotes, for If-Match."`
	Location string `header:"Location" doc:"Of a new link: its URL in this API."`
	Body     *Link
}

// LinkPath names a link. It is exported because huma sees no other embedded structs.
type LinkPath struct {
	ID string `path:"id" example:"link_0000400000r00"`
}

// IfMatchHeader makes a change conditional.
type IfMatchHeader struct {
	IfMatch string `header:"If-Match" doc:"The version that the caller saw, in quotes. Another current version gives 412 and changes nothing."`
}

func (s *Server) registerLinks() {
	register(s, operation{
		ID: "createLink", Method: http.MethodPost, Path: "/api/v1/links", Tag: "Links", Scope: auth.ScopeLinksWrite, Status: http.StatusCreated,
		Summary:     "Create a link",
		Description: "Answers 201 when the link is durable, or 200 with an existing link for if_exists=reuse.", Errors: []int{409},
	}, s.createLink)
	responses := s.huma.OpenAPI().Paths["/api/v1/links"].Post.Responses
	reused := *responses["201"]
	reused.Description = "An existing link, for if_exists=reuse"
	responses["200"] = &reused
	register(s, operation{
		ID: "listLinks", Method: http.MethodGet, Path: "/api/v1/links", Tag: "Links", Scope: auth.ScopeLinksRead, Status: http.StatusOK,
		Summary:     "List links, newest first",
		Description: "A page may be short, even empty, while next_cursor says that there is more.",
	}, s.listLinks)
	register(s, operation{
		ID: "lookUpLink", Method: http.MethodGet, Path: "/api/v1/links/lookup", Tag: "Links", Scope: auth.ScopeLinksRead, Status: http.StatusOK,
		Summary: "Find a link by its short URL",
	}, s.lookUpLink)
	register(s, operation{
		ID: "deleteLinks", Method: http.MethodPost, Path: "/api/v1/links/delete", Tag: "Links", Scope: auth.ScopeLinksWrite, Status: http.StatusOK,
		Summary:     "Delete up to 1,000 links",
		Description: "Each id has its own result, in the order of the request; the request is not atomic.",
	}, s.deleteLinks)
	register(s, operation{
		ID: "getLink", Method: http.MethodGet, Path: "/api/v1/links/{id}", Tag: "Links", Scope: auth.ScopeLinksRead, Status: http.StatusOK,
		Summary: "Get a link",
	}, s.getLink)
	register(s, operation{
		ID: "updateLink", Method: http.MethodPatch, Path: "/api/v1/links/{id}", Tag: "Links", Scope: auth.ScopeLinksWrite, Status: http.StatusOK,
		Summary: "Change a link", Errors: []int{412},
	}, s.updateLink)
	register(s, operation{
		ID: "deleteLink", Method: http.MethodDelete, Path: "/api/v1/links/{id}", Tag: "Links", Scope: auth.ScopeLinksWrite, Status: http.StatusNoContent,
		Summary: "Delete a link", Description: "A generated code is never used again; an alias becomes free. A blocked link is deleted only by who may lift the block.", Errors: []int{412},
	}, s.deleteLink)
}

func (c *call) actor() links.Actor {
	a := links.Actor{Workspace: c.workspace, By: c.who.Subject}
	switch {
	case c.who.Owner:
		a.Block = links.MayBlockAny
	case c.who.Allows(auth.ScopeLinksBlock):
		a.Block = links.MayBlock
	}
	return a
}

func etag(version uint64) string { return `"` + strconv.FormatUint(version, 10) + `"` }

// version reads If-Match; 0 is any.
func (m *IfMatchHeader) version() (uint64, error) {
	if m.IfMatch == "" || m.IfMatch == "*" {
		return 0, nil
	}
	digits, quoted := strings.CutPrefix(m.IfMatch, `"`)
	digits, closed := strings.CutSuffix(digits, `"`)
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || n == 0 || !quoted || !closed {
		return 0, newProblem(http.StatusUnprocessableEntity, `If-Match is one version in quotes, such as "3"`).
			at("header.If-Match", `is not one version in quotes, such as "3"`)
	}
	return n, nil
}

// parseLinkID reads the id of a path: what is no id cannot exist.
func parseLinkID(s string) (terse.LinkNumber, error) {
	n, err := terse.ParseLinkNumber(s)
	if err != nil {
		return 0, terse.ErrNotFound
	}
	return n, nil
}

func (s *Server) linkOutput(l *terse.Link, status int) *linkOutput {
	out := &linkOutput{Status: status, ETag: etag(l.Version), Body: s.link(l)}
	if status == http.StatusCreated {
		out.Location = "/api/v1/links/" + out.Body.ID
	}
	return out
}

func (s *Server) createLink(ctx context.Context, c *call, in *struct{ Body NewLink }) (*linkOutput, error) {
	n := in.Body.domain()
	record := answerWith(c.idem, func(l terse.Link) (int, map[string]string, any, error) {
		status := http.StatusCreated
		if n.IfExists == links.IfExistsReuse {
			// Links does not say whether it found the link or is about to make it: only a
			// found one can be read.
			_, err := s.o.Links.Get(ctx, c.actor(), l.Number)
			if err == nil {
				status = http.StatusOK
			} else if !errors.Is(err, terse.ErrNotFound) {
				return 0, nil, nil, err
			}
		}
		out := s.linkOutput(&l, status)
		header := map[string]string{"Etag": out.ETag}
		if out.Location != "" {
			header["Location"] = out.Location
		}
		return status, header, out.Body, nil
	})
	l, created, err := s.o.Links.Create(ctx, c.actor(), n, links.CreateOptions{Documents: record})
	if err != nil {
		if c.idem != nil && isBareConflict(err) {
			err = errInProgress() // the record exists: another node was faster
		}
		return nil, err
	}
	if !created {
		return s.linkOutput(&l, http.StatusOK), nil
	}
	return s.linkOutput(&l, http.StatusCreated), nil
}

type listLinksInput struct {
	Domain      string `query:"domain" doc:"Only links of this domain."`
	CampaignID  string `query:"campaign_id" doc:"Only links of this campaign."`
	Tag         string `query:"tag" doc:"Only links with this tag."`
	Status      string `query:"status" doc:"active, disabled, expired or blocked."`
	ExternalID  string `query:"external_id" doc:"Only links with exactly this external_id."`
	Query       string `query:"q" doc:"Only links with this text in code, destination or title, whatever the case."`
	CreatedFrom string `query:"created_from" doc:"Only links made at or after this time (RFC 3339)."`
	CreatedTo   string `query:"created_to" doc:"Only links made before this time (RFC 3339)."`
	Sort        string `query:"sort" doc:"-created_at, newest first, is the only order."`
	Limit       string `query:"limit" doc:"Links of a page: 1 to 1,000, 50 if absent."`
	Cursor      string `query:"cursor" doc:"next_cursor of the page before."`
}

// List is one page of things.
type List[T any] struct {
	Data       []T     `json:"data"`
	NextCursor *string `json:"next_cursor" doc:"Asks for the next page; null at the end."`
}

type listOutput[T any] struct{ Body List[T] }

// pageSize reads the parameter limit.
func pageSize(s string) (int, error) {
	if s == "" {
		return 50, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > 1000 {
		return 0, terse.Invalid("limit", "a page has 1 to 1000 entries")
	}
	return n, nil
}

// queryTime reads a parameter that is a time; 0 if it is absent.
func queryTime(name, v string) (terse.Millis, error) {
	if v == "" {
		return 0, nil
	}
	t, err := time.Parse(time.RFC3339, v)
	if err != nil {
		return 0, terse.Invalid(name, "not a time such as 2026-01-31T00:00:00Z")
	}
	return pointInTime(&t), nil
}

func (s *Server) listLinks(ctx context.Context, c *call, in *listLinksInput) (*listOutput[*Link], error) {
	f := links.Filter{
		Domain: in.Domain, Tag: in.Tag, Status: in.Status, ExternalID: in.ExternalID, Query: in.Query, Cursor: in.Cursor,
	}
	var err error
	if f.CreatedFrom, err = queryTime("created_from", in.CreatedFrom); err != nil {
		return nil, err
	}
	if f.CreatedTo, err = queryTime("created_to", in.CreatedTo); err != nil {
		return nil, err
	}
	if f.Limit, err = pageSize(in.Limit); err != nil {
		return nil, err
	}
	if in.Sort != "" && in.Sort != "-created_at" {
		return nil, terse.Invalid("sort", "the only order is -created_at")
	}
	if in.CampaignID != "" {
		if f.Campaign, err = terse.ParseCampaignID(in.CampaignID); err != nil || f.Campaign == 0 {
			return nil, terse.Invalid("campaign_id", "not an id of a campaign")
		}
	}
	page, err := s.o.Links.List(ctx, c.actor(), f)
	if err != nil {
		return nil, err
	}
	out := &listOutput[*Link]{Body: List[*Link]{Data: make([]*Link, len(page.Links)), NextCursor: orNull(page.Next)}}
	numbers := make([]terse.LinkNumber, len(page.Links))
	for i := range page.Links {
		out.Body.Data[i], numbers[i] = s.link(&page.Links[i]), page.Links[i].Number
	}
	s.addTotals(ctx, c, numbers, out.Body.Data)
	return out, nil
}

func (s *Server) lookUpLink(ctx context.Context, c *call, in *struct {
	ShortURL string `query:"short_url" required:"true" example:"https://go.example.com/aB3dE5g"`
}) (*linkOutput, error) {
	l, err := s.o.Links.Lookup(ctx, c.actor(), in.ShortURL)
	if err != nil {
		return nil, err
	}
	return s.readLink(ctx, c, &l), nil
}

func (s *Server) getLink(ctx context.Context, c *call, in *LinkPath) (*linkOutput, error) {
	n, err := parseLinkID(in.ID)
	if err != nil {
		return nil, err
	}
	l, err := s.o.Links.Get(ctx, c.actor(), n)
	if err != nil {
		return nil, err
	}
	return s.readLink(ctx, c, &l), nil
}

// readLink is the answer to a read of one link, with its clicks.
func (s *Server) readLink(ctx context.Context, c *call, l *terse.Link) *linkOutput {
	out := s.linkOutput(l, http.StatusOK)
	s.addTotals(ctx, c, []terse.LinkNumber{l.Number}, []*Link{out.Body})
	return out
}

func (s *Server) updateLink(ctx context.Context, c *call, in *struct {
	LinkPath
	IfMatchHeader
	Body PatchLink
}) (*linkOutput, error) {
	n, err := parseLinkID(in.ID)
	if err != nil {
		return nil, err
	}
	version, err := in.version()
	if err != nil {
		return nil, err
	}
	patch, err := in.Body.domain()
	if err != nil {
		return nil, err
	}
	l, err := s.o.Links.Update(ctx, c.actor(), n, patch, version)
	if err != nil {
		return nil, err
	}
	return s.linkOutput(&l, http.StatusOK), nil
}

func (s *Server) deleteLink(ctx context.Context, c *call, in *struct {
	LinkPath
	IfMatchHeader
}) (*struct{}, error) {
	n, err := parseLinkID(in.ID)
	if err != nil {
		return nil, err
	}
	version, err := in.version()
	if err != nil {
		return nil, err
	}
	return nil, s.o.Links.Delete(ctx, c.actor(), n, version)
}

// DeleteResult says what became of one id.
type DeleteResult struct {
	ID      string     `json:"id"`
	Deleted bool       `json:"deleted"`
	Error   *ItemError `json:"error" doc:"Why not; null if it was deleted."`
}

// ItemError is the error of one item of a request.
type ItemError struct {
	Code    string `json:"code" example:"not_found"`
	Message string `json:"message"`
}

type deleteLinksOutput struct {
	Body struct {
		Deleted int            `json:"deleted"`
		Failed  int            `json:"failed"`
		Data    []DeleteResult `json:"data"`
	}
}

func (s *Server) deleteLinks(ctx context.Context, c *call, in *struct {
	Body struct {
		IDs []string `json:"ids" doc:"1 to 1,000 ids."`
	}
}) (*deleteLinksOutput, error) {
	ids := in.Body.IDs
	if len(ids) == 0 || len(ids) > maxDelete {
		return nil, terse.Invalid("ids", "1 to %d ids", maxDelete)
	}
	out := &deleteLinksOutput{}
	out.Body.Data = make([]DeleteResult, len(ids))
	for i, id := range ids {
		out.Body.Data[i].ID = id
		if j := slices.Index(ids[:i], id); j >= 0 {
			out.Body.Data[i] = out.Body.Data[j] // the same id again: the same result
			continue
		}
		n, err := parseLinkID(id)
		if err == nil {
			err = s.o.Links.Delete(ctx, c.actor(), n, 0)
		}
		if err != nil {
			p := toProblem(c.op, err)
			out.Body.Data[i].Error = &ItemError{Code: p.Code, Message: p.Detail}
			out.Body.Failed++
			continue
		}
		out.Body.Data[i].Deleted = true
		out.Body.Deleted++
	}
	return out, nil
}
