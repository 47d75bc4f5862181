// Package view shows the kernel's state as data: what a pod's namespaces, mounts, credentials and network are now, and
// who shares which of them. It looks, and changes nothing, but that a helper which has ended is started anew when it is
// asked. What a pod was meant to be it takes from its description, and it does not know how the answer is shown.
package view

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/moby/sys/capability"
	"github.com/moby/sys/mountinfo"

	"github.com/podsh/podsh/network"
	"github.com/podsh/podsh/network/control"
	"github.com/podsh/podsh/sandbox/ids"
	"github.com/podsh/podsh/sandbox/member"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/proc"
	"github.com/podsh/podsh/sandbox/spec"
	"github.com/podsh/podsh/sandbox/store"
	"github.com/podsh/podsh/sandbox/wire"
)

// Inspection is everything known about a pod. What the kernel is asked for is there only of a running one;
// for one that has ended, the maps are those of its description.
type Inspection struct {
	ID           string                    `json:"id"`
	Name         string                    `json:"name"`
	Status       pod.Status                `json:"status"`
	Created      time.Time                 `json:"created"`
	Hostname     string                    `json:"hostname"`
	PID          int                       `json:"pid"`       // of the holder; 0: it is gone
	Processes    *int                      `json:"processes"` // members and the holder; null: nothing tells its members
	MembersBy    string                    `json:"members_by"`
	RSS          uint64                    `json:"rss_bytes"` // of the holder
	User         Credentials               `json:"user"`
	Spec         spec.Spec                 `json:"spec"`
	Namespaces   map[string]NamespaceState `json:"namespaces"`
	UIDMap       []ids.Map                 `json:"uid_map"`
	GIDMap       []ids.Map                 `json:"gid_map"`
	OneID        bool                      `json:"one_id"`
	Capabilities *CapabilitySets           `json:"capabilities"` // of the holder
	Network      *NetInspection            `json:"network"`
	Mounts       []Mount                   `json:"mounts"`
	Upper        string                    `json:"upper,omitempty"`
	Holder       proc.ID                   `json:"holder"`
}

// NetInspection is what a pod's network is like, and what its helper says of it.
type NetInspection struct {
	Addresses []netip.Addr         `json:"addresses"` // its own
	Ports     []control.PortReport `json:"ports"`
	Networks  []network.Attachment `json:"networks"`
	Helper    *HelperState         `json:"helper"`   // null: it needs none
	WayOut    *control.WayReport   `json:"way_out"`  // null: there is none through the helper
	Resolver  []string             `json:"resolver"` // the host's name servers, that the helper asks
	Limits    []control.Limit      `json:"limits"`   // the helper's
	Warnings  []string             `json:"warnings"`
}

// HelperState is the process that carries a pod's data: its own, or that of the hub.
type HelperState struct {
	PID int    `json:"pid"`
	RSS uint64 `json:"rss_bytes"`
}

// Credentials are who a command is that joins.
type Credentials struct {
	UID uint32 `json:"uid"`
	GID uint32 `json:"gid"`
}

// NamespaceState is where a namespace came from, and which it is.
type NamespaceState struct {
	spec.Choice
	Inode uint64 `json:"inode,omitempty"`
}

// CapabilitySets are those of a process, capabilities(7).
type CapabilitySets struct {
	Effective   []string `json:"effective"`
	Permitted   []string `json:"permitted"`
	Inheritable []string `json:"inheritable"`
	Bounding    []string `json:"bounding"`
	Ambient     []string `json:"ambient"`
}

// Mount is one line of the pod's mount table, proc_pid_mountinfo(5).
type Mount struct {
	MountPoint string   `json:"mount_point"`
	Type       string   `json:"type"`
	Source     string   `json:"source"`
	Root       string   `json:"root"` // what of the file system is mounted: a folder of it is a bind mount
	Options    []string `json:"options"`
	Super      []string `json:"super_options"`
}

// Inspect tells everything about a pod.
func Inspect(p *pod.Pod) (*Inspection, error) {
	i := &Inspection{
		ID: p.ID, Name: p.Spec.Name, Status: pod.Exited, Created: p.Created, Hostname: p.Hostname,
		MembersBy: p.MemberNamespace(), User: Credentials{p.UID, p.GID}, Spec: p.Spec,
		Namespaces: map[string]NamespaceState{}, UIDMap: p.UIDMap, GIDMap: p.GIDMap, OneID: p.OneID,
		Mounts: []Mount{}, Upper: p.Upper, Holder: p.Holder,
	}
	for name, choice := range p.Namespaces {
		i.Namespaces[name] = NamespaceState{Choice: choice}
	}
	pidfd, err := p.Holder.Open()
	if err != nil {
		none := 0
		i.Processes = &none
		return i, nil
	}
	defer pidfd.Close()
	live := *i
	if err = live.ask(p); err == nil {
		return &live, nil
	}
	if proc.Ending(pidfd) { // while we asked
		return i, nil
	}
	return nil, fmt.Errorf("pod %q: %w", p.Title(), err)
}

