package supervise

import (
	"errors"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/network/control"
	"github.com/podsh/podsh/nsenter"
	"github.com/podsh/podsh/sandbox"
	"github.com/podsh/podsh/sandbox/container"
	"github.com/podsh/podsh/sandbox/crilog"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/proc"
	"github.com/podsh/podsh/sandbox/spec"
	"github.com/podsh/podsh/sandbox/store"
)

// supervised is a container under a supervisor: it runs, or waits to run once more.
type supervised struct {
	s             *supervisor
	c             *pod.Container
	rows, columns uint16
	term          string

	mutex    sync.Mutex
	state    pod.ContainerState
	run      *container.Started
	terminal *os.File // the master of its terminal
	sockets  []*os.File
	input    *os.File // of a container with its standard input kept open
	output   sync.WaitGroup
	reading  []*os.File
	log      *crilog.Writer
	stopping chan struct{} // closed when somebody wants it to end
	ended    chan struct{} // closed when this run has ended, and all that is to be done about that
	clients  []*attached
	gone     bool          // off the list: nobody can attach any more
	hurry    chan struct{} // closed when a run has ended, and nobody is waited for any more who does not read
}

// listen gives a run of the container its sockets. They stay open until it has ended for good: who comes while it starts once
// more waits.
func (v *supervised) listen(stdio *container.Stdio) (err error) {
	if v.sockets == nil {
		v.sockets, err = container.OpenSockets(v.c.Spec.Listen)
	} else {
		err = container.MakeReady(v.sockets, v.c.Spec.Listen)
	}
	stdio.Sockets = v.sockets
	return err
}

func newSupervised(s *supervisor, c *pod.Container) *supervised {
	return &supervised{s: s, c: c, stopping: make(chan struct{}), ended: make(chan struct{}), hurry: make(chan struct{})}
}

// begin starts the command, and writes that down.
func (v *supervised) begin() error {
	log, err := crilog.Open(store.LogPath(v.c), crilog.Options{})
	if err != nil {
		v.failed(err)
		return err
	}
	stdio, ours, err := v.open()
	if err == nil {
		err = v.listen(stdio)
	}
	if err == nil {
		v.s.onMain(func() { _, err = container.StartInPod(v.c, stdio, v.running) }) // running has what it returns
	}
	control.Close([]*os.File{stdio.In, stdio.Out, stdio.Err, stdio.Terminal}) // those that there are
	if err != nil {
		log.Close()
		control.Close(ours)
		v.closeAll()
		v.failed(err)
		return err
	}
	v.mutex.Lock()
	v.log, v.hurry = log, make(chan struct{})
	if err = v.read(ours); err != nil || v.state.Stopped { // somebody did not want it to start at all
		v.run.Kill()
	}
	v.mutex.Unlock()
	if err != nil {
		v.run.Wait()
		err = errors.Join(err, sandbox.SweepMounts(v.run, v.c.In))
		v.drain()
		v.failed(err)
	}
	return err
}

// running writes down that the container runs.
func (v *supervised) running(run *container.Started) error {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	v.run = run
	run.Runs(&v.state, v.s.self)
	return store.SaveState(v.c, &v.state)
}

// closeAll closes what leads to the command.
func (v *supervised) closeAll() {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	control.Close([]*os.File{v.terminal, v.input}) // those that there are
	v.terminal, v.input = nil, nil
}

// failed writes down that the command could not be started.
func (v *supervised) failed(err error) {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	v.state.Status, v.state.Finished, v.state.Reason = pod.Ended, time.Now().UTC(), err.Error()
	v.state.ExitCode = sandbox.StartStatus(err)
	if v.run != nil {
		v.run.Close()
		v.run = nil
	}
	_ = store.SaveState(v.c, &v.state) // the one who asked is told
}

