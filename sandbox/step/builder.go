package step

import (
	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/nsenter"
)

// Builder collects the steps of a plan.
type Builder struct {
	Steps Plan
	Calls int
	head  Step // what is said of the next step
}

// Role says what a script must know of the next step.
func (b *Builder) Role(role Role) { b.head.Role = role }

// Unsay drops what was said of a step that does not come.
func (b *Builder) Unsay() { b.head = Step{} }

// Explain says why the next call is made, and how to do the same by hand.
func (b *Builder) Explain(why, man, cmd string) {
	b.head = Step{Why: why, Man: man, Cmd: cmd}
}

// ExplainNeeding is Explain, for what fails where a name that somebody gave means nothing in the pod.
func (b *Builder) ExplainNeeding(need, why, man, cmd string) {
	b.Explain(why, man, cmd)
	b.head.Need = need
}

// Call adds a system call on the pod's side; its result can be an argument of later ones.
func (b *Builder) Call(nr int, args ...any) nsenter.Result {
	return b.CallTolerating(0, nr, args...)
}

// CallTolerating adds a call that may fail with one errno.
func (b *Builder) CallTolerating(errno unix.Errno, nr int, args ...any) nsenter.Result {
	step := b.head
	b.head = Step{}
	step.Side, step.Call = Inside, nsenter.Call{Nr: nr, Args: args, Tolerate: errno}
	b.Steps = append(b.Steps, step)
	b.Calls++
	return nsenter.Result(b.Calls - 1)
}

// Host adds a step on the host's side.
func (b *Builder) Host(key string) {
	step := b.head
	b.head = Step{}
	step.Side, step.Host = Host, key
	b.Steps = append(b.Steps, step)
}

// Netlink sends requests of rtnetlink(7), each of which is to be answered before the next.
func (b *Builder) Netlink(requests ...[]byte) {
	socket := b.Call(unix.SYS_SOCKET, unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	for _, request := range requests {
		place := b.Calls
		b.Call(unix.SYS_SENDTO, socket, request, len(request), 0, 0, 0)
		for _, call := range nsenter.Answer(socket, place) {
			b.Call(call.Nr, call.Args...)
		}
	}
	b.Call(unix.SYS_CLOSE, socket)
}
