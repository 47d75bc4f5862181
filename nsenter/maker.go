package nsenter

// #include "nsenter.h"
import "C"

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Maker is an executor that stays in the namespaces it was led to, performs calls there, and passes the
// descriptors out that they make: a descriptor keeps its namespace. It ends when the Maker is closed, and
// with the first call that fails.
type Maker struct {
	mutex sync.Mutex
	sock  *os.File
}

// Maker gives the executor away: it goes on when this process has ended, for whoever holds the Maker's File.
func (e *Executor) Maker() *Maker {
	if e.PIDFD != nil {
		e.PIDFD.Close()
	}
	return NewMaker(e.sock)
}

// NewMaker takes over the Maker behind a File.
func NewMaker(file *os.File) *Maker { return &Maker{sock: file} }

// File is the socket that stands for the Maker; it can be passed to another process.
func (m *Maker) File() *os.File { return m.sock }

// Close ends the executor.
func (m *Maker) Close() error { return m.sock.Close() }

const (
	// MostPassed is how many descriptors one Make brings out: a message holds 253, unix(7).
	MostPassed = 64
	firstCopy  = TTYFD + 64 // where they stand meanwhile: numbers that are known now, for the message
)

// Make performs calls and returns the descriptors that those at the places pass have made. Nothing of it
// stays open on the other side. An error of a call is a *CallError, and the Maker's end.
func (m *Maker) Make(calls []Call, pass ...Result) ([]int, error) {
	if len(pass) > MostPassed {
		return nil, fmt.Errorf("%d descriptors to pass: more than %d", len(pass), MostPassed)
	}
	calls = append(calls[:len(calls):len(calls)], passing(pass)...)
	plan, err := Encode(calls, 0)
	if err != nil {
		return nil, err
	}
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if _, err := m.sock.Write(plan); err != nil && !errors.Is(err, syscall.EPIPE) {
		return nil, fmt.Errorf("send calls: %w", err)
	}
	raw, err := m.sock.SyscallConn() // which keeps the descriptor, should the Maker be closed meanwhile
	if err != nil {
		return nil, ErrGone
	}
	a := answer{calls: len(calls)}
	if cerr := raw.Read(func(socket uintptr) bool { return a.receive(int(socket)) }); cerr != nil {
		closeAll(a.fds)
		return nil, ErrGone
	}
	fds, err := a.fds, a.err
	if err == nil && len(fds) != len(pass) {
		err = fmt.Errorf("%d descriptors were passed, not %d", len(fds), len(pass))
	}
	if err != nil {
		closeAll(fds)
		return nil, err
	}
	return fds, nil
}

// passing lists the calls that send descriptors out, and close all there are.
func passing(pass []Result) []Call {
	var calls []Call
	if len(pass) > 0 {
		var copies []int
		for i, fd := range pass {
			copies = append(copies, firstCopy+i)
			calls = append(calls, Call{Nr: unix.SYS_DUP3, Args: []any{fd, firstCopy + i, unix.O_CLOEXEC}})
		}
		record := native.AppendUint32(native.AppendUint32(nil, passed), uint32(len(pass)))
		control := unix.UnixRights(copies...)
		message := Words{0, 0, Words{record, len(record)}, 1, control, len(control), 0}
		calls = append(calls, Call{Nr: unix.SYS_SENDMSG, Args: []any{PlanFD, message, unix.MSG_NOSIGNAL}})
	}
	return append(calls, Call{Nr: unix.SYS_CLOSE_RANGE, Args: []any{PlanFD + 1, 1<<32 - 1, 0}})
}

const passed = uint32(1<<32 + C.PODSH_PASSED) // as the 32 bits that a record holds

// answer is what an executor says to calls.
type answer struct {
	calls int
	fds   []int
	err   error
}

// receive takes in what the executor says until all calls are done, or it has ended; false: there is nothing yet, on a
// socket that does not block.
func (a *answer) receive(socket int) bool {
	var record [8]byte
	control := make([]byte, unix.CmsgSpace(4*MostPassed))
	for {
		n, oob, _, _, err := unix.Recvmsg(socket, record[:], control, unix.MSG_CMSG_CLOEXEC|unix.MSG_WAITALL)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return false
		case err != nil || n < len(record):
			a.err = cmp.Or(a.err, ErrGone)
			return true
		}
		a.fds = append(a.fds, rights(control[:oob])...)
		what, value := int(int32(native.Uint32(record[:]))), int(int32(native.Uint32(record[4:])))
		switch {
		case what == C.PODSH_DONE && value == a.calls:
			return true
		case what >= 0 && value != 0 && a.err == nil: // the executor's last word, or a netlink socket's answer
			a.err = callError(what, value)
		}
	}
}

func rights(control []byte) []int {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil || len(messages) == 0 {
		return nil
	}
	fds, _ := unix.ParseUnixRights(&messages[0]) // another kind of message brings none
	return fds
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// callError reads a record about a call: an errno of the executor's, or, below zero, the kernel's answer on a
// netlink socket.
func callError(place, value int) error {
	return &CallError{Place: place, Errno: syscall.Errno(max(value, -value))}
}

// Answer are the calls that take the kernel's answer from a netlink socket and report it, netlink(7): its
// error, or 0, counts as that of the call at place, which has sent the request.
func Answer(socket any, place int) []Call {
	const header = 16 // a struct nlmsghdr stands before the error
	record := &Buffer{native.AppendUint32(native.AppendUint32(nil, uint32(place)), 0)}
	parts := Words{make([]byte, header), header, At{record, 4}, 4}
	message := Words{0, 0, parts, 2, 0, 0, 0}
	return []Call{
		{Nr: unix.SYS_RECVMSG, Args: []any{socket, message, 0}},
		{Nr: unix.SYS_SENDTO, Args: []any{PlanFD, At{record, 0}, 8, unix.MSG_NOSIGNAL, 0, 0}},
	}
}
