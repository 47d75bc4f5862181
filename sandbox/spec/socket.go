package spec

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/podsh/podsh/network"
	"github.com/podsh/podsh/nsenter"
	"github.com/podsh/podsh/sandbox/fault"
)

// A command can be given sockets that podsh has opened on the host, as systemd does: sd_listen_fds(3). They are of the host's
// network namespace whoever has them, so the command itself accepts what comes to the host.

// Socket is a socket that a command is given.
type Socket struct {
	IP       netip.Addr `json:"ip,omitzero"` // of the host; the zero one means all that it has
	Port     uint16     `json:"port"`
	Protocol string     `json:"protocol"` // "tcp" or "udp"
	Name     string     `json:"name"`
}

// SocketForm is how such a socket is written.
const SocketForm = "[IP:]PORT[/udp][=NAME]"

// FirstSocketFD is the first socket's descriptor, SD_LISTEN_FDS_START.
const FirstSocketFD = 3

// ParseSocket reads [IP:]PORT[/udp][=NAME]. One without a name has the one that sd_listen_fds_with_names(3) has for it.
func ParseSocket(text string) (Socket, error) {
	where, name, named := strings.Cut(text, "=")
	if !named {
		name = "unknown"
	}
	ports, err := network.ParsePublished(where)
	switch {
	case err != nil:
		return Socket{}, fault.New(fault.ErrInvalid, []string{"--listen " + SocketForm + ", such as 8080 or 127.0.0.1:5353/udp=dns"}, "--listen: %v", err)
	case ports[0].PodPort != 0:
		return Socket{}, fault.New(fault.ErrInvalid, []string{"--listen PORT: the command itself accepts on the host; -p leads to a port of the pod's"}, "--listen %q has a port of the pod's", text)
	case len(ports) > 1:
		return Socket{}, fault.New(fault.ErrInvalid, []string{"--listen once for each"}, "--listen %q is more than one port", text)
	case !isSocketName(name):
		return Socket{}, fault.New(fault.ErrInvalid, []string{"sd_listen_fds(3) lists names with : between them: of ASCII without that, 255 at most"}, "--listen %q: malformed name %q", text, name)
	}
	return Socket{ports[0].HostIP, ports[0].HostPort, ports[0].Protocol, name}, nil
}

// isSocketName is systemd's rule, FileDescriptorName= of systemd.socket(5).
func isSocketName(name string) bool {
	return name != "" && len(name) <= 255 && !strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r > '~' || r == ':' })
}

// NetworkPort is the host's end of a port that leads there.
func (s Socket) NetworkPort() network.Port {
	return network.Port{HostIP: s.IP, HostPort: s.Port, Protocol: s.Protocol}
}

// ValidateSockets says what is wrong with sockets by themselves, and with limits beside them.
func ValidateSockets(sockets []Socket, limits ...Ulimit) error {
	for _, u := range limits {
		if err := u.roomFor(sockets); err != nil {
			return err
		}
	}
	if len(sockets) > nsenter.MaxSockets {
		return fault.New(fault.ErrInvalid, []string{fmt.Sprintf("%d at most", nsenter.MaxSockets)}, "--listen: %d sockets for one command", len(sockets))
	}
	for i, s := range sockets {
		for _, other := range sockets[:i] {
			if s.NetworkPort().Overlaps(other.NetworkPort()) {
				return fault.New(fault.ErrInvalid, []string{"once is enough: its processes share a socket"}, "--listen: %s/%s and %s/%[2]s are the same port",
					other.NetworkPort().Listens(), s.Protocol, s.NetworkPort().Listens())
			}
		}
	}
	return nil
}

// roomFor refuses a limit of open files that leaves no room for sockets, and for podsh beside them.
func (u Ulimit) roomFor(sockets []Socket) error {
	const others = 16
	if least := uint64(FirstSocketFD + len(sockets) + others); u.Name == "nofile" && len(sockets) > 0 && u.Soft < least {
		return fault.New(fault.ErrInvalid, []string{fmt.Sprintf("--ulimit nofile=%d, or more", least)}, "--ulimit nofile=%d leaves no room for --listen", u.Soft)
	}
	return nil
}
