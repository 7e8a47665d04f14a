package terse

// FieldSeparator stands between the values of a campaign's link (Link.Values). It
// is a control character, so no value holds it.
const FieldSeparator = '\x1f'

// Campaign is what many links made together share: where they lead, and every
// setting that one write can change for all of them. It is stored as a document
// of KindCampaign under its workspace, id = the text form of ID.
//
// A link of a campaign is live while both are. Where a link has a destination, a redirect
// status or forwarding of its own, that wins; else the campaign's, else the domain's. A link with a destination
// or rules of its own does not follow the campaign's rules.
type Campaign struct {
	ID        CampaignID  `json:"id"`
	Workspace WorkspaceID `json:"workspace"`
	Name      string      `json:"name"`
	// Domains are where links without a domain of their own go, in turn, each as often as
	// its weight says. Never empty.
	Domains []CampaignDomain `json:"domains"`
	// Destination is a rendered template: a destination in which {name} stands for the value of
	// a field (package internal/template).
	Destination string `json:"destination"`
	// Fields are the names of the values of every link, in the order of Link.Values. They
	// never change: a new template uses any of them.
	Fields         []string     `json:"fields"`
	Status         Status       `json:"status"`
	ExpiresAt      Millis       `json:"expires_at,omitempty"`
	RedirectStatus uint16       `json:"redirect_status,omitempty"` // 0: the domain's
	Settings       LinkSettings `json:"settings"`                  // the destinations of its rules are templates, too
	CreatedAt      Millis       `json:"created_at"`
	UpdatedAt      Millis       `json:"updated_at"`
	Version        uint64       `json:"-"` // the document's version
}

// CampaignDomain is a domain that a campaign puts links on.
type CampaignDomain struct {
	Number DomainID `json:"number"`
	Weight uint32   `json:"weight"` // at least 1
}
