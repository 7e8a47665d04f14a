package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/edge/wire"
)

// TestEdgeScope: edge:use is for the whole instance, so a key of a workspace does not have it, whatever else it may do,
// and cannot give it. What it opens holds no keys of the API.
func TestEdgeScope(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	w, everything := b.workspace("all", "*")
	b.wantProblem(403, "forbidden", request{method: "GET", path: wire.PathSalts, key: everything})
	b.wantProblem(403, "scope_exceeded", request{method: "POST", path: "/api/v1/keys", key: everything, body: `{"name":"e","scopes":["edge:use"]}`})
	maker := b.key(w, "edge:use", "keys:write")
	b.wantProblem(403, "scope_exceeded", request{method: "POST", path: "/api/v1/keys", key: maker, body: `{"name":"e","scopes":["edge:use"]}`})
	edge := b.key(w, "edge:use")
	b.want(200, request{method: "GET", path: wire.PathDocument + "?kind=meta&id=default_domain", key: edge})
	for _, q := range []string{"kind=key&id=00000000", "kind=meta&id=owner", "kind=workspace&workspace=1&id=x", "kind=process&id=a"} {
		b.wantProblem(403, "forbidden", request{method: "GET", path: wire.PathDocument + "?" + q, key: edge})
	}
	b.wantProblem(503, "clicks_disabled", request{method: "GET", path: wire.PathClicks + "?edge=0123456789abcdef", key: edge})
}

// TestEdgeEpoch: every page of changes names its feed, also one without changes.
func TestEdgeEpoch(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	w, _ := b.workspace("all", "*")
	edge := b.key(w, "edge:use")
	for _, q := range []string{"", "?after=0", "?after=1000000"} {
		if page := b.edgeChanges(edge, q, ""); page.Epoch != "e1" {
			t.Errorf("%q: epoch %q", q, page.Epoch)
		}
	}
}

// TestEdgeMark: who comes with a position at which there is another change now, or none, is to read everything again.
func TestEdgeMark(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	w, _ := b.workspace("all", "*")
	edge := b.key(w, "edge:use")
	head := b.edgeChanges(edge, "?after=0", "")
	if head.Mark == "" || head.Position == 0 {
		t.Fatalf("read up to %d %q", head.Position, head.Mark)
	}
	at := func(position uint64, mark string) wire.EdgeChanges {
		b.key(w, "links:read") // something to read, so that nobody waits
		return b.edgeChanges(edge, fmt.Sprintf("?after=%d", position), mark)
	}
	if page := at(head.Position, head.Mark); page.Reset || page.Position <= head.Position || page.Mark == "" {
		t.Errorf("from where it was: %+v", page)
	}
	if page := at(head.Position, ""); page.Reset || page.Position <= head.Position {
		t.Errorf("without a mark: %+v", page)
	}
	if page := at(head.Position, head.Mark+"x"); !page.Reset {
		t.Errorf("another change was there: %+v", page)
	}
	if page := at(head.Position+1000, head.Mark); !page.Reset {
		t.Errorf("no change is there: %+v", page)
	}
}

// edgeChanges returns a page of changes. The mark is that of the position; "": none is sent.
func (b *bench) edgeChanges(key, query, mark string) (page wire.EdgeChanges) {
	b.t.Helper()
	header := map[string]string{}
	if mark != "" {
		header[wire.HeaderMark] = mark
	}
	a := b.want(200, request{method: "GET", path: wire.PathChanges + query, key: key, header: header})
	if err := json.Unmarshal(a.body, &page); err != nil {
		b.t.Fatal(err)
	}
	return page
}

// byCode is a store that finds a link with a generated code by its code alone, as that of DynamoDB.
type byCode struct{ terse.Store }

func (s byCode) GetLinks(ctx context.Context, keys []terse.LinkKey, dst []terse.Link) error {
	if err := s.Store.GetLinks(ctx, keys, dst); err != nil {
		return err
	}
	for i := range dst {
		if keys[i].Code != dst[i].Code {
			dst[i] = terse.Link{}
		}
	}
	return nil
}

