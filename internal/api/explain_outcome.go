package api

import (
	"net/http"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/destination"
	"github.com/terselink/terse/internal/domains"
	"github.com/terselink/terse/internal/forward"
	"github.com/terselink/terse/internal/links"
	"github.com/terselink/terse/internal/rules"
)

// The answers that an explanation speaks of.
const (
	answerRedirect = "redirect"
	answerPage     = "page"
	answerForm     = "form"
	answerPreview  = "preview"
	answerApp      = "app"
	answerPixels   = "pixels"
	answerFrame    = "frame"
)

// visitExplained gathers what an explanation needs of a link. It follows the order of package redirect, and
// TestExplainIsWhatHappens holds the two together.
type visitExplained struct {
	b       *LinkExplanation
	l       *terse.Link
	set     *terse.LinkSettings
	web     terse.LinkWeb
	d       *domains.Domain
	in      *RequestFacts
	f       *rules.Facts
	allowed terse.WorkspaceSettings
}

func (s *Server) explainOutcome(b *LinkExplanation, l *terse.Link, set *terse.LinkSettings, t rules.Target, target func(uint8) (string, bool), f *rules.Facts, in *RequestFacts) {
	e := visitExplained{b: b, l: l, set: set, d: s.o.Links.Domain(l), in: in, f: f, allowed: s.o.Auth.Settings(l.Workspace)}
	if e.d == nil {
		e.d = &domains.Domain{}
	}
	if set.Web != nil {
		e.web = *set.Web
	}
	b.NoIndex, b.ReferrerPolicy = !e.d.Index, either(e.web.ReferrerPolicy, either(e.d.ReferrerPolicy, domains.DefaultReferrerPolicy))
	if e.web.NoIndex != nil {
		b.NoIndex = *e.web.NoIndex
	}
	if set.MaxClicks != 0 {
		b.LimitDestination = orNull(firstOf(e.web.LimitDestination, set.ExpiredDestination, e.d.LimitDestination, e.d.ExpiredDestination))
	}
	switch {
	case l.Status == terse.StatusBlocked:
		e.ended(links.StatusBlocked, http.StatusUnavailableForLegalReasons)
	case set.StartsAt != 0 && f.Now < set.StartsAt:
		e.ended("not_found", http.StatusNotFound, e.web.NotStartedDestination, e.d.NotStartedDestination, e.d.NotFoundDestination)
	case l.Status != terse.StatusActive:
		e.ended(links.StatusDisabled, http.StatusGone)
	case l.ExpiredAt(f.Now):
		e.ended(links.StatusExpired, http.StatusGone, set.ExpiredDestination, e.d.ExpiredDestination)
	case in.Path != "" && !set.ForwardPath:
		e.ended("not_found", http.StatusNotFound, e.d.NotFoundDestination)
	default:
		e.live(t, target)
	}
}

// firstOf returns the first that is not empty.
func firstOf(list ...string) string {
	for _, s := range list {
		if s != "" {
			return s
		}
	}
	return ""
}

// ended explains a visit that the link does not take: the first place that is named, else a page.
func (e *visitExplained) ended(outcome string, status int, places ...string) {
	e.b.Outcome, e.b.Answer, e.b.Status = outcome, answerPage, status
	if to := firstOf(places...); to != "" {
		e.b.Answer, e.b.Status, e.b.Destination, e.b.Location = answerRedirect, http.StatusFound, &to, &to
	}
}

// live explains a visit that the link takes.
func (e *visitExplained) live(t rules.Target, target func(uint8) (string, bool)) {
	b, to := e.b, e.l.Destination
	person := e.f.Bot == "" || e.f.Bot == "prefetch" || e.f.Bot == "head"
	store, app := "", false
	if t.Number != 0 {
		b.Target, b.Rule = int(t.Number), &t.Rule
		var ok bool
		if to, ok = target(t.Number); !ok { // the values of the link make no URL of this template
			e.ended("not_found", http.StatusNotFound, e.d.NotFoundDestination)
			return
		}
		if t.Variant >= 0 {
			b.Variant = &t.Variant
			b.SetsCookie = e.web.Sticky == terse.StickyCookie && t.Number != e.f.Prefer
		}
	} else if person {
		url := ""
		switch e.f.OS {
		case "iOS":
			url, store = e.web.IOSDestination, e.web.IOSStore
		case "Android":
			url, store = e.web.AndroidDestination, e.web.AndroidStore
		}
		if url = either(url, store); url != "" {
			to, app = url, destination.IsApp(url)
		}
	}
	visit := forward.Visit{
		Mode: forward.ParseMode(e.web.QueryMode).Or(e.d.ForwardMode()), Link: forward.CompileUTM(e.web.UTM), Domain: e.d.UTMPairs(),
	}
	if forwards := e.d.ForwardQuery; e.set.ForwardQuery == nil && forwards || e.set.ForwardQuery != nil && *e.set.ForwardQuery {
		visit.Query = []byte(e.in.Query)
	}
	if e.in.Path != "" {
		visit.Rest = []byte(e.in.Path)
	}
	location, ok := forward.AppendURL(nil, to, forward.Split(to), &visit)
	if !ok {
		b.Target, b.Rule, b.Variant, b.SetsCookie = 0, nil, nil, false
		e.ended("not_found", http.StatusNotFound, e.d.NotFoundDestination)
		return
	}
	b.Outcome, b.Answer, b.Destination, b.Location = "redirect", answerRedirect, orNull(to), orNull(string(location))
	if b.Status = int(e.l.RedirectStatus); b.Status == 0 {
		b.Status = e.d.RedirectStatus
	}
	pixels := e.web.Pixels
	if e.in.OptOut {
		pixels = nil
	}
	page := func(answer string) { b.Answer, b.Status = answer, http.StatusOK }
	switch {
	case e.set.PasswordHash != "":
		b.Outcome = "password"
		page(answerForm)
	case e.f.Bot == "prefetch" && e.set.MaxClicks != 0: // only a visit may know where a click leads
		b.Outcome, b.Answer, b.Status, b.SetsCookie = "ahead", answerPage, http.StatusServiceUnavailable, false
		b.Destination, b.Location = nil, nil
	case e.f.Bot == "preview" && (e.web.OGTitle != "" || e.web.OGDescription != "" || e.web.OGImage != ""):
		b.Outcome = "preview"
		page(answerPreview)
	case person && app:
		b.Store = orNull(store)
		page(answerApp)
	case !person || e.f.Bot == "prefetch" || !e.allowed.Interstitials:
	case e.web.Cloak:
		page(answerFrame)
	case len(pixels) > 0:
		page(answerPixels)
	}
	if b.Answer == answerFrame || b.Answer == answerPixels {
		for _, p := range pixels {
			b.Pixels = append(b.Pixels, p.Provider)
		}
	}
}
