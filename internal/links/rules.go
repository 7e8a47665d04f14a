package links

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/code"
	"github.com/terselink/terse/internal/destination"
	"github.com/terselink/terse/internal/domains"
	"github.com/terselink/terse/internal/rules"
)

// Limits of what one link may carry.
const (
	MaxTitle      = 500 // bytes
	MaxExternalID = 255
	MaxTags       = 50
	MaxTag        = 100
	MaxMetadata   = 50 // entries
	MaxMetaKey    = 64
	MaxMetaValue  = 1000
)

// latestTime is the last moment that times may name: the end of the year 9999, as
// RFC 3339 cannot say more.
const latestTime = terse.Millis(253402300799999)

// build fills a link from what was asked for; the number and a generated code
// are still missing.
func (s *Service) build(l *terse.Link, a Actor, d *domains.Domain, n *NewLink, now terse.Millis) error {
	*l = terse.Link{Workspace: a.Workspace, Version: 1, CreatedAt: now, UpdatedAt: now}
	var err error
	if l.Destination, err = destination.Parse("destination", n.Destination, s.o.Domains.Serves); err != nil {
		return err
	}
	if err := checkText("external_id", n.ExternalID, MaxExternalID); err != nil {
		return err
	}
	l.ExternalID = n.ExternalID
	if err := setClass(l, n); err != nil {
		return err
	}
	if n.IfExists != "" && n.IfExists != IfExistsCreate && n.IfExists != IfExistsReuse {
		return terse.Invalid("if_exists", "if_exists is create or reuse")
	}
	if n.Code != "" {
		if err := s.setAlias(l, d, n.Code); err != nil {
			return err
		}
	}
	if l.ExpiresAt, err = futureTime("expires_at", n.ExpiresAt, now); err != nil {
		return err
	}
	if l.ExpiresAt == 0 && d.DefaultTTL > 0 {
		l.ExpiresAt, l.DefaultExpiry = now+terse.Millis(d.DefaultTTL.Milliseconds()), true
	}
	if n.RedirectStatus != 0 {
		if !domains.ValidRedirectStatus(n.RedirectStatus) {
			return errRedirectStatus()
		}
		l.RedirectStatus = uint16(n.RedirectStatus)
	}
	return s.setSettings(l, a, n)
}

func errRedirectStatus() error {
	return terse.Invalid("redirect_status", "the redirect status is 301, 302, 303, 307 or 308")
}

// setAlias canonicalises the alias and finds out which generated code it would be.
func (s *Service) setAlias(l *terse.Link, d *domains.Domain, alias string) error {
	canonical, err := code.Canonical([]byte(alias), d.Fold())
	if err == nil {
		err = code.ValidateAlias(canonical)
	}
	if err != nil {
		return invalidCode(err)
	}
	if d.IsSnowflake([]byte(canonical)) {
		return errAliasTaken(strings.Clone(canonical))
	}
	l.Code = canonical
	l.Reserves = d.Reserve([]byte(canonical))
	return nil
}

// invalidCode gives an error about a code the field and reason that programs see.
func invalidCode(err error) error {
	return &terse.Error{Code: terse.CodeInvalid, Reason: "invalid_code", Field: "code", Message: terse.Message(err)}
}

// plain reports that none of the fields that LinkSettings holds is set.
func (n *NewLink) plain() bool {
	return n.Title == "" && len(n.Tags) == 0 && len(n.Metadata) == 0 && n.StartsAt == 0 && n.ExpiredDestination == "" &&
		n.MaxClicks == 0 && n.Password == "" && n.ForwardQuery == nil && !n.ForwardPath && len(n.Rules) == 0 && n.Web.IsZero()
}

// setSettings checks and stores what few links have.
func (s *Service) setSettings(l *terse.Link, a Actor, n *NewLink) error {
	if n.plain() {
		return nil // the common row of a bulk request: nothing to keep, nothing to allocate
	}
	var err error
	set := terse.LinkSettings{
		Title: n.Title, MaxClicks: n.MaxClicks, ForwardQuery: n.ForwardQuery, ForwardPath: n.ForwardPath,
		Rules: n.Rules, Metadata: n.Metadata, Tags: n.Tags, StartsAt: n.StartsAt, ExpiredDestination: n.ExpiredDestination,
		Web: n.Web,
	}
	check := s.checker(s.o.Workspaces(a.Workspace))
	if err = check.settings(&set, l.ExpiresAt); err != nil {
		return err
	}
	if err = rules.CheckNames(set.Rules); err != nil {
		return err
	}
	if set.PasswordHash, err = hashPassword(n.Password); err != nil {
		return err
	}
	l.Settings = keep(&set)
	return nil
}

// keep returns nil for settings that say nothing, so that a plain link stays small.
func keep(set *terse.LinkSettings) *terse.LinkSettings {
	if set.Title == "" && len(set.Tags) == 0 && len(set.Metadata) == 0 && set.StartsAt == 0 && set.ExpiredDestination == "" &&
		set.MaxClicks == 0 && set.PasswordHash == "" && set.ForwardQuery == nil && !set.ForwardPath && len(set.Rules) == 0 && set.CreatedBy == "" && set.Web.IsZero() && set.Block == nil {
		return nil
	}
	return set
}

// checkText refuses text that is too long, not UTF-8 or has control characters.
func checkText(field, v string, limit int) error {
	if len(v) > limit {
		return terse.Invalid(field, "longer than %d bytes", limit)
	}
	plain := true
	for i := range len(v) {
		if c := v[i]; c < 0x20 || c >= 0x7f {
			plain = false
			break
		}
	}
	if plain {
		return nil
	}
	if !utf8.ValidString(v) {
		return terse.Invalid(field, "not valid UTF-8")
	}
	for _, r := range v {
		if unicode.IsControl(r) {
			return terse.Invalid(field, "has a control character")
		}
	}
	return nil
}

func checkTags(tags []string) ([]string, error) {
	if len(tags) == 0 {
		return nil, nil
	}
	if len(tags) > MaxTags {
		return nil, terse.Invalid("tags", "more than %d tags", MaxTags)
	}
	tags = slices.Clone(tags)
	for i, t := range tags {
		if t == "" {
			return nil, terse.Invalid(fmt.Sprintf("tags[%d]", i), "a tag is empty")
		}
		if err := checkText(fmt.Sprintf("tags[%d]", i), t, MaxTag); err != nil {
			return nil, err
		}
	}
	slices.Sort(tags)
	return slices.Compact(tags), nil
}

func checkMetadata(m map[string]string) error {
	if len(m) > MaxMetadata {
		return terse.Invalid("metadata", "more than %d entries", MaxMetadata)
	}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if k == "" {
			return terse.Invalid("metadata", "a key is empty")
		}
		if err := checkText("metadata", k, MaxMetaKey); err != nil {
			return err
		}
		if err := checkText("metadata."+k, m[k], MaxMetaValue); err != nil {
			return err
		}
	}
	return nil
}

// futureTime accepts 0 (never) and moments after now.
func futureTime(field string, t, now terse.Millis) (terse.Millis, error) {
	if t == 0 {
		return 0, nil
	}
	if t > latestTime {
		return 0, terse.Invalid(field, "not a time that can be kept")
	}
	if t <= now {
		return 0, terse.Invalid(field, "the time is in the past")
	}
	return t, nil
}

// Patch changes a link: nil leaves a field as it is, a pointer to the zero value clears it.
type Patch struct {
	Destination    *string
	ExternalID     *string
	Status         *terse.Status
	ExpiresAt      *terse.Millis
	RedirectStatus *int
	BlockedReason  *string // with Status StatusBlocked
	SettingsPatch
}

// Update changes a link, durable on return, seen by the next redirect on this node.
// ifVersion 0 accepts any version; a race is then repeated on the newer one.
// Returns ErrNotFound, ErrVersion, or invalid with the field.
func (s *Service) Update(ctx context.Context, a Actor, n terse.LinkNumber, p Patch, ifVersion uint64) (terse.Link, error) {
	for {
		l, err := s.Get(ctx, a, n)
		if err != nil {
			return terse.Link{}, err
		}
		if ifVersion != 0 && l.Version != ifVersion {
			return terse.Link{}, terse.ErrVersion
		}
		was := l.Version
		if err := s.apply(&l, a, &p); err != nil {
			return terse.Link{}, err
		}
		l.Version, l.UpdatedAt = was+1, max(s.o.Clock(), l.CreatedAt)
		err = s.o.Store.UpdateLink(ctx, &l, was)
		if err == nil {
			s.o.OnChange(Change{Domain: n.Domain(), Code: l.Code, Number: n, Version: l.Version})
			return l, nil
		}
		if terse.ErrorCode(err) == terse.CodePrecondition && ifVersion == 0 && ctx.Err() == nil {
			continue
		}
		return terse.Link{}, fmt.Errorf("update link: %w", err)
	}
}

