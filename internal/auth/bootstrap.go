package auth

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/terselink/terse"
)

// OwnerFile is the file in the data folder that keeps the owner key for the local
// command line. Mode 0600.
const OwnerFile = "owner.key"

// metaOwner names the document with the owner key's hash.
const metaOwner = "owner_key"

// BootstrapOptions configures Bootstrap.
type BootstrapOptions struct {
	Store terse.Store
	Clock func() terse.Millis
	Dir   string // the data folder, which exists; "" keeps no file
	Key   string // TERSE_BOOTSTRAP_KEY: the owner key to use, 32 to 128 printable ASCII characters; "" keeps or makes one
}

// owner is the stored form of the owner key.
type owner struct {
	Hash []byte `json:"hash"`
}

// Bootstrap makes what an empty instance needs: the workspace "default" and the
// owner key. It is safe to repeat and to interrupt.
//
// A key given in o.Key becomes the owner key at every start, replacing another
// one. Otherwise an existing key stays, and without one a key is generated.
//
// ownerKey is the owner key if it is known: given, generated, or read from the
// data folder. created says that this call generated it, so it should be shown,
// once. Returns an error of code invalid if o.Key is not acceptable.
func Bootstrap(ctx context.Context, o BootstrapOptions) (ownerKey string, created bool, err error) {
	if o.Key != "" {
		if err := checkOwnerKey(o.Key); err != nil {
			return "", false, err
		}
	}
	if err := ensureDefaultWorkspace(ctx, o); err != nil {
		return "", false, fmt.Errorf("bootstrap: %w", err)
	}
	ownerKey, created, err = ensureOwner(ctx, o)
	if errors.Is(err, terse.ErrExists) || errors.Is(err, terse.ErrVersion) { // another node was first
		ownerKey, created, err = ensureOwner(ctx, o)
	}
	if err != nil {
		return "", false, fmt.Errorf("bootstrap: %w", err)
	}
	return ownerKey, created, nil
}

func checkOwnerKey(k string) error {
	bad := len(k) < 32 || len(k) > 128
	for i := range len(k) {
		bad = bad || k[i] <= ' ' || k[i] > '~'
	}
	if bad {
		return terse.Invalid("bootstrap_key", "the key must have 32 to 128 printable ASCII characters and no spaces")
	}
	return nil
}

func ensureDefaultWorkspace(ctx context.Context, o BootstrapOptions) error {
	w := terse.Workspace{ID: DefaultWorkspace, Name: "default", CreatedAt: o.Clock()}
	doc, err := document(0, terse.KindWorkspace, w.ID.String(), 1, &w)
	if err != nil {
		return err
	}
	if err := o.Store.PutDocument(ctx, doc); err != nil && !errors.Is(err, terse.ErrExists) {
		return fmt.Errorf("make default workspace: %w", err)
	}
	return nil
}

// ensureOwner settles the owner key. The file is written before the document: a
// crash between the two leaves a key that the next start takes up, where the other
// order would leave a hash whose key nobody knows.
func ensureOwner(ctx context.Context, o BootstrapOptions) (key string, created bool, err error) {
	inFile, err := readOwnerFile(o.Dir)
	if err != nil {
		return "", false, err
	}
	hash, version, err := loadOwner(ctx, o.Store)
	known := err == nil
	if err != nil && !errors.Is(err, terse.ErrNotFound) {
		return "", false, err
	}
	switch {
	case o.Key != "":
		key = o.Key
	case known && inFile != "" && sha256.Sum256([]byte(inFile)) == hash:
		return inFile, false, nil
	case known:
		return "", false, nil // only the hash is known: whoever has the key goes on using it
	case inFile != "":
		key, created = inFile, true
	default:
		key, _ = newToken()
		created = true
	}
	if key != inFile {
		if err := writeOwnerFile(o.Dir, key); err != nil {
			return "", false, err
		}
	}
	sum := sha256.Sum256([]byte(key))
	if known && sum == hash {
		return key, created, nil
	}
	doc, err := document(0, terse.KindMeta, metaOwner, version+1, &owner{Hash: sum[:]})
	if err != nil {
		return "", false, err
	}
	err = o.Store.PutDocument(ctx, doc)
	if errors.Is(err, terse.ErrExists) && o.Key == "" {
		// Another process was first. If it read the same file, whose key then is the owner's, the file stays.
		if hash, _, loadErr := loadOwner(ctx, o.Store); loadErr != nil {
			err = errors.Join(err, loadErr)
		} else if hash != sum {
			err = errors.Join(err, removeOwnerFile(o.Dir)) // it opens nothing
		}
	}
	if err != nil {
		return "", false, fmt.Errorf("store owner key: %w", err)
	}
	return key, created, nil
}

func loadOwner(ctx context.Context, s terse.Store) (hash [sha256.Size]byte, version uint64, err error) {
	doc, err := s.GetDocument(ctx, 0, terse.KindMeta, metaOwner)
	if err != nil {
		return hash, 0, fmt.Errorf("load owner key: %w", err)
	}
	var ow owner
	if err := decode(doc, &ow); err != nil {
		return hash, 0, err
	}
	if len(ow.Hash) != len(hash) {
		return hash, 0, errors.New("load owner key: the stored hash is damaged")
	}
	return [sha256.Size]byte(ow.Hash), doc.Version, nil
}

// readOwnerFile returns the key in the data folder, "" if there is none. A file that
// others may read is closed to them.
func readOwnerFile(dir string) (string, error) {
	if dir == "" {
		return "", nil
	}
	path := filepath.Join(dir, OwnerFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read owner key: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return "", fmt.Errorf("protect owner key: %w", err)
	}
	key := string(bytes.TrimSpace(b))
	if checkOwnerKey(key) != nil {
		return "", nil // damaged or empty: as if it were not there
	}
	return key, nil
}

// writeOwnerFile replaces the file by rename: after a crash it holds the old key or
// the new one, whole.
func writeOwnerFile(dir, key string) error {
	if dir == "" {
		return nil
	}
	f, err := os.CreateTemp(dir, OwnerFile+".tmp-*") // made with mode 0600
	if err != nil {
		return fmt.Errorf("write owner key: %w", err)
	}
	_, err = f.WriteString(key + "\n")
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, OwnerFile))
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("write owner key: %w", err)
	}
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("write owner key: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("write owner key: %w", err)
	}
	return nil
}

// removeOwnerFile removes the file if it is there.
func removeOwnerFile(dir string) error {
	if dir == "" {
		return nil
	}
	if err := os.Remove(filepath.Join(dir, OwnerFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove owner key: %w", err)
	}
	return nil
}
