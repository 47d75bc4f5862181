package proc

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ListenAs makes a socket in a folder. A path of any length will do: it is looked up below a descriptor.
func ListenAs(dir, name string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	listener := os.NewFile(uintptr(fd), name)
	err = atSocket(dir, name, func(address *unix.SockaddrUnix) error { return unix.Bind(fd, address) })
	if err == nil {
		err = unix.Listen(fd, unix.SOMAXCONN)
	}
	if err != nil {
		listener.Close()
		return nil, fmt.Errorf("bind %s: %w", filepath.Join(dir, name), err)
	}
	return listener, nil
}

func atSocket(dir, name string, do func(*unix.SockaddrUnix) error) error {
	folder, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(folder)
	return do(&unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/%s", folder, name)})
}

// DialAs connects to a socket in a folder.
func DialAs(dir, name string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	conn := os.NewFile(uintptr(fd), name)
	if err := atSocket(dir, name, func(address *unix.SockaddrUnix) error { return unix.Connect(fd, address) }); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// NotThere says whether dialAs found nobody.
func NotThere(err error) bool {
	return errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist)
}

// Stream makes the two ends of a stream.
func Stream() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "stream"), os.NewFile(uintptr(fds[1]), "stream"), nil
}
