package sandbox

import (
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/sandbox/fault"
)

// MemberNamespace names the namespace by which the pod's members are told from all other processes: its pid
// namespace; where that is not its own, its mount namespace, else its user namespace. It is "" where none of
// them is its own: then there is no way to tell.
//
// A process never leaves its pid namespace, and what it puts into a child of it dies with it, so a process
// in a pid namespace below the pod's is a member as well. The same goes for user namespaces. Mount
// namespaces have no order: a process that makes one of its own in a pod without a pid namespace is lost
// from sight.
func (p *Pod) MemberNamespace() string {
	for _, name := range []string{"pid", "mnt", "user"} {
		if p.Namespaces[name].Kind == "new" {
			return name
		}
	}
	return ""
}

// Members finds the members of many pods with one look at /proc, by the id of the pod; the holder is none of
// them. Pods that have ended, and those without a MemberNamespace, are left out. What can't be read belongs
// to other users, or is gone.
func Members(pods []*Pod) (map[string][]int, error) {
	holders := map[string]map[int]*Pod{} // by kind of namespace
	for _, p := range pods {
		if kind := p.MemberNamespace(); kind != "" {
			if holders[kind] == nil {
				holders[kind] = map[int]*Pod{}
			}
			holders[kind][p.Holder.PID] = p
		}
	}
	members := map[string][]int{}
	if len(holders) == 0 {
		return members, nil
	}
	pids, err := processes()
	if err != nil {
		return nil, err
	}
	for kind, of := range holders {
		seen := look(kind, pids)
		pods := map[uint64]*Pod{}
		for _, s := range seen {
			if p := of[s.pid]; p != nil {
				pods[s.inode] = p
				members[p.ID] = []int{}
			}
		}
		inside := newInside(kind, slices.Collect(maps.Keys(pods))...)
		for _, s := range seen {
			if p := pods[inside.which(s)]; p != nil && s.pid != p.Holder.PID {
				members[p.ID] = append(members[p.ID], s.pid)
			}
		}
	}
	return members, nil
}

// Statuses looks what many pods are doing, in the order of the pods.
func Statuses(pods []*Pod) []Status {
	statuses := make([]Status, len(pods))
	inParts(len(pods), func(from, to int) {
		for i := from; i < to; i++ {
			statuses[i] = pods[i].Status()
		}
	})
	return statuses
}

// inParts lets each processor do a part of n things. Most of their time is the kernel's.
func inParts(n int, do func(from, to int)) {
	size := n/runtime.GOMAXPROCS(0) + 1
	var workers sync.WaitGroup
	for from := 0; from < n; from += size {
		workers.Go(func() { do(from, min(from+size, n)) })
	}
	workers.Wait()
}

// sighting is a process that was seen in a namespace.
type sighting struct {
	pid   int
	inode uint64 // of the namespace
}

