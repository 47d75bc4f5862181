package plan

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/nsenter"
	"github.com/podsh/podsh/rootfs"
)

// mask hides what shows or changes more than a pod should.
func (p *Creation) mask() {
	lifted := map[string]bool{}
	for _, path := range p.Pod.Spec.Unmask {
		lifted[strings.TrimSuffix(path, "/")] = true
	}
	if lifted["all"] {
		return
	}
	isLifted := func(path string) bool { return lifted[path] }
	masked, readOnly := slices.DeleteFunc(slices.Clone(p.Facts.Masked), isLifted), slices.DeleteFunc(p.readOnlyPaths(), isLifted)
	var cmd []string
	for _, path := range masked {
		cmd = append(cmd, p.maskByHand(path))
	}
	for _, path := range readOnly {
		cmd = append(cmd, fmt.Sprintf("mount --rbind %s %[1]s && mount -o remount,bind,ro,nosuid,nodev,noexec %[1]s", here(path)))
	}
	p.Explain("hide what tells or changes too much of the kernel (--unmask lifts it)", "proc(5)", strings.Join(cmd, "\n"))
	null, empty := p.taken[deviceSource("null")], nsenter.Result(-1)
	for _, path := range masked {
		mount := nsenter.Result(0)
		switch {
		case p.Facts.MaskedFiles[path]:
			mount = p.copyOf(null, 0)
		case empty < 0:
			empty = p.make(emptyMount)
			mount = empty
		default:
			mount = p.copyOf(empty, 0)
		}
		p.put(mount, p.system(path))
	}
	p.keepReadOnly(readOnly)
	p.Unsay()
}

// keepReadOnly makes read-only mounts of what stands in the pod's own /proc, from within: nobody exchanges names there. For
// a pod of root's these are some fifty, and to make them detached would take five times as long.
func (p *Creation) keepReadOnly(paths []string) {
	if len(paths) == 0 {
		return
	}
	p.Call(unix.SYS_FCHDIR, p.proc)
	for _, path := range paths {
		name := strings.TrimPrefix(path, rootfs.Proc.Target+"/")
		p.Call(unix.SYS_MOUNT, name, name, 0, unix.MS_BIND|unix.MS_REC, 0)
		if p.canSetAttributes() {
			p.Call(unix.SYS_MOUNT_SETATTR, unix.AT_FDCWD, name, unix.AT_RECURSIVE, MountAttributes(maskAttributes), MountAttrSize)
		} else {
			p.Call(unix.SYS_MOUNT, 0, name, 0, int(unix.MS_REMOUNT|unix.MS_BIND|maskAttributes), 0)
		}
	}
	p.Call(unix.SYS_CHDIR, "/")
}

const maskAttributes = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC

var emptyMount = rootfs.Mount{Type: "tmpfs", Flags: maskAttributes, Data: "size=0k"}

func (p *Creation) maskByHand(path string) string {
	if p.Facts.MaskedFiles[path] {
		return "mount --bind dev/null " + here(path)
	}
	m := emptyMount
	m.Target = path
	return mountByHand(m)
}

// readOnlyPaths are those that nobody in the pod may change. Where its root is the host's, that is all that proc(5) has
// beside processes: what belongs to root there can be given another mode, and that is seen in every /proc.
func (p *Creation) readOnlyPaths() []string {
	list := slices.Clone(p.Facts.ReadOnly)
	if p.Pod.Namespaces["user"].Kind == "host" {
		for _, path := range p.Facts.ProcEntries {
			if !slices.Contains(list, path) && !slices.Contains(p.Facts.Masked, path) {
				list = append(list, path)
			}
		}
	}
	return list
}

// system opens what stands at a path of the pod's own /proc or /sys.
func (p *Creation) system(path string) nsenter.Result {
	if below, ok := strings.CutPrefix(path, rootfs.Proc.Target+"/"); ok {
		return p.below(p.proc, below)
	}
	return p.below(p.sys, strings.TrimPrefix(path, rootfs.Sys.Target+"/"))
}
