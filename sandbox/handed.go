package sandbox

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/network"
	"github.com/podsh/podsh/network/control"
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

// firstSocketFD is the first socket's descriptor, SD_LISTEN_FDS_START.
const firstSocketFD = 3

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

func (s Socket) port() network.Port {
	return network.Port{HostIP: s.IP, HostPort: s.Port, Protocol: s.Protocol}
}

// validateSockets says what is wrong with sockets by themselves, and with limits beside them.
func validateSockets(sockets []Socket, limits ...Ulimit) error {
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
			if s.port().Overlaps(other.port()) {
				return fault.New(fault.ErrInvalid, []string{"once is enough: its processes share a socket"}, "--listen: %s/%s and %s/%[2]s are the same port",
					other.port().Listens(), s.Protocol, s.port().Listens())
			}
		}
	}
	return nil
}

// roomFor refuses a limit of open files that leaves no room for sockets, and for podsh beside them.
func (u Ulimit) roomFor(sockets []Socket) error {
	const others = 16
	if least := uint64(firstSocketFD + len(sockets) + others); u.Name == "nofile" && len(sockets) > 0 && u.Soft < least {
		return fault.New(fault.ErrInvalid, []string{fmt.Sprintf("--ulimit nofile=%d, or more", least)}, "--ulimit nofile=%d leaves no room for --listen", u.Soft)
	}
	return nil
}

// openSockets opens sockets on the host, ready for a program: all, or none.
func openSockets(asked []Socket) ([]*os.File, error) {
	var files []*os.File
	for _, s := range asked {
		l := &listening{port: s.port(), both: !s.IP.IsValid()}
		if err := l.openOne(); err != nil {
			control.Close(files)
			return nil, err
		}
		files = append(files, l.sockets...)
	}
	if err := makeReady(files, asked); err != nil {
		control.Close(files)
		return nil, err
	}
	return files, nil
}

// openOne opens one socket, for both families where no address is named: as systemd does, for programs that take only one.
func (l *listening) openOne() error {
	if !l.both {
		return l.open(l.port.HostIP, l.port.HostPort)
	}
	err := l.open(netip.IPv6Unspecified(), l.port.HostPort)
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL) { // no IPv6 here
		return l.open(netip.IPv4Unspecified(), l.port.HostPort)
	}
	return err
}

// makeReady makes sockets what a program expects, whatever the one before it has done to them: they wait, and they listen.
func makeReady(files []*os.File, asked []Socket) error {
	for i, file := range files {
		if err := unix.SetNonblock(int(file.Fd()), false); err != nil {
			return fmt.Errorf("--listen: fcntl: %w", err)
		}
		if asked[i].Protocol != "tcp" {
			continue
		}
		if err := unix.Listen(int(file.Fd()), unix.SOMAXCONN); err != nil { // shutdown(2) ends that
			return cannotListen(asked[i].port(), err)
		}
	}
	return nil
}

// listen gives a run of the container its sockets. They stay open until it has ended for good: who comes while it starts once
// more waits.
func (v *supervised) listen(stdio *Stdio) (err error) {
	if v.sockets == nil {
		v.sockets, err = openSockets(v.c.Spec.Listen)
	} else {
		err = makeReady(v.sockets, v.c.Spec.Listen)
	}
	stdio.Sockets = v.sockets
	return err
}

// lastFD is the last descriptor that the executor of the container finds open.
func (p *creation) lastFD() int { return memberTTYFD + len(p.member.container.Spec.Listen) }

// giveSockets puts the container's sockets where sd_listen_fds(3) has them. There stands what the executor tells failures on,
// among others: it goes elsewhere, and with the exec.
func (p *creation) giveSockets() {
	end, last := firstSocketFD+len(p.member.container.Spec.Listen), p.lastFD()
	p.explain("hand over the sockets that podsh has opened on the host, and nothing else", "sd_listen_fds(3)", "")
	p.call(unix.SYS_CLOSE_RANGE, last+1, allFDs, 0)
	p.call(nsenter.Report, p.call(unix.SYS_FCNTL, nsenter.PlanFD, unix.F_DUPFD_CLOEXEC, end))
	for i := range p.member.container.Spec.Listen { // each to a place that is free by then
		p.call(unix.SYS_DUP3, memberListenFD+i, firstSocketFD+i, 0)
	}
	for fd := max(end, memberTTYFD); fd <= last; fd++ {
		p.call(unix.SYS_CLOSE, fd)
	}
}

// giveSockets puts the sockets of a command that joins where sd_listen_fds(3) has them.
func (j *builder) giveSockets(sockets []Socket) {
	if len(sockets) == 0 {
		return
	}
	j.explain("hand over the sockets that podsh has opened on the host, and nothing else", "sd_listen_fds(3)", "")
	for i := range sockets {
		j.call(unix.SYS_DUP3, nsenter.ListenFD+i, firstSocketFD+i, 0)
	}
	j.call(unix.SYS_CLOSE_RANGE, nsenter.ListenFD, allFDs, 0)
}

const listenPID = "LISTEN_PID="

// variables lays out a command's environment, with those that tell of its sockets. Its process id only the process itself knows.
func (b *builder) variables(env []string, sockets []Socket) nsenter.Words {
	if len(sockets) == 0 {
		return nsenter.Strings(env)
	}
	pid := &nsenter.Buffer{Bytes: append([]byte(listenPID), make([]byte, nsenter.PIDBytes)...)}
	b.call(nsenter.Getpid, nsenter.At{Buffer: pid, Offset: len(listenPID)}, nsenter.PIDBytes)
	words := nsenter.Strings(withSockets(env, sockets))
	return slices.Insert(words, 0, any(nsenter.At{Buffer: pid}))
}

// withSockets is an environment that says what sockets there are, but for whose they are.
func withSockets(env []string, sockets []Socket) []string {
	env = slices.DeleteFunc(slices.Clone(env), func(v string) bool { return strings.HasPrefix(v, "LISTEN_") })
	var names []string
	for _, s := range sockets {
		names = append(names, s.Name)
	}
	return append(env, "LISTEN_FDS="+strconv.Itoa(len(sockets)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
}

// envByHand is what starts a command with an environment, in sh.
func envByHand(env []string, sockets []Socket) string {
	if len(sockets) == 0 {
		return "exec env -i " + quoteAll(env...)
	}
	return "exec env -i " + listenPID + "$$ " + quoteAll(withSockets(env, sockets)...)
}