// apply changes l as p says, by the rules that creation follows.
func (s *Service) apply(l *terse.Link, a Actor, p *Patch) error {
	var err error
	if p.Destination != nil && *p.Destination == "" && l.Campaign != 0 {
		l.Destination = "" // as the campaign says again
	} else if p.Destination != nil {
		if l.Destination, err = destination.Parse("destination", *p.Destination, s.o.Domains.Serves); err != nil {
			return err
		}
	}
	if p.ExternalID != nil {
		if err := checkText("external_id", *p.ExternalID, MaxExternalID); err != nil {
			return err
		}
		l.ExternalID = *p.ExternalID
	}
	if p.ExpiresAt != nil {
		// The past is allowed here: it is how a link is ended now.
		if *p.ExpiresAt < 0 || *p.ExpiresAt > latestTime {
			return terse.Invalid("expires_at", "not a time that can be kept")
		}
		l.ExpiresAt, l.DefaultExpiry = *p.ExpiresAt, false
	}
	if p.RedirectStatus != nil {
		if *p.RedirectStatus != 0 && !domains.ValidRedirectStatus(*p.RedirectStatus) {
			return errRedirectStatus()
		}
		l.RedirectStatus = uint16(*p.RedirectStatus)
	}
	var set terse.LinkSettings
	if l.Settings != nil {
		set = *l.Settings
	}
	if err := a.setStatus(l, &set, p.Status, p.BlockedReason); err != nil {
		return err
	}
	var web *terse.LinkWeb
	if l.Settings != nil {
		web = l.Settings.Web
	}
	if err := p.apply(&set); err != nil {
		return err
	}
	if err := s.checkSpan(set.StartsAt, l.ExpiresAt, p.StartsAt, p.ExpiresAt); err != nil {
		return err
	}
	check := s.checker(p.Web.allowed(s.o.Workspaces(a.Workspace), web))
	if err := check.settings(&set, 0); err != nil {
		return err
	}
	if p.Rules != nil {
		if err := rules.CheckNames(set.Rules); err != nil {
			return err
		}
	}
	l.Settings = keep(&set)
	return nil
}

// checkSpan refuses a change of one of the times after which there would be no time between them. An end in the
// past is allowed: it is how a link or a campaign is ended now, also before it starts.
func (s *Service) checkSpan(starts, ends terse.Millis, newStart, newEnd *terse.Millis) error {
	if newStart == nil && newEnd == nil || starts == 0 || ends <= s.o.Clock() || starts < ends {
		return nil
	}
	field := "starts_at"
	if newStart == nil {
		field = "expires_at"
	}
	return terse.Invalid(field, "it would end before it starts")
}

func assign[T any](dst, src *T) {
	if src != nil {
		*dst = *src
	}
}

var reuseSeed = maphash.MakeSeed()

// reuseLock returns the lock that makes if_exists=reuse of one destination happen
// one after the other on this node.
func (s *Service) reuseLock(w terse.WorkspaceID, d terse.DomainID, dest string) *sync.Mutex {
	return &s.reuse[reuseStripe(w, d, dest)]
}

func reuseStripe(w terse.WorkspaceID, d terse.DomainID, dest string) uint8 {
	return uint8(maphash.String(reuseSeed, dest) ^ uint64(w)*31 ^ uint64(d)*17)
}

func decodeWorkspace(doc terse.Document) (terse.Workspace, error) {
	var ws terse.Workspace
	if err := json.Unmarshal(doc.Data, &ws); err != nil {
		return ws, fmt.Errorf("read workspace %s: %w", doc.ID, err)
	}
	return ws, nil
}