// ask asks the kernel, through the holder's /proc.
func (i *Inspection) ask(p *pod.Pod) error {
	i.Status, i.PID = pod.Running, p.Holder.PID
	pid := strconv.Itoa(i.PID)
	namespaces := map[string]NamespaceState{}
	for _, ns := range spec.Namespaces {
		inode, err := proc.NamespaceInode(pid, ns.Name)
		if os.IsNotExist(err) {
			continue // the kernel has none of that kind
		}
		if err != nil {
			return err
		}
		namespaces[ns.Name] = NamespaceState{p.Namespaces[ns.Name], inode}
	}
	i.Namespaces = namespaces
	var err error
	if i.UIDMap, err = proc.ReadIDs(i.PID, "uid_map"); err != nil {
		return err
	}
	if i.GIDMap, err = proc.ReadIDs(i.PID, "gid_map"); err != nil {
		return err
	}
	if i.Mounts, err = readMounts(i.PID); err != nil {
		return err
	}
	status, err := proc.ReadStatus(i.PID)
	if err != nil {
		return err
	}
	if i.Capabilities, err = capabilitySets(status); err != nil {
		return err
	}
	i.RSS = residentSize(status)
	i.Network = inspectNet(p)
	members, err := member.Members([]*pod.Pod{p})
	if list, ok := members[p.ID]; ok {
		n := 1 + len(list)
		i.Processes = &n
	}
	return err
}

// residentSize is the memory that a process has, in bytes.
func residentSize(status map[string]string) uint64 {
	kilobytes, _ := strconv.ParseUint(strings.TrimSuffix(status["VmRSS"], " kB"), 10, 64) // a zombie has none
	return kilobytes * 1024
}

// inspectNet asks the helper, if there is one. What can't be known is one more thing to tell.
func inspectNet(p *pod.Pod) *NetInspection {
	report, err := wire.Report(p) // first: it starts a helper anew that has ended
	if report == nil {
		report = &control.Report{}
	}
	state, stateErr := store.Net(p)
	if stateErr != nil { // then there was no report either, for the same reason
		state = &pod.NetState{}
	}
	i := &NetInspection{
		Addresses: orEmpty(state.Addresses), Ports: orEmpty(report.Ports), Networks: orEmpty(state.Attachments),
		WayOut: report.WayOut, Resolver: orEmpty(report.Resolver), Limits: orEmpty(report.Limits), Warnings: orEmpty(report.Warnings),
	}
	if err != nil {
		for _, port := range state.Ports {
			i.Ports = append(i.Ports, control.PortReport{Pod: p.ID, Port: port})
		}
	} else if state.HasHelper() || p.IsHub {
		i.Helper, err = helperState(p)
	}
	if err != nil {
		i.Warnings = append(i.Warnings, err.Error())
	}
	return i
}

// helperState finds the helper that does something for the pod.
func helperState(p *pod.Pod) (*HelperState, error) {
	leader, err := wire.Leader(p)
	if err != nil {
		return nil, err
	}
	state, err := store.Net(leader)
	if err != nil || state.Helper == nil {
		return nil, err
	}
	status, err := proc.ReadStatus(state.Helper.PID)
	if err != nil {
		return nil, nil // it has ended just now
	}
	return &HelperState{state.Helper.PID, residentSize(status)}, nil
}

// Nets reads what the networks of pods are like: nil for one that can't be read, of which EnsureHelpers tells.
func Nets(pods []*pod.Pod) []*pod.NetState {
	states := make([]*pod.NetState, len(pods))
	proc.InParts(len(pods), func(from, to int) {
		for i := from; i < to; i++ {
			states[i], _ = store.Net(pods[i])
		}
	})
	return states
}

// orEmpty makes of no list an empty one, which JSON writes as [].
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func readMounts(pid int) ([]Mount, error) {
	file, err := os.Open(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	infos, err := mountinfo.GetMountsFromReader(file, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file.Name(), err)
	}
	mounts := []Mount{}
	for _, m := range infos {
		mounts = append(mounts, Mount{
			MountPoint: m.Mountpoint, Type: m.FSType, Source: m.Source, Root: m.Root,
			Options: strings.Split(m.Options, ","), Super: strings.Split(m.VFSOptions, ","),
		})
	}
	return mounts, nil
}

// capabilitySets reads the five masks of /proc/PID/status.
func capabilitySets(status map[string]string) (*CapabilitySets, error) {
	sets := &CapabilitySets{}
	for name, set := range map[string]*[]string{
		"CapEff": &sets.Effective, "CapPrm": &sets.Permitted, "CapInh": &sets.Inheritable,
		"CapBnd": &sets.Bounding, "CapAmb": &sets.Ambient,
	} {
		mask, err := strconv.ParseUint(status[name], 16, 64)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		*set = []string{}
		for _, c := range capability.ListKnown() {
			if mask&(1<<uint(c)) != 0 {
				*set = append(*set, strings.ToUpper(c.String()))
			}
		}
	}
	return sets, nil
}
