package api

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/auth"
	"github.com/terselink/terse/internal/campaigns"
	"github.com/terselink/terse/internal/links"
)

// Campaign is a campaign as the API shows it. All fields are always there; null is none.
type Campaign struct {
	ID                 string            `json:"id" example:"camp_0srk3a00000g0"`
	Name               string            `json:"name"`
	Domains            []CampaignDomain  `json:"domains" doc:"Where links go in turn, each as often as its weight says."`
	Destination        string            `json:"destination" doc:"The template: {name} stands for a value of the link." example:"https://shop.example/p/{sku}?u={u}"`
	Fields             []string          `json:"fields" doc:"The names of the values of every link. They never change."`
	Links              uint64            `json:"links" doc:"How many links it has."`
	Title              *string           `json:"title" doc:"Of all links without one of their own. May have placeholders, as every URL and text below."`
	Tags               []string          `json:"tags"`
	Status             string            `json:"status" enum:"active,disabled,expired"`
	ExpiresAt          *time.Time        `json:"expires_at"`
	StartsAt           *time.Time        `json:"starts_at"`
	ExpiredDestination *string           `json:"expired_destination"`
	MaxClicks          *uint64           `json:"max_clicks" doc:"Of each link."`
	HasPassword        bool              `json:"has_password"`
	RedirectStatus     *int              `json:"redirect_status" doc:"null: that of the domain."`
	ForwardQuery       *bool             `json:"forward_query" doc:"null: as the domain says."`
	ForwardPath        bool              `json:"forward_path"`
	Rules              []Rule            `json:"rules" doc:"Of all links without a destination and rules of their own. Destinations are templates."`
	Metadata           map[string]string `json:"metadata"`
	CampaignWeb
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
	CreatedBy *string   `json:"created_by"`
	Version   uint64    `json:"version" doc:"Grows with every change; also the ETag."`
}

// CampaignDomain is a domain of a campaign.
type CampaignDomain struct {
	Host   string `json:"host" example:"go.example.com"`
	Weight uint32 `json:"weight,omitempty" doc:"How often it has its turn, beside the others; 1 if absent or 0."`
}

// NewCampaign is the body of a creation.
type NewCampaign struct {
	Name        string           `json:"name" example:"Black Friday"`
	Destination string           `json:"destination" doc:"A template: {name} behind the host stands for a value of each link. So it does in every other URL here, and in title, utm and the og_ texts." example:"https://shop.example/p/{sku}?u={u}"`
	Domain      string           `json:"domain,omitempty" nullable:"true" doc:"The host of its links; without it and domains the workspace's default."`
	Domains     []CampaignDomain `json:"domains,omitempty" nullable:"true" doc:"Several hosts, over which links are spread in turn."`
	Fields      []string         `json:"fields,omitempty" nullable:"true" doc:"Names and order of the values; without it those that the templates name."`
	NewSettings
}

// PatchCampaign is the body of a change: what is absent stays, null clears.
type PatchCampaign struct {
	Name        Optional[string]           `json:"name,omitempty"`
	Destination Optional[string]           `json:"destination,omitempty" doc:"May use any of the campaign's fields and no others."`
	Domains     Optional[[]CampaignDomain] `json:"domains,omitempty" doc:"For new links; existing ones stay where they are."`
	Status      Optional[string]           `json:"status,omitempty" doc:"active or disabled."`
	PatchSettings
}

// CampaignPath names a campaign.
type CampaignPath struct {
	ID string `path:"id" example:"camp_0srk3a00000g0"`
}

type campaignOutput struct {
	ETag     string `header:"ETag" doc:"The version in quotes, for If-Match."`
	Location string `header:"Location" doc:"Of a new campaign: its URL in this API."`
	Body     *Campaign
}

