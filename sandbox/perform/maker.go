package perform

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/nsenter"
	"github.com/podsh/podsh/sandbox/doctor"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/plan"
	"github.com/podsh/podsh/sandbox/step"
	"github.com/podsh/podsh/seccomp"
)

// Maker is an executor in a pod's user and network namespaces: it makes the sockets there, and sets the
// network up. It has the two capabilities over that network that this takes, and no others.
type Maker struct{ *nsenter.Maker }

// makerRules are all that a maker can do once a helper has it: make sockets of the two kinds that ports take, and pass
// them out over the one connection that it has. It reads, writes and opens nothing else.
func makerRules() []seccomp.Rule {
	is, but, only := seccomp.Is, seccomp.But, seccomp.Only
	option := func(level, option uint32) seccomp.Rule {
		return seccomp.Rule{Call: unix.SYS_SETSOCKOPT, Where: []seccomp.Check{is(1, level), is(2, option)}}
	}
	rule := func(call uint32, where ...seccomp.Check) seccomp.Rule { return seccomp.Rule{Call: call, Where: where} }
	return append([]seccomp.Rule{
		rule(unix.SYS_READ, is(0, nsenter.PlanFD)), rule(unix.SYS_SENDTO, is(0, nsenter.PlanFD)), rule(unix.SYS_SENDMSG, is(0, nsenter.PlanFD)),
		rule(unix.SYS_MMAP, only(2, unix.PROT_READ|unix.PROT_WRITE)), // a plan
		rule(unix.SYS_SOCKET, is(0, unix.AF_INET, unix.AF_INET6), but(1, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.SOCK_STREAM, unix.SOCK_DGRAM), is(2, 0)),
		option(unix.SOL_IP, unix.IP_TRANSPARENT), option(unix.SOL_IPV6, unix.IPV6_TRANSPARENT), option(unix.SOL_SOCKET, unix.SO_MARK),
	}, seccomp.Calls(unix.SYS_MUNMAP, unix.SYS_DUP3, unix.SYS_CLOSE_RANGE, unix.SYS_EXIT_GROUP, unix.SYS_RT_SIGRETURN, unix.SYS_RESTART_SYSCALL)...)
}

// Confine leaves a maker no other calls, before it is given away: the helper reads what hostile pods send, and whoever
// takes it over has its makers, too. seccomp(2); no_new_privs is set.
func (m *Maker) Confine() error {
	b := &plan.Builder{}
	filter := seccomp.Bytes(seccomp.Assemble(makerRules()))
	b.Call(unix.SYS_PRCTL, unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, nsenter.Words{len(filter) / 8, filter}, 0, 0)
	_, err := m.Do(b)
	return err
}

// StartMaker leads an executor into namespaces of the process behind a pidfd. keep are the capabilities that
// it needs there.
func StartMaker(pidfd *os.File, flags int, keep ...capability.Cap) (*Maker, error) {
	executor, err := StartHand(pidfd)
	if err != nil {
		return nil, err
	}
	m := &Maker{executor.Maker()}
	b := plan.Builder{}
	notDumpable := func() { b.Call(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }
	notDumpable() // a pod with the host's pid namespace could look into it
	if flags != 0 {
		b.Call(unix.SYS_SETNS, nsenter.EnterFD, flags)
		notDumpable()
	}
	b.Call(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	if os.Geteuid() == 0 || flags&unix.CLONE_NEWUSER != 0 {
		b.Call(unix.SYS_CAPSET, plan.CapabilityHeader(), plan.CapabilityData(keep, keep, nil))
	}
	b.Call(unix.SYS_CHDIR, "/")
	b.Call(unix.SYS_PRCTL, unix.PR_SET_NAME, "podsh-maker")
	if _, err := m.Make(b.Steps.Calls()); err != nil {
		m.Close()
		return nil, fmt.Errorf("enter the pod's network: %w", NameFailed(&b, err))
	}
	return m, nil
}

// StartHand starts an executor in the host's namespaces, with more descriptors for it.
func StartHand(extra ...*os.File) (*nsenter.Executor, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	return nsenter.Start("/proc/self/exe", null, extra, &syscall.SysProcAttr{Setsid: true})
}

// NameFailed names the call that failed.
func NameFailed(b *plan.Builder, err error) error {
	var failed *nsenter.CallError
	if errors.As(err, &failed) {
		if failing, _, ok := b.Steps.At(failed.Place); ok {
			name := step.CallName(failing.Call)
			return fault.WithHints(fmt.Errorf("%s: %w", name, failed.Errno), doctor.HintsFor(step.CallKey(failing.Call), failed.Errno))
		}
	}
	return err
}

// Do performs calls, and names the one that failed.
func (m *Maker) Do(b *plan.Builder, pass ...nsenter.Result) ([]int, error) {
	fds, err := m.Make(b.Steps.Calls(), pass...)
	return fds, NameFailed(b, err)
}

// Request sends requests to the kernel's network side, and fails with what it answers.
func (m *Maker) Request(what string, requests ...[]byte) error {
	b := &plan.Builder{}
	b.Netlink(requests...)
	if _, err := m.Make(b.Steps.Calls()); err != nil {
		var failed *nsenter.CallError
		if errors.As(err, &failed) {
			return fmt.Errorf("%s: %w", what, failed.Errno)
		}
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}
