package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/ids"
	"github.com/podsh/podsh/sandbox/proc"
	"github.com/podsh/podsh/sandbox/spec"
)

// Pod is a pod as the store describes it. It lives as long as its holder does.
type Pod struct {
	Format     int                    `json:"format"` // of this description: podFormat
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
	OwnFile    bool                   `json:"own_file,omitempty"`    // the holder runs from a file of its own, see exe.go
	Hub        string                 `json:"hub,omitempty"`         // the id of the pod that its networks are in
	IsHub      bool                   `json:"is_hub,omitempty"`      // it is such a pod
	Keyring    string                 `json:"keyring,omitempty"`     // its name, where that is to be kept from others: keyring.go
	PlanFormat uint64                 `json:"plan_format"`           // of the plans that its own file understands
	Holder     proc.ID                `json:"holder"`

	Root string `json:"-"` // the path of the store that describes it

	around  *Pod     // of a container that is seen as a pod: the one it is in
	workdir string   // of a container that is seen as a pod
	stowed  *os.File // where a helper that ended has left its ports' sockets
	kept    int      // how often in a row its helper was started anew
	mounts  *os.File // of one that has ended: a mount namespace with what it has left, in place of the holder's
	lost    []string // and where its volumes were that are gone
}

// podFormat is raised when an older podsh could not read what this one writes, or the other way round.
const podFormat = 2

// Status is what a pod is doing.
type Status string

const (
	Running Status = "running"
	Exited  Status = "exited" // its holder is gone: ended, killed, or of an earlier boot
	Broken  Status = "broken" // its description can't be read
)

// Open returns a pidfd of the pod's holder, or an error that is ErrExited.
func (p *Pod) Open() (*os.File, error) {
	pidfd, err := p.Holder.Open()
	if errors.Is(err, fault.ErrExited) {
		return nil, fault.New(fault.ErrExited, []string{"`podsh rm " + p.Title() + "` removes it, and what its containers wrote"}, "pod %q has ended", p.Title())
	}
	return pidfd, err
}

// lives is nil as long as the holder does; else an error that is ErrExited.
func (p *Pod) lives() error {
	pidfd, err := p.Open()
	if err == nil {
		pidfd.Close()
	}
	return err
}

// Status looks whether the holder is alive.
func (p *Pod) Status() Status {
	if p.Format != podFormat {
		return Broken
	}
	pidfd, err := p.Holder.Open()
	if err != nil {
		return Exited
	}
	pidfd.Close()
	return Running
}

// Title is the name, or the id of a pod without one.
func (p *Pod) Title() string {
	if p.Spec.Name != "" {
		return p.Spec.Name
	}
	return p.ID
}

// load reads a pod's description. One that can't be read gives a pod that is Broken, and why: it can still
// be listed and removed.
func (s *Store) load(id string) (*Pod, error) {
	path := s.path("pods", id, "pod.json")
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(s.path("pods", id)); err != nil {
			return nil, fault.New(fault.ErrNoPod, nil, "no pod %q", id)
		}
	}
	pod := &Pod{}
	if err == nil {
		err = json.Unmarshal(text, pod)
	}
	if err == nil && (pod.Format != podFormat || pod.ID != id) {
		err = fmt.Errorf("format %d of pod %q, not %d", pod.Format, pod.ID, podFormat)
	}
	if err != nil {
		hints := []string{"podsh rm " + id + " removes it (written by another version, or cut off)"}
		return &Pod{ID: id, Root: s.Path}, fault.New(nil, hints, "description of pod %s (%s): %v", id, path, err)
	}
	pod.Root = s.Path
	return pod, nil
}

// List returns all pods, oldest first. Those whose description can't be read are among them, as Broken.
func (s *Store) List() ([]*Pod, error) {
	ids, err := s.ids()
	if err != nil {
		return nil, err
	}
	pods := make([]*Pod, len(ids))
	proc.InParts(len(ids), func(from, to int) {
		for i := from; i < to; i++ {
			pods[i], _ = s.load(ids[i]) // Broken says enough
		}
	})
	pods = slices.DeleteFunc(pods, func(p *Pod) bool { return p == nil }) // removed meanwhile
	slices.SortFunc(pods, func(a, b *Pod) int {
		if c := a.Created.Compare(b.Created); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return pods, nil
}

// Find returns the pod that ref means: a name, an id, or a prefix that only one id has. A pod whose
// description can't be read is returned together with the error that says so.
func (s *Store) Find(ref string) (*Pod, error) {
	id, err := s.meant(ref)
	if err != nil {
		return nil, err
	}
	pod, err := s.load(id)
	if errors.Is(err, fault.ErrNoPod) { // removed meanwhile
		err = s.noPod(ref)
	}
	return pod, err
}

// meant returns the id of the pod that ref means.
func (s *Store) meant(ref string) (string, error) {
	if id := s.named(ref); id != "" {
		return id, nil
	}
	ids, err := s.ids()
	if err != nil {
		return "", err
	}
	var matches []string
	for _, id := range ids {
		if ref != "" && strings.HasPrefix(id, ref) {
			matches = append(matches, id)
		}
	}
	switch len(matches) {
	case 0:
		return "", s.noPod(ref)
	case 1:
		return matches[0], nil
	}
	slices.Sort(matches)
	return "", fault.New(fault.ErrSeveral, []string{"it could be " + strings.Join(matches, ", ")}, "%q is the start of %d ids", ref, len(matches))
}

// noPod says that there is none, and which one may have been meant.
func (s *Store) noPod(ref string) error {
	hint := "`podsh ps -a` shows all pods"
	names, _ := os.ReadDir(s.path("names")) // for the hint alone
	var known []string
	for _, entry := range names {
		if s.named(entry.Name()) != "" {
			known = append(known, entry.Name())
		}
	}
	return fault.New(fault.ErrNoPod, []string{fault.DidYouMean(ref, known, hint)}, "no pod named %q", ref)
}
