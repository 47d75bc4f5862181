package wire

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/network/control"
	"github.com/podsh/podsh/network/program"
	"github.com/podsh/podsh/nsenter"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/perform"
	"github.com/podsh/podsh/sandbox/plan"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/proc"
	"github.com/podsh/podsh/sandbox/spec"
	"github.com/podsh/podsh/sandbox/store"
)

// A helper carries the data of pods: of one, or of all in a hub. It is the network's program (package
// network/helper) in the host's namespaces, without a single capability; what must be made in a pod's network
// is made by Makers, which are handed to it. It ends with the pod that it leads with.

// helper is a connection to a helper.
type helper struct {
	conn    *os.File
	process proc.ID
	keeper  proc.ID
	pidfd   *os.File
	stowed  sockets // that the last one has left
	lost    []error // what one started anew could not take up again
}

// Descriptors that the network's program finds open (package network/helper has them as well).
const (
	programFD = nsenter.EnterFD     // the program itself, till it is executed
	requestFD = nsenter.EnterFD + 1 // where its first requests come from
)

// startProgram starts the network's program with one argument, and returns the socket to talk to it.
// namespaces are those of the process behind pidfd that it is led into, which may be none.
func startProgram(what string, pidfd *os.File, namespaces int) (conn *os.File, executor *nsenter.Executor, err error) {
	file, err := perform.InMemory(program.Open())
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	conn, theirs, err := control.Pair()
	if err != nil {
		return nil, nil, err
	}
	defer theirs.Close()
	extra := []*os.File{file, theirs}
	if namespaces != 0 {
		extra = append(extra, pidfd)
	}
	executor, err = perform.StartHand(extra...)
	if err != nil {
		conn.Close()
		return nil, nil, fmt.Errorf("start the network's program: %w", err)
	}
	b := programPlan(what, namespaces)
	if err = executor.Send(b.Steps.Calls(), 0); err == nil {
		err = executor.Became()
	}
	if err != nil {
		conn.Close()
		executor.Kill()
		return nil, nil, fmt.Errorf("start the network's program: %w", perform.NameFailed(b, err))
	}
	return conn, executor, nil
}

// programPlan is what becomes the network's program does: the helper has no capability and no way to any; who
// works on networks has all, where those are.
func programPlan(what string, namespaces int) *plan.Builder {
	b := &plan.Builder{}
	if namespaces != 0 {
		b.Call(unix.SYS_SETNS, requestFD+1, namespaces)
	}
	b.Call(unix.SYS_CLOSE_RANGE, requestFD+1, plan.AllFDs, 0)
	b.Call(unix.SYS_UMASK, 0o077)
	b.Call(unix.SYS_CHDIR, "/")
	if what != workRole {
		if os.Geteuid() == 0 {
			b.Call(unix.SYS_PRCTL, unix.PR_SET_SECUREBITS, noRoot, 0, 0, 0)
			b.Call(unix.SYS_CAPSET, plan.CapabilityHeader(), plan.CapabilityData(nil, nil, nil))
		}
		b.Call(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	}
	for _, fd := range []int{nsenter.PlanFD, programFD} {
		b.Call(unix.SYS_FCNTL, fd, unix.F_SETFD, unix.FD_CLOEXEC)
	}
	env := []string{}
	if what == workRole {
		env = append(env, "PATH="+plan.DefaultPath)
	}
	b.Call(unix.SYS_EXECVEAT, programFD, "", nsenter.Strings([]string{program.Name, what}), nsenter.Strings(env), unix.AT_EMPTY_PATH)
	return b
}

// noRoot are the secure bits that keep root from being more than another user after an exec, all locked:
// SECBIT_NOROOT, SECBIT_NO_SETUID_FIXUP and SECBIT_NO_CAP_AMBIENT_RAISE in capabilities(7).
const noRoot = 0xcf

// Roles of the network's program.
const (
	helperRole  = "helper"
	programRole = "helper+program" // and may start another's program
	workRole    = "work"
)

// startHelper starts a helper that is to lead with the pod, for the times-th time in a row.
func startHelper(p *pod.Pod, times int) (*helper, error) {
	role := helperRole
	if p.Spec.Net.WayOut == spec.WayOutPasta || p.Spec.Net.WayOut == spec.WayOutSlirp {
		role = programRole
	}
	conn, executor, err := startProgram(role, nil, 0)
	if err != nil {
		return nil, err
	}
	h := &helper{conn: conn, pidfd: executor.PIDFD}
	if h.process, err = proc.Identify(executor.PID, executor.PIDFD); err == nil {
		err = keep(p, h, times)
	}
	if err != nil {
		conn.Close()
		executor.Kill()
		return nil, err
	}
	return h, nil
}

// keep gives a helper its keeper.
func keep(p *pod.Pod, h *helper, times int) error {
	in, out, err := control.Pair()
	if err != nil {
		return err
	}
	defer in.Close()
	defer out.Close()
	if h.keeper, err = startKeeper(p, h.pidfd, out, times); err != nil {
		return err
	}
	_, err = h.Ask(&control.Request{Do: control.Stow}, in, out)
	return err
}

// kill ends a helper that was started for what did not come about.
func (h *helper) kill() {
	_ = h.keeper.With(killNow)                                        // first: it has the ports, and would start another
	_ = unix.PidfdSendSignal(int(h.pidfd.Fd()), unix.SIGKILL, nil, 0) // gone already is as good
	_, _ = proc.Ended(h.pidfd, time.Now().Add(proc.UntilGiveUp))
	h.close()
	var status unix.WaitStatus
	_, _ = unix.Wait4(h.process.PID, &status, unix.WNOHANG, nil) // if it is ours
}

func (h *helper) close() {
	h.conn.Close()
	if h.pidfd != nil {
		h.pidfd.Close()
	}
}

// Ask sends a request and takes the answer for an error, if it is one.
func (h *helper) Ask(request *control.Request, files ...*os.File) (*control.Answer, error) {
	answer, err := control.Ask(h.conn, request, files...)
	switch {
	case err != nil:
		return nil, fault.WithHint(err, "`podsh ps` starts a helper anew that has ended")
	case answer.Error != "" && answer.Hint != "":
		return nil, fault.WithHint(errors.New(answer.Error), "%s", answer.Hint)
	case answer.Error != "":
		return nil, errors.New(answer.Error)
	}
	return answer, nil
}

// listenIn makes that socket in a folder.
func listenIn(dir string) (*os.File, error) { return proc.ListenAs(dir, store.ControlName) }

// errNoHelper says that a pod's helper has ended.
var errNoHelper = errors.New("the helper of the pod's network has ended")

// dial connects to the helper that leads with this pod. One that is being killed can still be connected to, for as
// long as it takes the kernel to close its sockets: it is there if it answers.
func dial(p *pod.Pod) (*helper, error) {
	conn, err := proc.DialAs(store.StoreOf(p).Below("pods", p.ID), store.ControlName)
	if err == nil {
		if _, err = control.Ask(conn, &control.Request{Do: control.Hello}); err == nil {
			return &helper{conn: conn}, nil
		}
		conn.Close()
	}
	if proc.NotThere(err) || proc.HungUp(err) {
		return nil, errNoHelper
	}
	return nil, fmt.Errorf("connect to the helper of pod %q: %w", p.Title(), err)
}
