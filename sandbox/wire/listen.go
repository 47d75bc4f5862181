package wire

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/network"
	"github.com/podsh/podsh/network/control"
	"github.com/podsh/podsh/sandbox/fault"
)

// Listening is a published port with its sockets on the host.
type Listening struct {
	Port    network.Port // with the number that it got
	Sockets []*os.File
	stowed  sockets // that are open already
	Both    bool    // a socket of IPv6 is for IPv4 as well
}

// OpenOne opens one socket, for both families where no address is named: as systemd does, for programs that take only one.
func (l *Listening) OpenOne() error {
	if !l.Both {
		return l.open(l.Port.HostIP, l.Port.HostPort)
	}
	err := l.open(netip.IPv6Unspecified(), l.Port.HostPort)
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL) { // no IPv6 here
		return l.open(netip.IPv4Unspecified(), l.Port.HostPort)
	}
	return err
}

func (l *Listening) close() {
	for _, socket := range l.Sockets {
		socket.Close()
	}
}

// listenAll opens the host's end of ports: all, or none.
func listenAll(ports []network.Port, stowed sockets) (all []*Listening, err error) {
	for _, port := range ports {
		l, err := listen(port, stowed)
		if err != nil {
			closeListening(all)
			return nil, err
		}
		all = append(all, l)
	}
	return all, nil
}

func closeListening(all []*Listening) {
	for _, l := range all {
		l.close()
	}
}

// listen opens the host's end of a port: on all addresses of both families, where none is named.
func listen(port network.Port, stowed sockets) (*Listening, error) {
	l := &Listening{Port: port, stowed: stowed}
	if port.HostIP.IsValid() {
		return l, l.open(port.HostIP, port.HostPort)
	}
	// A port that is free for IPv4 may be taken for IPv6: then another is tried.
	for try := 0; ; try++ {
		err := l.open(netip.IPv4Unspecified(), port.HostPort)
		if err != nil {
			return nil, err
		}
		err = l.open(netip.IPv6Unspecified(), l.Port.HostPort)
		switch {
		case err == nil, errors.Is(err, unix.EAFNOSUPPORT), errors.Is(err, unix.EADDRNOTAVAIL): // no IPv6 here
			return l, nil
		case port.HostPort != 0 || try == 10:
			l.close()
			return nil, err
		}
		l.close()
		l = &Listening{Port: port, stowed: stowed}
	}
}

// open opens one socket.
func (l *Listening) open(ip netip.Addr, port uint16) error {
	if socket := l.stowed.take(l.Port.Protocol, ip, port); socket != nil {
		l.Port.HostPort = port
		l.Sockets = append(l.Sockets, socket)
		return nil
	}
	family, kind := unix.AF_INET, unix.SOCK_STREAM
	if ip.Is6() {
		family = unix.AF_INET6
	}
	if l.Port.Protocol == "udp" {
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return CannotListen(l.Port, fmt.Errorf("socket: %w", err))
	}
	if err := l.bind(fd, ip, port); err != nil {
		unix.Close(fd)
		l.Port.HostPort = port
		return CannotListen(l.Port, err)
	}
	l.Sockets = append(l.Sockets, os.NewFile(uintptr(fd), "port"))
	return nil
}

func (l *Listening) bind(fd int, ip netip.Addr, port uint16) error {
	address4 := &unix.SockaddrInet4{Port: int(port)}
	if ip.Is4() {
		address4.Addr = ip.As4()
	}
	var address unix.Sockaddr = address4
	if ip.Is6() {
		only := 1
		if l.Both {
			only = 0
		}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only); err != nil {
			return err
		}
		address = &unix.SockaddrInet6{Port: int(port), Addr: ip.As16(), ZoneId: interfaceIndex(ip.Zone())}
	}
	if l.Port.Protocol == "tcp" {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return err
		}
	}
	if err := unix.Bind(fd, address); err != nil {
		return err
	}
	if l.Port.Protocol == "tcp" {
		if err := unix.Listen(fd, unix.SOMAXCONN); err != nil {
			return err
		}
	}
	if port == 0 {
		bound, err := unix.Getsockname(fd)
		if err != nil {
			return err
		}
		switch a := bound.(type) {
		case *unix.SockaddrInet4:
			port = uint16(a.Port)
		case *unix.SockaddrInet6:
			port = uint16(a.Port)
		}
		if l.Port.Protocol == "udp" {
			if err := ownPort(fd, bound); err != nil {
				return err
			}
		}
	}
	l.Port.HostPort = port
	return nil
}

// ownPort binds a UDP socket by its number to the port that the kernel chose: package relay dissolves its associations now
// and then, and the kernel takes back what it has given by itself.
func ownPort(fd int, bound unix.Sockaddr) error {
	unspecified := unix.RawSockaddrInet4{Family: unix.AF_UNSPEC}
	if _, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&unspecified)), unix.SizeofSockaddrInet4); errno != 0 {
		return fmt.Errorf("connect AF_UNSPEC: %w", errno)
	}
	return unix.Bind(fd, bound)
}

// interfaceIndex is what the zone of a link-local address means; 0 for none.
func interfaceIndex(name string) uint32 {
	if name == "" || strings.Contains(name, "/") {
		return 0
	}
	text, err := os.ReadFile("/sys/class/net/" + name + "/ifindex")
	if err != nil {
		return 0 // bind(2) says EINVAL
	}
	index, _ := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 32)
	return uint32(index)
}

// CannotListen says why a port could not be opened.
func CannotListen(port network.Port, err error) error {
	what, instead := fmt.Errorf("publish %s: %w", port, err), "; host port 0 takes any that is free"
	if port.PodPort == 0 { // of a socket that is handed to a command
		what, instead = fmt.Errorf("listen on %s/%s: %w", port.Listens(), port.Protocol, err), ""
	}
	show, family := "ss -ltnp", "tcp"
	if port.Protocol == "udp" {
		show, family = "ss -lunp", "udp"
	}
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return fault.WithHint(what, "port %d/%s is taken: `%s 'sport = :%[1]d'` shows by whom%[4]s", port.HostPort, family, show, instead)
	case errors.Is(err, unix.EMFILE):
		var files unix.Rlimit
		if unix.Getrlimit(unix.RLIMIT_NOFILE, &files) == nil {
			what = fault.WithHint(what, "%s", control.FileLimitHint(files.Max))
		}
		return what
	case errors.Is(err, unix.EACCES):
		first, _ := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start") // the number helps, the name does most
		return fault.WithHint(what, "without root ports below %s are closed: use a higher one, or as root: sysctl net.ipv4.ip_unprivileged_port_start=%d",
			strings.TrimSpace(string(first)), port.HostPort)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return fault.WithHint(what, "%s is no address of this host: `ip addr` shows those there are", port.HostIP)
	}
	return what
}
