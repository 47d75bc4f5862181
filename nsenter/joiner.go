package nsenter

// #include "nsenter.h"
import "C"

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Joiner is what runs a command in a pod: a podsh binary, the pidfd of the pod's holder, what to do there,
// this process's own arguments, for the words about a failure, and sockets that the command is given.
type Joiner struct {
	Exe     *os.File
	Pod     *os.File
	Calls   []Call
	Args    []string
	Sockets []*os.File
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
	exe, err := clear(j.Exe)
	if err != nil {
		return err
	}
	handed := map[int]*os.File{JoinFD: plan, PodFD: j.Pod}
	for i, socket := range j.Sockets {
		handed[ListenFD+i] = socket
	}
	for to, file := range handed {
		if err := unix.Dup3(int(file.Fd()), to, 0); err != nil {
			return withLimit(err)
		}
	}
	err = syscall.Exec(exe, j.argv(), os.Environ())
	return fmt.Errorf("execve %s: %w", j.Exe.Name(), err)
}

// clear names an open program by a number that is clear of the places that are handed over.
func clear(file *os.File) (string, error) {
	fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, clearOf)
	if err != nil {
		return "", fmt.Errorf("copy a descriptor: %w", err)
	}
	return fdPath(fd), nil
}

// withLimit says what dup3(2) means by EBADF.
func withLimit(err error) error {
	if err == unix.EBADF {
		return fmt.Errorf("dup3: %w: more than %d descriptors must be allowed (ulimit -n)", err, clearOf)
	}
	return fmt.Errorf("dup3: %w", err)
}

// Start starts the joiner beside this process, with these files as standard input, output and error; terminal is where its
// plan passes a terminal out, or nil. It dies with the calling thread: lock that to its goroutine.
func (j *Joiner) Start(stdio [3]*os.File, terminal *os.File, attr *syscall.SysProcAttr) (*os.Process, error) {
	plan, err := j.plan()
	if err != nil {
		return nil, err
	}
	defer plan.Close()
	attr.Pdeathsig = syscall.SIGKILL
	files := []*os.File{0: stdio[0], 1: stdio[1], 2: stdio[2], JoinFD: plan, PodFD: j.Pod, TTYFD: terminal, clearOf: j.Exe} // see StartFile
	copy(files[ListenFD:], j.Sockets)
	return os.StartProcess(fdPath(clearOf), j.argv(), &os.ProcAttr{Files: files, Env: os.Environ(), Sys: attr})
}

// StartWithTerminal starts the joiner with this process's own standard input, output and error, and returns the terminal
// that its plan passes out; nil if it failed before, which its status tells.
func (j *Joiner) StartWithTerminal() (joiner *os.Process, terminal *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "terminal"), os.NewFile(uintptr(fds[1]), "terminal")
	defer ours.Close()
	joiner, err = j.Start([3]*os.File{os.Stdin, os.Stdout, os.Stderr}, theirs, &syscall.SysProcAttr{})
	theirs.Close()
	if err != nil {
		return nil, nil, err
	}
	return joiner, ReceiveFD(ours), nil
}

// ReceiveFD receives a descriptor, unix(7); nil if the other side is gone.
func ReceiveFD(socket *os.File) *os.File {
	control := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(int(socket.Fd()), make([]byte, 1), control, unix.MSG_CMSG_CLOEXEC)
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
