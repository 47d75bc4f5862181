package sandbox

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/sandbox/container"
	"github.com/podsh/podsh/sandbox/pod"
)

// SweepMounts ends whatever is left in the container's mount namespace.
func SweepMounts(s *container.Started, pod *pod.Pod) error {
	if s.Mounts == nil {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(s.Mounts.Fd()), &st); err != nil {
		return fmt.Errorf("stat %s: %w", s.Mounts.Name(), err)
	}
	return (&membership{pod, "mnt", s.Mounts, st.Ino}).destroy()
}
