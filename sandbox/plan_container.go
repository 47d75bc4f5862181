package sandbox

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/nsenter"
	"github.com/podsh/podsh/rootfs"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/spec"
)

// A container is one more plan: it joins the pod's namespaces where a pod makes new ones, and ends in the command
// where a pod ends in the pause. Between the two it builds a root as a pod does, by the same steps.

// containerFacts are what must be known to start a container, beside the Facts of the machine.
type containerFacts struct {
	container *pod.Container
	view      *pod.Pod // the pod, as the container is to see it
	who       pod.Identity
	join      joinFacts
	etc       []etcFile // as the pod has them
	nulls     []int     // of 0, 1 and 2, those that are /dev/null
	rows      uint16    // of its terminal
	columns   uint16
	term      string
	ignored   []unix.Signal // by podsh's caller
	owners    map[string]owner
	missing   []string // of the image's volumes
}

// owner is whom a new volume of the pod belongs to: what the image has in its place, as the pod counts.
type owner struct {
	uid, gid uint32
	mode     uint32
}

// Descriptors that the executor of a container finds open.
const (
	memberPodFD    = nsenter.EnterFD     // pidfd of the pod's holder
	memberStdinFD  = nsenter.EnterFD + 1 // and behind it standard output and error
	memberTTYFD    = nsenter.EnterFD + 4 // where the terminal's other end is passed out; only if there is one
	memberListenFD = nsenter.EnterFD + 5 // from here on, its sockets; the last of all is lastFD
)

// planContainer lists what is done to start a container. It is pure, as planCreate is.
func planContainer(f *Facts, member *containerFacts) Plan {
	c := member.container
	p := &creation{pod: member.view, facts: f, taken: map[source]nsenter.Result{}, member: member}
	p.joinPod()
	p.tellMounts()
	p.takeShared()
	p.call(unix.SYS_CLOSE, p.mounts)
	p.takeSources()
	p.becomeRoot()
	p.buildRoot()
	p.nameHost()
	p.raiseLoopback()
	p.finishRoot()
	p.enterFolder(c.Workdir, 0)
	p.limit()
	spec := &spec.JoinSpec{Command: c.Argv, TTY: c.Spec.TTY, Rows: member.rows, Cols: member.columns, Workdir: c.Workdir, Term: member.term}
	p.becomeUser(p.pod, spec, member.join)
	p.comeIn()
	p.hold()
	p.beInit()
	p.startCommand(spec)
	return p.steps
}

