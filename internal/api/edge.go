package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/auth"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/edge/wire"
	"github.com/terselink/terse/internal/inbox"
	"github.com/terselink/terse/internal/linkjson"
)

// Edge is what the control plane has for edge nodes beside the store.
type Edge struct {
	// Head returns a position such that every change of the store that Changes does not show yet has a larger Seq. Required.
	Head func(context.Context) (uint64, error)
	// Epoch names the feed of changes: a store and a copy of it have different ones.
	Epoch string
	// Inbox takes their clicks, and Salts are those of the visitors here; nil: this process records no clicks.
	Inbox *inbox.Inbox
	Salts func() map[string][16]byte
}

const (
	// edgePage is how many changes an edge is told at once.
	edgePage = wire.PageChanges
	// edgeBytes is how many bytes of links and documents end a page of changes.
	edgeBytes = wire.PageBytes
	// edgeLook is how often the store is asked for changes while an edge waits for some.
	edgeLook = 200 * time.Millisecond
	// edgeBatch is how long a batch of clicks may take to arrive: longer than an edge waits.
	edgeBatch = 90 * time.Second
)

var appendEdgeClicks = operation{
	ID: "appendEdgeClicks", Method: http.MethodPatch, Path: wire.PathClicks, Tag: "Edge", Scope: auth.ScopeEdgeUse, Status: http.StatusOK,
	Summary: "Take clicks of an edge node",
	Description: "The body is whole groups of its spool (docs/format/spool.md), which lie between the positions from and to. They are on disk when " +
		"the answer is sent. If the position that it names is not to, nothing was taken and the edge goes on from there.",
	Errors: []int{409}, stream: true,
}

func (s *Server) registerEdge() {
	op := func(id, method, path, summary, description string, errs ...int) operation {
		return operation{
			ID: id, Method: method, Path: path, Tag: "Edge", Scope: auth.ScopeEdgeUse, Status: http.StatusOK, Summary: summary, Description: description, Errors: errs,
		}
	}
	register(s, op("getEdgeLink", http.MethodGet, wire.PathLink, "Read a link for an edge node", "By its number, or by domain and code if it is found by name."), s.edgeLink)
	register(s, op("getEdgeDocument", http.MethodGet, wire.PathDocument, "Read a document for an edge node", "Only what redirects need."), s.edgeDocument)
	register(s, op("listEdgeDocuments", http.MethodGet, wire.PathDocuments, "List documents for an edge node", "All domains, or the settings of all workspaces, in the order of id."), s.edgeDocuments)
	register(s, op("listEdgeChanges", http.MethodGet, wire.PathChanges, "Hear of changes",
		"Those after a position, in order and without gaps. If there are none, the answer waits for some up to a second. Without a position it says where the feed is now."), s.edgeChanges)
	claim := op("putEdgeClaim", http.MethodPut, wire.PathClaims+"{id}", "Claim clicks of a link with a limit", "Written if the version is one more than the one that is stored. The link must exist.", 409)
	claim.Status = http.StatusNoContent
	register(s, claim, s.putEdgeClaim)
	register(s, op("getEdgeSalts", http.MethodGet, wire.PathSalts, "Read the salts of visitors", "So that a visitor is the same one at each edge. They must be deleted within 48 hours."), s.edgeSalts)
	register(s, op("getEdgeClicks", http.MethodGet, wire.PathClicks, "Say up to where the clicks of an edge node are here", ""), s.edgeClicks)

	doc := s.mountRaw(appendEdgeClicks, s.appendEdgeClicks)
	for _, name := range []string{"edge", "receiver", "from", "to"} {
		doc.Parameters = append(doc.Parameters, &huma.Param{Name: name, In: "query", Required: name != "from", Schema: &huma.Schema{Type: huma.TypeString}})
	}
	doc.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
		"application/octet-stream": {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}},
	}}
	doc.Responses["200"] = &huma.Response{Description: "Up to where the clicks of the edge are here", Content: map[string]*huma.MediaType{
		typeJSON: {Schema: s.huma.OpenAPI().Components.Schemas.Schema(typeOf[wire.EdgeClicks](), true, "EdgeClicks")},
	}}
	s.huma.OpenAPI().AddOperation(doc)
}

