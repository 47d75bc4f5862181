package view

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/network"
	"github.com/podsh/podsh/sandbox/container"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/proc"
	"github.com/podsh/podsh/sandbox/spec"
	"github.com/podsh/podsh/sandbox/store"
)

// Resident is the host or a pod, and the namespaces that it lives in, by Namespace.Name.
type Resident struct {
	Name       string            `json:"name"` // of a pod without one: its id
	ID         string            `json:"id"`
	Host       bool              `json:"host"` // where podsh itself runs
	PID        int               `json:"pid"`  // of the holder
	Namespaces map[string]Shared `json:"namespaces"`
	Addresses  []netip.Addr      `json:"addresses"` // of a network of its own; those of the host nobody asks for
	Networks   []string          `json:"networks"`
	Ports      []network.Port    `json:"ports"`
}

// Shared is one namespace as one resident sees it.
type Shared struct {
	Inode uint64   `json:"inode"`
	Owner uint64   `json:"owner"` // the user namespace that owns it, or is above it; 0: out of our reach
	With  []string `json:"shared_with"`
}

// Map is who shares which namespace with whom.
type Map struct {
	Residents []*Resident // the host first

	parents map[uint64]uint64 // user namespaces, by inode, to those above them
	makers  map[uint64]uint32 // user namespaces to the uid that made them
	owners  map[uint64]uint64 // all namespaces to the user namespaces that own them
}

// What lists call the host, and the pod that networks are in: no names that a pod could have.
const (
	HostName = "(host)"
	HubName  = "(hub)"
)

// withContainers lists pods, and behind each its containers that run, as pods of their own.
func withContainers(pods []*pod.Pod) []*pod.Pod {
	var all []*pod.Pod
	for _, p := range pods {
		all = append(all, p)
		containers, _ := store.Containers(p) // removed meanwhile
		for _, c := range containers {
			if view, err := container.AsPod(c); err == nil { // else it does not run
				all = append(all, view)
			}
		}
	}
	return all
}

// Draw maps the host, pods and their containers. Of those that have ended nothing is left to map.
func Draw(pods []*pod.Pod) (*Map, error) {
	m := &Map{parents: map[uint64]uint64{}, makers: map[uint64]uint32{}, owners: map[uint64]uint64{}}
	if err := m.add(&Resident{Name: HostName, Host: true}, "self"); err != nil {
		return nil, err
	}
	for _, p := range withContainers(pods) {
		pidfd, err := p.Holder.Open()
		if errors.Is(err, fault.ErrExited) {
			continue
		}
		if err == nil {
			err = m.add(newResident(p), strconv.Itoa(p.Holder.PID))
			if err != nil && proc.Ending(pidfd) || proc.Exited(pidfd) { // what was read may be of another process
				m.Residents = slices.DeleteFunc(m.Residents, func(r *Resident) bool { return r.ID == p.ID })
				err = nil
			}
			pidfd.Close()
		}
		if err != nil {
			return nil, fmt.Errorf("pod %q: %w", p.Title(), err)
		}
	}
	m.share()
	return m, nil
}

func newResident(p *pod.Pod) *Resident {
	r := &Resident{Name: p.Title(), ID: p.ID, PID: p.Holder.PID}
	if p.IsHub {
		r.Name = HubName
	}
	state, err := store.Net(p)
	if err != nil {
		return r // its namespaces are there all the same
	}
	r.Addresses, r.Ports = state.Addresses, state.Ports
	for _, a := range state.Attachments {
		r.Networks = append(r.Networks, a.Network)
	}
	return r
}

// add reads the namespaces of a process.
func (m *Map) add(r *Resident, pid string) error {
	r.Addresses, r.Networks, r.Ports = orEmpty(r.Addresses), orEmpty(r.Networks), orEmpty(r.Ports)
	r.Namespaces = map[string]Shared{}
	for _, ns := range spec.Namespaces {
		inode, err := proc.NamespaceInode(pid, ns.Name)
		if errors.Is(err, unix.ENOENT) {
			continue // the kernel has none of that kind
		}
		if err != nil {
			return err
		}
		owner, ok := m.owners[inode]
		if !ok {
			if owner, err = m.readOwner(fmt.Sprintf("/proc/%s/ns/%s", pid, ns.Name), ns.Name == "user"); err != nil {
				return err
			}
			m.owners[inode] = owner
		}
		r.Namespaces[ns.Name] = Shared{Inode: inode, Owner: owner}
	}
	m.Residents = append(m.Residents, r)
	return nil
}

// readOwner asks the kernel for the user namespace that owns the namespace at path; of a user namespace, that
// is the one above it.
func (m *Map) readOwner(path string, isUser bool) (uint64, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(fd)
	if isUser {
		return m.note(fd)
	}
	return m.above(fd)
}

