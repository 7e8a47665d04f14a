package cli

import (
	"fmt"

	"github.com/terselink/terse/client"
)

type sharesCmd struct {
	Create sharesCreateCmd `cmd:"" help:"Share statistics with whoever has the link."`
	List   sharesListCmd   `cmd:"" help:"List shares."`
	Delete sharesDeleteCmd `cmd:"" help:"End shares."`
}

type sharesCreateCmd struct {
	Name     string `arg:"" help:"Heading of the page."`
	Link     string `help:"Only of a link: id or short URL." placeholder:"LINK" xor:"scope"`
	Campaign string `help:"Only of a campaign." placeholder:"ID" xor:"scope"`
	Domain   string `help:"Only of a domain." placeholder:"HOST" xor:"scope"`
	Tag      string `help:"Only of links with a tag." placeholder:"TAG" xor:"scope"`
	Password string `help:"Whoever looks must enter it." placeholder:"TEXT"`
	Expires  string `help:"When the share ends: a time, a date or a duration." placeholder:"WHEN"`
}

func (c *sharesCreateCmd) Run(s *session) error {
	cl, err := s.connect()
	if err != nil {
		return err
	}
	n := client.NewShare{Name: c.Name, CampaignID: c.Campaign, Domain: c.Domain, Tag: c.Tag, Password: c.Password}
	if c.Link != "" {
		if n.LinkID, err = s.linkID(cl, c.Link); err != nil {
			return err
		}
	}
	if n.ExpiresAt, err = s.when("expires", c.Expires); err != nil {
		return err
	}
	sh, err := cl.CreateShare(s.ctx, n)
	if err != nil {
		return err
	}
	if s.g.JSON {
		return s.printJSON(sh)
	}
	_, err = fmt.Fprintln(s.Stdout, cl.Server()+sh.URL)
	return err
}

type sharesListCmd struct{}

func (sharesListCmd) Run(s *session) error {
	cl, err := s.connect()
	if err != nil {
		return err
	}
	var t *table
	if !s.g.JSON {
		t = s.table("ID", "NAME", "OF", "PASSWORD", "ENDS")
	}
	for sh, err := range cl.Shares(s.ctx) {
		if err != nil {
			return err
		}
		if t == nil {
			if err := s.printJSON(sh); err != nil {
				return err
			}
			continue
		}
		of, password := sh.LinkID+sh.CampaignID+sh.Domain, "no"
		if sh.Tag != "" {
			of = "tag " + sh.Tag
		}
		if of == "" {
			of = "workspace"
		}
		if sh.HasPassword {
			password = "yes"
		}
		t.row(sh.ID, sh.Name, of, password, date(sh.ExpiresAt))
	}
	if t == nil {
		return nil
	}
	return t.flush()
}

type sharesDeleteCmd struct {
	ID string `arg:"" help:"Id of the share."`
}

func (c *sharesDeleteCmd) Run(s *session) error {
	cl, err := s.connect()
	if err != nil {
		return err
	}
	if err := cl.DeleteShare(s.ctx, c.ID); err != nil {
		return err
	}
	return s.deleted(c.ID)
}