// processes lists all pids, in ascending order.
func processes() ([]int, error) {
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

// look sees in which namespace of a kind each process is.
func look(kind string, pids []int) []sighting {
	inodes := make([]uint64, len(pids))
	inParts(len(pids), func(from, to int) {
		for i := from; i < to; i++ {
			inodes[i], _ = namespaceInode(strconv.Itoa(pids[i]), kind)
		}
	})
	seen := make([]sighting, 0, len(pids))
	for i, inode := range inodes {
		if inode != 0 {
			seen = append(seen, sighting{pids[i], inode})
		}
	}
	return seen
}

// inside tells in which of some namespaces a process is.
type inside struct {
	kind string
	in   map[uint64]uint64 // a namespace to the one of ours that it is, or is below; 0: none
}

func newInside(kind string, inodes ...uint64) *inside {
	i := &inside{kind, map[uint64]uint64{}}
	if own, err := namespaceInode("self", kind); err == nil {
		i.in[own] = 0 // what podsh is in itself is below no pod
	}
	for _, inode := range inodes {
		i.in[inode] = inode
	}
	return i
}

// which returns the namespace, or the nearest above that of the process; else 0.
func (i *inside) which(s sighting) uint64 {
	in, ok := i.in[s.inode]
	if !ok {
		in = i.above(s.pid)
		i.in[s.inode] = in
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

// namespaceInode reads the number that stands for a namespace as long as it lives, namespaces(7). The link
// is cheaper to read than to follow.
func namespaceInode(pid, kind string) (uint64, error) {
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

// member is a process of a pod by its pidfd: whatever becomes of its pid, nobody else gets its signals.
type member struct {
	pid   int
	pidfd *os.File
}

// signal sends a signal; a member that is gone is past it.
func (m member) signal(sig unix.Signal) error {
	err := unix.PidfdSendSignal(int(m.pidfd.Fd()), sig, nil, 0)
	if err != nil && err != unix.ESRCH {
		return fmt.Errorf("send %s to process %d: %w", unix.SignalName(sig), m.pid, err)
	}
	return nil
}

// membership is what the members of a living pod have in common. It holds their namespace open: so the
// kernel can't give its inode to another one while we look.
type membership struct {
	pod       *Pod
	kind      string
	namespace *os.File
	inode     uint64
}

// membership returns nil for a pod whose members can't be told. pidfd is of the holder.
func (p *Pod) membership(pidfd *os.File) (*membership, error) {
	kind := p.MemberNamespace()
	if kind == "" {
		return nil, nil
	}
	namespace, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", p.Holder.PID, kind))
	if err != nil && ending(pidfd) {
		return nil, fault.ErrExited
	}
	if err != nil {
		return nil, err
	}
	if exited(pidfd) { // then the pid may be another's by now
		namespace.Close()
		return nil, fault.ErrExited
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(namespace.Fd()), &st); err != nil {
		namespace.Close()
		return nil, fmt.Errorf("stat %s: %w", namespace.Name(), err)
	}
	return &membership{p, kind, namespace, st.Ino}, nil
}

func (m *membership) Close() { m.namespace.Close() }

// pids lists all processes in the namespace but the holder.
func (m *membership) pids() ([]int, error) {
	all, err := processes()
	if err != nil {
		return nil, err
	}
	inside := newInside(m.kind, m.inode)
	var pids []int
	for _, s := range look(m.kind, all) {
		if s.pid != m.pod.Holder.PID && inside.which(s) != 0 {
			pids = append(pids, s.pid)
		}
	}
	return pids, nil
}

// holdsAnother says whether a process in the namespace is the pause of another pod, which shares it. Such a
// pod is no member, though what runs in it is.
func (m *membership) holdsAnother(pid int) (bool, error) {
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil || string(name) != "pause\n" { // anyone can be called so, but every pause is
		return false, nil
	}
	pods, err := m.pod.store.List()
	return slices.ContainsFunc(pods, func(p *Pod) bool { return p.Holder.PID == pid && p.Status() == Running }), err
}

// members opens all members but those that are held already. Zombies are none: nothing ends them but their
// parent.
func (m *membership) members(held map[int]member) ([]member, error) {
	pids, err := m.pids()
	if err != nil {
		return nil, err
	}
	var members []member
	for _, pid := range pids {
		if _, ok := held[pid]; ok {
			continue
		}
		pidfd, err := m.open(pid)
		if err != nil {
			return members, err
		}
		if pidfd == nil {
			continue
		}
		if other, err := m.holdsAnother(pid); other || err != nil {
			pidfd.Close()
			if err != nil {
				return members, err
			}
			continue
		}
		members = append(members, member{pid, pidfd})
	}
	return members, nil
}

// open opens a pidfd, and only then looks whether the pid is a member's: so the pidfd is. It returns nil if
// it is not, or is a zombie.
func (m *membership) open(pid int) (*os.File, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err == unix.ESRCH || err == unix.EINVAL || err == unix.ENOENT { // gone, or a thread has it by now (6.18: ENOENT)
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("pidfd_open %d: %w", pid, err)
	}
	pidfd := os.NewFile(uintptr(fd), "pidfd")
	inode, err := namespaceInode(strconv.Itoa(pid), m.kind)
	// Namespaces below the pod's may have ended since the look, and others have their inodes: look afresh.
	if err != nil || newInside(m.kind, m.inode).which(sighting{pid, inode}) == 0 || exited(pidfd) {
		pidfd.Close()
		return nil, nil
	}
	return pidfd, nil
}
