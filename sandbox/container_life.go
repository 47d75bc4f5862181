package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Run runs the container's command as a child of this process, and returns its status. It ends with this process.
func (c *Container) Run(stdio *Stdio) (status int, err error) {
	runtime.LockOSThread() // the command ends with the thread that started it
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, forwardedSignals...)
	defer signal.Stop(signals)
	state, err := c.State()
	if err != nil {
		return 0, err
	}
	if state.Watcher, err = identifySelf(); err != nil {
		return 0, err
	}
	run, err := c.start(stdio)
	if err != nil {
		return startStatus(err), errors.Join(err, c.discard())
	}
	defer run.close()
	state.Status, state.Process, state.MountNS, state.Started = Up, run.process, run.mountNS(), time.Now().UTC()
	if err := c.saveState(state); err != nil {
		run.kill()
		run.wait()
		return 0, errors.Join(err, run.sweepMounts(c.pod), c.over(state, 128+int(unix.SIGKILL), err.Error()))
	}
	done := make(chan struct{})
	go func() {
		for {
			select {
			case sig := <-signals:
				_ = run.signal(sig.(syscall.Signal)) // it has ended: so do we
			case <-done:
				return
			}
		}
	}()
	status = run.wait()
	close(done)
	return status, errors.Join(run.sweepMounts(c.pod), c.over(state, status, ""))
}

// forwardedSignals are those that who runs a command passes on to it.
var forwardedSignals = []os.Signal{
	unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM,
}

// over writes down how the container ended, or removes it where that was asked for.
func (c *Container) over(state *ContainerState, status int, reason string) error {
	if c.Spec.Remove {
		return c.discard()
	}
	state.Status, state.Finished, state.ExitCode, state.Reason = Ended, time.Now().UTC(), status, reason
	err := c.saveState(state)
	if errors.Is(err, fs.ErrNotExist) && !exists(c.path("")) {
		return nil // it was removed meanwhile, and with that ended
	}
	return err
}

// discard removes a container that has ended, and the pod that was there for it alone.
func (c *Container) discard() error {
	if c.OwnPod {
		others, err := c.pod.Containers()
		if err == nil && len(others) <= 1 {
			return c.pod.Remove(true)
		}
	}
	if err := c.removeDisk(); err != nil {
		return err
	}
	return c.forget()
}

// Attachment is what someone who attaches gives: the stream of a terminal, or the files that output goes to.
type Attachment struct {
	Stream     *os.File // of a terminal
	In         *os.File // nil: no input is passed
	Out, Err   *os.File
	Rows, Cols uint16
	Term       string
}

func (a *Attachment) files() (files []*os.File, input bool) {
	switch {
	case a == nil:
		return nil, false
	case a.Stream != nil:
		return []*os.File{a.Stream}, true
	case a.In != nil:
		return []*os.File{a.In, a.Out, a.Err}, true
	}
	return []*os.File{a.Out, a.Err}, false
}

// Session is a connection to the supervisor of a container that one is attached to.
type Session struct {
	conn      *os.File
	container string
}

// Close detaches.
func (s *Session) Close() { s.conn.Close() }

// Resize tells the size of our terminal.
func (s *Session) Resize(rows, columns uint16) error {
	_, err := talkTo(s.conn, &superviseRequest{Do: askResize, Container: s.container, Rows: rows, Columns: columns})
	return err
}

// Wait waits until the container has ended, and returns its status.
func (s *Session) Wait() (int, error) {
	answer, err := talkTo(s.conn, &superviseRequest{Do: askWait, Container: s.container})
	if err != nil {
		return 0, fail(nil, []string{"podsh ps -c shows what has become of it"}, "the supervisor went away: %v", err)
	}
	return answer.ExitCode, answer.asError()
}

