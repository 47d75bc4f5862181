package sandbox

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/nsenter"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/proc"
)

// mountNS is the number of the mount namespace that the command has for itself; 0 if that was not to be seen.
func (s *started) mountNS() uint64 {
	var st unix.Stat_t
	if s.mounts == nil || unix.Fstat(int(s.mounts.Fd()), &st) != nil {
		return 0
	}
	return st.Ino
}

// runs makes a state that of the command, watched over by watcher.
func (s *started) runs(state *pod.ContainerState, watcher proc.ID) {
	state.Status, state.Process, state.MountNS, state.Watcher = pod.Up, s.process, s.mountNS(), watcher
	state.Started, state.RestartAt = time.Now().UTC(), time.Time{}
}

// signal sends the command a signal; one that has ended is past it. The pidfd is its own whatever becomes of its pid.
func (s *started) signal(sig unix.Signal) error {
	return proc.Member{PID: s.process.PID, PIDFD: s.pidfd}.Signal(sig)
}

func (s *started) kill() { _ = s.signal(unix.SIGKILL) }

// started is a container's command that has been started, a child of this process.
type started struct {
	process proc.ID
	pidfd   *os.File
	mounts  *os.File // its mount namespace
}

// newStarted describes what an executor has become so far. It outlives the executor's own descriptors.
func newStarted(executor *nsenter.Executor) (*started, error) {
	process, err := proc.Identify(executor.PID, executor.PIDFD)
	if err != nil {
		return nil, err
	}
	fd, err := unix.FcntlInt(executor.PIDFD.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("copy a descriptor: %w", err)
	}
	s := &started{process: process, pidfd: os.NewFile(uintptr(fd), "pidfd")}
	for _, file := range executor.Passed() {
		s.mounts = file
	}
	return s, nil
}

func (s *started) close() {
	s.pidfd.Close()
	if s.mounts != nil {
		s.mounts.Close()
	}
}

// wait waits until the command has ended, and says how: its status as a shell would give it.
func (s *started) wait() int {
	return proc.AsShell(proc.WaitFor(s.process.PID))
}

// sweepMounts ends whatever is left in the container's mount namespace.
func (s *started) sweepMounts(pod *pod.Pod) error {
	if s.mounts == nil {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(s.mounts.Fd()), &st); err != nil {
		return fmt.Errorf("stat %s: %w", s.mounts.Name(), err)
	}
	return (&membership{pod, "mnt", s.mounts, st.Ino}).destroy()
}
