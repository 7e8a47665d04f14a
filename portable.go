package terse

import "context"

// Portable is a store that can be copied into another engine, and be such a copy: what it
// holds comes out as it is and goes in as it is, with numbers, versions and times. Every engine is
// one. It is for a store that nobody uses meanwhile; package storecopy has the procedure.
//
// The rules of Store hold for these methods, too. Links go in by Store.InsertLinks, which keeps the version and
// the times of a link, and counters by Store.Lease.
type Portable interface {
	Store

	// Dump returns what the store holds beside its links, part by part: every document, every counter,
	// every reservation and every code that is retired. after is Part.Next of the part before, "" for the first. The
	// order is the engine's own. What is there during the whole dump and does not change is returned exactly once. A part has at
	// most limit things (1 to 10,000); it may have none while Next says that there is more.
	// Returns an error of code invalid for an after that is not this engine's.
	Dump(ctx context.Context, after string, limit int) (Part, error)
	// DumpLinks returns the links of a workspace, oldest first: what ListLinks returns for a query
	// without filters, in the opposite order. after is LinkPage.Next of the page before, "" for the
	// first. The rest is as for ListLinks.
	DumpLinks(ctx context.Context, w WorkspaceID, after string, limit int) (LinkPage, error)
	// Load writes documents with the versions that they have, reservations and retired codes. What is there
	// already and the same stays as it is, so to load a part again is safe; a document or a code that is there
	// and is another is ErrExists and stays. A part is not atomic: after an error some of it may be
	// there. It says nothing in the change feed.
	Load(ctx context.Context, part *Part) error
}

// Part is some of what a store holds beside its links.
type Part struct {
	Documents []Document
	Counters  []Counter    // Load does not read them
	Reserved  []LinkNumber // that aliases reserve (Link.Reserves), also those of deleted aliases
	Retired   []RetiredCode
	Next      string // "" at the end; Load does not read it
}

// Counter is the state of one space.
type Counter struct {
	Domain DomainID
	Space  SpaceID
	Next   uint64 // what Store.Next returns; at least 1
}

// RetiredCode is a code of a domain that led to a link which is gone, and is never used again.
type RetiredCode struct {
	Number LinkNumber // of the link
	Code   string
}