// Start starts the container under the pod's supervisor; who is to see its output at once is attached.
func (c *Container) Start(a *Attachment) (*Session, error) {
	request := &superviseRequest{Do: askStart, Container: c.ID}
	files, input := a.files()
	if a != nil {
		request.Input, request.Rows, request.Columns, request.Term = input, a.Rows, a.Cols, a.Term
	}
	_, conn, err := c.pod.ask(request, files...)
	if err != nil {
		if conn != nil {
			conn.Close()
		}
		return nil, err
	}
	return &Session{conn, c.ID}, nil
}

// Attach shows what a container writes from now on.
func (c *Container) Attach(a *Attachment) (*Session, error) {
	files, input := a.files()
	request := &superviseRequest{Do: askAttach, Container: c.ID, Input: input}
	conn, err := c.pod.dialSupervisor()
	if errors.Is(err, errNoSupervisor) {
		return nil, c.notSupervised()
	}
	if err != nil {
		return nil, err
	}
	answer, err := talkTo(conn, request, files...)
	if err == nil {
		err = answer.asError()
	}
	if err == nil && answer.Ended {
		err = c.notSupervised()
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &Session{conn, c.ID}, nil
}

// notSupervised says why nobody can attach.
func (c *Container) notSupervised() error {
	state, err := c.State()
	if err != nil {
		return err
	}
	if state.Status == Up {
		return fail(nil, []string{"with `podsh run -d` or -t others can attach"}, "container %q runs in the foreground of another podsh, which has its output", c.Title())
	}
	return fail(ErrExited, []string{"podsh start " + c.Title()}, "container %q does not run", c.Title())
}

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
	main := member{state.Process.PID, pidfd}
	if err := errors.Join(main.signal(sig), main.signal(unix.SIGCONT)); err != nil {
		return false, err
	}
	gone, err := ended(pidfd, time.Now().Add(grace))
	if err == nil && !gone {
		stubborn = true
		if err = main.signal(unix.SIGKILL); err == nil {
			_, err = ended(pidfd, time.Now().Add(untilGiveUp))
		}
	}
	return stubborn, err // who watches over it does the rest
}

// settle writes down that a container has ended whose watcher was killed, and ends what is left of it.
func (c *Container) settle(state *ContainerState) error {
	written, err := c.written()
	if err != nil || state.Status != Ended || written.Status != Up && written.Status != Restarting {
		return nil
	}
	err = c.sweepLost(state)
	state.MountNS = 0 // another may have that number by now
	return errors.Join(err, c.saveState(state))
}

// sweepLost ends what is left in the mount namespace of a container whose watcher was killed. Only the pod's own
// members are looked at.
func (c *Container) sweepLost(state *ContainerState) error {
	if state.MountNS == 0 || c.isAnothers(state.MountNS) {
		return nil
	}
	pidfd, err := c.pod.Open()
	if err != nil {
		return nil // with the pod all that was in it has ended
	}
	defer pidfd.Close()
	for {
		left, err := c.leftIn(state.MountNS)
		if err != nil || len(left) == 0 {
			return err
		}
		deadline := time.Now().Add(untilGiveUp)
		for _, m := range left {
			err = errors.Join(err, m.signal(unix.SIGKILL))
		}
		for _, m := range left {
			gone, waitErr := ended(m.pidfd, deadline)
			if waitErr == nil && !gone {
				waitErr = hanging("process %d of container %q", m.pid, c.Title())
			}
			err = errors.Join(err, waitErr)
			m.pidfd.Close()
		}
		if err != nil {
			return err
		}
	}
}

// isAnothers says whether a mount namespace is that of a container which runs: the kernel gives numbers once more.
func (c *Container) isAnothers(mountNS uint64) bool {
	containers, err := c.pod.Containers()
	return err != nil || slices.ContainsFunc(containers, func(other *Container) bool {
		state, err := other.State()
		return other.ID != c.ID && err == nil && state.Status == Up && state.MountNS == mountNS
	})
}