// joinPod enters the pod's namespaces, and those that are new with the container.
func (p *creation) joinPod() {
	pod := p.member.container.In
	p.explain("let nothing of the caller in: descriptors; and let nobody in the pod look into this process", "close_range(2)", "")
	p.call(unix.SYS_CLOSE_RANGE, p.lastFD()+1, allFDs, 0)
	p.call(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	for fd := range 3 {
		p.call(unix.SYS_DUP3, memberStdinFD+fd, fd, 0)
	}
	p.call(unix.SYS_UMASK, 0)
	holder := "$HOLDER" // of a pod that is not made
	if pod.Holder.PID != 0 {
		holder = strconv.Itoa(pod.Holder.PID)
	}
	flags, options, shared := 0, []string{}, []string{}
	var private, unshare []string
	for _, ns := range spec.Namespaces {
		switch kind := p.pod.Namespaces[ns.Name].Kind; {
		case kind == "new":
			private, unshare = append(private, ns.Name), append(unshare, ns.Unshare)
			if ns.Name == "pid" { // the new one is to be below the pod's
				flags |= ns.Flag
				options = append(options, ns.Nsenter)
			}
		case kind != "host":
			flags |= ns.Flag
			options = append(options, ns.Nsenter)
			if ns.Name != "pid" || !p.comesLast() { // comeIn says when it is in there
				shared = append(shared, ns.Name)
			}
		}
	}
	p.explain("enter the pod's "+fault.Enumerate(shared)+" namespaces", "setns(2)", "nsenter --target "+holder+" "+quoteAll(append(options, "sh")...))
	if p.comesLast() {
		flags &^= unix.CLONE_NEWPID
	}
	p.call(unix.SYS_SETNS, memberPodFD, flags)
	p.notDumpable()
	if p.facts.Keys {
		p.takeKeyring(pod)
	}
	if p.pod.Own("pid") {
		p.explain("be in the pod's pid namespace: only from in there can one below it be made", "pid_namespaces(7)", "")
		p.call(nsenter.Clone, 0)
	}
	why := "start a process in a new mnt namespace, which is the container's own"
	if len(private) > 1 {
		why = "start a process in new " + fault.Enumerate(private) + " namespaces, which are the container's own"
	}
	p.explain(why, "namespaces(7)",
		"exec unshare "+strings.Join(unshare, " ")+" --fork sh")
	p.call(nsenter.Clone, p.pod.Flags())
	if p.pod.Own("pid") { // who made it told a number that only the pod knows
		p.call(unix.SYS_SENDTO, nsenter.PlanFD, nsenter.Ready(), nsenter.ReadySize, unix.MSG_NOSIGNAL, 0, 0)
	}
	if p.comesLast() { // its children are in there: pid_namespaces(7)
		p.call(unix.SYS_SETNS, memberPodFD, unix.CLONE_NEWPID)
	}
}

// comesLast says whether the process comes into the pod's pid namespace only when it is as weak as the command. Where the
// pod's root is the host's, whoever has SYS_PTRACE in the pod could seize it before; in a user namespace nobody can, since
// its memory belongs to the host's, ptrace(2).
//
// The pod's /proc is to be had without being in there: from the pod's mounts. In a user namespace what hides parts of it
// would be locked to it, mount_namespaces(7). Before Linux 5.12 mounts get their attributes by way of that /proc, which does
// not show who is outside.
func (p *creation) comesLast() bool {
	pod := p.member.container.In
	return p.canSetAttributes() && p.pod.Namespaces["user"].Kind == "host" && p.pod.Namespaces["pid"].Kind == "pod" && pod.Own("pid") && pod.Own("mnt")
}

// comeIn clones the process that will be the command.
func (p *creation) comeIn() {
	if !p.comesLast() {
		return
	}
	p.notDumpable()
	p.explain("be in the pod's pid namespace, now that there is nothing to be had from this process", "pid_namespaces(7)", "")
	p.call(nsenter.Clone, 0)
}

// tellMounts passes the container's mount namespace out: by that all that runs in it is known, to the last.
func (p *creation) tellMounts() {
	p.explain("pass out the mount namespace, by which the container's processes are known", "namespaces(7)", "")
	p.mounts = p.call(unix.SYS_OPENAT, unix.AT_FDCWD, "/proc/self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC)
	for _, call := range nsenter.PassOut(p.mounts) {
		p.call(call.Nr, call.Args...)
	}
}

// sharesShm says whether the container has the shared memory of the pod.
func (p *creation) sharesShm() bool {
	return p.member != nil && p.pod.Namespaces["ipc"].Kind != "new" && p.member.container.In.Namespaces["mnt"].Kind == "new"
}

// takeShared takes hold of the pod's /dev/shm, of its resolv.conf where that follows the host's, and, if it is needed, of its
// /proc. They are mounts in the pod's mount namespace, and a mount can only be taken from the namespace that one is in: so
// this goes there and comes back. Both belong to the pod's user namespace, so it may. No link is followed there: anybody in
// the pod could have laid one.
func (p *creation) takeShared() {
	resolver := slices.IndexFunc(p.member.etc, func(f etcFile) bool { return f.shared })
	if !p.sharesShm() && !p.comesLast() && resolver < 0 {
		return
	}
	var what []string
	if p.sharesShm() {
		what = append(what, "shared memory")
	}
	if p.comesLast() {
		what = append(what, rootfs.Proc.Target)
	}
	if resolver >= 0 {
		what = append(what, "the resolver, which follows the host's")
	}
	p.explain("take hold of what is the pod's own: "+fault.Enumerate(what), "open_tree(2)", "")
	p.call(unix.SYS_SETNS, memberPodFD, unix.CLONE_NEWNS)
	if p.sharesShm() {
		p.shm = p.takeInPod(rootfs.Shm.Target, unix.O_DIRECTORY)
	}
	if p.comesLast() {
		p.podProc = p.takeInPod(rootfs.Proc.Target, unix.O_DIRECTORY)
	}
	if resolver >= 0 {
		s := p.member.etc[resolver].source()
		p.taken[s] = p.takeInPod(p.member.etc[resolver].path, 0)
		p.restrict(p.taken[s], s)
	}
	p.call(unix.SYS_SETNS, p.mounts, unix.CLONE_NEWNS)
}

func (p *creation) takeInPod(path string, flags uint64) nsenter.Result {
	at := p.call(unix.SYS_OPENAT2, unix.AT_FDCWD, path, openHow(unix.O_PATH|unix.O_CLOEXEC|flags, unix.RESOLVE_NO_SYMLINKS), openHowSize)
	tree := p.copyOf(at, 0)
	p.call(unix.SYS_CLOSE, at)
	return tree
}

// makeWorkdir makes the folder that the command starts in, as docker does. In a root that can't be written, or is the
// host's own folder, it has to be there; not so below what is mounted there.
func (p *creation) makeWorkdir() {
	if p.member == nil || p.member.container.Workdir == "/" {
		return
	}
	dir := p.member.container.Workdir
	within := func(destination string) bool {
		return strings.HasPrefix(dir+"/", strings.TrimSuffix(destination, "/")+"/")
	}
	if p.pod.Spec.Rootfs.Mode != "overlay" &&
		!slices.ContainsFunc(p.pod.Spec.Volumes, func(v rootfs.Volume) bool { return within(v.Destination) }) &&
		!slices.ContainsFunc(p.pod.Spec.Tmpfs, func(t rootfs.Tmpfs) bool { return within(t.Destination) }) {
		return
	}
	p.explainNeeding("--workdir names a folder, and something on the way to "+strconv.Quote(dir)+" is none", "make sure of the folder that the command starts in", "mkdir(2)", "mkdir -p "+quote(here(dir)))
	p.makeFolders(dir)
}

// makeVolumes makes the folders of the image's volumes that the image lacks, as docker does.
func (p *creation) makeVolumes() {
	if p.member == nil || p.pod.Spec.Rootfs.Mode != "overlay" {
		return
	}
	for _, dir := range p.member.missing {
		if slices.ContainsFunc(p.pod.Spec.Volumes, func(v rootfs.Volume) bool { return strings.HasPrefix(dir+"/", v.Destination+"/") }) {
			continue // what is somebody's stays as it is
		}
		p.explain("make the folder of a volume of the image's, which lacks it", "mkdir(2)", "mkdir -p "+quote(here(dir)))
		p.makeFolders(dir)
	}
}

// keepWritable makes mounts of the image's volumes, before all that is not one becomes read-only. Those that something
// else is mounted on are that.
func (p *creation) keepWritable() {
	if p.member == nil {
		return
	}
	for _, dst := range p.member.container.Volumes {
		covered := slices.ContainsFunc(p.pod.Spec.Volumes, func(v rootfs.Volume) bool { return v.Destination == dst }) ||
			slices.ContainsFunc(p.pod.Spec.Tmpfs, func(t rootfs.Tmpfs) bool { return t.Destination == dst }) || slices.Contains(scratchFolders, dst)
		if covered {
			continue
		}
		p.explain("keep "+dst+" writable: it is a volume of the image's", "mount(8)", "mkdir -p "+quote(here(dst))+" && "+quoteAll("mount", "--rbind", here(dst), here(dst)))
		p.call(unix.SYS_FCHDIR, p.makeFolders(dst))
		p.call(unix.SYS_MOUNT, ".", ".", 0, unix.MS_BIND|unix.MS_REC, 0)
	}
}

// limit sets what the container's processes may use.
func (p *creation) limit() {
	for _, u := range p.member.container.Spec.Ulimits {
		p.explain("limit "+u.Name, "getrlimit(2)", fmt.Sprintf("prlimit --pid $$ --%s=%s:%s", u.Name, limitText(u.Soft), limitText(u.Hard)))
		p.call(unix.SYS_PRLIMIT64, 0, spec.Ulimits[u.Name], nativeLongs(u.Soft, u.Hard), 0)
	}
}

func limitText(n uint64) string {
	if n == unix.RLIM_INFINITY {
		return "unlimited"
	}
	return strconv.FormatUint(n, 10)
}

func nativeLongs(numbers ...uint64) []byte {
	var data []byte
	for _, n := range numbers {
		data = native.AppendUint64(data, n)
	}
	return data
}

// hold waits, all but the command itself, until it is written down what runs here: so whatever the command starts is
// accounted for from its first moment on.
func (p *creation) hold() {
	p.explain("end with the one who watches over it", "prctl(2) PR_SET_PDEATHSIG", "")
	p.call(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, int(unix.SIGKILL), 0, 0, 0)
	p.call(unix.SYS_SENDTO, nsenter.PlanFD, nsenter.Ready(), nsenter.ReadySize, unix.MSG_NOSIGNAL, 0, 0)
	p.explain("write down that the container runs, and as which process", "rename(2)", "")
	p.host("running")
}

// beInit leaves an init behind, where the container has a pid namespace for itself. It is as powerless as the
// command is; it can be looked into, so that others can join.
func (p *creation) beInit() {
	if !p.pod.Own("pid") {
		return
	}
	p.explain("let an init be the first process: it reaps, and ends with the command", "pid_namespaces(7)", "")
	p.call(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 1, 0, 0, 0)
	p.call(nsenter.Init)
}

// startCommand becomes the command.
func (p *creation) startCommand(spec *spec.JoinSpec) {
	c, who := p.member.container, p.member.who
	p.explain("be the first of a new session", "setsid(2)", "")
	p.call(unix.SYS_SETSID)
	if spec.TTY {
		p.openTerminal(spec, memberTTYFD)
	}
	p.explain("take signals as any program does", "signal(7)", "umask 022")
	p.call(unix.SYS_UMASK, 0o022)
	for _, sig := range p.member.ignored {
		p.call(unix.SYS_RT_SIGACTION, int(sig), make([]byte, sigactionSize), 0, sigsetSize)
	}
	sockets := c.Spec.Listen
	if len(sockets) > 0 {
		p.giveSockets()
	} else {
		p.closeOnExec(memberTTYFD)
	}
	p.call(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, make([]byte, sigsetSize), 0, sigsetSize)
	env := containerEnv(p.pod, who, spec)
	variables := p.variables(env, sockets)
	p.explain("run the command, found in the container's PATH", "execve(2)", envByHand(env, sockets)+" "+quoteAll(c.Argv...))
	p.call(nsenter.Exec, nsenter.Strings(c.Argv), variables, nsenter.Strings(strings.Split(variable(env, "PATH"), ":")))
}

// Sizes of the kernel's own structures, rt_sigaction(2).
const (
	sigsetSize    = 8
	sigactionSize = 32
)

// containerEnv is the environment of a command in a container: what docker gives, the image's, and what was asked for.
func containerEnv(view *pod.Pod, who pod.Identity, spec *spec.JoinSpec) []string {
	env := []string{"PATH=" + defaultPath, "HOSTNAME=" + view.Hostname, "HOME=" + who.Home, "container=podsh"}
	if spec.TTY {
		term := spec.Term
		if term == "" {
			term = "xterm"
		}
		env = append(env, "TERM="+term)
	}
	return mergeEnv(env, view.Spec.Env, spec.Env)
}

// volumeOwner says whom a volume of the pod is to belong to, where it is new.
func (p *creation) volumeOwner(i int) (owner, bool) {
	if p.member == nil {
		return owner{}, false
	}
	o, ok := p.member.owners[p.pod.Spec.Volumes[i].Source]
	return o, ok
}
