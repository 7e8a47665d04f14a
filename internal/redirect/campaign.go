package redirect

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync/atomic"
	"unsafe"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/cache"
	"github.com/terselink/terse/internal/campaigns"
	"github.com/terselink/terse/internal/forward"
)

// Campaigns is what the plane needs of the registry of campaigns.
type Campaigns interface {
	// Handle returns the handle of a campaign. Returns ErrNotFound if the campaign is known
	// not to exist; every other error means that it is not known.
	Handle(ctx context.Context, w terse.WorkspaceID, id terse.CampaignID) (*campaigns.Handle, error)
}

// compileShared compiles a link of a campaign. What the campaign says is looked up with every
// visit, so that a change of it needs no new compilation of its links.
func (s *Server) compileShared(ctx context.Context, l *terse.Link) (cache.Loaded[link], error) {
	var h *campaigns.Handle
	if l.Campaign != 0 {
		if s.o.Campaigns == nil {
			return cache.Loaded[link]{}, &terse.Error{Code: terse.CodeUnavailable, Op: "compile link", Message: "this server has no campaigns"}
		}
		var err error
		// A deleted campaign took its links with it: ErrNotFound is the answer for them, too. But not those that
		// were blocked: for them nothing of it counts.
		h, err = s.o.Campaigns.Handle(ctx, l.Workspace, l.Campaign)
		if err != nil && !(l.Status == terse.StatusBlocked && errors.Is(err, terse.ErrNotFound)) {
			return cache.Loaded[link]{}, err
		}
	}
	return compileUnder(l, h)
}

// compileUnder compiles a link of the campaign of a handle, nil if it has none.
func compileUnder(l *terse.Link, h *campaigns.Handle) (cache.Loaded[link], error) {
	c, err := compile(l)
	if err != nil || h == nil {
		return c, err
	}
	now := h.Load()
	c.Stale = now.Stale
	sh := &shared{handle: h, values: strings.Clone(l.Values), domainExpiry: l.DefaultExpiry, version: l.Version}
	if l.Settings != nil {
		own := *l.Settings
		own.Tags, own.Metadata = nil, nil
		sh.own = &own
		c.Bytes *= 2 // they are kept beside what is compiled of them
	}
	c.Value.shared = sh
	if shares(now) {
		if _, sh.room, err = sh.settle(&c.Value, now, math.MaxInt); err != nil {
			return cache.Loaded[link]{}, err
		}
	}
	c.Bytes += len(l.Values) + sharedBytes + sh.room
	return c, nil
}

// shared is what a compiled link has of its campaign.
type shared struct {
	handle       *campaigns.Handle
	values       string
	own          *terse.LinkSettings // of the link; nil: none
	version      uint64              // of the link
	domainExpiry bool                // expiresAt came from the domain: the campaign's goes before it
	room         int                 // bytes of the cache that settled may refer to
	settled      atomic.Pointer[settled]
}

const sharedBytes = int(unsafe.Sizeof(shared{}))

// settled is what a link and a snapshot of its campaign make together of the settings that few campaigns have.
type settled struct {
	of      *campaigns.Campaign
	special *special
	expired string
	mode    forward.Mode
}

// shares reports whether a campaign has settings that under does not look up with each visit.
func shares(c *campaigns.Campaign) bool {
	set := &c.Settings
	return set.Web != nil || set.MaxClicks != 0 || set.PasswordHash != "" || set.Title != "" || c.Filled()
}

// waits reports whether the answer may have to wait.
func (l *link) waits() bool {
	if l.special.waits() {
		return true
	}
	if l.shared == nil {
		return false
	}
	set := &l.shared.handle.Load().Settings
	return set.PasswordHash != "" || set.MaxClicks != 0
}

// settle returns what the settings of the link and of its campaign make together, compiled once for a snapshot:
// for all links that add nothing and get the same, else for the link if it takes no more than room. A link that was
// cached before its campaign said so much has it compiled with each visit until it is cached anew, which the first asks for.
func (sh *shared) settle(l *link, c *campaigns.Campaign, room int) (s *settled, bytes int, err error) {
	if s = sh.settled.Load(); s != nil && s.of == c {
		return s, 0, nil
	}
	same := sh.own == nil && l.destination == "" && !c.Filled() && c.Settings.PasswordHash == "" && (c.Settings.Web == nil || c.Settings.Web.Sticky == "")
	if same {
		if s, ok := c.Compiled.Load().(*settled); ok {
			return s, 0, nil
		}
	}
	under := terse.Link{Number: l.number, Version: sh.version ^ c.Version<<32, Campaign: l.campaign, Values: sh.values, Destination: l.destination, Settings: sh.own}
	set := c.Under(&under)
	under.Settings = &set
	s = &settled{of: c, expired: set.ExpiredDestination}
	if s.special, bytes, err = compileSpecial(&under); err != nil {
		return nil, 0, err
	}
	if s.expired != "" && !headerSafe(s.expired) {
		return nil, 0, fmt.Errorf("compile link %s: a destination is not rendered for a header", l.number)
	}
	if set.Web != nil {
		s.mode = forward.ParseMode(set.Web.QueryMode)
	}
	bytes += len(s.expired) + int(unsafe.Sizeof(*s))
	switch {
	case same:
		c.Compiled.CompareAndSwap(nil, s)
		return s, 0, nil
	case bytes <= room:
		sh.settled.Store(s)
	}
	return s, bytes, nil
}

// under fills out with the link as its campaign makes it now, destination expanded
// into scratch, and returns out. A link without a campaign is returned as it is, as is one that a deleted campaign
// left blocked. Package campaigns has the rules for its settings (Campaign.Under). Returns ErrNotFound if the campaign is
// deleted, or gives no destination for these values, and another error for settings that this version does not carry out.
//
// Hot path: 0 allocs/op, see TestCampaignAllocs.
func (l *link) under(out *link, scratch *[]byte) (*link, error) {
	if l.shared == nil {
		return l, nil
	}
	c := l.shared.handle.Load()
	if c.Deleted {
		if l.blocked {
			return l, nil
		}
		return nil, terse.ErrNotFound
	}
	*out = *l
	if l.destination == "" {
		url, ok := c.Template.Append((*scratch)[:0], l.shared.values)
		*scratch = url
		if !ok {
			return nil, terse.ErrNotFound
		}
		out.destination = bytesString(url)
	}
	if c.Rules != nil && l.destination == "" && (l.special == nil || l.special.rules == nil) {
		out.ruled = c
	}
	out.disabled = l.disabled || c.Status != terse.StatusActive
	out.blocked = l.blocked || c.Status == terse.StatusBlocked
	if e := c.ExpiresAt; e != 0 && (l.expiresAt == 0 || l.shared.domainExpiry || e < l.expiresAt) {
		out.expiresAt = e
	}
	set := &c.Settings
	out.startsAt = max(l.startsAt, set.StartsAt)
	if out.status == 0 {
		out.status = redirectStatus(int(c.RedirectStatus))
	}
	if out.expired == "" {
		out.expired = set.ExpiredDestination
	}
	if out.query == byDomain && set.ForwardQuery != nil {
		out.query = no
		if *set.ForwardQuery {
			out.query = yes
		}
	}
	out.forwardPath = l.forwardPath || set.ForwardPath
	out.forwards = out.forwardPath || out.query == yes
	out.parts = forward.Split(out.destination)
	if shares(c) {
		s, bytes, err := l.shared.settle(l, c, l.shared.room)
		if err != nil {
			return nil, err
		}
		out.outgrown = bytes > l.shared.room
		out.special, out.expired, out.mode = s.special, s.expired, s.mode
	}
	return out, nil
}