var (
	campaignLinksOperation = operation{
		ID: "addCampaignLinks", Method: http.MethodPost, Path: "/api/v1/campaigns/{id}/links", Tag: "Campaigns", Scope: auth.ScopeLinksWrite, Status: http.StatusOK,
		Summary: "Add links to a campaign",
		Description: "Rows hold a value, a string or a number, for every field of the campaign, and may hold external_id, code, domain, class and expires_at. " +
			"Everything else is as in bulk requests.",
		Errors: []int{406, 409}, stream: true,
	}
	generateOperation = operation{
		ID: "generateCampaignLinks", Method: http.MethodPost, Path: "/api/v1/campaigns/{id}/links/generate", Tag: "Campaigns", Scope: auth.ScopeLinksWrite, Status: http.StatusOK,
		Summary:     "Make links without values in a campaign without fields",
		Description: "Answers as bulk requests do.", Errors: []int{406, 409}, stream: true, jsonBody: true,
	}
	exportOperation = operation{
		ID: "exportCampaignLinks", Method: http.MethodGet, Path: "/api/v1/campaigns/{id}/links", Tag: "Campaigns", Scope: auth.ScopeLinksRead, Status: http.StatusOK,
		Summary:     "List or export the links of a campaign, newest first",
		Description: "With format=csv or format=ndjson all of them in one answer; without it a page as in the list of links.", stream: true,
	}
)

func (s *Server) registerCampaigns() {
	register(s, operation{
		ID: "createCampaign", Method: http.MethodPost, Path: "/api/v1/campaigns", Tag: "Campaigns", Scope: auth.ScopeLinksWrite, Status: http.StatusCreated,
		Summary: "Create a campaign", Description: "Its links are added afterwards; whatever is changed later, every link follows at once.",
	}, s.createCampaign)
	register(s, operation{
		ID: "listCampaigns", Method: http.MethodGet, Path: "/api/v1/campaigns", Tag: "Campaigns", Scope: auth.ScopeLinksRead, Status: http.StatusOK,
		Summary: "List campaigns, oldest first",
	}, s.listCampaigns)
	register(s, operation{
		ID: "getCampaign", Method: http.MethodGet, Path: "/api/v1/campaigns/{id}", Tag: "Campaigns", Scope: auth.ScopeLinksRead, Status: http.StatusOK,
		Summary: "Get a campaign",
	}, s.getCampaign)
	register(s, operation{
		ID: "updateCampaign", Method: http.MethodPatch, Path: "/api/v1/campaigns/{id}", Tag: "Campaigns", Scope: auth.ScopeLinksWrite, Status: http.StatusOK,
		Summary: "Change a campaign and with it all its links", Description: "One write, whatever the number of links; the next visit follows.", Errors: []int{412},
	}, s.updateCampaign)
	register(s, operation{
		ID: "deleteCampaign", Method: http.MethodDelete, Path: "/api/v1/campaigns/{id}", Tag: "Campaigns", Scope: auth.ScopeLinksWrite, Status: http.StatusNoContent,
		Summary: "Delete a campaign and with it all its links", Description: "They answer as if they had never existed.", Errors: []int{412},
	}, s.deleteCampaign)

	text := &huma.Schema{Type: huma.TypeString}
	row := &huma.Schema{Type: huma.TypeObject, AdditionalProperties: true, Description: "A value for every field, and external_id, code, domain, class and expires_at."}
	result := s.huma.OpenAPI().Components.Schemas.Schema(typeOf[BulkResult](), true, "BulkResult")
	results := map[string]*huma.MediaType{typeNDJSON: {Schema: result}, typeCSV: {Schema: text}, typeJSON: {Schema: &huma.Schema{Type: huma.TypeArray, Items: result}}}
	param := func(name, description string) *huma.Param {
		return &huma.Param{Name: name, In: "query", Description: description, Schema: text}
	}
	s.stream(campaignLinksOperation, s.addCampaignLinks, &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
		typeNDJSON: {Schema: row}, typeCSV: {Schema: text}, typeJSON: {Schema: &huma.Schema{Type: huma.TypeArray, Items: row}},
	}}, results, param("domain", "The host for rows that name none; without it the campaign's domains in turn."),
		param("atomic", "true creates nothing unless all rows are valid and free."), param("dry_run", "true validates the rows and creates nothing."),
		param("raw_csv", "true writes values to a CSV answer as they are."))
	s.stream(generateOperation, s.generateLinks, &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
		typeJSON: {Schema: s.huma.OpenAPI().Components.Schemas.Schema(typeOf[GenerateLinks](), true, "GenerateLinks")},
	}}, results)
	page := s.huma.OpenAPI().Components.Schemas.Schema(typeOf[List[*Link]](), true, "ListLink")
	s.stream(exportOperation, s.exportLinks, nil, map[string]*huma.MediaType{typeJSON: {Schema: page}, typeNDJSON: {Schema: row}, typeCSV: {Schema: text}},
		param("format", "csv or ndjson."), param("limit", "Links of a page: 1 to 1,000, 50 if absent."), param("cursor", "next_cursor of the page before."),
		param("raw_csv", "true writes values to CSV as they are."))
}

