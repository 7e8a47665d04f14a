package campaigns

import (
	"cmp"
	"strings"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/domains"
	"github.com/terselink/terse/internal/template"
)

// places are the settings of links in which a campaign may have placeholders: URLs, and texts for people.
type places struct {
	set terse.LinkSettings
	web terse.LinkWeb
	utm terse.UTM
}

const (
	urlPlaces  = 8
	textPlaces = 3
	utmPlaces  = 5
)

// all returns the URLs, then the texts, then the UTM parameters.
func (p *places) all() [urlPlaces + textPlaces + utmPlaces]*string {
	w, u := &p.web, &p.utm
	return [...]*string{
		&p.set.ExpiredDestination, &w.NotStartedDestination, &w.LimitDestination, &w.IOSDestination, &w.IOSStore, &w.AndroidDestination, &w.AndroidStore, &w.OGImage,
		&p.set.Title, &w.OGTitle, &w.OGDescription,
		&u.Source, &u.Medium, &u.Campaign, &u.Term, &u.Content,
	}
}

func placesOf(set *terse.LinkSettings) places {
	p := places{set: *set}
	if set.Web != nil {
		p.web = *set.Web
	}
	if p.web.UTM != nil {
		p.utm = *p.web.UTM
	}
	return p
}

// Braced returns the URLs and texts of a campaign's settings that have a brace. A setting that was kept before there
// were placeholders may be none of a template, and then stands for itself.
func Braced(set *terse.LinkSettings) map[string]bool {
	var out map[string]bool
	p := placesOf(set)
	for _, text := range p.all() {
		if strings.IndexByte(*text, '{') >= 0 {
			if out == nil {
				out = map[string]bool{}
			}
			out[*text] = true
		}
	}
	return out
}

// urlFields are the names of the URLs.
var urlFields = [urlPlaces]string{
	"expired_destination", "not_started_destination", "limit_destination", "ios_destination", "ios_store", "android_destination", "android_store", "og_image",
}

// blank is a place with placeholders.
type blank struct {
	place int
	url   *template.Template // nil: a text
	text  *template.Text
}

// compileSettings finds the placeholders in the settings. What is no template stands for itself: settings were
// kept before they could have placeholders.
func (c *Campaign) compileSettings(fields []string) {
	p := placesOf(&c.Settings)
	for i, text := range p.all() {
		switch {
		case strings.IndexByte(*text, '{') < 0:
		case i < urlPlaces:
			if t, err := template.Rendered(urlFields[i], *text, fields); err == nil && !t.Literal() {
				c.blanks = append(c.blanks, blank{place: i, url: t})
			}
		default:
			if t, err := template.ParseText("", *text, fields); err == nil && !t.Literal() {
				c.blanks = append(c.blanks, blank{place: i, text: t})
			}
		}
	}
}

// CheckValues returns why a link cannot have the values, nil if it can: what every template of the campaign
// needs of them. joined are the values with separators between them; scratch is memory, returned as it
// has grown.
func (c *Campaign) CheckValues(values [][]byte, joined string, scratch []byte) ([]byte, error) {
	scratch, err := c.Template.Check(values, joined, scratch)
	for i := 0; err == nil && i < len(c.Targets); i++ {
		scratch, err = c.Targets[i].Check(values, joined, scratch)
	}
	for i := 0; err == nil && i < len(c.blanks); i++ {
		if t := c.blanks[i].url; t != nil {
			scratch, err = t.Check(values, joined, scratch)
		}
	}
	return scratch, err
}

// Filled reports whether settings have placeholders, so that they differ from link to link.
func (c *Campaign) Filled() bool { return len(c.blanks) > 0 }

// filled returns the settings as they are for the values of a link. A URL that the values make none, and a UTM
// parameter that they make too long, is left out.
func (c *Campaign) filled(values string) places {
	p := placesOf(&c.Settings)
	all := p.all()
	for i := range c.blanks {
		b := &c.blanks[i]
		switch {
		case b.url != nil:
			url, ok := b.url.Append(nil, values)
			if *all[b.place] = string(url); !ok {
				*all[b.place] = ""
			}
		default:
			text := b.text.Expand(values)
			if b.place >= urlPlaces+textPlaces && len(text) > domains.MaxUTM {
				text = ""
			}
			*all[b.place] = text
		}
	}
	return p
}

// Under returns the settings of a link as its campaign completes them: those that the link has go before, each by
// itself. Rules are not among them, and neither are tags and metadata, which are the campaign's own. Where a
// visitor's telephone leads comes from the campaign only if the destination does.
func (c *Campaign) Under(l *terse.Link) terse.LinkSettings {
	var out terse.LinkSettings
	if l.Settings != nil {
		out = *l.Settings
	}
	from := c.filled(l.Values)
	out.StartsAt = max(out.StartsAt, from.set.StartsAt)
	out.Title = cmp.Or(out.Title, from.set.Title)
	out.ExpiredDestination = cmp.Or(out.ExpiredDestination, from.set.ExpiredDestination)
	out.MaxClicks = cmp.Or(out.MaxClicks, from.set.MaxClicks)
	out.PasswordHash = cmp.Or(out.PasswordHash, from.set.PasswordHash)
	out.ForwardQuery = cmp.Or(out.ForwardQuery, from.set.ForwardQuery)
	out.ForwardPath = out.ForwardPath || from.set.ForwardPath
	if c.Settings.Web != nil {
		out.Web = underWeb(out.Web, &from, l.Destination != "")
	}
	return out
}

func underWeb(own *terse.LinkWeb, from *places, elsewhere bool) *terse.LinkWeb {
	var w terse.LinkWeb
	if own != nil {
		w = *own
	}
	c := &from.web
	w.NoIndex = cmp.Or(w.NoIndex, c.NoIndex)
	w.ReferrerPolicy = cmp.Or(w.ReferrerPolicy, c.ReferrerPolicy)
	w.NotStartedDestination = cmp.Or(w.NotStartedDestination, c.NotStartedDestination)
	w.LimitDestination = cmp.Or(w.LimitDestination, c.LimitDestination)
	w.QueryMode = cmp.Or(w.QueryMode, c.QueryMode)
	w.Sticky = cmp.Or(w.Sticky, c.Sticky)
	if !elsewhere {
		w.IOSDestination, w.IOSStore = cmp.Or(w.IOSDestination, c.IOSDestination), cmp.Or(w.IOSStore, c.IOSStore)
		w.AndroidDestination, w.AndroidStore = cmp.Or(w.AndroidDestination, c.AndroidDestination), cmp.Or(w.AndroidStore, c.AndroidStore)
	}
	w.OGTitle, w.OGDescription, w.OGImage = cmp.Or(w.OGTitle, c.OGTitle), cmp.Or(w.OGDescription, c.OGDescription), cmp.Or(w.OGImage, c.OGImage)
	if len(w.Pixels) == 0 {
		w.Pixels = c.Pixels
	}
	w.Cloak = w.Cloak || c.Cloak
	u := from.utm
	if o := w.UTM; o != nil {
		u = terse.UTM{
			Source: cmp.Or(o.Source, u.Source), Medium: cmp.Or(o.Medium, u.Medium), Campaign: cmp.Or(o.Campaign, u.Campaign),
			Term: cmp.Or(o.Term, u.Term), Content: cmp.Or(o.Content, u.Content),
		}
	}
	if w.UTM = nil; u != (terse.UTM{}) {
		w.UTM = &u
	}
	if w.IsZero() {
		return nil
	}
	return &w
}
