package proc

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/sandbox/fault"
)

// HungUp says whether who was asked went away instead of answering.
func HungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET)
}

// EndProcess ends a process of ours that is known by its identity, and waits until it is gone.
func EndProcess(process ID, what string) error {
	pidfd, err := process.Open()
	if errors.Is(err, fault.ErrExited) {
		return nil
	}
	if err != nil {
		return err
	}
	defer pidfd.Close()
	for _, try := range []struct {
		sig  unix.Signal
		wait time.Duration
	}{{unix.SIGTERM, UntilKill}, {unix.SIGKILL, UntilGiveUp}} {
		if err := (Member{process.PID, pidfd}).Signal(try.sig); err != nil {
			return err
		}
		if gone, err := Ended(pidfd, time.Now().Add(try.wait)); gone || err != nil {
			return err
		}
	}
	return Hanging("%s (pid %d)", what, process.PID)
}

// How long the holder has to end: on SIGTERM, which it takes at once unless it is stopped or its members'
// parents are, and on SIGKILL.
const (
	UntilWake   = 100 * time.Millisecond
	UntilKill   = time.Second
	UntilGiveUp = 10 * time.Second
)

// Hanging is the error of a process that outlives SIGKILL; format names it.
func Hanging(format string, args ...any) error {
	return fault.New(nil, []string{"`ps -eo pid,ppid,stat,wchan,args` shows why: state D hangs in the kernel, and Z waits for its parent"},
		format+" does not end, not even by SIGKILL", args...)
}

// Ended waits until the process behind a pidfd has ended, or the deadline; the zero one never comes.
func Ended(pidfd *os.File, deadline time.Time) (bool, error) { return Readable(deadline, pidfd) }

// Readable waits until one of the files can be read.
func Readable(deadline time.Time, files ...*os.File) (bool, error) {
	var fds []unix.PollFd
	for _, f := range files {
		fds = append(fds, unix.PollFd{Fd: int32(f.Fd()), Events: unix.POLLIN})
	}
	for {
		timeout := -1
		if !deadline.IsZero() {
			// Rounded up: else the last millisecond would be waited for in no time, again and again.
			timeout = int(min(math.MaxInt32, max(0, time.Until(deadline)+time.Millisecond-1)/time.Millisecond))
		}
		n, err := unix.Poll(fds, timeout)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("poll: %w", err)
		}
		return n > 0, nil
	}
}

// Ending says whether a holder whose /proc does not answer is on its way out. From the start of a process's
// end /proc refuses what it told before; the pidfd tells only of the end of the end.
func Ending(pidfd *os.File) bool {
	gone, err := Ended(pidfd, time.Now().Add(UntilKill))
	return gone && err == nil
}
