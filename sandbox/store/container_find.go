package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/files"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/spec"
)

// LoadContainer reads a container's description.
func LoadContainer(p *pod.Pod, id string) (*pod.Container, error) {
	text, err := os.ReadFile(ContainersPath(p, id, "container.json"))
	c := &pod.Container{}
	if err == nil {
		err = json.Unmarshal(text, c)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.ErrNoContainer, nil, "no container %q", id)
	}
	if err == nil && (c.Format != pod.ContainerFormat || c.ID != id) {
		err = fmt.Errorf("format %d, not %d", c.Format, pod.ContainerFormat)
	}
	if err != nil {
		return nil, fault.New(fault.ErrNoContainer, []string{"podsh rm -f " + p.Title() + " removes the pod with all in it"}, "description of container %s: %v", id, err)
	}
	c.In = p
	return c, nil
}

// Containers lists the pod's containers, oldest first. Those whose description can't be read are among them, as broken:
// with the pod they can be removed.
func Containers(p *pod.Pod) ([]*pod.Container, error) {
	entries, err := os.ReadDir(ContainersPath(p))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var containers []*pod.Container
	for _, entry := range entries {
		if !IsID(entry.Name()) {
			continue
		}
		c, err := LoadContainer(p, entry.Name())
		if err != nil && files.Exists(ContainersPath(p, entry.Name())) {
			c, err = brokenContainer(p, entry.Name(), err), nil
		}
		if err == nil {
			containers = append(containers, c)
		}
	}
	slices.SortFunc(containers, func(a, b *pod.Container) int {
		if n := a.Created.Compare(b.Created); n != 0 {
			return n
		}
		return strings.Compare(a.ID, b.ID)
	})
	return containers, nil
}

// brokenContainer is what is known of a container whose description can't be read: most probably another version has written
// in the same place where it has its files.
func brokenContainer(p *pod.Pod, id string, why error) *pod.Container {
	c := &pod.Container{ID: id, Name: id, Pod: p.ID, Disk: DiskFolder(id), Signal: int(unix.SIGTERM), In: p, Broken: why}
	var described struct {
		Disk    string    `json:"disk"`
		Created time.Time `json:"created"`
	}
	text, _ := os.ReadFile(ContainersPath(p, id, "container.json"))
	if json.Unmarshal(text, &described) == nil && path.Base(described.Disk) == id {
		c.Disk, c.Created = described.Disk, described.Created
	} else if info, err := os.Stat(ContainersPath(p, id)); err == nil {
		c.Created = info.ModTime()
	}
	return c
}

// FindContainer returns the container that ref means: POD/NAME, or a NAME that only one pod has a container of;
// and so with ids, or the start of one.
func (s *Store) FindContainer(ref string) (*pod.Container, error) {
	if pod, name, ok := strings.Cut(ref, "/"); ok {
		p, err := s.Find(pod)
		if err != nil {
			return nil, err
		}
		found, err := match(p, name)
		if err != nil {
			return nil, err
		}
		if len(found) == 0 {
			return nil, noContainer(p, name)
		}
		return one(ref, found)
	}
	pods, err := s.List()
	if err != nil {
		return nil, err
	}
	var found []*pod.Container
	for _, p := range pods {
		matching, err := match(p, ref)
		if err != nil {
			return nil, err
		}
		found = append(found, matching...)
	}
	if len(found) == 0 {
		return nil, s.noContainer(ref)
	}
	return one(ref, found)
}

// noContainer says that there is no container of that name, and what there is if it is that of a pod.
func (s *Store) noContainer(ref string) error {
	p, err := s.Find(ref)
	if err != nil {
		return fault.New(fault.ErrNoContainer, []string{"`podsh ps -c -a` shows all containers"}, "no container named %q", ref)
	}
	hint := "it has none: podsh run --pod " + p.Title() + " IMAGE makes one"
	if containers, _ := Containers(p); len(containers) > 0 { // for the hint alone
		var titles []string
		for _, c := range containers {
			titles = append(titles, c.Title())
		}
		hint = "its containers: " + strings.Join(titles, ", ")
	}
	return fault.New(fault.ErrNoContainer, []string{hint}, "%q is a pod, and not a container", ref)
}

