package domains

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unsafe"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/code"
	"github.com/terselink/terse/internal/destination"
)

// DefaultDensity is the share of a code space that is issued before the domain
// grows by a character: guessing finds one live link in a thousand at most
// (docs/codes.md).
const DefaultDensity = 1.0 / 1000

// Defaults of a new domain.
const (
	DefaultAlphabet = "base62"
	DefaultLength   = 7
)

// New describes a domain to create; zero values mean the defaults.
type New struct {
	Host           string
	Scheme         string // "" : https, but http for names of this machine and hosts with a port
	CodeLength     int
	Alphabet       string
	Strategy       string
	RedirectStatus int
	DefaultTTL     time.Duration
	ForwardQuery   bool
	SMaxAge        int // seconds

	RootDestination     string
	NotFoundDestination string
	ExpiredDestination  string

	NotStartedDestination string
	LimitDestination      string
	QueryMode             string
	UTM                   *terse.UTM
	ClickIDParameter      string
	Brand                 *terse.Brand

	Web terse.DomainWeb
}

// Patch changes settings of a domain; nil leaves one as it is.
type Patch struct {
	Scheme         *string
	CodeLength     *int
	Strategy       *string // "": permuted. A new one begins at a length never used
	RedirectStatus *int
	DefaultTTL     *time.Duration
	ForwardQuery   *bool
	SMaxAge        *int

	RootDestination     *string
	NotFoundDestination *string
	ExpiredDestination  *string

	NotStartedDestination *string
	LimitDestination      *string
	QueryMode             *string
	UTM                   *terse.UTM
	ClickIDParameter      *string
	Brand                 *terse.Brand // as a whole

	Web WebPatch
}

// Create makes a domain of a workspace; workspace 0 shares it with all. What also returns for
// it goes into the same atomic write; nil: nothing. Returns an error of code invalid, or
// conflict with reason domain_taken.
func (r *Registry) Create(ctx context.Context, w terse.WorkspaceID, n New, also func(*Domain) ([]terse.Document, error)) (*Domain, error) {
	host, err := ParseHost(n.Host)
	if err != nil {
		return nil, err
	}
	now := r.o.Clock()
	d := terse.Domain{
		Workspace: w, Host: host, Scheme: n.Scheme, CreatedAt: now, UpdatedAt: now, Version: 1, PermKey: newPermKey(),
		AllReserved: true, CodeLength: n.CodeLength, Alphabet: n.Alphabet, Strategy: n.Strategy,
		RedirectStatus: n.RedirectStatus, DefaultTTL: n.DefaultTTL, ForwardQuery: n.ForwardQuery, SMaxAge: n.SMaxAge,
		RootDestination: n.RootDestination, NotFoundDestination: n.NotFoundDestination, ExpiredDestination: n.ExpiredDestination,
		NotStartedDestination: n.NotStartedDestination, LimitDestination: n.LimitDestination, QueryMode: n.QueryMode, UTM: n.UTM, Brand: n.Brand, ClickIDParameter: n.ClickIDParameter,
		DomainWeb: n.Web,
	}
	if d.Scheme == "" {
		d.Scheme = "https"
		if strings.Contains(host, ":") || isLoopback(host) {
			d.Scheme = "http"
		}
	}
	if d.Alphabet == "" {
		d.Alphabet = DefaultAlphabet
	}
	a, err := code.Lookup(d.Alphabet)
	if err != nil {
		return nil, err
	}
	if d.Strategy == "" {
		d.Strategy = StrategyPermuted
	}
	if err := checkStrategy(d.Strategy); err != nil {
		return nil, err
	}
	switch {
	case d.CodeLength != 0:
	case d.Strategy == StrategySnowflake:
		d.CodeLength = code.SnowflakeLength
	default:
		d.CodeLength = min(max(DefaultLength, a.MinLength()), a.MaxLength())
	}
	if d.RedirectStatus == 0 {
		d.RedirectStatus = 302
	}
	if err := openSpace(&d, a, now); err != nil {
		return nil, err
	}
	var asked *bool
	if n.ForwardQuery {
		asked = &n.ForwardQuery
	}
	if err := setQueryMode(&d, asked); err != nil {
		return nil, err
	}
	if err := r.check(&d, host); err != nil {
		return nil, err
	}

	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ByName(host) != nil {
		return nil, errTaken(host)
	}
	lease, err := r.o.Store.Lease(ctx, terse.LeaseRequest{Space: domainCounter, Count: 1, Cap: uint64(terse.MaxDomain)})
	if err != nil {
		return nil, fmt.Errorf("number domain %s: %w", host, err)
	}
	d.Number = terse.DomainID(lease.Start) + 1
	var more []terse.Document
	if also != nil {
		shown, err := compile(d, &live{})
		if err != nil {
			return nil, err
		}
		if more, err = also(shown); err != nil {
			return nil, err
		}
	}
	if err := r.put(ctx, &d, more...); err != nil {
		if errors.Is(err, terse.ErrExists) {
			return nil, errTaken(host)
		}
		return nil, err
	}
	l := r.newLive()
	l.reserved.complete.Store(!r.o.Shared) // nobody has an alias on it yet
	return r.publish(d, l)
}

