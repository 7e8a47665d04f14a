package terse

import "context"

// Store keeps links and documents. It does bytes, versions, ranges and batches;
// every rule about links lives above it, in internal/links.
//
// For all methods:
//
//   - A write that returns nil is durable: it survives the loss of the process and
//     of power, and every later read on this node sees it.
//   - A write that returns an error was not applied, unless the error is
//     ErrUnknownOutcome: then it may have been. Repeating a write with the same
//     keys and versions is always safe: it is applied at most once, and the
//     repetition fails with the error that a second writer would get.
//   - ErrUnavailable means that the engine cannot be reached now; nothing was applied.
//   - A cancelled context ends a call early with an error that wraps ctx.Err();
//     a write that had been sent by then ends as ErrUnknownOutcome.
//   - Methods may be called at once from many goroutines.
//   - Arguments belong to the caller again when the call returns; results belong
//     to the caller. Neither side modifies what the other owns.
//   - Strings compare by bytes, whatever the collation of the engine.
type Store interface {
	// Lease takes the next indexes of a space for ever: no other call gets them,
	// on any node, and they are never given back. The first index of a space is 0.
	// Returns ErrSpaceFull if the cap is reached.
	Lease(ctx context.Context, req LeaseRequest) (Lease, error)
	// Next returns the index that the next lease of the space will start with;
	// 0 for a space without leases.
	Next(ctx context.Context, d DomainID, s SpaceID) (uint64, error)
	// Reservations returns at most limit indexes of a space that aliases reserve (Link.Reserves),
	// ascending, those from the given index on. Sees every insert that returned before the call.
	// A reservation stays when its alias is deleted and when its index is leased.
	Reservations(ctx context.Context, d DomainID, s SpaceID, from uint64, limit int) ([]uint64, error)

	// InsertLinks inserts all links of the chunk and puts all its documents, or
	// does nothing. Numbers come from a lease of the caller; a number that is
	// in use is a conflict, never an overwrite.
	//
	// For a link that is Named (Link.ByCode, or any in AliasSpace), Code must be free
	// among the names of its domain. If Reserves is set, which only an alias may have, its index must not have been leased, or be
	// reserved by an alias already (the alias itself then decides), and is
	// reserved from now on: leases report it.
	//
	// Returns *AliasConflictError naming every link that is in the way of the
	// chunk, else ErrVersion or ErrExists as PutDocument does, for the first document in the way.
	InsertLinks(ctx context.Context, chunk *Chunk) error
	// GetLinks fills dst[i] with the link of keys[i]; a link that does not
	// exist leaves a zero Link (Number 0). The slices have the same length.
	// Code is set for links that are Named; for others it is set if the engine
	// stores it or the key named it.
	GetLinks(ctx context.Context, keys []LinkKey, dst []Link) error
	// GetAlias returns the Named link of a code, of whatever space. Returns ErrNotFound if there is none.
	GetAlias(ctx context.Context, d DomainID, alias string) (Link, error)
	// FindPlain returns a link of the workspace on the domain that is Plain, has the
	// destination and has not ended by the time at; which, if there are several,
	// is not defined. Sees every link whose insert returned before the call.
	// Returns ErrNotFound if there is none.
	FindPlain(ctx context.Context, w WorkspaceID, d DomainID, destination string, at Millis) (Link, error)
	// UpdateLink replaces the link if its stored version is ifVersion; link.Version
	// must be larger. Number, Workspace, Code and ByCode do not change. Returns ErrNotFound, ErrVersion.
	UpdateLink(ctx context.Context, link *Link, ifVersion uint64) error
	// DeleteLink removes the link if its stored version is ifVersion (0: any). Its
	// number, its reservation and its code, if it is ByCode, are never used again; its
	// alias, if it has one, becomes free. Returns ErrNotFound, ErrVersion.
	DeleteLink(ctx context.Context, key LinkKey, ifVersion uint64) error
	// ListLinks returns links of a workspace, newest first. A page may hold fewer
	// links than asked for, even none, while Next says that there is more: an
	// engine bounds the work of one call. A link that exists during the whole
	// listing is returned exactly once, whatever is inserted meanwhile.
	// Returns an error of code invalid for a cursor that is not this engine's.
	ListLinks(ctx context.Context, w WorkspaceID, q ListQuery) (LinkPage, error)
	// CountLinks returns how many links of the workspace are in the campaign; 0 for a campaign
	// without any. Sees every write that returned before the call. It need not be exact while
	// links come and go, and must not read them one by one.
	CountLinks(ctx context.Context, w WorkspaceID, c CampaignID) (uint64, error)
	// PurgeLinks removes links of a campaign for ever and gives the space that they take back to
	// the engine: about limit of them in one call (1 to 10,000), in no order. It is for a campaign whose
	// document is gone, which ended its links for everybody, and whose blocked links were taken out of it: so there is no change in the feed.
	// As after DeleteLink their numbers, reservations and codes that are ByCode are never used
	// again, and aliases become free; but an engine need not remember each number, so
	// InsertLinks with a purged one, which no lease returns, may be a conflict or not.
	// Returns how many links it removed; 0 says that no link of the campaign is left.
	PurgeLinks(ctx context.Context, w WorkspaceID, c CampaignID, limit int) (int, error)

	// GetDocument returns a document. Returns ErrNotFound.
	GetDocument(ctx context.Context, w WorkspaceID, kind Kind, id string) (Document, error)
	// PutDocument writes doc if the stored version is doc.Version - 1: version 1
	// creates. Returns ErrExists if version 1 meets a document, else ErrVersion.
	PutDocument(ctx context.Context, doc Document) error
	// DeleteDocument removes the document if its version is ifVersion (0: any).
	// Returns ErrNotFound, ErrVersion.
	DeleteDocument(ctx context.Context, w WorkspaceID, kind Kind, id string, ifVersion uint64) error
	// ListDocuments returns at most limit documents of a kind in byte order of id,
	// those after the given id.
	ListDocuments(ctx context.Context, w WorkspaceID, kind Kind, after string, limit int) ([]Document, error)

	// Changes returns at most limit changes with Seq > after, in order, without
	// gaps: a change that was not returned by a call has a larger Seq than all
	// that were. The numbers need not be consecutive. Engines may forget changes
	// that are older than a day or that a million others followed, about the oldest
	// first. Returns *ForgottenError if a change with Seq > after may have been
	// forgotten, now and at every later call: a caller who must know everything
	// starts again from a listing, any other may go on from the error's Floor.
	// Without the error nothing is missing.
	Changes(ctx context.Context, after uint64, limit int) ([]Change, error)

	// Ping returns nil if the engine can serve reads and writes now.
	Ping(ctx context.Context) error
	// Close ends the store. Calls under way finish or fail. A second Close is nil.
	Close() error
}

