// Package nsenter carries plans out. It owns the C that runs before the Go runtime (nsenter.c: a loop over
// system calls, the joiner, the pause program), the form in which a plan is handed to it, and the start of
// the processes that perform it.
//
// It refuses to know what a plan is for: which calls, in which order and why is package sandbox's.
package nsenter

// #cgo CFLAGS: -std=gnu11 -O2 -Wall -Wextra
// #include "nsenter.h"
import "C"

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Descriptors that the performing side finds open (nsenter.h has their meaning).
const (
	PlanFD   = C.PODSH_PLAN_FD
	EnterFD  = C.PODSH_ENTER_FD
	JoinFD   = C.PODSH_JOIN_FD
	PodFD    = C.PODSH_POD_FD
	ReportFD = C.PODSH_REPORT_FD
	TTYFD    = C.PODSH_TTY_FD
)

// Numbers of the three calls that are not one system call (nsenter.h).
const (
	Clone = C.PODSH_CLONE // (flags): go on as a clone whose parent is the caller's parent
	Exec  = C.PODSH_EXEC  // (argv or 0, envp, folders): execve(2) with a search through the folders
	Pause = C.PODSH_PAUSE // (): be the pause program
)

// MaxCalls is how many calls all the plans for one process may hold together.
const MaxCalls = C.PODSH_MAX_CALLS

// Result, as an argument of a call, stands for what an earlier call returned. It counts from the start of
// the whole list.
type Result int

// Words, as an argument, is the address of a row of 64-bit words, each an argument itself: an argv, or a
// structure that holds addresses.
type Words []any

// Strings makes the row of strings that execve(2) takes, with the null pointer at its end.
func Strings(list []string) Words {
	words := make(Words, 0, len(list)+1)
	for _, s := range list {
		words = append(words, s)
	}
	return append(words, 0)
}

// Call is one system call. An argument is an int or uintptr, a string (its address, with a zero byte behind
// it), a []byte (its address), a Result or Words.
type Call struct {
	Nr       int
	Args     []any
	Tolerate syscall.Errno // no failure
}

// encoder lays a plan out: head, calls, relocations, data.
type encoder struct {
	calls  []byte
	relocs []uint32
	data   []byte
	base   int // where data begins in the plan
}

var native = binary.NativeEndian

const (
	headSize  = C.sizeof_struct_podsh_plan
	callSize  = C.sizeof_struct_podsh_call
	savedSize = C.sizeof_struct_podsh_saved
)

// Encode turns calls into a plan; first is the place of the first one in the whole list.
func Encode(calls []Call, first int) ([]byte, error) {
	if first+len(calls) > MaxCalls {
		return nil, fmt.Errorf("a plan of %d calls: more than %d", first+len(calls), MaxCalls)
	}
	// Where the data begins depends on the number of relocations, so lay everything out twice.
	var e encoder
	for range 2 {
		e = encoder{base: align(headSize + len(calls)*callSize + 4*len(e.relocs))}
		for _, call := range calls {
			if err := e.call(call); err != nil {
				return nil, err
			}
		}
	}
	plan := make([]byte, 0, e.base+len(e.data)+1)
	size := e.base + len(e.data) + 1
	if size > C.PODSH_MAX_BYTES {
		return nil, fmt.Errorf("a plan of %d bytes: more than %d", size, C.PODSH_MAX_BYTES)
	}
	plan = native.AppendUint64(plan, C.PODSH_MAGIC)
	for _, n := range []int{size, len(calls), len(e.relocs), first} {
		plan = native.AppendUint32(plan, uint32(n))
	}
	plan = append(plan, e.calls...)
	for _, at := range e.relocs {
		plan = native.AppendUint32(plan, at)
	}
	plan = append(plan, make([]byte, e.base-len(plan))...)
	plan = append(plan, e.data...)
	return append(plan, 0), nil
}

// isPlan says whether nsenter.c would perform these bytes. It works on a copy.
func isPlan(plan []byte) bool {
	words := make([]uint64, len(plan)/8+1) // aligned, as a mapping is
	bytes := unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), 8*len(words))
	n := copy(bytes, plan)
	return C.podsh_is_plan(unsafe.Pointer(&words[0]), C.size_t(n)) == 1
}

func align(n int) int { return (n + 7) &^ 7 }

