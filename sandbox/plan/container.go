package plan

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
	"github.com/podsh/podsh/sandbox/step"
)

// A container is one more plan: it joins the pod's namespaces where a pod makes new ones, and ends in the command
// where a pod ends in the pause. Between the two it builds a root as a pod does, by the same steps.

// ContainerFacts are what must be known to start a container, beside the Facts of the machine.
type ContainerFacts struct {
	Container *pod.Container
	View      *pod.Pod // the pod, as the container is to see it
	Who       pod.Identity
	Join      JoinFacts
	Etc       []EtcFile // as the pod has them
	Nulls     []int     // of 0, 1 and 2, those that are /dev/null
	Rows      uint16    // of its terminal
	Columns   uint16
	Term      string
	Ignored   []unix.Signal // by podsh's caller
	Owners    map[string]Owner
	Missing   []string // of the image's volumes
}

// Owner is whom a new volume of the pod belongs to: what the image has in its place, as the pod counts.
type Owner struct {
	UID, GID uint32
	Mode     uint32
}

// Descriptors that the executor of a container finds open.
const (
	memberPodFD    = nsenter.EnterFD     // pidfd of the pod's holder
	memberStdinFD  = nsenter.EnterFD + 1 // and behind it standard output and error
	memberTTYFD    = nsenter.EnterFD + 4 // where the terminal's other end is passed out; only if there is one
	memberListenFD = nsenter.EnterFD + 5 // from here on, its sockets; the last of all is lastFD
)

// Container lists what is done to start a container. It is pure, as Create is.
func Container(f *Facts, member *ContainerFacts) step.Plan {
	c := member.Container
	p := &Creation{Pod: member.View, Facts: f, taken: map[source]nsenter.Result{}, member: member}
	p.joinPod()
	p.tellMounts()
	p.takeShared()
	p.Call(unix.SYS_CLOSE, p.mounts)
	p.takeSources()
	p.becomeRoot()
	p.buildRoot()
	p.nameHost()
	p.raiseLoopback()
	p.finishRoot()
	p.enterFolder(c.Workdir, 0)
	p.limit()
	spec := &spec.JoinSpec{Command: c.Argv, TTY: c.Spec.TTY, Rows: member.Rows, Cols: member.Columns, Workdir: c.Workdir, Term: member.Term}
	p.becomeUser(p.Pod, spec, member.Join)
	p.comeIn()
	p.hold()
	p.beInit()
	p.startCommand(spec)
	return p.Steps
}