func one(ref string, found []*pod.Container) (*pod.Container, error) {
	if len(found) == 1 {
		return found[0], nil
	}
	var titles []string
	for _, c := range found {
		titles = append(titles, c.Title())
	}
	return nil, fault.New(fault.ErrSeveral, []string{"it could be " + strings.Join(titles, ", ")}, "%q could mean %d containers", ref, len(found))
}

// match lists the containers that a name, an id or the start of one means.
func match(p *pod.Pod, ref string) ([]*pod.Container, error) {
	if id := containerNamed(p, ref); id != "" {
		c, err := LoadContainer(p, id)
		return []*pod.Container{c}, err
	}
	entries, _ := os.ReadDir(ContainersPath(p)) // none is no error
	var found []*pod.Container
	for _, entry := range entries {
		if IsID(entry.Name()) && ref != "" && strings.HasPrefix(entry.Name(), ref) {
			c, err := LoadContainer(p, entry.Name())
			if err != nil {
				return nil, err
			}
			found = append(found, c)
		}
	}
	return found, nil
}

// containerNamed returns the id of the pod's container of that name, or "". A name whose container is not there is
// free: it was killed on its way in or out.
func containerNamed(p *pod.Pod, name string) string {
	if !spec.IsName(name) {
		return ""
	}
	id, err := os.ReadFile(StoreOf(p).Below("pods", p.ID, "names", name))
	if err != nil || !IsID(string(id)) || !files.Exists(ContainersPath(p, string(id))) {
		return ""
	}
	return string(id)
}

func noContainer(p *pod.Pod, name string) error {
	hint := "`podsh ps -c -a` shows all containers"
	var known []string
	entries, _ := os.ReadDir(StoreOf(p).Below("pods", p.ID, "names")) // for the hint alone
	for _, entry := range entries {
		known = append(known, entry.Name())
	}
	return fault.New(fault.ErrNoContainer, []string{fault.DidYouMean(name, known, hint)}, "no container %q in pod %q", name, p.Title())
}

// FindTarget returns the pod or the container that ref means: POD/NAME is a container; a word alone is a pod, else a
// container that only one pod has. A name that podsh run gave to a container and its own pod means the container.
func (s *Store) FindTarget(ref string) (*pod.Pod, *pod.Container, error) {
	if strings.Contains(ref, "/") {
		c, err := s.FindContainer(ref)
		return nil, c, err
	}
	pod, err := s.Find(ref)
	if pod != nil && pod.Spec.Name == ref {
		if id := containerNamed(pod, ref); id != "" {
			if c, err := LoadContainer(pod, id); err == nil && c.OwnPod {
				return nil, c, nil
			}
		}
	}
	if pod != nil || !errors.Is(err, fault.ErrNoPod) && !errors.Is(err, fault.ErrSeveral) {
		return pod, nil, err
	}
	c, containerErr := s.FindContainer(ref)
	switch {
	case containerErr == nil:
		return nil, c, nil
	case errors.Is(containerErr, fault.ErrSeveral):
		return nil, nil, containerErr
	case errors.Is(err, fault.ErrSeveral):
		return nil, nil, err
	}
	return nil, nil, s.noTarget(ref)
}

// noTarget says that there is neither a pod nor a container of that name, and which one may have been meant.
func (s *Store) noTarget(ref string) error {
	hint := "`podsh ps -a` shows all pods, `podsh ps -c -a` all containers"
	var known []string
	pods, _ := s.List() // for the hint alone
	for _, p := range pods {
		known = append(known, p.Spec.Name)
		names, _ := os.ReadDir(StoreOf(p).Below("pods", p.ID, "names"))
		for _, entry := range names {
			known = append(known, entry.Name())
		}
	}
	return fault.New(fault.ErrNoPod, []string{fault.DidYouMean(ref, known, hint)}, "no pod or container named %q", ref)
}

// freeName names a container after its image, or after its command.
func freeName(c *pod.Container) string {
	base := path.Base(c.Argv[0])
	if c.Image.Name != "" {
		base = path.Base(c.Image.Name)
		base, _, _ = strings.Cut(base, "@")
		base, _, _ = strings.Cut(base, ":")
	}
	if !spec.IsName(base) || len(base) > 40 {
		base = "container"
	}
	for n := 1; ; n++ {
		name := base
		if n > 1 {
			name = fmt.Sprintf("%s-%d", base, n)
		}
		if containerNamed(c.In, name) == "" {
			return name
		}
	}
}
