package links

import (
	"fmt"
	"slices"
	"strings"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/destination"
	"github.com/terselink/terse/internal/domains"
	"github.com/terselink/terse/internal/pixel"
	"github.com/terselink/terse/internal/rules"
	"github.com/terselink/terse/internal/template"
)

// SettingsPatch changes settings of a link, or those that a campaign has for all of its own: nil leaves a field as
// it is, a pointer to the zero value clears it.
type SettingsPatch struct {
	Title              *string
	Tags               *[]string
	StartsAt           *terse.Millis
	ExpiredDestination *string
	MaxClicks          *uint64
	Password           *string
	ForwardQuery       **bool
	ForwardPath        *bool
	Rules              *[]terse.Rule
	Metadata           *map[string]string
	Web                WebPatch
}

// apply changes set as p says. What set refers to is replaced, not modified.
func (p *SettingsPatch) apply(set *terse.LinkSettings) error {
	if p.Password != nil {
		var err error
		if set.PasswordHash, err = hashPassword(*p.Password); err != nil {
			return err
		}
	}
	assign(&set.Title, p.Title)
	assign(&set.ExpiredDestination, p.ExpiredDestination)
	assign(&set.Tags, p.Tags)
	assign(&set.StartsAt, p.StartsAt)
	assign(&set.MaxClicks, p.MaxClicks)
	assign(&set.ForwardQuery, p.ForwardQuery)
	assign(&set.ForwardPath, p.ForwardPath)
	assign(&set.Rules, p.Rules)
	assign(&set.Metadata, p.Metadata)
	p.Web.apply(set)
	if p.Web.QueryMode != nil && *p.Web.QueryMode != "" && p.ForwardQuery == nil {
		set.ForwardQuery = nil // a new mode says it by itself
	}
	return nil
}

// templateFields are the names of the values of a campaign's links. While they are open, templates add the names that they
// use.
type templateFields struct {
	names []string
	open  bool
}

// check refuses names that a caller gave and that cannot be fields.
func (f *templateFields) check() error {
	if len(f.names) > template.MaxFields {
		return terse.Invalid("fields", "more than %d fields", template.MaxFields)
	}
	for i, name := range f.names {
		if err := template.CheckName(name); err != nil {
			return terse.Invalid(fmt.Sprintf("fields[%d]", i), "%s", err.Error())
		}
		if slices.Contains(f.names[:i], name) {
			return terse.Invalid(fmt.Sprintf("fields[%d]", i), "the field is there twice")
		}
	}
	return nil
}

// known returns the names that a template may use; nil: any.
func (f *templateFields) known() []string {
	switch {
	case f.open:
		return nil
	case f.names == nil:
		return []string{}
	}
	return f.names
}

// add takes the names that a template uses.
func (f *templateFields) add(names []string) error {
	if !f.open {
		return nil
	}
	for _, name := range names {
		if !slices.Contains(f.names, name) {
			f.names = append(f.names, name)
		}
	}
	if len(f.names) > template.MaxFields {
		return terse.Invalid("fields", "more than %d fields", template.MaxFields)
	}
	return nil
}

// checker validates settings: those of a link, or those of a campaign, whose URLs and texts are templates.
type checker struct {
	serves  func(host string) bool
	allowed terse.WorkspaceSettings
	fields  *templateFields // nil: settings of a link
	stored  map[string]bool // texts that the campaign has already: kept as they are, if they make no template
}

func (s *Service) checker(allowed terse.WorkspaceSettings) checker {
	return checker{serves: s.o.Domains.Serves, allowed: allowed}
}

// url renders a place where visitors may be sent.
func (c *checker) url(field, raw string) (string, error) {
	rendered, err := destination.Parse(field, raw, c.serves)
	return c.filled(field, rendered, err)
}

// app renders a place that an app may open.
func (c *checker) app(field, raw string) (string, error) {
	rendered, err := destination.ParseApp(field, raw, c.serves, c.allowed.AppSchemes)
	return c.filled(field, rendered, err)
}

// image renders the URL of an image, which may be one of ours.
func (c *checker) image(field, raw string) (string, error) {
	rendered, err := destination.Parse(field, raw, nil)
	return c.filled(field, rendered, err)
}

func (c *checker) filled(field, rendered string, err error) (string, error) {
	if err != nil || c.fields == nil {
		return rendered, err
	}
	t, err := template.Rendered(field, rendered, c.fields.known())
	switch {
	case err != nil && c.stored[rendered]:
		return rendered, nil
	case err != nil:
		return "", err
	}
	return rendered, c.fields.add(t.Fields())
}

// text refuses what is no text for people.
func (c *checker) text(field, v string, limit int) error {
	if err := checkText(field, v, limit); err != nil || c.fields == nil {
		return err
	}
	t, err := template.ParseText(field, v, c.fields.known())
	switch {
	case err != nil && c.stored[v]:
		return nil
	case err != nil:
		return err
	}
	return c.fields.add(t.Fields())
}

