package container

import (
	"errors"
	"os"
	"runtime"

	"github.com/podsh/podsh/rootfs"
	"github.com/podsh/podsh/sandbox/disk"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/files"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/spec"
	"github.com/podsh/podsh/sandbox/store"
)

// Files are those of a pod, or of a container that is seen as one.
type Files struct {
	pod    *pod.Pod
	mounts *os.File // of a container that has ended: a mount namespace with what it has left, in place of the holder's
	lost   []string // and where its volumes were that are gone
}

// FilesOf are those of a pod.
func FilesOf(p *pod.Pod) *Files { return &Files{pod: p} }

// OpenFiles finds the files of a container, to be copied. Of one that has ended that is what it has left, to
// be read only. Call done when that is done.
func OpenFiles(c *pod.Container) (f *Files, done func(), err error) {
	if err := store.Lives(c.In); err != nil {
		return nil, nil, store.WhereItWrote(c, err)
	}
	view, err := AsPod(c)
	if !errors.Is(err, fault.ErrExited) {
		return FilesOf(view), func() {}, err
	}
	left, lost, err := left(c)
	if err != nil {
		return nil, nil, err
	}
	runtime.LockOSThread() // whoever builds ends with the thread
	defer runtime.UnlockOSThread()
	b, err := build(left, &Stdio{})
	if err != nil {
		return nil, nil, err
	}
	b.undo()
	passed := b.executor.Passed()
	if len(passed) == 0 {
		return nil, nil, errors.New("no mount namespace was passed out")
	}
	view = View(left)
	view.Spec.Name, view.Upper = c.Title(), c.Writes()
	return &Files{pod: view, mounts: passed[0], lost: lost}, func() { passed[0].Close() }, nil
}

// left is a container that shows what this one has left: the same root, but with all that it has written below, so that
// nothing is disturbed, should it start meanwhile; and nothing that could keep it from being shown, since what can't start
// most needs to be looked at. lost is where volumes were that are gone.
func left(c *pod.Container) (_ *pod.Container, lost []string, err error) {
	if c.Memory && c.Root.Mode == "overlay" {
		return nil, nil, fault.New(nil, []string{"podsh start " + c.Title() + "; on another disk, as XDG_DATA_HOME, it would have stayed"},
			"what container %q had written ended with it: an overlay can't be laid on the disk of %s", c.Title(), c.Disk)
	}
	l := *c
	if c.Root.Mode != "ro" {
		l.Root, l.Memory = rootfs.Layers(disk.Folders(c)), true
	}
	l.User, l.Workdir, l.Volumes, l.Spec = "", "/", nil, spec.ContainerSpec{}
	for _, v := range c.Spec.Volumes {
		if files.Exists(v.Source) {
			l.Spec.Volumes = append(l.Spec.Volumes, v)
		} else {
			lost = append(lost, v.Destination)
		}
	}
	for _, v := range c.Spec.PodVolumes {
		if files.Exists(store.VolumePath(c.In, v.Name)) {
			l.Spec.PodVolumes = append(l.Spec.PodVolumes, v)
		} else {
			lost = append(lost, v.Destination)
		}
	}
	return &l, lost, nil
}
