package sandbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/network/control"
	"github.com/podsh/podsh/nsenter"
	"github.com/podsh/podsh/sandbox/crilog"
)

// supervised is a container under a supervisor: it runs, or waits to run once more.
type supervised struct {
	s             *supervisor
	c             *Container
	rows, columns uint16
	term          string

	mutex    sync.Mutex
	state    ContainerState
	run      *started
	terminal *os.File // the master of its terminal
	input    *os.File // of a container with its standard input kept open
	output   sync.WaitGroup
	reading  []*os.File
	log      *crilog.Writer
	stopping chan struct{} // closed when somebody wants it to end
	ended    chan struct{} // closed when this run has ended, and all that is to be done about that
	stubborn bool
	clients  []*attached
	hurry    chan struct{} // closed when a run has ended, and nobody is waited for any more who does not read
}

func newSupervised(s *supervisor, c *Container) *supervised {
	return &supervised{s: s, c: c, stopping: make(chan struct{}), ended: make(chan struct{}), hurry: make(chan struct{})}
}

// begin starts the command, and writes that down.
func (v *supervised) begin() error {
	log, err := crilog.Open(v.c.LogPath(), crilog.Options{})
	if err != nil {
		v.failed(err)
		return err
	}
	stdio, ours, err := v.open()
	var run *started
	if err == nil {
		v.s.onMain(func() { run, err = v.c.start(stdio) })
		for _, file := range []*os.File{stdio.In, stdio.Out, stdio.Err, stdio.Terminal} {
			if file != nil {
				file.Close()
			}
		}
	}
	if err != nil {
		log.Close()
		control.Close(ours)
		v.closeInput()
		v.failed(err)
		return err
	}
	v.mutex.Lock()
	v.run, v.log, v.hurry = run, log, make(chan struct{})
	v.state.Status, v.state.Process, v.state.MountNS = Up, run.process, run.mountNS()
	v.state.Watcher, v.state.Started, v.state.RestartAt = v.s.self, time.Now().UTC(), time.Time{}
	if err = v.c.saveState(&v.state); err == nil {
		err = v.read(ours)
	} else {
		control.Close(ours)
	}
	if err != nil || v.state.Stopped { // somebody did not want it to start at all
		run.kill()
	}
	v.mutex.Unlock()
	if err != nil {
		run.wait()
		err = errors.Join(err, run.sweepMounts(v.c.pod))
		v.drain()
		v.mutex.Lock()
		run.close()
		v.mutex.Unlock()
		v.failed(err)
	}
	return err
}

// closeInput closes the container's standard input, if that was kept open.
func (v *supervised) closeInput() {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	if v.input != nil {
		v.input.Close()
		v.input = nil
	}
}

// failed writes down that the command could not be started.
func (v *supervised) failed(err error) {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	v.state.Status, v.state.Finished, v.state.Reason = Ended, time.Now().UTC(), err.Error()
	v.state.ExitCode = startStatus(err)
	_ = v.c.saveState(&v.state) // the one who asked is told
}

// startStatus is the status of a command that could not be started, as docker has it.
func startStatus(err error) int {
	switch {
	case errors.Is(err, ErrNotFound):
		return 127
	case errors.Is(err, ErrNotExecutable):
		return 126
	}
	return 125
}

// open makes what the command reads and writes. ours are the other ends: output and error, or a socket on which the
// terminal will come.
func (v *supervised) open() (stdio *Stdio, ours []*os.File, err error) {
	stdio = &Stdio{Rows: v.rows, Cols: v.columns, Term: v.term}
	if v.c.Spec.TTY {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, nil, fmt.Errorf("socketpair: %w", err)
		}
		stdio.Terminal = os.NewFile(uintptr(fds[1]), "terminal")
		return stdio, []*os.File{os.NewFile(uintptr(fds[0]), "terminal")}, nil
	}
	for _, end := range []**os.File{&stdio.Out, &stdio.Err} {
		read, write, err := os.Pipe()
		if err != nil {
			control.Close(ours)
			return nil, nil, err
		}
		*end, ours = write, append(ours, read)
	}
	if v.c.Spec.Stdin {
		read, write, err := os.Pipe()
		if err != nil {
			control.Close(ours)
			return nil, nil, err
		}
		v.mutex.Lock()
		v.input = write
		v.mutex.Unlock()
		stdio.In = read
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
		select {
		case client.queue <- output{stream, slices.Clone(text)}:
		case <-client.gone:
		case <-hurry:
		}
	}
}

