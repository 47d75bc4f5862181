package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// removeAll is os.RemoveAll for what somebody in a pod has filled. That one has all folders open on the way to where it is,
// and a pod can make more of them, one in the other, than anybody may have open.
func removeAll(dir string) error {
	err := os.RemoveAll(dir)
	if !errors.Is(err, unix.EMFILE) && !errors.Is(err, unix.ENFILE) {
		return err
	}
	top, err := openToRemove(unix.AT_FDCWD, dir)
	if err != nil {
		return &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	defer top.Close()
	if err := (&flattening{top: top}).all(); err != nil {
		return fmt.Errorf("remove %s: %w", dir, err)
	}
	return os.Remove(dir)
}

// flattening empties a folder: what lies deeper than two folders down is moved up first. So two are open at a time, however
// deep it was.
type flattening struct {
	top   *os.File
	moved int
}

func (f *flattening) all() error {
	for {
		if _, err := f.top.Seek(0, 0); err != nil {
			return err
		}
		names, err := f.top.Readdirnames(-1)
		if err != nil || len(names) == 0 {
			return err
		}
		for _, name := range names {
			if err := f.remove(name); err != nil {
				return err
			}
		}
	}
}

// remove removes what is called so in the top folder; what it has below is there afterwards, if need be.
func (f *flattening) remove(name string) error {
	top := int(f.top.Fd())
	if gone, err := unlinked(top, name); gone || err != nil {
		return err
	}
	folder, err := openToRemove(top, name)
	if err != nil {
		return err
	}
	defer folder.Close()
	names, err := folder.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, below := range names {
		gone, err := unlinked(int(folder.Fd()), below)
		if err == nil && !gone {
			err = f.moveUp(folder, below)
		}
		if err != nil {
			return err
		}
	}
	_, err = unlinked(top, name) // what somebody adds meanwhile is found when the names are read once more
	return err
}

// moveUp moves a folder to the top, under a name that is free.
func (f *flattening) moveUp(from *os.File, name string) error {
	for {
		f.moved++
		to := ".podsh-" + strconv.Itoa(f.moved)
		err := unix.Renameat2(int(from.Fd()), name, int(f.top.Fd()), to, unix.RENAME_NOREPLACE)
		if errors.Is(err, unix.EEXIST) {
			continue
		}
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		if err != nil {
			return &fs.PathError{Op: "rename", Path: filepath.Join(from.Name(), name), Err: err}
		}
		return nil
	}
}

// unlinked removes a file or an empty folder; false: it is a folder that has something in it.
func unlinked(folder int, name string) (bool, error) {
	err := unix.Unlinkat(folder, name, 0)
	if errors.Is(err, unix.EISDIR) {
		err = unix.Unlinkat(folder, name, unix.AT_REMOVEDIR)
	}
	switch {
	case err == nil, errors.Is(err, unix.ENOENT):
		return true, nil
	case errors.Is(err, unix.ENOTEMPTY), errors.Is(err, unix.EEXIST):
		return false, nil
	}
	return false, &fs.PathError{Op: "unlink", Path: name, Err: err}
}

// openToRemove opens a folder, and no link to one.
func openToRemove(at int, name string) (*os.File, error) {
	fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}
