package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/terselink/terse/client"
	"github.com/terselink/terse/internal/inflate"
)

type campaignCmd struct {
	Create   campaignCreateCmd   `cmd:"" help:"Create a campaign."`
	List     campaignListCmd     `cmd:"" help:"List campaigns, oldest first."`
	Get      campaignGetCmd      `cmd:"" help:"Show a campaign."`
	Update   campaignUpdateCmd   `cmd:"" help:"Change a campaign and with it all its links, in one write."`
	Delete   campaignDeleteCmd   `cmd:"" help:"End campaigns and all their links for ever."`
	Add      campaignAddCmd      `cmd:"" help:"Make a link of every row of a file of values."`
	Generate campaignGenerateCmd `cmd:"" help:"Make links without values."`
	Export   campaignExportCmd   `cmd:"" help:"Write all links of a campaign."`
	Stats    campaignStatsCmd    `cmd:"" help:"Show the clicks of all links of a campaign."`
}

type campaignCreateCmd struct {
	Name            string   `arg:"" optional:"" help:"Name, for people."`
	Destination     string   `arg:"" optional:"" help:"Where visitors are sent: {name} behind the host stands for a value of each link. So it does in every other URL, in --utm, --title and the previews."`
	NameFlag        string   `name:"name" help:"The name, in place of the first argument." placeholder:"TEXT"`
	DestinationFlag string   `name:"destination" help:"Where visitors are sent, in place of the argument." placeholder:"URL"`
	Domain          []string `help:"Domain of its links, HOST=WEIGHT for more or less of them; can be repeated." placeholder:"HOST"`
	Field           []string `help:"Names and order of the values; those that the templates name without it. Can be repeated." placeholder:"NAME"`
	settingFlags    `embed:""`
}

// arguments returns the name and the destination, each from its flag or else the next argument.
func (c *campaignCreateCmd) arguments() (name, destination string, err error) {
	args := []string{c.Name, c.Destination}
	next := func(flag, what string) string {
		if flag != "" {
			return flag
		}
		arg := args[0]
		if args = args[1:]; arg == "" && err == nil {
			err = usage("the campaign has no %s: terse campaign create NAME DESTINATION", what)
		}
		return arg
	}
	name, destination = next(c.NameFlag, "name"), next(c.DestinationFlag, "destination")
	if len(args) > 0 && args[0] != "" && err == nil {
		err = usage("%q is an argument too many beside the flags", args[0])
	}
	return name, destination, err
}

func (c *campaignCreateCmd) Run(s *session) error {
	n := client.NewCampaign{Fields: c.Field}
	var err error
	if n.Name, n.Destination, err = c.arguments(); err != nil {
		return err
	}
	if n.Domains, err = weighted(c.Domain); err != nil {
		return err
	}
	if err := c.create(s, &n.LinkSettings); err != nil {
		return err
	}
	cl, err := s.connect()
	if err != nil {
		return err
	}
	made, err := cl.CreateCampaign(s.ctx, n)
	if err != nil {
		return err
	}
	if s.g.JSON {
		return s.printJSON(made)
	}
	_, err = fmt.Fprintln(s.Stdout, made.ID)
	return err
}

// weighted reads HOST or HOST=WEIGHT.
func weighted(list []string) ([]client.CampaignDomain, error) {
	var out []client.CampaignDomain
	for _, text := range list {
		host, weight, found := strings.Cut(text, "=")
		d := client.CampaignDomain{Host: host}
		if found {
			n, err := strconv.ParseUint(weight, 10, 32)
			if err != nil || n == 0 || host == "" {
				return nil, usage("--domain: %q is neither HOST nor HOST=WEIGHT", text)
			}
			d.Weight = uint32(n)
		}
		out = append(out, d)
	}
	return out, nil
}

type campaignListCmd struct {
	Limit int `short:"n" help:"Campaigns to list; 0 is all." default:"50"`
}

