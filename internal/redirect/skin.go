package redirect

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/destination"
	"github.com/terselink/terse/internal/domains"
)

//go:embed page.css
var style string

//go:embed page.html
var pageSource string

var pageTemplate = template.Must(template.New("page").Parse(pageSource))

// skin is how the pages of a domain look. Pages that are the same for everybody are rendered
// when they are first asked for, and kept.
type skin struct {
	domain *domains.Domain // whose brand it is; nil: the plain look
	brand  terse.Brand
	css    string
	images string // source of the logo for a Content-Security-Policy; "": there is none
	kept   *atomic.Int64

	page, form []byte // header lines of pages and of those with a form
	pages      [pageCount][languageCount]atomic.Pointer[[]byte]
}

// maxKept bounds what is kept of brands, in bytes; the plain look is apart.
const maxKept = 32 << 20

// skinRoom is what a new brand finds free at least: all pages of one, in all languages, take about as much.
const skinRoom = 1 << 20

// skins keeps the skins of the domains with a brand.
type skins struct {
	plain *skin
	brand sync.Map     // terse.DomainID -> *skin
	kept  atomic.Int64 // bytes of them and their pages
}

func newSkins() (*skins, error) {
	s := &skins{}
	s.plain = newSkin(nil, &s.kept)
	for p := range pageCount {
		for l := range language(languageCount) {
			if _, err := s.plain.render(p, l, &pageData{}); err != nil {
				return nil, fmt.Errorf("render pages: %w", err)
			}
		}
	}
	return s, nil
}

// of returns the skin of a domain; nil has the plain one.
//
// Hot path: 0 allocs/op, see TestHitAllocs.
func (s *skins) of(d *domains.Domain) *skin {
	if d == nil || d.Brand == nil {
		return s.plain
	}
	if k, ok := s.brand.Load(d.Number); ok && k.(*skin).domain == d {
		return k.(*skin)
	}
	if s.kept.Load() > maxKept-skinRoom {
		s.brand.Clear()
		s.kept.Store(0)
	}
	k := newSkin(d, &s.kept)
	s.kept.Add(k.ownBytes())
	s.brand.Store(d.Number, k)
	return k
}

func newSkin(d *domains.Domain, kept *atomic.Int64) *skin {
	k := &skin{domain: d, css: style, kept: kept}
	if d != nil {
		k.brand = *d.Brand
	}
	if a := k.brand.Accent; a != "" {
		k.css += ":root{--accent:" + a + ";--on:" + textOn(a) + "}"
	}
	switch logo := k.brand.Logo; {
	case strings.HasPrefix(logo, "data:"):
		k.images = "data:"
	case logo != "":
		k.images = origin(logo)
	}
	k.page = k.lines(policyHeaders{form: "'none'"})
	k.form = k.lines(policyHeaders{})
	return k
}

// ownBytes is about what a skin takes without its pages.
func (k *skin) ownBytes() int64 {
	return int64(len(k.css)+len(k.page)+len(k.form)) + int64(unsafe.Sizeof(*k))
}

// origin returns scheme and authority of a rendered URL.
func origin(u string) string {
	after := strings.Index(u, "://") + len("://")
	if i := strings.IndexAny(u[after:], "/?#"); i >= 0 {
		return u[:after+i]
	}
	return u
}

// textOn returns black or white, whichever is easier to read on a colour (WCAG 2.2, contrast
// ratio).
func textOn(colour string) string {
	n, err := strconv.ParseUint(colour[1:], 16, 24)
	if err != nil {
		return "#fff"
	}
	linear := func(c uint64) float64 {
		v := float64(c&0xff) / 255
		if v <= 0.04045 {
			return v / 12.92
		}
		v = (v + 0.055) / 1.055
		return v * v * (0.6 + 0.4*v) // v^2.4 within 0.01, which is closer than the choice needs
	}
	luminance := 0.2126*linear(n>>16) + 0.7152*linear(n>>8) + 0.0722*linear(n)
	if 1.05/(luminance+0.05) >= (luminance+0.05)/0.05 {
		return "#fff"
	}
	return "#000"
}

// policyHeaders are what differs between the pages in their header lines.
type policyHeaders struct {
	form     string // form-action; "": not restricted, because browsers apply it to where the redirect after a form leads, too
	script   string // hash source of the one script; "": none
	images   []string
	frame    string // source of the one frame; "": none
	referrer string // Referrer-Policy; "": the default
	refresh  string // where the page leads by itself after a second; "": nowhere
}

