// Package disk is what pods and containers have on disk: what they write, their volumes, and the unpacked layers of
// images. It makes and removes that, as whoever its files belong to inside; it knows nothing of what runs.
package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/image"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/files"
	"github.com/podsh/podsh/sandbox/ids"
	"github.com/podsh/podsh/sandbox/machine"
	"github.com/podsh/podsh/sandbox/plan"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/store"
)

// VolumeOwners says whom those of the pod's volumes are to belong to that the container wants and that are not there yet:
// to whom the image has in their place. It makes none.
func VolumeOwners(c *pod.Container) map[string]plan.Owner {
	owners := map[string]plan.Owner{}
	for _, v := range c.Spec.PodVolumes {
		dir := store.VolumePath(c.In, v.Name)
		if files.Exists(dir) {
			continue
		}
		mode, uid, gid, err := image.StatIn(Folders(c), v.Destination)
		if err != nil || mode&unix.S_IFMT != unix.S_IFDIR {
			continue
		}
		if inside, ok := ids.Translate(c.In.UIDMap, uid, false); ok {
			uid = inside
		}
		if inside, ok := ids.Translate(c.In.GIDMap, gid, false); ok {
			gid = inside
		}
		owners[dir] = plan.Owner{UID: uid, GID: gid, Mode: mode & 0o7777}
	}
	return owners
}

// MakeVolumes makes the pod's volumes that the container wants and that are not there yet, and returns them: another
// container may have made one meanwhile.
func MakeVolumes(c *pod.Container) (made []string) {
	for _, v := range c.Spec.PodVolumes {
		dir := store.VolumePath(c.In, v.Name)
		if os.Mkdir(dir, 0o755) != nil {
			continue // it is there, or will be missed
		}
		_ = GiveToRoot(c.In, dir) // else what is to be written there fails
		made = append(made, dir)
	}
	return made
}

// RemoveVolumes removes volumes that are new, and so still empty: who comes next finds them new once more, and they get
// their owners.
func RemoveVolumes(made []string) {
	for _, dir := range made {
		_ = os.Remove(dir) // one that somebody uses by now stays
	}
}

// MissingVolumes are the folders of volumes that the image has not.
func MissingVolumes(c *pod.Container) []string {
	var missing []string
	for _, dir := range c.Volumes {
		if _, _, _, err := image.StatIn(Folders(c), dir); errors.Is(err, fs.ErrNotExist) {
			missing = append(missing, dir)
		}
	}
	return missing
}

// EnsureVolumes makes the folder that holds the pod's volumes.
func EnsureVolumes(p *pod.Pod) error {
	dir := store.DiskPath(p)
	if dir == "" {
		dir = store.DiskFolder(p.ID)
		lock, err := MakeDisk(p, dir, store.StoreOf(p).Below("pods", p.ID))
		if err != nil {
			return err
		}
		lock.Close()
		if err := os.Symlink(dir, store.StoreOf(p).Below("pods", p.ID, "disk")); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "volumes"), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// RemoveDisk removes what the pod has on disk.
func RemoveDisk(p *pod.Pod) error {
	lost := pod.Pod{Upper: store.DiskPath(p), UIDMap: p.UIDMap, GIDMap: p.GIDMap, OneID: p.OneID}
	return RemoveUpper(&lost)
}

// SweepDisks removes the folders of pods and containers that were lost, with a reboot most often.
func SweepDisks(p *pod.Pod) {
	all := filepath.Dir(store.DiskFolder(p.ID))
	if lock, err := files.LockFolder(all, unix.LOCK_EX); err == nil { // there is none yet
		SweepUppers(p, all)
		lock.Close()
	}
}

// GiveToRoot gives a folder of podsh's to the pod's root, who is to write in it. Where the one who runs podsh is somebody
// in the pod, with a group of it, that is not needed: root there may do in his files what it likes, user_namespaces(7).
func GiveToRoot(p *pod.Pod, dir string) error {
	me := uint32(os.Geteuid())
	uid, ok := ids.Translate(p.UIDMap, 0, true)
	_, user := ids.Translate(p.UIDMap, me, false)
	_, group := ids.Translate(p.GIDMap, uint32(os.Getegid()), false)
	if !ok || user && (group || uid == me) {
		return nil
	}
	gid, _ := ids.Translate(p.GIDMap, 0, true)
	if me != 0 {
		return fault.New(nil, []string{"podsh create without --uidmap makes you root in a pod"},
			"root of pod %q is user %d, to whom you can't give the files of a container", p.Title(), uid)
	}
	return os.Lchown(dir, int(uid), int(gid))
}

// MakeDisk makes such a folder, which says what it belongs to: so that what has lost that can be told. It is
// locked until the caller lets go: what it belongs to may still be in the making.
func MakeDisk(p *pod.Pod, dir, owner string) (lock *os.File, err error) {
	all := filepath.Dir(dir)
	if err := store.CheckWay(all); err != nil {
		return nil, fmt.Errorf("files of containers in %s: %w", all, err)
	}
	if err := os.MkdirAll(all, 0o700); err != nil {
		return nil, fault.WithHint(err, "set XDG_DATA_HOME to a folder on a disk, of your own")
	}
	every, err := files.LockFolder(all, unix.LOCK_EX)
	if err != nil {
		return nil, err
	}
	defer every.Close()
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fault.WithHint(err, "set XDG_DATA_HOME to a folder on a disk with room, of your own")
	}
	if lock, err = files.LockFolder(dir, unix.LOCK_EX); err != nil {
		return nil, err
	}
	if err := store.StoreOf(p).ClaimDisk(dir, owner, p.Holder); err != nil {
		lock.Close()
		return nil, err
	}
	return lock, nil
}

// CarriesOverlay says whether a folder's file system can take the writes of an overlay: another overlay can't, nor
// can one without user xattrs.
func CarriesOverlay(dir string) bool {
	var fs unix.Statfs_t
	if unix.Statfs(dir, &fs) != nil || fs.Type == unix.OVERLAYFS_SUPER_MAGIC || fs.Type == unix.NFS_SUPER_MAGIC {
		return false
	}
	return fs.Type != unix.TMPFS_MAGIC || machine.KernelVersion().AtLeast(6, 6) || os.Geteuid() == 0
}