func (e *encoder) call(call Call) error {
	var args [6]uint64
	var results uint64
	if len(call.Args) > len(args) {
		return fmt.Errorf("call %d has %d arguments", call.Nr, len(call.Args))
	}
	at := headSize + len(e.calls) + 24
	for i, arg := range call.Args {
		if r, ok := arg.(Result); ok {
			results |= 1 << i
			arg = int(r)
		}
		word, isAddress, err := e.word(arg)
		if err != nil {
			return fmt.Errorf("call %d: %w", call.Nr, err)
		}
		if isAddress {
			e.relocs = append(e.relocs, uint32(at+8*i))
		}
		args[i] = word
	}
	e.calls = native.AppendUint64(e.calls, uint64(int64(call.Nr)))
	e.calls = native.AppendUint64(e.calls, uint64(call.Tolerate))
	e.calls = native.AppendUint64(e.calls, results)
	for _, word := range args {
		e.calls = native.AppendUint64(e.calls, word)
	}
	return nil
}

// word lays one argument out: its value, and whether that is an offset which becomes an address.
func (e *encoder) word(arg any) (value uint64, isAddress bool, err error) {
	switch a := arg.(type) {
	case int:
		return uint64(int64(a)), false, nil
	case uintptr:
		return uint64(a), false, nil
	case uint64:
		return a, false, nil
	case string:
		return e.put(append([]byte(a), 0)), true, nil
	case []byte:
		return e.put(a), true, nil
	case Words:
		at := e.put(make([]byte, 8*len(a)))
		for i, word := range a {
			value, isAddress, err := e.word(word)
			if err != nil {
				return 0, false, err
			}
			if isAddress {
				e.relocs = append(e.relocs, uint32(int(at)+8*i))
			}
			native.PutUint64(e.data[int(at)-e.base+8*i:], value)
		}
		return at, true, nil
	}
	return 0, false, fmt.Errorf("an argument of type %T", arg)
}

func (e *encoder) put(bytes []byte) uint64 {
	e.data = append(e.data, make([]byte, align(len(e.data))-len(e.data))...)
	at := e.base + len(e.data)
	e.data = append(e.data, bytes...)
	return uint64(at)
}

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
		return nil, err
	}
	e := &Executor{PID: pid, sock: host}
	if pidfd >= 0 {
		e.PIDFD = os.NewFile(uintptr(pidfd), "pidfd")
	}
	return e, nil
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

