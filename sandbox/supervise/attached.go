package supervise

import (
	"errors"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/network/control"
	"github.com/podsh/podsh/sandbox/ask"
	"github.com/podsh/podsh/sandbox/proc"
)

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
	go a.deliver()
	v.mutex.Lock()
	defer v.mutex.Unlock()
	if v.gone {
		close(a.queue)
		return ask.ErrEnded
	}
	v.clients = append(v.clients, a)
	if input {
		go a.pass()
	}
	return nil
}

// of returns the container with this id, if that is the one that the client is attached to.
func (a *attached) of(id string) *supervised {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	if a.v != nil && a.v.c.ID == id {
		return a.v
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
	case <-time.After(proc.UntilKill):
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

func (v *supervised) resize(rows, columns uint16) {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	v.rows, v.columns = rows, columns
	if v.terminal != nil {
		_ = unix.IoctlSetWinsize(int(v.terminal.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}) // it may be gone
	}
}
