package tarcopy

import (
	"errors"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// The longest name of an entry. The kernel takes no longer path (PATH_MAX, path_resolution(7)), so nobody
// could use the copy; and it bounds how deep a hostile tree can lead us.
const maxName = 4096

// openAt opens one component below a folder. It never follows a link, and does not wait for the other end
// of a FIFO that has taken a file's place: open(2), O_NONBLOCK.
func openAt(parent *os.File, name string, flags int, perm uint32) (*os.File, error) {
	flags |= unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY
	for {
		fd, err := unix.Openat(int(parent.Fd()), name, flags, perm)
		if err == unix.EINTR { // a file system in user space may say so: signal(7)
			continue
		}
		if err != nil {
			return nil, err
		}
		return os.NewFile(uintptr(fd), name), nil
	}
}

// openBelow opens a folder below another, by a name without links: one on the way is an error.
func openBelow(base *os.File, name string, flags uint64) (*os.File, error) {
	how := unix.OpenHow{Flags: flags | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := -1, error(unix.EINTR)
	for errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) { // something else was moved meanwhile: openat2(2)
		fd, err = unix.Openat2(int(base.Fd()), name, &how)
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// statAt looks at one component below a folder, at a link itself rather than at its target.
func statAt(parent *os.File, name string) (unix.Stat_t, error) {
	var st unix.Stat_t
	err := unix.Fstatat(int(parent.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	return st, err
}

// readlinkAt reads the link name below a folder.
func readlinkAt(parent *os.File, name string) (string, error) {
	buf := make([]byte, maxName) // the kernel keeps no longer target: symlink(2)
	n, err := unix.Readlinkat(int(parent.Fd()), name, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// vanished says whether an error means that what had been seen is gone, or is something else by now.
func vanished(err error) bool {
	for _, gone := range []unix.Errno{unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.EINVAL, unix.ENXIO, unix.ESTALE} {
		if errors.Is(err, gone) {
			return true
		}
	}
	return false
}

// call words a system call's error: the call, its object, and why.
func call(verb, name string, err error) error {
	if err == nil {
		return nil
	}
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	return &fs.PathError{Op: verb, Path: strconv.Quote(name), Err: err}
}