// next takes in what the executor says next.
func (e *Executor) next() error {
	var record [8]byte
	if _, err := io.ReadFull(e.sock, record[:]); err != nil {
		return ErrGone
	}
	what, value := int(int32(native.Uint32(record[:]))), int(int32(native.Uint32(record[4:])))
	switch {
	case what >= 0:
		return &CallError{Place: what, Errno: syscall.Errno(value)}
	case what == C.PODSH_DONE:
		e.done = value
	case what == C.PODSH_CLONED:
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

func reap(pid int) {
	for {
		if _, err := syscall.Wait4(pid, nil, 0, nil); err != syscall.EINTR {
			return
		}
	}
}

// Joiner is what runs a command in a pod: a podsh binary, the pidfd of the pod's holder, what to do there,
// and this process's own arguments, for the words about a failure.
type Joiner struct {
	Exe   *os.File
	Pod   *os.File
	Calls []Call
	Args  []string
}

// plan encodes the joiner's plan into a file.
func (j *Joiner) plan() (*os.File, error) {
	plan, err := Encode(j.Calls, 0)
	if err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("plan", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	file := os.NewFile(uintptr(fd), "plan")
	if _, err := file.WriteAt(plan, 0); err != nil {
		return nil, fmt.Errorf("write the plan: %w", err)
	}
	return file, nil
}

func (j *Joiner) argv() []string { return append([]string{"podsh@join"}, j.Args...) }

// Exec makes this very process the joiner: it ends with the command's status. It returns only if that was
// not possible.
func (j *Joiner) Exec() error {
	plan, err := j.plan()
	if err != nil {
		return err
	}
	exe, err := Path(j.Exe)
	if err != nil {
		return err
	}
	for to, file := range map[int]*os.File{JoinFD: plan, PodFD: j.Pod} {
		if err := unix.Dup3(int(file.Fd()), to, 0); err != nil {
			return withLimit(err)
		}
	}
	err = syscall.Exec(exe, j.argv(), os.Environ())
	return fmt.Errorf("execve %s: %w", j.Exe.Name(), err)
}

// withLimit says what dup3(2) means by EBADF.
func withLimit(err error) error {
	if err == unix.EBADF {
		return fmt.Errorf("dup3: %w: more than %d descriptors must be allowed (ulimit -n)", err, clearOf)
	}
	return fmt.Errorf("dup3: %w", err)
}

// StartWithTerminal starts the joiner beside this process, with the same standard input, output and error,
// and returns the terminal that its plan passes out; nil if it failed before, which its status tells. It
// dies with the calling thread: lock that to its goroutine.
func (j *Joiner) StartWithTerminal() (joiner *os.Process, terminal *os.File, err error) {
	plan, err := j.plan()
	if err != nil {
		return nil, nil, err
	}
	defer plan.Close()
	exe, err := Path(j.Exe)
	if err != nil {
		return nil, nil, err
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "terminal"), os.NewFile(uintptr(fds[1]), "terminal")
	defer ours.Close()
	files := []*os.File{0: os.Stdin, 1: os.Stdout, 2: os.Stderr, JoinFD: plan, PodFD: j.Pod, TTYFD: theirs}
	joiner, err = os.StartProcess(exe, j.argv(), &os.ProcAttr{
		Files: files, Env: os.Environ(), Sys: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}})
	theirs.Close()
	if err != nil {
		return nil, nil, err
	}
	return joiner, receiveFD(fds[0]), nil
}

// receiveFD receives a descriptor, unix(7); nil if the other side is gone.
func receiveFD(socket int) *os.File {
	control := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(socket, make([]byte, 1), control, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil || len(messages) != 1 {
		return nil
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil
	}
	return os.NewFile(uintptr(fds[0]), "/dev/ptmx")
}

// PassFD is the argument of sendmsg(2) that passes a descriptor: a struct msghdr with one byte of data.
func PassFD(fd int) Words {
	control := unix.UnixRights(fd)
	return Words{0, 0, Words{"", 1}, 1, control, len(control), 0}
}

// Ready is what a plan sends to its joiner on ReportFD: whether that works tells if the joiner is still
// there.
func Ready() []byte {
	ready := int32(C.PODSH_READY)
	return native.AppendUint32(native.AppendUint32(nil, uint32(ready)), 0)
}

// ReadySize is the length of Ready.
const ReadySize = C.sizeof_struct_podsh_record

// Format tells plans of one podsh from those of another that it can't perform.
const Format = C.PODSH_MAGIC

// Path names an open program for Start, clear of the places that are handed over. It stays open.
func Path(file *os.File) (string, error) {
	fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, clearOf)
	if err != nil {
		return "", fmt.Errorf("copy a descriptor: %w", err)
	}
	return fdPath(fd), nil
}

// clearOf is above every place that a descriptor is handed over at.
const clearOf = TTYFD + 1

func fdPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// Saved tells which holder a saved plan is for. Create leaves such a plan so that a plain join need not
// start Go.
type Saved struct {
	PID        int
	PIDFDInode uint64 // 0 before Linux 6.9
	Started    string // field 22 of /proc/PID/stat: clock ticks since boot
	BootID     string // with its newline
	OwnFile    bool   // the holder runs from a file that nothing in the pod can write: joiners must, too
}

// EncodeSaved makes the bytes of a saved plan.
func EncodeSaved(s Saved, calls []Call) ([]byte, error) {
	plan, err := Encode(calls, 0)
	if err != nil {
		return nil, err
	}
	file := make([]byte, 0, savedSize+len(plan))
	file = native.AppendUint64(file, C.PODSH_MAGIC)
	file = native.AppendUint64(file, s.PIDFDInode)
	file = native.AppendUint32(file, uint32(s.PID))
	own := uint32(0)
	if s.OwnFile {
		own = 1
	}
	file = native.AppendUint32(file, own)
	for _, field := range []struct {
		text string
		size int
	}{{s.BootID, 40}, {fmt.Sprintf("/proc/%d/", s.PID), 24}, {s.Started, 24}} {
		if len(field.text) >= field.size {
			return nil, fmt.Errorf("%q is too long for a saved plan", field.text)
		}
		file = append(file, field.text...)
		file = append(file, make([]byte, field.size-len(field.text))...)
	}
	return append(file, plan...), nil
}
