package container

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/sandbox/fault"
)

// Streams are the standard streams of a command in place of those of podsh's caller.
//
// Who has a descriptor can open anew what it stands for, by /proc/self/fd: a file that was handed over for reading also for
// writing. And programs do so with their output, by /dev/stdout: a file or a terminal refuses that to another user than its
// owner, a socket to everybody. So a command gets pipes, which all its users may open. A pipe of the caller's it gets as it
// is; for whatever else podsh makes one, and copies.
type Streams struct {
	In, Out, Err *os.File // nil: /dev/null

	made    []*os.File // the command's ends of podsh's own pipes
	input   *copied
	outputs []*copied
	ended   atomic.Bool // the command, and all that it has left
	group   sync.WaitGroup
}

// copied is a stream of the caller's, and podsh's end of the pipe that stands for it.
type copied struct {
	name string
	file *os.File
	pipe *os.File
	err  error
}

// NewStreams makes pipes for what is to be copied. A stream that is nil stays nil.
func NewStreams(in, out, stderr *os.File) (s *Streams, err error) {
	s = &Streams{In: in, Out: out, Err: stderr}
	same := sameFile(out, stderr) // then one pipe keeps the order in which they are written to
	err = s.pass(&s.In, "standard input")
	if err == nil {
		err = s.pass(&s.Out, "standard output")
	}
	if same {
		s.Err = s.Out
	} else if err == nil {
		err = s.pass(&s.Err, "standard error")
	}
	if err != nil {
		s.Close()
	}
	return s, err
}

// checkStream refuses what a command could leave its root by: with a folder, or what O_PATH has opened, it could go on to
// whatever is beside it, openat(2).
func checkStream(file *os.File, name string) error {
	var st unix.Stat_t
	if file == nil || unix.Fstat(int(file.Fd()), &st) != nil {
		return nil // one that is closed leads nowhere
	}
	flags, err := unix.FcntlInt(file.Fd(), unix.F_GETFL, 0)
	if err != nil {
		return fmt.Errorf("fcntl: %w", err)
	}
	kept, err := unix.FcntlInt(file.Fd(), unix.F_GETFD, 0)
	if err != nil {
		return fmt.Errorf("fcntl: %w", err)
	}
	hint := []string{"redirect " + name + " from or to a file, a pipe or /dev/null"}
	switch {
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return fault.New(nil, hint, "%s is a folder: who has it in a pod could leave the pod's root by it", name)
	case flags&unix.O_PATH != 0 && kept&unix.FD_CLOEXEC == 0: // else it stands for one that was closed, nsenter.c
		return fault.New(nil, hint, "%s was opened with O_PATH: who has it in a pod could leave the pod's root by it", name)
	}
	return nil
}

// checkOwnStreams is checkStream for all that a command inherits.
func checkOwnStreams() error {
	for _, stream := range []struct {
		file *os.File
		name string
	}{{os.Stdin, "standard input"}, {os.Stdout, "standard output"}, {os.Stderr, "standard error"}} {
		if err := checkStream(stream.file, stream.name); err != nil {
			return err
		}
	}
	return nil
}

// pass puts what the command gets in the place of a stream of the caller's.
func (s *Streams) pass(stream **os.File, name string) error {
	file := *stream
	if err := checkStream(file, name); err != nil {
		return err
	}
	switch {
	case file == nil || isNull(file):
		*stream = nil
		return nil
	case isPipe(file) && OpenToAll(file) == nil: // EPERM: it is somebody else's
		return nil
	}
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	if stream == &s.In {
		*stream, s.input = read, &copied{name: name, file: file, pipe: write}
	} else {
		*stream, s.outputs = write, append(s.outputs, &copied{name: name, file: file, pipe: read})
	}
	s.made = append(s.made, *stream)
	return OpenToAll(*stream)
}

// OpenToAll lets every user of a pod open a pipe anew. Nobody can who has no descriptor of it, proc_pid_fd(5).
func OpenToAll(pipe *os.File) error {
	if err := unix.Fchmod(int(pipe.Fd()), 0o666); err != nil {
		return fmt.Errorf("fchmod of a pipe: %w", err)
	}
	return nil
}

// isPipe says whether a file is one end of a pipe(2); one that has a name is not, others find it by that.
func isPipe(file *os.File) bool {
	var fs unix.Statfs_t
	return unix.Fstatfs(int(file.Fd()), &fs) == nil && fs.Type == unix.PIPEFS_MAGIC
}

// ownFile says whether a file is this user's.
func ownFile(file *os.File) bool {
	var st unix.Stat_t
	return unix.Fstat(int(file.Fd()), &st) == nil && int(st.Uid) == os.Geteuid()
}

