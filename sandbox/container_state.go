package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/image"
	"github.com/podsh/podsh/rootfs"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/files"
	"github.com/podsh/podsh/sandbox/proc"
	"github.com/podsh/podsh/sandbox/spec"
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
	Process   proc.ID         `json:"process,omitzero"` // the command, or its init
	MountNS   uint64          `json:"mount_namespace,omitempty"`
	Watcher   proc.ID         `json:"watcher,omitzero"` // whose child it is: the pod's supervisor, or podsh run
	Started   time.Time       `json:"started,omitzero"`
	Finished  time.Time       `json:"finished,omitzero"`
	ExitCode  int             `json:"exit_code"`
	Reason    string          `json:"reason,omitempty"` // why it ended, where its status does not tell
	Restarts  int             `json:"restarts"`
	InARow    int             `json:"restarts_in_a_row,omitempty"` // none of which ran for long
	RestartAt time.Time       `json:"restart_at,omitzero"`
	Stopped   bool            `json:"stopped,omitempty"` // somebody wanted it to end: no restart
}

func (p *Pod) containersPath(elements ...string) string {
	return storeOf(p).path(append([]string{"pods", p.ID, "containers"}, elements...)...)
}

func (c *Container) path(name string) string { return c.pod.containersPath(c.ID, name) }

// LogPath is the container's log; older parts of it lie beside.
func (c *Container) LogPath() string { return filepath.Join(c.Disk, "log") }

// State reads what the container is doing. A container that was running when the one who watched over it was killed
// has ended, whatever is written.
func (c *Container) State() (*ContainerState, error) {
	deadline := time.Now().Add(untilWritten)
	for {
		state, err := readState(c.path("state.json"))
		if errors.Is(err, fs.ErrNotExist) && files.Exists(c.path("container.json")) {
			return &ContainerState{Status: Created}, nil
		}
		if err != nil {
			return nil, fault.New(fault.ErrNoContainer, nil, "state of container %q: %v", c.Title(), err)
		}
		if state.Status != Up && state.Status != Restarting {
			return state, nil
		}
		switch {
		case !state.Watcher.Alive(): // its processes are being killed, if they still are there
			return state.lost(), nil
		case state.Status == Restarting, state.Process.Alive():
			return state, nil
		case !c.awaitState(state, deadline): // it has just ended, and who watches is about to write that down
			return state, nil
		}
	}
}

// untilWritten is how long it may take from the end of a command until that is written down: what it has left is
// ended first. Who asks before is told that it runs.
const untilWritten = time.Second

// awaitState waits until another state is written than this one, inotify(7), or who would write it has ended; false at the
// deadline.
func (c *Container) awaitState(state *ContainerState, deadline time.Time) bool {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return false
	}
	changes := os.NewFile(uintptr(fd), "inotify")
	defer changes.Close()
	if _, err := unix.InotifyAddWatch(fd, c.path(""), unix.IN_MOVED_TO|unix.IN_MOVE_SELF); err != nil {
		return err == unix.ENOENT // it is gone: the next look tells
	}
	if now, err := readState(c.path("state.json")); err != nil || now.Status != state.Status || now.Process != state.Process {
		return true // written before we watched
	}
	watcher, err := state.Watcher.Open()
	if err != nil {
		return errors.Is(err, fault.ErrExited)
	}
	defer watcher.Close()
	changed, err := proc.Readable(deadline, changes, watcher)
	return changed && err == nil
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

// saveState writes down what the container is doing: all of it, or nothing.
func (c *Container) saveState(state *ContainerState) error {
	text, err := json.Marshal(state)
	if err != nil {
		return err
	}
	next := c.path("new-state")
	if err := os.WriteFile(next, text, 0o600); err != nil {
		os.Remove(next)
		return storeOf(c.pod).full(err)
	}
	return os.Rename(next, c.path("state.json"))
}

// NewContainer describes a container in the store, and makes its folder on disk. img may be nil. own says that the
// pod is there for it alone.
func (p *Pod) NewContainer(spec *spec.ContainerSpec, img *image.Image, layers []string, own bool) (c *Container, err error) {
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
	if !files.Exists(p.containersPath()) { // once for each pod is enough
		p.sweepDisks()
	}
	lock, err := p.makeDisk(c.Disk, p.containersPath(c.ID))
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	c.Memory = !carriesOverlay(c.Disk)
	if c.Root.Mode == "overlay" && !c.Memory {
		err = p.giveToRoot(c.Disk)
	}
	if err == nil {
		err = c.save()
	}
	if err != nil {
		_ = os.RemoveAll(c.Disk) // there is nothing in it yet but a link
		return nil, err
	}
	return c, nil
}

// PlanContainer is a container that could be made, for those who want to see its plan.
func (p *Pod) PlanContainer(spec *spec.ContainerSpec, img *image.Image, layers []string) (*Container, error) {
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
	unlock, err := storeOf(p).lock()
	if err != nil {
		return storeOf(p).full(err)
	}
	defer unlock()
	if files.Exists(storeOf(p).path("pods", p.ID, closedName)) {
		return fault.New(fault.ErrExited, []string{"podsh create, and run it there"}, "pod %q goes with its last container", p.Title())
	}
	for _, dir := range []string{"containers", "names"} {
		if err := os.Mkdir(storeOf(p).path("pods", p.ID, dir), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			if errors.Is(err, fs.ErrNotExist) {
				return fault.New(fault.ErrNoPod, nil, "pod %q was removed meanwhile", p.Title())
			}
			return storeOf(p).full(err)
		}
	}
	if c.Name == "" {
		c.Name = c.freeName()
	} else if id := p.containerNamed(c.Name); id != "" {
		return fault.New(fault.ErrNameTaken, []string{fmt.Sprintf("podsh rm -f %s/%s, or choose another --name", p.Title(), c.Name)},
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
	name := storeOf(p).path("pods", p.ID, "names", c.Name)
	if err == nil {
		err = os.WriteFile(name, []byte(c.ID), 0o600)
	}
	if err == nil {
		err = os.Rename(fresh, p.containersPath(c.ID))
	}
	if err != nil {
		_ = os.RemoveAll(fresh)
		return storeOf(p).full(err)
	}
	return nil
}

// forget removes the container's description.
func (c *Container) forget() error {
	unlock, err := storeOf(c.pod).lock()
	if err != nil {
		return err
	}
	defer unlock()
	gone := c.pod.containersPath("gone-" + c.ID)
	if err := os.Rename(c.pod.containersPath(c.ID), gone); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	name := storeOf(c.pod).path("pods", c.Pod, "names", c.Name)
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
