// Package member tells the processes in a pod from all others, by a namespace that they share: it lists them, and
// makes them end. It knows nothing of the holder's end, of containers or of the order in which a pod is taken down.
package member

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/proc"
	"github.com/podsh/podsh/sandbox/store"
)

// Members finds the members of many pods with one look at /proc, by the id of the pod; the holder is none of
// them. Pods that have ended, and those without a MemberNamespace, are left out. What can't be read belongs
// to other users, or is gone.
func Members(pods []*pod.Pod) (map[string][]int, error) {
	holders := map[string]map[int]*pod.Pod{} // by kind of namespace
	for _, p := range pods {
		if kind := p.MemberNamespace(); kind != "" {
			if holders[kind] == nil {
				holders[kind] = map[int]*pod.Pod{}
			}
			holders[kind][p.Holder.PID] = p
		}
	}
	members := map[string][]int{}
	if len(holders) == 0 {
		return members, nil
	}
	pids, err := proc.All()
	if err != nil {
		return nil, err
	}
	for kind, of := range holders {
		seen := proc.Look(kind, pids)
		pods := map[uint64]*pod.Pod{}
		for _, s := range seen {
			if p := of[s.PID]; p != nil {
				pods[s.Namespace] = p
				members[p.ID] = []int{}
			}
		}
		inside := proc.NewInside(kind, slices.Collect(maps.Keys(pods))...)
		for _, s := range seen {
			if p := pods[inside.Which(s)]; p != nil && s.PID != p.Holder.PID {
				members[p.ID] = append(members[p.ID], s.PID)
			}
		}
	}
	return members, nil
}

// Group is what the members of a living pod have in common. It holds their namespace open: so the
// kernel can't give its inode to another one while we look.
type Group struct {
	pod       *pod.Pod
	kind      string
	namespace *os.File
	inode     uint64
}

// Of returns nil for a pod whose members can't be told. pidfd is of the holder.
func Of(p *pod.Pod, pidfd *os.File) (*Group, error) {
	kind := p.MemberNamespace()
	if kind == "" {
		return nil, nil
	}
	namespace, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", p.Holder.PID, kind))
	if err != nil && proc.Ending(pidfd) {
		return nil, fault.ErrExited
	}
	if err != nil {
		return nil, err
	}
	if proc.Exited(pidfd) { // then the pid may be another's by now
		namespace.Close()
		return nil, fault.ErrExited
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(namespace.Fd()), &st); err != nil {
		namespace.Close()
		return nil, fmt.Errorf("stat %s: %w", namespace.Name(), err)
	}
	return &Group{p, kind, namespace, st.Ino}, nil
}

// InMounts are those in a mount namespace of the pod's that is held open; it stays the caller's.
func InMounts(p *pod.Pod, namespace *os.File) (*Group, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(namespace.Fd()), &st); err != nil {
		return nil, fmt.Errorf("stat %s: %w", namespace.Name(), err)
	}
	return &Group{p, "mnt", namespace, st.Ino}, nil
}

// Close lets go of their namespace.
func (m *Group) Close() { m.namespace.Close() }

// PIDs lists all processes in the namespace but the holder.
func (m *Group) PIDs() ([]int, error) {
	all, err := proc.All()
	if err != nil {
		return nil, err
	}
	inside := proc.NewInside(m.kind, m.inode)
	var pids []int
	for _, s := range proc.Look(m.kind, all) {
		if s.PID != m.pod.Holder.PID && inside.Which(s) != 0 {
			pids = append(pids, s.PID)
		}
	}
	return pids, nil
}

// holdsAnother says whether a process in the namespace is the pause of another pod, which shares it. Such a
// pod is no member, though what runs in it is.
func (m *Group) holdsAnother(pid int) (bool, error) {
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil || string(name) != "pause\n" { // anyone can be called so, but every pause is
		return false, nil
	}
	pods, err := store.StoreOf(m.pod).List()
	return slices.ContainsFunc(pods, func(p *pod.Pod) bool { return p.Holder.PID == pid && store.StatusOf(p) == pod.Running }), err
}

// Members opens all members but those that are held already. Zombies are none: nothing ends them but their
// parent.
func (m *Group) Members(held map[int]proc.Member) ([]proc.Member, error) {
	pids, err := m.PIDs()
	if err != nil {
		return nil, err
	}
	var members []proc.Member
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
		members = append(members, proc.Member{PID: pid, PIDFD: pidfd})
	}
	return members, nil
}

// open opens a pidfd, and only then looks whether the pid is a member's: so the pidfd is. It returns nil if
// it is not, or is a zombie.
func (m *Group) open(pid int) (*os.File, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err == unix.ESRCH || err == unix.EINVAL || err == unix.ENOENT { // gone, or a thread has it by now (6.18: ENOENT)
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("pidfd_open %d: %w", pid, err)
	}
	pidfd := os.NewFile(uintptr(fd), "pidfd")
	inode, err := proc.NamespaceInode(strconv.Itoa(pid), m.kind)
	// Namespaces below the pod's may have ended since the look, and others have their inodes: look afresh.
	if err != nil || proc.NewInside(m.kind, m.inode).Which(proc.Sighting{PID: pid, Namespace: inode}) == 0 || proc.Exited(pidfd) {
		pidfd.Close()
		return nil, nil
	}
	return pidfd, nil
}
