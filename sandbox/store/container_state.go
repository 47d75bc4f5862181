package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/files"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/proc"
)

// ClosedName is the file that says that a pod is on its way out.
const ClosedName = "closed"

// ContainersPath is where the pod's containers are described, or something below.
func ContainersPath(p *pod.Pod, elements ...string) string {
	return StoreOf(p).Below(append([]string{"pods", p.ID, "containers"}, elements...)...)
}

// PathOf is where a file of the container's description is.
func PathOf(c *pod.Container, name string) string { return ContainersPath(c.In, c.ID, name) }

// LogPath is the container's log; older parts of it lie beside.
func LogPath(c *pod.Container) string { return filepath.Join(c.Disk, "log") }

// StateOf reads what the container is doing. A container that was running when the one who watched over it was killed
// has ended, whatever is written.
func StateOf(c *pod.Container) (*pod.ContainerState, error) {
	deadline := time.Now().Add(untilWritten)
	for {
		state, err := ReadState(PathOf(c, "state.json"))
		if errors.Is(err, fs.ErrNotExist) && files.Exists(PathOf(c, "container.json")) {
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
	if _, err := unix.InotifyAddWatch(fd, PathOf(c, ""), unix.IN_MOVED_TO|unix.IN_MOVE_SELF); err != nil {
		return err == unix.ENOENT // it is gone: the next look tells
	}
	if now, err := ReadState(PathOf(c, "state.json")); err != nil || now.Status != state.Status || now.Process != state.Process {
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

// ReadState reads a state as it is written, whether or not it is still true: StateOf says that.
func ReadState(path string) (*pod.ContainerState, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	state := &pod.ContainerState{}
	return state, json.Unmarshal(text, state)
}

// Written is the state as it stands in the store, whether it is true or not.
func Written(c *pod.Container) (*pod.ContainerState, error) {
	return ReadState(PathOf(c, "state.json"))
}

// WhereItWrote adds to the end of its pod where the container's files are: nothing starts in that pod any more.
func WhereItWrote(c *pod.Container, err error) error {
	if upper := filepath.Join(c.Disk, "upper"); errors.Is(err, fault.ErrExited) && files.Exists(upper) {
		return fault.WithHint(err, "what the container wrote is in %s", upper)
	}
	return err
}

// SaveState writes down what the container is doing: all of it, or nothing.
func SaveState(c *pod.Container, state *pod.ContainerState) error {
	text, err := json.Marshal(state)
	if err != nil {
		return err
	}
	next := PathOf(c, "new-state")
	if err := os.WriteFile(next, text, 0o600); err != nil {
		os.Remove(next)
		return StoreOf(c.In).Full(err)
	}
	return os.Rename(next, PathOf(c, "state.json"))
}

// Save enters the container under a name that no other one of the pod has.
func Save(c *pod.Container) error {
	p := c.In
	unlock, err := StoreOf(p).Lock()
	if err != nil {
		return StoreOf(p).Full(err)
	}
	defer unlock()
	if files.Exists(StoreOf(p).Below("pods", p.ID, ClosedName)) {
		return fault.New(fault.ErrExited, []string{"podsh create, and run it there"}, "pod %q goes with its last container", p.Title())
	}
	for _, dir := range []string{"containers", "names"} {
		if err := os.Mkdir(StoreOf(p).Below("pods", p.ID, dir), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			if errors.Is(err, fs.ErrNotExist) {
				return fault.New(fault.ErrNoPod, nil, "pod %q was removed meanwhile", p.Title())
			}
			return StoreOf(p).Full(err)
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
	fresh := ContainersPath(p, "new-"+c.ID)
	if err = os.Mkdir(fresh, 0o700); err == nil {
		err = os.WriteFile(filepath.Join(fresh, "container.json"), text, 0o600)
	}
	name := StoreOf(p).Below("pods", p.ID, "names", c.Name)
	if err == nil {
		err = os.WriteFile(name, []byte(c.ID), 0o600)
	}
	if err == nil {
		err = os.Rename(fresh, ContainersPath(p, c.ID))
	}
	if err != nil {
		_ = os.RemoveAll(fresh)
		return StoreOf(p).Full(err)
	}
	return nil
}

// Forget removes the container's description.
func Forget(c *pod.Container) error {
	unlock, err := StoreOf(c.In).Lock()
	if err != nil {
		return err
	}
	defer unlock()
	gone := ContainersPath(c.In, "gone-"+c.ID)
	if err := os.Rename(ContainersPath(c.In, c.ID), gone); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	name := StoreOf(c.In).Below("pods", c.Pod, "names", c.Name)
	if id, _ := os.ReadFile(name); string(id) == c.ID {
		_ = os.Remove(name) // else it is free all the same
	}
	return os.RemoveAll(gone)
}
