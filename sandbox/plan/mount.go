package plan

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/nsenter"
	"github.com/podsh/podsh/rootfs"
	"github.com/podsh/podsh/sandbox/step"
)

// How a mount comes about: it is made where nobody can see it, from something of the host's by open_tree(2) or by the
// kernel by fsmount(2), and gets what restricts it. Only then is it put in its place. From then on it is known by its
// descriptor: others may exchange the names in a folder that the host shares with the pod, CVE-2025-52881.

// source is a path of the host that becomes a mount of the pod's.
type source struct {
	path       string
	isDir      bool
	attributes int // MOUNT_ATTR_*, mount_setattr(2)
}

const (
	noDev          = unix.MOUNT_ATTR_NODEV
	readOnlyBind   = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	readOnlyDevice = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID // its inode is the host's; it can be written to all the same
	wholeProc      = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
)

// take makes a detached mount of a source. Each path of the host is looked up once, here.
func (p *Creation) take(s source) {
	flags := unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC
	if s.isDir {
		flags |= unix.AT_RECURSIVE // the mounts below it are locked to it: mount_namespaces(7)
	}
	p.taken[s] = p.Call(unix.SYS_OPEN_TREE, unix.AT_FDCWD, s.path, flags)
	p.restrict(p.taken[s], s)
}

// restrict gives a mount its attributes, and cuts it off from the host's: what is mounted there is not mounted here, and
// the other way round.
func (p *Creation) restrict(mount nsenter.Result, s source) {
	if !p.canSetAttributes() {
		return // putOn does it
	}
	flags := unix.AT_EMPTY_PATH
	if s.isDir {
		flags |= unix.AT_RECURSIVE
	}
	p.Call(unix.SYS_MOUNT_SETATTR, mount, "", flags, MountAttributes(s.attributes), MountAttrSize)
}

func (p *Creation) canSetAttributes() bool { return p.Facts.Kernel.AtLeast(5, 12) }

// attach puts a taken source at a path that podsh has made itself, in a folder in memory that nobody else knows.
func (p *Creation) attach(s source, dst string) {
	p.Call(unix.SYS_MOVE_MOUNT, p.taken[s], "", unix.AT_FDCWD, dst, unix.MOVE_MOUNT_F_EMPTY_PATH)
	p.remount(p.taken[s], s)
}

// putOn puts a taken source on what is open as at.
func (p *Creation) putOn(s source, at nsenter.Result) {
	p.put(p.taken[s], at)
	p.remount(p.taken[s], s)
}

