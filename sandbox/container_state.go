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
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/proc"
	"github.com/podsh/podsh/sandbox/spec"
)

func containersPath(p *pod.Pod, elements ...string) string {
	return storeOf(p).path(append([]string{"pods", p.ID, "containers"}, elements...)...)
}

func pathOf(c *pod.Container, name string) string { return containersPath(c.In, c.ID, name) }

// LogPath is the container's log; older parts of it lie beside.
func LogPath(c *pod.Container) string { return filepath.Join(c.Disk, "log") }

// StateOf reads what the container is doing. A container that was running when the one who watched over it was killed
// has ended, whatever is written.
func StateOf(c *pod.Container) (*pod.ContainerState, error) {
	deadline := time.Now().Add(untilWritten)
	for {
		state, err := readState(pathOf(c, "state.json"))
		if errors.Is(err, fs.ErrNotExist) && files.Exists(pathOf(c, "container.json")) {
			return &pod.ContainerState{Status: pod.Created}, nil
		}
		if err != nil {
			return nil, fault.New(fault.ErrNoContainer, nil, "state of container %q: %v", c.Title(), err)
		}
		if state.Status != pod.Up && state.Status != pod.Restarting {
			return state, nil
		}
		switch {
		case !state.Watcher.Alive(): // its processes are being killed, if they still are there
			return state.Lost(), nil
		case state.Status == pod.Restarting, state.Process.Alive():
			return state, nil
		case !awaitState(c, state, deadline): // it has just ended, and who watches is about to write that down
			return state, nil
		}
	}
}

// untilWritten is how long it may take from the end of a command until that is written down: what it has left is
// ended first. Who asks before is told that it runs.
const untilWritten = time.Second

// awaitState waits until another state is written than this one, inotify(7), or who would write it has ended; false at the
// deadline.
func awaitState(c *pod.Container, state *pod.ContainerState, deadline time.Time) bool {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return false
	}
	changes := os.NewFile(uintptr(fd), "inotify")
	defer changes.Close()
	if _, err := unix.InotifyAddWatch(fd, pathOf(c, ""), unix.IN_MOVED_TO|unix.IN_MOVE_SELF); err != nil {
		return err == unix.ENOENT // it is gone: the next look tells
	}
	if now, err := readState(pathOf(c, "state.json")); err != nil || now.Status != state.Status || now.Process != state.Process {
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

func readState(path string) (*pod.ContainerState, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	state := &pod.ContainerState{}
	return state, json.Unmarshal(text, state)
}

// saveState writes down what the container is doing: all of it, or nothing.
func saveState(c *pod.Container, state *pod.ContainerState) error {
	text, err := json.Marshal(state)
	if err != nil {
		return err
	}
	next := pathOf(c, "new-state")
	if err := os.WriteFile(next, text, 0o600); err != nil {
		os.Remove(next)
		return storeOf(c.In).full(err)
	}
	return os.Rename(next, pathOf(c, "state.json"))
}

// NewContainer describes a container in the store, and makes its folder on disk. img may be nil. own says that the
// pod is there for it alone.
func NewContainer(p *pod.Pod, spec *spec.ContainerSpec, img *image.Image, layers []string, own bool) (c *pod.Container, err error) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	if c, err = PlanContainer(p, spec, img, layers); err != nil {
		return nil, err
	}
	c.OwnPod = own
	if len(spec.PodVolumes) > 0 {
		if err := ensureVolumes(p); err != nil {
			return nil, fmt.Errorf("folder for the volumes of the pod: %w", err)
		}
	}
	c.Disk = diskFolder(c.ID)
	if !files.Exists(containersPath(p)) { // once for each pod is enough
		sweepDisks(p)
	}
	lock, err := makeDisk(p, c.Disk, containersPath(p, c.ID))
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	c.Memory = !carriesOverlay(c.Disk)
	if c.Root.Mode == "overlay" && !c.Memory {
		err = giveToRoot(p, c.Disk)
	}
	if err == nil {
		err = save(c)
	}
	if err != nil {
		_ = os.RemoveAll(c.Disk) // there is nothing in it yet but a link
		return nil, err
	}
	return c, nil
}

// PlanContainer is a container that could be made, for those who want to see its plan.
func PlanContainer(p *pod.Pod, spec *spec.ContainerSpec, img *image.Image, layers []string) (*pod.Container, error) {
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
func save(c *pod.Container) error {
	p := c.In
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
		c.Name = freeName(c)
	} else if id := containerNamed(p, c.Name); id != "" {
		return fault.New(fault.ErrNameTaken, []string{fmt.Sprintf("podsh rm -f %s/%s, or choose another --name", p.Title(), c.Name)},
			"container %q is there already in pod %q", c.Name, p.Title())
	}
	text, err := json.Marshal(c)
	if err != nil {
		return err
	}
	fresh := containersPath(p, "new-"+c.ID)
	if err = os.Mkdir(fresh, 0o700); err == nil {
		err = os.WriteFile(filepath.Join(fresh, "container.json"), text, 0o600)
	}
	name := storeOf(p).path("pods", p.ID, "names", c.Name)
	if err == nil {
		err = os.WriteFile(name, []byte(c.ID), 0o600)
	}
	if err == nil {
		err = os.Rename(fresh, containersPath(p, c.ID))
	}
	if err != nil {
		_ = os.RemoveAll(fresh)
		return storeOf(p).full(err)
	}
	return nil
}

// forget removes the container's description.
func forget(c *pod.Container) error {
	unlock, err := storeOf(c.In).lock()
	if err != nil {
		return err
	}
	defer unlock()
	gone := containersPath(c.In, "gone-"+c.ID)
	if err := os.Rename(containersPath(c.In, c.ID), gone); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	name := storeOf(c.In).path("pods", c.Pod, "names", c.Name)
	if id, _ := os.ReadFile(name); string(id) == c.ID {
		_ = os.Remove(name) // else it is free all the same
	}
	return os.RemoveAll(gone)
}

// removeDiskContainer removes what the container wrote.
func removeDiskContainer(c *pod.Container) error {
	p := c.In
	lost := pod.Pod{Upper: c.Disk, UIDMap: p.UIDMap, GIDMap: p.GIDMap, OneID: p.OneID}
	return removeUpper(&lost)
}
