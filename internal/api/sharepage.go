package api

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"strconv"
	"strings"
)

// publicCSS is the style of the page of a share; its hash is in the page's policy.
const publicCSS = `:root{color-scheme:light dark;--fg:#1b1f24;--bg:#fff;--dim:#667;--bar:#3b6fd4;--line:#dde}
@media(prefers-color-scheme:dark){:root{--fg:#e8eaf0;--bg:#14161a;--dim:#99a;--bar:#7aa2f7;--line:#2a2e36}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--fg);background:var(--bg);margin:0 auto;max-width:60rem;padding:1.5rem}
h1{font-size:1.4rem}h2{font-size:1rem;margin:0 0 .5rem}nav a{margin-right:1rem;color:var(--bar)}nav a[aria-current]{color:var(--fg);font-weight:600}
.n{font-size:2rem;font-weight:600}.dim{color:var(--dim)}.row{display:flex;gap:3rem;flex-wrap:wrap}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(16rem,1fr));gap:2rem;margin-top:2rem}
table{border-collapse:collapse;width:100%}td{padding:.2rem 0;border-bottom:1px solid var(--line)}td:last-child{text-align:right}
svg{width:100%;height:auto;margin-top:1rem}rect{fill:var(--bar)}input,button{font:inherit;padding:.4rem .6rem}`

var publicTemplate = template.Must(template.New("share").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1"><meta name="robots" content="noindex,nofollow">
<title>{{.Title}}</title><style>{{.CSS}}</style></head><body>
<h1>{{.Title}}</h1>
{{if .Ask}}<form method="post" action="?period={{.Period}}"><p><label>Password <input type="password" name="password" required autofocus maxlength="200"></label> <button>Show</button></p>
{{if .Wrong}}<p role="alert">The password is not right.</p>{{end}}</form>
{{else if .Problem}}<p role="alert">{{.Problem}}</p>
{{else}}<nav aria-label="Period">{{range .Periods}}<a href="?period={{.}}"{{if eq . $.Period}} aria-current="page"{{end}}>{{.}}</a>{{end}}</nav>
<div class="row"><p><span class="n">{{.Clicks}}</span><br><span class="dim">clicks</span></p><p><span class="n">{{.Visitors}}</span><br><span class="dim">visitors, per day</span></p></div>
<svg viewBox="0 0 {{.Width}} {{.Height}}" role="img" aria-label="Clicks over time, at most {{.Most}} in one {{.Interval}}">{{range .Bars}}<rect x="{{.X}}" y="{{.Y}}" width="{{.W}}" height="{{.H}}"><title>{{.Label}}</title></rect>{{end}}</svg>
<p class="dim">{{.Range}}</p>
<div class="grid">{{range .Tables}}<section><h2>{{.Name}}</h2><table>{{range .Rows}}<tr><td>{{.Value}}</td><td>{{.Clicks}}</td></tr>{{else}}<tr><td class="dim">no clicks</td><td></td></tr>{{end}}</table></section>{{end}}</div>
{{end}}</body></html>
`))

var publicCSP = func() string {
	sum := sha256.Sum256([]byte(publicCSS))
	return "default-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}()

// publicPage is what the template shows.
type publicPage struct {
	Title, Period string
	CSS           template.CSS
	Ask, Wrong    bool   // a form for the password
	Problem       string // what went wrong, in place of numbers
	Periods       []string

	Clicks, Visitors, Most string
	Interval, Range        string
	Width, Height          int
	Bars                   []publicBar
	Tables                 []publicTable
}

type publicBar struct {
	X, Y, W, H, Label string
}

type publicTable struct {
	Name string
	Rows []publicRow
}

type publicRow struct{ Value, Clicks string }

const chartWidth, chartHeight = 900, 180

// shown writes a number that may be hidden.
func shown(n *int64) string {
	if n == nil {
		return "< " + strconv.Itoa(few)
	}
	text := strconv.FormatInt(*n, 10)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// newPublicPage draws the numbers of a share.
func newPublicPage(stats *PublicStats, period string) *publicPage {
	p := &publicPage{
		Title: stats.Name, Period: period, Periods: []string{"24h", "7d", "30d", "90d"}, Clicks: shown(stats.Clicks), Visitors: shown(stats.Visitors),
		Interval: stats.Interval, Width: chartWidth, Height: chartHeight,
		Range: stats.From.Format("2006-01-02 15:04") + " to " + stats.To.Format("2006-01-02 15:04") + " UTC, without bots; numbers below " + strconv.Itoa(few) + ", and what would tell them, are not shown",
	}
	top := int64(1)
	for _, pt := range stats.Series {
		if pt.Clicks != nil {
			top = max(top, *pt.Clicks)
		}
	}
	p.Most = shown(&top)
	layout := "2006-01-02"
	if stats.Interval == "hour" || stats.Interval == "minute" {
		layout = "2006-01-02 15:04"
	}
	step := float64(chartWidth) / float64(max(1, len(stats.Series)))
	coordinate := func(f float64) string { return strconv.FormatFloat(f, 'f', 1, 64) }
	for i, pt := range stats.Series {
		n, label := int64(1), "not shown" // hidden: a sliver
		if pt.Clicks != nil {
			n, label = *pt.Clicks, shown(pt.Clicks)
		}
		if n == 0 {
			continue
		}
		h := max(1, float64(n)/float64(top)*(chartHeight-10))
		p.Bars = append(p.Bars, publicBar{coordinate(float64(i) * step), coordinate(chartHeight - h), coordinate(max(1, step-1)), coordinate(h), pt.T.Format(layout) + ": " + label})
	}
	for _, by := range publicBy {
		t := publicTable{Name: strings.ToUpper(string(by[:1])) + string(by[1:])}
		for _, v := range stats.Top[string(by)] {
			value := v.Value
			if value == "" {
				value = "(unknown or direct)"
			}
			t.Rows = append(t.Rows, publicRow{value, shown(v.Clicks)})
		}
		p.Tables = append(p.Tables, t)
	}
	return p
}

// writePublicPage renders the page.
func (s *Server) writePublicPage(w http.ResponseWriter, status int, p *publicPage) {
	p.CSS = publicCSS
	var b bytes.Buffer
	if err := publicTemplate.Execute(&b, p); err != nil {
		panic(fmt.Sprintf("api: the page of shares: %v", err)) // a defect of the template
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", publicCSP)
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // a client that has gone needs no page
}
