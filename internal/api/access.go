package api

import (
	"context"
	"net/http"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/auth"
)

// Workspace is a workspace as the API shows it.
type Workspace struct {
	ID            string     `json:"id" example:"ws_0000000000001"`
	Name          string     `json:"name"`
	DefaultDomain *string    `json:"default_domain" doc:"The host that links go to if they name none; null means the instance's default."`
	Interstitials bool       `json:"interstitials" doc:"Its links may show people a page before the destination."`
	AppSchemes    []string   `json:"app_schemes" doc:"The schemes that its links may open apps with."`
	StoreUA       bool       `json:"store_ua" doc:"Its clicks keep the whole User-Agent."`
	StoreIP       string     `json:"store_ip" enum:"no,truncated" doc:"What its clicks keep of the address: nothing, or its network, /24 of IPv4 and /48 of IPv6."`
	Retention     *Retention `json:"retention" doc:"How long clicks are kept one by one; null: as the instance says."`
	CreatedAt     time.Time  `json:"created_at"`
}

// Retention says for how many days clicks are kept one by one. Their numbers stay.
type Retention struct {
	RawDays int `json:"raw_days" doc:"0: for ever."`
	BotDays int `json:"bot_days,omitempty" doc:"Of bots, if shorter; 0: as raw_days."`
}

// Key is an API key as the API shows it.
type Key struct {
	ID          string     `json:"id"`
	Name        string     `json:"name"`
	WorkspaceID string     `json:"workspace_id"`
	Scopes      []string   `json:"scopes"`
	CreatedAt   time.Time  `json:"created_at"`
	CreatedBy   string     `json:"created_by" doc:"The id of the key that made it, or owner."`
	ExpiresAt   *time.Time `json:"expires_at"`
}

// CreatedKey is the answer of a creation, the only one that shows the key.
type CreatedKey struct {
	Key
	Token string `json:"key" doc:"The key itself. It is not shown again." example:"terse_…"`
}

func (s *Server) registerAccess() {
	register(s, operation{
		ID: "createWorkspace", Method: http.MethodPost, Path: "/api/v1/workspaces", Tag: "Workspaces and keys",
		Scope: auth.ScopeWorkspacesWrite, Status: http.StatusCreated,
		Summary: "Create a workspace", Description: "Only the owner key may.",
	}, s.createWorkspace)
	register(s, operation{
		ID: "listWorkspaces", Method: http.MethodGet, Path: "/api/v1/workspaces", Tag: "Workspaces and keys",
		Scope: auth.ScopeWorkspacesRead, Status: http.StatusOK,
		Summary: "List workspaces", Description: "The owner sees all, a key its own.",
	}, s.listWorkspaces)
	register(s, operation{
		ID: "getWorkspace", Method: http.MethodGet, Path: "/api/v1/workspaces/{id}", Tag: "Workspaces and keys",
		Scope: auth.ScopeWorkspacesRead, Status: http.StatusOK,
		Summary: "Get a workspace",
	}, s.getWorkspace)
	register(s, operation{
		ID: "updateWorkspace", Method: http.MethodPatch, Path: "/api/v1/workspaces/{id}", Tag: "Workspaces and keys",
		Scope: auth.ScopeWorkspacesWrite, Status: http.StatusOK,
		Summary: "Change a workspace", Description: "What is absent stays as it is.",
	}, s.updateWorkspace)
	register(s, operation{
		ID: "createKey", Method: http.MethodPost, Path: "/api/v1/keys", Tag: "Workspaces and keys",
		Scope: auth.ScopeKeysWrite, Status: http.StatusCreated,
		Summary: "Create an API key", Description: "A key cannot give a scope that it does not have itself.",
	}, s.createKey)
	register(s, operation{
		ID: "listKeys", Method: http.MethodGet, Path: "/api/v1/keys", Tag: "Workspaces and keys",
		Scope: auth.ScopeKeysRead, Status: http.StatusOK,
		Summary: "List the API keys of the workspace",
	}, s.listKeys)
	register(s, operation{
		ID: "getKey", Method: http.MethodGet, Path: "/api/v1/keys/{id}", Tag: "Workspaces and keys",
		Scope: auth.ScopeKeysRead, Status: http.StatusOK,
		Summary: "Get an API key, without the key itself",
	}, s.getKey)
	register(s, operation{
		ID: "deleteKey", Method: http.MethodDelete, Path: "/api/v1/keys/{id}", Tag: "Workspaces and keys",
		Scope: auth.ScopeKeysWrite, Status: http.StatusNoContent,
		Summary: "Revoke an API key", Description: "This node refuses it at once, others within ten seconds.",
	}, s.deleteKey)
}