// open makes what the command reads and writes. ours are the other ends: output and error, or a socket on which the
// terminal will come. What is made is returned with an error as well.
func (v *supervised) open() (stdio *container.Stdio, ours []*os.File, err error) {
	stdio = &container.Stdio{Rows: v.rows, Cols: v.columns, Term: v.term}
	if v.c.Spec.TTY {
		terminal, theirs, err := proc.Stream()
		stdio.Terminal = theirs
		return stdio, []*os.File{terminal}, err
	}
	for _, end := range []**os.File{&stdio.Out, &stdio.Err} {
		read, write, err := os.Pipe()
		if err != nil {
			return stdio, ours, err
		}
		*end, ours = write, append(ours, read)
		if err := container.OpenToAll(write); err != nil {
			return stdio, ours, err
		}
	}
	if v.c.Spec.Stdin {
		read, write, err := os.Pipe()
		v.mutex.Lock()
		stdio.In, v.input = read, write
		v.mutex.Unlock()
		if err == nil {
			err = container.OpenToAll(read)
		}
		return stdio, ours, err
	}
	return stdio, ours, nil
}

// read begins to write the command's output to the log, and to whoever is attached. The caller holds the mutex.
func (v *supervised) read(ours []*os.File) error {
	v.reading = ours
	if v.c.Spec.TTY {
		v.terminal = nsenter.ReceiveFD(ours[0])
		ours[0].Close()
		if v.terminal == nil {
			return nil // it has ended already
		}
		read, write, err := os.Pipe()
		if err != nil {
			return err
		}
		v.reading = []*os.File{read}
		master := v.terminal
		go func() {
			_, _ = io.Copy(write, master) // ends with EIO when nobody has the terminal open any more
			write.Close()
		}()
	}
	for i, from := range v.reading {
		v.output.Go(func() {
			_ = v.log.Copy(crilog.Streams[i], from, func(text []byte) { v.tell(i, text) }) // a log that is stuck waits for room
			from.Close()
		})
	}
	return nil
}

// tell passes output on to whoever is attached. One that does not take it slows the container down, as a terminal does,
// but only while the container runs.
func (v *supervised) tell(stream int, text []byte) {
	v.mutex.Lock()
	clients, hurry := slices.Clone(v.clients), v.hurry
	v.mutex.Unlock()
	for _, client := range clients {
		next := output{stream, slices.Clone(text)}
		select {
		case client.queue <- next: // who reads misses nothing, in a hurry either
		default:
			select {
			case client.queue <- next:
			case <-client.gone:
			case <-hurry:
			}
		}
	}
}

// live watches over the container until it has ended for good.
func (v *supervised) live() {
	for {
		status := v.run.Wait()
		_ = sandbox.SweepMounts(v.run, v.c.In) // what does not die is told by the next command that looks
		v.drain()
		if !v.finish(status) {
			break
		}
		if !v.rest() {
			break
		}
	}
	v.end()
}

// end lets everybody know that the container has ended for good.
func (v *supervised) end() {
	if v.c.Spec.Remove {
		_ = sandbox.Discard(v.c) // podsh ps -c shows what could not be removed
	}
	v.over()
}

// over takes the container off the list, and lets those go on who wait for its end.
func (v *supervised) over() {
	control.Close(v.sockets)
	v.s.forget(v)
	v.mutex.Lock()
	close(v.ended)
	v.mutex.Unlock()
}

// drain waits until all output is in the log. A process that got away from the container may hold it open.
func (v *supervised) drain() {
	done := make(chan struct{})
	go func() { v.output.Wait(); close(done) }()
	for _, giveUp := range []func(){v.hurryUp, func() { control.Close(v.reading) }} { // on who does not read, and then on who still writes
		select {
		case <-done:
		case <-time.After(proc.UntilKill):
			giveUp()
		}
	}
	<-done
	v.closeAll()
	v.log.Close()
}

// hurryUp waits no more for those who do not read: what is left of the output goes to the log, and to those who do.
func (v *supervised) hurryUp() {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	close(v.hurry)
}

