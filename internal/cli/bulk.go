package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/terselink/terse/client"
	"github.com/terselink/terse/internal/compress"
	"github.com/terselink/terse/internal/inflate"
)

type bulkCmd struct {
	rowFlags
	Job    bool `help:"Upload the file and make a job of it, which goes on by itself and can be paused and rolled back."`
	Resume bool `help:"Go on with the upload or the job of an earlier run (with --job)."`
	DryRun bool `help:"Validate every row and make no link (with --job)."`
	// The rows of a campaign without a job: terse campaign add.
	Campaign string `help:"Campaign whose values the rows hold (with --job)." placeholder:"ID"`
	Parquet  bool   `help:"Results as a Parquet file (with --job and --output)."`
}

// rowFlags are what every command has that sends rows and writes their results.
type rowFlags struct {
	File        string   `arg:"" help:"CSV, NDJSON or JSON file, also .gz or .zst; - is standard input."`
	Output      string   `short:"o" help:"File for the results; standard output without it. Compressed if it ends in .gz or .zst." placeholder:"FILE" type:"path"`
	Format      string   `short:"f" help:"Form of the results: csv, ndjson or json; that of the rows without it." enum:",csv,ndjson,json" default:"" placeholder:"FORM"`
	InputFormat string   `help:"Form of the rows: csv, ndjson or json; found out without it." enum:",csv,ndjson,json" default:"" placeholder:"FORM"`
	Domain      string   `help:"Domain of the short URLs." placeholder:"HOST"`
	Atomic      bool     `help:"Make no link unless every row is valid and free."`
	Map         []string `help:"The column that a field is in, when its name differs: destination=url. Can be repeated." placeholder:"FIELD=COLUMN" sep:"none" aliases:"columns"`
	IgnoreExtra bool     `help:"Leave out columns that no field is named after."`
	Delimiter   string   `help:"What separates columns: one ASCII character, or tab." default:"," placeholder:"CHAR"`
	Errors      string   `help:"Also write the rows that made no link to a file, as they stand in the input, each with its line and the reason: mend them and send that file." placeholder:"FILE" type:"path"`
	RawCSV      bool     `name:"raw-csv" help:"Write CSV values as they are, also those that a spreadsheet would run as a formula."`
	Quiet       bool     `short:"q" help:"Show no progress and no summary."`

	IdempotencyKey string `help:"A name of your own for the request: the same rows sent again with it get the same links." placeholder:"KEY"`
}

func (bulkCmd) Help() string {
	return "The first line of a CSV file names its columns: destination is needed; external_id, code, title, tags, expires_at and the other fields of a link may follow. " +
		"Results come in the order of the rows, and every one that is written is durable.\n\n" +
		"Exit codes: 0 all rows have links, 3 some rows made none, 1 the request failed or was cut."
}

// outputBuffer is how many bytes of results are collected for one write.
const outputBuffer = 256 << 10

func (c *bulkCmd) Run(s *session) error {
	if c.Job {
		return c.runJob(s)
	}
	if c.Resume || c.DryRun || c.Parquet {
		return usage("--resume, --dry-run and --parquet are for --job")
	}
	if c.Campaign != "" {
		return usage("--campaign is for --job; without one: terse campaign add")
	}
	in, err := c.open(s)
	if err != nil {
		return err
	}
	defer in.Close()
	cl, err := s.connect()
	if err != nil {
		return err
	}
	o := client.BulkOptions{Domain: c.Domain, Atomic: c.Atomic, Format: in.format, IdempotencyKey: c.IdempotencyKey}
	return c.send(s, in, func() (*client.BulkStream, error) { return cl.BulkStream(s.ctx, o, in) })
}

// open opens the rows of links.
func (c *bulkCmd) open(s *session) (*bulkInput, error) {
	return c.rowFlags.open(s, isLinkField)
}

func isLinkField(column string) bool { return slices.Contains(fieldNames, strings.ToLower(column)) }

// send makes the request and writes what it is answered.
func (c *rowFlags) send(s *session, in *bulkInput, begin func() (*client.BulkStream, error)) error {
	if err := c.checkOutputs(); err != nil {
		return err
	}
	// The outputs are opened before anything is sent: links whose results cannot be
	// written would be lost to the caller.
	main, err := openOutput(c.Output, in)
	if err != nil {
		return err
	}
	faults, err := openOutput(c.Errors, in)
	if err != nil {
		return errors.Join(err, main.discard())
	}
	stream, err := begin()
	if err != nil {
		return errors.Join(in.explain(err), main.discard(), faults.discard())
	}
	defer stream.Close()
	out, err := c.begin(s, in, main, faults)
	if err != nil {
		return err
	}
	p := c.progress(s, in)
	err = in.explain(out.copy(stream, p))
	p.stop()
	err = errors.Join(err, out.writeFaults(in), out.close())
	if err != nil {
		return err
	}
	if !c.Quiet {
		p.summary(stream.Summary())
		out.showFaults(s.Stderr)
	}
	if n := stream.Summary().Failed; n > 0 {
		return &ExitError{ExitRows, fmt.Errorf("%s of %s rows made no link", count(n), count(stream.Rows()))}
	}
	return nil
}

