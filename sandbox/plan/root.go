package plan

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/rootfs"
	"github.com/podsh/podsh/sandbox/step"
)

// How a pod gets a root of its own:
//
//  1. takeSources: what comes from the host becomes detached mounts. Each path of the host is looked up once, here, while
//     the host's root is still the root.
//  2. buildRoot: the new root is mounted in a folder in memory, proc and sysfs are made (in a user namespace the kernel
//     makes those only where it sees that they are visible already), and pivot_root(2) makes the new root the only one.
//     All that led to the host is closed.
//  3. Only then is anything in the root looked at: it may be a folder that others write to, and full of links. /proc, /sys
//     and /dev are put in it, and filled by their descriptors.
//  4. finishRoot (finish.go): the pod's own files (etc.go), volumes and masks (mask.go).
//
// By hand pivot_root comes last, since the tools for all that lie on the old root.

// here is a path of the pod as the shell writes it that stands in the new root.
func here(path string) string {
	if path = strings.TrimPrefix(path, "/"); path != "" {
		return path
	}
	return "."
}

func hostSource(e rootfs.Entry) source { return source{e.Source, e.IsDir, readOnlyBind} }

func (p *Creation) volumeSource(i int) source {
	v := p.Pod.Spec.Volumes[i]
	attributes := noDev
	if v.ReadOnly {
		attributes |= unix.MOUNT_ATTR_RDONLY
	}
	return source{v.Source, p.Facts.Volumes[i], attributes}
}

func (p *Creation) dirSource() source {
	attributes := noDev
	if spec := p.Pod.Spec; spec.Rootfs.Mode != "rw" || spec.ReadOnly {
		attributes |= unix.MOUNT_ATTR_RDONLY
	}
	return source{p.Pod.Spec.Rootfs.Dir, true, attributes}
}

func (p *Creation) upperSource() source { return source{p.Pod.Upper, true, noDev} }

// ownIn says whether the kernel lets us mount what belongs to a namespace: root everywhere, else only in
// those that belong to the pod's own user namespace.
func (p *Creation) ownIn(namespace string) bool {
	return p.Facts.Root && p.Pod.Namespaces["user"].Kind == "host" || p.Pod.Namespaces[namespace].Kind != "host"
}

var (
	hostProc = source{"/proc", true, wholeProc}
	hostSys  = source{"/sys", true, readOnlyBind | unix.MOUNT_ATTR_NOEXEC}
)

func deviceSource(name string) source { return source{"/dev/" + name, false, readOnlyDevice} }

func (p *Creation) takeSources() {
	// First: a clone of a shared mount is a peer of it, and what is mounted on the one is mounted on the other.
	p.Explain("keep every change of mounts in the pod", "mount_namespaces(7)", "mount --make-rprivate /")
	p.Call(unix.SYS_MOUNT, 0, "/", 0, unix.MS_REC|unix.MS_PRIVATE, 0)
	p.Explain("take hold of what the pod will see of the host, while its paths still mean what you meant", "open_tree(2)", "")
	for _, e := range p.Facts.Host {
		if e.Source != "" {
			p.take(hostSource(e))
		}
	}
	for _, name := range rootfs.Devices {
		p.take(deviceSource(name))
	}
	if !p.ownIn("pid") {
		p.take(hostProc)
	}
	if !p.ownIn("net") {
		p.take(hostSys)
	}
	if p.Pod.Spec.Rootfs.Kind == "dir" {
		p.take(p.dirSource())
	}
	for i, layer := range p.Pod.Spec.Rootfs.Layers {
		fd := p.Call(unix.SYS_OPENAT, unix.AT_FDCWD, layer, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC)
		p.Call(unix.SYS_DUP3, fd, firstLayerFD+i, unix.O_CLOEXEC) // at once: many that stay open reach up to there
		p.Call(unix.SYS_CLOSE, fd)
	}
	if p.Pod.Upper != "" {
		p.take(p.upperSource())
	}
	for i := range p.Pod.Spec.Volumes {
		if o, ok := p.volumeOwner(i); ok {
			p.Call(unix.SYS_FCHOWNAT, unix.AT_FDCWD, p.volumeSource(i).path, int(o.UID), int(o.GID), unix.AT_SYMLINK_NOFOLLOW)
			p.Call(unix.SYS_FCHMODAT, unix.AT_FDCWD, p.volumeSource(i).path, int(o.Mode))
		}
		p.take(p.volumeSource(i))
	}
	p.stage = p.Call(unix.SYS_OPENAT, unix.AT_FDCWD, p.Facts.Store+"/mnt", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC)
}

