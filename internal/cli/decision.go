package cli

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse/client"
)

// decisionFlags are what a link decides beside its destination.
type decisionFlags struct {
	Rules        *string `help:"File with the list of rules as JSON; - is standard input; empty: none." placeholder:"FILE"`
	Sticky       *string `help:"What keeps a visitor on one variant: hash or cookie." placeholder:"HOW"`
	MaxClicks    *uint64 `help:"Clicks after which the link ends, each link of a campaign for itself; 0: no limit." placeholder:"N"`
	PasswordFile *string `help:"File whose first line is the password; - is standard input; empty: none. There is no flag for the password itself, because other users of the machine see those." placeholder:"FILE"`

	NotStartedDestination *string `help:"Where visitors are sent before the link begins." placeholder:"URL"`
	LimitDestination      *string `help:"Where visitors are sent when the clicks are used up." placeholder:"URL"`

	ForwardQuery *bool             `help:"Add the query of the visit to the destination." negatable:""`
	ForwardPath  *bool             `help:"Add what follows the code in the path to the destination." negatable:""`
	QueryMode    *string           `help:"How the query is added: append, incoming_first, stored_first or drop." placeholder:"MODE"`
	UTM          map[string]string `name:"utm" help:"UTM parameter for destinations without it, such as source=sms; can be repeated; an empty value takes all away." placeholder:"NAME=VALUE" mapsep:"none"`

	Noindex        *bool   `help:"Tell search engines with every redirect not to index it; without the flag as the domain says." negatable:""`
	ReferrerPolicy *string `help:"Referrer policy of redirects; empty: the domain's." placeholder:"POLICY"`

	IOS          *string `name:"ios" help:"Where visitors with iOS are sent: a URL of the web or of an app (myapp://item/7)." placeholder:"URL"`
	IOSStore     *string `name:"ios-store" help:"Where the app for iOS is to be had." placeholder:"URL"`
	Android      *string `help:"Where visitors with Android are sent: a URL of the web or of an app." placeholder:"URL"`
	AndroidStore *string `help:"Where the app for Android is to be had." placeholder:"URL"`

	OGTitle       *string `name:"og-title" help:"Title in link previews." placeholder:"TEXT"`
	OGDescription *string `name:"og-description" help:"Description in link previews." placeholder:"TEXT"`
	OGImage       *string `name:"og-image" help:"Image in link previews." placeholder:"URL"`

	Pixel []string `help:"Pixel of a provider, such as meta=1234567890; can be repeated; empty: none. The workspace must have switched interstitials on." placeholder:"PROVIDER=ID" sep:"none"`
	Cloak *bool    `help:"Show the destination in a frame. The workspace must have switched interstitials on." negatable:""`
}

// decide adds what the flags say to a patch.
func (f *decisionFlags) decide(s *session, p *client.LinkSettingsPatch) error {
	if value(f.Rules) == "-" && value(f.PasswordFile) == "-" {
		return usage("--rules and --password-file cannot both read standard input")
	}
	var err error
	if p.Rules, err = f.readRules(s); err != nil {
		return err
	}
	if p.Password, err = f.readPassword(s); err != nil {
		return err
	}
	if f.MaxClicks != nil {
		p.MaxClicks = client.Set(*f.MaxClicks)
		if *f.MaxClicks == 0 {
			p.MaxClicks = client.Clear[uint64]()
		}
	}
	if p.UTM, err = utmChange(f.UTM); err != nil {
		return err
	}
	p.Sticky, p.QueryMode, p.ReferrerPolicy = textChange(f.Sticky), textChange(f.QueryMode), textChange(f.ReferrerPolicy)
	p.NotStartedDestination, p.LimitDestination = textChange(f.NotStartedDestination), textChange(f.LimitDestination)
	p.IOSDestination, p.IOSStore = textChange(f.IOS), textChange(f.IOSStore)
	p.AndroidDestination, p.AndroidStore = textChange(f.Android), textChange(f.AndroidStore)
	p.OGTitle, p.OGDescription, p.OGImage = textChange(f.OGTitle), textChange(f.OGDescription), textChange(f.OGImage)
	p.Cloak = boolChange(f.Cloak)
	if p.Pixels, err = pixelChange(f.Pixel); err != nil {
		return err
	}
	p.ForwardQuery, p.ForwardPath, p.NoIndex = boolChange(f.ForwardQuery), boolChange(f.ForwardPath), boolChange(f.Noindex)
	return nil
}

func (f *decisionFlags) readRules(s *session) (client.Change[[]client.Rule], error) {
	if f.Rules == nil {
		return client.Change[[]client.Rule]{}, nil
	}
	if *f.Rules == "" {
		return client.Clear[[]client.Rule](), nil
	}
	b, err := s.readAll("rules", *f.Rules, 1<<20)
	if err != nil {
		return client.Change[[]client.Rule]{}, err
	}
	var rules []client.Rule
	if err := json.Unmarshal(b, &rules, json.RejectUnknownMembers(true)); err != nil {
		return client.Change[[]client.Rule]{}, usage("--rules: %s is not a list of rules: %w", *f.Rules, err)
	}
	return client.Set(rules), nil
}

