package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/image"
	"github.com/podsh/podsh/rootfs"
)

// Containers are described beside their pod:
//
//	pods/ID/containers/CID/container.json   the container, which does not change
//	pods/ID/containers/CID/state.json       what it is doing: written by whoever watches over it
//	pods/ID/names/NAME                      the id of the container called so
//	pods/ID/supervisor                      the socket of the pod's supervisor (supervisor.go)
//	pods/ID/disk                            a link to the folder with the pod's volumes
//
// What a container writes, and its log, is in a folder on disk (Container.Disk).

// ContainerStatus is what a container is doing.
type ContainerStatus string

const (
	Created    ContainerStatus = "created"
	Up         ContainerStatus = "running"
	Restarting ContainerStatus = "restarting" // it has ended, and will start once more
	Ended      ContainerStatus = "exited"
)

// ContainerState is what a container is doing, and how it went.
type ContainerState struct {
	Status    ContainerStatus `json:"status"`
	Process   Holder          `json:"process,omitzero"` // the command, or its init
	MountNS   uint64          `json:"mount_namespace,omitempty"`
	Watcher   Holder          `json:"watcher,omitzero"` // whose child it is: the pod's supervisor, or podsh run
	Started   time.Time       `json:"started,omitzero"`
	Finished  time.Time       `json:"finished,omitzero"`
	ExitCode  int             `json:"exit_code"`
	Reason    string          `json:"reason,omitempty"` // why it ended, where its status does not tell
	Restarts  int             `json:"restarts"`
	InARow    int             `json:"restarts_in_a_row,omitempty"` // none of which ran for long
	RestartAt time.Time       `json:"restart_at,omitzero"`
	Stopped   bool            `json:"stopped,omitempty"` // somebody wanted it to end: no restart
}

// ErrNoContainer says that there is no such container.
var ErrNoContainer = errors.New("no such container")

func (p *Pod) containersPath(elements ...string) string {
	return p.store.path(append([]string{"pods", p.ID, "containers"}, elements...)...)
}

func (c *Container) path(name string) string { return c.pod.containersPath(c.ID, name) }

// LogPath is the container's log; older parts of it lie beside.
func (c *Container) LogPath() string { return filepath.Join(c.Disk, "log") }

// State reads what the container is doing. A container that was running when the one who watched over it was killed
// has ended, whatever is written.
func (c *Container) State() (*ContainerState, error) {
	for try := 0; ; try++ {
		state, err := readState(c.path("state.json"))
		if errors.Is(err, fs.ErrNotExist) && exists(c.path("container.json")) {
			return &ContainerState{Status: Created}, nil
		}
		if err != nil {
			return nil, fail(ErrNoContainer, nil, "state of container %q: %v", c.Title(), err)
		}
		if state.Status != Up && state.Status != Restarting {
			return state, nil
		}
		watched := state.Watcher.alive()
		if state.Status == Restarting && watched || state.Process.alive() && state.Status == Up {
			return state, nil
		}
		if !watched {
			return state.lost(), nil
		}
		if try == 100 {
			return state, nil // it is being ended: what it has left takes its time
		}
		time.Sleep(time.Millisecond) // it has just ended, and who watches is about to write it down
	}
}

func readState(path string) (*ContainerState, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	state := &ContainerState{}
	return state, json.Unmarshal(text, state)
}

// lost is what a state becomes when nobody watches any more.
func (s *ContainerState) lost() *ContainerState {
	if s.Status == Up {
		s.ExitCode, s.Finished = 128+int(unix.SIGKILL), time.Now().UTC()
	}
	s.Status, s.Reason = Ended, "what watched over it was killed, and it with that"
	return s
}

func (h Holder) alive() bool {
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

// saveState writes down what the container is doing: all of it, or nothing.
func (c *Container) saveState(state *ContainerState) error {
	text, err := json.Marshal(state)
	if err != nil {
		return err
	}
	next := c.path("new-state")
	if err := os.WriteFile(next, text, 0o600); err != nil {
		os.Remove(next)
		return c.pod.store.full(err)
	}
	return os.Rename(next, c.path("state.json"))
}

// NewContainer describes a container in the store, and makes its folder on disk. img may be nil. own says that the
// pod is there for it alone.
func (p *Pod) NewContainer(spec *ContainerSpec, img *image.Image, layers []string, own bool) (c *Container, err error) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	if c, err = p.PlanContainer(spec, img, layers); err != nil {
		return nil, err
	}
	c.OwnPod = own
	if len(spec.PodVolumes) > 0 {
		if err := p.ensureVolumes(); err != nil {
			return nil, fmt.Errorf("folder for the volumes of the pod: %w", err)
		}
	}
	c.Disk = diskFolder(c.ID)
	if !exists(p.containersPath()) { // once for each pod is enough
		p.sweepDisks()
	}
	lock, err := makeDisk(c.Disk, p.containersPath(c.ID))
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	c.Memory = !carriesOverlay(c.Disk)
	if err := c.save(); err != nil {
		_ = os.RemoveAll(c.Disk) // there is nothing in it yet but a link
		return nil, err
	}
	return c, nil
}

