package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/network/control"
	"github.com/podsh/podsh/sandbox/ask"
	"github.com/podsh/podsh/sandbox/container"
	"github.com/podsh/podsh/sandbox/disk"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/files"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/proc"
	"github.com/podsh/podsh/sandbox/store"
)

// Run runs the container's command as a child of this process, passes signals on to it, and returns its status. The
// command ends with this process.
func Run(c *pod.Container, stdio *container.Stdio, signals chan os.Signal) (status int, err error) {
	runtime.LockOSThread() // the command ends with the thread that started it
	state, err := store.StateOf(c)
	if err != nil {
		return 0, err
	}
	self, err := proc.IdentifySelf()
	if err != nil {
		return 0, err
	}
	sockets, err := container.OpenSockets(c.Spec.Listen)
	if err != nil {
		return 0, errors.Join(err, Discard(c))
	}
	streams, err := container.NewStreams(stdio.In, stdio.Out, stdio.Err)
	if err != nil {
		return 0, errors.Join(err, Discard(c))
	}
	run, err := container.StartInPod(c, &container.Stdio{In: streams.In, Out: streams.Out, Err: streams.Err, Sockets: sockets}, func(run *container.Started) error {
		run.Runs(state, self)
		return store.SaveState(c, state)
	})
	control.Close(sockets) // whether they listen is the command's
	if run != nil {
		defer run.Close()
	}
	if err != nil {
		streams.Close()
		return StartStatus(err), errors.Join(err, Discard(c))
	}
	streams.Copy()
	streams.Notify(signals)
	done, passed := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(passed)
		for {
			select {
			case sig := <-signals:
				run.Pass(sig.(syscall.Signal))
			case <-done:
				return
			}
		}
	}()
	status = run.Wait()
	close(done)
	<-passed      // a signal on its way uses what is closed in the end
	gone := false // the pod of its own, and with it all that the command has left
	if c.Spec.Remove {
		gone, err = removeOwnPod(c)
	}
	if !gone {
		err = SweepMounts(run, c.In)
	}
	err = errors.Join(err, streams.Drain())
	if !gone {
		err = errors.Join(err, over(c, state, status, ""))
	}
	return status, err
}

// over writes down how the container ended, or removes it where that was asked for.
func over(c *pod.Container, state *pod.ContainerState, status int, reason string) error {
	if c.Spec.Remove {
		return Discard(c)
	}
	state.Status, state.Finished, state.ExitCode, state.Reason = pod.Ended, time.Now().UTC(), status, reason
	err := store.SaveState(c, state)
	if errors.Is(err, fs.ErrNotExist) && !files.Exists(store.PathOf(c, "")) {
		return nil // it was removed meanwhile, and with that ended
	}
	return err
}

// Discard removes a container that has ended, and the pod that was there for it alone.
func Discard(c *pod.Container) error {
	if gone, err := removeOwnPod(c); gone || err != nil {
		return err
	}
	if err := disk.RemoveDiskContainer(c); err != nil {
		return err
	}
	return store.Forget(c)
}

// removeOwnPod removes the pod that was made for the container, if it is the last one there.
func removeOwnPod(c *pod.Container) (gone bool, err error) {
	if !c.OwnPod {
		return false, nil
	}
	if last, err := closeIfLast(c.In); err != nil || !last {
		return false, err
	}
	return true, Remove(c.In, true)
}

// closeIfLast says whether a pod has no more than one container; then nobody can make another one there any more.
func closeIfLast(p *pod.Pod) (last bool, err error) {
	unlock, err := store.StoreOf(p).Lock()
	if err != nil {
		return false, err
	}
	defer unlock()
	containers, err := store.Containers(p)
	if err != nil || len(containers) > 1 {
		return false, err
	}
	err = os.WriteFile(store.StoreOf(p).Below("pods", p.ID, store.ClosedName), nil, 0o600)
	return err == nil, err
}

// StopContainer asks the container to end, and makes it after the grace; nil is its own. stubborn says that it had to be made
// to. One that has ended is stopped.
func StopContainer(c *pod.Container, sig unix.Signal, grace *time.Duration) (stubborn bool, err error) {
	if sig == 0 {
		sig = unix.Signal(c.Signal)
	}
	wait := c.Grace()
	if grace != nil {
		wait = *grace
	}
	conn, err := ask.DialSupervisor(c.In)
	if err == nil {
		defer conn.Close()
		answer, err := ask.TalkTo(conn, &ask.SuperviseRequest{Do: ask.AskStop, Container: c.ID, Signal: int(sig), Grace: wait})
		if err == nil && (answer.Error != "" || !answer.Ended) {
			return answer.Stubborn, answer.AsError()
		}
	} else if !errors.Is(err, ask.ErrNoSupervisor) {
		return false, err
	}
	return stopAlone(c, sig, wait)
}

