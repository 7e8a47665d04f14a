package cli

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/terselink/terse/client"
)

type domainsCmd struct {
	List   domainsListCmd   `cmd:"" help:"List the domains of the workspace."`
	Get    domainsGetCmd    `cmd:"" help:"Show a domain."`
	Create domainsCreateCmd `cmd:"" help:"Add a domain."`
	Update domainsUpdateCmd `cmd:"" help:"Change a domain."`
	Delete domainsDeleteCmd `cmd:"" help:"Take a domain without links away."`
}

type domainsListCmd struct{}

func (domainsListCmd) Run(s *session) error {
	c, err := s.connect()
	if err != nil {
		return err
	}
	return list(s, c.Domains(s.ctx), []string{"HOST", "CODES", "STRATEGY", "REDIRECT", "NOT FOUND TO", "LINKS LIVE", "NOTE"}, func(d *client.Domain) []string {
		note := []string{}
		if d.Default {
			note = append(note, "default")
		}
		if d.Shared {
			note = append(note, "shared")
		}
		if !d.InService {
			note = append(note, "OUT OF SERVICE")
		}
		return []string{d.Host, fmt.Sprintf("%d of %s", d.CodeLength, d.Alphabet), d.Strategy, strconv.Itoa(d.RedirectStatus), d.NotFoundDestination, d.DefaultTTL, strings.Join(note, ", ")}
	})
}

type domainsGetCmd struct {
	Host string `arg:"" help:"Host of the domain."`
}

func (c *domainsGetCmd) Run(s *session) error {
	cl, err := s.connect()
	if err != nil {
		return err
	}
	d, err := cl.Domain(s.ctx, c.Host)
	if err != nil {
		return err
	}
	return s.printDomain(d)
}

// domainSettings are the flags that creation and change share.
type domainSettings struct {
	Status              *int    `help:"HTTP status of redirects." placeholder:"STATUS"`
	TTL                 *string `name:"default-ttl" help:"How long links live that say nothing else, such as 4380h; empty: for ever." placeholder:"DURATION"`
	RootDestination     *string `help:"Where visitors of the bare domain are sent." placeholder:"URL"`
	NotFoundDestination *string `help:"Where visitors with an unknown code are sent." placeholder:"URL"`
	ExpiredDestination  *string `help:"Where visitors of ended links are sent." placeholder:"URL"`
	CodeLength          *int    `help:"Characters of new codes." placeholder:"N"`
	Scheme              *string `help:"How short URLs begin: http or https." placeholder:"SCHEME"`
	SMaxAge             *int    `name:"s-maxage" help:"Seconds that a CDN may answer by itself, uncounted; 0: not at all." placeholder:"SECONDS"`
	domainWebFlags      `embed:""`
	domainPlaceFlags    `embed:""`
}

type domainsCreateCmd struct {
	Host           string `arg:"" help:"Host, such as go.example.com."`
	Alphabet       string `help:"Characters of codes." placeholder:"NAME"`
	Strategy       string `help:"How codes are made: permuted (default), random or snowflake." placeholder:"NAME"`
	Shared         bool   `help:"Let every workspace put links on it; only the owner key may."`
	domainSettings `embed:""`
}

func (c *domainsCreateCmd) Run(s *session) error {
	cl, err := s.connect()
	if err != nil {
		return err
	}
	web, err := c.read()
	if err != nil {
		return err
	}
	n := client.NewDomain{
		Host: c.Host, Scheme: value(c.Scheme), Shared: c.Shared, CodeLength: value(c.CodeLength), Alphabet: c.Alphabet, Strategy: c.Strategy,
		RedirectStatus: value(c.Status), SMaxAge: value(c.SMaxAge), DefaultTTL: value(c.TTL),
		RootDestination: value(c.RootDestination), NotFoundDestination: value(c.NotFoundDestination), ExpiredDestination: value(c.ExpiredDestination),
		RobotsTxt: value(web.robots), NoIndex: c.Noindex, ReferrerPolicy: value(c.ReferrerPolicy), TrailingSlash: value(c.TrailingSlash),
		AppleAppSiteAssociation: value(web.apple), AssetLinks: value(web.android),
	}
	var p client.DomainPatch
	if err := c.places(&p); err != nil {
		return err
	}
	if p.Brand, err = c.brand(nil); err != nil {
		return err
	}
	if err := create(&n, &p); err != nil {
		return err
	}
	d, err := cl.CreateDomain(s.ctx, n)
	if err != nil {
		return err
	}
	return s.printDomain(d)
}

type domainsUpdateCmd struct {
	Host           string  `arg:"" help:"Host of the domain."`
	Strategy       *string `help:"How new codes are made: permuted, random or snowflake; they get a length never used before." placeholder:"NAME"`
	domainSettings `embed:""`
}