// settings validates in place: tags become sorted and distinct, destinations rendered.
func (c *checker) settings(set *terse.LinkSettings, expires terse.Millis) error {
	var err error
	if list := set.Rules; list != nil {
		own := *c // what a row without rules has stays on the stack
		if set.Rules, err = rules.Check(list, own.url); err != nil {
			return err
		}
	}
	if err = c.text("title", set.Title, MaxTitle); err != nil {
		return err
	}
	if set.Tags, err = checkTags(set.Tags); err != nil {
		return err
	}
	if err = checkMetadata(set.Metadata); err != nil {
		return err
	}
	if set.StartsAt < 0 || set.StartsAt > latestTime {
		return terse.Invalid("starts_at", "not a time that can be kept")
	}
	if set.StartsAt != 0 && expires != 0 && set.StartsAt >= expires {
		return terse.Invalid("starts_at", "the link would end before it starts")
	}
	if set.ExpiredDestination != "" {
		if set.ExpiredDestination, err = c.url("expired_destination", set.ExpiredDestination); err != nil {
			return err
		}
	}
	if set.MaxClicks > MaxMaxClicks {
		return terse.Invalid("max_clicks", "more than %d clicks", MaxMaxClicks)
	}
	return c.web(set)
}

// web validates set.Web in place: destinations become rendered, names of defaults the zero value.
// A mode for the query says also whether it is forwarded.
func (c *checker) web(set *terse.LinkSettings) error {
	if set.Web.IsZero() {
		set.Web = nil
		return nil
	}
	w := *set.Web // what was handed in stays the caller's
	if w.ReferrerPolicy != "" && !slices.Contains(domains.ReferrerPolicies(), w.ReferrerPolicy) {
		return terse.Invalid("referrer_policy", "the referrer policy is one of %s", strings.Join(domains.ReferrerPolicies(), ", "))
	}
	for _, f := range []struct {
		field string
		url   *string
	}{{"not_started_destination", &w.NotStartedDestination}, {"limit_destination", &w.LimitDestination}, {"ios_store", &w.IOSStore}, {"android_store", &w.AndroidStore}} {
		if *f.url == "" {
			continue
		}
		var err error
		if *f.url, err = c.url(f.field, *f.url); err != nil {
			return err
		}
	}
	forwards, err := domains.CheckQueryMode(&w.QueryMode, set.ForwardQuery)
	if err != nil {
		return err
	}
	set.ForwardQuery = forwards
	if w.UTM, err = domains.CheckUTM(w.UTM); err != nil {
		return err
	}
	if u := w.UTM; u != nil {
		for _, p := range [...]struct{ field, value string }{
			{"utm.source", u.Source}, {"utm.medium", u.Medium}, {"utm.campaign", u.Campaign}, {"utm.term", u.Term}, {"utm.content", u.Content},
		} {
			if err := c.text(p.field, p.value, domains.MaxUTM); err != nil {
				return err
			}
		}
	}
	if w.Sticky == terse.StickyHash {
		w.Sticky = ""
	}
	if w.Sticky != "" && w.Sticky != terse.StickyCookie {
		return terse.Invalid("sticky", "what keeps a visitor on a variant is hash or cookie")
	}
	if err := c.pages(&w); err != nil {
		return err
	}
	if set.Web = &w; w.IsZero() {
		set.Web = nil
	}
	return nil
}

// Limits of what link previews show, in bytes.
const (
	MaxOGTitle       = 300
	MaxOGDescription = 1000
)

// pages validates what people or agents get in place of redirects.
func (c *checker) pages(w *terse.LinkWeb) error {
	var err error
	for _, f := range []struct {
		field string
		url   *string
	}{{"ios_destination", &w.IOSDestination}, {"android_destination", &w.AndroidDestination}} {
		if *f.url == "" {
			continue
		}
		if *f.url, err = c.app(f.field, *f.url); err != nil {
			return err
		}
	}
	if err := c.text("og_title", w.OGTitle, MaxOGTitle); err != nil {
		return err
	}
	if err := c.text("og_description", w.OGDescription, MaxOGDescription); err != nil {
		return err
	}
	if w.OGImage != "" {
		if w.OGImage, err = c.image("og_image", w.OGImage); err != nil {
			return err
		}
	}
	if err := pixel.Check(w.Pixels); err != nil {
		return err
	}
	if len(w.Pixels) == 0 {
		w.Pixels = nil
	}
	field := "cloak"
	if w.Pixels != nil {
		field = "pixels"
	}
	if !c.allowed.Interstitials && (w.Pixels != nil || w.Cloak) {
		return &terse.Error{Code: terse.CodeInvalid, Reason: "interstitials_off", Field: field, Message: "pages before a destination are switched off: turn interstitials of the workspace on first"}
	}
	return nil
}
