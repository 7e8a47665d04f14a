// Package linkjson is the form in which processes keep links beside a store and pass them to each other: in the file of
// warm links (package warm), and from a control plane to its edge nodes (package edge). Unknown fields are
// ignored, so that versions may differ by one.
package linkjson

import (
	"encoding/json"

	"github.com/terselink/terse"
)

// link is a terse.Link. Reserves belongs to its creation and is not in it.
type link struct {
	Number         terse.LinkNumber    `json:"number"`
	Workspace      terse.WorkspaceID   `json:"workspace"`
	Campaign       terse.CampaignID    `json:"campaign,omitempty"`
	Version        uint64              `json:"version"`
	CreatedAt      terse.Millis        `json:"created_at"`
	UpdatedAt      terse.Millis        `json:"updated_at"`
	ExpiresAt      terse.Millis        `json:"expires_at,omitempty"`
	Code           string              `json:"code"`
	Destination    string              `json:"destination,omitempty"`
	Values         string              `json:"values,omitempty"`
	ExternalID     string              `json:"external_id,omitempty"`
	Status         terse.Status        `json:"status,omitempty"`
	ByCode         bool                `json:"by_code,omitempty"`
	DefaultExpiry  bool                `json:"default_expiry,omitempty"`
	RedirectStatus uint16              `json:"redirect_status,omitempty"`
	Settings       *terse.LinkSettings `json:"settings,omitempty"`
}

// Marshal returns the JSON of a link.
func Marshal(l *terse.Link) ([]byte, error) {
	return json.Marshal(link{
		l.Number, l.Workspace, l.Campaign, l.Version, l.CreatedAt, l.UpdatedAt, l.ExpiresAt, l.Code, l.Destination, l.Values, l.ExternalID, l.Status, l.ByCode,
		l.DefaultExpiry, l.RedirectStatus, l.Settings,
	})
}

// Unmarshal reads what Marshal wrote.
func Unmarshal(b []byte) (terse.Link, error) {
	var l link
	if err := json.Unmarshal(b, &l); err != nil {
		return terse.Link{}, err
	}
	return terse.Link{
		Number: l.Number, Workspace: l.Workspace, Campaign: l.Campaign, Version: l.Version, CreatedAt: l.CreatedAt, UpdatedAt: l.UpdatedAt, ExpiresAt: l.ExpiresAt,
		Code: l.Code, Destination: l.Destination, Values: l.Values, ExternalID: l.ExternalID, Status: l.Status, ByCode: l.ByCode, DefaultExpiry: l.DefaultExpiry,
		RedirectStatus: l.RedirectStatus, Settings: l.Settings,
	}, nil
}
