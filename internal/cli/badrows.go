package cli

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/terselink/terse/client"
	"github.com/terselink/terse/internal/badrows"
	"github.com/terselink/terse/internal/links"
)

// faultList collects why rows made no link and writes those rows afterwards, as they stand in the input. The reasons
// wait in a file without a name: there may be as many as there are rows.
type faultList struct {
	f *os.File
	w *bufio.Writer
}

func newFaultList() (*faultList, error) {
	f, err := scratchFile()
	if err != nil {
		return nil, fmt.Errorf("keep the rows that make no link: %w", err)
	}
	return &faultList{f: f, w: bufio.NewWriter(f)}, nil
}

// scratchFile makes a file that is gone with the process, whatever ends it.
func scratchFile() (*os.File, error) {
	f, err := os.CreateTemp("", "terse-rows-*")
	if err == nil {
		_ = os.Remove(f.Name()) // where that fails, close does it
	}
	return f, err
}

func (l *faultList) add(r *client.RawResult) error {
	b := binary.AppendUvarint(nil, r.Index)
	for _, v := range [][]byte{r.ErrorCode, r.ErrorMessage} {
		b = append(binary.AppendUvarint(b, uint64(len(v))), v...)
	}
	_, err := l.w.Write(b)
	return err
}

func (l *faultList) close() error { return closeScratch(l.f) }

func closeScratch(f *os.File) error {
	_ = os.Remove(f.Name())
	return f.Close()
}

// rowFault is why a row made no link.
type rowFault struct {
	index         uint64
	code, message string
}

// readFault returns io.EOF after the last.
func readFault(r *bufio.Reader) (f rowFault, err error) {
	if f.index, err = binary.ReadUvarint(r); err != nil {
		return f, err
	}
	for _, to := range []*string{&f.code, &f.message} {
		n, err := binary.ReadUvarint(r)
		b := make([]byte, n)
		if err == nil {
			_, err = io.ReadFull(r, b)
		}
		if err != nil {
			return f, err
		}
		*to = string(b)
	}
	return f, nil
}

// write reads the input again and writes the rows to w.
func (l *faultList) write(w *bufio.Writer, in *bulkInput) error {
	if err := l.w.Flush(); err != nil {
		return err
	}
	if _, err := l.f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	source, err := in.again()
	if err != nil {
		return err
	}
	defer source.Close()
	rows := bufio.NewReaderSize(source, 256<<10)
	if bom, err := rows.Peek(len(byteOrderMark)); err == nil && string(bom) == byteOrderMark {
		rows.Discard(len(byteOrderMark))
	}
	out := badrows.New(w)
	var body io.Reader = rows
	if in.format == client.CSV {
		header, err := headerLine(rows)
		if err != nil {
			return err
		}
		line := bytes.TrimRight(header, "\r\n")
		first, _, _ := strings.Cut(string(line), string(in.comma))
		if err := out.Header(line, strings.Trim(first, `"`), byte(in.comma)); err != nil {
			return err
		}
		body = io.MultiReader(bytes.NewReader(header), rows)
	}
	faults := bufio.NewReader(l.f)
	var f rowFault
	var faultErr error
	all := false
	next := func() (uint64, bool) {
		if f, faultErr = readFault(faults); errors.Is(faultErr, io.EOF) {
			faultErr, all = nil, true
			return 0, false
		}
		return f.index, faultErr == nil
	}
	form := map[client.Format]links.Format{client.CSV: links.CSV, client.NDJSON: links.NDJSON, client.JSON: links.JSON}[in.format]
	err = links.PickRows(body, links.PickOptions{In: form, EncodingCSV: in.rewrite, Comma: byte(in.comma)}, next, func(index, line uint64, row []byte) error {
		return out.Add(index, line, row, f.code, f.message)
	})
	if err == nil && faultErr == nil && !all {
		err = fmt.Errorf("the input ends before row %d, which made no link: it is not what was sent", f.index)
	}
	return errors.Join(err, faultErr, out.Flush())
}

// saveErrors writes the rows of a job that made no link to the file of --errors. Those of a file that was rewritten before it was
// sent are taken from the file, as they stand there.
func (c *bulkCmd) saveErrors(s *session, cl *client.Client, in *jobInput, id string) error {
	if in.again == nil || in.comma == ',' {
		return s.saveResult(cl, id, true, c.Errors)
	}
	bad, err := cl.JobResult(s.ctx, id, true)
	if err != nil {
		return err
	}
	defer bad.Close()
	faults, err := newFaultList()
	if err != nil {
		return err
	}
	defer faults.close()
	if err := faults.readJob(bad); err != nil {
		return fmt.Errorf("read the rows that made no link: %w", err)
	}
	r, w := io.Pipe()
	written := make(chan struct{})
	go func() {
		defer close(written)
		w.CloseWithError(faults.write(bufio.NewWriter(w), in.bulkInput))
	}()
	err = s.writeFile(c.Errors, r)
	_ = r.Close() // lets the writer go, never fails
	<-written
	if err != nil {
		return fmt.Errorf("write the rows that made no link: %w", err)
	}
	return nil
}

// readJob takes the reasons from the file of bad rows of a job over CSV rows.
func (l *faultList) readJob(bad io.Reader) error {
	var at uint64
	every := func() (uint64, bool) { at++; return at - 1, true }
	return links.PickRows(bad, links.PickOptions{In: links.CSV}, every, func(_, _ uint64, row []byte) error {
		index, code, message, err := badrows.Reason(row)
		if err != nil {
			return err
		}
		return l.add(&client.RawResult{Index: index, ErrorCode: []byte(code), ErrorMessage: []byte(message)})
	})
}

// keep makes the rows readable again: a file is opened once more, everything else is copied to one while it
// is sent.
func (in *bulkInput) keep(path string, r io.Reader) (io.Reader, error) {
	if in.info != nil && in.info.Mode().IsRegular() {
		in.again = func() (io.ReadCloser, error) {
			f, err := os.Open(path)
			if err != nil {
				return nil, err
			}
			again := &bulkInput{closers: []func() error{f.Close}}
			if again.Reader, _, err = again.decompress(f, strings.ToLower(filepath.Base(path))); err != nil {
				return nil, errors.Join(err, again.Close())
			}
			return again, nil
		}
		return r, nil
	}
	f, err := scratchFile()
	if err != nil {
		return nil, fmt.Errorf("keep the rows: %w", err)
	}
	in.closers = append(in.closers, func() error { return closeScratch(f) })
	in.again = func() (io.ReadCloser, error) {
		info, err := f.Stat()
		if err != nil {
			return nil, err
		}
		return io.NopCloser(io.NewSectionReader(f, 0, info.Size())), nil
	}
	return io.TeeReader(r, f), nil
}
