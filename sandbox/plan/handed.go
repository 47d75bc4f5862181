package plan

import (
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/nsenter"
	"github.com/podsh/podsh/sandbox/spec"
	"github.com/podsh/podsh/sandbox/step"
)

// lastFD is the last descriptor that the executor of the container finds open.
func (p *Creation) lastFD() int { return memberTTYFD + len(p.member.Container.Spec.Listen) }

// giveSockets puts the container's sockets where sd_listen_fds(3) has them. There stands what the executor tells failures on,
// among others: it goes elsewhere, and with the exec.
func (p *Creation) giveSockets() {
	end, last := spec.FirstSocketFD+len(p.member.Container.Spec.Listen), p.lastFD()
	p.Explain("hand over the sockets that podsh has opened on the host, and nothing else", "sd_listen_fds(3)", "")
	p.Call(unix.SYS_CLOSE_RANGE, last+1, AllFDs, 0)
	p.Call(nsenter.Report, p.Call(unix.SYS_FCNTL, nsenter.PlanFD, unix.F_DUPFD_CLOEXEC, end))
	for i := range p.member.Container.Spec.Listen { // each to a place that is free by then
		p.Call(unix.SYS_DUP3, memberListenFD+i, spec.FirstSocketFD+i, 0)
	}
	for fd := max(end, memberTTYFD); fd <= last; fd++ {
		p.Call(unix.SYS_CLOSE, fd)
	}
}

// giveSockets puts the sockets of a command that joins where sd_listen_fds(3) has them.
func (j *Builder) giveSockets(sockets []spec.Socket) {
	if len(sockets) == 0 {
		return
	}
	j.Explain("hand over the sockets that podsh has opened on the host, and nothing else", "sd_listen_fds(3)", "")
	for i := range sockets {
		j.Call(unix.SYS_DUP3, nsenter.ListenFD+i, spec.FirstSocketFD+i, 0)
	}
	j.Call(unix.SYS_CLOSE_RANGE, nsenter.ListenFD, AllFDs, 0)
}

const listenPID = "LISTEN_PID="

// variables lays out a command's environment, with those that tell of its sockets. Its process id only the process itself knows.
func (b *Builder) variables(env []string, sockets []spec.Socket) nsenter.Words {
	if len(sockets) == 0 {
		return nsenter.Strings(env)
	}
	pid := &nsenter.Buffer{Bytes: append([]byte(listenPID), make([]byte, nsenter.PIDBytes)...)}
	b.Call(nsenter.Getpid, nsenter.At{Buffer: pid, Offset: len(listenPID)}, nsenter.PIDBytes)
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
		return "exec env -i " + step.QuoteAll(env...)
	}
	return "exec env -i " + listenPID + "$$ " + step.QuoteAll(withSockets(env, sockets)...)
}
