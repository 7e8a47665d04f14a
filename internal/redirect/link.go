package redirect

import (
	"fmt"
	"strings"
	"unsafe"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/cache"
	"github.com/terselink/terse/internal/campaigns"
	"github.com/terselink/terse/internal/forward"
)

// link is a terse.Link compiled for answering: immutable, only what an answer needs,
// every string checked. Defaults of the domain stay out of it (status 0,
// forwardQuery inherit), so that a change of the domain needs no new compilation.
type link struct {
	number      terse.LinkNumber
	campaign    terse.CampaignID
	workspace   terse.WorkspaceID
	startsAt    terse.Millis
	expiresAt   terse.Millis
	destination string
	expired     string // where expired visits go; "": the domain's place
	parts       forward.Parts
	status      uint16 // 0: the domain's
	disabled    bool
	blocked     bool
	forwards    bool // forwardPath, or forwardQuery is not inherit
	forwardPath bool
	query       inherit
	mode        forward.Mode
	shared      *shared             // nil: the link is of no campaign
	ruled       *campaigns.Campaign // set by under: the campaign whose rules decide; nil: the link's own do
	special     *special            // nil: nothing of what few links have
	outgrown    bool                // set by under: its campaign says more than there was room for when it was cached
}

// inherit is a setting that a link may leave to its domain.
type inherit uint8

const (
	byDomain inherit = iota
	yes
	no
)

func (i inherit) or(domain bool) bool { return i == yes || i == byDomain && domain }

// compile makes the form that is cached. It fails for a link with a setting that
// this version does not carry out: to ignore a password or a rule would send
// people where the owner did not want them.
func compile(l *terse.Link) (cache.Loaded[link], error) {
	c := link{
		number: l.Number, campaign: l.Campaign, workspace: l.Workspace, expiresAt: l.ExpiresAt,
		destination: strings.Clone(l.Destination), disabled: l.Status == terse.StatusDisabled, blocked: l.Status == terse.StatusBlocked, status: redirectStatus(int(l.RedirectStatus)),
	}
	if l.Status > terse.StatusBlocked {
		return cache.Loaded[link]{}, fmt.Errorf("compile link %s: status %d is not known", l.Number, l.Status)
	}
	if s := l.Settings; s != nil {
		c.startsAt, c.expired, c.forwardPath = s.StartsAt, strings.Clone(s.ExpiredDestination), s.ForwardPath
		if s.ForwardQuery != nil {
			c.query = no
			if *s.ForwardQuery {
				c.query = yes
			}
		}
	}
	c.forwards = c.forwardPath || c.query == yes
	// A blocked link that outlived its campaign may have no destination. It had ended when that was written, so nobody is
	// sent anywhere once the block is lifted.
	ended := l.ExpiresAt != 0 && l.ExpiresAt <= l.UpdatedAt
	if !headerSafe(c.destination) && (c.destination != "" || l.Campaign == 0 && !c.blocked && !ended) || c.expired != "" && !headerSafe(c.expired) {
		return cache.Loaded[link]{}, fmt.Errorf("compile link %s: its destination is not rendered for a header", l.Number)
	}
	c.parts = forward.Split(c.destination)
	if s := l.Settings; s != nil && s.Web != nil {
		c.mode = forward.ParseMode(s.Web.QueryMode)
	}
	x, more, err := compileSpecial(l)
	if err != nil {
		return cache.Loaded[link]{}, err
	}
	c.special = x
	return cache.Loaded[link]{
		Value: c, Number: l.Number, Version: l.Version, Bytes: len(c.destination) + len(c.expired) + more,
	}, nil
}

// headerSafe reports whether s may be the value of a Location header as it is: not
// empty, and bytes 0x21 to 0x7e only, so that no value can end a header line.
func headerSafe(s string) bool {
	for i := range len(s) {
		if s[i] < 0x21 || s[i] > 0x7e {
			return false
		}
	}
	return s != ""
}

// redirectStatus returns s if it is a status that redirects with a Location, else 0.
func redirectStatus(s int) uint16 {
	switch s {
	case 301, 302, 303, 307, 308:
		return uint16(s)
	}
	return 0
}

// stringBytes returns the bytes of a string for reading only.
func stringBytes(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// bytesString returns bytes as a string for as long as they do not change.
func bytesString(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
