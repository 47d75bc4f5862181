package proc

import (
	"golang.org/x/sys/unix"
)

// AsShell is how a shell tells how a process ended.
func AsShell(status unix.WaitStatus) int {
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}

// WaitFor waits until a child has ended.
func WaitFor(pid int) (status unix.WaitStatus) {
	for {
		if _, err := unix.Wait4(pid, &status, 0, nil); err != unix.EINTR {
			return status
		}
	}
}
