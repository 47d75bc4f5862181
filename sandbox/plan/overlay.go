package plan

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// makeOverlayFolder makes one of the folders of an overlay, or leaves it as it is, where a container starts once more.
// What is true of the root is what is true of the folder for writes, overlayfs.rst: so that is made as the image says.
func (p *Creation) makeOverlayFolder(name string) {
	root := RootFacts{Mode: 0o755}
	if path.Base(name) == "upper" && p.Facts.Dir.Root != nil {
		root = *p.Facts.Dir.Root
	}
	p.CallTolerating(unix.EEXIST, unix.SYS_MKDIRAT, unix.AT_FDCWD, name, int(root.Mode))
	if root.UID != 0 || root.GID != 0 {
		p.Call(unix.SYS_FCHOWNAT, unix.AT_FDCWD, name, int(root.UID), int(root.GID), unix.AT_SYMLINK_NOFOLLOW)
	}
}

// Where the layers of a root stand open for mount(2), the lowest first, and what they are mounted in: at numbers that
// are known now.
const (
	firstLayerFD = stageFD + 1
	stageFD      = 255
)

// mountOverlay mounts it from where descriptors have names of three digits: all the options are to fit into the page that
// mount(2) takes, and an overlay may have 500 layers.
func (p *Creation) mountOverlay(layers int, upper, userxattr string) {
	stage, lower := "", "lower"
	if layers > 0 {
		p.Call(unix.SYS_DUP3, p.stage, stageFD, unix.O_CLOEXEC)
		p.Call(unix.SYS_CHDIR, "/proc/self/fd")
		stage, lower = fmt.Sprintf("%d/", stageFD), layerNumbers(layers)
	}
	p.Call(unix.SYS_MOUNT, "overlay", stage+"root", "overlay", unix.MS_NODEV,
		fmt.Sprintf("lowerdir=%s,upperdir=%supper,workdir=%[2]swork%s", lower, stage+upper, userxattr))
	if layers > 0 {
		p.Call(unix.SYS_FCHDIR, p.stage)
		p.Call(unix.SYS_CLOSE_RANGE, stageFD, firstLayerFD+layers-1, 0)
	}
}

// layerNumbers names the layers for an overlay, the highest first.
func layerNumbers(n int) string {
	var numbers []string
	for i := range n {
		numbers = append(numbers, strconv.Itoa(firstLayerFD+n-1-i))
	}
	return strings.Join(numbers, ":")
}
