package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/terselink/terse/client"
)

type jobsCmd struct {
	List     jobsListCmd   `cmd:"" help:"List jobs, the newest first."`
	Get      jobCmd        `cmd:"" help:"Show a job."`
	Pause    jobPauseCmd   `cmd:"" help:"Pause a job."`
	Resume   jobResumeCmd  `cmd:"" help:"Let a paused job go on."`
	Cancel   jobCancelCmd  `cmd:"" help:"End a job; links that it made stay."`
	Rollback jobUndoCmd    `cmd:"" help:"Delete every link that a job made."`
	Result   jobsResultCmd `cmd:"" help:"Print the results of a job that is done."`
}

type jobsListCmd struct {
	Limit int `help:"Most jobs to list." default:"50"`
}

func (c *jobsListCmd) Run(s *session) error {
	cl, err := s.connect()
	if err != nil {
		return err
	}
	t := s.table("ID", "STATE", "DONE", "FAILED", "CREATED AT")
	n := 0
	for j, err := range cl.Jobs(s.ctx) {
		if err != nil {
			return err
		}
		if n++; n > c.Limit {
			break
		}
		if s.g.JSON {
			if err := s.printJSON(j); err != nil {
				return err
			}
			continue
		}
		state := j.State
		if j.Error != nil && !j.Ended() {
			state += " (" + j.Error.Code + ")"
		}
		t.row(j.ID, state, count(j.Done), count(j.Failed), date(j.CreatedAt))
	}
	if s.g.JSON {
		return nil
	}
	return t.flush()
}

// jobCmd shows a job; the commands that steer one show it afterwards.
type jobCmd struct {
	ID string `arg:"" help:"Id of the job."`
}

func (c *jobCmd) Run(s *session) error { return c.act(s, (*client.Client).GetJob) }

func (c *jobCmd) act(s *session, do func(*client.Client, context.Context, string) (*client.Job, error)) error {
	cl, err := s.connect()
	if err != nil {
		return err
	}
	j, err := do(cl, s.ctx, c.ID)
	if err != nil {
		return err
	}
	return s.showJob(j)
}

type (
	jobPauseCmd  struct{ jobCmd }
	jobResumeCmd struct{ jobCmd }
	jobCancelCmd struct{ jobCmd }
	jobUndoCmd   struct{ jobCmd }
)

func (c *jobPauseCmd) Run(s *session) error  { return c.act(s, (*client.Client).PauseJob) }
func (c *jobResumeCmd) Run(s *session) error { return c.act(s, (*client.Client).ResumeJob) }
func (c *jobCancelCmd) Run(s *session) error { return c.act(s, (*client.Client).CancelJob) }
func (c *jobUndoCmd) Run(s *session) error   { return c.act(s, (*client.Client).RollbackJob) }

func (s *session) showJob(j *client.Job) error {
	if s.g.JSON {
		return s.printJSON(j)
	}
	t := s.table("JOB", j.ID)
	t.row("state", j.State)
	t.row("done", count(j.Done))
	t.row("created", count(j.Created))
	t.row("reused", count(j.Reused))
	t.row("failed", count(j.Failed))
	if j.RolledBack > 0 {
		t.row("rolled back", count(j.RolledBack))
	}
	if r := j.Report; r != nil {
		t.row("duplicates", count(r.Duplicates))
		t.row("conflicts", count(r.Conflicts))
	}
	for _, n := range j.Nodes {
		t.row("by "+n.Name, count(n.Rows))
	}
	if j.Error != nil {
		t.row("error", j.Error.Message+" ("+j.Error.Code+")")
	}
	return t.flush()
}

type jobsResultCmd struct {
	jobCmd
	Errors bool   `help:"Only the rows that made no link, with reasons."`
	Output string `short:"o" help:"File for the results; standard output without it." placeholder:"FILE" type:"path"`
}

func (c *jobsResultCmd) Run(s *session) error {
	cl, err := s.connect()
	if err != nil {
		return err
	}
	return s.saveResult(cl, c.ID, c.Errors, c.Output)
}

// saveResult copies the results of a job to a file or to standard output.
func (s *session) saveResult(cl *client.Client, id string, onlyErrors bool, path string) error {
	r, err := cl.JobResult(s.ctx, id, onlyErrors)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := s.writeFile(path, r); err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	return nil
}

// uploadPiece is how many bytes of an upload one request carries: what a cut connection
// costs at most.
const uploadPiece = 8 << 20

// note is what --resume goes by: it lies beside the file of rows while its upload or its
// job is under way.
type note struct {
	Server   string    `json:"server"`
	Upload   string    `json:"upload"`
	Job      string    `json:"job,omitempty"`
	Size     int64     `json:"size"` // of the file, and
	Modified time.Time `json:"modified"`

	kept bool // it lies there
}

