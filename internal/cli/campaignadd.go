package cli

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/terselink/terse/client"
)

type campaignAddCmd struct {
	ID string `arg:"" help:"Id of the campaign."`
	rowFlags
	DryRun bool `help:"Validate every row and make no link."`
	Resume bool `help:"Send the file of a run that was cut again: rows that have links get the same ones."`
}

func (campaignAddCmd) Help() string {
	return "The first line of a CSV file names its columns: the fields of the campaign, and external_id, code, domain, class and expires_at if wanted. " +
		"Rows of NDJSON and JSON have members of these names. Results come in the order of the rows, and every one that is written is durable.\n\n" +
		"Exit codes: 0 all rows have links, 3 some rows made none, 1 the request failed or was cut."
}

// rowSettings are the columns of every campaign that are not its fields.
var rowSettings = []string{"external_id", "code", "domain", "class", "expires_at"}

func (c *campaignAddCmd) Run(s *session) error {
	switch {
	case c.Resume && c.File == "-":
		return usage("--resume wants a file: standard input cannot be read again; give both runs the same --idempotency-key instead")
	case c.Resume && (c.DryRun || c.IdempotencyKey != ""):
		return usage("--resume goes without --dry-run and --idempotency-key")
	}
	cl, err := s.connect()
	if err != nil {
		return err
	}
	known := func(string) bool { return true }
	if c.IgnoreExtra { // only then somebody must know what is no extra
		got, err := cl.Campaign(s.ctx, c.ID)
		if err != nil {
			return err
		}
		known = func(column string) bool {
			return slices.Contains(got.Fields, column) || slices.Contains(rowSettings, column)
		}
	}
	in, err := c.open(s, known)
	if err != nil {
		return err
	}
	defer in.Close()
	key, done, err := c.repeatable(in, cl.Server())
	if err != nil {
		return err
	}
	o := client.BulkOptions{Domain: c.Domain, Atomic: c.Atomic, DryRun: c.DryRun, Format: in.format, IdempotencyKey: key}
	sent := false
	err = c.send(s, in, func() (*client.BulkStream, error) {
		sent = true
		return cl.AddLinksStream(s.ctx, c.ID, o, in)
	})
	switch {
	case done == nil:
		return err
	case answeredWhole(err) || !c.Resume && (!sent || refused(err)):
		return errors.Join(err, done())
	case !sent || refused(err):
		return err // this time; the run before may have made links
	}
	return &resumeError{err}
}

// answeredWhole reports whether every row has its answer, and the caller has all of them.
func answeredWhole(err error) bool {
	e, ok := errors.AsType[*ExitError](err)
	return err == nil || ok && e.Code == ExitRows
}

// refused reports whether the server itself refused a request, and so made nothing for it.
func refused(err error) bool {
	e, ok := errors.AsType[*client.Error](err)
	return ok && e.Status/100 == 4 && e.Code != ""
}

// addNote is what --resume of add goes by: it lies beside the file of rows until its request was
// answered whole. Errors that prove nothing leave it: another key would make every link again.
type addNote struct {
	Server   string    `json:"server"`
	Campaign string    `json:"campaign"`
	Domain   string    `json:"domain,omitempty"`
	Key      string    `json:"key"`  // the Idempotency-Key of the request
	Size     int64     `json:"size"` // of the file, and
	Modified time.Time `json:"modified"`
}

func (c *campaignAddCmd) notePath() string { return c.File + ".terse-add" }

// repeatable returns the key that makes the request repeatable, and what to do when it was answered
// whole; nil if there is nothing. A folder that takes no note costs --resume, not the links.
func (c *campaignAddCmd) repeatable(in *bulkInput, server string) (key string, done func() error, err error) {
	if c.IdempotencyKey != "" || c.DryRun || in.info == nil || !in.info.Mode().IsRegular() {
		return c.IdempotencyKey, nil, nil
	}
	n := addNote{Server: server, Campaign: c.ID, Domain: c.Domain, Size: in.info.Size(), Modified: in.info.ModTime()}
	forget := func() error { return os.Remove(c.notePath()) }
	if c.Resume {
		b, err := os.ReadFile(c.notePath())
		if errors.Is(err, os.ErrNotExist) {
			return "", nil, usage("there is nothing to resume: %s is missing", filepath.Base(c.notePath()))
		}
		var old addNote
		if err == nil {
			err = json.Unmarshal(b, &old)
		}
		if err != nil {
			return "", nil, fmt.Errorf("read what --resume needs: %w", err)
		}
		n.Key = old.Key
		n.Modified, old.Modified = n.Modified.UTC(), old.Modified.UTC()
		if n != old {
			return "", nil, usage("%s is not the file that was being sent, or campaign, domain or server are others; leave out --resume to begin again", c.File)
		}
		return n.Key, forget, nil
	}
	n.Key = "add-" + strings.ToLower(rand.Text())
	b, err := json.Marshal(&n)
	if err == nil {
		err = os.WriteFile(c.notePath(), b, 0o600)
	}
	if err != nil {
		return "", nil, nil //nolint:nilerr // see above
	}
	return n.Key, forget, nil
}

type campaignGenerateCmd struct {
	ID             string `arg:"" help:"Id of the campaign, which has no fields."`
	Count          uint64 `arg:"" help:"How many links, 1 to 100,000,000."`
	Output         string `short:"o" help:"File for the results; standard output without it." placeholder:"FILE" type:"path"`
	Format         string `short:"f" help:"Form of the results: csv, ndjson or json; csv without it." enum:",csv,ndjson,json" default:"" placeholder:"FORM"`
	Domain         string `help:"Domain of the links; the campaign's in turn without it." placeholder:"HOST"`
	Secret         bool   `help:"Give them random codes of 22 characters, which guessing does not find."`
	IdempotencyKey string `help:"A name of your own for the request: repeated with it, it makes no new links." placeholder:"KEY"`
	Quiet          bool   `short:"q" help:"Show no progress and no summary."`
}

func (c *campaignGenerateCmd) Run(s *session) error {
	if c.Count == 0 {
		return usage("the count is 1 to 100,000,000")
	}
	cl, err := s.connect()
	if err != nil {
		return err
	}
	g := client.GenerateOptions{Count: c.Count, Domain: c.Domain, IdempotencyKey: c.IdempotencyKey}
	if c.Secret {
		g.Class = "secret"
	}
	f := rowFlags{Output: c.Output, Format: c.Format, Quiet: c.Quiet}
	// What the progress measures are links, as there is nothing to read.
	in := &bulkInput{format: client.CSV, size: int64(min(c.Count, 1<<62)), links: true}
	return f.send(s, in, func() (*client.BulkStream, error) { return cl.GenerateLinks(s.ctx, c.ID, g) })
}