func errTaken(host string) error {
	return &terse.Error{Code: terse.CodeConflict, Reason: "domain_taken", Field: "host", Message: "the domain " + host + " exists already"}
}

// Update changes settings of a domain of the workspace. ifVersion 0 accepts any
// version. Returns ErrNotFound, ErrVersion or an error of code invalid.
func (r *Registry) Update(ctx context.Context, w terse.WorkspaceID, host string, p Patch, ifVersion uint64) (d *Domain, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	err = r.retryNewer(ctx, host, func() error {
		d, err = r.updateLocked(ctx, w, host, p, ifVersion)
		return err
	})
	return d, err
}

func (r *Registry) updateLocked(ctx context.Context, w terse.WorkspaceID, host string, p Patch, ifVersion uint64) (*Domain, error) {
	cur, err := r.owned(w, host)
	if err != nil {
		return nil, err
	}
	if ifVersion != 0 && ifVersion != cur.Version {
		return nil, terse.ErrVersion
	}
	d := cur.Domain
	d.Spaces = append([]terse.Space(nil), cur.Spaces...)
	set(&d.Scheme, p.Scheme)
	set(&d.RedirectStatus, p.RedirectStatus)
	set(&d.DefaultTTL, p.DefaultTTL)
	set(&d.ForwardQuery, p.ForwardQuery)
	set(&d.SMaxAge, p.SMaxAge)
	set(&d.RootDestination, p.RootDestination)
	set(&d.NotFoundDestination, p.NotFoundDestination)
	set(&d.ExpiredDestination, p.ExpiredDestination)
	set(&d.NotStartedDestination, p.NotStartedDestination)
	set(&d.LimitDestination, p.LimitDestination)
	set(&d.ClickIDParameter, p.ClickIDParameter)
	if p.UTM != nil {
		d.UTM = p.UTM
	}
	if p.Brand != nil {
		d.Brand = p.Brand
	}
	if p.QueryMode != nil {
		d.QueryMode = *p.QueryMode
		if err := setQueryMode(&d, p.ForwardQuery); err != nil {
			return nil, err
		}
	}
	p.Web.apply(&d.DomainWeb)
	if err := changeStrategy(&d, cur.alphabet, &p, r.o.Clock()); err != nil {
		return nil, err
	}
	if err := r.check(&d, ""); err != nil {
		return nil, err
	}
	return r.save(ctx, cur, d)
}

// setQueryMode makes d forward the query if the mode says so; asked is what the caller said of that.
func setQueryMode(d *terse.Domain, asked *bool) error {
	forwards, err := CheckQueryMode(&d.QueryMode, asked)
	if err == nil && forwards != nil {
		d.ForwardQuery = *forwards
	}
	return err
}

func set[T any](dst, src *T) {
	if src != nil {
		*dst = *src
	}
}

// grow gives the domain codes of one more character.
func (r *Registry) grow(ctx context.Context, seen *Domain) (*Domain, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	cur := r.ByNumber(seen.Number)
	if cur == nil {
		return nil, terse.ErrNotFound
	}
	if cur.Current().Space != seen.Current().Space {
		return cur, nil // somebody else was here first
	}
	d := cur.Domain
	d.Spaces = append([]terse.Space(nil), cur.Spaces...)
	if err := grown(&d, cur.alphabet); err != nil {
		return nil, err
	}
	if err := openSpace(&d, cur.alphabet, r.o.Clock()); err != nil {
		return nil, err
	}
	r.o.Log.Info("domain grows", "domain", d.Host, "code_length", d.CodeLength)
	next, err := r.save(ctx, cur, d)
	if r.o.Shared && errors.Is(err, terse.ErrVersion) { // another node has changed it, perhaps grown it
		if err := r.refreshLocked(ctx, cur.Host); err != nil {
			return nil, err
		}
		if next = r.ByNumber(seen.Number); next == nil {
			return nil, terse.ErrNotFound
		}
		return next, nil
	}
	return next, err
}