func (s *Server) edgeLink(ctx context.Context, _ *call, in *struct {
	Number uint64 `query:"number" doc:"Of the link."`
	Domain uint32 `query:"domain" doc:"Number of the domain, beside code."`
	Code   string `query:"code"`
}) (*struct{ Body wire.EdgeLink }, error) {
	var l terse.Link
	switch {
	case in.Number != 0:
		keys, found := [1]terse.LinkKey{s.edgeKey(terse.LinkNumber(in.Number), in.Code)}, [1]terse.Link{}
		if err := s.o.Store.GetLinks(ctx, keys[:], found[:]); err != nil {
			return nil, err
		}
		l = found[0]
	case in.Code != "":
		found, err := s.o.Store.GetAlias(ctx, terse.DomainID(in.Domain), in.Code)
		if err != nil && !errors.Is(err, terse.ErrNotFound) {
			return nil, err
		}
		l = found
	default:
		return nil, terse.Invalid("number", "a number, or a domain and a code are required")
	}
	out := &struct{ Body wire.EdgeLink }{wire.EdgeLink{Link: json.RawMessage("null")}}
	if l.Number == 0 {
		return out, nil
	}
	var err error
	out.Body.Link, err = linkjson.Marshal(&l)
	return out, err
}

// edgeKey names a link that an edge knows by its number, and maybe by its code.
func (s *Server) edgeKey(n terse.LinkNumber, code string) terse.LinkKey {
	if code == "" {
		code, _ = s.o.Domains.CodeOf(n) // else it is one whose code the store knows
	}
	return terse.LinkKey{Number: n, Code: code}
}

func (s *Server) edgeDocument(ctx context.Context, _ *call, in *struct {
	Workspace uint32 `query:"workspace"`
	Kind      string `query:"kind" required:"true"`
	ID        string `query:"id" required:"true"`
}) (*struct{ Body wire.EdgeDocumentAnswer }, error) {
	w, kind := terse.WorkspaceID(in.Workspace), terse.Kind(in.Kind)
	if !wire.Readable(w, kind, in.ID) {
		return nil, &terse.Error{Code: terse.CodeForbidden, Message: "this document is none of an edge node's"}
	}
	d, err := s.edgeRead(ctx, w, kind, in.ID)
	if err != nil {
		return nil, err
	}
	out := &struct{ Body wire.EdgeDocumentAnswer }{}
	if d.Version != 0 {
		out.Body.Document = &d
	}
	return out, nil
}

// edgeRead returns a document, of version 0 if there is none.
func (s *Server) edgeRead(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, id string) (wire.EdgeDocument, error) {
	doc, err := s.o.Store.GetDocument(ctx, w, kind, id)
	if errors.Is(err, terse.ErrNotFound) {
		return wire.EdgeDocument{Workspace: w, Kind: kind, ID: id}, nil
	}
	return wire.DocumentOf(&doc), err
}

func (s *Server) edgeDocuments(ctx context.Context, _ *call, in *struct {
	Kind  string `query:"kind" required:"true" enum:"domain,workspace"`
	After string `query:"after" doc:"The last id of the page before."`
}) (*struct{ Body wire.EdgeDocuments }, error) {
	docs, err := s.o.Store.ListDocuments(ctx, 0, terse.Kind(in.Kind), in.After, edgePage)
	if err != nil {
		return nil, err
	}
	out := &struct{ Body wire.EdgeDocuments }{wire.EdgeDocuments{Documents: make([]wire.EdgeDocument, len(docs))}}
	for i := range docs {
		out.Body.Documents[i] = wire.DocumentOf(&docs[i])
	}
	return out, nil
}

func (s *Server) edgeChanges(ctx context.Context, _ *call, in *struct {
	After string `query:"after" doc:"The position; without it nothing but the one of now is answered."`
	Mark  string `header:"Terse-Edge-Mark" doc:"The mark that was answered with the position."`
}) (*struct{ Body *wire.EdgeChanges }, error) {
	out := &wire.EdgeChanges{Epoch: s.o.Edge.Epoch, More: new(false), Changes: []wire.EdgeChange{}, Links: []json.RawMessage{}, Documents: []wire.EdgeDocument{}}
	answer := &struct{ Body *wire.EdgeChanges }{out}
	if in.After == "" {
		var err error
		if out.Position, err = s.o.Edge.Head(ctx); err == nil {
			out.Mark, _, err = s.edgeMark(ctx, out.Position)
		}
		return answer, err
	}
	after, err := strconv.ParseUint(in.After, 10, 64)
	if err != nil {
		return nil, terse.Invalid("after", "is not a position")
	}
	out.Position, out.Mark = after, in.Mark
	list, err := s.awaitChanges(ctx, after)
	if _, forgotten := errors.AsType[*terse.ForgottenError](err); forgotten {
		out.Reset = true
		return answer, nil
	}
	if err != nil {
		return nil, err
	}
	if ctx.Err() != nil { // nobody reads the answer
		return answer, nil
	}
	// Only now: the store may be restored while changes are awaited.
	mark, known, err := s.edgeMark(ctx, after)
	if err != nil {
		return nil, err
	}
	if known {
		if in.Mark != "" && in.Mark != mark {
			out.Reset = true // the store was restored from a backup, or lost its end, and other changes have these positions
			return answer, nil
		}
		out.Mark = mark
	}
	if len(list) == 0 {
		head, err := s.o.Edge.Head(ctx)
		out.Reset = after > head // a store that was restored from a backup, or another one
		return answer, err
	}
	return answer, s.fillChanges(ctx, out, list)
}

