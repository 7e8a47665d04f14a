package redirect

import (
	"bytes"
	_ "embed"
	"html/template"
	"net/http"
	"strings"

	"github.com/valyala/fasthttp"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/agent"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/code"
	"github.com/terselink/terse/internal/destination"
	"github.com/terselink/terse/internal/domains"
	"github.com/terselink/terse/internal/forward"
	"github.com/terselink/terse/internal/pixel"
)

// phone is where visitors with a telephone of one system are sent.
type phone struct {
	destination string // "": the link has none for it
	parts       forward.Parts
	store       string // where the app is to be had; "": nowhere
	app         bool   // destination opens an app by a scheme of its own
}

// openGraph is what agents that make link previews are shown.
type openGraph struct{ title, description, image string }

// instead is what people or agents may get in place of a redirect. nil for nearly all links.
type instead struct {
	ios, android phone
	graph        *openGraph
	title        string // of the link
	pixels       []string
	sources      []string // of the pixels, for a Content-Security-Policy
	cloak        bool
}

func (i *instead) phones() bool  { return i.ios.destination != "" || i.android.destination != "" }
func (i *instead) between() bool { return i.cloak || len(i.pixels) > 0 }

// compileInstead returns nil for a link that is answered by redirects alone, and the memory that the
// result takes.
func compileInstead(l *terse.Link) (*instead, int, bool) {
	w := l.Settings.Web
	i := &instead{title: strings.Clone(l.Settings.Title), cloak: w.Cloak}
	bytes := 300 + len(i.title)
	safe := true
	for _, p := range []struct {
		to        *phone
		url, shop string
	}{{&i.ios, w.IOSDestination, w.IOSStore}, {&i.android, w.AndroidDestination, w.AndroidStore}} {
		to := p.url
		if to == "" {
			to = p.shop
		}
		if to == "" {
			continue
		}
		safe = safe && headerSafe(to) && (p.shop == "" || headerSafe(p.shop))
		*p.to = phone{destination: strings.Clone(to), parts: forward.Split(to), store: strings.Clone(p.shop), app: destination.IsApp(to)}
		bytes += len(to) + len(p.shop)
	}
	if w.OGTitle != "" || w.OGDescription != "" || w.OGImage != "" {
		i.graph = &openGraph{title: strings.Clone(w.OGTitle), description: strings.Clone(w.OGDescription), image: strings.Clone(w.OGImage)}
		bytes += len(w.OGTitle) + len(w.OGDescription) + len(w.OGImage)
	}
	for _, p := range w.Pixels {
		image, sources := pixel.Image(p)
		if image == "" {
			return nil, 0, false // of a provider that this version does not know
		}
		i.pixels, i.sources = append(i.pixels, image), append(i.sources, sources...)
		bytes += 2*len(image) + 64
	}
	if !i.phones() && i.graph == nil && !i.between() {
		return nil, 0, safe
	}
	return i, bytes, safe
}

// phoneOf returns the link as it is for the telephone of the visitor: l itself for everybody else.
//
// Hot path: 0 allocs/op, see TestInsteadAllocs.
func (s *Server) phoneOf(r *request, d *domains.Domain, f *facts, l, out *link) *link {
	i := l.special.instead
	info := s.parsers.parse(r.shard, r.userAgent, r.platform, r.flags&clicks.FlagMobile != 0)
	p := &i.ios
	switch {
	case info.Bot != agent.Person:
		return l
	case info.OS == "Android":
		p = &i.android
	case info.OS != "iOS":
		return l
	}
	if p.destination == "" {
		return l
	}
	if p.app {
		r.app, r.web = p, string(decide(new([]byte), d, l, f).location) // in memory of its own: rare
	}
	if l != out {
		*out = *l
	}
	out.destination, out.parts = p.destination, p.parts
	return out
}

// answerInstead answers what would be a redirect with a page, if the link has one for this visitor. It
// reports false if the redirect goes ahead.
func (s *Server) answerInstead(ctx *fasthttp.RequestCtx, r *request, d *domains.Domain, l *link, v *decision, asked []byte) bool {
	i := l.special.instead
	bot := s.parsers.parse(r.shard, r.userAgent, r.platform, r.flags&clicks.FlagMobile != 0).Bot
	switch {
	case bot == agent.Preview && i.graph != nil:
		v.outcome = clicks.OutcomePreview
		s.visited(r, d, l, v, asked)
		s.answerGraph(ctx, r, d, i, asked)
	case bot != agent.Person:
		return false // programs are sent on: no page of ours is for them
	case r.app != nil:
		s.visited(r, d, l, v, asked)
		s.answerApp(ctx, r, d, l, v)
	case i.between() && r.flags&clicks.FlagPrefetch == 0 && s.o.Interstitials != nil && s.o.Interstitials(l.workspace):
		pixels := i.pixels
		if r.optsOut {
			pixels = nil
		}
		if !i.cloak && len(pixels) == 0 {
			return false
		}
		s.visited(r, d, l, v, asked)
		s.answerBetween(ctx, r, d, l, v, pixels)
	default:
		return false
	}
	return true
}

// visited records and counts a visit that gets a page.
func (s *Server) visited(r *request, d *domains.Domain, l *link, v *decision, asked []byte) {
	s.capture(r, d, l, v, asked)
	s.count(r, counter(v.outcome))
}