// openSpace makes the space of d.CodeLength the current one. Its strategy is for ever.
func openSpace(d *terse.Domain, a *code.Alphabet, now terse.Millis) error {
	if err := checkLength(d, a); err != nil {
		return err
	}
	for i, s := range d.Spaces {
		if int(s.Space) == d.CodeLength {
			if s.Strategy != d.Strategy {
				return terse.Invalid("code_length", "codes of %d characters are %s on this domain for ever; choose a length that it has never used", d.CodeLength, s.Strategy)
			}
			d.Spaces = append(append(d.Spaces[:i:i], d.Spaces[i+1:]...), s)
			return nil
		}
	}
	if d.Strategy != StrategyPermuted {
		s, err := openDrawn(d, a, now)
		if err == nil {
			d.Spaces = append(d.Spaces, s)
		}
		return err
	}
	p, err := code.NewPermutation(d.PermKey, a, d.CodeLength)
	if err != nil {
		return fmt.Errorf("open code space of %s: %w", d.Host, err)
	}
	d.Spaces = append(d.Spaces, terse.Space{
		Space: terse.SpaceID(d.CodeLength), Strategy: d.Strategy, Alphabet: a.Name(), PermVersion: code.PermVersion,
		Cap: code.Cap(p.N(), density(a)), CheckCodes: p.CheckCodes(),
	})
	return nil
}

// density is the share of a space of the alphabet that is issued.
func density(a *code.Alphabet) float64 {
	if a.Name() == "digits" {
		return 1 // phone menus: few digits matter more than guessing
	}
	return DefaultDensity
}

// check validates the settings of a domain. newHost is the host that is about to be
// served, against which destinations are checked too.
func (r *Registry) check(d *terse.Domain, newHost string) error {
	if d.Scheme != "http" && d.Scheme != "https" {
		return terse.Invalid("scheme", "the scheme is http or https")
	}
	if !ValidRedirectStatus(d.RedirectStatus) {
		return terse.Invalid("redirect_status", "the redirect status is 301, 302, 303, 307 or 308")
	}
	if d.DefaultTTL < 0 || d.DefaultTTL > 0 && d.DefaultTTL < time.Second {
		return terse.Invalid("default_ttl", "a default_ttl is at least 1s")
	}
	if d.SMaxAge < 0 || d.SMaxAge > 86400 {
		return terse.Invalid("s_maxage", "s_maxage is 0 to 86400 seconds")
	}
	if len(d.ClickIDParameter) > 32 || strings.Trim(d.ClickIDParameter, "abcdefghijklmnopqrstuvwxyz0123456789_-") != "" {
		return terse.Invalid("click_id_parameter", "is at most 32 of a-z, 0-9, _ and -")
	}
	if err := checkWeb(&d.DomainWeb); err != nil {
		return err
	}
	var err error
	if d.UTM, err = CheckUTM(d.UTM); err != nil {
		return err
	}
	if d.Brand, err = checkBrand(d.Brand); err != nil {
		return err
	}
	for _, f := range []struct {
		field string
		value *string
	}{
		{"root_destination", &d.RootDestination},
		{"not_found_destination", &d.NotFoundDestination},
		{"expired_destination", &d.ExpiredDestination},
		{"not_started_destination", &d.NotStartedDestination},
		{"limit_destination", &d.LimitDestination},
	} {
		if *f.value == "" {
			continue
		}
		rendered, err := destination.Parse(f.field, *f.value, r.serves(newHost))
		if err != nil {
			return err
		}
		*f.value = rendered
	}
	return nil
}

// serves tells destination.Parse which hosts are ours.
func (r *Registry) serves(extra string) func(host string) bool {
	return func(host string) bool { return r.Serves(host) || host == extra && extra != "" }
}

// Serves reports whether a canonical host is one of ours, so that a destination
// there would be a loop.
// Hot path of bulk: 0 allocs/op.
func (r *Registry) Serves(host string) bool {
	return r.ByHost(unsafe.Slice(unsafe.StringData(host), len(host))) != nil // ByHost only reads
}