func (c *domainsUpdateCmd) Run(s *session) error {
	web, err := c.read()
	if err != nil {
		return err
	}
	p := client.DomainPatch{
		Scheme: textChange(c.Scheme), CodeLength: numberChange(c.CodeLength), Strategy: textChange(c.Strategy), RedirectStatus: numberChange(c.Status), SMaxAge: numberChange(c.SMaxAge), DefaultTTL: textChange(c.TTL),
		RootDestination: textChange(c.RootDestination), NotFoundDestination: textChange(c.NotFoundDestination), ExpiredDestination: textChange(c.ExpiredDestination),
		RobotsTxt: textChange(web.robots), NoIndex: boolChange(c.Noindex), ReferrerPolicy: textChange(c.ReferrerPolicy), TrailingSlash: textChange(c.TrailingSlash),
		AppleAppSiteAssociation: textChange(web.apple), AssetLinks: textChange(web.android),
	}
	if err := c.places(&p); err != nil {
		return err
	}
	if p.Brand, err = c.brand(nil); err != nil { // before anything is asked: the flags must be right
		return err
	}
	if p == (client.DomainPatch{}) {
		return usage("nothing to change; terse domains update --help lists what can be")
	}
	cl, err := s.connect()
	if err != nil {
		return err
	}
	if !p.Brand.IsZero() {
		d, err := cl.Domain(s.ctx, c.Host)
		if err != nil {
			return err
		}
		if p.Brand, err = c.brand(d.Brand); err != nil {
			return err
		}
	}
	d, err := cl.UpdateDomain(s.ctx, c.Host, p)
	if err != nil {
		return err
	}
	return s.printDomain(d)
}

// value returns what a flag says, or the zero value without the flag.
func value[T any](flag *T) (v T) {
	if flag != nil {
		v = *flag
	}
	return v
}

func numberChange(flag *int) client.Change[int] {
	if flag == nil {
		return client.Change[int]{}
	}
	return client.Set(*flag)
}

func (s *session) printDomain(d *client.Domain) error {
	if s.g.JSON {
		return s.printJSON(d)
	}
	t := s.table("host", d.Host)
	for _, kv := range [][2]string{
		{"short urls", d.Scheme + "://" + d.Host + "/…"},
		{"codes", fmt.Sprintf("%d characters of %s, %s", d.CodeLength, d.Alphabet, d.Strategy)},
		{"redirect", strconv.Itoa(d.RedirectStatus)},
		{"links live", d.DefaultTTL},
		{"root to", d.RootDestination},
		{"not found to", d.NotFoundDestination},
		{"expired to", d.ExpiredDestination},
		{"not begun to", d.NotStartedDestination},
		{"used up to", d.LimitDestination},
		{"query", queryText(d)},
		{"utm", utmText(d.UTM)},
		{"brand", brandText(d.Brand)},
		{"referrer", d.ReferrerPolicy},
		{"slash", d.TrailingSlash},
		{"noindex", strconv.FormatBool(d.NoIndex)},
		{"own files", domainFileNames(d)},
		{"created", date(d.CreatedAt)},
	} {
		if kv[1] != "" {
			t.row(kv[0], kv[1])
		}
	}
	return t.flush()
}

type domainsDeleteCmd struct {
	Host string `arg:"" help:"Host of the domain."`
}

func (c *domainsDeleteCmd) Run(s *session) error {
	cl, err := s.connect()
	if err != nil {
		return err
	}
	if err := cl.DeleteDomain(s.ctx, c.Host); err != nil {
		return err
	}
	return s.deleted(c.Host)
}

type keysCmd struct {
	List   keysListCmd   `cmd:"" help:"List the API keys of the workspace."`
	Create keysCreateCmd `cmd:"" help:"Make an API key and print it, once."`
	Delete keysDeleteCmd `cmd:"" help:"End an API key at once."`
}

type keysListCmd struct{}

func (keysListCmd) Run(s *session) error {
	c, err := s.connect()
	if err != nil {
		return err
	}
	return list(s, c.Keys(s.ctx), []string{"ID", "NAME", "SCOPES", "CREATED", "EXPIRES"}, func(k *client.Key) []string {
		return []string{k.ID, k.Name, strings.Join(k.Scopes, ","), date(k.CreatedAt), date(k.ExpiresAt)}
	})
}

type keysCreateCmd struct {
	Name    string   `arg:"" help:"What the key is for."`
	Scope   []string `help:"What the key may do, such as links:write; can be repeated. * is everything in the workspace." default:"*" placeholder:"SCOPE"`
	Expires string   `help:"When the key ends by itself: a time, a date, or a duration from now (90d)." placeholder:"WHEN"`
}

func (c *keysCreateCmd) Run(s *session) error {
	expires, err := s.when("expires", c.Expires)
	if err != nil {
		return err
	}
	cl, err := s.connect()
	if err != nil {
		return err
	}
	k, err := cl.CreateKey(s.ctx, client.NewKey{Name: c.Name, Scopes: c.Scope, ExpiresAt: expires})
	if err != nil {
		return err
	}
	if s.g.JSON {
		return s.printJSON(k)
	}
	// Only the key goes to standard output, so that it can be captured.
	fmt.Fprintf(s.Stderr, "key %s; it is not shown again:\n", k.ID)
	_, err = fmt.Fprintln(s.Stdout, k.Secret)
	return err
}