// PlanContainer is a container that could be made, for those who want to see its plan.
func (p *Pod) PlanContainer(spec *ContainerSpec, img *image.Image, layers []string) (*Container, error) {
	if img == nil {
		if err := checkFolder(spec.Rootfs); err != nil {
			return nil, err
		}
	}
	c, err := newContainer(p, spec, img)
	if err != nil {
		return nil, err
	}
	switch {
	case img != nil:
		c.Root = rootfs.Layers(layers)
	case c.Root.Kind == "dir" && c.Root.Mode == "overlay":
		c.Root = rootfs.Layers([]string{c.Root.Dir})
	}
	c.Disk = diskFolder(c.ID)
	return c, nil
}

// save enters the container under a name that no other one of the pod has.
func (c *Container) save() error {
	p := c.pod
	unlock, err := p.store.lock()
	if err != nil {
		return p.store.full(err)
	}
	defer unlock()
	for _, dir := range []string{"containers", "names"} {
		if err := os.Mkdir(p.store.path("pods", p.ID, dir), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			if errors.Is(err, fs.ErrNotExist) {
				return fail(ErrNoPod, nil, "pod %q was removed meanwhile", p.Title())
			}
			return p.store.full(err)
		}
	}
	if c.Name == "" {
		c.Name = c.freeName()
	} else if id := p.containerNamed(c.Name); id != "" {
		return fail(ErrNameTaken, []string{fmt.Sprintf("podsh rm -f %s/%s, or choose another --name", p.Title(), c.Name)},
			"container %q is there already in pod %q", c.Name, p.Title())
	}
	text, err := json.Marshal(c)
	if err != nil {
		return err
	}
	fresh := p.containersPath("new-" + c.ID)
	if err = os.Mkdir(fresh, 0o700); err == nil {
		err = os.WriteFile(filepath.Join(fresh, "container.json"), text, 0o600)
	}
	name := p.store.path("pods", p.ID, "names", c.Name)
	if err == nil {
		err = os.WriteFile(name, []byte(c.ID), 0o600)
	}
	if err == nil {
		err = os.Rename(fresh, p.containersPath(c.ID))
	}
	if err != nil {
		_ = os.RemoveAll(fresh)
		return p.store.full(err)
	}
	return nil
}

// containerNamed returns the id of the pod's container of that name, or "". A name whose container is not there is
// free: it was killed on its way in or out.
func (p *Pod) containerNamed(name string) string {
	if !isName(name) {
		return ""
	}
	id, err := os.ReadFile(p.store.path("pods", p.ID, "names", name))
	if err != nil || !isID(string(id)) || !exists(p.containersPath(string(id))) {
		return ""
	}
	return string(id)
}

// freeName names a container after its image, or after its command.
func (c *Container) freeName() string {
	base := path.Base(c.Argv[0])
	if c.Image.Name != "" {
		base = path.Base(c.Image.Name)
		base, _, _ = strings.Cut(base, "@")
		base, _, _ = strings.Cut(base, ":")
	}
	if !isName(base) || len(base) > 40 {
		base = "container"
	}
	for n := 1; ; n++ {
		name := base
		if n > 1 {
			name = fmt.Sprintf("%s-%d", base, n)
		}
		if c.pod.containerNamed(name) == "" {
			return name
		}
	}
}

// loadContainer reads a container's description.
func (p *Pod) loadContainer(id string) (*Container, error) {
	text, err := os.ReadFile(p.containersPath(id, "container.json"))
	c := &Container{}
	if err == nil {
		err = json.Unmarshal(text, c)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fail(ErrNoContainer, nil, "no container %q", id)
	}
	if err == nil && (c.Format != containerFormat || c.ID != id) {
		err = fmt.Errorf("format %d, not %d", c.Format, containerFormat)
	}
	if err != nil {
		return nil, fail(ErrNoContainer, []string{"podsh rm -f " + p.Title() + " removes the pod with all in it"}, "description of container %s: %v", id, err)
	}
	c.pod = p
	return c, nil
}