// ValidRedirectStatus reports whether a link may redirect with the HTTP status.
func ValidRedirectStatus(s int) bool {
	return s == 301 || s == 302 || s == 303 || s == 307 || s == 308
}

// Delete removes a domain of the workspace that has no links and is nobody's default.
// Returns ErrNotFound, ErrVersion, or conflict with reason domain_in_use.
func (r *Registry) Delete(ctx context.Context, w terse.WorkspaceID, host string, ifVersion uint64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.retryNewer(ctx, host, func() error { return r.deleteLocked(ctx, w, host, ifVersion) })
}

func (r *Registry) deleteLocked(ctx context.Context, w terse.WorkspaceID, host string, ifVersion uint64) error {
	cur, err := r.owned(w, host)
	if err != nil {
		return err
	}
	if ifVersion != 0 && ifVersion != cur.Version {
		return terse.ErrVersion
	}
	if cur == r.Default() {
		return inUse("it is the default domain")
	}
	has, err := r.hasLinks(ctx, cur)
	if err != nil {
		return err
	}
	if has {
		return inUse("it has links")
	}
	if err := r.o.Store.DeleteDocument(ctx, 0, terse.KindDomain, cur.Host, cur.Version); err != nil {
		return fmt.Errorf("delete domain %s: %w", host, err)
	}
	r.removeLocked(cur)
	return nil
}

func inUse(why string) error {
	return &terse.Error{Code: terse.CodeConflict, Reason: "domain_in_use", Message: "the domain cannot be deleted: " + why}
}

// hasLinks reports whether any workspace has a link on the domain.
func (r *Registry) hasLinks(ctx context.Context, d *Domain) (bool, error) {
	var used bool
	for s := range d.live.next {
		next, err := r.o.Store.Next(ctx, d.Number, terse.SpaceID(s))
		if err != nil {
			return false, fmt.Errorf("count links of %s: %w", d.Host, err)
		}
		used = used || next > 0
	}
	if !used || d.Workspace == 0 {
		return used, nil // links of a shared domain may belong to anybody: an issued index counts as one
	}
	for q := (terse.ListQuery{Domain: d.Number, Limit: 1}); ; {
		p, err := r.o.Store.ListLinks(ctx, d.Workspace, q)
		if err != nil {
			return false, fmt.Errorf("list links of %s: %w", d.Host, err)
		}
		if len(p.Links) > 0 || p.Next == "" {
			return len(p.Links) > 0, nil
		}
		q.Cursor = p.Next
	}
}

// owned returns a domain that the workspace may change. Workspace 0 may change all.
func (r *Registry) owned(w terse.WorkspaceID, host string) (*Domain, error) {
	h, err := ParseHost(host)
	if err != nil {
		return nil, terse.ErrNotFound
	}
	d := r.ByName(h)
	if d == nil || w != 0 && d.Workspace != w {
		return nil, terse.ErrNotFound
	}
	return d, nil
}

// save stores a changed domain over the snapshot cur and publishes it.
func (r *Registry) save(ctx context.Context, cur *Domain, d terse.Domain) (*Domain, error) {
	d.Version, d.UpdatedAt = cur.Version+1, r.o.Clock()
	if err := r.put(ctx, &d); err != nil {
		return nil, err
	}
	return r.publish(d, cur.live)
}

// put stores a domain, and with it what goes into the same atomic write.
func (r *Registry) put(ctx context.Context, d *terse.Domain, more ...terse.Document) error {
	data, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("encode domain %s: %w", d.Host, err)
	}
	doc := terse.Document{Kind: terse.KindDomain, ID: d.Host, Version: d.Version, Data: data}
	err = r.o.Store.InsertLinks(ctx, &terse.Chunk{Documents: append([]terse.Document{doc}, more...)})
	if err != nil {
		return fmt.Errorf("store domain %s: %w", d.Host, err)
	}
	return nil
}

// publish makes a stored domain visible to this node.
func (r *Registry) publish(d terse.Domain, l *live) (*Domain, error) {
	c, err := compile(d, l)
	if err != nil {
		return nil, err
	}
	s := r.snap.Load().clone()
	s.set(c)
	r.snap.Store(s)
	r.changed(c)
	return c, nil
}

func (r *Registry) changed(d *Domain) {
	if r.o.OnChange != nil {
		r.o.OnChange(d)
	}
}
