// Package ask is how commands ask a pod's supervisor: the words that go over its socket, and the side that speaks
// first. It starts a supervisor where there is none; what one does is not known here.
package ask

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/podsh/podsh/network/control"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/proc"
	"github.com/podsh/podsh/sandbox/store"
)

// SupervisorEnv is what a supervisor needs of its caller's environment: where things lie on disk.
func SupervisorEnv() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return !slices.Contains([]string{"CNI_PATH", "HOME", "PATH", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"}, name)
	})
}

// detachedAttr puts a process into a session of its own: no terminal sends it signals.
func detachedAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

// EnsureSupervisor connects to the pod's supervisor; if there is none, it starts one.
func EnsureSupervisor(p *pod.Pod) (*os.File, error) {
	deadline := time.Now().Add(proc.UntilGiveUp)
	for {
		conn, err := DialSupervisor(p)
		if err == nil || !errors.Is(err, ErrNoSupervisor) {
			return conn, err
		}
		if err := startSupervisor(p); err != nil {
			return nil, err
		}
		if time.Now().After(deadline) {
			return nil, fault.New(nil, []string{"podsh rm -f " + p.Title()}, "the supervisor of pod %q does not answer", p.Title())
		}
	}
}

// ErrNoSupervisor says that nobody listens where a pod's supervisor would.
var ErrNoSupervisor = errors.New("the pod has no supervisor")

// DialSupervisor connects to the pod's supervisor, or says ErrNoSupervisor; it starts none.
func DialSupervisor(p *pod.Pod) (*os.File, error) {
	conn, err := proc.DialAs(store.StoreOf(p).Below("pods", p.ID), store.SupervisorName)
	if proc.NotThere(err) {
		return nil, ErrNoSupervisor
	}
	if err != nil {
		return nil, fmt.Errorf("connect to the supervisor of pod %q: %w", p.Title(), err)
	}
	return conn, nil
}

// startSupervisor starts a supervisor and waits until it listens.
func startSupervisor(p *pod.Pod) error {
	ready, theirs, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		theirs.Close()
		return err
	}
	defer null.Close()
	process, err := os.StartProcess("/proc/self/exe", []string{SuperviseName, p.Root, p.ID}, &os.ProcAttr{
		Dir: "/", Env: SupervisorEnv(), Files: []*os.File{null, null, null, theirs}, Sys: detachedAttr()})
	theirs.Close()
	if err != nil {
		return fmt.Errorf("start the supervisor: %w", err)
	}
	said, err := io.ReadAll(ready)
	if err == nil && len(said) == 0 {
		return process.Release() // it goes on by itself
	}
	_, waitErr := process.Wait()
	if err = errors.Join(err, waitErr); err == nil && string(said) != ErrSupervised.Error() {
		err = errors.New(string(said))
	}
	return err // another one is there, or is about to be: who asked looks again
}

// Ask sends a request to the pod's supervisor and takes its answer. One that goes just then is followed by another.
func Ask(p *pod.Pod, request *SuperviseRequest, files ...*os.File) (*SuperviseAnswer, *os.File, error) {
	for range 10 {
		conn, err := EnsureSupervisor(p)
		if err != nil {
			return nil, nil, err
		}
		answer, err := TalkTo(conn, request, files...)
		if err == nil {
			return answer, conn, answer.AsError()
		}
		conn.Close()
		if !proc.HungUp(err) {
			return nil, nil, err
		}
	}
	return nil, nil, fault.New(nil, []string{"podsh ps -c shows what has become of it"}, "the supervisor of pod %q went away again and again", p.Title())
}

// TalkTo asks one thing over a connection, and waits for the answer. The connection stays open.
func TalkTo(conn *os.File, request *SuperviseRequest, files ...*os.File) (*SuperviseAnswer, error) {
	if err := control.Send(conn, request, files...); err != nil {
		return nil, err
	}
	answer := &SuperviseAnswer{}
	_, err := control.Receive(conn, answer)
	return answer, err
}

// AsError is the error that the supervisor met, with its hints and of its kind; nil: none.
func (a *SuperviseAnswer) AsError() error {
	if a.Error == "" {
		return nil
	}
	var is error
	switch a.Kind {
	case "not found":
		is = fault.ErrNotFound
	case "not executable":
		is = fault.ErrNotExecutable
	}
	return fault.New(is, a.Hints, "%s", a.Error)
}
