package cli

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/config"
	"github.com/terselink/terse/internal/geo"
	"github.com/terselink/terse/internal/outbound"
)

type geoCmd struct {
	Status geoStatusCmd `cmd:"" help:"Show the databases of places that the server reads, and how old they are."`
	Update geoUpdateCmd `cmd:"" help:"Fetch a new database of places, check it and put it where the server reads it."`
}

// geoPlace is a database of the configuration.
type geoPlace struct {
	kind      geo.Kind
	key, path string
	url       config.Secret
}

func geoPlaces(c *config.Config) []geoPlace {
	return []geoPlace{
		{kind: geo.KindCity, key: "geo.city_mmdb", path: c.Geo.CityMMDB, url: c.Geo.CityURL},
		{kind: geo.KindASN, key: "geo.asn_mmdb", path: c.Geo.ASNMMDB, url: c.Geo.ASNURL},
	}
}

// placesToCome accepts a configuration that names files which the command is about to make.
func placesToCome(s *config.Sources) { s.PlacesToCome = true }

type geoStatusCmd struct {
	Config   string       `help:"YAML file with settings ($TERSE_CONFIG)." placeholder:"FILE" type:"path"`
	Settings kong.Plugins `embed:""`
}

func (geoStatusCmd) Help() string {
	return "Reads each database whole, as the server does. The exit code is 1 if one of the configuration cannot be used; a running server goes on with the last one it could."
}

// geoStatus is a line of the answer.
type geoStatus struct {
	Kind  string     `json:"kind"` // built_in, city or asn
	Path  string     `json:"path,omitempty"`
	State string     `json:"state"` // ok, missing or broken
	Error string     `json:"error,omitempty"`
	Type  string     `json:"type,omitempty"`
	Built *time.Time `json:"built,omitempty"`
	Bytes int64      `json:"bytes,omitzero"`
}

func (g *geoStatus) set(info geo.Info) {
	g.State, g.Type, g.Built, g.Bytes = "ok", info.Type, &info.Built, info.Bytes
}

func (c *geoStatusCmd) Run(s *session) error {
	l, err := s.loadSources(c.Config, c.Settings, placesToCome)
	if err != nil {
		return err
	}
	own := geoStatus{Kind: "built_in"}
	own.set(geo.EmbeddedInfo())
	list, broken := []geoStatus{own}, 0
	for _, p := range geoPlaces(l.Config) {
		if p.path == "" {
			continue
		}
		g := geoStatus{Kind: string(p.kind), Path: p.path}
		switch info, err := geo.Inspect(p.path, p.kind, 0); {
		case err == nil:
			g.set(info)
		case errors.Is(err, fs.ErrNotExist):
			g.State = "missing"
			broken++
		default:
			g.State, g.Error = "broken", err.Error()
			broken++
		}
		list = append(list, g)
	}
	t := s.table("KIND", "FILE", "STATE", "TYPE", "BUILT", "AGE", "BYTES")
	for _, g := range list {
		switch {
		case s.g.JSON:
			if err := s.printJSON(g); err != nil {
				return err
			}
		case g.Built == nil:
			t.row(g.Kind, g.Path, strings.TrimSuffix(g.State+": "+g.Error, ": "))
		default:
			t.row(g.Kind, g.Path, g.State, g.Type, g.Built.Format(time.DateOnly), age(s.Now().Sub(*g.Built)), count(g.Bytes))
		}
	}
	if !s.g.JSON {
		if err := t.flush(); err != nil {
			return err
		}
	}
	if broken > 0 {
		return fmt.Errorf("%d of %d files cannot be used: terse geo update replaces them", broken, len(list)-1)
	}
	return nil
}

type geoUpdateCmd struct {
	Source   string       `arg:"" optional:"" help:"File or URL of the new database: .mmdb, with gzip, or in a tar.gz archive. Without it geo.city_url and geo.asn_url are used." placeholder:"SOURCE"`
	Kind     string       `help:"city, which countries alone are too, or asn; city without it. Without a SOURCE both that have a URL." placeholder:"KIND"`
	SHA256   string       `name:"sha256" help:"SHA-256 that what is fetched must have, in hexadecimal digits." placeholder:"HEX"`
	DryRun   bool         `help:"Fetch and check, and replace nothing."`
	Quiet    bool         `short:"q" help:"Show no progress."`
	Config   string       `help:"YAML file with settings ($TERSE_CONFIG)." placeholder:"FILE" type:"path"`
	Settings kong.Plugins `embed:""`
}

func (geoUpdateCmd) Help() string {
	return "Run it on the machine of the server, with the configuration of the server: the database goes to geo.city_mmdb or geo.asn_mmdb. It is read whole and must know well-known addresses before it replaces " +
		"the old one, which stays beside it as FILE.previous; terse geo update FILE.previous goes back to it. Otherwise nothing changes. A running server notices within a minute, and checks again. " +
		"A URL must be of the public internet unless outbound.allow and outbound.ports allow more; redirects are followed."
}

// geoUpdated is a line of the answer.
type geoUpdated struct {
	Kind     string     `json:"kind"`
	Path     string     `json:"path"`
	State    string     `json:"state"` // replaced, unchanged or checked
	Type     string     `json:"type"`
	Built    time.Time  `json:"built"`
	Bytes    int64      `json:"bytes"`
	OldBuilt *time.Time `json:"old_built,omitempty"`
	Previous string     `json:"previous,omitempty"`
}