// live watches over the container until it has ended for good.
func (v *supervised) live() {
	for {
		status := v.run.wait()
		_ = v.run.sweepMounts(v.c.pod) // what does not die is told by the next command that looks
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
		_ = v.c.discard() // podsh ps -c shows what could not be removed
	}
	v.over()
}

// over takes the container off the list, and lets those go on who wait for its end.
func (v *supervised) over() {
	v.s.forget(v)
	v.mutex.Lock()
	close(v.ended)
	v.mutex.Unlock()
}

// drain waits until all output is in the log. A process that got away from the container may hold it open.
func (v *supervised) drain() {
	done := make(chan struct{})
	go func() { v.output.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(untilKill):
		v.mutex.Lock()
		close(v.hurry)
		v.mutex.Unlock()
		for _, file := range v.reading {
			file.Close()
		}
		<-done
	}
	v.mutex.Lock()
	defer v.mutex.Unlock()
	for _, file := range []*os.File{v.terminal, v.input} {
		if file != nil {
			file.Close()
		}
	}
	v.terminal, v.input = nil, nil
	v.log.Close()
}

// finish writes down how a run ended, and says whether there is to be another one.
func (v *supervised) finish(status int) (again bool) {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	v.run.close()
	now := time.Now().UTC()
	if now.Sub(v.state.Started) >= backOffReset {
		v.state.InARow = 0
	}
	v.state.Status, v.state.Finished, v.state.ExitCode = Ended, now, status
	again = !v.state.Stopped && v.c.Spec.Restart.again(status, v.state.InARow) && v.c.pod.Status() == Running
	if again {
		v.state.Status, v.state.RestartAt = Restarting, now.Add(backOff(v.state.InARow))
	}
	_ = v.c.saveState(&v.state) // a full disk: the state that is written is found to be out of date
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
			v.state.RestartAt = time.Now().UTC().Add(backOff(v.state.InARow))
		}
		v.state.Status, v.state.Watcher = Restarting, v.s.self
		_ = v.c.saveState(&v.state)
		wait := time.Until(v.state.RestartAt)
		v.mutex.Unlock()
		select {
		case <-v.stopping:
			v.mutex.Lock()
			v.state.Status = Ended
			_ = v.c.saveState(&v.state)
			v.mutex.Unlock()
			return false
		case <-time.After(wait):
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
		if v.c.pod.Status() != Running || !v.c.Spec.Restart.again(startStatus(err), v.state.InARow) {
			return false
		}
	}
}

// stop asks the command to end, and makes it after a while.
func (v *supervised) stop(sig unix.Signal, grace time.Duration) error {
	v.mutex.Lock()
	if !v.state.Stopped {
		v.state.Stopped = true
		close(v.stopping)
		_ = v.c.saveState(&v.state)
	}
	over := v.ended
	v.mutex.Unlock()
	if up, err := v.signal(sig); !up || err != nil {
		return v.waitOver(over, err)
	}
	select {
	case <-over:
		return nil
	case <-time.After(grace):
	}
	up, err := v.signal(unix.SIGKILL)
	if up && sig != unix.SIGKILL {
		v.mutex.Lock()
		v.stubborn = true
		v.mutex.Unlock()
	}
	return v.waitOver(over, err)
}

// waitOver waits for the end, unless something went wrong.
func (v *supervised) waitOver(over chan struct{}, err error) error {
	if err == nil {
		<-over
	}
	return err
}

// signal sends the command a signal, if it is still there: its pidfd is closed under the same lock.
func (v *supervised) signal(sig unix.Signal) (up bool, err error) {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	if v.state.Status != Up {
		return false, nil
	}
	return true, v.run.signal(sig)
}

// await waits until the container has ended.
func (v *supervised) await() {
	v.mutex.Lock()
	over := v.ended
	v.mutex.Unlock()
	<-over
}