func (p *Creation) buildRoot() {
	p.mountStage()
	enter := ""
	if p.Pod.Spec.Rootfs.IsFolder() {
		enter = "cd root"
		p.mountFolder()
	} else {
		p.hostEntries()
		p.hostEtcFiles()
	}
	p.proc = p.kernelMount(rootfs.Proc, "pid", hostProc)
	p.sys = p.kernelMount(rootfs.Sys, "net", hostSys)
	p.pivot(enter)
	p.putSystem(rootfs.Proc, "pid", hostProc, p.proc)
	p.putSystem(rootfs.Sys, "net", hostSys, p.sys)
	if p.Facts.CgroupV2 && p.ownIn("cgroup") {
		p.mountCgroup()
	}
	p.devices()
}

// mountStage mounts the tmpfs that holds the pod's own files. A mount made by fsopen(2) needs no path to
// where it goes, which an unmapped user could not walk.
func (p *Creation) mountStage() {
	p.Explain("make a root in memory, which ends with the pod", "tmpfs(5)", "mount -t tmpfs -o nosuid,nodev,mode=755 tmpfs $root && cd $root")
	stage := p.make(rootfs.Mount{Type: "tmpfs", Flags: unix.MS_NOSUID | unix.MS_NODEV, Data: "mode=755"})
	p.put(stage, p.stage)
	p.Call(unix.SYS_CLOSE, p.stage)
	p.Call(unix.SYS_FCHDIR, stage)
	p.stage = stage
}

