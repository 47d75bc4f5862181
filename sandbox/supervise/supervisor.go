// Package supervise is the process that runs a pod's containers: it starts them, keeps their logs, gives what they
// print to whoever is attached, starts again what is to be restarted, and ends with the last of them. It decides when;
// it refuses to know how a container is made or what it leaves (package container), and who asks (package ask).
package supervise

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/network/control"
	"github.com/podsh/podsh/sandbox"
	"github.com/podsh/podsh/sandbox/ask"
	"github.com/podsh/podsh/sandbox/doctor"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/files"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/proc"
	"github.com/podsh/podsh/sandbox/store"
)

// supervisor is the process.
type supervisor struct {
	pod      *pod.Pod
	holder   *os.File      // its pidfd
	ended    chan struct{} // closed when the pod has ended: nothing of it starts any more
	self     proc.ID
	listener *os.File
	lock     *os.File

	mutex   sync.Mutex
	live    map[string]*supervised // by id: those that run, or will once more
	talking int                    // connections
	idle    chan struct{}          // has a value when something has ended
	starts  chan func()            // what must happen on the main thread, with which children end
}

// Supervise is the main function of a supervisor. ready is where it says that it listens, or why it can't.
func Supervise(args []string) int {
	ready := os.NewFile(ask.SuperviseReadyFD, "ready")
	runtime.LockOSThread()
	signal.Notify(make(chan os.Signal, 1), unix.SIGXFSZ) // a log at the limit of a file's size is an error of write(2), no end
	s, err := newSupervisor(args)
	if err != nil {
		fmt.Fprint(ready, err)
		return 1
	}
	ready.Close()
	go s.watchPod()
	s.recover()
	go s.accept()
	s.run()
	return 0
}