// edgeMark returns what tells the change at a position from another one that might have been there: when it was written. It is
// empty if there is no change; known is false if nobody can say, because it may have been forgotten.
// PostgreSQL drops an insert from the feed with the purge of its links: an edge that is there then reads everything again, once.
func (s *Server) edgeMark(ctx context.Context, at uint64) (mark string, known bool, err error) {
	if at == 0 {
		return "", false, nil
	}
	list, err := s.o.Store.Changes(ctx, at-1, 1)
	if _, forgotten := errors.AsType[*terse.ForgottenError](err); forgotten {
		return "", false, nil
	}
	if err != nil || len(list) == 0 || list[0].Seq != at {
		return "", err == nil, err
	}
	return markOf(&list[0]), true, nil
}

func markOf(c *terse.Change) string { return strconv.FormatInt(int64(c.At), 36) }

// awaitChanges returns changes, none if there are none within wire.MaxWait or until the edge is gone.
func (s *Server) awaitChanges(ctx context.Context, after uint64) ([]terse.Change, error) {
	look := time.NewTicker(edgeLook)
	defer look.Stop()
	over := time.NewTimer(wire.MaxWait)
	defer over.Stop()
	for {
		list, err := s.o.Store.Changes(ctx, after, edgePage)
		if err != nil || len(list) > 0 {
			return list, err
		}
		select {
		case <-look.C:
		case <-over.C:
			return nil, nil
		case <-ctx.Done():
			return nil, nil
		}
	}
}

// fillChanges adds the changes, what the links and documents are now, and where to go on: after those that edgeBytes have room for.
func (s *Server) fillChanges(ctx context.Context, out *wire.EdgeChanges, list []terse.Change) error {
	type name struct {
		w    terse.WorkspaceID
		kind terse.Kind
		id   string
	}
	updated, err := s.updatedLinks(ctx, list)
	if err != nil {
		return err
	}
	written, size := map[name]bool{}, 0
	*out.More = len(list) >= edgePage
	for i := range list {
		if size >= edgeBytes {
			*out.More = true
			break
		}
		c := &list[i]
		out.Position, out.Mark = c.Seq, markOf(c)
		if c.Kind == terse.ChangeDocument {
			n := name{c.Workspace, c.DocKind, c.DocID}
			if !wire.Kept(n.w, n.kind, n.id) || written[n] {
				continue
			}
			written[n] = true
			d, err := s.edgeRead(ctx, n.w, n.kind, n.id)
			if err != nil {
				return err
			}
			size += len(d.Data)
			out.Documents = append(out.Documents, d)
			continue
		}
		change := wire.EdgeChange{Kind: c.Kind, Version: c.Version}
		for _, r := range c.Runs {
			change.Runs = append(change.Runs, wire.EdgeRun{First: r.First, Count: r.Count})
			l := updated[r.First]
			if c.Kind != terse.ChangeUpdated || l == nil {
				continue
			}
			delete(updated, r.First)
			b, err := linkjson.Marshal(l)
			if err != nil {
				return err
			}
			size += len(b)
			out.Links = append(out.Links, b)
		}
		out.Changes = append(out.Changes, change)
	}
	return nil
}

// updatedLinks returns the links that changes have updated, as they are now. Those that were deleted since are missing, which the feed says
// later.
func (s *Server) updatedLinks(ctx context.Context, list []terse.Change) (map[terse.LinkNumber]*terse.Link, error) {
	links := map[terse.LinkNumber]*terse.Link{}
	var keys []terse.LinkKey
	for i := range list {
		if list[i].Kind != terse.ChangeUpdated {
			continue
		}
		for _, r := range list[i].Runs {
			if _, ok := links[r.First]; !ok {
				links[r.First] = nil
				keys = append(keys, s.edgeKey(r.First, ""))
			}
		}
	}
	if len(keys) == 0 {
		return links, nil
	}
	found := make([]terse.Link, len(keys))
	if err := s.o.Store.GetLinks(ctx, keys, found); err != nil {
		return nil, err
	}
	for i := range found {
		if found[i].Number != 0 {
			links[found[i].Number] = &found[i]
		}
	}
	return links, nil
}