func isNull(file *os.File) bool {
	var st unix.Stat_t
	return unix.Fstat(int(file.Fd()), &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3)
}

// nullStreams are the places of those standard streams that are the host's /dev/null, or none.
func nullStreams(streams ...*os.File) []int {
	var nulls []int
	for fd, file := range streams {
		if file == nil || isNull(file) {
			nulls = append(nulls, fd)
		}
	}
	return nulls
}

func sameFile(a, b *os.File) bool {
	var one, other unix.Stat_t
	return a != nil && b != nil && unix.Fstat(int(a.Fd()), &one) == nil && unix.Fstat(int(b.Fd()), &other) == nil &&
		one.Dev == other.Dev && one.Ino == other.Ino
}

// Copied says whether there is anything to copy.
func (s *Streams) Copied() bool { return s.input != nil || len(s.outputs) > 0 }

// Copy begins to copy. The command has what it needs: podsh lets go of that.
func (s *Streams) Copy() {
	s.release()
	if s.input != nil {
		go s.input.in()
	}
	for _, c := range s.outputs {
		s.group.Go(func() { c.out(&s.ended) })
	}
}

func (s *Streams) release() {
	for _, file := range s.made {
		file.Close()
	}
	s.made = nil
}

// Close lets go of the pipes of a command that never ran.
func (s *Streams) Close() {
	s.release()
	for _, c := range append(s.outputs, s.input) {
		if c != nil {
			c.pipe.Close()
		}
	}
}

// Drain comes when the command has ended, and all that it has left: what they have written is passed on to the last byte.
func (s *Streams) Drain() error {
	s.ended.Store(true)
	var errs []error
	for _, c := range s.outputs {
		_ = c.pipe.SetReadDeadline(time.Now()) // wakes who waits for more; a pipe that is closed needs no waking
	}
	s.group.Wait()
	for _, c := range s.outputs {
		errs = append(errs, c.err)
	}
	return errors.Join(errs...)
}

// out copies what the command writes. When nobody reads it any more the command learns of that, by SIGPIPE.
func (c *copied) out(ended *atomic.Bool) {
	defer c.pipe.Close()
	buffer := make([]byte, 1<<16)
	for left := mostInPipe; left > 0; {
		read, last := c.pipe.Read, ended.Load()
		if last { // a process that got away may have the pipe, too: what is in there now is all
			read = c.readLeft
		}
		n, err := read(buffer)
		if last {
			left -= n
		}
		if wrote := writeAll(int(c.file.Fd()), buffer[:n]); wrote != nil {
			if wrote != unix.EPIPE {
				c.err = fmt.Errorf("write to %s: %w", c.name, wrote)
			}
			return
		}
		if err != nil && (last || !errors.Is(err, os.ErrDeadlineExceeded)) {
			return
		}
	}
}

const (
	drained    = 10      // milliseconds that a pipe which says nothing is listened to when the command has ended
	mostInPipe = 1 << 20 // /proc/sys/fs/pipe-max-size
)

// readLeft reads what is there, or comes right away. Go's own read with a deadline reads nothing once that is over, whatever
// is there.
func (c *copied) readLeft(buffer []byte) (n int, err error) {
	conn, err := c.pipe.SyscallConn()
	if err != nil {
		return 0, err
	}
	failed := conn.Control(func(fd uintptr) {
		if n, err = unix.Read(int(fd), buffer); err == unix.EAGAIN {
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, drained) // the read tells
			n, err = unix.Read(int(fd), buffer)
		}
	})
	if n == 0 && err == nil {
		err = io.EOF
	}
	return max(n, 0), errors.Join(failed, err)
}

// in copies what podsh reads, until it ends or the command does not want any more.
func (c *copied) in() {
	defer c.pipe.Close()
	buffer := make([]byte, 1<<16)
	for {
		n, err := unix.Read(int(c.file.Fd()), buffer)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			await(int(c.file.Fd()), unix.POLLIN)
		case n <= 0:
			return
		default:
			if _, err := c.pipe.Write(buffer[:n]); err != nil {
				return
			}
		}
	}
}

// writeAll writes to a descriptor of the caller's, which whoever else has it may have made non-blocking.
func writeAll(fd int, text []byte) error {
	for len(text) > 0 {
		n, err := unix.Write(fd, text)
		switch {
		case err == unix.EAGAIN:
			await(fd, unix.POLLOUT)
		case err != nil && err != unix.EINTR:
			return err
		case n > 0:
			text = text[n:]
		}
	}
	return nil
}

// await waits until a descriptor can be read or written.
func await(fd int, events int16) {
	_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: events}}, -1) // EINTR: whoever asked tries again
}
