package sandbox

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/nsenter"
	"github.com/podsh/podsh/rootfs"
)

// How a pod gets a root of its own:
//
//  1. takeSources: what comes from the host becomes detached mounts, open_tree(2). Each path of the host is
//     looked up once, here, while the host's root is still the root.
//  2. buildRoot: the new root is mounted, and chroot(2) makes every path that follows mean the pod's, so no
//     symbolic link in a hostile rootfs leads out. The old root stays mounted all the while: in a user
//     namespace the kernel mounts proc and sysfs only where it sees that they are visible already.
//  3. finishRoot (plan_finish.go): the pod's own files, volumes and masks; then out of the chroot again, with
//     the descriptor that was kept for it (which is why a chroot is no jail), and pivot_root(2), which is one.

// source is a path of the host that becomes a mount of the pod's.
type source struct {
	path       string
	isDir      bool
	attributes int // MOUNT_ATTR_*, mount_setattr(2)
}

const (
	noDev        = unix.MOUNT_ATTR_NODEV
	readOnlyBind = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	wholeProc    = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
)

// take makes a detached mount of a source.
func (p *creation) take(s source) {
	flags := unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC
	if s.isDir {
		flags |= unix.AT_RECURSIVE // the mounts below it are locked to it: mount_namespaces(7)
	}
	tree := p.call(unix.SYS_OPEN_TREE, unix.AT_FDCWD, s.path, flags)
	if s.attributes != 0 && p.canSetAttributes() {
		p.call(unix.SYS_MOUNT_SETATTR, tree, "", unix.AT_EMPTY_PATH|flags&unix.AT_RECURSIVE, mountAttributes(s.attributes), mountAttrSize)
	}
	p.taken[s] = tree
}

func (p *creation) canSetAttributes() bool { return p.facts.Kernel.atLeast(5, 12) }

// attach puts a taken source at dst, a path in the pod that podsh has made itself.
func (p *creation) attach(s source, dst string) {
	p.call(unix.SYS_MOVE_MOUNT, p.taken[s], "", unix.AT_FDCWD, dst, unix.MOVE_MOUNT_F_EMPTY_PATH)
	p.setAttributes(s, dst)
}

