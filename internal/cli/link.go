package cli

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/terselink/terse/client"
)

type shortenCmd struct {
	URL          string `arg:"" help:"Where visitors are sent."`
	Code         string `help:"A code of your choice, an alias; without it one is generated." placeholder:"CODE" xor:"code"`
	Domain       string `help:"Domain of the short URL." placeholder:"HOST"`
	ExternalID   string `help:"Your own name for the link." placeholder:"ID"`
	Secret       bool   `help:"Give it a random code of 22 characters, which guessing does not find." xor:"code"`
	Reuse        bool   `help:"Return the link that already leads there, if there is one without other settings."`
	settingFlags `embed:""`
}

func (c *shortenCmd) Run(s *session) error {
	n := client.NewLink{Destination: c.URL, Code: c.Code, Domain: c.Domain, ExternalID: c.ExternalID}
	if c.Secret {
		n.Class = "secret"
	}
	if c.Reuse {
		n.IfExists = "reuse"
	}
	if err := c.create(s, &n.LinkSettings); err != nil {
		return err
	}
	cl, err := s.connect()
	if err != nil {
		return err
	}
	l, err := cl.CreateLink(s.ctx, n)
	if err != nil {
		return err
	}
	if s.g.JSON {
		return s.printJSON(l)
	}
	_, err = fmt.Fprintln(s.Stdout, l.ShortURL)
	return err
}

type linksCmd struct {
	List    linksListCmd    `cmd:"" help:"List links, newest first."`
	Get     linksGetCmd     `cmd:"" help:"Show a link."`
	Update  linksUpdateCmd  `cmd:"" help:"Change a link."`
	Delete  linksDeleteCmd  `cmd:"" help:"End links for ever."`
	Explain linksExplainCmd `cmd:"" help:"Show where a visit would lead, and why."`
}

type linksListCmd struct {
	Domain     string `help:"Links of a domain." placeholder:"HOST"`
	Tag        string `help:"Links with a tag." placeholder:"TAG"`
	Status     string `help:"active, disabled, expired or blocked." placeholder:"STATUS"`
	ExternalID string `help:"Links with your own name." placeholder:"ID"`
	Campaign   string `help:"Links of a campaign." placeholder:"ID"`
	Search     string `short:"q" help:"Links with a text in their destination, title or code." placeholder:"TEXT"`
	Limit      int    `short:"n" help:"Links to list; 0 is all." default:"50"`
}

func (c *linksListCmd) Run(s *session) error {
	cl, err := s.connect()
	if err != nil {
		return err
	}
	f := client.LinkFilter{
		Domain: c.Domain, Tag: c.Tag, Status: c.Status, ExternalID: c.ExternalID, CampaignID: c.Campaign, Query: c.Search, PageSize: 1000,
	}
	if c.Limit > 0 {
		f.PageSize = min(c.Limit, f.PageSize)
	}
	var t *table
	if !s.g.JSON {
		t = s.table("SHORT URL", "DESTINATION", "STATUS", "CLICKS", "CREATED", "TITLE", "TAGS")
	}
	n := 0
	for l, err := range cl.Links(s.ctx, f) {
		if err != nil {
			return err
		}
		if t == nil {
			err = s.printJSON(l)
		} else {
			t.row(l.ShortURL, l.Destination, l.Status, clicksOf(l), date(l.CreatedAt), l.Title, strings.Join(l.Tags, ","))
		}
		if err != nil {
			return err
		}
		if n++; n == c.Limit {
			break
		}
	}
	if t == nil {
		return nil
	}
	return t.flush()
}

// clicksOf writes the clicks of a link; "" if the server did not tell.
func clicksOf(l *client.Link) string {
	if l.Clicks == nil {
		return ""
	}
	return count(*l.Clicks)
}

type linksGetCmd struct {
	Link string `arg:"" help:"Id or short URL."`
}

func (c *linksGetCmd) Run(s *session) error {
	cl, err := s.connect()
	if err != nil {
		return err
	}
	l, err := s.link(cl, c.Link)
	if err != nil {
		return err
	}
	return s.printLink(l)
}

type linksUpdateCmd struct {
	Link         string  `arg:"" help:"Id or short URL."`
	Destination  *string `help:"Where visitors are sent." placeholder:"URL"`
	ExternalID   *string `help:"Your own name for the link; empty clears it." placeholder:"ID"`
	NoTags       bool    `help:"Take all tags away."`
	Disable      bool    `help:"Stop redirecting." xor:"active"`
	Enable       bool    `help:"Redirect again." xor:"active"`
	Block        bool    `help:"Stop it for abuse: visitors get a page that says so. Needs the scope links:block, as --enable then does." xor:"active"`
	Reason       string  `help:"Why it is blocked; visitors do not see it." placeholder:"TEXT"`
	IfVersion    uint64  `help:"Change only that version." placeholder:"VERSION"`
	settingFlags `embed:""`
}