func newSupervisor(args []string) (*supervisor, error) {
	if len(args) != 3 {
		return nil, fmt.Errorf("%s takes a store and a pod", ask.SuperviseName)
	}
	st := &store.Store{Path: args[1]}
	pod, err := st.Load(args[2])
	if err != nil {
		return nil, err
	}
	holder, err := store.Open(pod)
	if err != nil {
		return nil, err
	}
	s := &supervisor{pod: pod, holder: holder, ended: make(chan struct{}), live: map[string]*supervised{}, idle: make(chan struct{}, 1), starts: make(chan func())}
	dir := st.Below("pods", pod.ID)
	if s.lock, err = os.OpenFile(filepath.Join(dir, "supervisor.lock"), os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600); err != nil {
		return nil, err
	}
	if err := files.Lock(s.lock, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, ask.ErrSupervised
	}
	if s.self, err = proc.IdentifySelf(); err != nil {
		return nil, err
	}
	if err := os.Remove(filepath.Join(dir, store.SupervisorName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	s.listener, err = proc.ListenAs(dir, store.SupervisorName)
	return s, err
}

// watchPod waits for the end of the pod.
func (s *supervisor) watchPod() {
	_, _ = proc.Ended(s.holder, time.Time{}) // poll(2) fails for lack of memory alone
	close(s.ended)
}

// podRuns says whether the pod goes on. When its first process is killed the kernel first ends all others, the
// containers among them, and only then is it over: pid_namespaces(7).
func (s *supervisor) podRuns() bool {
	if proc.Exited(s.holder) {
		return false
	}
	_, err := proc.NamespaceInode(strconv.Itoa(s.pod.Holder.PID), "mnt")
	return err == nil || !proc.Ending(s.holder)
}

// recover takes over what an earlier supervisor has left.
func (s *supervisor) recover() {
	containers, err := store.Containers(s.pod)
	if err != nil {
		return // the pod is on its way out
	}
	for _, c := range containers {
		if c.Spec.Detached {
			s.takeOver(c)
		}
	}
}

// run starts what is to be started, on the main thread, until there is nothing to do any more.
func (s *supervisor) run() {
	for {
		select {
		case start := <-s.starts:
			start()
		case <-s.idle:
			if s.done() {
				return
			}
		case <-time.After(untilLonely): // nobody has come, though somebody wanted a supervisor
			if s.done() {
				return
			}
		}
	}
}

// untilLonely is how long a supervisor waits for the first who needs it.
const untilLonely = 5 * time.Second

// done says whether the supervisor can go, and if so takes its socket away: who comes now starts another one.
func (s *supervisor) done() bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if len(s.live) > 0 || s.talking > 0 {
		return false
	}
	_ = os.Remove(store.StoreOf(s.pod).Below("pods", s.pod.ID, store.SupervisorName)) // with the pod it is gone already
	s.lock.Close()                                                                    // now: who comes next need not wait for our end
	return true
}

func (s *supervisor) wake() {
	select {
	case s.idle <- struct{}{}:
	default:
	}
}

// onMain runs a function on the main thread.
func (s *supervisor) onMain(do func()) {
	done := make(chan struct{})
	s.starts <- func() { do(); close(done) }
	<-done
}

func (s *supervisor) accept() {
	for {
		fd, _, err := unix.Accept4(int(s.listener.Fd()), unix.SOCK_CLOEXEC)
		if err == unix.EINTR || err == unix.ECONNABORTED {
			continue
		}
		if err != nil {
			time.Sleep(100 * time.Millisecond) // out of descriptors: others will end
			continue
		}
		s.mutex.Lock()
		s.talking++
		s.mutex.Unlock()
		go s.talk(os.NewFile(uintptr(fd), "client"))
	}
}

// asked is a request that has come in.
type asked struct {
	ask.SuperviseRequest
	files []*os.File
}

// talk answers one client until it goes. That it has gone is seen at once, even by one who waits for an answer: what it
// gave to write to is let go.
func (s *supervisor) talk(conn *os.File) {
	client := &attached{}
	requests := make(chan *asked)
	go func() {
		defer close(requests)
		defer client.leave()
		for {
			request := &asked{}
			files, err := control.Receive(conn, &request.SuperviseRequest)
			if err != nil {
				return
			}
			request.files = files
			requests <- request
		}
	}()
	for request := range requests {
		if control.Send(conn, s.answer(&request.SuperviseRequest, request.files, client)) != nil {
			_ = unix.Shutdown(int(conn.Fd()), unix.SHUT_RDWR) // then the loop above ends
		}
	}
	conn.Close()
	s.mutex.Lock()
	s.talking--
	s.mutex.Unlock()
	s.wake()
}

func (s *supervisor) answer(request *ask.SuperviseRequest, files []*os.File, client *attached) *ask.SuperviseAnswer {
	answer := &ask.SuperviseAnswer{}
	err := s.serve(request, files, client, answer)
	switch {
	case errors.Is(err, ask.ErrEnded):
		answer.Ended = true
		if c, err := store.LoadContainer(s.pod, request.Container); err == nil {
			if state, err := store.StateOf(c); err == nil {
				answer.ExitCode = state.ExitCode
			}
		}
	case err != nil:
		answer.Error, answer.Hints = err.Error(), doctor.Hints(err)
		if errors.Is(err, fault.ErrNotFound) {
			answer.Kind = "not found"
		} else if errors.Is(err, fault.ErrNotExecutable) {
			answer.Kind = "not executable"
		}
	}
	return answer
}

// serve does what a request asks for.
func (s *supervisor) serve(request *ask.SuperviseRequest, files []*os.File, client *attached, answer *ask.SuperviseAnswer) (err error) {
	if request.Do == ask.AskStart {
		return s.startFor(request, files, client)
	}
	s.mutex.Lock()
	v := s.live[request.Container]
	s.mutex.Unlock()
	if v == nil {
		v = client.of(request.Container) // it has just ended, and may have been removed: who was attached is told how
	}
	if request.Do != ask.AskAttach || v == nil {
		control.Close(files)
	}
	if v == nil {
		return ask.ErrEnded
	}
	switch request.Do {
	case ask.AskAttach:
		return client.join(v, request.Input, files)
	case ask.AskResize:
		v.resize(request.Rows, request.Columns)
	case ask.AskStop:
		answer.Stubborn, err = v.stop(unix.Signal(request.Signal), request.Grace)
	case ask.AskWait:
		answer.ExitCode = v.await()
		client.flushed()
	default:
		return fmt.Errorf("a supervisor can't %q", request.Do)
	}
	return err
}

// startFor starts a container, and attaches the one who asks before it can say anything.
func (s *supervisor) startFor(request *ask.SuperviseRequest, files []*os.File, client *attached) error {
	c, err := store.LoadContainer(s.pod, request.Container)
	if err != nil {
		control.Close(files)
		return err
	}
	state, err := store.StateOf(c)
	if err == nil && state.Status == pod.Up {
		err = fault.New(nil, []string{"podsh stop " + c.Title() + " first, or podsh attach " + c.Title()}, "container %q is running", c.Title())
	}
	if err != nil {
		control.Close(files)
		return err
	}
	v := newSupervised(s, c)
	v.rows, v.columns, v.term = request.Rows, request.Columns, request.Term
	v.state = pod.ContainerState{Restarts: state.Restarts}
	s.mutex.Lock()
	other := s.live[c.ID]
	if other == nil {
		s.live[c.ID] = v
	}
	s.mutex.Unlock()
	if other != nil {
		control.Close(files)
		return fault.New(nil, []string{"podsh restart " + c.Title() + ", or podsh attach " + c.Title()}, "container %q is %s", c.Title(), other.doing())
	}
	if len(files) > 0 {
		err = client.join(v, request.Input, files)
	}
	if err == nil {
		err = v.begin()
	}
	if err != nil {
		v.over()
		return err
	}
	go v.live()
	return nil
}

func (s *supervisor) forget(v *supervised) {
	s.mutex.Lock()
	delete(s.live, v.c.ID)
	s.mutex.Unlock()
	v.dismiss()
	s.wake()
}

// takeOver looks at what is written of a container that ran under an earlier supervisor, which has ended, and the
// container with it.
func (s *supervisor) takeOver(c *pod.Container) {
	state, err := store.StateOf(c)
	if err != nil || state.Status != pod.Ended || state.Reason == "" || state.Process.PID == 0 {
		return
	}
	if written, err := store.Written(c); err != nil || written.Status != pod.Up && written.Status != pod.Restarting {
		return
	}
	_ = sandbox.Settle(c, state) // what can't be ended is told by the next command that looks
	if state.Stopped || !c.Spec.Restart.Again(state.ExitCode, state.InARow) {
		if c.Spec.Remove {
			_ = sandbox.Discard(c) // podsh ps -c shows it, if that did not work
		}
		return
	}
	v := newSupervised(s, c)
	v.state = *state
	s.mutex.Lock()
	s.live[c.ID] = v
	s.mutex.Unlock()
	go func() {
		if v.rest() {
			v.live()
		} else {
			v.end()
		}
	}()
}