// finish writes down how a run ended, and says whether there is to be another one.
func (v *supervised) finish(status int) (again bool) {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	v.run.Close()
	now := time.Now().UTC()
	if now.Sub(v.state.Started) >= spec.BackOffReset {
		v.state.InARow = 0
	}
	v.state.Status, v.state.Finished, v.state.ExitCode = pod.Ended, now, status
	again = !v.state.Stopped && v.c.Spec.Restart.Again(status, v.state.InARow) && v.s.podRuns()
	if again {
		v.state.Status, v.state.RestartAt = pod.Restarting, now.Add(spec.BackOff(v.state.InARow))
	}
	_ = store.SaveState(v.c, &v.state) // a full disk: the state that is written is found to be out of date
	if again {
		close(v.ended) // of this run
		v.ended = make(chan struct{})
	}
	return again
}

// rest waits until the container is to start once more, and starts it; false if that is not to be.
func (v *supervised) rest() bool {
	for {
		v.mutex.Lock()
		if v.state.RestartAt.IsZero() {
			v.state.RestartAt = time.Now().UTC().Add(spec.BackOff(v.state.InARow))
		}
		v.state.Status, v.state.Watcher = pod.Restarting, v.s.self
		_ = store.SaveState(v.c, &v.state)
		wait := time.Until(v.state.RestartAt)
		v.mutex.Unlock()
		if !v.pause(wait) {
			v.mutex.Lock()
			v.state.Status = pod.Ended
			_ = store.SaveState(v.c, &v.state)
			v.mutex.Unlock()
			return false
		}
		v.mutex.Lock()
		v.state.Restarts++
		v.state.InARow++
		v.state.RestartAt = time.Time{}
		v.mutex.Unlock()
		err := v.begin()
		if err == nil {
			return true
		}
		if !v.s.podRuns() || !v.c.Spec.Restart.Again(sandbox.StartStatus(err), v.state.InARow) {
			return false
		}
	}
}

// pause waits; false if meanwhile the pod ends, or somebody wants the container to stay as it is.
func (v *supervised) pause(wait time.Duration) bool {
	select {
	case <-v.stopping:
		return false
	case <-v.s.ended:
		return false
	case <-time.After(wait):
		return true
	}
}

// stop asks the command to end, and makes it after a while. stubborn says that it had to.
func (v *supervised) stop(sig unix.Signal, grace time.Duration) (stubborn bool, err error) {
	v.mutex.Lock()
	if !v.state.Stopped {
		v.state.Stopped = true
		close(v.stopping)
		_ = store.SaveState(v.c, &v.state) // a new supervisor would start it once more
	}
	over := v.ended
	v.mutex.Unlock()
	up, err := v.signal(sig)
	if up && err == nil {
		select {
		case <-over:
			return false, nil
		case <-time.After(grace):
			stubborn, err = v.signal(unix.SIGKILL)
		}
	}
	if err == nil {
		<-over
	}
	return stubborn && sig != unix.SIGKILL, err
}

// doing says what the container does, in a word.
func (v *supervised) doing() string {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	if v.state.Status != pod.Up && v.state.Status != pod.Restarting {
		return "starting"
	}
	return string(v.state.Status)
}

// signal sends the command a signal, if it is still there: its pidfd is closed under the same lock.
func (v *supervised) signal(sig unix.Signal) (up bool, err error) {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	if v.state.Status != pod.Up {
		return false, nil
	}
	return true, v.run.Signal(sig)
}

// await waits until the container has ended, and returns its status.
func (v *supervised) await() int {
	v.mutex.Lock()
	over := v.ended
	v.mutex.Unlock()
	<-over
	v.mutex.Lock()
	defer v.mutex.Unlock()
	return v.state.ExitCode
}

// dismiss lets everybody go who is attached, when they have got all there is.
func (v *supervised) dismiss() {
	v.mutex.Lock()
	clients := v.clients
	v.clients, v.gone = nil, true
	v.mutex.Unlock()
	for _, client := range clients {
		close(client.queue) // nobody writes to it any more: the container's output has ended
	}
}
