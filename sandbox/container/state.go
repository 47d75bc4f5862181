package container

import (
	"fmt"
	"os"

	"github.com/podsh/podsh/image"
	"github.com/podsh/podsh/rootfs"
	"github.com/podsh/podsh/sandbox/disk"
	"github.com/podsh/podsh/sandbox/files"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/spec"
	"github.com/podsh/podsh/sandbox/store"
)

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
		if err := disk.EnsureVolumes(p); err != nil {
			return nil, fmt.Errorf("folder for the volumes of the pod: %w", err)
		}
	}
	c.Disk = store.DiskFolder(c.ID)
	if !files.Exists(store.ContainersPath(p)) { // once for each pod is enough
		disk.SweepDisks(p)
	}
	lock, err := disk.MakeDisk(p, c.Disk, store.ContainersPath(p, c.ID))
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	c.Memory = !disk.CarriesOverlay(c.Disk)
	if c.Root.Mode == "overlay" && !c.Memory {
		err = disk.GiveToRoot(p, c.Disk)
	}
	if err == nil {
		err = store.Save(c)
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
	c.Disk = store.DiskFolder(c.ID)
	return c, nil
}
