package wire

import (
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/network/control"
)

// sockets are those that a helper had when it ended, by their protocol and what they are bound to.
type sockets map[string]*os.File

// takeSockets takes over what the helper has left with its keeper.
func takeSockets(stowed *os.File) (sockets, error) {
	if stowed == nil {
		return nil, nil
	}
	files, err := control.Stowed(stowed)
	if err != nil {
		return nil, fmt.Errorf("take the ports of the last helper over: %w", err)
	}
	stowed.Close()
	taken := sockets{}
	for _, file := range files {
		if key, err := boundTo(file); err == nil && taken[key] == nil {
			taken[key] = file
		} else {
			file.Close() // whose it was opens another
		}
	}
	return taken, nil
}

// boundTo is a socket's key.
func boundTo(file *os.File) (string, error) {
	kind, err := unix.GetsockoptInt(int(file.Fd()), unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return "", err
	}
	bound, err := unix.Getsockname(int(file.Fd()))
	if err != nil {
		return "", err
	}
	protocol := "tcp"
	if kind == unix.SOCK_DGRAM {
		protocol = "udp"
	}
	switch a := bound.(type) {
	case *unix.SockaddrInet4:
		return keyOf(protocol, netip.AddrFrom4(a.Addr), 0, uint16(a.Port)), nil
	case *unix.SockaddrInet6:
		return keyOf(protocol, netip.AddrFrom16(a.Addr), a.ZoneId, uint16(a.Port)), nil
	}
	return "", unix.EAFNOSUPPORT
}

func keyOf(protocol string, ip netip.Addr, link uint32, port uint16) string {
	return fmt.Sprintf("%s %s %d %d", protocol, ip, link, port)
}

// take takes one out, if it is there.
func (s sockets) take(protocol string, ip netip.Addr, port uint16) *os.File {
	key := keyOf(protocol, ip.WithZone(""), interfaceIndex(ip.Zone()), port)
	file := s[key]
	delete(s, key)
	return file
}

// close closes what nobody has taken.
func (s sockets) close() {
	for _, file := range s {
		file.Close()
	}
}
