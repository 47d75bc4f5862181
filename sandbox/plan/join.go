package plan

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/nsenter"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/spec"
	"github.com/podsh/podsh/sandbox/step"
)

// DefaultPath is PATH where nobody sets one: docker's.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// JoinFacts are what must be known to plan a join.
type JoinFacts struct {
	Who  pod.Identity
	Last capability.Cap   // that the kernel knows
	Held []capability.Cap // that a joiner has in the pod
	Keys bool             // the kernel has keyrings
}

// Join lists what is done to run a command in a pod. It is pure, as Create is.
func Join(pod *pod.Pod, spec *spec.JoinSpec, f JoinFacts) step.Plan {
	j := &Builder{}
	who := f.Who
	flags, options := JoinFlags(pod, spec.Only)
	j.Explain("let nothing of the caller in: descriptors", "close_range(2)", "")
	last := nsenter.ReportFD
	if spec.TTY {
		last = nsenter.TTYFD
	}
	if len(spec.Listen) > 0 {
		last = nsenter.ListenFD + len(spec.Listen) - 1
		if !spec.TTY { // whatever stands there
			j.Call(unix.SYS_CLOSE_RANGE, nsenter.TTYFD, nsenter.TTYFD, 0)
		}
	}
	j.Call(unix.SYS_CLOSE_RANGE, 3, nsenter.PodFD-1, 0)
	j.Call(unix.SYS_CLOSE_RANGE, last+1, AllFDs, 0)
	j.Call(unix.SYS_UMASK, 0o022)
	j.enter(pod, flags, options)
	if f.Keys {
		j.takeKeyring(pod)
	}
	mnt := pod.Namespaces["mnt"].Kind != "host" && flags&unix.CLONE_NEWNS != 0
	if mnt {
		if !spec.TTY {
			j.Explain("have the pod's /dev/null where a stream is the host's", "null(4)", "")
			j.Call(nsenter.Nulls)
		}
		j.enterStart(pod, spec, who)
	}
	j.becomeUser(pod, spec, f)
	j.NotDumpable()
	j.Explain("clone the process that will be the command: who enters a pid namespace is not in it, its children are", "pid_namespaces(7)", "")
	j.Call(nsenter.Clone, 0)
	j.Explain("leave the caller's terminal: nobody inside can push keys into it", "setsid(2)", "")
	j.Call(unix.SYS_SETSID)
	if spec.TTY {
		j.openTerminal(spec, nsenter.TTYFD)
	}
	// After the last change of ids, which clears it.
	j.Explain("end with the one who joins", "prctl(2) PR_SET_PDEATHSIG", "")
	j.Call(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, int(unix.SIGKILL), 0, 0, 0)
	j.Call(unix.SYS_SENDTO, nsenter.ReportFD, nsenter.Ready(), nsenter.ReadySize, unix.MSG_NOSIGNAL, 0, 0)
	j.giveSockets(spec.Listen)
	j.runCommand(spec, CommandEnv(pod, spec, who, mnt), mnt)
	return j.Steps
}

// enter enters the pod's namespaces. This process is seen in none of them: it stays in the host's pid namespace, and only
// what it clones, when it is as weak as the command is to be, is in the pod's.
func (j *Builder) enter(pod *pod.Pod, flags int, options []string) {
	j.Explain("enter the pod's namespaces, all at once", "setns(2)", strings.Join(append([]string{"nsenter", "--target", strconv.Itoa(pod.Holder.PID)}, append(options, "sh")...), " "))
	if flags&unix.CLONE_NEWTIME == 0 {
		if flags != 0 {
			j.Call(unix.SYS_SETNS, nsenter.PodFD, flags)
		}
		j.NotDumpable()
		return
	}
	// Not while memory is shared with the joiner: EUSERS, setns(2). So there is one more clone, which is not in the pod's
	// pid namespace either.
	if rest := flags &^ (unix.CLONE_NEWTIME | unix.CLONE_NEWPID); rest != 0 {
		j.Call(unix.SYS_SETNS, nsenter.PodFD, rest)
		j.NotDumpable()
	}
	j.Call(nsenter.Clone, 0)
	j.Explain("enter the pod's time namespace", "time_namespaces(7)", "")
	j.Call(unix.SYS_SETNS, nsenter.PodFD, flags&(unix.CLONE_NEWTIME|unix.CLONE_NEWPID))
}