// joinPod enters the pod's namespaces, and those that are new with the container.
func (p *Creation) joinPod() {
	pod := p.member.Container.In
	p.Explain("let nothing of the caller in: descriptors; and let nobody in the pod look into this process", "close_range(2)", "")
	p.Call(unix.SYS_CLOSE_RANGE, p.lastFD()+1, AllFDs, 0)
	p.Call(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	for fd := range 3 {
		p.Call(unix.SYS_DUP3, memberStdinFD+fd, fd, 0)
	}
	p.Call(unix.SYS_UMASK, 0)
	holder := "$HOLDER" // of a pod that is not made
	if pod.Holder.PID != 0 {
		holder = strconv.Itoa(pod.Holder.PID)
	}
	flags, options, shared := 0, []string{}, []string{}
	var private, unshare []string
	for _, ns := range spec.Namespaces {
		switch kind := p.Pod.Namespaces[ns.Name].Kind; {
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
	p.Explain("enter the pod's "+fault.Enumerate(shared)+" namespaces", "setns(2)", "nsenter --target "+holder+" "+step.QuoteAll(append(options, "sh")...))
	if p.comesLast() {
		flags &^= unix.CLONE_NEWPID
	}
	p.Call(unix.SYS_SETNS, memberPodFD, flags)
	p.NotDumpable()
	if p.Facts.Keys {
		p.takeKeyring(pod)
	}
	if p.Pod.Own("pid") {
		p.Explain("be in the pod's pid namespace: only from in there can one below it be made", "pid_namespaces(7)", "")
		p.Call(nsenter.Clone, 0)
	}
	why := "start a process in a new mnt namespace, which is the container's own"
	if len(private) > 1 {
		why = "start a process in new " + fault.Enumerate(private) + " namespaces, which are the container's own"
	}
	p.Explain(why, "namespaces(7)",
		"exec unshare "+strings.Join(unshare, " ")+" --fork sh")
	p.Call(nsenter.Clone, p.Pod.Flags())
	if p.Pod.Own("pid") { // who made it told a number that only the pod knows
		p.Call(unix.SYS_SENDTO, nsenter.PlanFD, nsenter.Ready(), nsenter.ReadySize, unix.MSG_NOSIGNAL, 0, 0)
	}
	if p.comesLast() { // its children are in there: pid_namespaces(7)
		p.Call(unix.SYS_SETNS, memberPodFD, unix.CLONE_NEWPID)
	}
}

// comesLast says whether the process comes into the pod's pid namespace only when it is as weak as the command. Where the
// pod's root is the host's, whoever has SYS_PTRACE in the pod could seize it before; in a user namespace nobody can, since
// its memory belongs to the host's, ptrace(2).
//
// The pod's /proc is to be had without being in there: from the pod's mounts. In a user namespace what hides parts of it
// would be locked to it, mount_namespaces(7). Before Linux 5.12 mounts get their attributes by way of that /proc, which does
// not show who is outside.
func (p *Creation) comesLast() bool {
	pod := p.member.Container.In
	return p.canSetAttributes() && p.Pod.Namespaces["user"].Kind == "host" && p.Pod.Namespaces["pid"].Kind == "pod" && pod.Own("pid") && pod.Own("mnt")
}

// comeIn clones the process that will be the command.
func (p *Creation) comeIn() {
	if !p.comesLast() {
		return
	}
	p.NotDumpable()
	p.Explain("be in the pod's pid namespace, now that there is nothing to be had from this process", "pid_namespaces(7)", "")
	p.Call(nsenter.Clone, 0)
}

// tellMounts passes the container's mount namespace out: by that all that runs in it is known, to the last.
func (p *Creation) tellMounts() {
	p.Explain("pass out the mount namespace, by which the container's processes are known", "namespaces(7)", "")
	p.mounts = p.Call(unix.SYS_OPENAT, unix.AT_FDCWD, "/proc/self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC)
	for _, call := range nsenter.PassOut(p.mounts) {
		p.Call(call.Nr, call.Args...)
	}
}

// sharesShm says whether the container has the shared memory of the pod.
func (p *Creation) sharesShm() bool {
	return p.member != nil && p.Pod.Namespaces["ipc"].Kind != "new" && p.member.Container.In.Namespaces["mnt"].Kind == "new"
}

// takeShared takes hold of the pod's /dev/shm, of its resolv.conf where that follows the host's, and, if it is needed, of its
// /proc. They are mounts in the pod's mount namespace, and a mount can only be taken from the namespace that one is in: so
// this goes there and comes back. Both belong to the pod's user namespace, so it may. No link is followed there: anybody in
// the pod could have laid one.
func (p *Creation) takeShared() {
	resolver := slices.IndexFunc(p.member.Etc, func(f EtcFile) bool { return f.Shared })
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
	p.Explain("take hold of what is the pod's own: "+fault.Enumerate(what), "open_tree(2)", "")
	p.Call(unix.SYS_SETNS, memberPodFD, unix.CLONE_NEWNS)
	if p.sharesShm() {
		p.shm = p.takeInPod(rootfs.Shm.Target, unix.O_DIRECTORY)
	}
	if p.comesLast() {
		p.podProc = p.takeInPod(rootfs.Proc.Target, unix.O_DIRECTORY)
	}
	if resolver >= 0 {
		s := p.member.Etc[resolver].source()
		p.taken[s] = p.takeInPod(p.member.Etc[resolver].Path, 0)
		p.restrict(p.taken[s], s)
	}
	p.Call(unix.SYS_SETNS, p.mounts, unix.CLONE_NEWNS)
}

func (p *Creation) takeInPod(path string, flags uint64) nsenter.Result {
	at := p.Call(unix.SYS_OPENAT2, unix.AT_FDCWD, path, openHow(unix.O_PATH|unix.O_CLOEXEC|flags, unix.RESOLVE_NO_SYMLINKS), openHowSize)
	tree := p.copyOf(at, 0)
	p.Call(unix.SYS_CLOSE, at)
	return tree
}

// makeWorkdir makes the folder that the command starts in, as docker does. In a root that can't be written, or is the
// host's own folder, it has to be there; not so below what is mounted there.
func (p *Creation) makeWorkdir() {
	if p.member == nil || p.member.Container.Workdir == "/" {
		return
	}
	dir := p.member.Container.Workdir
	within := func(destination string) bool {
		return strings.HasPrefix(dir+"/", strings.TrimSuffix(destination, "/")+"/")
	}
	if p.Pod.Spec.Rootfs.Mode != "overlay" &&
		!slices.ContainsFunc(p.Pod.Spec.Volumes, func(v rootfs.Volume) bool { return within(v.Destination) }) &&
		!slices.ContainsFunc(p.Pod.Spec.Tmpfs, func(t rootfs.Tmpfs) bool { return within(t.Destination) }) {
		return
	}
	p.ExplainNeeding("--workdir names a folder, and something on the way to "+strconv.Quote(dir)+" is none", "make sure of the folder that the command starts in", "mkdir(2)", "mkdir -p "+step.Quote(here(dir)))
	p.makeFolders(dir)
}

// makeVolumes makes the folders of the image's volumes that the image lacks, as docker does.
func (p *Creation) makeVolumes() {
	if p.member == nil || p.Pod.Spec.Rootfs.Mode != "overlay" {
		return
	}
	for _, dir := range p.member.Missing {
		if slices.ContainsFunc(p.Pod.Spec.Volumes, func(v rootfs.Volume) bool { return strings.HasPrefix(dir+"/", v.Destination+"/") }) {
			continue // what is somebody's stays as it is
		}
		p.Explain("make the folder of a volume of the image's, which lacks it", "mkdir(2)", "mkdir -p "+step.Quote(here(dir)))
		p.makeFolders(dir)
	}
}

// keepWritable makes mounts of the image's volumes, before all that is not one becomes read-only. Those that something
// else is mounted on are that.
func (p *Creation) keepWritable() {
	if p.member == nil {
		return
	}
	for _, dst := range p.member.Container.Volumes {
		covered := slices.ContainsFunc(p.Pod.Spec.Volumes, func(v rootfs.Volume) bool { return v.Destination == dst }) ||
			slices.ContainsFunc(p.Pod.Spec.Tmpfs, func(t rootfs.Tmpfs) bool { return t.Destination == dst }) || slices.Contains(scratchFolders, dst)
		if covered {
			continue
		}
		p.Explain("keep "+dst+" writable: it is a volume of the image's", "mount(8)", "mkdir -p "+step.Quote(here(dst))+" && "+step.QuoteAll("mount", "--rbind", here(dst), here(dst)))
		p.Call(unix.SYS_FCHDIR, p.makeFolders(dst))
		p.Call(unix.SYS_MOUNT, ".", ".", 0, unix.MS_BIND|unix.MS_REC, 0)
	}
}

// limit sets what the container's processes may use.
func (p *Creation) limit() {
	for _, u := range p.member.Container.Spec.Ulimits {
		p.Explain("limit "+u.Name, "getrlimit(2)", fmt.Sprintf("prlimit --pid $$ --%s=%s:%s", u.Name, limitText(u.Soft), limitText(u.Hard)))
		p.Call(unix.SYS_PRLIMIT64, 0, spec.Ulimits[u.Name], nativeLongs(u.Soft, u.Hard), 0)
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
		data = step.Native.AppendUint64(data, n)
	}
	return data
}

// hold waits, all but the command itself, until it is written down what runs here: so whatever the command starts is
// accounted for from its first moment on.
func (p *Creation) hold() {
	p.Explain("end with the one who watches over it", "prctl(2) PR_SET_PDEATHSIG", "")
	p.Call(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, int(unix.SIGKILL), 0, 0, 0)
	p.Call(unix.SYS_SENDTO, nsenter.PlanFD, nsenter.Ready(), nsenter.ReadySize, unix.MSG_NOSIGNAL, 0, 0)
	p.Explain("write down that the container runs, and as which process", "rename(2)", "")
	p.Host("running")
}

// beInit leaves an init behind, where the container has a pid namespace for itself. It is as powerless as the
// command is; it can be looked into, so that others can join.
func (p *Creation) beInit() {
	if !p.Pod.Own("pid") {
		return
	}
	p.Explain("let an init be the first process: it reaps, and ends with the command", "pid_namespaces(7)", "")
	p.Call(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 1, 0, 0, 0)
	p.Call(nsenter.Init)
}

// startCommand becomes the command.
func (p *Creation) startCommand(spec *spec.JoinSpec) {
	c, who := p.member.Container, p.member.Who
	p.Explain("be the first of a new session", "setsid(2)", "")
	p.Call(unix.SYS_SETSID)
	if spec.TTY {
		p.openTerminal(spec, memberTTYFD)
	}
	p.Explain("take signals as any program does", "signal(7)", "umask 022")
	p.Call(unix.SYS_UMASK, 0o022)
	for _, sig := range p.member.Ignored {
		p.Call(unix.SYS_RT_SIGACTION, int(sig), make([]byte, sigactionSize), 0, sigsetSize)
	}
	sockets := c.Spec.Listen
	if len(sockets) > 0 {
		p.giveSockets()
	} else {
		p.CloseOnExec(memberTTYFD)
	}
	p.Call(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, make([]byte, sigsetSize), 0, sigsetSize)
	env := ContainerEnv(p.Pod, who, spec)
	variables := p.variables(env, sockets)
	p.Explain("run the command, found in the container's PATH", "execve(2)", envByHand(env, sockets)+" "+step.QuoteAll(c.Argv...))
	p.Call(nsenter.Exec, nsenter.Strings(c.Argv), variables, nsenter.Strings(strings.Split(Variable(env, "PATH"), ":")))
}

// Sizes of the kernel's own structures, rt_sigaction(2).
const (
	sigsetSize    = 8
	sigactionSize = 32
)

// ContainerEnv is the environment of a command in a container: what docker gives, the image's, and what was asked for.
func ContainerEnv(view *pod.Pod, who pod.Identity, spec *spec.JoinSpec) []string {
	env := []string{"PATH=" + DefaultPath, "HOSTNAME=" + view.Hostname, "HOME=" + who.Home, "container=podsh"}
	if spec.TTY {
		term := spec.Term
		if term == "" {
			term = "xterm"
		}
		env = append(env, "TERM="+term)
	}
	return MergeEnv(env, view.Spec.Env, spec.Env)
}

// volumeOwner says whom a volume of the pod is to belong to, where it is new.
func (p *Creation) volumeOwner(i int) (Owner, bool) {
	if p.member == nil {
		return Owner{}, false
	}
	o, ok := p.member.Owners[p.Pod.Spec.Volumes[i].Source]
	return o, ok
}