// attachTo puts a taken source on what is open as at, which was opened as dst.
func (p *creation) attachTo(s source, at nsenter.Result, dst string) {
	p.call(unix.SYS_MOVE_MOUNT, p.taken[s], "", at, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	p.setAttributes(s, dst)
}

func (p *creation) setAttributes(s source, dst string) {
	if s.attributes == 0 || p.canSetAttributes() {
		return
	}
	for _, r := range p.remounts(s, dst) {
		p.call(unix.SYS_MOUNT, 0, r.dst, 0, int(r.flags|unix.MS_REMOUNT|unix.MS_BIND), 0)
	}
}

type remount struct {
	dst   string
	flags uintptr
}

// remounts lists how a bound tree gets its attributes mount by mount: each must repeat the flags that it has
// already, since they are locked in a user namespace.
func (p *creation) remounts(s source, dst string) []remount {
	own, below := p.facts.under(s.path)
	flags := uintptr(s.attributes) // MOUNT_ATTR_RDONLY, NOSUID, NODEV and NOEXEC are MS_*
	list := []remount{{dst, flags}}
	if own != nil {
		list[0].flags |= lockedFlags(own.Options)
	}
	if s.isDir {
		for _, m := range below {
			list = append(list, remount{dst + strings.TrimPrefix(m.Mountpoint, s.path), flags | lockedFlags(m.Options)})
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

// bindByHand is what attach does, in sh; here is dst as the shell sees it.
func (p *creation) bindByHand(s source, here string) string {
	how := "--bind"
	if s.isDir {
		how = "--rbind"
	}
	cmd := []string{quoteAll("mount", how, s.path, here)}
	if s.attributes != 0 {
		for _, r := range p.remounts(s, here) {
			cmd = append(cmd, quoteAll("mount", "-o", "remount,bind,"+strings.Join(rootfs.FlagNames(r.flags), ","), r.dst))
		}
	}
	return strings.Join(cmd, " && ")
}

// here is a path of the pod as the shell writes it that stands in the new root.
func here(path string) string {
	if path = strings.TrimPrefix(path, "/"); path != "" {
		return path
	}
	return "."
}

func hostSource(e rootfs.Entry) source { return source{e.Source, e.IsDir, readOnlyBind} }

func (p *creation) volumeSource(i int) source {
	v := p.pod.Spec.Volumes[i]
	attributes := noDev
	if v.ReadOnly {
		attributes |= unix.MOUNT_ATTR_RDONLY
	}
	return source{v.Source, p.facts.Volumes[i], attributes}
}

func (p *creation) dirSource() source {
	attributes := noDev
	if spec := p.pod.Spec; spec.Rootfs.Mode == "ro" || spec.Rootfs.Mode == "rw" && spec.ReadOnly {
		attributes |= unix.MOUNT_ATTR_RDONLY
	}
	return source{p.pod.Spec.Rootfs.Dir, true, attributes}
}

func (p *creation) upperSource() source { return source{p.pod.Upper, true, noDev} }

// ownIn says whether the kernel lets us mount what belongs to a namespace: root everywhere, else only in
// those that belong to the pod's own user namespace.
func (p *creation) ownIn(namespace string) bool {
	return p.facts.Root && p.pod.Namespaces["user"].Kind == "host" || p.pod.Namespaces[namespace].Kind != "host"
}

var (
	hostProc = source{"/proc", true, wholeProc}
	hostSys  = source{"/sys", true, readOnlyBind | unix.MOUNT_ATTR_NOEXEC}
)

func deviceSource(name string) source { return source{"/dev/" + name, false, 0} }

func (p *creation) takeSources() {
	p.explain("take hold of what the pod will see of the host, while its paths still mean what you meant", "open_tree(2)", "")
	for _, e := range p.facts.Host {
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
	if p.pod.Spec.Rootfs.Kind == "dir" {
		p.take(p.dirSource())
	}
	for _, layer := range p.pod.Spec.Rootfs.Layers {
		p.layers = append(p.layers, p.call(unix.SYS_OPENAT, unix.AT_FDCWD, layer, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC))
	}
	if p.pod.Upper != "" {
		p.take(p.upperSource())
	}
	for i := range p.pod.Spec.Volumes {
		if o, ok := p.volumeOwner(i); ok {
			p.call(unix.SYS_FCHOWNAT, unix.AT_FDCWD, p.volumeSource(i).path, int(o.uid), int(o.gid), unix.AT_SYMLINK_NOFOLLOW)
			p.call(unix.SYS_FCHMODAT, unix.AT_FDCWD, p.volumeSource(i).path, int(o.mode))
		}
		p.take(p.volumeSource(i))
	}
	p.stage = p.call(unix.SYS_OPENAT, unix.AT_FDCWD, p.facts.Store+"/mnt", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC)
	p.oldRoot = p.call(unix.SYS_OPENAT, unix.AT_FDCWD, "/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC)
}

func (p *creation) buildRoot() {
	p.explain("keep every change of mounts in the pod", "mount_namespaces(7)", "mount --make-rprivate /")
	p.call(unix.SYS_MOUNT, 0, "/", 0, unix.MS_REC|unix.MS_PRIVATE, 0)
	p.mountStage()
	if p.pod.Spec.Rootfs.IsFolder() {
		p.enterDir()
	} else {
		p.root = p.stage
		p.explain("look at paths as the pod will, from its own root", "chroot(2)", "cd $root")
	}
	p.call(unix.SYS_CHROOT, ".")
	p.hostEntries()
	p.mountSystem(rootfs.Proc, "pid", hostProc)
	p.mountSystem(rootfs.Sys, "net", hostSys)
	if p.facts.CgroupV2 && p.ownIn("cgroup") {
		p.mountCgroup()
	}
	p.devices()
}

// mountCgroup shows the pod's cgroups. The host's /sys, where that had to be bound, has the host's mounted
// there, and the kernel mounts no file system on itself (EBUSY, mount(2)): so there is a layer between.
func (p *creation) mountCgroup() {
	if !p.ownIn("net") {
		layer := rootfs.Mount{Type: "tmpfs", Target: rootfs.Cgroup.Target, Flags: rootfs.Cgroup.Flags, Data: "size=0k",
			Why: "cover the host's cgroups", Man: "cgroups(7)"}
		p.mount(layer)
	}
	p.mount(rootfs.Cgroup)
}

// mountStage mounts the tmpfs that holds the pod's own files. A mount made by fsopen(2) needs no path to
// where it goes, which an unmapped user could not walk.
func (p *creation) mountStage() {
	p.explain("make a root in memory, which ends with the pod", "tmpfs(5)", "mount -t tmpfs -o nosuid,nodev,mode=755 podsh $root")
	fs := p.call(unix.SYS_FSOPEN, "tmpfs", unix.FSOPEN_CLOEXEC)
	for _, option := range [][2]string{{"source", "podsh"}, {"mode", "755"}} {
		p.call(unix.SYS_FSCONFIG, fs, unix.FSCONFIG_SET_STRING, option[0], option[1], 0)
	}
	p.call(unix.SYS_FSCONFIG, fs, unix.FSCONFIG_CMD_CREATE, 0, 0, 0)
	mnt := p.call(unix.SYS_FSMOUNT, fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
	p.call(unix.SYS_MOVE_MOUNT, mnt, "", p.stage, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	p.call(unix.SYS_FCHDIR, mnt)
	p.stage = mnt
}

// enterDir makes folders of the host the root: one as it is, or some as the lower layers of an overlay.
func (p *creation) enterDir() {
	dir := p.dirSource()
	p.writeEtcFiles()
	if p.pod.Spec.Rootfs.Mode != "overlay" {
		p.explain("make "+dir.path+" the root", "mount(2)", "cd $root && mkdir root && "+p.bindByHand(dir, "root"))
		p.call(unix.SYS_MKDIRAT, unix.AT_FDCWD, "root", 0o755)
		p.attach(dir, "root")
	} else {
		p.overlay()
	}
	p.explain("look at paths as the pod will, from its own root", "chroot(2)", "cd $root/root")
	p.root = p.call(unix.SYS_OPENAT, unix.AT_FDCWD, "root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC)
	p.call(unix.SYS_FCHDIR, p.root)
}

// overlay lays a folder that takes all writes over those that take none.
func (p *creation) overlay() {
	whose := "the pod's"
	if p.member != nil {
		whose = "the container's"
	}
	upper, folders := "", []string{"root"}
	if p.pod.Upper == "" {
		folders = append(folders, "upper", "work")
	} else {
		upper, folders = "disk/", append(folders, "disk")
	}
	dir := p.dirSource()
	below, lower, byHand := "the layers of its root", layerPaths(len(p.layers)), strings.Join(reversed(p.pod.Spec.Rootfs.Layers), ":")
	var cmd []string
	if dir.path != "" {
		below, lower, byHand = dir.path+", which stays as it is", "lower", "lower"
		folders = append(folders, "lower")
		cmd = append(cmd, p.bindByHand(dir, "lower"))
	}
	if p.pod.Upper != "" {
		cmd = append(cmd, "mkdir -p "+quote(p.pod.Upper), p.bindByHand(p.upperSource(), "disk"), "mkdir disk/upper disk/work")
	}
	options := fmt.Sprintf(",upperdir=%supper,workdir=%[1]swork", upper)
	if p.pod.Namespaces["user"].Kind != "host" {
		options += ",userxattr" // Linux 5.11: trusted.* is for root alone
	}
	cmd = append([]string{"cd $root && mkdir " + strings.Join(folders, " ")}, append(cmd, quoteAll("mount", "-t", "overlay", "-o", "nodev,lowerdir="+byHand+options, "overlay", "root"))...)
	p.explain("lay a folder for "+whose+" writes over "+below, "mount(8) overlay", strings.Join(cmd, "\n"))
	for _, folder := range folders {
		p.call(unix.SYS_MKDIRAT, unix.AT_FDCWD, folder, 0o755)
	}
	if dir.path != "" {
		p.attach(dir, "lower")
	}
	for i, layer := range p.layers {
		p.call(unix.SYS_DUP3, layer, firstLayerFD+i, unix.O_CLOEXEC)
	}
	if p.pod.Upper != "" {
		p.attach(p.upperSource(), "disk")
		for _, folder := range []string{"disk/upper", "disk/work"} { // there, where a container starts once more
			p.callTolerating(unix.EEXIST, unix.SYS_MKDIRAT, unix.AT_FDCWD, folder, 0o755)
		}
	}
	p.call(unix.SYS_MOUNT, "overlay", "root", "overlay", unix.MS_NODEV, "lowerdir="+lower+options)
}

// firstLayerFD is where the lowest layer of a root stands open for mount(2), at a number that is known now.
const firstLayerFD = 256

// layerPaths names the layers for an overlay, the highest first. By their descriptors: with their paths the text
// of options would soon be longer than the page that mount(2) takes.
func layerPaths(n int) string {
	var paths []string
	for i := range n {
		paths = append(paths, fmt.Sprintf("/proc/self/fd/%d", firstLayerFD+n-1-i))
	}
	return strings.Join(paths, ":")
}

func reversed(list []string) []string {
	list = slices.Clone(list)
	slices.Reverse(list)
	return list
}

// hostEntries puts the parts of a host root in place.
func (p *creation) hostEntries() {
	groups := []struct {
		why     string
		entries []rootfs.Entry
	}{
		{why: "show the host's programs, read-only"},
		{why: "make folders to write in"},
		{why: "show the settings that programs need, read-only; never secrets"},
	}
	for _, e := range p.facts.Host {
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
		p.explain(group.why, "mount(8)", strings.Join(cmd, "\n"))
		for _, e := range group.entries {
			p.entry(e)
		}
	}
}

func (p *creation) entry(e rootfs.Entry) {
	switch {
	case e.Link != "":
		p.call(unix.SYS_SYMLINKAT, e.Link, unix.AT_FDCWD, e.Path)
		return
	case e.Source == "":
		p.call(unix.SYS_MKDIRAT, unix.AT_FDCWD, e.Path, unixMode(e.Mode))
		return
	case e.IsDir:
		p.call(unix.SYS_MKDIRAT, unix.AT_FDCWD, e.Path, 0o755)
	default:
		p.call(unix.SYS_MKNODAT, unix.AT_FDCWD, e.Path, unix.S_IFREG|0o644, 0)
	}
	p.attach(hostSource(e), e.Path)
}

func (p *creation) entryByHand(e rootfs.Entry) string {
	at := here(e.Path)
	switch {
	case e.Link != "":
		return quoteAll("ln", "-s", e.Link, at)
	case e.Source == "":
		return fmt.Sprintf("mkdir -m %o %s", unixMode(e.Mode), quote(at))
	case e.IsDir:
		return quoteAll("mkdir", "-m", "755", at) + " && " + p.bindByHand(hostSource(e), at)
	}
	return quoteAll("touch", at) + " && " + p.bindByHand(hostSource(e), at)
}

func unixMode(mode os.FileMode) int {
	bits := int(mode.Perm())
	if mode&os.ModeSticky != 0 {
		bits |= unix.S_ISVTX
	}
	return bits
}
