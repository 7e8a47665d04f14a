package redirect

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/agent"
	"github.com/terselink/terse/internal/clicks"
	"github.com/terselink/terse/internal/domains"
	"github.com/terselink/terse/internal/forward"
	"github.com/terselink/terse/internal/geo"
	"github.com/terselink/terse/internal/rules"
	"github.com/terselink/terse/internal/template"
)

// Limiter counts the clicks of links that allow only so many. *clicklimit.Counter is one.
type Limiter interface {
	// Take uses up one click, durable when it returns true; false if none is left.
	Take(ctx context.Context, n terse.LinkNumber, limit uint64) (bool, error)
	// Left reports whether there are clicks left, and uses none.
	Left(ctx context.Context, n terse.LinkNumber, limit uint64) (bool, error)
}

// Places finds the country and the region of an address. *geo.DB is one.
type Places interface {
	Country(ip netip.Addr) string
	Lookup(ip netip.Addr, p *geo.Place)
}

// limitTimeout bounds the wait for a claim of clicks. It is longer than that for a read,
// as a claim that is given up may have been made and is then lost to visitors.
const limitTimeout = 5 * time.Second

// special is what few links have: nil for all others, which pay one comparison for it.
type special struct {
	rules     *rules.Set
	parts     []forward.Parts // of the targets of the rules
	maxClicks uint64
	password  string // hash
	version   uint64

	varies     bool // what a visit gets depends on who visits, or on the visits before
	override   override
	notStarted string // where visits before the start go; "": as the domain says
	limit      string // where visits go when the clicks are used up; "": as for what has expired
	utm        *forward.UTM
	instead    *instead // pages in place of redirects
	sticky     uint64   // of the cookie that names a variant; 0: a hash of the visitor chooses it
}

// waits reports whether the answer of a link may have to wait: for a claim of clicks, or for
// a turn to hash a password.
func (x *special) waits() bool { return x != nil && (x.password != "" || x.maxClicks != 0) }

// compileSpecial returns nil for a link that is redirected by its destination alone, and
// the memory that the result takes.
func compileSpecial(l *terse.Link) (*special, int, error) {
	set := l.Settings
	if set == nil || set.PasswordHash == "" && set.MaxClicks == 0 && len(set.Rules) == 0 && set.Web == nil {
		return nil, 0, nil
	}
	x := &special{maxClicks: set.MaxClicks, password: strings.Clone(set.PasswordHash), version: l.Version, override: domainDecides}
	x.varies = x.maxClicks != 0 || x.password != "" || len(set.Rules) > 0
	bytes := 200 + len(x.password)
	if set.Web != nil {
		more, err := x.compileWeb(l)
		if err != nil {
			return nil, 0, fmt.Errorf("compile link %s: %w", l.Number, err)
		}
		bytes += more
	}
	if len(set.Rules) == 0 {
		return x, bytes, nil
	}
	var err error
	if x.rules, err = rules.Compile(set.Rules); err != nil {
		return nil, 0, fmt.Errorf("compile link %s: %w", l.Number, err)
	}
	for _, to := range x.rules.Targets() {
		if !headerSafe(to) {
			return nil, 0, fmt.Errorf("compile link %s: the destination of a rule is not rendered for a header", l.Number)
		}
		x.parts = append(x.parts, forward.Split(to))
		bytes += 100 + len(to)
	}
	for i := range set.Rules {
		for j := range set.Rules[i].Conditions {
			bytes += 150 + 64*len(set.Rules[i].Conditions[j].Values)
		}
	}
	return x, bytes, nil
}

// parserShards is how many parsers of User-Agents there are: one is not safe for
// concurrent use, and connections are spread over them.
const parserShards = 16

type parsers [parserShards]struct {
	mu     sync.Mutex
	parser *agent.Parser // made when the first link needs it
}