// above finds the user namespace that owns the one behind fd, and notes all that are above it: ioctl_nsfs(2).
// The kernel does not speak of what is above our own.
func (m *Map) above(fd int) (uint64, error) {
	owner, err := unix.IoctlRetInt(fd, unix.NS_GET_USERNS)
	if err == unix.EPERM {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("ioctl NS_GET_USERNS: %w", err)
	}
	defer unix.Close(owner)
	var st unix.Stat_t
	if err := unix.Fstat(owner, &st); err != nil {
		return 0, fmt.Errorf("stat a namespace: %w", err)
	}
	if _, known := m.parents[st.Ino]; !known {
		_, err = m.note(owner)
	}
	return st.Ino, err
}

// note notes who made a user namespace, and what is above it.
func (m *Map) note(fd int) (parent uint64, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, fmt.Errorf("stat a namespace: %w", err)
	}
	if m.makers[st.Ino], err = unix.IoctlGetUint32(fd, unix.NS_GET_OWNER_UID); err != nil {
		return 0, fmt.Errorf("ioctl NS_GET_OWNER_UID: %w", err)
	}
	m.parents[st.Ino], err = m.above(fd)
	return m.parents[st.Ino], err
}

// share fills in who shares what.
func (m *Map) share() {
	in := m.inhabitants()
	for _, r := range m.Residents {
		for name, ns := range r.Namespaces {
			ns.With = []string{}
			for _, other := range in[ns.Inode] {
				if other != r {
					ns.With = append(ns.With, other.Name)
				}
			}
			r.Namespaces[name] = ns
		}
	}
}

// inhabitants tells who lives in a namespace, in the order of the map.
func (m *Map) inhabitants() map[uint64][]*Resident {
	in := map[uint64][]*Resident{}
	for _, r := range m.Residents {
		for _, ns := range r.Namespaces {
			in[ns.Inode] = append(in[ns.Inode], r)
		}
	}
	return in
}

// Around leaves on the map the host, the pods with the given ids, and those that share with them what the
// host does not.
func (m *Map) Around(ids []string) {
	seen := map[uint64]bool{}
	for _, r := range m.Residents {
		for _, ns := range r.Namespaces {
			if slices.Contains(ids, r.ID) {
				seen[ns.Inode] = true
			}
		}
	}
	for _, ns := range m.Residents[0].Namespaces {
		delete(seen, ns.Inode)
	}
	m.Residents = slices.DeleteFunc(m.Residents, func(r *Resident) bool {
		for _, ns := range r.Namespaces {
			if seen[ns.Inode] {
				return false
			}
		}
		return !r.Host && !slices.Contains(ids, r.ID)
	})
	m.share()
}

// Branch is a user namespace, those that it owns, and the user namespaces below it.
type Branch struct {
	Inode     uint64 // 0: what is beyond our reach
	Maker     uint32 // the uid that made it, and has all capabilities in it
	Residents []string
	Groups    []*Group
	Below     []*Branch
}

// Group is namespaces in which the same residents live.
type Group struct {
	Residents  []string
	Namespaces []string
}

// Tree orders the map by the user namespaces: whoever has a capability in one has it in all that the
// namespace owns, and in all below it, user_namespaces(7).
func (m *Map) Tree() []*Branch {
	branches := map[uint64]*Branch{}
	var roots []*Branch
	for _, r := range m.Residents { // all branches first: who is below whom needs them
		inode := r.Namespaces["user"].Inode
		if branches[inode] == nil {
			branches[inode] = &Branch{Inode: inode, Maker: m.makers[inode]}
		}
		branches[inode].Residents = append(branches[inode].Residents, r.Name)
	}
	placed := map[uint64]bool{}
	in := m.inhabitants()
	for _, r := range m.Residents {
		for _, kind := range spec.Namespaces {
			ns := r.Namespaces[kind.Name]
			if ns.Inode == 0 || placed[ns.Inode] {
				continue
			}
			placed[ns.Inode] = true
			above := m.nearest(ns.Owner, branches)
			switch {
			case kind.Name != "user":
				if above == nil {
					above = &Branch{}
					branches[0] = above
				}
				above.put(kind.Name, in[ns.Inode])
			case above != nil:
				above.Below = append(above.Below, branches[ns.Inode])
			default:
				roots = append(roots, branches[ns.Inode])
			}
		}
	}
	if beyond := branches[0]; beyond != nil {
		beyond.Below = roots
		return []*Branch{beyond}
	}
	return roots
}

// nearest is the branch of a user namespace, or of the nearest above it that has one.
func (m *Map) nearest(user uint64, branches map[uint64]*Branch) *Branch {
	for user != 0 && branches[user] == nil {
		user = m.parents[user]
	}
	return branches[user]
}

func (b *Branch) put(kind string, residents []*Resident) {
	var names []string
	for _, r := range residents {
		names = append(names, r.Name)
	}
	for _, g := range b.Groups {
		if strings.Join(g.Residents, "\n") == strings.Join(names, "\n") {
			g.Namespaces = append(g.Namespaces, kind)
			return
		}
	}
	b.Groups = append(b.Groups, &Group{names, []string{kind}})
}
