package plan

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/network"
	"github.com/podsh/podsh/nsenter"
	"github.com/podsh/podsh/rootfs"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/ids"
	"github.com/podsh/podsh/sandbox/step"
)

// kernelMount makes proc or sysfs where it shows what is the pod's own; where the namespace is the host's, the kernel lets
// only the host's be bound.
func (p *Creation) kernelMount(m rootfs.Mount, namespace string, ofHost source) nsenter.Result {
	if !p.ownIn(namespace) {
		return p.taken[ofHost]
	}
	if p.takesProc(m) {
		return p.podProc
	}
	p.Explain(m.Why, m.Man, "mkdir -p "+p.inRoot(m.Target)+" && "+step.QuoteAll("mount", "-t", m.Type, "-o", m.Options(), m.Type, p.inRoot(m.Target)))
	return p.make(m)
}

// takesProc says whether a mount is the pod's own /proc, which whoever is not in its pid namespace can't make.
func (p *Creation) takesProc(m rootfs.Mount) bool {
	return m == rootfs.Proc && p.member != nil && p.comesLast()
}

// inRoot is a path of the pod as the shell writes it that stands where the root is being built.
func (p *Creation) inRoot(target string) string {
	if p.Pod.Spec.Rootfs.IsFolder() {
		return "root" + target
	}
	return here(target)
}

// putSystem puts proc or sysfs in its place.
func (p *Creation) putSystem(m rootfs.Mount, namespace string, ofHost source, mount nsenter.Result) {
	if p.takesProc(m) {
		p.Explain("show the pod's "+m.Target, m.Man, "mkdir -p "+here(m.Target)+" && "+mountByHand(m))
		p.put(mount, p.mountPoint(m.Target))
		return
	}
	if p.ownIn(namespace) {
		p.Explain("put what was made at "+m.Target, "move_mount(2)", "")
		p.put(mount, p.mountPoint(m.Target))
		return
	}
	p.Explain(fmt.Sprintf("show the host's %s: without a %s namespace of its own the pod gets no other", m.Target, namespace),
		m.Man, "mkdir -p "+here(m.Target)+" && "+p.bindByHand(ofHost, here(m.Target)))
	p.putOn(ofHost, p.mountPoint(m.Target))
}

// mountPoint makes sure that a folder is there to mount on, and opens it. In a folder of the host nothing is trusted: a
// link in place of /proc is refused.
func (p *Creation) mountPoint(target string) nsenter.Result {
	if !p.Pod.Spec.Rootfs.IsFolder() || p.Facts.Dir.Missing[target] {
		p.CallTolerating(unix.EEXIST, unix.SYS_MKDIRAT, unix.AT_FDCWD, here(target), 0o755)
	}
	return p.Call(unix.SYS_OPENAT2, unix.AT_FDCWD, here(target), openHow(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, unix.RESOLVE_NO_SYMLINKS), openHowSize)
}

func mountByHand(m rootfs.Mount) string {
	return step.QuoteAll("mount", "-t", m.Type, "-o", m.Options(), m.Type, here(m.Target))
}

// mountCgroup shows the pod's cgroups. The host's /sys, where that had to be bound, has the host's mounted there, and by
// hand no file system is mounted on itself (EBUSY, mount(2)): so there is a layer between.
func (p *Creation) mountCgroup() {
	if !p.ownIn("net") {
		layer := rootfs.Mount{Type: "tmpfs", Target: rootfs.Cgroup.Target, Flags: rootfs.Cgroup.Flags, Data: "size=0k"}
		p.Explain("cover the host's cgroups", "cgroups(7)", mountByHand(layer))
		p.put(p.make(layer), p.below(p.sys, "fs/cgroup"))
	}
	p.Explain(rootfs.Cgroup.Why, rootfs.Cgroup.Man, mountByHand(rootfs.Cgroup))
	p.put(p.make(rootfs.Cgroup), p.below(p.sys, "fs/cgroup"))
}

