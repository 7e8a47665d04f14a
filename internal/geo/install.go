package geo

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Previous is what Install appends to the name of the file it replaces.
const Previous = ".previous"

// InstallOptions say which database comes to which place.
type InstallOptions struct {
	Kind     Kind
	Path     string // the file that the server reads; it need not exist
	MaxBytes int64  // of what is fetched and of the database; 0: the limit of a server
	// Fetch writes the new database: as it is, compressed with gzip, or in a tar archive.
	Fetch func(ctx context.Context, w io.Writer) error
	// SHA256 of what is fetched, in hexadecimal; "" is not checked.
	SHA256 string
	DryRun bool              // everything but the replacement
	Step   func(text string) // told before each step; nil: nobody looks
}

// Installed is what Install found and did.
type Installed struct {
	New, Old  Info
	HadOld    bool  // there was a file
	OldErr    error // why the file before could not be read, if so
	Unchanged bool  // the file is there already, byte for byte
	Previous  string
}

// Install puts a new database where a server reads it. It is checked whole before, as the server
// will, and is not smaller than half of the one in place; the file is replaced by a rename, so a
// server, which looks every minute, sees the old or the new one and never a part. The file before is kept
// beside it, if it was whole. The new one has the mode, owner and group of the old one, so that who could read it still can.
// On an error without a result the file in place is what it was.
//
// Files beside Path, of its name with .download and .new, are its scratch space (of a dry run elsewhere, if there is no folder). One Install
// at a time works on a path; a second one is an error.
func Install(ctx context.Context, o InstallOptions) (*Installed, error) {
	if o.MaxBytes <= 0 {
		o.MaxBytes = MaxBytes
	}
	step := func(text string) {
		if o.Step != nil {
			o.Step(text)
		}
	}
	path, err := resolve(o.Path)
	if err != nil {
		return nil, err
	}
	folder := filepath.Dir(path) // of the scratch files
	if _, err := os.Stat(folder); errors.Is(err, fs.ErrNotExist) {
		if o.DryRun { // it makes no folder
			if folder, err = os.MkdirTemp("", "terse-geo-"); err != nil {
				return nil, err
			}
			defer func() { _ = os.RemoveAll(folder) }() // only scratch
		} else if err := makeFolder(folder); err != nil {
			return nil, err
		}
	}
	scratch := filepath.Join(folder, filepath.Base(path)+".download")
	next := filepath.Join(folder, filepath.Base(path)+".new")
	raw, err := lockFile(scratch)
	if err != nil {
		return nil, err
	}
	// The names go while the lock is held: after it they may be those of another Install.
	defer func() { _ = raw.Close() }() // only scratch; it holds the lock
	defer func() { _, _ = os.Remove(next), os.Remove(scratch) }()

	sum := sha256.New()
	if err := o.Fetch(ctx, &limitedWriter{w: io.MultiWriter(raw, sum), left: o.MaxBytes}); err != nil {
		return nil, err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); o.SHA256 != "" && !strings.EqualFold(got, o.SHA256) {
		return nil, fmt.Errorf("its SHA-256 is %s, not %s", got, strings.ToLower(o.SHA256))
	}
	step("checking")
	if err := unpack(raw, next, o.MaxBytes); err != nil {
		return nil, err
	}
	r := &Installed{}
	if r.New, err = Inspect(next, o.Kind, o.MaxBytes); err != nil {
		return nil, err
	}
	if _, err := os.Stat(path); err == nil {
		r.HadOld = true
		r.Old, r.OldErr = Inspect(path, o.Kind, o.MaxBytes)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if r.HadOld && r.OldErr == nil && halved(r.New.Nodes, r.Old.Nodes) {
		return nil, fmt.Errorf("it has %d nodes where the one in place has %d: half of it is missing, and a running server would refuse it. If that is right, remove the file in place before, and start the server again after", r.New.Nodes, r.Old.Nodes)
	}
	if r.Unchanged, err = sameContent(path, next, r); err != nil {
		return nil, err
	}
	if r.Unchanged {
		return r, nil
	}
	if err := own(next, path); err != nil {
		return nil, err
	}
	if o.DryRun {
		return r, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	step("putting it in place")
	if err := replace(path, next, r); err != nil {
		return nil, err
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return r, fmt.Errorf("it is in place, but the folder could not be synced: %w", err)
	}
	return r, nil
}

// replace puts next in the place of path and keeps what was there.
func replace(path, next string, r *Installed) error {
	if r.HadOld && r.OldErr == nil { // else the one kept before is worth more
		r.Previous = path + Previous
		if err := keep(path, r.Previous); err != nil {
			return fmt.Errorf("keep the file before: %w", err)
		}
	}
	return os.Rename(next, path)
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// keep gives a file a second name, or copies it where a file system has no links.
func keep(path, as string) error {
	if err := os.Remove(as); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if os.Link(path, as) == nil {
		return nil
	}
	from, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }() // only read
	if err := writeFile(as, from); err != nil {
		return err
	}
	return own(as, path)
}

// writeFile writes a file and syncs it.
func writeFile(path string, r io.Reader) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// lockFile opens an empty scratch file and locks it until it is closed.
func lockFile(path string) (*os.File, error) {
	for range 10 {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			return nil, errors.Join(fmt.Errorf("another update of the file is running (%s is locked)", path), f.Close())
		}
		// The one before may have removed the name between opening and locking.
		mine, err1 := f.Stat()
		named, err2 := os.Stat(path)
		if err1 == nil && err2 == nil && os.SameFile(mine, named) {
			return f, f.Truncate(0)
		}
		if err := f.Close(); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%s appears and disappears", path)
}

// unpack writes the database in a file as it was fetched to path.
func unpack(raw *os.File, path string, maxBytes int64) error {
	if _, err := raw.Seek(0, io.SeekStart); err != nil {
		return err
	}
	r := bufio.NewReader(raw)
	switch head, _ := r.Peek(4); {
	case bytes.HasPrefix(head, []byte("PK\x03\x04")):
		return errors.New("it is a zip archive: unpack it and give the .mmdb file in it")
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(r)
		if err != nil {
			return fmt.Errorf("unpack it: %w", err)
		}
		// An archive holds a licence, too.
		r = bufio.NewReader(&limitedReader{r: z, left: maxBytes + 1<<20})
	}
	database := io.Reader(r)
	if head, _ := r.Peek(262); len(head) == 262 && string(head[257:]) == "ustar" {
		archive := tar.NewReader(r)
		for {
			h, err := archive.Next()
			if err == io.EOF {
				return errors.New("it is an archive without a .mmdb file")
			}
			if err != nil {
				return fmt.Errorf("unpack it: %w", err)
			}
			if h.Typeflag == tar.TypeReg && strings.HasSuffix(h.Name, ".mmdb") {
				break
			}
		}
		database = archive
	}
	if err := writeFile(path, database); err != nil {
		return fmt.Errorf("unpack it: %w", err)
	}
	return nil
}

// sameContent reports whether the file in place is the new one.
func sameContent(path, next string, r *Installed) (bool, error) {
	if !r.HadOld || r.OldErr != nil || r.Old.Bytes != r.New.Bytes {
		return false, nil
	}
	var sums [2][]byte
	for i, p := range []string{path, next} {
		f, err := os.Open(p)
		if err != nil {
			return false, err
		}
		h := sha256.New()
		_, err = io.Copy(h, f)
		if err := errors.Join(err, f.Close()); err != nil {
			return false, err
		}
		sums[i] = h.Sum(nil)
	}
	return bytes.Equal(sums[0], sums[1]), nil
}

var errTooLarge = errors.New("it is larger than the limit")

type limitedWriter struct {
	w    io.Writer
	left int64
}

func (l *limitedWriter) Write(p []byte) (int, error) {
	if l.left -= int64(len(p)); l.left < 0 {
		return 0, errTooLarge
	}
	return l.w.Write(p)
}

type limitedReader struct {
	r    io.Reader
	left int64
}

func (l *limitedReader) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if l.left -= int64(n); l.left < 0 {
		return 0, errTooLarge
	}
	return n, err
}
