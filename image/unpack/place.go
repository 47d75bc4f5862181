package unpack

import (
	"archive/tar"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// place is asked by Apply about each entry once its place in the root is known and has its parents. It tells
// whether Apply is to write it.
func (u *unpacking) place(h *tar.Header, place string) (bool, error) {
	base := filepath.Base(place)
	switch {
	case base == opaque:
		return false, u.setOpaque(path.Dir(h.Name))
	case strings.HasPrefix(base, whiteoutPrefix):
		return false, u.white.add(h.Name)
	case h.Typeflag == tar.TypeLink:
		return false, u.link(h, place)
	case u.sparse.next:
		return true, u.writeSparse(h)
	}
	return true, nil
}

// link makes a hard link. Apply would give the inode owner, mode and times once more, and a chown(2) takes the
// capabilities away, which only the first entry of the inode may have.
func (u *unpacking) link(h *tar.Header, place string) error {
	target := path.Clean("/" + h.Linkname)
	dir, err := u.openDir(path.Dir(target))
	if err != nil {
		return &os.LinkError{Op: "link", Old: h.Linkname, New: h.Name, Err: err}
	}
	defer func() { _ = unix.Close(dir) }()

	var from, to unix.Stat_t
	err = unix.Fstatat(dir, path.Base(target), &from, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return &os.LinkError{Op: "link", Old: h.Linkname, New: h.Name, Err: err}
	}
	if unix.Lstat(place, &to) == nil {
		if from.Dev == to.Dev && from.Ino == to.Ino {
			return nil
		}
		if err := os.RemoveAll(place); err != nil {
			return err
		}
	}
	// Without AT_SYMLINK_FOLLOW a link to a symlink is one to the symlink itself, linkat(2).
	if err := unix.Linkat(dir, path.Base(target), unix.AT_FDCWD, place, 0); err != nil {
		return &os.LinkError{Op: "link", Old: h.Linkname, New: h.Name, Err: err}
	}
	return nil
}

// openDir opens a directory of the root, to look up names in it.
func (u *unpacking) openDir(name string) (int, error) {
	return u.open(name, unix.O_PATH|unix.O_DIRECTORY)
}

// open opens what name is when the root is taken for "/", as symlinks on the way take it.
func (u *unpacking) open(name string, flags uint64) (int, error) {
	return unix.Openat2(u.rootFD, path.Clean("/"+name), &unix.OpenHow{
		Flags:   flags | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
}