// devices fills /dev, and then puts it in its place.
func (p *Creation) devices() {
	m := rootfs.Dev
	p.Explain(m.Why, m.Man, "mkdir -p dev && "+mountByHand(m))
	dev := p.make(m)
	p.put(dev, p.mountPoint(m.Target))
	var cmd []string
	for _, name := range rootfs.Devices {
		cmd = append(cmd, "touch dev/"+name+" && "+p.bindByHand(deviceSource(name), "dev/"+name))
	}
	why, man := "show the devices that do no harm; in a user namespace nobody can make one", "mknod(2)"
	if p.Pod.Namespaces["user"].Kind == "host" {
		why, man = "show the host's devices that do no harm, so that nobody in the pod changes their mode", "mount(8)"
	}
	p.Explain(why, man, strings.Join(cmd, "\n"))
	for _, name := range rootfs.Devices {
		p.Call(unix.SYS_MKNODAT, dev, name, unix.S_IFREG|0o644, 0)
		p.putOn(deviceSource(name), p.below(dev, name))
	}
	if p.member != nil && len(p.member.Nulls) > 0 {
		null := p.open(dev, "null", unix.O_RDWR)
		for _, fd := range p.member.Nulls {
			p.Call(unix.SYS_DUP3, null, fd, 0)
		}
		p.Call(unix.SYS_CLOSE, null)
	}
	cmd = nil
	for _, link := range rootfs.DeviceLinks {
		cmd = append(cmd, "ln -s "+link[0]+" dev/"+link[1])
	}
	p.Explain("link the names that programs know", "proc(5)", strings.Join(cmd, "\n"))
	for _, link := range rootfs.DeviceLinks {
		p.Call(unix.SYS_SYMLINKAT, link[0], dev, link[1])
	}
	pts := rootfs.Pts
	if _, tty := ids.Translate(p.groups(), 5, true); tty {
		pts.Data += ",gid=5"
	}
	mounts := []rootfs.Mount{pts}
	if p.sharesShm() {
		p.Explain("show the shared memory of the pod", "shm_overview(7)", "")
		p.put(p.shm, p.folderIn(dev, "shm"))
	} else {
		mounts = append(mounts, rootfs.Shm)
	}
	if p.ownIn("ipc") {
		mounts = append(mounts, rootfs.Mqueue)
	}
	for _, m := range mounts {
		p.Explain(m.Why, m.Man, "mkdir "+here(m.Target)+" && "+mountByHand(m))
		p.put(p.make(m), p.folderIn(dev, path.Base(m.Target)))
	}
}

// folderIn makes a folder in a mount of podsh's own making, and opens it.
func (p *Creation) folderIn(mount nsenter.Result, name string) nsenter.Result {
	p.Call(unix.SYS_MKDIRAT, mount, name, 0o755)
	return p.below(mount, name)
}