// stream mounts and documents an operation that reads or writes more than huma holds.
func (s *Server) stream(op operation, h http.HandlerFunc, body *huma.RequestBody, answer map[string]*huma.MediaType, params ...*huma.Param) {
	s.operations[op.ID] = &op
	s.mount(&op, h)
	doc := op.document()
	doc.Parameters = append(doc.Parameters, &huma.Param{Name: "id", In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString}})
	doc.Parameters = append(doc.Parameters, params...)
	doc.RequestBody = body
	doc.Responses = map[string]*huma.Response{strconv.Itoa(op.Status): {Description: http.StatusText(op.Status), Content: answer}}
	problem := s.huma.OpenAPI().Components.Schemas.Schema(typeOf[Problem](), true, "Problem")
	for _, status := range doc.Errors {
		doc.Responses[strconv.Itoa(status)] = &huma.Response{
			Description: http.StatusText(status), Content: map[string]*huma.MediaType{"application/problem+json": {Schema: problem}},
		}
	}
	s.huma.OpenAPI().AddOperation(&doc)
}

// parseCampaignID reads the id of a path: what is no id cannot exist.
func parseCampaignID(s string) (terse.CampaignID, error) {
	id, err := terse.ParseCampaignID(s)
	if err != nil || id == 0 {
		return 0, terse.ErrNotFound
	}
	return id, nil
}

// campaign returns what the API shows of a campaign.
func (s *Server) campaign(ctx context.Context, c *call, in *campaigns.Campaign) (*Campaign, error) {
	set := &in.Settings
	out := &Campaign{
		ID: in.ID.String(), Name: in.Name, Domains: []CampaignDomain{}, Destination: in.Destination, Fields: in.Fields, Tags: []string{},
		Status: links.StatusActive, ExpiresAt: timeOrNull(in.ExpiresAt), StartsAt: timeOrNull(set.StartsAt), ExpiredDestination: orNull(set.ExpiredDestination),
		Title: orNull(set.Title), HasPassword: set.PasswordHash != "", CampaignWeb: showCampaignWeb(set), ForwardQuery: set.ForwardQuery, ForwardPath: set.ForwardPath, Rules: fromRules(set.Rules), Metadata: map[string]string{}, CreatedBy: orNull(set.CreatedBy),
		CreatedAt: in.CreatedAt.Time(), UpdatedAt: in.UpdatedAt.Time(), Version: in.Version,
	}
	switch {
	case in.Status == terse.StatusDisabled:
		out.Status = links.StatusDisabled
	case in.ExpiresAt != 0 && s.o.Clock() >= in.ExpiresAt:
		out.Status = links.StatusExpired
	}
	if in.RedirectStatus != 0 {
		status := int(in.RedirectStatus)
		out.RedirectStatus = &status
	}
	if set.MaxClicks != 0 {
		out.MaxClicks = &set.MaxClicks
	}
	if set.Tags != nil {
		out.Tags = set.Tags
	}
	if set.Metadata != nil {
		out.Metadata = set.Metadata
	}
	for _, d := range s.o.Links.CampaignHosts(in) {
		out.Domains = append(out.Domains, CampaignDomain(d))
	}
	var err error
	out.Links, err = s.o.Links.CountLinks(ctx, c.actor(), in.ID)
	return out, err
}

func (s *Server) campaignOutput(ctx context.Context, c *call, in *campaigns.Campaign, err error) (*campaignOutput, error) {
	if err != nil {
		return nil, err
	}
	body, err := s.campaign(ctx, c, in)
	if err != nil {
		return nil, err
	}
	return &campaignOutput{ETag: etag(in.Version), Body: body}, nil
}

func toWeights(list []CampaignDomain) []links.DomainWeight {
	out := make([]links.DomainWeight, len(list))
	for i, d := range list {
		out[i] = links.DomainWeight(d)
	}
	return out
}

