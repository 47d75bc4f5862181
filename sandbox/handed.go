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

	"github.com/podsh/podsh/network/control"
	"github.com/podsh/podsh/nsenter"
	"github.com/podsh/podsh/sandbox/spec"
)

// openSockets opens sockets on the host, ready for a program: all, or none.
func openSockets(asked []spec.Socket) ([]*os.File, error) {
	var files []*os.File
	for _, s := range asked {
		l := &listening{port: s.NetworkPort(), both: !s.IP.IsValid()}
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
func makeReady(files []*os.File, asked []spec.Socket) error {
	for i, file := range files {
		if err := unix.SetNonblock(int(file.Fd()), false); err != nil {
			return fmt.Errorf("--listen: fcntl: %w", err)
		}
		if asked[i].Protocol != "tcp" {
			continue
		}
		if err := unix.Listen(int(file.Fd()), unix.SOMAXCONN); err != nil { // shutdown(2) ends that
			return cannotListen(asked[i].NetworkPort(), err)
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
	end, last := spec.FirstSocketFD+len(p.member.container.Spec.Listen), p.lastFD()
	p.explain("hand over the sockets that podsh has opened on the host, and nothing else", "sd_listen_fds(3)", "")
	p.call(unix.SYS_CLOSE_RANGE, last+1, allFDs, 0)
	p.call(nsenter.Report, p.call(unix.SYS_FCNTL, nsenter.PlanFD, unix.F_DUPFD_CLOEXEC, end))
	for i := range p.member.container.Spec.Listen { // each to a place that is free by then
		p.call(unix.SYS_DUP3, memberListenFD+i, spec.FirstSocketFD+i, 0)
	}
	for fd := max(end, memberTTYFD); fd <= last; fd++ {
		p.call(unix.SYS_CLOSE, fd)
	}
}

// giveSockets puts the sockets of a command that joins where sd_listen_fds(3) has them.
func (j *builder) giveSockets(sockets []spec.Socket) {
	if len(sockets) == 0 {
		return
	}
	j.explain("hand over the sockets that podsh has opened on the host, and nothing else", "sd_listen_fds(3)", "")
	for i := range sockets {
		j.call(unix.SYS_DUP3, nsenter.ListenFD+i, spec.FirstSocketFD+i, 0)
	}
	j.call(unix.SYS_CLOSE_RANGE, nsenter.ListenFD, allFDs, 0)
}

const listenPID = "LISTEN_PID="

// variables lays out a command's environment, with those that tell of its sockets. Its process id only the process itself knows.
func (b *builder) variables(env []string, sockets []spec.Socket) nsenter.Words {
	if len(sockets) == 0 {
		return nsenter.Strings(env)
	}
	pid := &nsenter.Buffer{Bytes: append([]byte(listenPID), make([]byte, nsenter.PIDBytes)...)}
	b.call(nsenter.Getpid, nsenter.At{Buffer: pid, Offset: len(listenPID)}, nsenter.PIDBytes)
	words := nsenter.Strings(withSockets(env, sockets))
	return slices.Insert(words, 0, any(nsenter.At{Buffer: pid}))
}

// withSockets is an environment that says what sockets there are, but for whose they are.
func withSockets(env []string, sockets []spec.Socket) []string {
	env = slices.DeleteFunc(slices.Clone(env), func(v string) bool { return strings.HasPrefix(v, "LISTEN_") })
	var names []string
	for _, s := range sockets {
		names = append(names, s.Name)
	}
	return append(env, "LISTEN_FDS="+strconv.Itoa(len(sockets)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
}

// envByHand is what starts a command with an environment, in sh.
func envByHand(env []string, sockets []spec.Socket) string {
	if len(sockets) == 0 {
		return "exec env -i " + quoteAll(env...)
	}
	return "exec env -i " + listenPID + "$$ " + quoteAll(withSockets(env, sockets)...)
}
