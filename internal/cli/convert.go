package cli

import (
	"fmt"
	"strings"

	"github.com/terselink/terse/client"
)

type convertCmd struct {
	Click    string            `help:"Id of the click that led to it." placeholder:"ID"`
	Link     string            `help:"Short URL of the link, in place of --click; needs --customer." placeholder:"URL"`
	Customer string            `help:"Your own name of the customer." placeholder:"ID"`
	Kind     string            `help:"lead, sale or custom." enum:"lead,sale,custom" required:""`
	Name     string            `help:"What happened; required for custom." placeholder:"TEXT"`
	Amount   int64             `help:"Minor units: 1999 is 19.99 EUR and 1,999 JPY; less than 0 is a refund." placeholder:"N"`
	Currency string            `help:"Such as EUR; required with --amount." placeholder:"CODE"`
	Invoice  string            `help:"Invoice; the same one is never recorded twice." placeholder:"ID"`
	At       string            `help:"When it happened: a time, a date or a duration ago (36h, 7d); now without it." placeholder:"WHEN"`
	Metadata map[string]string `help:"Your own facts; can be repeated." placeholder:"KEY=VALUE"`
}

func (c *convertCmd) Run(s *session) error {
	n := client.NewConversion{
		ClickID: c.Click, CustomerID: c.Customer, Kind: c.Kind, Name: c.Name, Amount: c.Amount, Currency: strings.ToUpper(c.Currency), InvoiceID: c.Invoice, Metadata: c.Metadata,
	}
	if (c.Click == "") == (c.Link == "") {
		return usage("name the click with --click, or the link with --link")
	}
	var err error
	if n.Ts, err = s.past("at", c.At); err != nil {
		return err
	}
	cl, err := s.connect()
	if err != nil {
		return err
	}
	if c.Link != "" {
		l, err := s.link(cl, c.Link)
		if err != nil {
			return err
		}
		n.Code, n.Domain = l.Code, l.Domain
	}
	conv, created, err := cl.CreateConversion(s.ctx, n)
	if err != nil {
		return err
	}
	if s.g.JSON {
		return s.printJSON(conv)
	}
	text := conv.ID
	if !created {
		text += "  (was recorded before)"
	}
	_, err = fmt.Fprintln(s.Stdout, text)
	return err
}