func (s *Server) createCampaign(ctx context.Context, c *call, in *struct{ Body NewCampaign }) (*campaignOutput, error) {
	b := &in.Body
	hosts := toWeights(b.Domains)
	if b.Domain != "" {
		if len(hosts) > 0 {
			return nil, terse.Invalid("domain", "either domain or domains, not both")
		}
		hosts = []links.DomainWeight{{Host: b.Domain}}
	}
	made, err := s.o.Links.CreateCampaign(ctx, c.actor(), links.NewCampaign{
		Name: b.Name, Domains: hosts, Destination: b.Destination, Fields: b.Fields, Title: b.Title, Tags: b.Tags,
		MaxClicks: b.MaxClicks, Password: b.Password, Web: b.NewLinkWeb.domain(), ExpiresAt: pointInTime(b.ExpiresAt), StartsAt: pointInTime(b.StartsAt), ExpiredDestination: b.ExpiredDestination,
		RedirectStatus: b.RedirectStatus, ForwardQuery: b.ForwardQuery, ForwardPath: b.ForwardPath, Rules: toRules(b.Rules), Metadata: b.Metadata,
	}, answerWith(c.idem, func(made *campaigns.Campaign) (int, map[string]string, any, error) {
		shown, err := s.campaign(ctx, c, made)
		return http.StatusCreated, map[string]string{"Location": campaignLocation(made), "Etag": etag(made.Version)}, shown, err
	}))
	out, err := s.campaignOutput(ctx, c, made, err)
	if err == nil {
		out.Location = campaignLocation(made)
	}
	return out, err
}

func campaignLocation(c *campaigns.Campaign) string { return "/api/v1/campaigns/" + c.ID.String() }

func (s *Server) listCampaigns(ctx context.Context, c *call, in *pageInput) (*listOutput[*Campaign], error) {
	limit, err := pageSize(in.Limit)
	if err != nil {
		return nil, err
	}
	var after terse.CampaignID
	if in.Cursor != "" {
		if after, err = terse.ParseCampaignID(in.Cursor); err != nil {
			return nil, errBadCursor()
		}
	}
	list, err := s.o.Links.ListCampaigns(ctx, c.actor(), after, limit+1)
	if err != nil {
		return nil, err
	}
	out := &listOutput[*Campaign]{Body: List[*Campaign]{Data: []*Campaign{}}}
	for i, item := range list {
		if i == limit {
			out.Body.NextCursor = &out.Body.Data[limit-1].ID
			break
		}
		shown, err := s.campaign(ctx, c, item)
		if err != nil {
			return nil, err
		}
		out.Body.Data = append(out.Body.Data, shown)
	}
	return out, nil
}

func (s *Server) getCampaign(ctx context.Context, c *call, in *CampaignPath) (*campaignOutput, error) {
	id, err := parseCampaignID(in.ID)
	if err != nil {
		return nil, err
	}
	got, err := s.o.Links.GetCampaign(ctx, c.actor(), id)
	return s.campaignOutput(ctx, c, got, err)
}

func (s *Server) updateCampaign(ctx context.Context, c *call, in *struct {
	CampaignPath
	IfMatchHeader
	Body PatchCampaign
}) (*campaignOutput, error) {
	id, err := parseCampaignID(in.ID)
	if err != nil {
		return nil, err
	}
	version, err := in.version()
	if err != nil {
		return nil, err
	}
	b := &in.Body
	p := links.CampaignPatch{
		Name: b.Name.pointer(), Destination: b.Destination.pointer(), ExpiresAt: patchTime(&b.ExpiresAt), RedirectStatus: b.RedirectStatus.pointer(),
		SettingsPatch: b.PatchSettings.domain(),
	}
	if p.Status, err = patchStatus(&b.Status); err != nil {
		return nil, err
	}
	if b.Domains.Set {
		hosts := toWeights(b.Domains.Value)
		p.Domains = &hosts
	}
	got, err := s.o.Links.UpdateCampaign(ctx, c.actor(), id, p, version)
	return s.campaignOutput(ctx, c, got, err)
}

func (s *Server) deleteCampaign(ctx context.Context, c *call, in *struct {
	CampaignPath
	IfMatchHeader
}) (*struct{}, error) {
	id, err := parseCampaignID(in.ID)
	if err != nil {
		return nil, err
	}
	version, err := in.version()
	if err != nil {
		return nil, err
	}
	return nil, s.o.Links.DeleteCampaign(ctx, c.actor(), id, version)
}

// addCampaignLinks serves POST /api/v1/campaigns/{id}/links.
func (s *Server) addCampaignLinks(w http.ResponseWriter, r *http.Request) {
	c := callOf(r.Context())
	id, err := parseCampaignID(r.PathValue("id"))
	if err != nil {
		s.refuse(w, c, toProblem(c.op, err))
		return
	}
	s.serveBulk(w, r, c, id)
}