// raiseLoopback makes localhost work, and what the kernel reserves for privileged users elsewhere.
func (p *Creation) raiseLoopback() {
	if !p.Pod.Own("net") {
		return
	}
	if !p.Pod.Spec.Net.Down {
		p.Explain("bring up the loopback interface, so that localhost works", "netdevice(7)", "ip link set lo up")
		socket := p.Call(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		p.Call(unix.SYS_IOCTL, socket, unix.SIOCSIFFLAGS, network.UpRequest("lo"))
		p.Call(unix.SYS_CLOSE, socket)
	}
	first, last := ids.GroupRange(p.groups())
	settings := network.Sysctls(first, last)
	for _, s := range p.Pod.Spec.Net.Sysctls {
		settings = append(settings, network.Sysctl{Key: s.Path(), Value: s.Value, Why: "set " + s.Key})
	}
	for _, s := range settings {
		file := "/proc/sys/" + s.Key
		need := "this kernel has no such setting for pods: `ls -R /proc/sys/net` in one shows those that it has"
		if !p.Pod.Own("mnt") {
			p.ExplainNeeding(need, s.Why, "ip(7)", fmt.Sprintf("echo %s >%s", step.Quote(s.Value), file))
			p.write(file, unix.O_WRONLY, s.Value)
			continue
		}
		p.ExplainNeeding(need, s.Why, "ip(7)", fmt.Sprintf("echo %s >%s", step.Quote(s.Value), here(file)))
		p.fill(p.open(p.proc, "sys/"+s.Key, unix.O_WRONLY), s.Value)
	}
}

// groups are the groups that the pod has.
func (p *Creation) groups() []ids.Map {
	if p.Pod.Namespaces["user"].Kind == "host" {
		return p.Facts.OwnGIDs
	}
	return p.Pod.GIDMap
}

// finishRoot fills the root with what the user asked for, hides what is not for a pod, and lets go of all that was made.
func (p *Creation) finishRoot() {
	spec := p.Pod.Spec
	if spec.Rootfs.IsFolder() {
		p.placeEtcFiles()
	}
	if spec.ReadOnly {
		p.scratch()
	}
	p.mountAsked()
	p.makeWorkdir()
	p.makeVolumes()
	if spec.ReadOnly && spec.Rootfs.Mode != "rw" && spec.Rootfs.Mode != "ro" {
		p.keepWritable()
		p.Explain("make the root read-only", "mount(8)", "mount -o remount,bind,ro,nosuid,nodev .")
		p.Call(unix.SYS_MOUNT, 0, "/", 0, unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, 0)
	}
	p.mask()
	p.letGo()
}

// letGo closes all that the root was made with.
func (p *Creation) letGo() {
	but := ""
	if p.member != nil && len(p.member.Container.Spec.Listen) > 0 {
		but = " but its sockets, by which no path leads anywhere"
	}
	p.Explain("let go of all that it was made with: nothing is open from here on"+but, "close_range(2)", "pivot_root . . && umount -l . && cd /")
	if p.member == nil {
		p.Call(unix.SYS_CLOSE_RANGE, nsenter.PlanFD+1, AllFDs, 0)
		return
	}
	p.Call(unix.SYS_CLOSE_RANGE, nsenter.PlanFD+1, memberTTYFD-1, 0)
	p.Call(unix.SYS_CLOSE_RANGE, p.lastFD()+1, AllFDs, 0)
}

// scratch keeps a few folders writable in a root that is not. A folder of the host that is read-only, or not
// to be changed, may lack them.
func (p *Creation) scratch() {
	make := !p.Pod.Spec.Rootfs.IsFolder() || p.Pod.Spec.Rootfs.Mode == "overlay"
	var cmd []string
	for _, dir := range scratchFolders {
		line := "mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs " + here(dir)
		if make {
			line = "mkdir -p " + here(dir) + " && " + line
		}
		cmd = append(cmd, line)
	}
	p.Explain("keep "+fault.Enumerate(scratchFolders)+" writable", "tmpfs(5)", strings.Join(cmd, "\n"))
	for _, dir := range scratchFolders {
		if make {
			p.put(p.make(scratchMount), p.makeFolders(dir))
			continue
		}
		at := p.CallTolerating(unix.ENOENT, unix.SYS_OPENAT2, unix.AT_FDCWD, here(dir), openHow(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, unix.RESOLVE_NO_MAGICLINKS), openHowSize)
		p.CallTolerating(unix.EBADF, unix.SYS_MOVE_MOUNT, p.make(scratchMount), "", at, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	}
}

var (
	scratchFolders = []string{"/run", "/tmp", "/var/tmp"}
	scratchMount   = rootfs.Mount{Type: "tmpfs", Flags: unix.MS_NOSUID | unix.MS_NODEV, Data: "mode=1777"}
)

// mountAsked mounts what the user asked for. What lies in something else comes behind that, which would hide it.
func (p *Creation) mountAsked() {
	type asked struct {
		destination string
		mount       func()
	}
	var all []asked
	for _, t := range p.Pod.Spec.Tmpfs {
		m := t.Mount()
		all = append(all, asked{m.Target, func() {
			p.Explain(m.Why, m.Man, "mkdir -p "+step.Quote(here(m.Target))+" && "+mountByHand(m))
			p.put(p.make(m), p.makeFolders(m.Target))
		}})
	}
	for i, v := range p.Pod.Spec.Volumes {
		all = append(all, asked{v.Destination, func() { p.volume(p.volumeSource(i), v.Destination) }})
	}
	slices.SortStableFunc(all, func(a, b asked) int {
		return strings.Count(a.destination, "/") - strings.Count(b.destination, "/")
	})
	for _, a := range all {
		a.mount()
	}
}

func (p *Creation) volume(s source, dst string) {
	at := here(dst)
	parents := path.Dir(dst)
	mkdir := "mkdir -p " + step.Quote(at)
	if !s.isDir {
		mkdir = fmt.Sprintf("mkdir -p %s && touch %s", step.Quote(here(parents)), step.Quote(at))
	}
	p.Explain("show "+s.path+" as "+dst, "mount(8)", mkdir+" && "+p.bindByHand(s, at))
	if s.isDir {
		p.putOn(s, p.makeFolders(dst))
		return
	}
	folder := p.makeFolders(parents)
	p.CallTolerating(unix.EEXIST, unix.SYS_MKNODAT, folder, path.Base(dst), unix.S_IFREG|0o644, 0)
	p.putOn(s, p.openSafely(folder, path.Base(dst), 0))
}

// makeFolders makes a folder and those above it. Each part is opened, and what was opened is used: others may exchange
// what stands there meanwhile.
func (p *Creation) makeFolders(dir string) nsenter.Result {
	fd := p.Call(unix.SYS_OPENAT, unix.AT_FDCWD, "/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC)
	for name := range strings.SplitSeq(strings.Trim(dir, "/"), "/") {
		if name != "" {
			p.CallTolerating(unix.EEXIST, unix.SYS_MKDIRAT, fd, name, 0o755)
			fd = p.openSafely(fd, name, unix.O_DIRECTORY)
		}
	}
	return fd
}

// openSafely opens what stands in a folder; links lead wherever they lead in the pod, but not through /proc.
func (p *Creation) openSafely(folder nsenter.Result, name string, flags uint64) nsenter.Result {
	return p.Call(unix.SYS_OPENAT2, folder, name, openHow(unix.O_PATH|unix.O_CLOEXEC|flags, unix.RESOLVE_NO_MAGICLINKS), openHowSize)
}

// copyOf makes a mount, detached, of what is open.
func (p *Creation) copyOf(fd nsenter.Result, flags int) nsenter.Result {
	return p.Call(unix.SYS_OPEN_TREE, fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|flags)
}
