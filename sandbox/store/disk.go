package store

import (
	"cmp"
	"os"
	"os/user"
	"path/filepath"
	"strconv"

	"github.com/podsh/podsh/sandbox/pod"
)

// VolumePath is the folder of one of the pod's volumes.
func VolumePath(p *pod.Pod, name string) string {
	return filepath.Join(cmp.Or(DiskPath(p), DiskFolder(p.ID)), "volumes", name)
}

// DiskPath is where what the pod has on disk lies; nothing, if it has none.
func DiskPath(p *pod.Pod) string {
	if p.Upper != "" {
		return p.Upper
	}
	path, err := os.Readlink(StoreOf(p).Below("pods", p.ID, "disk"))
	if err != nil {
		return ""
	}
	return path
}

// DiskFolder is where a pod or a container has what must not be in memory.
func DiskFolder(id string) string {
	return filepath.Join(DataFolder(uint32(os.Geteuid())), "podsh", "upper", id)
}

// DataFolder is the user's folder for data, by the XDG Base Directory Specification: a relative one does not
// count. A service has no $HOME.
func DataFolder(uid uint32) string {
	if data := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(data) {
		return data
	}
	home := os.Getenv("HOME")
	if !filepath.IsAbs(home) {
		if u, err := user.LookupId(strconv.Itoa(int(uid))); err == nil {
			home = u.HomeDir
		}
	}
	return filepath.Join("/", home, ".local/share")
}
