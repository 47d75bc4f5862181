package unpack

import (
	"archive/tar"
	"os"
	"path"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// parent is the directory that the last file was written into. It is forgotten at any entry but a file that is
// new: only those can't change what its name leads to.
type parent struct {
	name string
	fd   int
}

func (u *unpacking) forgetParent() {
	if u.parent.name != "" {
		_ = unix.Close(u.parent.fd)
		u.parent = parent{}
	}
}

// writeFile writes a regular file, if there is nothing yet by its name, and its parent is there. It does what
// Apply does, but Apply looks up each part of each name twice, which in deep folders takes longer than the rest.
func (u *unpacking) writeFile(h *tar.Header) (done bool, err error) {
	name := path.Clean("/" + h.Name)
	base := path.Base(name)
	if h.Typeflag != tar.TypeReg || u.sparse.next || strings.HasPrefix(base, whiteoutPrefix) {
		u.forgetParent()
		return false, nil
	}
	if dir := path.Dir(name); dir != u.parent.name {
		u.forgetParent()
		fd, err := u.openDir(dir)
		if err != nil {
			return false, nil // Apply makes it, or knows why not
		}
		u.parent = parent{dir, fd}
	}
	fd, err := unix.Openat(u.parent.fd, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		u.forgetParent()
		return false, nil
	}
	op, err := u.fill(fd, h)
	if closed := unix.Close(fd); err == nil {
		op, err = "close", closed
	}
	if err != nil {
		return false, &os.PathError{Op: op, Path: h.Name, Err: err}
	}
	return true, nil
}

// fill gives a new file what the entry says, and tells what it was at when an error came.
func (u *unpacking) fill(fd int, h *tar.Header) (string, error) {
	if err := u.stream.writeTo(fd, h.Size); err != nil {
		return "write", err
	}
	// Before the mode and the capabilities, which it may take away: chown(2).
	if err := unix.Fchown(fd, h.Uid, h.Gid); err != nil {
		return "lchown", err
	}
	for name, value := range keptXattrs(h) {
		if err := unix.Fsetxattr(fd, name, []byte(value), 0); err != nil {
			return "setxattr " + name + " of", err
		}
	}
	if err := unix.Fchmod(fd, uint32(h.Mode)&0o7777); err != nil {
		return "chmod", err
	}
	access := h.AccessTime
	if access.Before(h.ModTime) {
		access = h.ModTime
	}
	return "set times of", setTimes(fd, access, h.ModTime)
}

// setTimes is futimens(3), which is utimensat(2) without a path.
func setTimes(fd int, access, modified time.Time) error {
	times := [2]unix.Timespec{timespec(access), timespec(modified)}
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&times)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// timespec takes what lies before 1970 for 1970, as Apply does.
func timespec(t time.Time) unix.Timespec {
	ts, err := unix.TimeToTimespec(t)
	if err != nil || ts.Sec < 0 {
		return unix.Timespec{}
	}
	return ts
}
