// Package proc knows a process by its identity, which is not its pid alone: it opens, signals and awaits it by a pidfd,
// reads what /proc says of it, and tells in which namespaces it is. Names of signals and
// sockets between processes are here as well. It knows nothing of pods: whose process that is,
// and what its end means, others know.
package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/sandbox/fault"
)

// ID identifies the process that holds a pod's namespaces. A pid alone does not: it is used again.
type ID struct {
	PID        int    `json:"pid"`
	Started    string `json:"started"`               // clock ticks since boot: field 22 of /proc/PID/stat, proc_pid_stat(5)
	BootID     string `json:"boot_id"`               // of the boot that it lived in
	PIDFDInode uint64 `json:"pidfd_inode,omitempty"` // unique until reboot since Linux 6.9; else 0
}

// BootID names this boot of the machine: pids of another mean nothing.
var BootID = sync.OnceValues(func() (string, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(id)), err
})

// Identify describes the living process pid, of which pidfd is held.
func Identify(pid int, pidfd *os.File) (ID, error) {
	boot, err := BootID()
	if err != nil {
		return ID{}, err
	}
	started, err := StartTime(pid)
	if err != nil {
		return ID{}, err
	}
	return ID{PID: pid, Started: started, BootID: boot, PIDFDInode: pidfdInode(pidfd)}, nil
}

// StartTime reads field 22 of /proc/PID/stat. The second field is a name in parentheses that may hold
// anything, so counting begins at the last one.
func StartTime(pid int) (string, error) {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return "", err
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 20 {
		return "", fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields)+2)
	}
	return fields[19], nil
}

// pidfdInode returns the number that tells one process from every other until reboot. Pidfds have a file
// system of their own since Linux 6.9 and share one inode before.
func pidfdInode(pidfd *os.File) uint64 {
	var fs unix.Statfs_t
	var st unix.Stat_t
	if unix.Fstatfs(int(pidfd.Fd()), &fs) != nil || fs.Type != unix.PID_FS_MAGIC || unix.Fstat(int(pidfd.Fd()), &st) != nil {
		return 0
	}
	return st.Ino
}

// Open returns a pidfd of the holder, or ErrExited. The pidfd is opened first, and only then compared: so
// what is compared can't be followed by another process of the same number.
func (h ID) Open() (*os.File, error) {
	boot, err := BootID()
	if err != nil {
		return nil, err
	}
	if boot != h.BootID {
		return nil, fault.ErrExited
	}
	fd, err := unix.PidfdOpen(h.PID, 0)
	if err == unix.ESRCH || err == unix.EINVAL || err == unix.ENOENT { // nobody has it, or a thread (6.18: ENOENT)
		return nil, fault.ErrExited
	}
	if err != nil {
		return nil, fmt.Errorf("pidfd_open %d: %w", h.PID, err)
	}
	pidfd := os.NewFile(uintptr(fd), "pidfd")
	if !h.is(pidfd) || Exited(pidfd) {
		pidfd.Close()
		return nil, fault.ErrExited
	}
	return pidfd, nil
}

// Alive says whether that process, and no later one of its pid, has not ended.
func (h ID) Alive() bool {
	if h.PID == 0 {
		return false
	}
	pidfd, err := h.Open()
	if err != nil {
		return false
	}
	pidfd.Close()
	return true
}

func (h ID) is(pidfd *os.File) bool {
	if h.PIDFDInode != 0 {
		return pidfdInode(pidfd) == h.PIDFDInode
	}
	started, err := StartTime(h.PID)
	return err == nil && started == h.Started
}

// Exited says whether the process behind a pidfd has ended: then poll(2) finds it readable.
func Exited(pidfd *os.File) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd.Fd()), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n == 1
}

// With does something with a process, if it has not ended.
func (h ID) With(do func(pidfd *os.File) error) error {
	pidfd, err := h.Open()
	if errors.Is(err, fault.ErrExited) {
		return nil
	}
	if err != nil {
		return err
	}
	defer pidfd.Close()
	return do(pidfd)
}

// IdentifySelf is this process as others can know it.
func IdentifySelf() (ID, error) {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return ID{}, fmt.Errorf("pidfd_open: %w", err)
	}
	pidfd := os.NewFile(uintptr(fd), "pidfd")
	defer pidfd.Close()
	return Identify(os.Getpid(), pidfd)
}