// lines returns the header lines of a page, in the form that answerRedirect explains.
func (k *skin) lines(o policyHeaders) []byte {
	var b strings.Builder
	referrer := o.referrer
	if referrer == "" {
		referrer = domains.DefaultReferrerPolicy
	}
	// fasthttp looks at the first byte of a name for headers of its own: X begins none.
	b.WriteString("X-Robots-Tag: noindex\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: " + referrer +
		"\r\nCache-Control: no-store\r\nVary: Accept-Language\r\nContent-Security-Policy: default-src 'none'; style-src " + hashSource(k.css))
	images := o.images
	if k.images != "" && o.frame == "" {
		images = append([]string{k.images}, images...)
	}
	if len(images) > 0 {
		b.WriteString("; img-src " + strings.Join(images, " "))
	}
	if o.script != "" {
		b.WriteString("; script-src " + o.script)
	}
	if o.frame != "" {
		b.WriteString("; frame-src " + o.frame)
	}
	b.WriteString("; base-uri 'none'")
	if o.form != "" {
		b.WriteString("; form-action " + o.form)
	}
	b.WriteString("; frame-ancestors 'none'\r\n")
	if o.refresh != "" {
		b.WriteString("Refresh: 1; url=" + o.refresh + "\r\n")
	}
	b.WriteString("Content-Language")
	return []byte(b.String())
}

// hashSource lets one inline style sheet or script in.
func hashSource(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// pageData is what the template shows. Lang to Support are the skin's.
type pageData struct {
	Lang               string
	Title, Text        string
	Style              template.CSS
	Name               string
	Logo, Support      template.URL // checked by package domains
	SupportWord        string
	Short, Destination string
	Href               template.URL // Destination, whole; "": it is shown alone
	Shown              string       // Destination, shortened
	Button             string       // of the form for a password; "": there is none
	App                *appData
	Pixels             []string
}

// hrefOf returns a rendered destination as a link leads to it. html/template lets no scheme of an app through:
// they were checked when the link was written (destination.ParseApp), and are again.
func hrefOf(to string) template.URL {
	scheme, _, ok := strings.Cut(to, "://")
	if !ok {
		return ""
	}
	if destination.IsApp(to) {
		if _, err := destination.CheckSchemes("", []string{scheme}); err != nil {
			return ""
		}
	}
	return template.URL(to)
}

// Of a long destination a page shows the beginning, with the longest host, and the end: whole it stands in the href.
const (
	shownStart = 270 // bytes
	shownEnd   = 30
)

func shortened(to string) string {
	if len(to) <= shownStart+shownEnd {
		return to
	}
	return to[:shownStart] + "…" + to[len(to)-shownEnd:]
}

// get returns a page that is the same for everybody.
//
// Hot path: 0 allocs/op, see TestHitAllocs.
func (k *skin) get(p page, l language) []byte {
	if b := k.pages[p][l].Load(); b != nil {
		return *b
	}
	b, err := k.render(p, l, &pageData{})
	if err != nil { // cannot happen with a template that rendered before
		panic(err)
	}
	return b
}

// render renders a page with what is in d, and keeps it if that is nothing.
func (k *skin) render(p page, l language, d *pageData) ([]byte, error) {
	same := d.Destination == "" && d.Short == "" && d.App == nil && len(d.Pixels) == 0
	w := texts[p][l]
	d.Lang, d.Title, d.Text, d.Style = languages[l], w.Title, w.Text, template.CSS(k.css)
	d.Name, d.Logo, d.Support, d.SupportWord = k.brand.Name, template.URL(k.brand.Logo), template.URL(k.brand.SupportURL), supportWords[l]
	if p == pagePassword || p == pageWrong || p == pageSlow {
		d.Button = buttons[l]
	}
	d.Href, d.Shown = hrefOf(d.Destination), shortened(d.Destination)
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, d); err != nil {
		return nil, err
	}
	if same {
		out := b.Bytes()
		switch n := int64(len(out)); {
		case k.domain == nil:
			k.pages[p][l].CompareAndSwap(nil, &out)
		case k.kept.Add(n) > maxKept || !k.pages[p][l].CompareAndSwap(nil, &out):
			k.kept.Add(-n) // rendered anew at every visit, until the next new brand makes room
		}
	}
	return b.Bytes(), nil
}
