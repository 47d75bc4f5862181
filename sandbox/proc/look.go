package proc

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// InParts lets each processor do a part of n things. Most of their time is the kernel's.
func InParts(n int, do func(from, to int)) {
	size := n/runtime.GOMAXPROCS(0) + 1
	var workers sync.WaitGroup
	for from := 0; from < n; from += size {
		workers.Go(func() { do(from, min(from+size, n)) })
	}
	workers.Wait()
}

// Sighting is a process that was seen in a namespace.
type Sighting struct {
	PID       int
	Namespace uint64 // of the namespace
}

// All lists all pids, in ascending order.
func All() ([]int, error) {
	proc, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer proc.Close()
	names, err := proc.Readdirnames(-1)
	var pids []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids, err
}

// Look sees in which namespace of a kind each process is.
func Look(kind string, pids []int) []Sighting {
	inodes := make([]uint64, len(pids))
	InParts(len(pids), func(from, to int) {
		for i := from; i < to; i++ {
			inodes[i], _ = NamespaceInode(strconv.Itoa(pids[i]), kind)
		}
	})
	seen := make([]Sighting, 0, len(pids))
	for i, inode := range inodes {
		if inode != 0 {
			seen = append(seen, Sighting{pids[i], inode})
		}
	}
	return seen
}

// inside tells in which of some namespaces a process is.
type inside struct {
	kind string
	in   map[uint64]uint64 // a namespace to the one of ours that it is, or is below; 0: none
}

// NewInside asks of each Sighting which of these namespaces of one kind it is in, or below.
func NewInside(kind string, inodes ...uint64) *inside {
	i := &inside{kind, map[uint64]uint64{}}
	if own, err := NamespaceInode("self", kind); err == nil {
		i.in[own] = 0 // what podsh is in itself is below no pod
	}
	for _, inode := range inodes {
		i.in[inode] = inode
	}
	return i
}

// Which returns the namespace, or the nearest above that of the process; else 0.
func (i *inside) Which(s Sighting) uint64 {
	in, ok := i.in[s.Namespace]
	if !ok {
		in = i.above(s.PID)
		i.in[s.Namespace] = in
	}
	return in
}

// above goes up from the namespace of a process. Mount namespaces have nothing above them.
func (i *inside) above(pid int) uint64 {
	if i.kind == "mnt" {
		return 0
	}
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/%s", pid, i.kind), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	for err == nil {
		var st unix.Stat_t
		err = unix.Fstat(fd, &st)
		if in := i.in[st.Ino]; err == nil && in != 0 {
			unix.Close(fd)
			return in
		}
		var parent int
		parent, err = unix.IoctlRetInt(fd, unix.NS_GET_PARENT) // EPERM above our own, ioctl_nsfs(2)
		unix.Close(fd)
		fd = parent
	}
	return 0
}

// NamespaceInode reads the number that stands for a namespace as long as it lives, namespaces(7). The link
// is cheaper to read than to follow.
func NamespaceInode(pid, kind string) (uint64, error) {
	var buffer [64]byte
	n, err := unix.Readlink("/proc/"+pid+"/ns/"+kind, buffer[:])
	if err != nil {
		return 0, err
	}
	link := string(buffer[:n]) // pid:[4026531836]
	inode, err := strconv.ParseUint(strings.Trim(link[strings.IndexByte(link, ':')+1:], "[]"), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("/proc/%s/ns/%s: %w", pid, kind, err)
	}
	return inode, nil
}

// Member is a process of a pod by its pidfd: whatever becomes of its pid, nobody else gets its signals.
type Member struct {
	PID   int
	PIDFD *os.File
}

// Signal sends a signal; a member that is gone is past it.
func (m Member) Signal(sig unix.Signal) error {
	err := unix.PidfdSendSignal(int(m.PIDFD.Fd()), sig, nil, 0)
	if err != nil && err != unix.ESRCH {
		return fmt.Errorf("send %s to process %d: %w", unix.SignalName(sig), m.PID, err)
	}
	return nil
}
