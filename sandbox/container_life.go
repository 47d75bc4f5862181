package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/network/control"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/files"
	"github.com/podsh/podsh/sandbox/proc"
)

// Run runs the container's command as a child of this process, passes signals on to it, and returns its status. The
// command ends with this process.
func (c *Container) Run(stdio *Stdio, signals chan os.Signal) (status int, err error) {
	runtime.LockOSThread() // the command ends with the thread that started it
	state, err := c.State()
	if err != nil {
		return 0, err
	}
	self, err := proc.IdentifySelf()
	if err != nil {
		return 0, err
	}
	sockets, err := openSockets(c.Spec.Listen)
	if err != nil {
		return 0, errors.Join(err, c.discard())
	}
	streams, err := NewStreams(stdio.In, stdio.Out, stdio.Err)
	if err != nil {
		return 0, errors.Join(err, c.discard())
	}
	run, err := c.start(&Stdio{In: streams.In, Out: streams.Out, Err: streams.Err, Sockets: sockets}, func(run *started) error {
		run.runs(state, self)
		return c.saveState(state)
	})
	control.Close(sockets) // whether they listen is the command's
	if run != nil {
		defer run.close()
	}
	if err != nil {
		streams.Close()
		return startStatus(err), errors.Join(err, c.discard())
	}
	streams.Copy()
	streams.Notify(signals)
	done, passed := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(passed)
		for {
			select {
			case sig := <-signals:
				run.pass(sig.(syscall.Signal))
			case <-done:
				return
			}
		}
	}()
	status = run.wait()
	close(done)
	<-passed      // a signal on its way uses what is closed in the end
	gone := false // the pod of its own, and with it all that the command has left
	if c.Spec.Remove {
		gone, err = c.removeOwnPod()
	}
	if !gone {
		err = run.sweepMounts(c.pod)
	}
	err = errors.Join(err, streams.Drain())
	if !gone {
		err = errors.Join(err, c.over(state, status, ""))
	}
	return status, err
}

// over writes down how the container ended, or removes it where that was asked for.
func (c *Container) over(state *ContainerState, status int, reason string) error {
	if c.Spec.Remove {
		return c.discard()
	}
	state.Status, state.Finished, state.ExitCode, state.Reason = Ended, time.Now().UTC(), status, reason
	err := c.saveState(state)
	if errors.Is(err, fs.ErrNotExist) && !files.Exists(c.path("")) {
		return nil // it was removed meanwhile, and with that ended
	}
	return err
}

// discard removes a container that has ended, and the pod that was there for it alone.
func (c *Container) discard() error {
	if gone, err := c.removeOwnPod(); gone || err != nil {
		return err
	}
	if err := c.removeDisk(); err != nil {
		return err
	}
	return c.forget()
}

// removeOwnPod removes the pod that was made for the container, if it is the last one there.
func (c *Container) removeOwnPod() (gone bool, err error) {
	if !c.OwnPod {
		return false, nil
	}
	if last, err := c.pod.closeIfLast(); err != nil || !last {
		return false, err
	}
	return true, c.pod.Remove(true)
}

// closeIfLast says whether a pod has no more than one container; then nobody can make another one there any more.
func (p *Pod) closeIfLast() (last bool, err error) {
	unlock, err := storeOf(p).lock()
	if err != nil {
		return false, err
	}
	defer unlock()
	containers, err := p.Containers()
	if err != nil || len(containers) > 1 {
		return false, err
	}
	err = os.WriteFile(storeOf(p).path("pods", p.ID, closedName), nil, 0o600)
	return err == nil, err
}

// closedName is the file that says that a pod is on its way out.
const closedName = "closed"

// Stop asks the container to end, and makes it after the grace; nil is its own. stubborn says that it had to be made
// to. One that has ended is stopped.
func (c *Container) Stop(sig unix.Signal, grace *time.Duration) (stubborn bool, err error) {
	if sig == 0 {
		sig = unix.Signal(c.Signal)
	}
	wait := c.grace()
	if grace != nil {
		wait = *grace
	}
	conn, err := c.pod.dialSupervisor()
	if err == nil {
		defer conn.Close()
		answer, err := talkTo(conn, &superviseRequest{Do: askStop, Container: c.ID, Signal: int(sig), Grace: wait})
		if err == nil && (answer.Error != "" || !answer.Ended) {
			return answer.Stubborn, answer.asError()
		}
	} else if !errors.Is(err, errNoSupervisor) {
		return false, err
	}
	return c.stopAlone(sig, wait)
}