// NotDumpable lets nobody look into this process: with other credentials that is fs.suid_dumpable's, proc_sys_fs(5).
func (b *Builder) NotDumpable() {
	b.Call(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
}

// enterStart goes to the folder that was asked for; else to that of the container or of the user, if it is there.
func (j *Builder) enterStart(pod *pod.Pod, spec *spec.JoinSpec, who pod.Identity) {
	switch {
	case spec.Workdir != "":
		j.enterFolder(spec.Workdir, 0)
	case pod.Workdir != "":
		j.enterFolder(pod.Workdir, unix.ENOENT)
	default:
		j.enterFolder(who.Home, unix.ENOENT)
	}
}

// JoinFlags are the setns(2) flags of the namespaces to join, and the options of nsenter(1) for them.
func JoinFlags(pod *pod.Pod, only []string) (flags int, options []string) {
	for _, ns := range spec.Namespaces {
		wanted := len(only) == 0 || ns.Name == "user" || slices.Contains(only, ns.Name)
		if wanted && pod.Namespaces[ns.Name].Kind != "host" {
			flags |= ns.Flag
			options = append(options, ns.Nsenter)
		}
	}
	return flags, options
}

// becomeUser takes the user's ids, and leaves only the capabilities that a command in a pod has.
func (j *Builder) becomeUser(pod *pod.Pod, wanted *spec.JoinSpec, f JoinFacts) {
	who := f.Who
	bounding := spec.Adjust(spec.Adjust(spec.DefaultCapabilities, pod.Spec.CapAdd, pod.Spec.CapDrop), wanted.CapAdd, wanted.CapDrop)
	bounding = slices.DeleteFunc(bounding, func(c capability.Cap) bool { return c > f.Last || !slices.Contains(f.Held, c) })
	held := bounding
	var ambient []capability.Cap
	if who.UID != 0 { // another user than root has those that were asked for by name
		named := slices.Concat(pod.Spec.CapAdd, wanted.CapAdd)
		ambient = slices.DeleteFunc(spec.Adjust(nil, named, nil), func(c capability.Cap) bool { return !slices.Contains(bounding, c) })
		held = ambient
	}
	groups := "--clear-groups"
	if pod.KeepGroups {
		groups = "--keep-groups"
	} else if len(who.Groups) > 0 {
		groups = "--groups " + strings.Join(digits(who.Groups), ",")
	}
	j.Explain("be the user, with a pod's capabilities and no way to more", "capabilities(7)",
		fmt.Sprintf("exec setpriv --reuid %d --regid %d %s --bounding-set=%s --inh-caps=-all --no-new-privs sh",
			who.UID, who.GID, groups, signed(bounding)))
	j.dropBounding(bounding, f.Last)
	if !pod.KeepGroups {
		j.CallTolerating(setgroupsDenied(pod), unix.SYS_SETGROUPS, len(who.Groups), nativeWords(append(who.Groups, 0)))
	}
	j.Call(unix.SYS_SETRESGID, int(who.GID), int(who.GID), int(who.GID))
	if len(ambient) > 0 {
		j.Call(unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1, 0, 0, 0)
	}
	j.Call(unix.SYS_SETRESUID, int(who.UID), int(who.UID), int(who.UID))
	j.Call(unix.SYS_CAPSET, CapabilityHeader(), CapabilityData(held, held, ambient))
	j.Call(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
	for _, c := range ambient {
		j.Call(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, int(c), 0, 0)
	}
	j.Call(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
}

// signed writes a set as setpriv(1) takes it.
func signed(set []capability.Cap) string {
	if len(set) == 0 {
		return "-all"
	}
	return "-all,+" + strings.Join(spec.CapabilityNames(set), ",+")
}

func digits(ids []uint32) []string {
	var text []string
	for _, id := range ids {
		text = append(text, strconv.FormatUint(uint64(id), 10))
	}
	return text
}

// openTerminal allocates a terminal where the command will see it, and passes its other end out: one from
// the host would be "not a tty" inside.
// socket is where it is passed.
func (j *Builder) openTerminal(spec *spec.JoinSpec, socket int) {
	const tiocgptpeer = 0x5441
	j.Explain("allocate a terminal in the pod, and pass its other end out", "pts(4)", "script -qc sh /dev/null")
	ptmx := j.Call(unix.SYS_OPENAT2, unix.AT_FDCWD, "/dev/ptmx", openHow(unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, unix.RESOLVE_NO_MAGICLINKS), openHowSize)
	j.Call(unix.SYS_IOCTL, ptmx, unix.TIOCSPTLCK, []byte{0, 0, 0, 0})
	peer := j.Call(unix.SYS_IOCTL, ptmx, tiocgptpeer, unix.O_RDWR|unix.O_NOCTTY)
	if spec.Rows > 0 { // before the command can ask for it
		j.Call(unix.SYS_IOCTL, peer, unix.TIOCSWINSZ, windowSize(spec))
	}
	const copyOfPTMX = nsenter.TTYFD + 64 // a number that is known now, for the message, and that open(2) does not give
	j.Call(unix.SYS_DUP3, ptmx, copyOfPTMX, unix.O_CLOEXEC)
	j.Call(unix.SYS_SENDMSG, socket, nsenter.PassFD(copyOfPTMX), 0)
	j.Call(unix.SYS_IOCTL, peer, unix.TIOCSCTTY, 0)
	for fd := range 3 {
		j.Call(unix.SYS_DUP3, peer, fd, 0)
	}
	for _, fd := range []any{peer, ptmx, copyOfPTMX} {
		j.Call(unix.SYS_CLOSE, fd)
	}
}

// windowSize is a struct winsize, ioctl_tty(2): rows, columns and two numbers that nobody uses.
func windowSize(spec *spec.JoinSpec) []byte {
	var size []byte
	for _, n := range []uint16{spec.Rows, spec.Cols, 0, 0} {
		size = binary.NativeEndian.AppendUint16(size, n)
	}
	return size
}

// runCommand becomes the command.
func (j *Builder) runCommand(spec *spec.JoinSpec, env []string, podMounts bool) {
	if !podMounts && spec.Workdir != "" {
		j.Explain("go to the folder that was asked for", "chdir(2)", "cd "+step.Quote(spec.Workdir))
		j.Role(step.Folder)
		j.Call(unix.SYS_CHDIR, spec.Workdir)
	}
	search := strings.Split(Variable(env, "PATH"), ":")
	var argv any = nsenter.Strings(spec.Command)
	cmd := "the command"
	if spec.Command == nil {
		argv = 0 // a saved plan: the joiner puts its own
	} else {
		cmd = step.QuoteAll(spec.Command...)
	}
	variables := j.variables(env, spec.Listen)
	j.Explain("run the command, found in the pod's PATH", "execve(2)", envByHand(env, spec.Listen)+" "+cmd)
	j.Call(nsenter.Exec, argv, variables, nsenter.Strings(search))
}

// Variable is the value of a variable in a list of NAME=VALUE, of which the last counts; "": none.
func Variable(env []string, name string) string {
	for i := len(env) - 1; i >= 0; i-- {
		if value, ok := strings.CutPrefix(env[i], name+"="); ok {
			return value
		}
	}
	return ""
}

// CommandEnv is the environment of a command: nothing of the caller's, but for one that keeps the host's
// mounts and so is the host's own program.
func CommandEnv(pod *pod.Pod, spec *spec.JoinSpec, who pod.Identity, podMounts bool) []string {
	if !podMounts && pod.Around != nil { // an image's PATH is none for the host's programs
		return MergeEnv(spec.HostEnv, spec.Env)
	}
	if !podMounts {
		return MergeEnv(spec.HostEnv, pod.Spec.Env, spec.Env)
	}
	if pod.Around != nil {
		return ContainerEnv(pod, who, spec)
	}
	name := who.Name
	if name == "" {
		name = strconv.Itoa(int(who.UID))
	}
	env := []string{"PATH=" + DefaultPath, "HOME=" + who.Home, "USER=" + name, "LOGNAME=" + name, "container=podsh"}
	if pod.Own("uts") {
		env = append(env, "HOSTNAME="+pod.Hostname)
	}
	if who.Shell != "" {
		env = append(env, "SHELL="+who.Shell)
	}
	if spec.TTY && spec.Term != "" {
		env = append(env, "TERM="+spec.Term)
	}
	return MergeEnv(env, pod.Spec.Env, spec.Env)
}

// MergeEnv puts lists of variables together; the last value of each counts.
func MergeEnv(lists ...[]string) []string {
	var env []string
	at := map[string]int{}
	for _, v := range slices.Concat(lists...) {
		name, _, _ := strings.Cut(v, "=")
		if i, ok := at[name]; ok {
			env[i] = v
			continue
		}
		at[name] = len(env)
		env = append(env, v)
	}
	return env
}

// SavedJoin is the plan of a plain join, for the file that lets it run without Go; nothing where every join
// has a plan of its own. held are the capabilities that a joiner has there.
func SavedJoin(pod *pod.Pod, f *Facts, held []capability.Cap) ([]byte, error) {
	if !pod.Own("mnt") {
		return nil, nil
	}
	who, err := LookUp("", pod.UID, pod.GID, f.Passwd, f.Group)
	if err != nil {
		return nil, err
	}
	pod.Confine(&who)
	plan := Join(pod, &spec.JoinSpec{}, JoinFacts{who, f.LastCap, held, f.Keys})
	return nsenter.EncodeSaved(nsenter.Saved{
		PID: pod.Holder.PID, PIDFDInode: pod.Holder.PIDFDInode, Started: pod.Holder.Started,
		BootID: pod.Holder.BootID + "\n", OwnFile: pod.OwnFile,
	}, plan.Calls())
}
