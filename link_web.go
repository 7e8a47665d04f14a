package terse

import "reflect"

// LinkWeb is what few links say of the answer beside where it leads. The zero value
// leaves everything to the domain. Every destination in it is rendered for a Location header.
type LinkWeb struct {
	NoIndex        *bool  `json:"noindex,omitempty"`         // nil: as the domain says
	ReferrerPolicy string `json:"referrer_policy,omitempty"` // "": the domain's
	// NotStartedDestination is where visits before StartsAt go; LimitDestination is where they
	// go when MaxClicks are used up. "": the domain's.
	NotStartedDestination string `json:"not_started_destination,omitempty"`
	LimitDestination      string `json:"limit_destination,omitempty"`
	// QueryMode says how the query of a visit is added if it is forwarded; "": as the domain says.
	QueryMode string `json:"query_mode,omitempty"`
	UTM       *UTM   `json:"utm,omitempty"`
	// Sticky says what keeps a visitor on one variant; "": StickyHash.
	Sticky string `json:"sticky,omitempty"`

	// Where visitors with a telephone of the system go: a URL of the web or of an app. The store is where
	// the app is to be had; alone it is where they go.
	IOSDestination     string `json:"ios_destination,omitempty"`
	IOSStore           string `json:"ios_store,omitempty"`
	AndroidDestination string `json:"android_destination,omitempty"`
	AndroidStore       string `json:"android_store,omitempty"`

	// What agents that make link previews are shown.
	OGTitle       string `json:"og_title,omitempty"`
	OGDescription string `json:"og_description,omitempty"`
	OGImage       string `json:"og_image,omitempty"`

	// Pages of ours that people pass, if the workspace has switched them on.
	Pixels []Pixel `json:"pixels,omitempty"`
	Cloak  bool    `json:"cloak,omitempty"` // the destination is shown in a frame
}

// Pixel tells a provider of advertisements of a visit.
type Pixel struct {
	Provider string `json:"provider"`
	ID       string `json:"id"`
}

// How the query of a visit and the stored one become one query. QueryDrop is a name of
// the API only: it is kept as "not forwarded".
const (
	QueryAppend        = "append"         // the stored one, then that of the visit
	QueryIncomingFirst = "incoming_first" // that of the visit, then the stored parameters that it does not name
	QueryStoredFirst   = "stored_first"   // the stored one, then the parameters of the visit that it does not name
	QueryDrop          = "drop"
)

// What keeps a visitor on one variant of a rule.
const (
	StickyHash   = "hash"   // a hash of visitor and link
	StickyCookie = "cookie" // a cookie that names the variant, the hash without one
)

// UTM are parameters that a destination gets unless it, or the query of the visit that is
// forwarded, has them already.
type UTM struct {
	Source   string `json:"source,omitempty"`
	Medium   string `json:"medium,omitempty"`
	Campaign string `json:"campaign,omitempty"`
	Term     string `json:"term,omitempty"`
	Content  string `json:"content,omitempty"`
}

// IsZero reports whether nothing is set.
func (w *LinkWeb) IsZero() bool { return w == nil || reflect.ValueOf(*w).IsZero() }

// Block says who blocked a link of StatusBlocked, and why.
type Block struct {
	Reason string `json:"reason,omitempty"`
	By     string `json:"by"`              // id of the API key, or "owner"
	Owner  bool   `json:"owner,omitempty"` // the operator of the instance did, and nobody else may lift it
}
