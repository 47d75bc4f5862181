package container

import (
	"github.com/podsh/podsh/sandbox/disk"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/plan"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/store"
)

// AsPod is the container as one that commands can join: a pod that is held by the container's command.
func AsPod(c *pod.Container) (*pod.Pod, error) {
	state, err := store.StateOf(c)
	if err != nil {
		return nil, err
	}
	if state.Status != pod.Up {
		if err := store.Lives(c.In); err != nil {
			return nil, store.WhereItWrote(c, err)
		}
		return nil, fault.New(fault.ErrExited, []string{"podsh start " + c.Title()}, "container %q does not run", c.Title())
	}
	view := View(c)
	view.Holder, view.Spec.Name = state.Process, c.Title()
	view.Around, view.Workdir = c.In, c.Workdir
	if who, err := plan.LookUp(c.User, view.UID, view.GID, disk.ReadFile(c, "/etc/passwd"), disk.ReadFile(c, "/etc/group")); err == nil {
		view.UID, view.GID = who.UID, who.GID
	}
	return view, nil
}
