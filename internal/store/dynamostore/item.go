package dynamostore

import (
	"fmt"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse"
)

// minTTL is the least time, in seconds, between the write of a link and its removal by the table's TTL.
const minTTL = 86_400

// linkItem returns the item of a link. Zero fields are left out: what is not there costs
// nothing, and a person who reads the table sees what matters. A chunk that is not
// zero marks the link as part of a large chunk.
func (s *Store) linkItem(l *terse.Link, gpk string, chunk chunkID) (item, error) {
	it := make(item, 12)
	it[attrPK], it[attrSK] = str(linkPK(l.Number.Domain(), l.Code)), one
	it[attrGPK], it[attrGSK] = str(gpk), bin(position(l.CreatedAt, l.Number))
	it["link_number"] = num(l.Number)
	it["workspace"] = num(l.Workspace)
	it["link_version"] = num(l.Version)
	it["created_at"] = inum(l.CreatedAt)
	if chunk != (chunkID{}) {
		it["chunk_id"] = chunk.value()
	}
	if l.UpdatedAt != l.CreatedAt {
		it["updated_at"] = inum(l.UpdatedAt)
	}
	if l.Destination != "" {
		it["destination"] = str(l.Destination)
	}
	if l.Campaign != 0 {
		it["campaign"] = num(l.Campaign)
	}
	if l.Values != "" {
		it["values"] = str(l.Values)
	}
	if l.ExternalID != "" {
		it["external_id"] = str(l.ExternalID)
	}
	if l.Status != 0 {
		it["status"] = num(l.Status)
	}
	if l.RedirectStatus != 0 {
		it["redirect_status"] = num(l.RedirectStatus)
	}
	if l.ExpiresAt != 0 {
		it["expires_at"] = inum(l.ExpiresAt)
		// A blocked link keeps its place: else its alias would become free, and could lead to the same destination again.
		if s.opts.KeepExpired >= 0 && l.Status != terse.StatusBlocked {
			// What is written now is not removed at once: a copy of a store has links that ended long ago.
			it[attrTTL] = inum(max(int64(l.ExpiresAt)/1000+int64(s.opts.KeepExpired.Seconds()), int64(s.opts.Clock())/1000+minTTL))
		}
	}
	if l.DefaultExpiry {
		it["default_expiry"] = yes()
	}
	if l.ByCode {
		it["by_code"] = yes()
	}
	if l.Settings != nil {
		b, err := json.Marshal(l.Settings)
		if err != nil {
			return nil, &terse.Error{Code: terse.CodeInternal, Message: "the settings of a link cannot be written", Err: err}
		}
		it["settings"] = str(string(b))
	}
	return it, nil
}

// settingsOptions are those of reading: to leave out a setting that is not known could send people where the owner
// did not want them.
var settingsOptions = json.RejectUnknownMembers(true)

// readLink reads the item of a link that is there. The code is that of its key.
func readLink(it item) (terse.Link, error) {
	pk := getStr(it, attrPK)
	l := terse.Link{
		Number:         terse.LinkNumber(getNum(it, "link_number")),
		Workspace:      terse.WorkspaceID(getNum(it, "workspace")),
		Version:        getNum(it, "link_version"),
		CreatedAt:      terse.Millis(getInt(it, "created_at")),
		Destination:    getStr(it, "destination"),
		Campaign:       terse.CampaignID(getNum(it, "campaign")),
		Values:         getStr(it, "values"),
		ExternalID:     getStr(it, "external_id"),
		Status:         terse.Status(getNum(it, "status")),
		RedirectStatus: uint16(getNum(it, "redirect_status")),
		ExpiresAt:      terse.Millis(getInt(it, "expires_at")),
		DefaultExpiry:  getBool(it, "default_expiry"),
		ByCode:         getBool(it, "by_code"),
	}
	l.UpdatedAt = l.CreatedAt
	if _, ok := it["updated_at"]; ok {
		l.UpdatedAt = terse.Millis(getInt(it, "updated_at"))
	}
	prefix := len(linkPK(l.Number.Domain(), ""))
	if l.Number == 0 || l.Number > 1<<63-1 || len(pk) <= prefix || linkPK(l.Number.Domain(), pk[prefix:]) != pk {
		return terse.Link{}, damaged(pk, fmt.Errorf("number %d", l.Number))
	}
	l.Code = pk[prefix:]
	if text := getStr(it, "settings"); text != "" {
		l.Settings = new(terse.LinkSettings)
		if err := json.Unmarshal([]byte(text), l.Settings, settingsOptions); err != nil {
			return terse.Link{}, damaged(pk, err)
		}
	}
	return l, nil
}

// damaged is the error of an item that this package did not write.
func damaged(pk string, err error) error {
	return &terse.Error{Code: terse.CodeInternal, Message: "an item of the table cannot be read", Op: "read " + pk, Err: err}
}

// dead reports whether the item is what is left of a deleted link.
func dead(it item) bool { return getBool(it, "deleted") }