// GenerateLinks is the body of generate.
type GenerateLinks struct {
	Count  uint64 `json:"count" doc:"1 to 100,000,000." example:"100000"`
	Domain string `json:"domain,omitempty" nullable:"true" doc:"The host; without it the campaign's domains in turn."`
	Class  string `json:"class,omitempty" nullable:"true" enum:"secret" doc:"secret: random codes of 22 characters, which guessing does not find."`
}

// generateLinks serves POST /api/v1/campaigns/{id}/links/generate.
func (s *Server) generateLinks(w http.ResponseWriter, r *http.Request) {
	c := callOf(r.Context())
	id, err := parseCampaignID(r.PathValue("id"))
	if err != nil {
		s.refuse(w, c, toProblem(c.op, err))
		return
	}
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(bodyTimeout)) // connections without deadlines, as in tests, are fine
	data, p := readJSON(r)
	_ = rc.SetReadDeadline(time.Time{})
	if p != nil {
		s.refuse(w, c, p)
		return
	}
	var body GenerateLinks
	if err := unmarshal(data, &body); err != nil {
		p := newProblem(http.StatusUnprocessableEntity, "the body is an object with count and domain")
		if e, ok := errors.AsType[*bodyError](err); ok {
			p.at(e.location, e.message)
		}
		s.refuse(w, c, p)
		return
	}
	req, err := readBulk(r)
	if accept := r.Header.Get("Accept"); err == nil && (accept == "" || accept == "*/*") {
		req.outType, req.options.Out = typeNDJSON, links.NDJSON
	}
	if err != nil {
		s.refuse(w, c, toProblem(c.op, err))
		return
	}
	req.options.Campaign, req.options.Domain, req.options.Class = id, body.Domain, body.Class
	out := newBulkWriter(w, r, req.outType)
	sum, err := s.o.Links.Generate(r.Context(), c.actor(), req.options, body.Count, out)
	s.endBulk(w, r, out, func() {}, sum, err) // its body was read
}

// exportLinks serves GET /api/v1/campaigns/{id}/links.
func (s *Server) exportLinks(w http.ResponseWriter, r *http.Request) {
	c := callOf(r.Context())
	id, err := parseCampaignID(r.PathValue("id"))
	var format, rawCSV string
	in := listLinksInput{}
	for name, values := range r.URL.Query() {
		switch {
		case err != nil:
		case len(values) > 1:
			err = terse.Invalid(name, "is given more than once")
		case name == "format":
			format = values[0]
		case name == "raw_csv":
			rawCSV = values[0]
		case name == "limit":
			in.Limit = values[0]
		case name == "cursor":
			in.Cursor = values[0]
		default:
			err = terse.Invalid(name, "there is no such parameter")
		}
	}
	var raw bool
	if err == nil {
		raw, err = parseFlag("raw_csv", rawCSV)
	}
	if err == nil && format != "" && format != "csv" && format != "ndjson" {
		err = terse.Invalid("format", "the format is csv or ndjson")
	}
	if err == nil && format == "" {
		err = s.listCampaignLinks(w, r, c, id, &in)
	} else if err == nil {
		out := newBulkWriter(w, r, typeNDJSON)
		out.plain = true
		form := links.NDJSON
		if format == "csv" {
			out.contentType, form = typeCSV, links.CSV
		}
		if err = s.o.Links.ExportLinks(r.Context(), c.actor(), id, form, raw, out); err == nil {
			err = out.end()
		}
		if err != nil && (out.started || r.Context().Err() != nil) {
			s.o.Log.Info("export cut", "request_id", c.requestID, "error", err)
			panic(http.ErrAbortHandler)
		}
	}
	if err != nil {
		s.refuse(w, c, toProblem(c.op, err))
	}
}

// listCampaignLinks answers one page of links as the list of links does.
func (s *Server) listCampaignLinks(w http.ResponseWriter, r *http.Request, c *call, id terse.CampaignID, in *listLinksInput) error {
	if _, err := s.o.Links.GetCampaign(r.Context(), c.actor(), id); err != nil {
		return err
	}
	in.CampaignID = id.String()
	page, err := s.listLinks(r.Context(), c, in)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", typeJSON)
	_, err = w.Write(mustMarshal(&page.Body))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	return nil
}