// readPassword reads a password that no list of processes shows.
func (f *decisionFlags) readPassword(s *session) (client.Change[string], error) {
	if f.PasswordFile == nil {
		return client.Change[string]{}, nil
	}
	if *f.PasswordFile == "" {
		return client.Clear[string](), nil
	}
	b, err := s.readAll("password-file", *f.PasswordFile, 4<<10)
	if err != nil {
		return client.Change[string]{}, err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	if line = strings.TrimSuffix(line, "\r"); line == "" {
		return client.Change[string]{}, usage("--password-file: the first line of %s is empty", *f.PasswordFile)
	}
	return client.Set(line), nil
}

// readAll reads a file, or standard input for "-", of at most limit bytes.
func (s *session) readAll(flag, name string, limit int64) ([]byte, error) {
	in := s.Stdin
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("--%s: %w", flag, err)
		}
		defer file.Close()
		in = file
	}
	b, err := io.ReadAll(io.LimitReader(in, limit+1))
	if err != nil {
		return nil, fmt.Errorf("--%s: %w", flag, err)
	}
	if int64(len(b)) > limit {
		return nil, usage("--%s: %s has more than %d bytes", flag, name, limit)
	}
	return b, nil
}

// utmChange reads source=sms and so on; without any value it takes all away.
func utmChange(flags map[string]string) (client.Change[client.UTM], error) {
	if len(flags) == 0 {
		return client.Change[client.UTM]{}, nil
	}
	var u client.UTM
	for name, v := range flags {
		switch strings.TrimPrefix(name, "utm_") {
		case "source":
			u.Source = v
		case "medium":
			u.Medium = v
		case "campaign":
			u.Campaign = v
		case "term":
			u.Term = v
		case "content":
			u.Content = v
		default:
			return client.Change[client.UTM]{}, usage("--utm: %q is none of source, medium, campaign, term and content", name)
		}
	}
	if u == (client.UTM{}) {
		return client.Clear[client.UTM](), nil
	}
	return client.Set(u), nil
}

// pixelChange reads meta=123 and so on; one that is empty takes all away.
func pixelChange(flags []string) (client.Change[[]client.Pixel], error) {
	if len(flags) == 0 {
		return client.Change[[]client.Pixel]{}, nil
	}
	if len(flags) == 1 && flags[0] == "" {
		return client.Clear[[]client.Pixel](), nil
	}
	var list []client.Pixel
	for _, f := range flags {
		provider, id, ok := strings.Cut(f, "=")
		if !ok || provider == "" || id == "" {
			return client.Change[[]client.Pixel]{}, usage("--pixel: %q is not PROVIDER=ID, such as meta=1234567890", f)
		}
		list = append(list, client.Pixel{Provider: provider, ID: id})
	}
	return client.Set(list), nil
}

// decisions describes what a link decides, as far as it is not what links do anyway; "" is nothing to say.
func decisions(w *client.LinkWeb, maxClicks uint64, rules int, password, forwardsQuery, forwardsPath bool) [][2]string {
	yes := map[bool]string{true: "yes"}
	count := func(n uint64, what string) string {
		if n == 0 {
			return ""
		}
		return strconv.FormatUint(n, 10) + what
	}
	query := w.QueryMode
	if !forwardsQuery {
		query = ""
	}
	sticky := ""
	if w.Sticky == "cookie" {
		sticky = ", kept by a cookie"
	}
	var pixels []string
	for _, p := range w.Pixels {
		pixels = append(pixels, p.Provider+"="+p.ID)
	}
	return [][2]string{
		{"rules", count(uint64(rules), sticky)},
		{"max clicks", count(maxClicks, "")},
		{"used up to", w.LimitDestination},
		{"not begun to", w.NotStartedDestination},
		{"password", yes[password]},
		{"query", query},
		{"path", yes[forwardsPath]},
		{"utm", utmText(w.UTM)},
		{"ios", w.IOSDestination},
		{"ios store", w.IOSStore},
		{"android", w.AndroidDestination},
		{"android store", w.AndroidStore},
		{"og title", w.OGTitle},
		{"og description", w.OGDescription},
		{"og image", w.OGImage},
		{"pixels", strings.Join(pixels, ", ")},
		{"cloak", yes[w.Cloak]},
	}
}

// utmText writes source=sms medium=text.
func utmText(u *client.UTM) string {
	if u == nil {
		return ""
	}
	var parts []string
	for _, p := range [][2]string{{"source", u.Source}, {"medium", u.Medium}, {"campaign", u.Campaign}, {"term", u.Term}, {"content", u.Content}} {
		if p[1] != "" {
			parts = append(parts, p[0]+"="+p[1])
		}
	}
	return strings.Join(parts, " ")
}

// create makes what is to be created have what a patch would set: both are the same JSON.
func create(dst, patch any) error {
	b, err := json.Marshal(patch)
	if err != nil {
		return fmt.Errorf("read flags: %w", err)
	}
	if err := json.Unmarshal(b, dst, json.RejectUnknownMembers(true)); err != nil {
		return fmt.Errorf("read flags: %w", err)
	}
	return nil
}
