package jobs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/failpoint"
	"github.com/terselink/terse/internal/inflate"
)

const (
	// UploadPrefix begins the ids of uploads.
	UploadPrefix = "upl_"
	// unusedKeep is how long an upload without a job is kept after its last byte.
	unusedKeep = 24 * 60 * 60 * 1000 // milliseconds
	// usedKeep is how long an upload is kept after its last job has ended.
	usedKeep = 7 * 24 * 60 * 60 * 1000 // milliseconds
	// syncBytes is how much is written between syncs.
	syncBytes = 16 << 20
	// maxUploads bounds the unfinished work of one workspace.
	maxUploads = 1000
)

// Upload is a file that is being sent or was sent.
type Upload struct {
	ID          string            `json:"id"`
	Workspace   terse.WorkspaceID `json:"workspace"`
	Filename    string            `json:"filename"`
	ContentType string            `json:"content_type"`
	Encoding    string            `json:"encoding,omitzero"` // of the bytes: that of package inflate
	Size        int64             `json:"size"`              // as announced; -1: not
	CreatedAt   terse.Millis      `json:"created_at"`
	// Key and Request are those of its creation: a repetition finds the upload by them, also
	// if the process ended before the answer.
	Key     string `json:"key,omitzero"`
	Request string `json:"request,omitzero"`

	Offset    int64        `json:"-"` // bytes that are on disk
	UpdatedAt terse.Millis `json:"-"`
}

// Complete reports whether everything that was announced is there.
func (u *Upload) Complete() bool { return u.Size < 0 || u.Offset == u.Size }

// OffsetError says where an upload goes on.
type OffsetError struct{ Offset int64 }

// Error implements error.
func (e *OffsetError) Error() string { return fmt.Sprintf("the upload goes on at %d", e.Offset) }

// Unwrap gives the error its code.
func (e *OffsetError) Unwrap() error {
	return &terse.Error{Code: terse.CodeConflict, Reason: "offset_mismatch", Field: "Upload-Offset", Message: e.Error()}
}

// Uploads keeps the files of uploads in a folder: ID.json says what it is, ID.data holds
// the bytes.
type Uploads struct {
	dir   string
	node  string // names the folder in the ids of uploads; "": there is one
	max   int64
	clock func() terse.Millis
	log   *slog.Logger

	mu   sync.Mutex
	list map[string]*upload
}

type upload struct {
	busy sync.Mutex // held while bytes are written or the file is given to a job
	// The rest is protected by Uploads.mu.
	u      Upload
	stop   func() // ends the request that is writing
	gone   bool
	sealed bool // a job was made from it: no byte may be added
}

// openUploads finds what an earlier process left. What is in a file is made durable before
// its length is believed.
func openUploads(dir, node string, limit int64, clock func() terse.Millis, log *slog.Logger) (*Uploads, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make uploads folder: %w", err)
	}
	us := &Uploads{dir: dir, node: node, max: limit, clock: clock, log: log, list: map[string]*upload{}}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read uploads folder: %w", err)
	}
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok {
			continue
		}
		u, err := us.load(id)
		if err != nil {
			log.Warn("upload left out", "id", id, "error", err)
			continue
		}
		us.list[id] = &upload{u: *u}
	}
	for _, e := range entries { // data without a description: a creation that was cut
		id, ok := strings.CutSuffix(e.Name(), ".data")
		if _, err := os.Stat(us.path(id, ".json")); ok && errors.Is(err, fs.ErrNotExist) || strings.HasSuffix(e.Name(), ".tmp") {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				log.Warn("remove cut upload", "error", err)
			}
		}
	}
	return us, nil
}

func (us *Uploads) path(id, ext string) string { return filepath.Join(us.dir, id+ext) }

func (us *Uploads) load(id string) (*Upload, error) {
	b, err := os.ReadFile(us.path(id, ".json"))
	if err != nil {
		return nil, err
	}
	var u Upload
	if err := json.Unmarshal(b, &u); err != nil || u.ID != id {
		return nil, fmt.Errorf("the description cannot be read: %w", err)
	}
	f, err := os.OpenFile(us.path(id, ".data"), os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return nil, err
	}
	u.Offset, u.UpdatedAt = info.Size(), terse.MillisOf(info.ModTime())
	return &u, nil
}

// NewUpload describes an upload.
type NewUpload struct {
	Filename, ContentType string
	// Encoding is gzip, zstd or "": what the bytes are compressed with. nil: what the
	// filename says.
	Encoding *string
	Size     int64 // bytes; -1: not known
	// Key names the creation, and Request says what it asks for: within 24 hours the same
	// key finds the same upload. "" for a creation that cannot be repeated.
	Key, Request string
}

// keyKept is how long a creation can be repeated.
const keyKept terse.Millis = 24 * 60 * 60 * 1000

// ErrOtherRequest: the key of an upload was used to ask for another one.
var ErrOtherRequest = &terse.Error{Code: terse.CodeInvalid, Reason: "idempotency_mismatch", Message: "the key was used for another upload"}

