package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/terselink/terse/client"
)

type exportCmd struct {
	Clicks exportClicksCmd `cmd:"" help:"Write all clicks of a time into a file, as CSV, NDJSON or Parquet."`
	List   exportListCmd   `cmd:"" help:"List the exports that the server makes or has made."`
	Get    exportGetCmd    `cmd:"" help:"Fetch the file of an export."`
	Delete exportDeleteCmd `cmd:"" aliases:"cancel" help:"Delete exports and their files; one that is being made is cancelled."`

	Schedule exportScheduleCmd `cmd:"" help:"Exports of every hour or day into the bucket of the server."`
}

type exportClicksCmd struct {
	clickQuery `embed:""`
	Output     string `short:"o" help:"File to write; standard output without it." placeholder:"FILE"`
	Format     string `help:"csv, ndjson or parquet; as the file ends, csv without one." enum:"csv,ndjson,parquet," default:"" placeholder:"FORM"`
	RawCSV     bool   `name:"raw-csv" help:"Write values to CSV as they are, also those that a spreadsheet would run as a formula."`
	Job        bool   `help:"Let the server make the file in the background, and print the id of the export."`
}

func (c *exportClicksCmd) Run(s *session) error {
	format := c.Format
	if format == "" {
		format = "csv"
		for _, f := range []string{"ndjson", "parquet"} {
			if strings.HasSuffix(c.Output, "."+f) {
				format = f
			}
		}
	}
	if format == "parquet" && (c.Output == "" || c.Output == "-") && isTerminal(s.Stdout) {
		return usage("a Parquet file is not for a terminal: name a file with -o")
	}
	if c.RawCSV && format != "csv" {
		return usage("--raw-csv: the file is %s, in which values are always as they are", format)
	}
	cl, err := s.connect()
	if err != nil {
		return err
	}
	q, _, err := c.query(s, cl)
	if err != nil {
		return err
	}
	q.RawCSV = c.RawCSV
	if c.Job {
		if c.Output != "" {
			return usage("--job and -o exclude each other: terse export get fetches the file")
		}
		e, err := cl.CreateExport(s.ctx, q, format)
		if err != nil {
			return err
		}
		if s.g.JSON {
			return s.printJSON(e)
		}
		_, err = fmt.Fprintln(s.Stdout, e.ID)
		return err
	}
	body, err := cl.ExportClicks(s.ctx, q, format)
	if err != nil {
		return err
	}
	return s.saveExport(body, c.Output)
}

// saveExport writes a file of clicks and closes its source.
func (s *session) saveExport(body io.ReadCloser, path string) error {
	defer body.Close()
	err := s.writeFile(path, body)
	if errors.Is(err, context.Canceled) || err == nil {
		return err
	}
	return fmt.Errorf("the export is not whole: %w", err)
}

type exportListCmd struct{}

func (exportListCmd) Run(s *session) error {
	cl, err := s.connect()
	if err != nil {
		return err
	}
	var t *table
	if !s.g.JSON {
		t = s.table("ID", "STATE", "FORMAT", "ROWS", "FROM", "TO", "NOTE", "ERROR")
	}
	for e, err := range cl.Exports(s.ctx) {
		if err != nil {
			return err
		}
		if t == nil {
			if err := s.printJSON(e); err != nil {
				return err
			}
			continue
		}
		t.row(e.ID, e.State, e.Format, count(e.Rows), date(e.From), date(e.To), exportNote(e), e.Error)
	}
	if t == nil {
		return nil
	}
	return t.flush()
}

// exportNote says what the file may lack; "" for nothing.
func exportNote(e *client.Export) string {
	if e.CompleteFrom.IsZero() {
		return ""
	}
	return "whole from " + date(e.CompleteFrom) + " on: older clicks may not be kept any more"
}

type exportGetCmd struct {
	ID     string `arg:"" help:"Id of the export."`
	Output string `short:"o" help:"File to write; standard output without it." placeholder:"FILE"`
	Wait   bool   `help:"Wait until the file is there."`
}

func (c *exportGetCmd) Run(s *session) error {
	cl, err := s.connect()
	if err != nil {
		return err
	}
	e, err := cl.GetExport(s.ctx, c.ID)
	for c.Wait && err == nil && !e.Ended() {
		select {
		case <-time.After(time.Second):
		case <-s.ctx.Done():
			return s.ctx.Err()
		}
		e, err = cl.GetExport(s.ctx, c.ID)
	}
	switch {
	case err != nil:
		return err
	case e.State == "failed":
		return fmt.Errorf("%s", printable(e.Error))
	case !e.Ended():
		return fmt.Errorf("the export is %s, %s rows so far: wait with --wait", e.State, count(e.Rows))
	}
	body, err := cl.ExportFile(s.ctx, e)
	if err != nil {
		return err
	}
	return s.saveExport(body, c.Output)
}

type exportDeleteCmd struct {
	ID []string `arg:"" help:"Ids of the exports."`
}

func (c *exportDeleteCmd) Run(s *session) error {
	cl, err := s.connect()
	if err != nil {
		return err
	}
	var failed []error
	for _, id := range c.ID {
		if err := cl.DeleteExport(s.ctx, id); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", id, err))
			continue
		}
		if err := s.deleted(id); err != nil {
			return err
		}
	}
	return errors.Join(failed...)
}
