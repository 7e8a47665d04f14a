// Package wire is what an edge node and a control plane say to each other under /api/v1/edge: paths and bodies, for both
// sides. docs/edge.md describes it.
package wire

import (
	"encoding/json"
	"time"

	"github.com/terselink/terse"
)

// Paths of the operations.
const (
	PathLink      = "/api/v1/edge/link"
	PathDocument  = "/api/v1/edge/document"
	PathDocuments = "/api/v1/edge/documents"
	PathChanges   = "/api/v1/edge/changes"
	PathClaims    = "/api/v1/edge/claims/" // and the id of a link
	PathSalts     = "/api/v1/edge/salts"
	PathClicks    = "/api/v1/edge/clicks"
)

// HeaderMark brings the mark of a position back. It is a header since control planes that know none refuse parameters that they
// do not know.
const HeaderMark = "Terse-Edge-Mark"

// MaxWait is the longest time that a request for changes waits for some. It is short, so that a control plane can stop.
const MaxWait = time.Second

const (
	// PageChanges is how many changes a page has at most, and PageBytes how many bytes of links and documents end it.
	PageChanges = 500
	PageBytes   = 4 << 20
)

// Documents of kind meta that an edge may read.
const (
	MetaDefaultDomain = "default_domain"
	MetaCookieKey     = "cookie-key"
)

// Readable reports whether an edge may read a document.
func Readable(w terse.WorkspaceID, kind terse.Kind, id string) bool {
	switch kind {
	case terse.KindDomain, terse.KindWorkspace, terse.KindClicks:
		return w == 0
	case terse.KindCampaign:
		return true
	case terse.KindMeta:
		return w == 0 && (id == MetaDefaultDomain || id == MetaCookieKey)
	}
	return false
}

// Kept reports whether an edge keeps a document that it may read, and so wants to hear of its changes.
func Kept(w terse.WorkspaceID, kind terse.Kind, id string) bool {
	return kind != terse.KindClicks && Readable(w, kind, id)
}

// EdgeLink is the answer to a question for a link.
type EdgeLink struct {
	Link json.RawMessage `json:"link" doc:"The link as nodes keep it (package linkjson); null: there is none."`
}

// EdgeDocument is a document of the store.
type EdgeDocument struct {
	Workspace terse.WorkspaceID `json:"workspace"`
	Kind      terse.Kind        `json:"kind"`
	ID        string            `json:"id"`
	Version   uint64            `json:"version" doc:"0: it is gone."`
	Data      []byte            `json:"data,omitempty"`
}

// DocumentOf makes an EdgeDocument of a stored one.
func DocumentOf(d *terse.Document) EdgeDocument {
	return EdgeDocument{d.Workspace, d.Kind, d.ID, d.Version, d.Data}
}

// Stored is the reverse of DocumentOf.
func (d *EdgeDocument) Stored() terse.Document {
	return terse.Document{Workspace: d.Workspace, Kind: d.Kind, ID: d.ID, Version: d.Version, Data: d.Data}
}

// EdgeDocumentAnswer is the answer to a question for a document.
type EdgeDocumentAnswer struct {
	Document *EdgeDocument `json:"document" doc:"null: there is none."`
}

// EdgeDocuments is the answer to a question for several.
type EdgeDocuments struct {
	Documents []EdgeDocument `json:"documents"`
}

// EdgeChange is a terse.Change. Documents come in the page beside it.
type EdgeChange struct {
	Kind    terse.ChangeKind `json:"kind"`
	Runs    []EdgeRun        `json:"runs"`
	Version uint64           `json:"version"`
}

// EdgeRun is a terse.Run.
type EdgeRun struct {
	First terse.LinkNumber `json:"first"`
	Count uint64           `json:"count"`
}

// EdgeChanges is what was written after a position.
type EdgeChanges struct {
	Position uint64 `json:"position" doc:"Where to go on."`
	Epoch    string `json:"epoch" doc:"Names the feed. A position means nothing in another one: if it is not the one of the answer before, everything is to be read again."`
	Mark     string `json:"mark" doc:"Of the change at the position, to be sent along with it; empty: there is none. A feed that was restored from a backup has another change there."`
	Reset    bool   `json:"reset" doc:"The position asked for is none of this instance, or changes after it were forgotten: everything is to be read again."`

	More *bool `json:"more,omitempty" doc:"There may be more changes after the position: only an answer without says that all is told that was written before it was asked for. Older versions do not say it."`

	Changes   []EdgeChange      `json:"changes" doc:"Of links."`
	Links     []json.RawMessage `json:"links" doc:"The links that were updated, as they are now."`
	Documents []EdgeDocument    `json:"documents" doc:"The documents that were written or deleted, as they are now."`
}

// EdgeClaim is how many clicks of a link with a limit have been claimed.
type EdgeClaim struct {
	Version uint64 `json:"version" doc:"Of the claim, one more than the one before." minimum:"1"`
	Used    uint64 `json:"used"`
}

// EdgeSalts are the salts of visitors, by day.
type EdgeSalts struct {
	Salts map[string][]byte `json:"salts" doc:"2026-11-23: 16 bytes."`
}

// EdgeClicks says where the clicks of an edge go, and up to where they are there.
type EdgeClicks struct {
	Receiver string `json:"receiver" doc:"The spool that they go into."`
	Position string `json:"position" doc:"In the spool of the edge; empty: the beginning."`
}