// explain adds the columns that there are to an error about one of them.
func (in *bulkInput) explain(err error) error {
	e, ok := errors.AsType[*client.Error](err)
	if !ok || !headerFault(e) || len(in.columns) == 0 {
		return err
	}
	return fmt.Errorf("%w; the columns are %s", err, printable(strings.Join(in.columns, ", ")))
}

// results is where results go.
type results struct {
	main   resultWriter
	faults *faultList    // nil without --errors
	rows   *bufio.Writer // where they are written to
	shown  []client.BulkResult
	flush  func() error // of the main ones
	closes []func() error
}

// maxShown is how many of the rows without a link are shown on standard error.
const maxShown = 3

// begin starts the outputs, now that the server has taken the request.
func (c *rowFlags) begin(s *session, in *bulkInput, main, faults *output) (*results, error) {
	r := &results{}
	w, z, err := r.writer(main, s.Stdout)
	if err != nil {
		return nil, err
	}
	r.flush = func() error {
		if err := w.Flush(); err != nil {
			return err
		}
		return z.Flush()
	}
	format := c.Format
	if s.g.JSON && format == "" {
		format = "ndjson"
	}
	if format == "" {
		format = map[client.Format]string{client.CSV: "csv", client.NDJSON: "ndjson", client.JSON: "json"}[in.format]
	}
	switch format {
	case "csv":
		r.main = newCSVWriter(w, c.RawCSV)
	case "json":
		r.main = &arrayWriter{w: w}
	default:
		r.main = lineWriter{w}
	}
	if c.Errors != "" {
		w, _, err := r.writer(faults, nil)
		if err != nil {
			return nil, errors.Join(err, r.close())
		}
		r.rows = w
		if r.faults, err = newFaultList(); err != nil {
			return nil, errors.Join(err, r.close())
		}
		r.closes = append(r.closes, r.faults.close)
	}
	return r, nil
}

// writer begins one output; without a file it is the stream. What it returns second is under the first, and
// compresses files whose names say so.
func (r *results) writer(o *output, stream io.Writer) (*bufio.Writer, *compress.Writer, error) {
	encoding := inflate.Identity
	if o.f != nil {
		if err := o.truncate(); err != nil {
			return nil, nil, fmt.Errorf("write results: %w", err)
		}
		stream = o.f
		encoding, _ = inflate.ByName(o.f.Name())
	}
	z := compress.New(encoding, stream)
	w := bufio.NewWriterSize(z, outputBuffer)
	r.closes = append(r.closes, func() error {
		if err := errors.Join(w.Flush(), z.Close(), o.close()); err != nil {
			return fmt.Errorf("write results: %w", err)
		}
		return nil
	})
	return w, z, nil
}

// checkOutputs refuses one file for two purposes, by whatever names.
func (c *rowFlags) checkOutputs() error {
	switch {
	case sameFile(c.Output, c.Errors):
		return usage("--output and --errors are the same file, %s", c.Errors)
	case sameFile(c.Output, c.File):
		return usage("%s is the file that the rows come from", c.Output)
	case sameFile(c.Errors, c.File):
		return usage("%s is the file that the rows come from", c.Errors)
	}
	return nil
}

// sameFile reports whether two paths name one regular file, which need not be there yet. "" and - name none.
func sameFile(a, b string) bool {
	if a == "" || b == "" || a == "-" || b == "-" {
		return false
	}
	ai, aerr := os.Stat(a)
	bi, berr := os.Stat(b)
	if aerr == nil && berr == nil {
		return ai.Mode().IsRegular() && os.SameFile(ai, bi)
	}
	return aerr != nil && berr != nil && futureFile(a) == futureFile(b)
}

// futureFile is where a file that is missing would be made: links to it and to its folder are followed.
func futureFile(path string) string {
	for range 40 { // as many as Linux follows
		to, err := os.Readlink(path)
		if err != nil {
			break
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(path), to)
		}
		path = to
	}
	folder, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return path
	}
	if target, err := filepath.EvalSymlinks(folder); err == nil {
		folder = target
	}
	return filepath.Join(folder, filepath.Base(path))
}

// output is a file for results; without f it is standard output or none.
type output struct {
	f     *os.File
	fresh bool // it was made by this run
}