// LeaseRequest asks for indexes.
type LeaseRequest struct {
	Domain DomainID
	Space  SpaceID
	Count  uint64 // at least 1
	Cap    uint64 // no index at or above it is leased; the lease may be shorter. 0: MaxIndex+1
}

// Lease is the half-open range of indexes [Start, End), of which those in
// Reserved belong to aliases and must be skipped.
type Lease struct {
	Domain     DomainID
	Space      SpaceID
	Start, End uint64
	Reserved   []uint64 // ascending, within [Start, End), frozen at lease time
}

// Chunk is what one atomic insert writes.
type Chunk struct {
	Links []Link
	// Documents are put with the links: a ledger entry or an idempotency record
	// is there exactly if the links are.
	Documents []Document
}

// ListQuery selects and pages links. Zero fields select everything.
type ListQuery struct {
	Domain      DomainID
	Campaign    CampaignID
	Tag         string
	ExternalID  string
	CreatedFrom Millis // inclusive
	CreatedTo   Millis // exclusive
	Limit       int    // 1 to 10,000
	Cursor      string // LinkPage.Next of the page before; "" for the first
}

// LinkPage is one page of a listing.
type LinkPage struct {
	Links []Link
	Next  string // "" at the end
}

// Kind is the kind of a document.
type Kind string

// The kinds of documents.
const (
	KindWorkspace   Kind = "workspace"
	KindDomain      Kind = "domain"
	KindKey         Kind = "key"
	KindCampaign    Kind = "campaign"
	KindPurge       Kind = "purge" // a campaign that was deleted and whose links may still take space
	KindJob         Kind = "job"
	KindIdempotency Kind = "idempotency"
	KindLedger      Kind = "ledger" // what the batches of a repeatable bulk request did
	KindMeta        Kind = "meta"   // facts about the instance itself
	KindNode        Kind = "node"   // claims of snowflake node ids
	KindConversion  Kind = "conversion"
	KindShare       Kind = "share"  // public links to statistics
	KindExport      Kind = "export" // files of clicks that are made in the background
	// KindExportSchedule are exports into a bucket, every hour or day.
	KindExportSchedule Kind = "export_schedule"
	KindClicks         Kind = "clicks"  // how many clicks a link with max_clicks has used up
	KindProcess        Kind = "process" // heartbeats of the processes that use the store
	KindLock           Kind = "lock"    // who carries out a duty that is one process's
	KindSalt           Kind = "salt"    // salts of visitors of the nodes of a shared store, by day; never copied
)

// Document is a small control-plane record (below 256 KiB): JSON that only its owner reads.
type Document struct {
	Workspace WorkspaceID
	Kind      Kind
	ID        string // 1 to 255 bytes
	Version   uint64
	Data      []byte
}

// ChangeKind says what a Change is about.
type ChangeKind uint8

// The kinds of changes.
const (
	ChangeInserted ChangeKind = 1 // Runs were inserted
	ChangeUpdated  ChangeKind = 2 // the one link in Runs has a new version
	ChangeDeleted  ChangeKind = 3 // the one link in Runs is gone
	ChangeDocument ChangeKind = 4 // a document was put or deleted
)

// Change is one applied write. Seq grows with every change of the store.
type Change struct {
	Seq       uint64
	Kind      ChangeKind
	Workspace WorkspaceID
	At        Millis
	Runs      []Run  // links
	Version   uint64 // of the link or the document; for a deletion the last one it had
	DocKind   Kind   // ChangeDocument only
	DocID     string // ChangeDocument only
}

// Run is Count links with consecutive numbers, of which some may not exist.
type Run struct {
	First LinkNumber
	Count uint64
}
