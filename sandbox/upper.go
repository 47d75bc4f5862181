package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// upperDir is where a pod's writes go on a kernel whose tmpfs can't carry an overlay for an ordinary user
// (it has user xattrs since Linux 6.6); "" where they go to a tmpfs, and end with the pod.
func upperDir(pod *Pod, f *Facts) string {
	root := pod.Spec.Rootfs
	if !pod.own("mnt") || root.Kind != "dir" || root.Mode != "overlay" || pod.Namespaces["user"].Kind == "host" || f.Kernel.atLeast(6, 6) {
		return ""
	}
	return filepath.Join(f.Data, "podsh", "upper", pod.ID)
}

// removeUpper removes what a pod wrote to disk. Its files belong to ids of the pod's, so without root they
// can only be removed where those are root's: in a user namespace with the pod's own maps.
func (p *Pod) removeUpper() error {
	if p.Upper == "" {
		return nil
	}
	err := os.RemoveAll(p.Upper)
	if err == nil || os.Geteuid() == 0 || !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return fmt.Errorf("remove %s: %w", p.Upper, err)
}
