package cli

import "fmt"

type eraseCmd struct {
	Link    string `help:"Forget the clicks of this link: id or short URL; of one that was deleted its id." placeholder:"LINK"`
	Visitor string `help:"Forget the clicks of this visitor, as rows of clicks name it; with --link only those on the link." placeholder:"HEX"`
	Yes     bool   `help:"Do it: what is erased cannot be brought back."`
}

func (c *eraseCmd) Run(s *session) error {
	if c.Link == "" && c.Visitor == "" {
		return usage("name a link with --link, or a visitor with --visitor")
	}
	if !c.Yes {
		return usage("what is erased cannot be brought back: say --yes to do it")
	}
	cl, err := s.connect()
	if err != nil {
		return err
	}
	id := ""
	if c.Link != "" {
		if id, err = s.linkID(cl, c.Link); err != nil {
			return err
		}
	}
	done, err := cl.EraseClicks(s.ctx, id, c.Visitor)
	if err != nil {
		return err
	}
	if s.g.JSON {
		return s.printJSON(done)
	}
	if _, err := fmt.Fprintf(s.Stdout, "erased %s clicks\n", count(done.Clicks)); err != nil || len(done.Remains) == 0 {
		return err
	}
	fmt.Fprintln(s.Stderr, "An erasure does not reach:")
	for _, r := range done.Remains {
		fmt.Fprintln(s.Stderr, "- "+printable(r.Text))
	}
	return nil
}
