package control

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Descriptors that were sent over a socket and that nobody has received yet stay open as long as that socket does. So a
// pair whose receiving end somebody else has as well keeps them over the end of the process whose they are.

// StowAll replaces what lies in a pair by these descriptors. A user may have as many under way as one process may have
// open, unix(7): the others are not kept.
func StowAll(in, out *os.File, fds []int) error {
	for {
		kept, err := takeStowed(out)
		Close(kept)
		if err == unix.EAGAIN {
			break
		}
		if err != nil {
			return err
		}
	}
	for ; len(fds) > 0; fds = fds[min(MostSockets, len(fds)):] {
		rights := unix.UnixRights(fds[:min(MostSockets, len(fds))]...)
		switch err := unix.Sendmsg(int(in.Fd()), []byte{last}, rights, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT); err {
		case nil:
		case unix.ETOOMANYREFS, unix.EAGAIN:
			return nil
		default:
			return fmt.Errorf("sendmsg: %w", err)
		}
	}
	return nil
}

// Stowed takes out what lies in a pair.
func Stowed(out *os.File) (files []*os.File, err error) {
	for {
		more, err := takeStowed(out)
		files = append(files, more...)
		if err == unix.EAGAIN {
			return files, nil
		}
		if err != nil {
			Close(files)
			return nil, err
		}
	}
}

func takeStowed(out *os.File) ([]*os.File, error) {
	control := make([]byte, unix.CmsgSpace(4*MostSockets))
	n, oob, _, _, err := unix.Recvmsg(int(out.Fd()), make([]byte, 1), control, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
	if err == nil && n == 0 {
		err = unix.EAGAIN // nobody can send any more: that is all there was
	}
	if err != nil {
		return nil, err
	}
	return received(control[:oob])
}
