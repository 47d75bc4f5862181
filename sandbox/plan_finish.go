package sandbox

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/network"
	"github.com/podsh/podsh/nsenter"
	"github.com/podsh/podsh/rootfs"
)

// mountPoint makes sure that a folder is there to mount on, and returns it as the next call names it. In a
// folder of the host nothing is trusted: a link in place of /proc is refused, and what was looked at is what
// is mounted on.
func (p *creation) mountPoint(target string) string {
	if !p.pod.Spec.Rootfs.IsFolder() {
		p.call(unix.SYS_MKDIRAT, unix.AT_FDCWD, target, 0o755)
		return target
	}
	if p.facts.Dir.Missing[target] {
		p.callTolerating(unix.EEXIST, unix.SYS_MKDIRAT, unix.AT_FDCWD, target, 0o755)
	}
	fd := p.call(unix.SYS_OPENAT2, unix.AT_FDCWD, target, openHow(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, unix.RESOLVE_NO_SYMLINKS), openHowSize)
	p.call(unix.SYS_FCHDIR, fd)
	return "."
}

const openHowSize = 24

// openHow is a struct open_how, openat2(2).
func openHow(flags, resolve uint64) []byte {
	return nativeWords([]uint32{uint32(flags), uint32(flags >> 32), 0, 0, uint32(resolve), uint32(resolve >> 32)})
}

// mountSystem mounts proc or sysfs where they show what is the pod's own; where the namespace is the host's,
// the kernel lets only the host's be bound.
func (p *creation) mountSystem(m rootfs.Mount, namespace string, ofHost source) {
	at := here(m.Target)
	mkdir := "mkdir -p " + at + " && "
	if p.ownIn(namespace) {
		p.explain(m.Why, m.Man, mkdir+mountByHand(m))
		p.call(unix.SYS_MOUNT, m.Type, p.mountPoint(m.Target), m.Type, int(m.Flags), data(m))
		return
	}
	p.explain(fmt.Sprintf("show the host's %s: without a %s namespace of its own the pod gets no other", m.Target, namespace),
		m.Man, mkdir+p.bindByHand(ofHost, at))
	p.attach(ofHost, p.mountPoint(m.Target))
}

func mountByHand(m rootfs.Mount) string {
	return quoteAll("mount", "-t", m.Type, "-o", m.Options(), m.Type, here(m.Target))
}

func data(m rootfs.Mount) any {
	if m.Data == "" {
		return 0
	}
	return m.Data
}

// mount mounts a file system on a folder of the pod's own.
func (p *creation) mount(m rootfs.Mount) {
	p.explain(m.Why, m.Man, mountByHand(m))
	p.call(unix.SYS_MOUNT, m.Type, m.Target, m.Type, int(m.Flags), data(m))
}

// devices fills /dev.
func (p *creation) devices() {
	dev := rootfs.Dev
	p.explain(dev.Why, dev.Man, "mkdir -p dev && "+mountByHand(dev))
	p.call(unix.SYS_MOUNT, dev.Type, p.mountPoint(dev.Target), dev.Type, int(dev.Flags), data(dev))
	var cmd []string
	for _, name := range rootfs.Devices {
		cmd = append(cmd, "touch dev/"+name+" && "+p.bindByHand(deviceSource(name), "dev/"+name))
	}
	p.explain("show the devices that do no harm; in a user namespace nobody can make one", "mknod(2)", strings.Join(cmd, "\n"))
	for _, name := range rootfs.Devices {
		p.call(unix.SYS_MKNODAT, unix.AT_FDCWD, "/dev/"+name, unix.S_IFREG|0o644, 0)
		p.attach(deviceSource(name), "/dev/"+name)
	}
	cmd = nil
	for _, link := range rootfs.DeviceLinks {
		cmd = append(cmd, "ln -s "+link[0]+" dev/"+link[1])
	}
	p.explain("link the names that programs know", "proc(5)", strings.Join(cmd, "\n"))
	for _, link := range rootfs.DeviceLinks {
		p.call(unix.SYS_SYMLINKAT, link[0], unix.AT_FDCWD, "/dev/"+link[1])
	}
	pts := rootfs.Pts
	if _, tty := mapID(p.groups(), 5, true); tty {
		pts.Data += ",gid=5"
	}
	mounts := []rootfs.Mount{pts}
	if p.sharesShm() {
		p.explain("show the shared memory of the pod", "shm_overview(7)", "")
		p.call(unix.SYS_MKDIRAT, unix.AT_FDCWD, rootfs.Shm.Target, 0o755)
		p.call(unix.SYS_MOVE_MOUNT, p.shm, "", unix.AT_FDCWD, rootfs.Shm.Target, unix.MOVE_MOUNT_F_EMPTY_PATH)
	} else {
		mounts = append(mounts, rootfs.Shm)
	}
	if p.ownIn("ipc") {
		mounts = append(mounts, rootfs.Mqueue)
	}
	for _, m := range mounts {
		p.explain(m.Why, m.Man, "mkdir "+here(m.Target)+" && "+mountByHand(m))
		p.call(unix.SYS_MKDIRAT, unix.AT_FDCWD, m.Target, 0o755)
		p.call(unix.SYS_MOUNT, m.Type, m.Target, m.Type, int(m.Flags), data(m))
	}
}

