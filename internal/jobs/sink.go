package jobs

import (
	"bufio"
	"errors"
	"os"
	"path/filepath"
	"slices"

	"github.com/terselink/terse/internal/badrows"
	"github.com/terselink/terse/internal/failpoint"
	"github.com/terselink/terse/internal/links"
)

// sinkBuffer is how many bytes of results are collected for one write.
const sinkBuffer = 256 << 10

// sink takes the results of a run: all of them go to one file, the bad rows to another,
// and all are counted.
type sink struct {
	main, bad  *os.File
	w          *bufio.Writer
	rows       *badrows.Writer
	lines      int          // that the header takes more in the file than in the rows that are read
	parquet    *parquetFile // nil: the pipeline renders the results
	dir        string
	report     Report
	ids, codes *repeats // dry runs only
	n          uint64   // rows
	text       []byte
}

func newSink(result, bad, dir string, spec *Spec) (*sink, error) {
	s := &sink{dir: dir, report: Report{Invalid: map[string]uint64{}}}
	var err error
	if s.main, err = os.Create(result); err != nil {
		return nil, err
	}
	if s.bad, err = os.Create(bad); err != nil {
		s.abandon()
		return nil, err
	}
	if spec.DryRun {
		if s.ids, err = newRepeats(dir); err == nil {
			s.codes, err = newRepeats(dir)
		}
		if err != nil {
			s.abandon()
			return nil, err
		}
	}
	s.w, s.rows = bufio.NewWriterSize(s.main, sinkBuffer), badrows.New(bufio.NewWriterSize(s.bad, sinkBuffer))
	if spec.ResultFormat == "parquet" {
		if s.parquet, err = newParquetFile(s.w, spec.DryRun); err != nil {
			s.abandon()
			return nil, err
		}
	}
	return s, nil
}

// abandon closes everything; after finish it does nothing more.
func (s *sink) abandon() {
	for _, f := range []*os.File{s.main, s.bad} {
		if f != nil {
			_ = f.Close() // the next run begins again
		}
	}
	s.ids.close()
	s.codes.close()
}

// Write implements io.Writer. Errors are of code unavailable: the disk is full.
func (s *sink) Write(p []byte) (int, error) {
	if _, err := s.w.Write(p); err != nil {
		return 0, diskError(err)
	}
	failpoint.Hit(failpoint.ResultFileWritten)
	return len(p), nil
}

// each counts one result and keeps a bad row.
func (s *sink) each(r *links.RowResult) error {
	s.n++
	var err error
	if r.Err != nil {
		row := r.Row
		if r.TooLong() {
			row = nil
		}
		f := faultOf(r.Err)
		s.fault(f.Code)
		err = s.rows.Add(r.Index, s.lineOf(r.Line), row, f.Code, f.Message)
	} else if s.codes != nil && r.Code() != "" {
		s.text = append(append(append(s.text[:0], r.Host()...), '/'), r.Code()...)
		err = s.codes.add(s.text, r.Index)
	}
	if err == nil && s.ids != nil && r.ExternalID != "" {
		s.text = append(s.text[:0], r.ExternalID...)
		err = s.ids.add(s.text, r.Index)
	}
	if err == nil && s.parquet != nil {
		err = s.parquet.add(r)
	}
	if err != nil {
		return diskError(err)
	}
	return nil
}

// lineOf returns the line of the file that a line of the rows stands on.
func (s *sink) lineOf(line uint64) uint64 { return uint64(int64(line) + int64(s.lines)) }

func (s *sink) fault(code string) {
	if code == "alias_taken" {
		s.report.Conflicts++
	} else {
		s.report.Invalid[code]++
	}
}

// finish makes the files durable and returns the report. again opens the rows from the
// beginning, for a dry run in which they are looked at once more.
func (s *sink) finish(sum links.BulkSummary, spec *Spec, again func() (*rowReader, error)) (*Report, error) {
	s.report.Valid = sum.Created + sum.Reused
	if s.ids != nil {
		if err := s.repeated(spec, again); err != nil {
			return nil, err
		}
	}
	var err error
	if s.parquet != nil {
		err = s.parquet.finish()
	}
	failpoint.Hit(failpoint.ResultFileEnding)
	err = errors.Join(err, s.w.Flush(), s.rows.Flush(), s.main.Sync(), s.bad.Sync(), syncDir(filepath.Dir(s.main.Name())))
	if err != nil {
		return nil, diskError(err)
	}
	failpoint.Hit(failpoint.ResultFileSynced)
	return &s.report, nil
}

// maxDuplicateRows is how many of the duplicates the report names.
const maxDuplicateRows = 100

// keepFirst puts a row into a list of the first maxDuplicateRows rows, in their order: rows that repeat others
// come in that of a hash.
func keepFirst(rows []uint64, row uint64) []uint64 {
	at, _ := slices.BinarySearch(rows, row)
	if at == maxDuplicateRows {
		return rows
	}
	rows = slices.Insert(rows, at, row)
	return rows[:min(len(rows), maxDuplicateRows)]
}

// repeated adds what only the whole file shows: rows with the external_id of another one,
// and rows with the code of an earlier one, which the real run could not create.
func (s *sink) repeated(spec *Spec, again func() (*rowReader, error)) error {
	err := s.ids.each(func(index, _ uint64) error {
		s.report.Duplicates++
		s.report.DuplicateRows = keepFirst(s.report.DuplicateRows, index)
		return nil
	})
	if err != nil {
		return diskError(err)
	}
	list, err := newRowList(s.dir, s.n)
	if err != nil {
		return diskError(err)
	}
	defer list.close()
	if err := s.codes.each(list.add); err != nil {
		return diskError(err)
	}
	if list.n == 0 {
		return nil
	}
	s.report.Conflicts += list.n
	s.report.Valid -= list.n
	in, err := again()
	if err != nil {
		return err
	}
	defer in.Close()
	var first uint64 // of the row that PickRows looks for
	next := func() (index uint64, ok bool) {
		index, first, ok = list.next()
		return index, ok
	}
	err = links.PickRows(in, links.PickOptions{In: formats[spec.Format]}, next, func(index, line uint64, row []byte) error {
		return s.rows.Add(index, s.lineOf(line), row, "alias_taken", "code: row "+itoa(first)+" of the file has the same code")
	})
	if err = errors.Join(err, list.err); err != nil {
		return diskError(err)
	}
	return nil
}