func (c *linksUpdateCmd) Run(s *session) error {
	p, err := c.patch(s)
	if err != nil {
		return err
	}
	cl, err := s.connect()
	if err != nil {
		return err
	}
	id, err := s.linkID(cl, c.Link)
	if err != nil {
		return err
	}
	l, err := cl.UpdateLink(s.ctx, id, p)
	if err != nil {
		return err
	}
	return s.printLink(l)
}

func (c *linksUpdateCmd) patch(s *session) (client.LinkPatch, error) {
	p := client.LinkPatch{ExternalID: textChange(c.ExternalID), IfVersion: c.IfVersion}
	var err error
	if p.LinkSettingsPatch, err = c.change(s, c.NoTags); err != nil {
		return p, err
	}
	if c.Destination != nil {
		p.Destination = client.Set(*c.Destination)
	}
	if c.Disable {
		p.Status = client.Set("disabled")
	} else if c.Enable {
		p.Status = client.Set("active")
	} else if c.Block {
		p.Status = client.Set("blocked")
	}
	if c.Reason != "" {
		p.BlockedReason = client.Set(c.Reason)
	}
	if reflect.DeepEqual(p, client.LinkPatch{IfVersion: c.IfVersion}) {
		return p, usage("nothing to change; terse links update --help lists what can be")
	}
	return p, nil
}

type linksDeleteCmd struct {
	Link []string `arg:"" help:"Ids or short URLs."`
}

func (c *linksDeleteCmd) Run(s *session) error {
	cl, err := s.connect()
	if err != nil {
		return err
	}
	var failed []error
	for _, arg := range c.Link {
		id, err := s.linkID(cl, arg)
		if err == nil {
			err = cl.DeleteLink(s.ctx, id)
		}
		if err != nil && len(c.Link) > 1 {
			err = fmt.Errorf("%s: %w", arg, err)
		}
		if err != nil {
			failed = append(failed, err)
			continue
		}
		if err := s.deleted(id); err != nil {
			return err
		}
	}
	return errors.Join(failed...)
}

// deleted says that something is gone.
func (s *session) deleted(name string) error {
	if s.g.JSON {
		return s.printJSON(struct {
			ID      string `json:"id"`
			Deleted bool   `json:"deleted"`
		}{name, true})
	}
	_, err := fmt.Fprintln(s.Stdout, "deleted "+name)
	return err
}

// link returns the link of an id or a short URL.
func (s *session) link(c *client.Client, arg string) (*client.Link, error) {
	if strings.HasPrefix(arg, "link_") {
		return c.Link(s.ctx, arg)
	}
	if !strings.Contains(arg, "/") {
		return nil, usage("%q is neither the id of a link nor a short URL", arg)
	}
	if !strings.Contains(arg, "://") {
		arg = "http://" + arg
	}
	return c.LookupLink(s.ctx, arg)
}

// linkID returns the id of a link without a request if it is one already.
func (s *session) linkID(c *client.Client, arg string) (string, error) {
	if strings.HasPrefix(arg, "link_") {
		return arg, nil
	}
	l, err := s.link(c, arg)
	if err != nil {
		return "", err
	}
	return l.ID, nil
}

func (s *session) printLink(l *client.Link) error {
	if s.g.JSON {
		return s.printJSON(l)
	}
	t := s.table("id", l.ID)
	for _, kv := range [][2]string{
		{"short url", l.ShortURL},
		{"destination", l.Destination},
		{"status", l.Status},
		{"title", l.Title},
		{"tags", strings.Join(l.Tags, ", ")},
		{"external id", l.ExternalID},
		{"campaign", l.CampaignID},
		{"starts", date(l.StartsAt)},
		{"expires", date(l.ExpiresAt)},
		{"then to", l.ExpiredDestination},
		{"redirect", strconv.Itoa(l.RedirectStatus)},
		{"blocked for", l.BlockedReason},
		{"created", date(l.CreatedAt)},
		{"updated", date(l.UpdatedAt)},
		{"clicks", clicksOf(l)},
		{"last click", date(l.LastClickedAt)},
		{"version", strconv.FormatUint(l.Version, 10)},
	} {
		if kv[1] != "" {
			t.row(kv[0], kv[1])
		}
	}
	for _, kv := range decisions(&l.LinkWeb, l.MaxClicks, len(l.Rules), l.HasPassword, l.ForwardQuery, l.ForwardPath) {
		if kv[1] != "" {
			t.row(kv[0], kv[1])
		}
	}
	return t.flush()
}
