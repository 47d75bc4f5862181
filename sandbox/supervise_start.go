package sandbox

import (
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// supervisorEnv is what a supervisor needs of its caller's environment: where things lie on disk.
func supervisorEnv() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return !slices.Contains([]string{"CNI_PATH", "HOME", "PATH", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"}, name)
	})
}

// detachedAttr puts a process into a session of its own: no terminal sends it signals.
func detachedAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

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