// stopAlone ends a container that no supervisor watches over.
func stopAlone(c *pod.Container, sig unix.Signal, grace time.Duration) (stubborn bool, err error) {
	state, err := store.StateOf(c)
	if err != nil {
		return false, err
	}
	pidfd, err := state.Process.Open()
	if err != nil || state.Status != pod.Up {
		return false, Settle(c, state)
	}
	defer pidfd.Close()
	main := proc.Member{PID: state.Process.PID, PIDFD: pidfd}
	if err := errors.Join(main.Signal(sig), main.Signal(unix.SIGCONT)); err != nil {
		return false, err
	}
	gone, err := proc.Ended(pidfd, time.Now().Add(grace))
	if err == nil && !gone {
		stubborn = true
		if err = main.Signal(unix.SIGKILL); err == nil {
			_, err = proc.Ended(pidfd, time.Now().Add(proc.UntilGiveUp))
		}
	}
	return stubborn, err // who watches over it does the rest
}

// KillContainer sends a signal to the container's command. What its restart policy says is done when it ends.
func KillContainer(c *pod.Container, sig unix.Signal) error {
	state, err := store.StateOf(c)
	if err != nil {
		return err
	}
	pidfd, err := state.Process.Open()
	if err != nil || state.Status != pod.Up {
		return fault.New(fault.ErrExited, []string{"podsh start " + c.Title()}, "container %q does not run", c.Title())
	}
	defer pidfd.Close()
	return proc.Member{PID: state.Process.PID, PIDFD: pidfd}.Signal(sig)
}

// WaitForContainer waits until the container has ended, and returns its status.
func WaitForContainer(c *pod.Container) (int, error) {
	conn, err := ask.DialSupervisor(c.In)
	if err == nil {
		defer conn.Close()
		answer, err := ask.TalkTo(conn, &ask.SuperviseRequest{Do: ask.AskWait, Container: c.ID})
		if err == nil {
			return answer.ExitCode, answer.AsError()
		}
	}
	state, err := store.StateOf(c)
	if err != nil {
		return 0, err
	}
	if state.Status == pod.Up {
		pidfd, err := state.Process.Open()
		if err == nil {
			_, err = proc.Ended(pidfd, time.Time{})
			pidfd.Close()
		}
		if err != nil && !errors.Is(err, fault.ErrExited) {
			return 0, err
		}
		if state, err = store.StateOf(c); err != nil {
			return 0, err
		}
	}
	return state.ExitCode, nil
}

// RemoveContainer makes a container be gone: what runs of it, if force says so, what it wrote, and its description.
func RemoveContainer(c *pod.Container, force bool) error {
	state, err := store.StateOf(c)
	if err != nil {
		return err
	}
	if state.Status == pod.Up || state.Status == pod.Restarting {
		if !force {
			return fault.New(nil, []string{fmt.Sprintf("podsh rm -f %s, or podsh stop %[1]s first", c.Title())}, "container %q is %s", c.Title(), state.Status)
		}
		if gone, err := removeOwnPod(c); gone || err != nil { // whoever watches over it need not even answer
			return err
		}
		now := time.Duration(0)
		if _, err := StopContainer(c, unix.SIGKILL, &now); err != nil {
			return err
		}
	}
	if err := Settle(c, state); err != nil {
		return err
	}
	return Discard(c)
}

// Log is the path of the container's log; "" where nothing is written yet.
func Log(c *pod.Container) (string, error) {
	if files.Exists(store.LogPath(c)) {
		return store.LogPath(c), nil
	}
	state, err := store.Written(c)
	if err == nil && !state.Started.IsZero() {
		return "", fault.New(nil, []string{"with `podsh run -d` it is kept"}, "container %q ran in the foreground: its output went to whoever ran it", c.Title())
	}
	return "", nil
}

// HasEnded says that the container does not run, and will not by itself.
func HasEnded(c *pod.Container) bool {
	state, err := store.StateOf(c)
	return err != nil || state.Status != pod.Up && state.Status != pod.Restarting
}

// AwaitEnd waits until the container has ended for good, or ctx is done.
func AwaitEnd(ctx context.Context, c *pod.Container) {
	for ctx.Err() == nil && !HasEnded(c) {
		if _, err := WaitForContainer(c); err != nil {
			return
		}
	}
}
