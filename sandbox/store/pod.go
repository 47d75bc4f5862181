package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/proc"
)

// Ref is what the pod can be called by where its name could mean a container.
func Ref(p *pod.Pod) string {
	if p.Spec.Name != "" && containerNamed(p, p.Spec.Name) != "" {
		return p.ID
	}
	return p.Title()
}

// Open returns a pidfd of the pod's holder, or an error that is ErrExited.
func Open(p *pod.Pod) (*os.File, error) {
	pidfd, err := p.Holder.Open()
	if errors.Is(err, fault.ErrExited) {
		return nil, fault.New(fault.ErrExited, []string{"`podsh rm " + p.Title() + "` removes it, and what its containers wrote"}, "pod %q has ended", p.Title())
	}
	return pidfd, err
}

// StatusOf looks whether the holder is alive.
func StatusOf(p *pod.Pod) pod.Status {
	if p.Format != pod.Format {
		return pod.Broken
	}
	pidfd, err := p.Holder.Open()
	if err != nil {
		return pod.Exited
	}
	pidfd.Close()
	return pod.Running
}

// Load reads a pod's description. One that can't be read gives a pod that is Broken, and why: it can still
// be listed and removed.
func (s *Store) Load(id string) (*pod.Pod, error) {
	path := s.Below("pods", id, "pod.json")
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(s.Below("pods", id)); err != nil {
			return nil, fault.New(fault.ErrNoPod, nil, "no pod %q", id)
		}
	}
	p := &pod.Pod{}
	if err == nil {
		err = json.Unmarshal(text, p)
	}
	if err == nil && (p.Format != pod.Format || p.ID != id) {
		err = fmt.Errorf("format %d of pod %q, not %d", p.Format, p.ID, pod.Format)
	}
	if err != nil {
		hints := []string{"podsh rm " + id + " removes it (written by another version, or cut off)"}
		return &pod.Pod{ID: id, Root: s.Path}, fault.New(nil, hints, "description of pod %s (%s): %v", id, path, err)
	}
	p.Root = s.Path
	return p, nil
}

// List returns all pods, oldest first. Those whose description can't be read are among them, as Broken.
func (s *Store) List() ([]*pod.Pod, error) {
	ids, err := s.Ids()
	if err != nil {
		return nil, err
	}
	pods := make([]*pod.Pod, len(ids))
	proc.InParts(len(ids), func(from, to int) {
		for i := from; i < to; i++ {
			pods[i], _ = s.Load(ids[i]) // Broken says enough
		}
	})
	pods = slices.DeleteFunc(pods, func(p *pod.Pod) bool { return p == nil }) // removed meanwhile
	slices.SortFunc(pods, func(a, b *pod.Pod) int {
		if c := a.Created.Compare(b.Created); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return pods, nil
}

// Find returns the pod that ref means: a name, an id, or a prefix that only one id has. A pod whose
// description can't be read is returned together with the error that says so.
func (s *Store) Find(ref string) (*pod.Pod, error) {
	id, err := s.meant(ref)
	if err != nil {
		return nil, err
	}
	pod, err := s.Load(id)
	if errors.Is(err, fault.ErrNoPod) { // removed meanwhile
		err = s.noPod(ref)
	}
	return pod, err
}

// meant returns the id of the pod that ref means.
func (s *Store) meant(ref string) (string, error) {
	if id := s.Named(ref); id != "" {
		return id, nil
	}
	ids, err := s.Ids()
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
	names, _ := os.ReadDir(s.Below("names")) // for the hint alone
	var known []string
	for _, entry := range names {
		if s.Named(entry.Name()) != "" {
			known = append(known, entry.Name())
		}
	}
	return fault.New(fault.ErrNoPod, []string{fault.DidYouMean(ref, known, hint)}, "no pod named %q", ref)
}

// Lives is nil as long as the holder does; else an error that is ErrExited.
func Lives(p *pod.Pod) error {
	pidfd, err := Open(p)
	if err == nil {
		pidfd.Close()
	}
	return err
}