func (p *parsers) parse(shard uint32, ua, platform []byte, mobile bool) agent.Info {
	s := &p[shard%parserShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.parser == nil {
		s.parser = agent.New(agent.Options{CacheEntries: 1024})
	}
	return s.parser.Parse(ua, platform, mobile)
}

// route applies the rules of a link or of its campaign: it returns the link that the winning target
// makes, in out, or l itself if no rule matches; nil if the values of the link make no destination of
// the target.
//
// Hot path: 0 allocs/op, see TestRuleAllocs.
func (s *Server) route(r *request, l, out *link) *link {
	set := ruleSet(l)
	f := &r.facts
	*f = rules.Facts{Now: r.now, Language: r.language, Query: r.query, Referrer: r.referrer}
	sticky := uint64(0)
	if l.special != nil {
		sticky = l.special.sticky
	}
	if sticky != 0 && l.ruled != nil { // the rules are the campaign's: they change with its version
		sticky = max(sticky^l.ruled.Version<<32, 1)
	}
	if sticky != 0 {
		f.Prefer = preferred(r.cookie, sticky)
	}
	needs := set.Needs()
	if needs&(rules.NeedPlace|rules.NeedVisitor) != 0 {
		ip := s.clients.Resolve(r.peer, r.xff, r.forwarded)
		if needs&rules.NeedPlace != 0 {
			f.Country, f.Region = s.placeOf(r, ip, needs&rules.NeedRegion != 0)
		}
		if needs&rules.NeedVisitor != 0 && ip.IsValid() {
			f.Visitor = rules.Visitor(ip.As16(), r.userAgent)
		}
	}
	if needs&rules.NeedAgent != 0 {
		info := s.parsers.parse(r.shard, r.userAgent, r.platform, r.flags&clicks.FlagMobile != 0)
		f.Device, f.OS, f.Browser, f.Bot = info.Device, info.OS, info.Browser, rules.BotName(info.Bot)
		switch {
		case r.flags&clicks.FlagPrefetch != 0:
			f.Bot = "prefetch"
		case r.method == head && f.Bot == "":
			f.Bot = "head"
		}
	}
	t := set.Decide(l.number, f)
	r.click.Rule = t.Number
	if t.Number == 0 {
		return l
	}
	if sticky != 0 && t.Variant >= 0 && t.Number != f.Prefer {
		r.variant, r.glue = t.Number, sticky // to be kept in a cookie
	}
	if l != out {
		*out = *l
	}
	if c := l.ruled; c != nil {
		to := out.expand(c.Targets[t.Number-1], &r.expanded)
		if to == nil {
			r.click.Rule = 0
		}
		return to
	}
	out.destination, out.parts = set.Targets()[t.Number-1], l.special.parts[t.Number-1]
	return out
}

// ruleSet returns the rules that decide for a link, which has some.
func ruleSet(l *link) *rules.Set {
	if l.ruled != nil {
		return l.ruled.Rules
	}
	return l.special.rules
}

// expand gives a link of a campaign the destination that a template makes of its values, in scratch,
// where its destination may be now; nil if they make none.
func (l *link) expand(t *template.Template, scratch *[]byte) *link {
	url, ok := t.Append((*scratch)[:0], l.shared.values)
	*scratch = url
	if !ok {
		return nil
	}
	l.destination = bytesString(url)
	l.parts = forward.Split(l.destination)
	return l
}

// aim returns the link with the destination that its rules or the visitor's telephone choose, or l itself; nil
// if the values of the link make no destination. A rule that matches comes before the telephone.
func (s *Server) aim(r *request, d *domains.Domain, l *link, f *facts) *link {
	x := l.special
	if l.ruled != nil || x.rules != nil {
		l = s.route(r, l, &r.link)
	}
	if l != nil && x != nil && x.instead != nil && x.instead.phones() && r.click.Rule == 0 {
		l = s.phoneOf(r, d, f, l, &r.link)
	}
	return l
}

// answerSpecial answers a visit of a link with a password or a limit of clicks that would
// be redirected. It reports false if the redirect goes ahead, with *v as it is then.
func (s *Server) answerSpecial(ctx *fasthttp.RequestCtx, r *request, d *domains.Domain, l *link, v *decision, preview bool, asked []byte) bool {
	x := l.special
	var cookies []string // to set with the redirect
	if x.password != "" {
		var done bool
		if cookies, done = s.checkPassword(ctx, r, d, l, asked, preview); done {
			return true
		}
	}
	if x.maxClicks != 0 {
		if r.flags&clicks.FlagPrefetch != 0 && !preview {
			// To say where it leads would be a visit that nobody counts, and to count it one that nobody makes.
			s.answerAhead(ctx, r)
			return true
		}
		left, err := s.takeClick(r, l, preview)
		if err != nil {
			s.logUnavailable(d, err)
			s.answerUnavailable(ctx, r, d)
			return true
		}
		if !left {
			*v = limited(d, l)
			r.click.Rule = 0
			return false
		}
	}
	if len(cookies) > 0 {
		for _, c := range cookies {
			ctx.Response.Header.Add("Set-Cookie", c)
		}
		v.status = fasthttp.StatusSeeOther // the form was a POST: the destination gets a GET
	}
	return false
}

// takeClick reports whether a limited link has a click for this request. Only requests of
// people use one up, and of programs that act for them (Library, Automation): not HEAD, not
// crawlers, previews, monitors and scanners. What a browser fetches ahead does not come here.
func (s *Server) takeClick(r *request, l *link, preview bool) (bool, error) {
	if s.o.Limiter == nil {
		return false, &terse.Error{Code: terse.CodeUnavailable, Op: "count clicks", Message: "this server cannot count clicks"}
	}
	ctx, cancel := context.WithTimeout(context.Background(), limitTimeout)
	defer cancel()
	uses := !preview && r.method != head
	if uses {
		switch s.parsers.parse(r.shard, r.userAgent, r.platform, r.flags&clicks.FlagMobile != 0).Bot {
		case agent.Person, agent.Library, agent.Automation:
		default:
			uses = false
		}
	}
	if !uses {
		return s.o.Limiter.Left(ctx, l.number, l.special.maxClicks)
	}
	return s.o.Limiter.Take(ctx, l.number, l.special.maxClicks)
}
