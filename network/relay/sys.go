package relay

import (
	"encoding/binary"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls of the data path never block, so they need not tell the Go scheduler: RawSyscall.

const no = syscall.Errno(0)

func call(trap, fd uintptr, data unsafe.Pointer, size, flags uintptr) (int, syscall.Errno) {
	for {
		n, _, errno := unix.RawSyscall6(trap, fd, uintptr(data), size, flags, 0, 0)
		if errno != unix.EINTR {
			return int(n), errno
		}
	}
}

func recv(fd int, p []byte) (int, syscall.Errno) {
	return call(unix.SYS_RECVFROM, uintptr(fd), unsafe.Pointer(unsafe.SliceData(p)), uintptr(len(p)), 0)
}

func send(fd int, p []byte, urgent bool) (int, syscall.Errno) {
	flags := uintptr(unix.MSG_NOSIGNAL)
	if urgent {
		flags |= unix.MSG_OOB
	}
	return call(unix.SYS_SENDTO, uintptr(fd), unsafe.Pointer(unsafe.SliceData(p)), uintptr(len(p)), flags)
}

// atMark says whether urgent data is what is read next: sockatmark(3).
func atMark(fd int) bool { return ask(fd, unix.SIOCATMARK) > 0 }

// unsent is how much the peer has not acknowledged yet: tcp(7). What can't be known is not nothing.
func unsent(fd int) int { return ask(fd, unix.SIOCOUTQ) }

func ask(fd int, what uintptr) int {
	var answer int32
	if _, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(fd), what, uintptr(unsafe.Pointer(&answer))); errno != no {
		return -1
	}
	return int(answer)
}

func recvmsg(fd int, m *unix.Msghdr) (int, syscall.Errno) {
	return call(unix.SYS_RECVMSG, uintptr(fd), unsafe.Pointer(m), 0, 0)
}

func sendmsg(fd int, m *unix.Msghdr) (int, syscall.Errno) {
	return call(unix.SYS_SENDMSG, uintptr(fd), unsafe.Pointer(m), unix.MSG_NOSIGNAL, 0)
}

func splice(from, to, size int) (int, syscall.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(size),
		unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
	return int(n), errno
}

func bind(fd int, a *sockaddr) syscall.Errno {
	_, errno := call(unix.SYS_BIND, uintptr(fd), unsafe.Pointer(&a.raw), uintptr(a.size), 0)
	return errno
}

func connect(fd int, a *sockaddr) syscall.Errno {
	_, errno := call(unix.SYS_CONNECT, uintptr(fd), unsafe.Pointer(&a.raw), uintptr(a.size), 0)
	return errno
}

// dissolve takes a UDP socket's associations back.
func dissolve(fd int) syscall.Errno {
	var unspecified sockaddr // AF_UNSPEC is 0
	unspecified.size = unix.SizeofSockaddrInet4
	return connect(fd, &unspecified)
}

func accept4(fd int, from *sockaddr) (int, syscall.Errno) {
	from.size = uint32(len(from.raw))
	n, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(fd), uintptr(unsafe.Pointer(&from.raw)),
		uintptr(unsafe.Pointer(&from.size)), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	return int(n), errno
}

// reset closes a TCP socket so that the peer sees an error, not an end: SO_LINGER in socket(7).
func reset(fd int) {
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	unix.Close(fd)
}

// sockaddr is a struct sockaddr_in or sockaddr_in6.
type sockaddr struct {
	raw  [unix.SizeofSockaddrInet6]byte
	size uint32
}

func (s *sockaddr) set(a netip.AddrPort) {
	*s = sockaddr{}
	binary.BigEndian.PutUint16(s.raw[2:], a.Port())
	if a.Addr().Is4() {
		s.size = unix.SizeofSockaddrInet4
		binary.NativeEndian.PutUint16(s.raw[:], unix.AF_INET)
		ip := a.Addr().As4()
		copy(s.raw[4:], ip[:])
		return
	}
	s.size = unix.SizeofSockaddrInet6
	binary.NativeEndian.PutUint16(s.raw[:], unix.AF_INET6)
	ip := a.Addr().As16()
	copy(s.raw[8:], ip[:])
}

// get returns the address, IPv4 as such even if it was mapped into IPv6, and no scope.
func (s *sockaddr) get() netip.AddrPort {
	port := binary.BigEndian.Uint16(s.raw[2:])
	if binary.NativeEndian.Uint16(s.raw[:]) == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(s.raw[4:8])), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte(s.raw[8:24])).Unmap(), port)
}

// scope is the link of a link-local address.
func (s *sockaddr) scope() uint32 { return binary.NativeEndian.Uint32(s.raw[24:]) }

func familyOf(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