// pageReferrer is the Referrer-Policy of a page that leads on: what the redirect would have had.
func pageReferrer(d *domains.Domain, l *link) string {
	return domains.ReferrerPolicies()[l.special.override.on(policyOf(d))/2]
}

// appData is what the page shows that opens an app.
type appData struct {
	Open, Store, Web             template.URL // rendered destinations
	OpenWord, StoreWord, WebWord string
	Script                       template.JS
}

//go:embed open.js
var openSource string

// openScript is without the line feed at its end, as it stands between its tags.
var openScript = strings.TrimSpace(openSource)

// answerApp opens an app and offers the store and the web, because nobody can tell beforehand whether the
// app is there: a redirect to a scheme that no app has ends in an error.
func (s *Server) answerApp(ctx *fasthttp.RequestCtx, r *request, d *domains.Domain, l *link, v *decision) {
	k, lang := s.skins.of(d), preferredLanguage(r.language)
	web := r.web
	if r.app.store != "" && web == r.app.store {
		web = ""
	}
	words := appWords[lang]
	data := &pageData{App: &appData{
		Open: template.URL(v.location), Store: template.URL(r.app.store), Web: template.URL(web),
		OpenWord: words[0], StoreWord: words[1], WebWord: words[2], Script: template.JS(openScript),
	}}
	s.answerRendered(ctx, k, pageApp, lang, data, policyHeaders{form: "'none'", script: hashSource(openScript), referrer: pageReferrer(d, l)})
}

// answerBetween shows the page that stands before, or around, a destination.
func (s *Server) answerBetween(ctx *fasthttp.RequestCtx, r *request, d *domains.Domain, l *link, v *decision, pixels []string) {
	i := l.special.instead
	k, lang := s.skins.of(d), preferredLanguage(r.language)
	to := string(v.location)
	h := policyHeaders{form: "'none'", referrer: pageReferrer(d, l)}
	if len(pixels) > 0 {
		h.images = i.sources
	}
	if !i.cloak {
		h.refresh = to
		s.answerRendered(ctx, k, pageForward, lang, &pageData{Destination: to, Pixels: pixels}, h)
		return
	}
	h.frame = frameSource(to)
	title := i.title
	if title == "" {
		title = k.brand.Name
	}
	if title == "" {
		title = d.Host
	}
	var b bytes.Buffer
	if err := cloakTemplate.Execute(&b, &pageData{Lang: languages[lang], Title: title, Style: template.CSS(k.css), Destination: to, Pixels: pixels}); err != nil {
		panic(err) // cannot happen with a template that rendered before
	}
	s.answerBody(ctx, b.Bytes(), k.lines(h), lang)
}

// frameSource lets the destination in, and what it forwards to below its own name or from www.
func frameSource(to string) string {
	o := origin(to)
	scheme, host, _ := strings.Cut(o, "://")
	bare := strings.TrimPrefix(host, "www.")
	if strings.HasPrefix(host, "[") || strings.Trim(strings.ToLower(host), "0123456789.:") == "" {
		return o // an address has no names below it
	}
	return scheme + "://" + bare + " " + scheme + "://*." + bare
}

// answerRendered writes a page that is rendered for this visit.
func (s *Server) answerRendered(ctx *fasthttp.RequestCtx, k *skin, p page, lang language, data *pageData, h policyHeaders) {
	body, err := k.render(p, lang, data)
	if err != nil { // cannot happen with a template that rendered before
		panic(err)
	}
	s.answerBody(ctx, body, k.lines(h), lang)
}

func (s *Server) answerBody(ctx *fasthttp.RequestCtx, body, lines []byte, lang language) {
	ctx.Response.SetBodyRaw(body)
	ctx.Response.SetStatusCode(http.StatusOK)
	ctx.Response.Header.SetCanonical(lines, stringBytes(languages[lang]))
	ctx.Response.Header.SetContentType("text/html; charset=utf-8")
}

//go:embed cloak.html
var cloakSource string

//go:embed opengraph.html
var graphSource string

var (
	cloakTemplate = template.Must(template.New("cloak").Parse(cloakSource))
	graphTemplate = template.Must(template.New("opengraph").Parse(graphSource))
)

// graphData is what the page for link previews shows.
type graphData struct {
	Lang, Title, Description, Image, Short, Name string
}

// renderGraph renders the page for link previews. Without a title of its own it has the link's, else the
// host of the short URL.
func renderGraph(g *openGraph, title, short, name, host string, lang language) ([]byte, error) {
	for _, t := range []string{g.title, title, name, host} {
		if t != "" {
			title = t
			break
		}
	}
	var b bytes.Buffer
	err := graphTemplate.Execute(&b, &graphData{Lang: languages[lang], Title: title, Description: g.description, Image: g.image, Short: short, Name: name})
	return b.Bytes(), err
}

// answerGraph shows agents that make link previews what the link says of itself.
func (s *Server) answerGraph(ctx *fasthttp.RequestCtx, r *request, d *domains.Domain, i *instead, asked []byte) {
	k, lang := s.skins.of(d), preferredLanguage(r.language)
	body, err := renderGraph(i.graph, i.title, string(code.AppendPath([]byte(d.Base()), string(asked))), k.brand.Name, d.Host, lang)
	if err != nil {
		panic(err) // cannot happen with a template that rendered before
	}
	s.answerBody(ctx, body, k.lines(policyHeaders{form: "'none'"}), lang)
}