func (c *geoUpdateCmd) Run(s *session) error {
	if c.Kind != "" && c.Kind != string(geo.KindCity) && c.Kind != string(geo.KindASN) {
		return usage("--kind: %q is not one of city, asn", c.Kind)
	}
	if b, err := hex.DecodeString(c.SHA256); c.SHA256 != "" && (err != nil || len(b) != 32) {
		return usage("--sha256: %q is not 64 hexadecimal digits", c.SHA256)
	}
	l, err := s.loadSources(c.Config, c.Settings, placesToCome)
	if err != nil {
		return err
	}
	var todo []geoPlace
	for _, p := range geoPlaces(l.Config) {
		if c.Source != "" {
			if c.Kind == string(p.kind) || c.Kind == "" && p.kind == geo.KindCity {
				if p.path == "" {
					return usage("%s is not set: it names the file that the server reads", p.key)
				}
				p.url = config.Secret(c.Source)
				todo = append(todo, p)
			}
		} else if p.url != "" && (c.Kind == "" || c.Kind == string(p.kind)) {
			todo = append(todo, p)
		}
	}
	switch {
	case len(todo) == 0:
		return usage("name a file or a URL, or set geo.city_url or geo.asn_url")
	case len(todo) > 1 && c.SHA256 != "":
		return usage("--sha256 is that of one database: name it with --kind")
	}
	web := outbound.New(outbound.Options{
		Allow: l.Config.Outbound.Networks(), Ports: l.Config.Outbound.PortNumbers(), UserAgent: "Terse/" + s.Version,
	})
	defer web.Close()
	var failed []error
	for _, p := range todo {
		if err := c.update(s, web, p); err != nil {
			failed = append(failed, fmt.Errorf("%s database: %w", p.kind, err))
		}
	}
	return errors.Join(failed...)
}

// update replaces one database and prints what came of it.
func (c *geoUpdateCmd) update(s *session, web *outbound.Client, p geoPlace) error {
	m := s.meter(c.Quiet)
	source := p.url.Reveal()
	r, err := geo.Install(s.ctx, geo.InstallOptions{
		Kind: p.kind, Path: p.path, SHA256: c.SHA256, DryRun: c.DryRun,
		Step: func(text string) { m.show(1, string(p.kind)+": "+text, true) },
		Fetch: func(ctx context.Context, w io.Writer) error {
			show := func(done, total int64) {
				part, of := 0.0, ""
				if total > 0 {
					part, of = float64(done)/float64(total), " of "+count(total)
				}
				m.show(part, fmt.Sprintf("%s: %s%s bytes", p.kind, count(done), of), false)
			}
			u, err := url.Parse(source)
			if err != nil || u.Scheme != "http" && u.Scheme != "https" {
				return readSource(ctx, source, w, show)
			}
			m.show(0, fmt.Sprintf("%s: fetching from %s", p.kind, u.Host), true) // the rest may hold a key
			return explainFetch(web.Download(ctx, source, w, outbound.DownloadOptions{MaxBytes: geo.MaxBytes, Progress: show}))
		},
	})
	m.stop()
	switch {
	case r == nil && s.ctx.Err() != nil:
		return fmt.Errorf("%w; %s was not replaced", s.ctx.Err(), p.path)
	case r == nil:
		return fmt.Errorf("%w; %s was not replaced", err, p.path)
	case err != nil:
		return err
	}
	u := geoUpdated{Kind: string(p.kind), Path: p.path, State: "replaced", Type: r.New.Type, Built: r.New.Built, Bytes: r.New.Bytes, Previous: r.Previous}
	before := ""
	if r.HadOld && r.OldErr == nil {
		u.OldBuilt = &r.Old.Built
		before = ", in place of that of " + r.Old.Built.Format(time.DateOnly)
	}
	is := fmt.Sprintf("%s of %s, %s bytes", u.Type, u.Built.Format(time.DateOnly), count(u.Bytes))
	text := fmt.Sprintf("%s is now %s%s. A running server reads it within a minute.", p.path, is, before)
	switch {
	case r.Unchanged:
		u.State, text = "unchanged", fmt.Sprintf("%s is this one already: %s.", p.path, is)
	case c.DryRun:
		u.State, text = "checked", fmt.Sprintf("It is good: %s%s. Nothing was replaced.", is, before)
	case r.Previous != "":
		text += " The one before is " + r.Previous + "."
	}
	if s.g.JSON {
		return s.printJSON(u)
	}
	_, err = fmt.Fprintln(s.Stdout, text)
	return err
}

// readSource copies a file of this machine.
func readSource(ctx context.Context, path string, w io.Writer, show func(done, total int64)) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", path)
	}
	var done int64
	for buf := make([]byte, 1<<20); ; {
		n, err := f.Read(buf)
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
		done += int64(n)
		show(done, info.Size())
		if err == io.EOF {
			return ctx.Err()
		}
		if err := errors.Join(err, ctx.Err()); err != nil {
			return err
		}
	}
}

// explainFetch says which settings are about a place that must not be reached.
func explainFetch(err error) error {
	if e, ok := errors.AsType[*terse.Error](err); ok && e.Field == "url" {
		return fmt.Errorf("%w (outbound.allow and outbound.ports say what may be reached)", err)
	}
	return err
}
