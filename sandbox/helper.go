package sandbox

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/network/control"
	"github.com/podsh/podsh/network/program"
	"github.com/podsh/podsh/nsenter"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/spec"
)

// A helper carries the data of pods: of one, or of all in a hub. It is the network's program (package
// network/helper) in the host's namespaces, without a single capability; what must be made in a pod's network
// is made by Makers, which are handed to it. It ends with the pod that it leads with.

// helper is a connection to a helper.
type helper struct {
	conn    *os.File
	process Holder
	keeper  Holder
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
	file, err := inMemory(program.Open())
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
	executor, err = startHand(extra...)
	if err != nil {
		conn.Close()
		return nil, nil, fmt.Errorf("start the network's program: %w", err)
	}
	b := programPlan(what, namespaces)
	if err = executor.Send(b.steps.calls(), 0); err == nil {
		err = executor.Became()
	}
	if err != nil {
		conn.Close()
		executor.Kill()
		return nil, nil, fmt.Errorf("start the network's program: %w", b.named(err))
	}
	return conn, executor, nil
}

// programPlan is what becomes the network's program does: the helper has no capability and no way to any; who
// works on networks has all, where those are.
func programPlan(what string, namespaces int) *builder {
	b := &builder{}
	if namespaces != 0 {
		b.call(unix.SYS_SETNS, requestFD+1, namespaces)
	}
	b.call(unix.SYS_CLOSE_RANGE, requestFD+1, allFDs, 0)
	b.call(unix.SYS_UMASK, 0o077)
	b.call(unix.SYS_CHDIR, "/")
	if what != workRole {
		if os.Geteuid() == 0 {
			b.call(unix.SYS_PRCTL, unix.PR_SET_SECUREBITS, noRoot, 0, 0, 0)
			b.call(unix.SYS_CAPSET, capabilityHeader(), capabilityData(nil, nil, nil))
		}
		b.call(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	}
	for _, fd := range []int{nsenter.PlanFD, programFD} {
		b.call(unix.SYS_FCNTL, fd, unix.F_SETFD, unix.FD_CLOEXEC)
	}
	env := []string{}
	if what == workRole {
		env = append(env, "PATH="+defaultPath)
	}
	b.call(unix.SYS_EXECVEAT, programFD, "", nsenter.Strings([]string{program.Name, what}), nsenter.Strings(env), unix.AT_EMPTY_PATH)
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

// startHelper starts a helper that is to lead with the pod.
func (p *Pod) startHelper() (*helper, error) {
	role := helperRole
	if p.Spec.Net.WayOut == spec.WayOutPasta || p.Spec.Net.WayOut == spec.WayOutSlirp {
		role = programRole
	}
	conn, executor, err := startProgram(role, nil, 0)
	if err != nil {
		return nil, err
	}
	h := &helper{conn: conn, pidfd: executor.PIDFD}
	if h.process, err = identify(executor.PID, executor.PIDFD); err == nil {
		err = p.keep(h)
	}
	if err != nil {
		conn.Close()
		executor.Kill()
		return nil, err
	}
	return h, nil
}

// keep gives a helper its keeper.
func (p *Pod) keep(h *helper) error {
	in, out, err := control.Pair()
	if err != nil {
		return err
	}
	defer in.Close()
	defer out.Close()
	if h.keeper, err = p.startKeeper(h.pidfd, out); err != nil {
		return err
	}
	_, err = h.ask(&control.Request{Do: control.Stow}, in, out)
	return err
}

// kill ends a helper that was started for what did not come about.
func (h *helper) kill() {
	_ = h.keeper.with(killNow)                                        // first: it has the ports, and would start another
	_ = unix.PidfdSendSignal(int(h.pidfd.Fd()), unix.SIGKILL, nil, 0) // gone already is as good
	_, _ = ended(h.pidfd, time.Now().Add(untilGiveUp))
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

// ask sends a request and takes the answer for an error, if it is one.
func (h *helper) ask(request *control.Request, files ...*os.File) (*control.Answer, error) {
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

// controlName is the socket of a helper, in the folder of the pod that it leads with.
const controlName = "control"

// listenIn makes that socket in a folder.
func listenIn(dir string) (*os.File, error) { return listenAs(dir, controlName) }

// listenAs makes a socket in a folder. A path of any length will do: it is looked up below a descriptor.
func listenAs(dir, name string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	listener := os.NewFile(uintptr(fd), name)
	err = atSocket(dir, name, func(address *unix.SockaddrUnix) error { return unix.Bind(fd, address) })
	if err == nil {
		err = unix.Listen(fd, unix.SOMAXCONN)
	}
	if err != nil {
		listener.Close()
		return nil, fmt.Errorf("bind %s: %w", filepath.Join(dir, name), err)
	}
	return listener, nil
}

func atSocket(dir, name string, do func(*unix.SockaddrUnix) error) error {
	folder, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(folder)
	return do(&unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/%s", folder, name)})
}

// dialAs connects to a socket in a folder.
func dialAs(dir, name string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	conn := os.NewFile(uintptr(fd), name)
	if err := atSocket(dir, name, func(address *unix.SockaddrUnix) error { return unix.Connect(fd, address) }); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// notThere says whether dialAs found nobody.
func notThere(err error) bool {
	return errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist)
}

// hungUp says whether who was asked went away instead of answering.
func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET)
}

// errNoHelper says that a pod's helper has ended.
var errNoHelper = errors.New("the helper of the pod's network has ended")

// dial connects to the helper that leads with this pod. One that is being killed can still be connected to, for as
// long as it takes the kernel to close its sockets: it is there if it answers.
func (p *Pod) dial() (*helper, error) {
	conn, err := dialAs(p.store.path("pods", p.ID), controlName)
	if err == nil {
		if _, err = control.Ask(conn, &control.Request{Do: control.Hello}); err == nil {
			return &helper{conn: conn}, nil
		}
		conn.Close()
	}
	if notThere(err) || hungUp(err) {
		return nil, errNoHelper
	}
	return nil, fmt.Errorf("connect to the helper of pod %q: %w", p.Title(), err)
}

// endProcess ends a process of ours that is known by its identity, and waits until it is gone.
func endProcess(process Holder, what string) error {
	pidfd, err := process.Open()
	if errors.Is(err, fault.ErrExited) {
		return nil
	}
	if err != nil {
		return err
	}
	defer pidfd.Close()
	for _, try := range []struct {
		sig  unix.Signal
		wait time.Duration
	}{{unix.SIGTERM, untilKill}, {unix.SIGKILL, untilGiveUp}} {
		if err := (member{process.PID, pidfd}).signal(try.sig); err != nil {
			return err
		}
		if gone, err := ended(pidfd, time.Now().Add(try.wait)); gone || err != nil {
			return err
		}
	}
	return hanging("%s (pid %d)", what, process.PID)
}