// Containers lists the pod's containers, oldest first.
func (p *Pod) Containers() ([]*Container, error) {
	entries, err := os.ReadDir(p.containersPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var containers []*Container
	for _, entry := range entries {
		if !isID(entry.Name()) {
			continue
		}
		c, err := p.loadContainer(entry.Name())
		if err != nil && exists(p.containersPath(entry.Name())) {
			return nil, err
		}
		if err == nil {
			containers = append(containers, c)
		}
	}
	slices.SortFunc(containers, func(a, b *Container) int {
		if n := a.Created.Compare(b.Created); n != 0 {
			return n
		}
		return strings.Compare(a.ID, b.ID)
	})
	return containers, nil
}

// FindContainer returns the container that ref means: POD/NAME, or a NAME that only one pod has a container of;
// and so with ids, or the start of one.
func (s *Store) FindContainer(ref string) (*Container, error) {
	if pod, name, ok := strings.Cut(ref, "/"); ok {
		p, err := s.Find(pod)
		if err != nil {
			return nil, err
		}
		found, err := p.match(name)
		if err != nil {
			return nil, err
		}
		if len(found) == 0 {
			return nil, p.noContainer(name)
		}
		return one(ref, found)
	}
	pods, err := s.List()
	if err != nil {
		return nil, err
	}
	var found []*Container
	for _, p := range pods {
		matching, err := p.match(ref)
		if err != nil {
			return nil, err
		}
		found = append(found, matching...)
	}
	if len(found) == 0 {
		return nil, fail(ErrNoContainer, []string{"`podsh ps -c` shows all containers"}, "no container named %q", ref)
	}
	return one(ref, found)
}

func one(ref string, found []*Container) (*Container, error) {
	if len(found) == 1 {
		return found[0], nil
	}
	var titles []string
	for _, c := range found {
		titles = append(titles, c.Title())
	}
	return nil, fail(ErrNoContainer, []string{"it could be " + strings.Join(titles, ", ")}, "%q could mean %d containers", ref, len(found))
}

// match lists the containers that a name, an id or the start of one means.
func (p *Pod) match(ref string) ([]*Container, error) {
	if id := p.containerNamed(ref); id != "" {
		c, err := p.loadContainer(id)
		return []*Container{c}, err
	}
	entries, _ := os.ReadDir(p.containersPath()) // none is no error
	var found []*Container
	for _, entry := range entries {
		if isID(entry.Name()) && ref != "" && strings.HasPrefix(entry.Name(), ref) {
			c, err := p.loadContainer(entry.Name())
			if err != nil {
				return nil, err
			}
			found = append(found, c)
		}
	}
	return found, nil
}

func (p *Pod) noContainer(name string) error {
	hint := "`podsh ps -c` shows all containers"
	var known []string
	entries, _ := os.ReadDir(p.store.path("pods", p.ID, "names")) // for the hint alone
	for _, entry := range entries {
		known = append(known, entry.Name())
	}
	if near := Nearest(name, known); near != "" {
		hint = fmt.Sprintf("did you mean %q? %s", near, hint)
	}
	return fail(ErrNoContainer, []string{hint}, "no container %q in pod %q", name, p.Title())
}

// forget removes the container's description.
func (c *Container) forget() error {
	unlock, err := c.pod.store.lock()
	if err != nil {
		return err
	}
	defer unlock()
	gone := c.pod.containersPath("gone-" + c.ID)
	if err := os.Rename(c.pod.containersPath(c.ID), gone); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	name := c.pod.store.path("pods", c.Pod, "names", c.Name)
	if id, _ := os.ReadFile(name); string(id) == c.ID {
		_ = os.Remove(name) // else it is free all the same
	}
	return os.RemoveAll(gone)
}

// removeDisk removes what the container wrote.
func (c *Container) removeDisk() error {
	p := c.pod
	lost := Pod{Upper: c.Disk, UIDMap: p.UIDMap, GIDMap: p.GIDMap, OneID: p.OneID}
	return lost.removeUpper()
}

// FindTarget returns the pod or the container that ref means: POD/NAME is a container; a word alone is a pod, else a
// container that only one pod has.
func (s *Store) FindTarget(ref string) (*Pod, *Container, error) {
	if strings.Contains(ref, "/") {
		c, err := s.FindContainer(ref)
		return nil, c, err
	}
	pod, err := s.Find(ref)
	if pod != nil || !errors.Is(err, ErrNoPod) {
		return pod, nil, err
	}
	c, containerErr := s.FindContainer(ref)
	if containerErr != nil {
		return nil, nil, err
	}
	return nil, c, nil
}

// RecoverContainers looks after the containers whose watcher was killed: what the kernel has left of them is ended, and
// those that are to start once more get a new supervisor. What did not work is no reason not to look at the others.
func (p *Pod) RecoverContainers() []error {
	containers, err := p.Containers()
	if err != nil {
		return []error{err}
	}
	var problems []error
	supervise := false
	for _, c := range containers {
		written, err := c.written()
		if err != nil || written.Status != Up && written.Status != Restarting {
			continue
		}
		state, err := c.State()
		if err != nil || state.Status != Ended || state.Reason == "" {
			continue // it is watched over, or was removed
		}
		problems = append(problems, fail(nil, []string{"`podsh start " + c.Title() + "`, or `podsh rm " + c.Title() + "`"},
			"container %q has ended: %s", c.Title(), state.Reason))
		if c.Spec.Detached && !state.Stopped && c.Spec.Restart.again(state.ExitCode, state.InARow) && p.Status() == Running {
			supervise = true // who takes over writes it down
			continue
		}
		if err := c.settle(state); err != nil {
			problems = append(problems, err)
		}
		if c.Spec.Remove {
			if err := c.discard(); err != nil {
				problems = append(problems, err)
			}
		}
	}
	if supervise {
		conn, err := p.ensureSupervisor()
		if err != nil {
			return append(problems, err)
		}
		conn.Close()
	}
	return problems
}