// resumable tells that --resume goes on after err, if it can.
func (n *note) resumable(err error) error {
	if !n.kept {
		return err
	}
	return &resumeError{err}
}

func (c *bulkCmd) notePath() string { return c.File + ".terse-job" }

func (c *bulkCmd) writeNote(n *note) error {
	b, err := json.Marshal(n)
	if err == nil {
		err = os.WriteFile(c.notePath(), b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("note what --resume needs: %w", err)
	}
	n.kept = true
	return nil
}

// runJob uploads the file, makes a job of it and follows the job.
func (c *bulkCmd) runJob(s *session) error {
	switch {
	case c.File == "-":
		return usage("--job wants a file: standard input cannot be read again after an interruption")
	case c.Atomic:
		return usage("--atomic is for one request; a job keeps the rows that it has done and can be rolled back")
	case c.RawCSV || c.Format == "json":
		return usage("the results of a job are csv, ndjson or --parquet, without --raw-csv")
	case c.Parquet && (c.Output == "" || c.Format != ""):
		return usage("--parquet wants --output, and no --format")
	case c.Campaign != "" && c.IgnoreExtra:
		return usage("--ignore-extra is for the fields of links; the rows of a campaign have its values only")
	}
	if err := c.checkOutputs(); err != nil {
		return err
	}
	in, err := c.openJob(s)
	if err != nil {
		return err
	}
	defer in.Close()
	if in.info == nil || !in.info.Mode().IsRegular() {
		return usage("--job wants a regular file, which can be read again after an interruption")
	}
	cl, err := s.connect()
	if err != nil {
		return err
	}
	n := &note{Server: cl.Server(), Size: in.info.Size(), Modified: in.info.ModTime()}
	if c.Resume {
		if err := c.readNote(n); err != nil {
			return err
		}
	}
	if n.Job == "" {
		if err := c.upload(s, cl, in, n); err != nil {
			return n.resumable(err)
		}
		format := c.Format
		switch {
		case c.Parquet:
			format = "parquet"
		case format == "" && in.format == client.CSV:
			format = "csv"
		}
		j, err := cl.CreateJob(s.ctx, client.NewJob{
			Kind: "bulk", Domain: c.Domain, CampaignID: c.Campaign, DryRun: c.DryRun, Columns: in.columns, ResultFormat: format, Source: client.JobSource{UploadID: n.Upload},
			Format: map[client.Format]string{client.CSV: "csv", client.NDJSON: "ndjson", client.JSON: "json"}[in.format],
			// An answer that is lost leaves a job that the note does not know. Asked for again, it is the same one.
			IdempotencyKey: "job-of-" + n.Upload,
		})
		if err != nil {
			return n.resumable(err)
		}
		n.Job = j.ID
		if err := c.writeNote(n); err != nil {
			return err
		}
	}
	return c.follow(s, cl, in, n)
}

func (c *bulkCmd) readNote(n *note) error {
	b, err := os.ReadFile(c.notePath())
	if errors.Is(err, fs.ErrNotExist) {
		return usage("there is nothing to resume: %s is missing", filepath.Base(c.notePath()))
	}
	var old note
	if err == nil {
		err = json.Unmarshal(b, &old)
	}
	if err != nil {
		return fmt.Errorf("read what --resume needs: %w", err)
	}
	if old.Server != n.Server || old.Size != n.Size || !old.Modified.Equal(n.Modified) {
		return usage("%s is not the file that was being sent, or the server is another one; leave out --resume to begin again", c.File)
	}
	*n = old
	n.kept = true
	return nil
}

// upload sends the rows, from where an earlier upload stopped.
func (c *bulkCmd) upload(s *session, cl *client.Client, in *jobInput, n *note) error {
	var u *client.Upload
	var err error
	if n.Upload == "" {
		if u, err = cl.CreateUpload(s.ctx, client.NewUpload{Filename: filepath.Base(c.File), ContentType: string(in.format), Encoding: in.encoding}); err != nil {
			return err
		}
		n.Upload = u.ID
		if err := c.writeNote(n); err != nil {
			return err
		}
	} else if u, err = cl.GetUpload(s.ctx, n.Upload); err != nil {
		return err
	}
	if _, err := io.CopyN(io.Discard, in, u.Offset); err != nil {
		return fmt.Errorf("read the rows that were sent: %w", err)
	}
	piece := make([]byte, uploadPiece)
	m := s.meter(c.Quiet)
	defer m.stop()
	began, start := s.Now(), u.Offset
	for offset := u.Offset; ; {
		size, rerr := io.ReadFull(in, piece)
		if size > 0 {
			if offset, err = c.sendPiece(s, cl, n.Upload, offset, piece[:size]); err != nil {
				return err
			}
		}
		part := float64(in.read.Load()) / float64(max(in.size, 1))
		rate := float64(offset-start) / 1e6 / max(s.Now().Sub(began).Seconds(), 1e-3)
		m.show(part, fmt.Sprintf("uploaded %.0f%%, %.1f MB/s", part*100, rate), false)
		switch {
		case rerr == io.EOF || rerr == io.ErrUnexpectedEOF:
			return nil
		case rerr != nil:
			return fmt.Errorf("read the rows: %w", rerr)
		}
	}
}

// pieceTries is how often a piece is sent before the upload is given up.
const pieceTries = 5

// sendPiece sends one piece; after a failure it asks what has arrived.
func (c *bulkCmd) sendPiece(s *session, cl *client.Client, id string, offset int64, piece []byte) (int64, error) {
	end := offset + int64(len(piece))
	for try := 1; ; try++ {
		_, err := cl.AppendUpload(s.ctx, id, offset, piece[int64(len(piece))-(end-offset):])
		if err == nil {
			return end, nil
		}
		if e, ok := errors.AsType[*client.Error](err); try == pieceTries || s.ctx.Err() != nil || ok && e.Status/100 == 4 && e.Status != 409 && e.Status != 400 {
			return 0, err
		}
		select {
		case <-s.ctx.Done():
			return 0, err
		case <-time.After(time.Duration(try) * time.Second):
		}
		u, gerr := cl.GetUpload(s.ctx, id)
		if gerr != nil {
			continue // the next try tells
		}
		if u.Offset < offset || u.Offset > end {
			return 0, fmt.Errorf("the upload stands at %d, which is not where this command is: somebody else writes to it", u.Offset)
		}
		if offset = u.Offset; offset == end {
			return end, nil
		}
	}
}

// follow shows a job until it has ended, over broken connections too.
func (c *bulkCmd) follow(s *session, cl *client.Client, in *jobInput, n *note) error {
	if !c.Quiet {
		fmt.Fprintf(s.Stderr, "%s goes on by itself; interrupt this command at will and come back with --resume\n", n.Job)
	}
	var j *client.Job
	m := s.meter(c.Quiet)
	defer m.stop()
	for failures := 0; ; {
		err := cl.JobEvents(s.ctx, n.Job, func(now *client.Job) bool {
			j, failures = now, 0
			m.show(now.Progress, jobLine(now), now.Ended())
			return now.State != "paused"
		})
		if err == nil {
			break
		}
		if e, ok := errors.AsType[*client.Error](err); ok && e.Status/100 == 4 {
			return err
		}
		if failures++; failures > 30 || s.ctx.Err() != nil {
			return n.resumable(err)
		}
		select {
		case <-s.ctx.Done():
			return n.resumable(s.ctx.Err())
		case <-time.After(time.Second):
		}
	}
	m.stop()
	switch {
	case j.State == "paused":
		return fmt.Errorf("the job is paused; let it go on with: terse jobs resume %s", j.ID)
	case j.State != "done":
		err := fmt.Errorf("the job is %s", j.State)
		if j.Error != nil {
			err = fmt.Errorf("the job is %s: %s (%s)", j.State, printable(j.Error.Message), printable(j.Error.Code))
		}
		return errors.Join(err, os.Remove(c.notePath()))
	}
	if err := s.saveResult(cl, j.ID, false, c.Output); err != nil {
		return err
	}
	if c.Errors != "" {
		if err := c.saveErrors(s, cl, in, j.ID); err != nil {
			return err
		}
	}
	if err := os.Remove(c.notePath()); err != nil {
		return err
	}
	return c.summary(s, j)
}

// jobLine is a job in words.
func jobLine(j *client.Job) string {
	line := fmt.Sprintf("%s: %s rows, %s rows/s, %s failed", j.State, count(j.Done), count(uint64(j.RowsPerSecond)), count(j.Failed))
	if len(j.Nodes) > 1 {
		line += fmt.Sprintf(", %d nodes", len(j.Nodes))
	}
	if j.ETASeconds != nil {
		line += ", ETA " + (time.Duration(*j.ETASeconds) * time.Second).String()
	}
	return line
}

func (c *bulkCmd) summary(s *session, j *client.Job) error {
	bad := j.Failed
	if !c.Quiet {
		fmt.Fprintf(s.Stderr, "%s rows: %s created, %s reused, %s failed\n", count(j.Done), count(j.Created), count(j.Reused), count(j.Failed))
	}
	if j.DryRun && j.Report != nil {
		bad = j.Done - j.Report.Valid
		if !c.Quiet {
			fmt.Fprintf(s.Stderr, "dry run: %s valid, %s conflicts, %s duplicates; nothing was created\n", count(j.Report.Valid), count(j.Report.Conflicts), count(j.Report.Duplicates))
		}
	}
	if bad > 0 {
		return &ExitError{ExitRows, fmt.Errorf("%s of %s rows made no link", count(bad), count(j.Done))}
	}
	return nil
}