// TestEdgeLinkByCode: an edge that knows the number of a link alone, and one that hears of its change, are told the link by each store.
func TestEdgeLinkByCode(t *testing.T) {
	t.Parallel()
	b := setup(t, options{wrap: func(s terse.Store) terse.Store { return byCode{s} }})
	w, key := b.workspace("all", "*")
	edge := b.key(w, "edge:use")
	var link struct {
		ID string `json:"id"`
	}
	a := b.want(201, request{method: "POST", path: "/api/v1/links", key: key, body: `{"destination":"https://example.org/"}`})
	if err := json.Unmarshal(a.body, &link); err != nil {
		t.Fatal(err)
	}
	n, err := terse.ParseLinkNumber(link.ID)
	if err != nil {
		t.Fatal(err)
	}
	b.want(200, request{method: "PATCH", path: "/api/v1/links/" + link.ID, key: key, body: `{"destination":"https://example.com/"}`})
	if page := b.edgeChanges(edge, "?after=0", ""); len(page.Links) != 1 {
		t.Errorf("%d links in the page of changes, want 1", len(page.Links))
	}
	var one wire.EdgeLink
	a = b.want(200, request{method: "GET", path: fmt.Sprintf("%s?number=%d", wire.PathLink, uint64(n)), key: edge})
	if err := json.Unmarshal(a.body, &one); err != nil || string(one.Link) == "null" {
		t.Errorf("link %s, error %v", one.Link, err)
	}
}

// large is a store whose feed is four large documents.
type large struct{ terse.Store }

func (s large) Changes(_ context.Context, after uint64, limit int) (list []terse.Change, err error) {
	for seq := after + 1; seq <= 4 && len(list) < limit; seq++ {
		list = append(list, terse.Change{Seq: seq, Kind: terse.ChangeDocument, DocKind: terse.KindDomain, DocID: fmt.Sprint("large", seq)})
	}
	return list, nil
}

func (s large) GetDocument(ctx context.Context, w terse.WorkspaceID, kind terse.Kind, id string) (terse.Document, error) {
	if d := (terse.Document{Workspace: w, Kind: kind, ID: id, Version: 1}); len(id) == len("large1") && id[:5] == "large" {
		d.Data = make([]byte, 3<<19)
		return d, nil
	}
	return s.Store.GetDocument(ctx, w, kind, id)
}

// TestEdgeChangesBytes: a page ends where it is large enough, and the next one goes on there.
func TestEdgeChangesBytes(t *testing.T) {
	t.Parallel()
	b := setup(t, options{wrap: func(s terse.Store) terse.Store { return large{s} }})
	w, _ := b.workspace("all", "*")
	edge := b.key(w, "edge:use")
	if page := b.edgeChanges(edge, "?after=0", ""); page.Position != 3 || len(page.Documents) != 3 {
		t.Errorf("position %d, %d documents, want 3", page.Position, len(page.Documents))
	}
	if page := b.edgeChanges(edge, "?after=3", ""); page.Position != 4 || len(page.Documents) != 1 {
		t.Errorf("position %d, %d documents, want 4 and 1", page.Position, len(page.Documents))
	}
}

// TestEdgeClaim: clicks are claimed of links that exist, so that no key of an edge fills the store with claims of others.
func TestEdgeClaim(t *testing.T) {
	t.Parallel()
	b := setup(t, options{wrap: func(s terse.Store) terse.Store { return byCode{s} }})
	w, key := b.workspace("all", "*")
	edge := b.key(w, "edge:use")
	var link struct {
		ID string `json:"id"`
	}
	a := b.want(201, request{method: "POST", path: "/api/v1/links", key: key, body: `{"destination":"https://example.org/","max_clicks":10}`})
	if err := json.Unmarshal(a.body, &link); err != nil {
		t.Fatal(err)
	}
	claim := func(id string, version int) request {
		return request{method: "PUT", path: wire.PathClaims + id, key: edge, body: fmt.Sprintf(`{"version":%d,"used":%d}`, version, version)}
	}
	n, err := terse.ParseLinkNumber(link.ID)
	if err != nil {
		t.Fatal(err)
	}
	other := (n + 1).String()
	b.wantProblem(404, "not_found", claim(other, 1))
	b.want(412, claim(other, 2))
	b.want(204, claim(link.ID, 1))
	b.want(409, claim(link.ID, 1))
	b.want(204, claim(link.ID, 2))
}