// raiseLoopback makes localhost work, and what the kernel reserves for privileged users elsewhere.
func (p *creation) raiseLoopback() {
	if !p.pod.own("net") {
		return
	}
	if !p.pod.Spec.Net.Down {
		p.explain("bring up the loopback interface, so that localhost works", "netdevice(7)", "ip link set lo up")
		socket := p.call(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		p.call(unix.SYS_IOCTL, socket, unix.SIOCSIFFLAGS, network.UpRequest("lo"))
		p.call(unix.SYS_CLOSE, socket)
	}
	first, last := groupRange(p.groups())
	settings := network.Sysctls(first, last)
	for _, s := range p.pod.Spec.Net.Sysctls {
		settings = append(settings, network.Sysctl{Key: s.path(), Value: s.Value, Why: "set " + s.Key})
	}
	for _, s := range settings {
		file := "/proc/sys/" + s.Key
		byHand := file
		if p.pod.own("mnt") {
			byHand = here(file)
		}
		p.explain(s.Why, "ip(7)", fmt.Sprintf("echo %s >%s", quote(s.Value), byHand))
		p.write(file, unix.O_WRONLY, s.Value)
	}
}

// groups are the groups that the pod has.
func (p *creation) groups() []IDMap {
	if p.pod.Namespaces["user"].Kind == "host" {
		return p.facts.OwnGIDs
	}
	return p.pod.GIDMap
}

// groupRange is the widest row of groups from the first that a pod has; the kernel wants it in order outside,
// too, and takes no group above 2^31-1.
func groupRange(groups []IDMap) (first, last uint32) {
	first = firstID(groups)
	last = first
	outside, _ := mapID(groups, first, true)
	for _, m := range groups {
		if end := m.Inside + (m.Count - 1); m.Inside <= last+1 && end > last && m.Outside >= outside {
			last = end
		}
	}
	return first, min(last, 1<<31-1)
}

// etcFile is a file that podsh writes for every pod.
type etcFile struct {
	path, text string
}

func (p *creation) etcFiles() []etcFile {
	if p.member != nil {
		return p.member.etc
	}
	hostname := ""
	if p.pod.own("uts") {
		hostname = p.pod.Hostname
	}
	return []etcFile{
		{"/etc/hosts", network.Hosts(hostname, p.pod.Spec.Net.hostLines())},
		{"/etc/hostname", hostname + "\n"},
		{"/etc/resolv.conf", p.resolver()},
	}
}

const etcWhy = "write the pod's hosts, host name and resolver"

// writeEtcFiles writes them beside the root that is a folder of the host, to be bound over what is there: the
// folder itself is not changed.
func (p *creation) writeEtcFiles() {
	var cmd []string
	for _, f := range p.etcFiles() {
		cmd = append(cmd, fmt.Sprintf("printf %%s %s >$root/%s", quote(f.text), path.Base(f.path)))
	}
	p.explain(etcWhy, "hosts(5)", strings.Join(cmd, "\n"))
	for _, f := range p.etcFiles() {
		name := path.Base(f.path)
		p.write(name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, f.text)
		p.taken[source{path: name}] = p.call(unix.SYS_OPEN_TREE, unix.AT_FDCWD, name, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	}
}

func (p *creation) placeEtcFiles() {
	var cmd []string
	if !p.pod.Spec.Rootfs.IsFolder() {
		for _, f := range p.etcFiles() {
			cmd = append(cmd, fmt.Sprintf("printf %%s %s >%s", quote(f.text), here(f.path)))
		}
		p.explain(etcWhy, "hosts(5)", strings.Join(cmd, "\n"))
		for _, f := range p.etcFiles() {
			p.write(f.path, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, f.text)
		}
		return
	}
	overlay := p.pod.Spec.Rootfs.Mode == "overlay"
	var place []etcFile
	for _, f := range p.etcFiles() {
		if p.facts.Dir.Files[f.path] {
			cmd = append(cmd, "mount --bind ../"+path.Base(f.path)+" "+here(f.path))
		} else if overlay {
			cmd = append(cmd, fmt.Sprintf("mkdir -p etc && rm -f %s && touch %[1]s && mount --bind ../%s %[1]s", here(f.path), path.Base(f.path)))
		} else {
			continue // a place to bind it to would change the folder
		}
		place = append(place, f)
	}
	p.explain("show them in place of the folder's own", "mount(8)", strings.Join(cmd, "\n"))
	for _, f := range place {
		name := path.Base(f.path)
		folder := p.makeFolders("/etc")
		if !p.facts.Dir.Files[f.path] {
			p.callTolerating(unix.ENOENT, unix.SYS_UNLINKAT, folder, name, 0)
			p.call(unix.SYS_MKNODAT, folder, name, unix.S_IFREG|0o644, 0)
		}
		p.attachTo(source{path: name}, p.openSafely(folder, name, 0), f.path)
	}
	p.head = Step{} // where nothing could be placed
}

// finishRoot fills the root with what the user asked for, hides what is not for a pod, and makes it the only
// root there is.
func (p *creation) finishRoot() {
	p.placeEtcFiles()
	spec := p.pod.Spec
	if spec.ReadOnly {
		p.scratch()
	}
	p.mountAsked()
	p.makeWorkdir()
	if spec.ReadOnly && spec.Rootfs.Mode != "rw" && spec.Rootfs.Mode != "ro" {
		p.keepWritable()
		p.explain("make the root read-only", "mount(8)", "mount -o remount,bind,ro,nosuid,nodev .")
		p.call(unix.SYS_MOUNT, 0, "/", 0, unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, 0)
	}
	p.mask()
	p.explain("make the new root the only one: the old one is out of reach", "pivot_root(2)", "pivot_root . . && umount -l . && cd /")
	p.call(unix.SYS_FCHDIR, p.oldRoot)
	p.call(unix.SYS_CHROOT, ".")
	p.call(unix.SYS_FCHDIR, p.root)
	p.call(unix.SYS_PIVOT_ROOT, ".", ".")
	p.call(unix.SYS_UMOUNT2, ".", unix.MNT_DETACH)
	p.call(unix.SYS_CHDIR, "/")
	p.letGo()
}

// letGo closes all that led here from the host: from now on no name of the pod's can lead there.
func (p *creation) letGo() {
	p.explain("let go of the host: nothing of it is open from here on", "close_range(2)", "")
	if p.member == nil {
		p.call(unix.SYS_CLOSE_RANGE, nsenter.PlanFD+1, allFDs, 0)
		return
	}
	p.call(unix.SYS_CLOSE_RANGE, nsenter.PlanFD+1, memberTTYFD-1, 0)
	p.call(unix.SYS_CLOSE_RANGE, memberTTYFD+1, allFDs, 0)
}

// scratch keeps a few folders writable in a root that is not. A folder of the host that is read-only, or not
// to be changed, may lack them.
func (p *creation) scratch() {
	make := !p.pod.Spec.Rootfs.IsFolder() || p.pod.Spec.Rootfs.Mode == "overlay"
	var cmd []string
	for _, dir := range scratchFolders {
		line := "mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs " + here(dir)
		if make {
			line = "mkdir -p " + here(dir) + " && " + line
		}
		cmd = append(cmd, line)
	}
	p.explain("keep "+enumerate(scratchFolders)+" writable", "tmpfs(5)", strings.Join(cmd, "\n"))
	for _, dir := range scratchFolders {
		if make {
			p.call(unix.SYS_FCHDIR, p.makeFolders(dir))
			p.call(unix.SYS_MOUNT, "tmpfs", ".", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777")
			continue
		}
		p.callTolerating(unix.ENOENT, unix.SYS_MOUNT, "tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777")
	}
}

var scratchFolders = []string{"/run", "/tmp", "/var/tmp"}

// mountAsked mounts what the user asked for. What lies in something else comes behind that, which would hide it.
func (p *creation) mountAsked() {
	type asked struct {
		destination string
		mount       func()
	}
	var all []asked
	for _, t := range p.pod.Spec.Tmpfs {
		m := t.Mount()
		all = append(all, asked{m.Target, func() {
			p.explain(m.Why, m.Man, "mkdir -p "+quote(here(m.Target))+" && "+mountByHand(m))
			p.call(unix.SYS_FCHDIR, p.makeFolders(m.Target))
			p.call(unix.SYS_MOUNT, m.Type, ".", m.Type, int(m.Flags), m.Data)
		}})
	}
	for i, v := range p.pod.Spec.Volumes {
		all = append(all, asked{v.Destination, func() { p.volume(p.volumeSource(i), v.Destination) }})
	}
	slices.SortStableFunc(all, func(a, b asked) int {
		return strings.Count(a.destination, "/") - strings.Count(b.destination, "/")
	})
	for _, a := range all {
		a.mount()
	}
}

func (p *creation) volume(s source, dst string) {
	at := here(dst)
	parents := path.Dir(dst)
	mkdir := "mkdir -p " + quote(at)
	if !s.isDir {
		mkdir = fmt.Sprintf("mkdir -p %s && touch %s", quote(here(parents)), quote(at))
	}
	p.explain("show "+s.path+" as "+dst, "mount(8)", mkdir+" && "+p.bindByHand(s, at))
	if s.isDir {
		p.attachTo(s, p.makeFolders(dst), dst)
		return
	}
	folder := p.makeFolders(parents)
	p.callTolerating(unix.EEXIST, unix.SYS_MKNODAT, folder, path.Base(dst), unix.S_IFREG|0o644, 0)
	p.attachTo(s, p.openSafely(folder, path.Base(dst), 0), dst)
}

// makeFolders makes a folder and those above it.
//
// A link in a hostile root may lead to /proc/self/fd/N, and this process still has the host's root open: so no
// path is walked as a whole. Each part is opened with RESOLVE_NO_MAGICLINKS, and what was opened is used.
func (p *creation) makeFolders(dir string) nsenter.Result {
	fd := p.call(unix.SYS_OPENAT, unix.AT_FDCWD, "/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC)
	for name := range strings.SplitSeq(strings.Trim(dir, "/"), "/") {
		if name != "" {
			p.callTolerating(unix.EEXIST, unix.SYS_MKDIRAT, fd, name, 0o755)
			fd = p.openSafely(fd, name, unix.O_DIRECTORY)
		}
	}
	return fd
}

// openSafely opens what stands in a folder; links lead wherever they lead in the pod, but not through /proc.
func (p *creation) openSafely(folder nsenter.Result, name string, flags uint64) nsenter.Result {
	return p.call(unix.SYS_OPENAT2, folder, name, openHow(unix.O_PATH|unix.O_CLOEXEC|flags, unix.RESOLVE_NO_MAGICLINKS), openHowSize)
}

// mask hides what shows or changes more than a pod should.
func (p *creation) mask() {
	unmasked := map[string]bool{}
	for _, path := range p.pod.Spec.Unmask {
		unmasked[strings.TrimSuffix(path, "/")] = true
	}
	if unmasked["all"] {
		return
	}
	const flags = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	empty := rootfs.Mount{Type: "tmpfs", Flags: flags, Data: "size=0k"}
	type hidden struct {
		path     string
		readOnly bool
		cmd      string
	}
	var list []hidden
	for _, path := range p.facts.Masked {
		cmd := "mount --bind dev/null " + here(path)
		if !p.facts.MaskedFiles[path] {
			empty.Target = path
			cmd = mountByHand(empty)
		}
		list = append(list, hidden{path, false, cmd})
	}
	for _, path := range p.facts.ReadOnly {
		list = append(list, hidden{path, true, fmt.Sprintf("mount --rbind %s %[1]s && mount -o remount,bind,ro,nosuid,nodev,noexec %[1]s", here(path))})
	}
	var cmd []string
	kept := list[:0]
	for _, h := range list {
		if !unmasked[h.path] {
			kept = append(kept, h)
			cmd = append(cmd, h.cmd)
		}
	}
	p.explain("hide what tells or changes too much of the kernel (--unmask lifts it)", "proc(5)", strings.Join(cmd, "\n"))
	for _, h := range kept {
		switch {
		case h.readOnly:
			p.call(unix.SYS_MOUNT, h.path, h.path, 0, unix.MS_BIND|unix.MS_REC, 0)
			p.call(unix.SYS_MOUNT, 0, h.path, 0, unix.MS_REMOUNT|unix.MS_BIND|flags, 0)
		case p.facts.MaskedFiles[h.path]:
			p.call(unix.SYS_MOUNT, "/dev/null", h.path, 0, unix.MS_BIND, 0)
		default:
			p.call(unix.SYS_MOUNT, "tmpfs", h.path, "tmpfs", flags, empty.Data)
		}
	}
	p.head = Step{}
}