func showWorkspace(w *terse.Workspace) *Workspace {
	out := &Workspace{
		ID: w.ID.String(), Name: w.Name, DefaultDomain: orNull(w.DefaultDomain), Interstitials: w.Interstitials, AppSchemes: []string{}, CreatedAt: w.CreatedAt.Time(),
		StoreUA: w.StoreUA, StoreIP: w.StoreIP.String(),
	}
	if w.AppSchemes != nil {
		out.AppSchemes = w.AppSchemes
	}
	if w.Retention != nil {
		out.Retention = &Retention{w.Retention.RawDays, w.Retention.BotDays}
	}
	return out
}

func showKey(k *auth.Key) *Key {
	out := &Key{
		ID: k.ID, Name: k.Name, WorkspaceID: k.Workspace.String(), Scopes: []string{},
		CreatedAt: k.CreatedAt.Time(), CreatedBy: k.CreatedBy, ExpiresAt: timeOrNull(k.ExpiresAt),
	}
	for _, scope := range k.Scopes {
		out.Scopes = append(out.Scopes, string(scope))
	}
	return out
}

type workspaceOutput struct {
	Location string `header:"Location"`
	Body     *Workspace
}

func (s *Server) createWorkspace(ctx context.Context, c *call, in *struct {
	Body struct {
		Name          string `json:"name" doc:"1 to 200 bytes."`
		DefaultDomain string `json:"default_domain,omitempty" nullable:"true" doc:"A shared domain of the instance; without it the instance's default."`
	}
}) (*workspaceOutput, error) {
	n := auth.NewWorkspace{Name: in.Body.Name}
	if host := in.Body.DefaultDomain; host != "" {
		d := s.domainByName(host)
		if d == nil || d.Workspace != 0 {
			return nil, &terse.Error{Code: terse.CodeInvalid, Reason: "unknown_domain", Field: "default_domain", Message: "there is no such shared domain"}
		}
		n.DefaultDomain = d.Host
	}
	location := func(w *terse.Workspace) string { return "/api/v1/workspaces/" + w.ID.String() }
	w, err := s.o.Auth.CreateWorkspace(ctx, &c.who, n, answerWith(c.idem, func(w terse.Workspace) (int, map[string]string, any, error) {
		return http.StatusCreated, map[string]string{"Location": location(&w)}, showWorkspace(&w), nil
	}))
	if err != nil {
		return nil, err
	}
	return &workspaceOutput{Location: location(&w), Body: showWorkspace(&w)}, nil
}

type pageInput struct {
	Limit  string `query:"limit" doc:"Entries of a page: 1 to 1,000, 50 if absent."`
	Cursor string `query:"cursor" doc:"next_cursor of the page before."`
}

func errBadCursor() error {
	return terse.Invalid("cursor", "not a cursor of this list")
}

// page cuts a list that was read with one entry too many, and returns the cursor
// that its last entry makes.
func page[T, S any](list []T, limit int, show func(*T) *S, cursor func(*T) string) List[*S] {
	out := List[*S]{Data: []*S{}}
	if len(list) > limit {
		list = list[:limit]
		next := cursor(&list[limit-1])
		out.NextCursor = &next
	}
	for i := range list {
		out.Data = append(out.Data, show(&list[i]))
	}
	return out
}

func (s *Server) listWorkspaces(ctx context.Context, c *call, in *pageInput) (*listOutput[*Workspace], error) {
	limit, err := pageSize(in.Limit)
	if err != nil {
		return nil, err
	}
	var after terse.WorkspaceID
	if in.Cursor != "" {
		if after, err = terse.ParseWorkspaceID(in.Cursor); err != nil {
			return nil, errBadCursor()
		}
	}
	list, err := s.o.Auth.ListWorkspaces(ctx, &c.who, after, limit+1)
	if err != nil {
		return nil, err
	}
	return &listOutput[*Workspace]{Body: page(list, limit, showWorkspace, func(w *terse.Workspace) string { return w.ID.String() })}, nil
}

func (s *Server) getWorkspace(ctx context.Context, c *call, in *struct {
	ID string `path:"id" example:"ws_0000000000001"`
}) (*struct{ Body *Workspace }, error) {
	id, err := terse.ParseWorkspaceID(in.ID)
	if err != nil {
		return nil, terse.ErrNotFound
	}
	w, err := s.o.Auth.GetWorkspace(ctx, &c.who, id)
	if err != nil {
		return nil, err
	}
	return &struct{ Body *Workspace }{showWorkspace(&w)}, nil
}

