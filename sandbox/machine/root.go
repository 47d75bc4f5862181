package machine

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/proc"
)

// OpenRoot opens the root that a joiner will have.
func OpenRoot(p *pod.Pod, pidfd *os.File) (int, error) { return OpenRootOf(p, p.Holder.PID, pidfd) }

// OpenRootOf does so while the holder is not written down yet.
func OpenRootOf(p *pod.Pod, pid int, pidfd *os.File) (int, error) {
	root, err := unix.Open(fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if proc.Exited(pidfd) || err != nil && proc.Ending(pidfd) { // whatever was opened may be another process's
		if err == nil {
			unix.Close(root)
		}
		return -1, fault.New(fault.ErrExited, []string{"podsh rm " + p.Title()}, "pod %q has ended", p.Title())
	}
	if err != nil {
		return -1, fmt.Errorf("root of pod %q: %w", p.Title(), err)
	}
	return root, nil
}