// pivot makes the new root the only one. No name in it has been looked at so far, and none is as long as something of the
// host's is open.
func (p *Creation) pivot(byHand string) {
	p.Explain("make the new root the only one; by hand that comes last, as the tools lie on the old one", "pivot_root(2)", byHand)
	root := p.stage
	if p.Pod.Spec.Rootfs.IsFolder() {
		root = p.Call(unix.SYS_OPENAT, unix.AT_FDCWD, "root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC)
		p.Call(unix.SYS_FCHDIR, root)
		p.Call(unix.SYS_CLOSE, p.stage)
	}
	p.Call(unix.SYS_CLOSE, root)
	p.Call(unix.SYS_PIVOT_ROOT, ".", ".")
	p.Call(unix.SYS_UMOUNT2, ".", unix.MNT_DETACH)
	p.Call(unix.SYS_CHDIR, "/")
	p.inside = true
}

// mountFolder makes folders of the host the root: one as it is, or some as the lower layers of an overlay.
func (p *Creation) mountFolder() {
	p.writeEtcFiles()
	if p.Pod.Spec.Rootfs.Mode == "overlay" {
		p.overlay()
		return
	}
	dir := p.dirSource()
	p.Explain("make "+dir.path+" the root", "mount(2)", "mkdir root && "+p.bindByHand(dir, "root"))
	p.Call(unix.SYS_MKDIRAT, unix.AT_FDCWD, "root", 0o755)
	p.attach(dir, "root")
}

// overlay lays a folder that takes all writes over those that take none.
func (p *Creation) overlay() {
	whose := "the pod's"
	if p.member != nil {
		whose = "the container's"
	}
	upper, folders := "", []string{"root"}
	if p.Pod.Upper == "" {
		folders = append(folders, "upper", "work")
	} else {
		upper, folders = "disk/", append(folders, "disk")
	}
	dir, layers := p.dirSource(), p.Pod.Spec.Rootfs.Layers
	below, byHand := "the layers of its root", strings.Join(reversed(layers), ":")
	var cmd []string
	if dir.path != "" {
		below, byHand = dir.path+", which stays as it is", "lower"
		folders = append(folders, "lower")
		cmd = append(cmd, p.bindByHand(dir, "lower"))
	}
	if p.Pod.Upper != "" {
		cmd = append(cmd, "mkdir -p "+step.Quote(p.Pod.Upper), p.bindByHand(p.upperSource(), "disk"), "mkdir disk/upper disk/work")
	}
	userxattr := ""
	if p.Pod.Namespaces["user"].Kind != "host" {
		userxattr = ",userxattr" // Linux 5.11: trusted.* is for root alone
	}
	options := fmt.Sprintf("nodev,lowerdir=%s,upperdir=%supper,workdir=%[2]swork%s", byHand, upper, userxattr)
	cmd = append([]string{"mkdir " + strings.Join(folders, " ")}, append(cmd, step.QuoteAll("mount", "-t", "overlay", "-o", options, "overlay", "root"))...)
	p.Explain("lay a folder for "+whose+" writes over "+below, "mount(8) overlay", strings.Join(cmd, "\n"))
	for _, folder := range folders {
		p.makeOverlayFolder(folder)
	}
	if dir.path != "" {
		p.attach(dir, "lower")
		p.Call(unix.SYS_CLOSE, p.taken[dir])
	}
	if p.Pod.Upper != "" {
		p.attach(p.upperSource(), "disk")
		p.Call(unix.SYS_CLOSE, p.taken[p.upperSource()])
		for _, folder := range []string{"disk/upper", "disk/work"} {
			p.makeOverlayFolder(folder)
		}
	}
	p.mountOverlay(len(layers), upper, userxattr)
}

func reversed(list []string) []string {
	list = slices.Clone(list)
	slices.Reverse(list)
	return list
}

// hostEntries puts the parts of a host root in place.
func (p *Creation) hostEntries() {
	groups := []struct {
		why     string
		entries []rootfs.Entry
	}{
		{why: "show the host's programs, read-only"},
		{why: "make folders to write in"},
		{why: "show the settings that programs need, read-only; never secrets"},
	}
	for _, e := range p.Facts.Host {
		switch {
		case strings.HasPrefix(e.Path, "/etc/"):
			groups[2].entries = append(groups[2].entries, e)
		case e.Source == "" && (e.Link == "" || strings.HasPrefix(e.Path, "/var/")):
			groups[1].entries = append(groups[1].entries, e)
		default:
			groups[0].entries = append(groups[0].entries, e)
		}
	}
	for _, group := range groups {
		var cmd []string
		for _, e := range group.entries {
			cmd = append(cmd, p.entryByHand(e))
		}
		p.Explain(group.why, "mount(8)", strings.Join(cmd, "\n"))
		for _, e := range group.entries {
			p.entry(e)
		}
	}
}

// entry makes it by a path from the folder in memory that this process stands in: nobody else is there.
func (p *Creation) entry(e rootfs.Entry) {
	at := here(e.Path)
	switch {
	case e.Link != "":
		p.Call(unix.SYS_SYMLINKAT, e.Link, unix.AT_FDCWD, at)
		return
	case e.Source == "":
		p.Call(unix.SYS_MKDIRAT, unix.AT_FDCWD, at, e.UnixMode())
		return
	case e.IsDir:
		p.Call(unix.SYS_MKDIRAT, unix.AT_FDCWD, at, 0o755)
	default:
		p.Call(unix.SYS_MKNODAT, unix.AT_FDCWD, at, unix.S_IFREG|0o644, 0)
	}
	p.attach(hostSource(e), at)
}

func (p *Creation) entryByHand(e rootfs.Entry) string {
	at := here(e.Path)
	switch {
	case e.Link != "":
		return step.QuoteAll("ln", "-s", e.Link, at)
	case e.Source == "":
		return fmt.Sprintf("mkdir -m %o %s", e.UnixMode(), step.Quote(at))
	case e.IsDir:
		return step.QuoteAll("mkdir", "-m", "755", at) + " && " + p.bindByHand(hostSource(e), at)
	}
	return step.QuoteAll("touch", at) + " && " + p.bindByHand(hostSource(e), at)
}
