package relay

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// loop is one thread's epoll(7) and all that it serves. Only that thread touches it; others post to it.
type loop struct {
	relay *Relay
	epoll int
	file  *os.File // is epoll
	wake  int      // eventfd(2)
	over  bool
	yield bool // a stock's goroutine has something to do
	timed bool // it will be woken within a tick

	events syscall.RawConn // of file: there are some

	table    []entry
	free     []int32   // places in table
	again    []*stream // have had their turn, and have more
	turn     []*stream // is again, while again fills anew
	doors    []*door
	shut     int // of them
	bindings []*binding
	began    time.Time
	sessions int                       // of all bindings
	awaited  map[*stream]time.Duration // something has to have happened by then
	swept    time.Duration             // when those were last looked through

	buffer []byte // what is on its way, during one call
	pipes  pipes
	packet packet

	mu      sync.Mutex
	tasks   []func()
	stopped bool
}

// entry is what epoll's events point at: a place and its generation, so that an event for a descriptor that
// was closed earlier in the same batch is told from one for its successor.
type entry struct {
	what       handler
	generation int32
}

// handler is what has descriptors in a loop.
type handler interface {
	// ready takes the events of one of the (at most two) descriptors.
	ready(side int, events uint32)
	// end closes it, if it belongs to port.
	end(port *Port)
}

// bufferSize is what is read at a time before a flow is taken for bulk, bytes.
const bufferSize = 64 << 10

func newLoop(r *Relay) (*loop, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(epoll)
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	l := &loop{relay: r, epoll: epoll, wake: wake, buffer: make([]byte, bufferSize), began: time.Now(), awaited: map[*stream]time.Duration{}}
	err = unix.SetNonblock(epoll, true) // else Go does not poll it
	l.file = os.NewFile(uintptr(epoll), "epoll")
	if err == nil {
		l.events, err = l.file.SyscallConn()
	}
	if err == nil {
		err = l.watch(wake, l.place(alarm{l}), 0, unix.EPOLLIN)
	}
	if err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// run serves until over.
func (l *loop) run() {
	events := make([]unix.EpollEvent, 128)
	for !l.over {
		for _, e := range events[:l.wait(events)] {
			if entry := l.table[e.Fd>>1]; entry.what != nil && entry.generation == e.Pad {
				entry.what.ready(int(e.Fd&1), e.Events)
			}
		}
		l.turn, l.again = l.again, l.turn[:0]
		for _, s := range l.turn {
			s.queued = false
			s.pump()
		}
		l.sweep()
		if l.yield { // a loop that never waits would keep it from running for 10 ms
			l.yield = false
			runtime.Gosched()
		}
	}
	l.close()
}

// wait returns the number of events, 0 when the time for a look around has come. It waits in Go's own poller: a thread
// that waits in a system call has to be taken out of Go's hands before, and put back afterwards, which took two fifths of
// the loop's time.
func (l *loop) wait(events []unix.EpollEvent) (n int) {
	if len(l.again) > 0 {
		return l.poll(events)
	}
	if l.hasToLook() && !l.timed {
		l.timed = true
		time.AfterFunc(l.relay.times.tick, func() { l.post(func() { l.timed = false }) })
	}
	_ = l.events.Read(func(uintptr) bool { // it is closed by this goroutine alone
		n = l.poll(events)
		return n > 0
	})
	return n
}

// poll returns the number of events there are.
func (l *loop) poll(events []unix.EpollEvent) int {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.epoll),
		uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
	if errno != no {
		return 0
	}
	return int(n)
}

// hasToLook says whether time alone changes anything.
func (l *loop) hasToLook() bool { return l.shut > 0 || l.sessions > 0 || len(l.awaited) > 0 }

// sweep ends what has taken too long, and tries whether doors that are shut may be opened.
func (l *loop) sweep() {
	if !l.hasToLook() {
		return
	}
	now := l.now()
	if now-l.swept < l.relay.times.tick {
		return
	}
	l.swept = now
	l.resume()
	for s, until := range l.awaited {
		if now >= until {
			s.expire()
		}
	}
	for _, b := range l.bindings {
		b.sweep(now)
	}
}

// place gives what a place in the table.
func (l *loop) place(what handler) int32 {
	if n := len(l.free); n > 0 {
		place := l.free[n-1]
		l.free = l.free[:n-1]
		l.table[place].what = what
		return place
	}
	l.table = append(l.table, entry{what: what})
	return int32(len(l.table) - 1)
}

func (l *loop) leave(place int32) {
	l.table[place] = entry{generation: l.table[place].generation + 1}
	l.free = append(l.free, place)
}

// watch has the events of fd brought to what is at place.
func (l *loop) watch(fd int, place int32, side int, events uint32) error {
	return l.control(unix.EPOLL_CTL_ADD, fd, place, side, events)
}

func (l *loop) control(op, fd int, place int32, side int, events uint32) error {
	e := unix.EpollEvent{Events: events, Fd: place<<1 | int32(side), Pad: l.table[place].generation}
	if err := unix.EpollCtl(l.epoll, op, fd, &e); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	return nil
}

// now is the time since the loop began.
func (l *loop) now() time.Duration { return time.Since(l.began) }

// post has the loop run task, soon. It is lost on a loop that has ended.
func (l *loop) post(task func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return false
	}
	l.tasks = append(l.tasks, task)
	if len(l.tasks) == 1 {
		_, _ = unix.Write(l.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // EAGAIN: it is awake
	}
	return true
}

// do is post, and waits until it is done.
func (l *loop) do(task func() error) error {
	done := make(chan error, 1)
	if !l.post(func() { done <- task() }) {
		return ErrClosed
	}
	return <-done
}

// alarm runs what was posted.
type alarm struct{ *loop }

func (l alarm) ready(int, uint32) {
	var count [8]byte
	_, _ = unix.Read(l.wake, count[:])
	l.mu.Lock()
	tasks := l.tasks
	l.tasks = nil
	l.mu.Unlock()
	for _, task := range tasks {
		task()
	}
}

func (l alarm) end(*Port) {}

// endPort ends what belongs to port.
func (l *loop) endPort(port *Port) {
	for _, entry := range l.table {
		if entry.what != nil {
			entry.what.end(port)
		}
	}
}

// close runs what is still posted, for those who wait for it, and frees what the loop has. Its ports are
// closed by then.
func (l *loop) close() {
	l.mu.Lock()
	l.stopped = true
	l.mu.Unlock()
	alarm{l}.ready(0, 0)
	l.pipes.close()
	unix.Close(l.wake)
	l.file.Close()
}