func (s *Server) updateWorkspace(ctx context.Context, c *call, in *struct {
	ID   string `path:"id" example:"ws_0000000000001"`
	Body struct {
		Name          Optional[string]    `json:"name,omitempty"`
		Interstitials Optional[bool]      `json:"interstitials,omitempty" doc:"Lets links show people a page with pixels, or with the destination in a frame. Off unless it is switched on."`
		AppSchemes    Optional[[]string]  `json:"app_schemes,omitempty" doc:"Schemes such as myapp that links may open apps with, at most 50; null: none."`
		StoreUA       Optional[bool]      `json:"store_ua,omitempty" doc:"Keeps the whole User-Agent with each new click. Off unless it is switched on."`
		StoreIP       Optional[string]    `json:"store_ip,omitempty" doc:"no, which is the default, or truncated: keeps the network of the address with each new click, /24 of IPv4 and /48 of IPv6."`
		Retention     Optional[Retention] `json:"retention,omitempty" doc:"How long clicks are kept one by one, in force within a minute; null: as the instance says."`
	}
}) (*struct{ Body *Workspace }, error) {
	id, err := terse.ParseWorkspaceID(in.ID)
	if err != nil {
		return nil, terse.ErrNotFound
	}
	p := auth.WorkspacePatch{
		Name: in.Body.Name.pointer(), Interstitials: in.Body.Interstitials.pointer(), AppSchemes: in.Body.AppSchemes.pointer(),
		StoreUA: in.Body.StoreUA.pointer(), StoreIP: in.Body.StoreIP.pointer(),
	}
	if in.Body.StoreIP.Null {
		no := terse.StoreIPNo.String()
		p.StoreIP = &no
	}
	if r := in.Body.Retention; r.Set {
		var own *terse.Retention
		if !r.Null {
			own = &terse.Retention{RawDays: r.Value.RawDays, BotDays: r.Value.BotDays}
		}
		p.Retention = &own
	}
	w, err := s.o.Auth.UpdateWorkspace(ctx, &c.who, id, p)
	if err != nil {
		return nil, err
	}
	return &struct{ Body *Workspace }{showWorkspace(&w)}, nil
}

type createKeyOutput struct {
	Location string `header:"Location"`
	Body     *CreatedKey
}

func (s *Server) createKey(ctx context.Context, c *call, in *struct {
	Body struct {
		Name        string     `json:"name" doc:"1 to 200 bytes."`
		WorkspaceID string     `json:"workspace_id,omitempty" nullable:"true" doc:"The workspace that the key belongs to; without it the one that the request acts for."`
		Scopes      []string   `json:"scopes" doc:"What the key may do: * is everything within its workspace." example:"[\"links:read\",\"links:write\"]"`
		ExpiresAt   *time.Time `json:"expires_at,omitempty" nullable:"true" doc:"When the key ends by itself."`
	}
}) (*createKeyOutput, error) {
	n := auth.NewKey{Workspace: c.workspace, Name: in.Body.Name, ExpiresAt: pointInTime(in.Body.ExpiresAt)}
	if id := in.Body.WorkspaceID; id != "" {
		var err error
		if n.Workspace, err = terse.ParseWorkspaceID(id); err != nil {
			return nil, terse.ErrNotFound
		}
	}
	for _, scope := range in.Body.Scopes {
		n.Scopes = append(n.Scopes, auth.Scope(scope))
	}
	location := func(k *auth.Key) string { return "/api/v1/keys/" + k.ID }
	type created struct {
		key   auth.Key
		token string
	}
	var also func(auth.Key, string) ([]terse.Document, error)
	if record := answerWith(c.idem, func(v created) (int, map[string]string, any, error) {
		return http.StatusCreated, map[string]string{"Location": location(&v.key)}, &CreatedKey{Key: *showKey(&v.key), Token: v.token}, nil
	}); record != nil {
		also = func(k auth.Key, token string) ([]terse.Document, error) { return record(created{k, token}) }
	}
	k, token, err := s.o.Auth.CreateKey(ctx, &c.who, n, also)
	if err != nil {
		return nil, err
	}
	return &createKeyOutput{Location: location(&k), Body: &CreatedKey{Key: *showKey(&k), Token: token}}, nil
}

func (s *Server) listKeys(ctx context.Context, c *call, in *pageInput) (*listOutput[*Key], error) {
	limit, err := pageSize(in.Limit)
	if err != nil {
		return nil, err
	}
	if in.Cursor != "" && !auth.ValidKeyID(in.Cursor) {
		return nil, errBadCursor()
	}
	list, err := s.o.Auth.ListKeys(ctx, c.workspace, in.Cursor, limit+1)
	if err != nil {
		return nil, err
	}
	return &listOutput[*Key]{Body: page(list, limit, showKey, func(k *auth.Key) string { return k.ID })}, nil
}

type keyID struct {
	ID string `path:"id" example:"3kZp0aQx"`
}

// keyWorkspace is where a key is looked for by id: everywhere if the owner asks and
// names no workspace.
func (c *call) keyWorkspace() terse.WorkspaceID {
	if c.who.Owner && !c.named {
		return auth.AnyWorkspace
	}
	return c.workspace
}

func (s *Server) getKey(ctx context.Context, c *call, in *keyID) (*struct{ Body *Key }, error) {
	k, err := s.o.Auth.GetKey(ctx, c.keyWorkspace(), in.ID)
	if err != nil {
		return nil, err
	}
	return &struct{ Body *Key }{showKey(&k)}, nil
}

func (s *Server) deleteKey(ctx context.Context, c *call, in *keyID) (*struct{}, error) {
	return nil, s.o.Auth.DeleteKey(ctx, c.keyWorkspace(), in.ID)
}