// put puts a detached mount on what is open as at.
func (p *Creation) put(mount, at nsenter.Result) {
	p.Call(unix.SYS_MOVE_MOUNT, mount, "", at, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

// remount does before Linux 5.12 what restrict does from then on: there only what is mounted gets attributes. Nothing
// has been mounted on it yet, so nothing has got to the host's own mount.
func (p *Creation) remount(mount nsenter.Result, s source) {
	if p.canSetAttributes() {
		return
	}
	p.mountOn(mount, unix.MS_PRIVATE|unix.MS_REC)
	if s.attributes == 0 {
		return
	}
	for _, r := range p.remounts(s, "") {
		at := mount
		if r.dst != "" {
			at = p.below(mount, r.dst[1:])
		}
		p.mountOn(at, int(r.flags|unix.MS_REMOUNT|unix.MS_BIND))
	}
}

// mountOn calls mount(2) for what is open as fd, by its descriptor: through the host's /proc, or from the pod's own, which
// is known by its descriptor.
func (p *Creation) mountOn(fd nsenter.Result, flags int) {
	p.Call(unix.SYS_DUP3, fd, mountFD, unix.O_CLOEXEC)
	path := "/proc/self/fd/"
	if p.inside {
		path = "self/fd/"
		p.Call(unix.SYS_FCHDIR, p.proc)
	}
	p.Call(unix.SYS_MOUNT, 0, path+fmt.Sprint(mountFD), 0, flags, 0)
	p.Call(unix.SYS_CLOSE, mountFD)
	if p.inside {
		p.Call(unix.SYS_CHDIR, "/")
	}
}

// mountFD is a number that is known now, for a path. Those of layers stand behind it.
const mountFD = firstLayerFD - 1

type remount struct {
	dst   string
	flags uintptr
}

// remounts lists how a bound tree gets its attributes mount by mount: each must repeat the flags that it has
// already, since they are locked in a user namespace.
func (p *Creation) remounts(s source, dst string) []remount {
	own, below := p.Facts.under(s.path)
	flags := uintptr(s.attributes) // MOUNT_ATTR_RDONLY, NOSUID, NODEV and NOEXEC are MS_*
	list := []remount{{dst, flags}}
	if own != nil {
		list[0].flags |= lockedFlags(own.Options)
	}
	if s.isDir {
		for _, m := range below {
			list = append(list, remount{dst + "/" + strings.TrimPrefix(strings.TrimPrefix(m.Mountpoint, s.path), "/"), flags | lockedFlags(m.Options)})
		}
	}
	return list
}

func lockedFlags(options string) uintptr {
	var flags uintptr
	for option := range strings.SplitSeq(options, ",") {
		flags |= map[string]uintptr{"ro": unix.MS_RDONLY, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC}[option]
	}
	return flags
}

// bindByHand is what take and attach do, in sh; here is dst as the shell sees it.
func (p *Creation) bindByHand(s source, here string) string {
	how := "--bind"
	if s.isDir {
		how = "--rbind"
	}
	cmd := []string{step.QuoteAll("mount", how, s.path, here)}
	if s.attributes != 0 {
		for _, r := range p.remounts(s, here) {
			cmd = append(cmd, step.QuoteAll("mount", "-o", "remount,bind,"+strings.Join(rootfs.FlagNames(r.flags), ","), r.dst))
		}
	}
	return strings.Join(cmd, " && ")
}

// make has the kernel make a file system, detached: fsopen(2).
func (p *Creation) make(m rootfs.Mount) nsenter.Result {
	fs := p.Call(unix.SYS_FSOPEN, m.Type, unix.FSOPEN_CLOEXEC)
	p.Call(unix.SYS_FSCONFIG, fs, unix.FSCONFIG_SET_STRING, "source", m.Type, 0)
	if m.Flags&unix.MS_RDONLY != 0 { // the file system as well as the mount, as mount(2) has it
		p.Call(unix.SYS_FSCONFIG, fs, unix.FSCONFIG_SET_FLAG, "ro", 0, 0)
	}
	for option := range strings.SplitSeq(m.Data, ",") {
		switch key, value, hasValue := strings.Cut(option, "="); {
		case key == "":
		case hasValue:
			p.Call(unix.SYS_FSCONFIG, fs, unix.FSCONFIG_SET_STRING, key, value, 0)
		default:
			p.Call(unix.SYS_FSCONFIG, fs, unix.FSCONFIG_SET_FLAG, key, 0, 0)
		}
	}
	p.Call(unix.SYS_FSCONFIG, fs, unix.FSCONFIG_CMD_CREATE, 0, 0, 0)
	return p.Call(unix.SYS_FSMOUNT, fs, unix.FSMOUNT_CLOEXEC, int(m.Flags)) // MOUNT_ATTR_* are MS_*
}

// below finds what stands at a path below a mount of podsh's own making, and nowhere else.
func (p *Creation) below(mount nsenter.Result, path string) nsenter.Result {
	return p.open(mount, path, unix.O_PATH)
}

func (p *Creation) open(mount nsenter.Result, path string, flags uint64) nsenter.Result {
	return p.Call(unix.SYS_OPENAT2, mount, path, openHow(flags|unix.O_CLOEXEC, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS), openHowSize)
}

// MountAttrSize is that of a struct mount_attr, mount_setattr(2).
const MountAttrSize = 32

const openHowSize = 24

// openHow is a struct open_how, openat2(2).
func openHow(flags, resolve uint64) []byte {
	return nativeWords([]uint32{uint32(flags), uint32(flags >> 32), 0, 0, uint32(resolve), uint32(resolve >> 32)})
}
