package geo

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// resolve returns the file itself for a link to it: replaced by a rename, a link would become a file.
func resolve(path string) (string, error) {
	file, err := filepath.EvalSymlinks(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return file, err
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == fs.ModeSymlink {
		return "", fmt.Errorf("%s is a link to a file that does not exist: remove the link, or make it lead to a file", path)
	}
	return path, nil
}

// own gives a file that is to take the place of path the mode and owner that it needs there: those of the file in place. Without one
// everybody may read it, and what root makes belongs to whom the folder belongs to.
func own(next, path string) error {
	old, err := os.Stat(path)
	if err == nil {
		if err := give(next, old); err != nil {
			return err
		}
		return os.Chmod(next, old.Mode().Perm()) // last: a change of the owner may take bits away
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if folder, err := os.Stat(filepath.Dir(path)); err == nil && os.Geteuid() == 0 {
		_ = give(next, folder) // where that cannot be, it is readable all the same
	}
	return os.Chmod(next, 0o644) // the data are public, and the server may be another user
}

// give makes a file belong to whom another belongs to.
func give(path string, like fs.FileInfo) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	has, ok1 := info.Sys().(*syscall.Stat_t)
	want, ok2 := like.Sys().(*syscall.Stat_t)
	if !ok1 || !ok2 || has.Uid == want.Uid && has.Gid == want.Gid {
		return nil
	}
	if err := os.Chown(path, int(want.Uid), int(want.Gid)); err != nil {
		return fmt.Errorf("the file in place belongs to the user %d and the group %d, and the new one cannot be given to them: run this as that user or as root, or change the owner of the file in place before: %w", want.Uid, want.Gid, err)
	}
	return nil
}

// makeFolder makes a folder and those above it. What root makes belongs to whom the first one that is there belongs to.
func makeFolder(path string) error {
	var made []string
	at := path
	info, err := os.Stat(at)
	for errors.Is(err, fs.ErrNotExist) && filepath.Dir(at) != at {
		made = append(made, at)
		at = filepath.Dir(at)
		info, err = os.Stat(at)
	}
	if err != nil {
		return err
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		for _, folder := range made {
			_ = give(folder, info) // everybody may look into it all the same
		}
	}
	return nil
}
