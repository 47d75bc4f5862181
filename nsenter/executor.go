package nsenter

// #include "nsenter.h"
import "C"

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// CallError says which call of the list failed.
type CallError struct {
	Place int
	Errno syscall.Errno
}

func (e *CallError) Error() string { return fmt.Sprintf("call %d: %v", e.Place, e.Errno) }

func (e *CallError) Unwrap() error { return e.Errno }

// ErrGone says that the performing process ended without a word: killed, or out of memory.
var ErrGone = errors.New("the process that performs the plan ended without a word")

// Executor is a process that performs plans. It ends when the Executor is closed before a plan ends in
// Pause.
type Executor struct {
	PID   int
	PIDFD *os.File // pidfd of PID

	sock   *os.File
	done   int // all calls before this place are done
	cloned int // pid of the newest clone
	said   int // pid of who said READY, if that is asked for
	passed []*os.File
}

// Start starts the podsh binary at path as an executor, in new namespaces as attr says. Its standard input,
// output and error are null; extra appears from EnterFD on.
func Start(path string, null *os.File, extra []*os.File, attr *syscall.SysProcAttr) (*Executor, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	host, pod := os.NewFile(uintptr(fds[0]), "plan"), os.NewFile(uintptr(fds[1]), "plan")
	defer pod.Close()
	pidfd := -1
	attr.PidFD = &pidfd
	files := []uintptr{null.Fd(), null.Fd(), null.Fd(), pod.Fd()}
	for _, file := range extra {
		files = append(files, file.Fd())
	}
	pid, err := syscall.ForkExec(path, []string{"podsh@hold"}, &syscall.ProcAttr{Files: files, Sys: attr})
	if err != nil {
		host.Close()
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	e := &Executor{PID: pid, sock: host}
	if pidfd >= 0 {
		e.PIDFD = os.NewFile(uintptr(pidfd), "pidfd")
	}
	return e, nil
}

// StartFile is Start for a program that is open. It is handed over behind extra and started from there: while Go starts a
// process it moves descriptors to numbers above those that are handed over, over whatever else is open in that process.
func StartFile(program, null *os.File, extra []*os.File, attr *syscall.SysProcAttr) (*Executor, error) {
	files := append(extra[:len(extra):len(extra)], program)
	return Start(fdPath(EnterFD+len(extra)), null, files, attr)
}

// Spare returns the executor that was forked before Go started, in the caller's own namespaces; nil if there
// is none, or none left. Its standard input, output and error are null, and it is in a session of its own.
func Spare() *Executor {
	var pid C.int
	sock := int(C.podsh_take_spare(&pid))
	if sock < 0 || pid < 0 {
		return nil
	}
	return &Executor{PID: int(pid), sock: os.NewFile(uintptr(sock), "plan")}
}

// Send hands calls to the executor; first is the place of the first one in the whole list.
func (e *Executor) Send(calls []Call, first int) error {
	plan, err := Encode(calls, first)
	if err != nil {
		return err
	}
	if _, err := e.sock.Write(plan); err != nil {
		if werr := e.Wait(first); werr != nil {
			return werr // it said why before it went
		}
		return err
	}
	return nil
}

// Wait returns when all calls before the place upTo are done; else a *CallError, or ErrGone.
func (e *Executor) Wait(upTo int) error {
	for e.done < upTo {
		if err := e.next(); err != nil {
			return err
		}
	}
	return nil
}

// Cloned waits for a Clone that was sent, and makes the executor stand for the clone.
func (e *Executor) Cloned() error {
	for e.cloned == 0 { // the clone may say that it is done before its parent tells its pid
		if err := e.next(); err != nil {
			return err
		}
	}
	reap(e.PID) // it left a clone in its place, which is our child as well
	if e.PIDFD != nil {
		e.PIDFD.Close()
	}
	e.PID, e.PIDFD, e.cloned = e.cloned, nil, 0
	fd, err := unix.PidfdOpen(e.PID, 0)
	if err != nil {
		return fmt.Errorf("pidfd_open %d: %w", e.PID, err)
	}
	e.PIDFD = os.NewFile(uintptr(fd), "pidfd")
	return nil
}

// ClonedBelow is Cloned where the clone was made in a pid namespace below this one: then its parent knows another
// number for it. The plan makes the clone say READY, and the kernel tells who says it, unix(7) SCM_CREDENTIALS.
// Call TellWho before anything is sent.
func (e *Executor) ClonedBelow() error {
	for e.said == 0 {
		if err := e.next(); err != nil {
			return err
		}
	}
	e.cloned = e.said
	return e.Cloned()
}

// Passed are the descriptors that the plan has passed out.
func (e *Executor) Passed() []*os.File { return e.passed }

// PassOut are the calls of a plan that pass one descriptor out to the Executor's owner.
func PassOut(fd any) []Call {
	record := native.AppendUint32(native.AppendUint32(nil, passed), 1)
	control := unix.UnixRights(firstCopy)
	message := Words{0, 0, Words{record, len(record)}, 1, control, len(control), 0}
	return []Call{
		{Nr: unix.SYS_DUP3, Args: []any{fd, firstCopy, unix.O_CLOEXEC}},
		{Nr: unix.SYS_SENDMSG, Args: []any{PlanFD, message, unix.MSG_NOSIGNAL}},
		{Nr: unix.SYS_CLOSE, Args: []any{firstCopy}},
	}
}

// TellWho lets the kernel tell who speaks.
func (e *Executor) TellWho() error {
	if err := unix.SetsockoptInt(int(e.sock.Fd()), unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
		return fmt.Errorf("setsockopt SO_PASSCRED: %w", err)
	}
	return nil
}

// receive reads a record, and who has sent it; 0 where that is not asked for.
func (e *Executor) receive(record []byte) (from int, err error) {
	control := make([]byte, unix.CmsgSpace(unix.SizeofUcred)+unix.CmsgSpace(4))
	for {
		n, oob, _, _, err := unix.Recvmsg(int(e.sock.Fd()), record, control, unix.MSG_CMSG_CLOEXEC|unix.MSG_WAITALL)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n < len(record) {
			return 0, ErrGone
		}
		messages, _ := unix.ParseSocketControlMessage(control[:oob]) // the kernel made it
		for i := range messages {
			if who, err := unix.ParseUnixCredentials(&messages[i]); err == nil {
				from = int(who.Pid)
			}
			if fds, err := unix.ParseUnixRights(&messages[i]); err == nil {
				for _, fd := range fds {
					e.passed = append(e.passed, os.NewFile(uintptr(fd), "passed"))
				}
			}
		}
		return from, nil
	}
}

// next takes in what the executor says next.
func (e *Executor) next() error {
	var record [8]byte
	from, err := e.receive(record[:])
	if err != nil {
		return err
	}
	what, value := int(int32(native.Uint32(record[:]))), int(int32(native.Uint32(record[4:])))
	switch {
	case what >= 0 && value != 0:
		return callError(what, value)
	case what == C.PODSH_DONE:
		e.done = value
	case what == C.PODSH_READY:
		e.said = from
	case what == C.PODSH_CLONED && (from == 0 || from == e.PID): // else of a clone that was faster than its parent
		e.cloned = value
	}
	return nil
}

// Ended waits until the executor has become another program and that has ended; a *CallError says why it did
// not become one.
func (e *Executor) Ended() error {
	for {
		if err := e.next(); err == ErrGone { // the program keeps its end of the socket to the last
			break
		} else if err != nil {
			return err
		}
	}
	reap(e.PID)
	return nil
}

// Failed says whether the executor has said by now that a call has failed, or is gone, without waiting for that; else nil.
func (e *Executor) Failed() error {
	for {
		said := []unix.PollFd{{Fd: int32(e.sock.Fd()), Events: unix.POLLIN}}
		n, err := unix.Poll(said, 0)
		if err == unix.EINTR {
			continue
		}
		if n <= 0 || err != nil {
			return nil
		}
		if err := e.next(); err != nil {
			return err
		}
	}
}

// Became waits until the executor has become another program, which goes on by itself; a *CallError says why
// it did not. The plan has to close PlanFD with the exec, which is how that is seen.
func (e *Executor) Became() error {
	for {
		if err := e.next(); err == ErrGone {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// Close lets go of the executor: one that does not pause ends.
func (e *Executor) Close() error {
	if e.PIDFD != nil {
		e.PIDFD.Close()
	}
	return e.sock.Close()
}

// Kill ends the executor and waits until it is gone.
func (e *Executor) Kill() {
	if e.PIDFD != nil {
		_ = unix.PidfdSendSignal(int(e.PIDFD.Fd()), unix.SIGKILL, nil, 0) // gone already is as good
	}
	e.Close()
	reap(e.PID)
}

// Reap waits until the executor, or what it has become, has ended.
func (e *Executor) Reap() {
	e.Close()
	reap(e.PID)
}

func reap(pid int) {
	for {
		if _, err := syscall.Wait4(pid, nil, 0, nil); err != syscall.EINTR {
			return
		}
	}
}

// clearOf is above every place that a descriptor is handed over at.
const clearOf = ListenFD + MaxSockets

func fdPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }
