package helper

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/network"
	"github.com/podsh/podsh/nsenter"
)

// sockets are made by a pod's Maker.
type sockets struct {
	maker  *nsenter.Maker
	polled bool        // waiting for it is left to Go's poller
	lost   atomic.Bool // it has ended
}

func newSockets(file *os.File) *sockets { return &sockets{maker: nsenter.NewMaker(file)} }

func (s *sockets) close() { _ = s.maker.Close() } // which is what ends it

// poll has Go's poller wait for the Maker from now on: new connections do, and a thread that waits in a system call holds
// up the relay's. Until ports are published podsh talks to the Maker as well, and waits for it in such a call.
func (s *sockets) poll() error {
	if s.polled {
		return nil
	}
	fd, err := unix.FcntlInt(s.maker.File().Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("copy a pod's Maker: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return fmt.Errorf("fcntl O_NONBLOCK on a pod's Maker: %w", err)
	}
	_ = s.maker.Close() // of this descriptor of two
	s.maker, s.polled = nsenter.NewMaker(os.NewFile(uintptr(fd), "maker")), true
	return nil
}

// errNoIPv6 says that this kernel has none.
var errNoIPv6 = errors.New("this kernel has no IPv6")

// Make makes sockets that may have any source address, and are marked: what answers them stays in the pod.
func (s *sockets) Make(family, kind, count int) ([]int, error) {
	level, transparent := unix.SOL_IP, unix.IP_TRANSPARENT
	if family == unix.AF_INET6 {
		level, transparent = unix.SOL_IPV6, unix.IPV6_TRANSPARENT
		if _, err := os.Stat("/proc/sys/net/ipv6"); err != nil {
			return nil, errNoIPv6 // a call that fails ends the Maker
		}
	}
	count = min(count, nsenter.MostPassed)
	one, mark := binary.NativeEndian.AppendUint32(nil, 1), binary.NativeEndian.AppendUint32(nil, network.ReplyMark)
	var calls []nsenter.Call
	var pass []nsenter.Result
	for range count {
		socket := nsenter.Result(len(calls))
		calls = append(calls,
			nsenter.Call{Nr: unix.SYS_SOCKET, Args: []any{family, kind | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK, 0}},
			nsenter.Call{Nr: unix.SYS_SETSOCKOPT, Args: []any{socket, level, transparent, one, 4}},
			nsenter.Call{Nr: unix.SYS_SETSOCKOPT, Args: []any{socket, unix.SOL_SOCKET, unix.SO_MARK, mark, 4}})
		pass = append(pass, socket)
	}
	fds, err := s.maker.Make(calls, pass...)
	if err != nil {
		s.lost.Store(true)
	}
	return fds, err
}