// stopAlone ends a container that no supervisor watches over.
func (c *Container) stopAlone(sig unix.Signal, grace time.Duration) (stubborn bool, err error) {
	state, err := c.State()
	if err != nil {
		return false, err
	}
	pidfd, err := state.Process.Open()
	if err != nil || state.Status != Up {
		return false, c.settle(state)
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

// Kill sends a signal to the container's command. What its restart policy says is done when it ends.
func (c *Container) Kill(sig unix.Signal) error {
	state, err := c.State()
	if err != nil {
		return err
	}
	pidfd, err := state.Process.Open()
	if err != nil || state.Status != Up {
		return fault.New(fault.ErrExited, []string{"podsh start " + c.Title()}, "container %q does not run", c.Title())
	}
	defer pidfd.Close()
	return proc.Member{PID: state.Process.PID, PIDFD: pidfd}.Signal(sig)
}

// Wait waits until the container has ended, and returns its status.
func (c *Container) Wait() (int, error) {
	conn, err := c.pod.dialSupervisor()
	if err == nil {
		defer conn.Close()
		answer, err := talkTo(conn, &superviseRequest{Do: askWait, Container: c.ID})
		if err == nil {
			return answer.ExitCode, answer.asError()
		}
	}
	state, err := c.State()
	if err != nil {
		return 0, err
	}
	if state.Status == Up {
		pidfd, err := state.Process.Open()
		if err == nil {
			_, err = proc.Ended(pidfd, time.Time{})
			pidfd.Close()
		}
		if err != nil && !errors.Is(err, fault.ErrExited) {
			return 0, err
		}
		if state, err = c.State(); err != nil {
			return 0, err
		}
	}
	return state.ExitCode, nil
}

// Remove makes a container be gone: what runs of it, if force says so, what it wrote, and its description.
func (c *Container) Remove(force bool) error {
	state, err := c.State()
	if err != nil {
		return err
	}
	if state.Status == Up || state.Status == Restarting {
		if !force {
			return fault.New(nil, []string{fmt.Sprintf("podsh rm -f %s, or podsh stop %[1]s first", c.Title())}, "container %q is %s", c.Title(), state.Status)
		}
		if gone, err := c.removeOwnPod(); gone || err != nil { // whoever watches over it need not even answer
			return err
		}
		now := time.Duration(0)
		if _, err := c.Stop(unix.SIGKILL, &now); err != nil {
			return err
		}
	}
	if err := c.settle(state); err != nil {
		return err
	}
	return c.discard()
}

// Log is the path of the container's log; "" where nothing is written yet.
func (c *Container) Log() (string, error) {
	if files.Exists(c.LogPath()) {
		return c.LogPath(), nil
	}
	state, err := c.written()
	if err == nil && !state.Started.IsZero() {
		return "", fault.New(nil, []string{"with `podsh run -d` it is kept"}, "container %q ran in the foreground: its output went to whoever ran it", c.Title())
	}
	return "", nil
}

// HasEnded says that the container does not run, and will not by itself.
func (c *Container) HasEnded() bool {
	state, err := c.State()
	return err != nil || state.Status != Up && state.Status != Restarting
}

// AwaitEnd waits until the container has ended for good, or ctx is done.
func (c *Container) AwaitEnd(ctx context.Context) {
	for ctx.Err() == nil && !c.HasEnded() {
		if _, err := c.Wait(); err != nil {
			return
		}
	}
}

// written is the state as it stands in the store, whether it is true or not.
func (c *Container) written() (*ContainerState, error) { return readState(c.path("state.json")) }

// whereItWrote adds to the end of its pod where the container's files are: nothing starts in that pod any more.
func (c *Container) whereItWrote(err error) error {
	if upper := filepath.Join(c.Disk, "upper"); errors.Is(err, fault.ErrExited) && files.Exists(upper) {
		return fault.WithHint(err, "what the container wrote is in %s", upper)
	}
	return err
}

// AsPod is the container as one that commands can join: a pod that is held by the container's command.
func (c *Container) AsPod() (*Pod, error) {
	state, err := c.State()
	if err != nil {
		return nil, err
	}
	if state.Status != Up {
		if err := c.pod.lives(); err != nil {
			return nil, c.whereItWrote(err)
		}
		return nil, fault.New(fault.ErrExited, []string{"podsh start " + c.Title()}, "container %q does not run", c.Title())
	}
	view := c.view()
	view.Holder, view.Spec.Name = state.Process, c.Title()
	view.around, view.workdir = c.pod, c.Workdir
	if who, err := lookUp(c.User, view.UID, view.GID, c.readFile("/etc/passwd"), c.readFile("/etc/group")); err == nil {
		view.UID, view.GID = who.uid, who.gid
	}
	return view, nil
}