func (v *supervised) lastStatus() int {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	return v.state.ExitCode
}

func (v *supervised) wasStubborn() bool {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	return v.stubborn
}

func (v *supervised) resize(rows, columns uint16) {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	v.rows, v.columns = rows, columns
	if v.terminal != nil {
		_ = unix.IoctlSetWinsize(int(v.terminal.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}) // it may be gone
	}
}

// dismiss lets everybody go who is attached, when they have got all there is.
func (v *supervised) dismiss() {
	v.mutex.Lock()
	clients := v.clients
	v.clients = nil
	v.mutex.Unlock()
	for _, client := range clients {
		close(client.queue) // nobody writes to it any more: the container's output has ended
	}
}

// output is what a container wrote, on its way to who is attached.
type output struct {
	stream int
	text   []byte
}

// attached is a client that sees what a container writes.
type attached struct {
	mutex sync.Mutex
	v     *supervised
	in    *os.File
	out   []*os.File // output and error; of a terminal, one stream for both ways
	queue chan output
	gone  chan struct{} // closed when the client is
	done  chan struct{} // closed when all has been delivered
}

// join attaches the client's descriptors.
func (a *attached) join(v *supervised, input bool, files []*os.File) error {
	tty := v.c.Spec.TTY
	a.mutex.Lock()
	if len(files) == 0 || tty && len(files) != 1 || a.v != nil {
		a.mutex.Unlock()
		control.Close(files)
		return errors.New("these are not the descriptors to attach")
	}
	a.v, a.out = v, files
	a.queue, a.gone, a.done = make(chan output, 16), make(chan struct{}), make(chan struct{})
	if input {
		a.in = files[0]
		if !tty {
			a.out = files[1:]
		}
	}
	a.mutex.Unlock()
	v.mutex.Lock()
	v.clients = append(v.clients, a)
	v.mutex.Unlock()
	go a.deliver()
	if input {
		go a.pass()
	}
	return nil
}

// deliver writes what the container wrote, to the end or until the client is gone, and lets go of its descriptors.
func (a *attached) deliver() {
	defer close(a.done)
	defer a.close()
	for {
		select {
		case <-a.gone:
			return
		case o, more := <-a.queue:
			if !more {
				return
			}
			if o.stream < len(a.out) {
				_, _ = a.out[o.stream].Write(o.text) // who does not want it any more misses it
			}
		}
	}
}

// pass passes the client's input to the container.
func (a *attached) pass() {
	buffer := make([]byte, 4096)
	for {
		n, err := a.in.Read(buffer)
		if n > 0 {
			a.v.mutex.Lock()
			to := a.v.input
			if a.v.c.Spec.TTY {
				to = a.v.terminal
			}
			a.v.mutex.Unlock()
			if to != nil {
				_, _ = to.Write(buffer[:n]) // it has ended
			}
		}
		if err != nil {
			return
		}
	}
}

// leave takes the client off the container: it is gone.
func (a *attached) leave() {
	a.mutex.Lock()
	v := a.v
	a.mutex.Unlock()
	if v == nil {
		return
	}
	v.mutex.Lock()
	v.clients = slices.DeleteFunc(v.clients, func(other *attached) bool { return other == a })
	v.mutex.Unlock()
	close(a.gone)
	a.hangUp()
}

// flushed waits until the client has got all that the container wrote; not for ever, if it does not read.
func (a *attached) flushed() {
	a.mutex.Lock()
	done := a.done
	a.mutex.Unlock()
	if done == nil {
		return
	}
	select {
	case <-done:
	case <-time.After(untilKill):
	}
}

// hangUp ends a stream: whoever reads from it or writes to it now is to hear of that.
func (a *attached) hangUp() {
	if a.in != nil && len(a.out) > 0 && a.out[0] == a.in {
		_ = unix.Shutdown(int(a.in.Fd()), unix.SHUT_RDWR) // gone already is as good
	}
}

func (a *attached) close() {
	a.hangUp()
	control.Close(a.out)
	if a.in != nil {
		a.in.Close() // of a terminal it is the same file: closed already
	}
}