// leftIn opens the members of the pod that are in a mount namespace, which is the container's: no process of the pod's
// own is in it, nor is one of a container that runs.
func (c *Container) leftIn(mountNS uint64) ([]member, error) {
	pidfd, err := c.pod.Open()
	if err != nil {
		return nil, nil
	}
	defer pidfd.Close()
	group, err := c.pod.membership(pidfd)
	if err != nil || group == nil {
		return nil, nil
	}
	defer group.Close()
	members, err := group.members(nil)
	var left []member
	for _, m := range members {
		if inode, nsErr := namespaceInode(fmt.Sprint(m.pid), "mnt"); nsErr == nil && inode == mountNS {
			left = append(left, m)
		} else {
			m.pidfd.Close()
		}
	}
	return left, err
}

// Kill sends a signal to the container's command. What its restart policy says is done when it ends.
func (c *Container) Kill(sig unix.Signal) error {
	state, err := c.State()
	if err != nil {
		return err
	}
	pidfd, err := state.Process.Open()
	if err != nil || state.Status != Up {
		return fail(ErrExited, []string{"podsh start " + c.Title()}, "container %q does not run", c.Title())
	}
	defer pidfd.Close()
	return member{state.Process.PID, pidfd}.signal(sig)
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
			_, err = ended(pidfd, time.Time{})
			pidfd.Close()
		}
		if err != nil && !errors.Is(err, ErrExited) {
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
			return fail(nil, []string{fmt.Sprintf("podsh rm -f %s, or podsh stop %[1]s first", c.Title())}, "container %q is %s", c.Title(), state.Status)
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
	if exists(c.LogPath()) {
		return c.LogPath(), nil
	}
	state, err := c.written()
	if err == nil && !state.Started.IsZero() {
		return "", fail(nil, []string{"with `podsh run -d` it is kept"}, "container %q ran in the foreground: its output went to whoever ran it", c.Title())
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

// stopContainers ends all containers of a pod, at the same time: each by its own signal, and in its own time. It returns
// those that had to be made to.
func (p *Pod) stopContainers() (stubborn []*Container, err error) {
	containers, err := p.Containers()
	if err != nil {
		return nil, err
	}
	made, errs := make([]bool, len(containers)), make([]error, len(containers))
	done := make(chan int)
	for i, c := range containers {
		go func() {
			made[i], errs[i] = c.Stop(0, nil)
			done <- i
		}()
	}
	for range containers {
		<-done
	}
	for i, c := range containers {
		if made[i] {
			stubborn = append(stubborn, c)
		}
	}
	return stubborn, errors.Join(errs...)
}

// removeContainers removes what the containers of a pod that has ended have on disk.
func (p *Pod) removeContainers() error {
	containers, err := p.Containers()
	for _, c := range containers {
		err = errors.Join(err, c.removeDisk())
	}
	return err
}

// endSupervisor ends the supervisor of a pod that is on its way out.
func (p *Pod) endSupervisor() error {
	containers, err := p.Containers()
	if err != nil {
		return err
	}
	for _, c := range containers {
		state, err := c.written()
		if err != nil || !c.Spec.Detached && !c.Spec.TTY || state.Watcher.PID == os.Getpid() {
			continue
		}
		if err := endProcess(state.Watcher, "the supervisor of pod "+p.Title()); err != nil {
			return err
		}
	}
	return nil
}

// AsPod is the container as one that commands can join: a pod that is held by the container's command.
func (c *Container) AsPod() (*Pod, error) {
	state, err := c.State()
	if err != nil {
		return nil, err
	}
	if state.Status != Up {
		return nil, fail(ErrExited, []string{"podsh start " + c.Title()}, "container %q does not run", c.Title())
	}
	view := c.view()
	view.Holder, view.Spec.Name = state.Process, c.Title()
	view.around = c.pod
	if who, err := lookUp(c.User, view.UID, view.GID, c.readFile("/etc/passwd"), c.readFile("/etc/group")); err == nil {
		view.UID, view.GID = who.uid, who.gid
	}
	return view, nil
}
