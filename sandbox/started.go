package sandbox

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// mountNS is the number of the mount namespace that the command has for itself; 0 if that was not to be seen.
func (s *started) mountNS() uint64 {
	var st unix.Stat_t
	if s.mounts == nil || unix.Fstat(int(s.mounts.Fd()), &st) != nil {
		return 0
	}
	return st.Ino
}

// signal sends the command a signal; one that has ended is past it. The pidfd is its own whatever becomes of its pid.
func (s *started) signal(sig unix.Signal) error {
	return member{s.process.PID, s.pidfd}.signal(sig)
}

func (s *started) kill() { _ = s.signal(unix.SIGKILL) }

// started is a container's command that has been started, a child of this process.
type started struct {
	process Holder
	pidfd   *os.File
	mounts  *os.File // its mount namespace
}

func (s *started) close() {
	s.pidfd.Close()
	if s.mounts != nil {
		s.mounts.Close()
	}
}

// wait waits until the command has ended, and says how: its status as a shell would give it.
func (s *started) wait() int {
	var status unix.WaitStatus
	for {
		if _, err := unix.Wait4(s.process.PID, &status, 0, nil); err != unix.EINTR {
			break
		}
	}
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}

// sweepMounts ends whatever is left in the container's mount namespace.
func (s *started) sweepMounts(pod *Pod) error {
	if s.mounts == nil {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(s.mounts.Fd()), &st); err != nil {
		return fmt.Errorf("stat %s: %w", s.mounts.Name(), err)
	}
	return (&membership{pod, "mnt", s.mounts, st.Ino}).destroy()
}