func (c *campaignListCmd) Run(s *session) error {
	cl, err := s.connect()
	if err != nil {
		return err
	}
	var t *table
	if !s.g.JSON {
		t = s.table("ID", "NAME", "STATUS", "LINKS", "CREATED", "DESTINATION")
	}
	n := 0
	for item, err := range cl.Campaigns(s.ctx) {
		if err != nil {
			return err
		}
		if t == nil {
			err = s.printJSON(item)
		} else {
			t.row(item.ID, item.Name, item.Status, count(item.Links), date(item.CreatedAt), item.Destination)
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

type campaignGetCmd struct {
	ID string `arg:"" help:"Id of the campaign."`
}

func (c *campaignGetCmd) Run(s *session) error {
	cl, err := s.connect()
	if err != nil {
		return err
	}
	got, err := cl.Campaign(s.ctx, c.ID)
	if err != nil {
		return err
	}
	return s.printCampaign(got)
}

func (s *session) printCampaign(c *client.Campaign) error {
	if s.g.JSON {
		return s.printJSON(c)
	}
	hosts := make([]string, len(c.Domains))
	for i, d := range c.Domains {
		hosts[i] = d.Host
		if d.Weight > 1 {
			hosts[i] += fmt.Sprintf("=%d", d.Weight)
		}
	}
	redirect, index := "", ""
	if c.RedirectStatus != 0 {
		redirect = strconv.Itoa(c.RedirectStatus)
	}
	if c.NoIndex != nil {
		index = map[bool]string{true: "no", false: "yes"}[*c.NoIndex]
	}
	t := s.table("id", c.ID)
	for _, kv := range [][2]string{
		{"name", c.Name},
		{"destination", c.Destination},
		{"fields", strings.Join(c.Fields, ", ")},
		{"links", count(c.Links)},
		{"domains", strings.Join(hosts, ", ")},
		{"status", c.Status},
		{"title", c.Title},
		{"tags", strings.Join(c.Tags, ", ")},
		{"starts", date(c.StartsAt)},
		{"expires", date(c.ExpiresAt)},
		{"then to", c.ExpiredDestination},
		{"redirect", redirect},
		{"indexed", index},
		{"referrer policy", c.ReferrerPolicy},
		{"created", date(c.CreatedAt)},
		{"updated", date(c.UpdatedAt)},
		{"version", strconv.FormatUint(c.Version, 10)},
	} {
		if kv[1] != "" {
			t.row(kv[0], kv[1])
		}
	}
	for _, kv := range decisions(&c.LinkWeb, c.MaxClicks, len(c.Rules), c.HasPassword, c.QueryMode != "", c.ForwardPath) {
		if kv[1] != "" {
			t.row(kv[0], kv[1])
		}
	}
	return t.flush()
}

type campaignUpdateCmd struct {
	ID           string   `arg:"" help:"Id of the campaign."`
	Name         *string  `help:"Name." placeholder:"TEXT"`
	Destination  *string  `help:"Where visitors of all links are sent: a template of the campaign's fields." placeholder:"URL"`
	Domain       []string `help:"Domains of new links, in place of the present ones; can be repeated." placeholder:"HOST"`
	NoTags       bool     `help:"Take all tags away."`
	NoRules      bool     `help:"Take all rules away."`
	End          bool     `help:"End all links now." xor:"active"`
	Disable      bool     `help:"Stop redirecting." xor:"active"`
	Enable       bool     `help:"Redirect again." xor:"active"`
	IfVersion    uint64   `help:"Change only that version." placeholder:"VERSION"`
	settingFlags `embed:""`
}

func (c *campaignUpdateCmd) Run(s *session) error {
	p, err := c.patch(s)
	if err != nil {
		return err
	}
	cl, err := s.connect()
	if err != nil {
		return err
	}
	got, err := cl.UpdateCampaign(s.ctx, c.ID, p)
	if err != nil {
		return err
	}
	return s.printCampaign(got)
}

func (c *campaignUpdateCmd) patch(s *session) (client.CampaignPatch, error) {
	p := client.CampaignPatch{IfVersion: c.IfVersion}
	switch {
	case c.NoRules && c.Rules != nil:
		return p, usage("--rules and --no-rules exclude each other")
	case c.NoRules:
		c.Rules = new("")
	case c.End && c.Expires != nil:
		return p, usage("--expires and --end exclude each other")
	}
	var err error
	if p.LinkSettingsPatch, err = c.change(s, c.NoTags); err != nil {
		return p, err
	}
	if c.Name != nil {
		p.Name = client.Set(*c.Name)
	}
	if c.Destination != nil {
		p.Destination = client.Set(*c.Destination)
	}
	if len(c.Domain) > 0 {
		domains, err := weighted(c.Domain)
		if err != nil {
			return p, err
		}
		p.Domains = client.Set(domains)
	}
	if c.End {
		p.ExpiresAt = client.Set(s.Now().UTC().Truncate(time.Second))
	}
	if c.Disable {
		p.Status = client.Set("disabled")
	} else if c.Enable {
		p.Status = client.Set("active")
	}
	if reflect.DeepEqual(p, client.CampaignPatch{IfVersion: c.IfVersion}) {
		return p, usage("nothing to change; terse campaign update --help lists what can be")
	}
	return p, nil
}

type campaignDeleteCmd struct {
	ID []string `arg:"" help:"Ids of campaigns."`
}

func (c *campaignDeleteCmd) Run(s *session) error {
	cl, err := s.connect()
	if err != nil {
		return err
	}
	var failed []error
	for _, id := range c.ID {
		if err := cl.DeleteCampaign(s.ctx, id, 0); err != nil {
			if len(c.ID) > 1 {
				err = fmt.Errorf("%s: %w", id, err)
			}
			failed = append(failed, err)
			continue
		}
		if err := s.deleted(id); err != nil {
			return err
		}
	}
	return errors.Join(failed...)
}

type campaignExportCmd struct {
	ID     string `arg:"" help:"Id of the campaign."`
	Output string `short:"o" help:"File for the links; standard output without it." placeholder:"FILE" type:"path"`
	Format string `short:"f" help:"Form of the links: csv or ndjson; that of the file's name without it, else csv." enum:",csv,ndjson" default:"" placeholder:"FORM"`
}

func (c *campaignExportCmd) Run(s *session) error {
	cl, err := s.connect()
	if err != nil {
		return err
	}
	form := client.CSV
	_, plain := inflate.ByName(c.Output)
	if ext := strings.ToLower(filepath.Ext(plain)); c.Format == "ndjson" || c.Format == "" && (s.g.JSON || ext == ".ndjson" || ext == ".jsonl") {
		form = client.NDJSON
	}
	rows, err := cl.ExportCampaign(s.ctx, c.ID, form)
	if err != nil {
		return err
	}
	defer rows.Close()
	if c.Output == "" {
		_, err = io.Copy(s.Stdout, rows)
	} else {
		err = saveFile(c.Output, rows)
	}
	if err != nil {
		return fmt.Errorf("the export was cut: %w", err)
	}
	return nil
}

// saveFile writes a file beside its place and puts it there when it is whole, compressed if its name says so.
func saveFile(path string, r io.Reader) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.part")
	if err != nil {
		return err
	}
	err = compressTo(f, path, r)
	if err = errors.Join(err, f.Chmod(0o644), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

type campaignStatsCmd struct {
	ID         string `arg:"" help:"Id of the campaign."`
	clickFlags `embed:""`
	statsFlags `embed:""`
}

func (c *campaignStatsCmd) Run(s *session) error {
	cl, err := s.connect()
	if err != nil {
		return err
	}
	campaign, err := cl.Campaign(s.ctx, c.ID)
	if err != nil {
		return err
	}
	stats := statsCmd{clickQuery{Campaign: campaign.ID, clickFlags: c.clickFlags}, c.statsFlags}
	return stats.show(s, cl, &report{Campaign: campaign})
}