type keysDeleteCmd struct {
	ID string `arg:"" help:"Id of the key."`
}

func (c *keysDeleteCmd) Run(s *session) error {
	cl, err := s.connect()
	if err != nil {
		return err
	}
	if err := cl.DeleteKey(s.ctx, c.ID); err != nil {
		return err
	}
	return s.deleted(c.ID)
}

type workspacesCmd struct {
	List   workspacesListCmd   `cmd:"" help:"List workspaces."`
	Create workspacesCreateCmd `cmd:"" help:"Make a workspace."`
	Update workspacesUpdateCmd `cmd:"" help:"Change a workspace."`
}

type workspacesUpdateCmd struct {
	ID            string   `arg:"" help:"Id of the workspace."`
	Name          *string  `help:"Its name." placeholder:"TEXT"`
	Interstitials *bool    `help:"Let links show people a page with pixels, or the destination in a frame." negatable:""`
	StoreUA       *bool    `name:"store-ua" help:"Keep the whole User-Agent with each new click." negatable:""`
	StoreIP       *string  `name:"store-ip" help:"What to keep of the address with each new click: no, or truncated, its network (/24 of IPv4, /48 of IPv6)." placeholder:"WHAT"`
	RawDays       *int     `help:"Days that clicks are kept one by one; 0 is for ever." placeholder:"DAYS"`
	BotDays       int      `help:"Days that clicks of bots are kept, with --raw-days, if shorter." placeholder:"DAYS"`
	AppScheme     []string `help:"Scheme that links may open apps with, such as myapp, in place of the present ones; can be repeated; empty: none." placeholder:"SCHEME"`
}

func (c *workspacesUpdateCmd) Run(s *session) error {
	p := client.WorkspacePatch{
		Name: textChange(c.Name), Interstitials: boolChange(c.Interstitials), StoreUA: boolChange(c.StoreUA), StoreIP: textChange(c.StoreIP),
	}
	if len(c.AppScheme) == 1 && c.AppScheme[0] == "" {
		p.AppSchemes = client.Clear[[]string]()
	} else if len(c.AppScheme) > 0 {
		p.AppSchemes = client.Set(c.AppScheme)
	}
	if c.RawDays != nil {
		p.Retention = client.Set(client.Retention{RawDays: *c.RawDays, BotDays: c.BotDays})
	} else if c.BotDays != 0 {
		return usage("--bot-days goes with --raw-days")
	}
	if p.Name.IsZero() && p.Interstitials.IsZero() && p.AppSchemes.IsZero() && p.StoreUA.IsZero() && p.StoreIP.IsZero() && p.Retention.IsZero() {
		return usage("nothing to change; terse workspaces update --help lists what can be")
	}
	cl, err := s.connect()
	if err != nil {
		return err
	}
	w, err := cl.UpdateWorkspace(s.ctx, c.ID, p)
	if err != nil {
		return err
	}
	if s.g.JSON {
		return s.printJSON(w)
	}
	t := s.table("id", w.ID)
	t.row("name", w.Name)
	t.row("interstitials", strconv.FormatBool(w.Interstitials))
	t.row("app schemes", strings.Join(w.AppSchemes, ", "))
	t.row("store ua", strconv.FormatBool(w.StoreUA))
	t.row("store ip", w.StoreIP)
	if r := w.Retention; r != nil {
		t.row("retention", fmt.Sprintf("clicks %d days, of bots %d days (0: for ever)", r.RawDays, r.BotDays))
	}
	return t.flush()
}

type workspacesListCmd struct{}

func (workspacesListCmd) Run(s *session) error {
	c, err := s.connect()
	if err != nil {
		return err
	}
	return list(s, c.Workspaces(s.ctx), []string{"ID", "NAME", "DEFAULT DOMAIN", "CREATED"}, func(w *client.Workspace) []string {
		return []string{w.ID, w.Name, w.DefaultDomain, date(w.CreatedAt)}
	})
}

type workspacesCreateCmd struct {
	Name string `arg:"" help:"Name of the workspace."`
}

func (c *workspacesCreateCmd) Run(s *session) error {
	cl, err := s.connect()
	if err != nil {
		return err
	}
	w, err := cl.CreateWorkspace(s.ctx, c.Name)
	if err != nil {
		return err
	}
	if s.g.JSON {
		return s.printJSON(w)
	}
	_, err = fmt.Fprintln(s.Stdout, w.ID)
	return err
}

// list prints everything of a listing, as a table or as JSON lines.
func list[T any](s *session, items func(func(*T, error) bool), head []string, row func(*T) []string) error {
	var t *table
	if !s.g.JSON {
		t = s.table(head...)
	}
	for item, err := range items {
		if err != nil {
			return err
		}
		if t != nil {
			t.row(row(item)...)
		} else if err := s.printJSON(item); err != nil {
			return err
		}
	}
	if t != nil {
		return t.flush()
	}
	return nil
}