// openOutput opens a file and leaves what is in it until results come. "" is no file.
func openOutput(path string, in *bulkInput) (*output, error) {
	if path == "" {
		return &output{}, nil
	}
	info, err := os.Stat(path)
	if err == nil && in.info != nil && os.SameFile(info, in.info) {
		return nil, usage("%s is the file that the rows come from", path)
	}
	f, openErr := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o666)
	if openErr != nil {
		return nil, &ExitError{ExitUsage, fmt.Errorf("open the output: %w", openErr)}
	}
	return &output{f: f, fresh: errors.Is(err, fs.ErrNotExist)}, nil
}

// truncate empties a file; pipes and devices have nothing to empty.
func (o *output) truncate() error {
	info, err := o.f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return err
	}
	return o.f.Truncate(0)
}

func (o *output) close() error {
	if o.f == nil {
		return nil
	}
	return o.f.Close()
}

// discard leaves things as they were: nothing was sent.
func (o *output) discard() error {
	err := o.close()
	if o.fresh {
		err = errors.Join(err, os.Remove(o.f.Name()))
	}
	return err
}

// copy writes every result as it comes.
func (r *results) copy(stream *client.BulkStream, p *progress) error {
	var raw client.RawResult
	for {
		// What came in is passed on before waiting for more, so that a slow
		// producer at the other end of a pipe sees its results.
		if stream.Buffered() == 0 {
			if err := r.flush(); err != nil {
				return fmt.Errorf("write results: %w", err)
			}
		}
		if !stream.Next() {
			break
		}
		if err := stream.Decode(&raw); err != nil {
			return err
		}
		p.row(len(raw.ErrorCode) > 0)
		if err := r.main.write(stream.Bytes(), &raw); err != nil {
			return fmt.Errorf("write results: %w", err)
		}
		if len(raw.ErrorCode) > 0 {
			if err := r.fault(&raw); err != nil {
				return err
			}
		}
	}
	if err := stream.Err(); err != nil {
		return err
	}
	return r.main.finish()
}

func (r *results) fault(raw *client.RawResult) error {
	if len(r.shown) < maxShown {
		r.shown = append(r.shown, client.BulkResult{
			Index: raw.Index,
			Err:   &client.RowError{Code: string(raw.ErrorCode), Message: string(raw.ErrorMessage)},
		})
	}
	if r.faults == nil {
		return nil
	}
	if err := r.faults.add(raw); err != nil {
		return fmt.Errorf("keep a row that made no link: %w", err)
	}
	return nil
}

// writeFaults writes the rows that made no link, also those of an answer that was cut.
func (r *results) writeFaults(in *bulkInput) error {
	if r.faults == nil {
		return nil
	}
	if err := r.faults.write(r.rows, in); err != nil {
		return fmt.Errorf("write the rows that made no link: %w", err)
	}
	return nil
}

func (r *results) showFaults(w io.Writer) {
	for _, f := range r.shown {
		fmt.Fprintf(w, "  row %d: %s\n", f.Index, printable(f.Err.Error()))
	}
}

func (r *results) close() error {
	var errs []error
	for _, c := range r.closes {
		errs = append(errs, c())
	}
	return errors.Join(errs...)
}

// fieldNames are the columns that the server reads, for --ignore-extra. A column that is
// missing here is left out then, and only then.
var fieldNames = []string{
	"destination", "external_id", "domain", "code", "title", "tags", "expires_at", "starts_at", "expired_destination",
	"redirect_status", "forward_query", "forward_path", "password", "max_clicks", "if_exists", "metadata", "rules", "class",
	"noindex", "referrer_policy", "not_started_destination", "limit_destination", "query_mode", "utm", "sticky",
	"ios_destination", "ios_store", "android_destination", "android_store", "og_title", "og_description", "og_image", "pixels", "cloak",
}

// csvOptions translates the flags about CSV rows.
func (c *rowFlags) csvOptions(known func(column string) bool) (csvOptions, error) {
	o := csvOptions{ignoreExtra: c.IgnoreExtra, known: known, comma: ','}
	switch d := []rune(c.Delimiter); {
	case c.Delimiter == "tab" || c.Delimiter == `\t`:
		o.comma = '\t'
	case len(d) == 1 && d[0] >= utf8.RuneSelf:
		return o, usage("--delimiter: %q is not an ASCII character, such as ; or |, and not tab", c.Delimiter)
	case len(d) == 1 && d[0] != 0 && d[0] != '"' && d[0] != '\n' && d[0] != '\r':
		o.comma = d[0]
	default:
		return o, usage("--delimiter: %q is not one character, and not tab", c.Delimiter)
	}
	for _, m := range c.Map {
		field, column, ok := cutMap(m)
		if !ok {
			return o, usage("--map: %q is not FIELD=COLUMN", m)
		}
		if o.columns == nil {
			o.columns = map[string]string{}
		}
		o.columns[column] = field
	}
	return o, nil
}

// plain reports whether rows pass through as they are.
func (o *csvOptions) plain() bool { return !o.ignoreExtra && o.comma == ',' && len(o.columns) == 0 }
