package files

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Lock locks a file, flock(2), as long as it is open; a signal does not keep it from that.
func Lock(f *os.File, how int) error {
	for {
		switch err := unix.Flock(int(f.Fd()), how); err {
		case nil:
			return nil
		case unix.EINTR:
		default:
			return fmt.Errorf("flock %s: %w", f.Name(), err)
		}
	}
}

// LockFolder opens a folder and locks it.
func LockFolder(dir string, how int) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := Lock(f, how); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
