package container

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/nsenter"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/proc"
)

// Started is a container's command that has been started, a child of this process.
type Started struct {
	process proc.ID
	pidfd   *os.File
	Mounts  *os.File // its mount namespace
}

// mountNS is the number of the mount namespace that the command has for itself; 0 if that was not to be seen.
func (s *Started) mountNS() uint64 {
	var st unix.Stat_t
	if s.Mounts == nil || unix.Fstat(int(s.Mounts.Fd()), &st) != nil {
		return 0
	}
	return st.Ino
}

// Runs makes a state that of the command, watched over by watcher.
func (s *Started) Runs(state *pod.ContainerState, watcher proc.ID) {
	state.Status, state.Process, state.MountNS, state.Watcher = pod.Up, s.process, s.mountNS(), watcher
	state.Started, state.RestartAt = time.Now().UTC(), time.Time{}
}

// Signal sends the command a signal; one that has ended is past it. The pidfd is its own whatever becomes of its pid.
func (s *Started) Signal(sig unix.Signal) error {
	return proc.Member{PID: s.process.PID, PIDFD: s.pidfd}.Signal(sig)
}

// Kill ends the command, which can't refuse.
func (s *Started) Kill() { _ = s.Signal(unix.SIGKILL) }

// newStarted describes what an executor has become so far. It outlives the executor's own descriptors.
func newStarted(executor *nsenter.Executor) (*Started, error) {
	process, err := proc.Identify(executor.PID, executor.PIDFD)
	if err != nil {
		return nil, err
	}
	fd, err := unix.FcntlInt(executor.PIDFD.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("copy a descriptor: %w", err)
	}
	s := &Started{process: process, pidfd: os.NewFile(uintptr(fd), "pidfd")}
	for _, file := range executor.Passed() {
		s.Mounts = file
	}
	return s, nil
}

// Close closes what is held of the command, which goes on.
func (s *Started) Close() {
	s.pidfd.Close()
	if s.Mounts != nil {
		s.Mounts.Close()
	}
}

// Wait waits until the command has ended, and says how: its status as a shell would give it.
func (s *Started) Wait() int {
	return proc.AsShell(proc.WaitFor(s.process.PID))
}