// Create begins an upload. Returns an error of code invalid, too_large or rate_limited, or
// ErrOtherRequest.
func (us *Uploads) Create(w terse.WorkspaceID, n NewUpload) (Upload, error) {
	filename, contentType, size := n.Filename, n.ContentType, n.Size
	encoding, _ := inflate.ByName(filename)
	known := true
	if n.Encoding != nil {
		encoding, known = inflate.ParseEncoding(*n.Encoding)
	}
	switch {
	case !known:
		return Upload{}, terse.Invalid("content_encoding", "is gzip or zstd, or absent")
	case len(filename) > 255 || strings.ContainsFunc(filename, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return Upload{}, terse.Invalid("filename", "is longer than 255 bytes or holds control characters")
	case len(contentType) > 255:
		return Upload{}, terse.Invalid("content_type", "is longer than 255 bytes")
	case size < -1:
		return Upload{}, terse.Invalid("size", "is negative")
	case size > us.max:
		return Upload{}, us.tooLarge("size")
	}
	now := us.clock()
	us.mu.Lock()
	count := 0
	var made *Upload
	for _, e := range us.list {
		if e.u.Workspace == w {
			count++
			if n.Key != "" && e.u.Key == n.Key && now-e.u.CreatedAt < keyKept {
				u := e.u
				made = &u
			}
		}
	}
	us.mu.Unlock()
	switch {
	case made != nil && made.Request != n.Request:
		return Upload{}, ErrOtherRequest
	case made != nil:
		return *made, nil
	case count >= maxUploads:
		return Upload{}, &terse.Error{Code: terse.CodeRateLimited, Reason: "too_many_uploads", Message: fmt.Sprintf("the workspace has %d uploads; delete some", count)}
	}
	u := Upload{
		ID: newUploadID(us.node, now), Workspace: w, Filename: filename, ContentType: contentType, Encoding: encoding, Size: size,
		CreatedAt: now, UpdatedAt: now, Key: n.Key, Request: n.Request,
	}
	b, err := json.Marshal(&u)
	if err != nil {
		return Upload{}, fmt.Errorf("write upload: %w", err)
	}
	// The data first: a description without data would be an upload that cannot go on.
	if err := writeDurably(us.path(u.ID, ".data"), nil); err != nil {
		return Upload{}, diskError(err)
	}
	if err := writeDurably(us.path(u.ID, ".json"), b); err != nil {
		return Upload{}, diskError(err)
	}
	failpoint.Hit(failpoint.UploadCreated)
	us.mu.Lock()
	us.list[u.ID] = &upload{u: u}
	us.mu.Unlock()
	return u, nil
}

func (us *Uploads) tooLarge(field string) error {
	return &terse.Error{Code: terse.CodeTooLarge, Field: field, Message: fmt.Sprintf("an upload has at most %d bytes", us.max)}
}

// diskError: the disk is full or broken; trying again later is right.
func diskError(err error) error {
	return &terse.Error{Code: terse.CodeUnavailable, Reason: "disk", Message: "the server cannot write to its disk", Err: err}
}

// writeDurably makes a file with a content, whole or not at all.
func writeDurably(path string, content []byte) error {
	f, err := os.OpenFile(path+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// find returns an upload of this node. Returns ErrNotFound, or *OtherNodeError.
func (us *Uploads) find(w terse.WorkspaceID, id string) (*upload, error) {
	e := us.list[id]
	if e == nil || e.gone || e.u.Workspace != w {
		if node := UploadOwner(id); node != "" && us.node != "" && node != us.node {
			return nil, &OtherNodeError{What: "upload", Node: node}
		}
		return nil, terse.ErrNotFound
	}
	return e, nil
}

// Get returns an upload. Returns ErrNotFound, or *OtherNodeError.
func (us *Uploads) Get(w terse.WorkspaceID, id string) (Upload, error) {
	us.mu.Lock()
	defer us.mu.Unlock()
	e, err := us.find(w, id)
	if err != nil {
		return Upload{}, err
	}
	return e.u, nil
}

// Append writes bytes at offset, which must be where the upload stands; what it returns is
// on disk. stop is called to end the reading of r when another request takes over: that
// of a client whose first connection hangs. An error of r is returned after what came
// before it was kept. Returns ErrNotFound, *OffsetError, an error of code too_large or
// conflict.
func (us *Uploads) Append(w terse.WorkspaceID, id string, offset int64, r io.Reader, stop func()) (Upload, error) {
	us.mu.Lock()
	e, err := us.find(w, id)
	if err == nil && e.stop != nil {
		e.stop()
	}
	us.mu.Unlock()
	if err != nil {
		return Upload{}, err
	}
	e.busy.Lock()
	defer e.busy.Unlock()
	us.mu.Lock()
	u, gone, sealed := e.u, e.gone, e.sealed
	if !gone {
		e.stop = stop
	}
	us.mu.Unlock()
	defer func() {
		us.mu.Lock()
		e.stop = nil
		us.mu.Unlock()
	}()
	switch {
	case gone:
		return Upload{}, terse.ErrNotFound
	case sealed:
		return u, &terse.Error{Code: terse.CodeConflict, Reason: "upload_in_use", Message: "a job was made from the upload: it takes no more bytes"}
	case offset != u.Offset:
		return u, &OffsetError{u.Offset}
	}
	f, err := os.OpenFile(us.path(id, ".data"), os.O_WRONLY, 0)
	if err != nil {
		return u, diskError(err)
	}
	limit := us.max
	if u.Size >= 0 {
		limit = u.Size
	}
	end, readErr, err := appendFile(f, offset, limit, r)
	err = errors.Join(err, f.Close())
	if err == nil {
		us.mu.Lock()
		e.u.Offset, e.u.UpdatedAt = end, us.clock()
		u = e.u
		us.mu.Unlock()
		return u, readErr
	}
	// After a failed write or sync nobody knows what is on disk: back to what was.
	if info, serr := os.Stat(us.path(id, ".data")); serr == nil && info.Size() > offset {
		err = errors.Join(err, os.Truncate(us.path(id, ".data"), offset))
	}
	return u, diskError(err)
}

// appendFile copies r to f from offset on and syncs. It returns the end of what is durable.
func appendFile(f *os.File, offset, limit int64, r io.Reader) (end int64, readErr, err error) {
	buf := make([]byte, 256<<10)
	unsynced := int64(0)
	for readErr == nil {
		var n int
		n, readErr = r.Read(buf)
		if offset+int64(n) > limit {
			// What is too much is a mistake of the sender: none of this block is kept.
			readErr = &terse.Error{Code: terse.CodeTooLarge, Reason: "upload_too_large", Message: fmt.Sprintf("an upload of at most %d bytes was announced or is allowed", limit)}
			n = 0
		}
		if n > 0 {
			if _, err := f.WriteAt(buf[:n], offset); err != nil {
				return 0, nil, err
			}
			offset += int64(n)
			if unsynced += int64(n); unsynced >= syncBytes {
				// Spreads the work of the last sync; nothing is acknowledged yet.
				if err := f.Sync(); err != nil {
					return 0, nil, err
				}
				unsynced = 0
			}
		}
	}
	failpoint.Hit(failpoint.UploadWritten)
	if err := f.Sync(); err != nil {
		return 0, nil, err
	}
	failpoint.Hit(failpoint.UploadSynced)
	if readErr == io.EOF {
		readErr = nil
	}
	return offset, readErr, nil
}

// seal gives the upload to a job: nothing is added from now on. Returns ErrNotFound, or an
// error of code conflict if bytes are missing.
func (us *Uploads) seal(w terse.WorkspaceID, id string) (Upload, error) {
	us.mu.Lock()
	e, err := us.find(w, id)
	us.mu.Unlock()
	if err != nil {
		return Upload{}, err
	}
	if !e.busy.TryLock() {
		return Upload{}, &terse.Error{Code: terse.CodeConflict, Reason: "upload_incomplete", Message: "the upload is being written to"}
	}
	defer e.busy.Unlock()
	us.mu.Lock()
	defer us.mu.Unlock()
	switch {
	case e.gone:
		return Upload{}, terse.ErrNotFound
	case !e.u.Complete():
		return Upload{}, &terse.Error{Code: terse.CodeConflict, Reason: "upload_incomplete", Message: fmt.Sprintf("%d of %d bytes were uploaded", e.u.Offset, e.u.Size)}
	case e.u.Offset == 0:
		return Upload{}, &terse.Error{Code: terse.CodeConflict, Reason: "upload_incomplete", Message: "nothing was uploaded"}
	}
	e.sealed = true
	return e.u, nil
}

// remove deletes an upload.
func (us *Uploads) remove(w terse.WorkspaceID, id string) error {
	us.mu.Lock()
	e, err := us.find(w, id)
	if err == nil {
		e.gone = true
		delete(us.list, id)
		if e.stop != nil {
			e.stop()
		}
	}
	us.mu.Unlock()
	if err != nil {
		return err
	}
	e.busy.Lock()
	defer e.busy.Unlock()
	if err := errors.Join(os.Remove(us.path(id, ".json")), os.Remove(us.path(id, ".data"))); err != nil {
		return diskError(err)
	}
	return nil
}

// open returns the bytes of an upload for a run, and what it is. Returns an error of code
// gone.
func (us *Uploads) open(w terse.WorkspaceID, id string) (*os.File, Upload, error) {
	us.mu.Lock()
	e, err := us.find(w, id)
	var u Upload
	if err == nil {
		u = e.u
	}
	us.mu.Unlock()
	if err != nil {
		return nil, u, &terse.Error{Code: terse.CodeGone, Reason: "upload_gone", Message: "the upload of the job is gone"}
	}
	f, err := os.Open(us.path(id, ".data"))
	return f, u, err
}

// all returns every upload.
func (us *Uploads) all() []Upload {
	us.mu.Lock()
	defer us.mu.Unlock()
	list := make([]Upload, 0, len(us.list))
	for _, e := range us.list {
		list = append(list, e.u)
	}
	return list
}