func (s *Server) putEdgeClaim(ctx context.Context, _ *call, in *struct {
	ID   string `path:"id" example:"link_0000000000001"`
	Body wire.EdgeClaim
}) (*struct{}, error) {
	n, err := terse.ParseLinkNumber(in.ID)
	if err != nil {
		return nil, terse.ErrNotFound
	}
	if in.Body.Version == 1 { // the others have one before them: no document comes to be for a link that does not exist
		keys, found := [1]terse.LinkKey{s.edgeKey(n, "")}, [1]terse.Link{}
		if err := s.o.Store.GetLinks(ctx, keys[:], found[:]); err != nil {
			return nil, err
		}
		if found[0].Number == 0 {
			return nil, terse.ErrNotFound
		}
	}
	data, err := json.Marshal(struct {
		Used uint64 `json:"used"`
	}{in.Body.Used})
	if err != nil {
		return nil, err
	}
	return nil, s.o.Store.PutDocument(ctx, terse.Document{Kind: terse.KindClicks, ID: n.String(), Version: in.Body.Version, Data: data})
}

func (s *Server) edgeSalts(_ context.Context, _ *call, _ *struct{}) (*struct{ Body wire.EdgeSalts }, error) {
	out := &struct{ Body wire.EdgeSalts }{wire.EdgeSalts{Salts: map[string][]byte{}}}
	if s.o.Edge.Salts == nil {
		return nil, s.noInbox()
	}
	for day, salt := range s.o.Edge.Salts() {
		out.Body.Salts[day] = salt[:]
	}
	return out, nil
}

// noInbox refuses the clicks of an edge. The operator of this side learns of it, too, once: those of the edge only see clicks that wait.
func (s *Server) noInbox() error {
	s.noInboxOnce.Do(func() {
		s.o.Log.Warn("an edge node has clicks for this node, which takes none: it has the role control without redirect, or clicks.enabled is false; they wait on the disk of the edge (docs/edge.md)")
	})
	return &terse.Error{
		Code: terse.CodeUnavailable, Reason: "clicks_disabled", Message: "this server records no clicks; edge nodes need one with the roles redirect and control",
	}
}

func (s *Server) edgeClicks(_ context.Context, _ *call, in *struct {
	Edge string `query:"edge" required:"true"`
}) (*struct{ Body wire.EdgeClicks }, error) {
	if s.o.Edge.Inbox == nil {
		return nil, s.noInbox()
	}
	p, err := s.o.Edge.Inbox.Position(in.Edge)
	if err != nil {
		return nil, err
	}
	return &struct{ Body wire.EdgeClicks }{wire.EdgeClicks{Receiver: s.o.Edge.Inbox.Receiver(), Position: p.String()}}, nil
}

func (s *Server) appendEdgeClicks(w http.ResponseWriter, r *http.Request) error {
	in := s.o.Edge.Inbox
	if in == nil {
		return s.noInbox()
	}
	q := r.URL.Query()
	if name := q.Get("receiver"); name != in.Receiver() {
		return &terse.Error{Code: terse.CodeConflict, Reason: "other_node", Message: "the clicks of this edge go to another node, whose spool is " + strconv.Quote(name)}
	}
	from, err := clicks.ParsePosition(q.Get("from"))
	if err != nil {
		return terse.Invalid("from", "is not a position")
	}
	to, err := clicks.ParsePosition(q.Get("to"))
	if err != nil {
		return terse.Invalid("to", "is not a position")
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(edgeBatch)) // a writer without deadlines, as in tests, is fine
	body, err := io.ReadAll(io.LimitReader(r.Body, inbox.MaxBatch+1))
	if err != nil {
		return newProblem(http.StatusBadRequest, "the body could not be read")
	}
	if len(body) > inbox.MaxBatch {
		return &terse.Error{Code: terse.CodeTooLarge, Message: "a batch of clicks has at most 16 MiB"}
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	p, err := in.Take(r.Context(), q.Get("edge"), from, to, body)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", typeJSON)
	_, _ = w.Write(mustMarshal(wire.EdgeClicks{Receiver: in.Receiver(), Position: p.String()})) // the edge asks again if it does not hear it
	return nil
}
