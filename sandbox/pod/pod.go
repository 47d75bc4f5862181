// Package pod is what was decided of a pod and of a container, as it is written down, and questions that can be
// answered from that alone. What happens to them is told elsewhere: no method here does anything but think.
package pod

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/ids"
	"github.com/podsh/podsh/sandbox/proc"
	"github.com/podsh/podsh/sandbox/spec"
)

// Confine leaves of a user's groups those that the pod has.
func (p *Pod) Confine(who *Identity) {
	who.Groups = slices.DeleteFunc(who.Groups, func(g uint32) bool {
		_, ok := ids.Translate(p.GIDMap, g, true)
		return p.KeepGroups || len(p.GIDMap) > 0 && !ok
	})
}

// MapName names the ids that the files of layers belong to: pods with the same ids share them.
func (p *Pod) MapName() string {
	if p.Namespaces["user"].Kind == "host" || len(p.UIDMap) == 0 {
		return "host"
	}
	name := strings.ReplaceAll(strings.Join([]string{ids.Words(p.UIDMap), ids.Words(p.GIDMap)}, "_"), " ", "-")
	if len(name) > 100 {
		hash := fnv.New64a()
		hash.Write([]byte(name))
		name = fmt.Sprintf("ids-%016x", hash.Sum64())
	}
	return name
}

// NetNamespaces are the flags of setns(2) for whoever works on a pod's network.
func (p *Pod) NetNamespaces() int {
	if p.Namespaces["user"].Kind == "host" {
		return unix.CLONE_NEWNET
	}
	return unix.CLONE_NEWUSER | unix.CLONE_NEWNET
}

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

// CheckMapped refuses a user that the pod has no number for.
func (p *Pod) CheckMapped(who Identity) error {
	if unmapped := p.Unmapped(who); len(unmapped) > 0 {
		return fault.New(nil, []string{"`podsh inspect " + p.Title() + "` shows which ids it has"}, "%s is not mapped in pod %q", unmapped[0], p.Title())
	}
	return nil
}

// Unmapped are those ids of a user that the pod has no number for.
func (p *Pod) Unmapped(who Identity) (unmapped []string) {
	for _, id := range []struct {
		what string
		id   uint32
		ids  []ids.Map
	}{{"user", who.UID, p.UIDMap}, {"group", who.GID, p.GIDMap}} {
		if _, ok := ids.Translate(id.ids, id.id, true); len(id.ids) > 0 && !ok {
			unmapped = append(unmapped, fmt.Sprintf("%s %d", id.what, id.id))
		}
	}
	return unmapped
}

// Pod is a pod as the store describes it. It lives as long as its holder does.
type Pod struct {
	Format     int                    `json:"format"` // of this description: Format
	ID         string                 `json:"id"`
	Created    time.Time              `json:"created"`
	Spec       spec.Spec              `json:"spec"`
	Hostname   string                 `json:"hostname"`
	Namespaces map[string]spec.Choice `json:"namespaces"` // all of them, by Namespace.Name: the spec with its defaults filled in
	UIDMap     []ids.Map              `json:"uid_map,omitempty"`
	GIDMap     []ids.Map              `json:"gid_map,omitempty"`
	OneID      bool                   `json:"one_id,omitempty"`      // the only one that is mapped is the user's own
	KeepGroups bool                   `json:"keep_groups,omitempty"` // setgroups(2) is denied: the caller's groups stay
	UID        uint32                 `json:"uid"`                   // who a command is that joins, inside
	GID        uint32                 `json:"gid"`                   //
	Upper      string                 `json:"upper,omitempty"`       // what was written, where that lies on disk
	OwnFile    bool                   `json:"own_file,omitempty"`    // the holder runs from a file of its own: plan.ExeKind
	Hub        string                 `json:"hub,omitempty"`         // the id of the pod that its networks are in
	IsHub      bool                   `json:"is_hub,omitempty"`      // it is such a pod
	Keyring    string                 `json:"keyring,omitempty"`     // its name, where that is to be kept from others: sandbox/plan/keyring.go
	PlanFormat uint64                 `json:"plan_format"`           // of the plans that its own file understands
	Holder     proc.ID                `json:"holder"`

	Root string `json:"-"` // the path of the store that describes it

	Around  *Pod   `json:"-"` // of a container that is seen as a pod: the one it is in
	Workdir string `json:"-"` // of a container that is seen as a pod
}

// Format is raised when an older podsh could not read what this one writes, or the other way round.
const Format = 2

// Status is what a pod is doing.
type Status string

const (
	Running Status = "running"
	Exited  Status = "exited" // its holder is gone: ended, killed, or of an earlier boot
	Broken  Status = "broken" // its description can't be read
)

// Title is the name, or the id of a pod without one.
func (p *Pod) Title() string {
	if p.Spec.Name != "" {
		return p.Spec.Name
	}
	return p.ID
}

// DefaultHostname is the name as far as it can be one, else the id.
func (p *Pod) DefaultHostname() string {
	if spec.IsHostname(p.Spec.Name) {
		return p.Spec.Name
	}
	return p.ID
}

// Own says whether a namespace is new with this pod.
func (p *Pod) Own(namespace string) bool { return p.Namespaces[namespace].Kind == "new" }

// Flags are the clone(2) flags of the pod's own namespaces.
func (p *Pod) Flags() int {
	flags := 0
	for _, ns := range spec.Namespaces {
		if p.Own(ns.Name) && ns.Name != "time" { // clone(2) can't: its bit is CSIGNAL's
			flags |= ns.Flag
		}
	}
	return flags
}

// IdsOutside are the ids of the host that the pod has.
func (p *Pod) IdsOutside() []ids.Map {
	if p.Namespaces["user"].Kind == "host" {
		return []ids.Map{{Inside: 0, Outside: 0, Count: 1<<32 - 1}}
	}
	return p.UIDMap
}
