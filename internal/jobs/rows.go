package jobs

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/inflate"
	"github.com/terselink/terse/internal/links"
)

// rowReader reads the rows of a job: the file, decompressed, with the columns renamed.
// Read and Close may be called at once; after Close no Read is under way.
type rowReader struct {
	io.Reader
	src  *uploadReader
	read readMarks
	// Of a CSV file:
	header links.Header // as it stands there
	lines  int          // that it takes more in the file than in the rows that are read here
}

// Read implements io.Reader.
func (r *rowReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.read.add(n, r.src.n.Load())
	return n, err
}

// fileBytes returns how many bytes of the file, as it lies on disk, lie before so many bytes of rows. It is asked for more each
// time, beside Read.
func (r *rowReader) fileBytes(rows int64) int64 { return r.read.at(rows) }

// readMarks remember which part of a file a reader had taken when it had returned so many bytes: what is read is ahead of
// what is done, and may be a fraction of it on disk.
type readMarks struct {
	mu    sync.Mutex
	total int64 // returned
	marks []readMark
	last  int64 // of the file, at the last mark that was passed
}

type readMark struct{ rows, file int64 }

func (m *readMarks) add(n int, file int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.total += int64(n)
	if k := len(m.marks); k > 0 && m.marks[k-1].file == file {
		m.marks[k-1].rows = m.total
		return
	}
	m.marks = append(m.marks, readMark{m.total, file})
}

func (m *readMarks) at(rows int64) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := 0
	for ; i < len(m.marks) && m.marks[i].rows <= rows; i++ {
		m.last = m.marks[i].file
	}
	m.marks = slices.Delete(m.marks, 0, i)
	return m.last
}

// Close ends reading.
func (r *rowReader) Close() { r.src.close() }

// openRows opens the rows of a job from the beginning.
func (m *Manager) openRows(j *Job) (*rowReader, error) {
	f, u, err := m.Uploads.open(j.Workspace, j.Spec.Upload)
	if err != nil {
		return nil, err
	}
	r := &rowReader{src: &uploadReader{f: f}}
	r.src.r = inflate.New(readerFunc(r.src.read), u.Encoding)
	r.Reader = r.src
	if j.Spec.Format != "csv" {
		return r, nil
	}
	var rest io.Reader
	if r.header, rest, err = links.ReadHeader(r.src); err != nil {
		r.Close()
		return nil, err
	}
	header, err := renameColumns(r.header.Names, j.Spec.Columns)
	if err != nil {
		r.Close()
		return nil, err
	}
	r.lines = r.header.Lines - strings.Count(header, "\n")
	r.Reader = io.MultiReader(strings.NewReader(header), rest)
	return r, nil
}

// maxBytes is how long the rows may be once they are decompressed: as long as an upload.
func (m *Manager) maxBytes(j *Job) int64 {
	const header = 1 << 20 // renamed columns may be longer
	return max(m.o.MaxUpload, j.Bytes) + header
}

// uploadReader reads the file of an upload and counts its bytes.
type uploadReader struct {
	f    *os.File
	n    atomic.Int64
	mu   sync.Mutex // held during Read
	r    *inflate.Reader
	done bool
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// Read implements io.Reader.
func (u *uploadReader) Read(p []byte) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.done {
		return 0, os.ErrClosed
	}
	return u.r.Read(p)
}

// read reads the file as it is on disk.
func (u *uploadReader) read(p []byte) (int, error) {
	n, err := u.f.Read(p)
	u.n.Add(int64(n))
	if err != nil && err != io.EOF {
		err = &terse.Error{Code: terse.CodeUnavailable, Reason: "disk", Message: "the server cannot read the upload", Err: fmt.Errorf("read upload: %w", err)}
	}
	return n, err
}

func (u *uploadReader) close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.done {
		u.done = true
		u.r.Close()
		_ = u.f.Close() // it was only read
	}
}
