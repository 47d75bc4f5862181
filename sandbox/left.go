package sandbox

import (
	"errors"
	"runtime"
	"slices"

	"github.com/podsh/podsh/rootfs"
)

// OpenFiles shows the container as a pod whose files can be copied. Of one that has ended that is what it has left, to
// be read only. Call done when that is done.
func (c *Container) OpenFiles() (view *Pod, done func(), err error) {
	if view, err = c.AsPod(); !errors.Is(err, ErrExited) {
		return view, func() {}, err
	}
	left, err := c.left()
	if err != nil {
		return nil, nil, err
	}
	runtime.LockOSThread() // whoever builds ends with the thread
	defer runtime.UnlockOSThread()
	b, err := left.build(&Stdio{})
	if err != nil {
		return nil, nil, err
	}
	b.undo()
	passed := b.executor.Passed()
	if len(passed) == 0 {
		return nil, nil, errors.New("no mount namespace was passed out")
	}
	view = left.view()
	view.Spec.Name, view.mounts = c.Title(), passed[0]
	return view, func() { view.mounts.Close() }, nil
}

// left is a container that shows what this one has left: the same root, but with all that it has written below, so that
// nothing is disturbed if it starts meanwhile; and nothing that could keep it from being shown, since what can't start
// most needs to be looked at.
func (c *Container) left() (*Container, error) {
	if c.Memory {
		return nil, fail(nil, []string{"podsh start " + c.Title() + "; on another disk, as XDG_DATA_HOME, it would have stayed"},
			"what container %q had written ended with it: an overlay can't be laid on the disk of %s", c.Title(), c.Disk)
	}
	l := *c
	if c.Root.Mode == "overlay" {
		l.Root, l.Memory = rootfs.Layers(c.folders()), true
	}
	l.User, l.Workdir, l.Volumes = "", "/", nil
	l.Spec = ContainerSpec{Volumes: slices.DeleteFunc(slices.Clone(c.Spec.Volumes), func(v rootfs.Volume) bool { return !exists(v.Source) })}
	for _, v := range c.Spec.PodVolumes {
		if exists(c.pod.volumePath(v.Name)) {
			l.Spec.PodVolumes = append(l.Spec.PodVolumes, v)
		}
	}
	return &l, nil
}
