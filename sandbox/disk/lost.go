package disk

import (
	"errors"
	"path/filepath"
	"slices"

	"github.com/podsh/podsh/image"
	"github.com/podsh/podsh/sandbox/files"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/store"
)

// RemoveDiskContainer removes what the container wrote.
func RemoveDiskContainer(c *pod.Container) error {
	p := c.In
	lost := pod.Pod{Upper: c.Disk, UIDMap: p.UIDMap, GIDMap: p.GIDMap, OneID: p.OneID}
	return RemoveUpper(&lost)
}

// RemoveLost removes those folders.
func RemoveLost() error {
	lost, err := store.Lost()
	if err != nil || len(lost) == 0 {
		return err
	}
	usual, err := usualPod()
	if err != nil {
		return err
	}
	for _, dir := range lost {
		err = errors.Join(err, removeTree(usual, dir))
	}
	return err
}

// Folders are what its root is made of, the lowest first, and what it has written itself.
func Folders(c *pod.Container) []string {
	folders := c.Root.Layers
	if c.Root.Kind == "dir" {
		folders = []string{c.Root.Dir}
	}
	if upper := filepath.Join(c.Disk, "upper"); c.Disk != "" && c.Root.Mode == "overlay" && files.Exists(upper) {
		folders = append(slices.Clone(folders), upper)
	}
	return folders
}

// ReadFile reads a file of the container's root, which need not be mounted; nothing if there is none.
func ReadFile(c *pod.Container, name string) string {
	text, _ := image.LookUp(Folders(c), name) // one that can't be read has nothing to say
	return text
}
