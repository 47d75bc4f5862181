package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/moby/sys/capability"
	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/nsenter"
)

// JoinSpec is how a command runs in a pod.
type JoinSpec struct {
	Command []string // none means an interactive shell
	TTY     bool
	User    string   // UID[:GID] or a name of the pod's; "" means the pod's own default
	Workdir string   // "" means the user's home
	Env     []string // KEY=VALUE
	CapAdd  []string
	CapDrop []string
	Only    []string // namespaces to join; none means all
	Term    string   // the caller's $TERM, for a terminal
	HostEnv []string // the caller's environment, for a command that keeps the host's mounts
}

// Validate says what is wrong with it by itself.
func (j *JoinSpec) Validate() error {
	if err := validateEnv(j.Env); err != nil {
		return err
	}
	if err := validateCapabilities(j.CapAdd, j.CapDrop); err != nil {
		return err
	}
	if j.Workdir != "" && !path.IsAbs(j.Workdir) {
		return fail(ErrInvalid, []string{"--workdir /PATH, in the pod"}, "--workdir %q is no absolute path", j.Workdir)
	}
	for _, name := range j.Only {
		if !slices.ContainsFunc(Namespaces, func(ns Namespace) bool { return ns.Name == name }) {
			var known []string
			for _, ns := range Namespaces {
				known = append(known, ns.Name)
			}
			return fail(ErrInvalid, []string{"--only takes some of " + strings.Join(known, ",")}, "no namespace %q", name)
		}
	}
	return nil
}

// identity is who a command is in a pod.
type identity struct {
	uid, gid uint32
	groups   []uint32
	name     string
	home     string
	shell    string
}

// Joining is a command that could run in a pod, and the plan for it.
type Joining struct {
	Pod  *Pod
	Plan Plan

	spec  *JoinSpec
	pidfd *os.File
}

// ProposeJoin looks at the pod and plans the join; nothing is changed.
func ProposeJoin(pod *Pod, spec *JoinSpec) (*Joining, error) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	pidfd, err := pod.Open()
	if err != nil {
		return nil, err
	}
	last, err := capability.LastCap()
	if err != nil {
		return nil, err
	}
	root, err := pod.openRoot(pidfd)
	if err != nil {
		return nil, err
	}
	defer unix.Close(root)
	who, err := pod.identify(root, spec.User)
	if err != nil {
		return nil, err
	}
	if len(spec.Command) == 0 {
		if spec.Command, err = shell(root, who); err != nil {
			return nil, err
		}
	}
	f := joinFacts{who, last, joinerHolds(pod), exists("/proc/sys/kernel/keys")}
	if err := checkHeld(slices.Concat(pod.Spec.CapAdd, spec.CapAdd), f.held); err != nil {
		return nil, err
	}
	return &Joining{pod, planJoin(pod, spec, f), spec, pidfd}, nil
}

// openRoot opens the root that a joiner will have.
func (p *Pod) openRoot(pidfd *os.File) (int, error) {
	root, err := unix.Open(fmt.Sprintf("/proc/%d/root", p.Holder.PID), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if exited(pidfd) { // whatever was opened may be another process's
		if err == nil {
			unix.Close(root)
		}
		return -1, fail(ErrExited, []string{"podsh rm " + p.Title()}, "pod %q has ended", p.Title())
	}
	if err != nil {
		return -1, fmt.Errorf("root of pod %q: %w", p.Title(), err)
	}
	return root, nil
}

// maxFile bounds what is read of a file in a pod: nothing in there is trusted.
const maxFile = 1 << 20

// readInRoot reads a regular file below root as a process in the pod would find it; nothing if there is none.
func readInRoot(root int, name string) string {
	fd, err := openInRoot(root, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if err != nil {
		return ""
	}
	file := os.NewFile(uintptr(fd), name)
	defer file.Close()
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxFile {
		return ""
	}
	text := make([]byte, info.Size())
	n, _ := file.ReadAt(text, 0) // what could be read counts: it shrinks while others write
	return string(text[:n])
}

// identify looks a user up as a login would, in the pod's own files.
func (p *Pod) identify(root int, text string) (identity, error) {
	passwd, group := readInRoot(root, "/etc/passwd"), readInRoot(root, "/etc/group")
	who, err := lookUp(text, p.UID, p.GID, passwd, group)
	if err != nil {
		return who, err
	}
	for _, id := range []struct {
		what string
		id   uint32
		ids  []IDMap
	}{{"user", who.uid, p.UIDMap}, {"group", who.gid, p.GIDMap}} {
		if _, ok := mapID(id.ids, id.id, true); len(id.ids) > 0 && !ok {
			return who, fail(nil, []string{"`podsh inspect " + p.Title() + "` shows which ids it has"},
				"%s %d is not mapped in pod %q", id.what, id.id, p.Title())
		}
	}
	p.confine(&who)
	return who, nil
}

// confine leaves of a user's groups those that the pod has.
func (p *Pod) confine(who *identity) {
	who.groups = slices.DeleteFunc(who.groups, func(g uint32) bool {
		_, ok := mapID(p.GIDMap, g, true)
		return p.KeepGroups || len(p.GIDMap) > 0 && !ok
	})
}

// lookUp reads UID[:GID], NAME or NAME:GROUP, with passwd(5) and group(5) as texts.
func lookUp(text string, uid, gid uint32, passwd, group string) (identity, error) {
	who := identity{uid: uid, gid: gid, home: "/"}
	defaults := &user.ExecUser{Uid: int(uid), Gid: int(gid), Home: "/"}
	found, err := user.GetExecUser(text, defaults, strings.NewReader(passwd), strings.NewReader(group))
	if err != nil {
		return who, fail(nil, []string{"--user UID[:GID], or a name from the pod's own /etc/passwd"}, "no user %q in the pod", text)
	}
	who.uid, who.gid, who.home = uint32(found.Uid), uint32(found.Gid), found.Home
	for _, g := range found.Sgids {
		who.groups = append(who.groups, uint32(g))
	}
	entries, _ := user.ParsePasswdFilter(strings.NewReader(passwd), func(u user.User) bool { return u.Uid == found.Uid })
	if len(entries) > 0 { // a broken line is no entry
		who.name, who.shell = entries[0].Name, entries[0].Shell
	}
	if who.home == "" {
		who.home = "/"
	}
	return who, nil
}

// shell finds an interactive shell in the pod.
func shell(root int, who identity) ([]string, error) {
	for _, candidate := range []string{who.shell, "/bin/bash", "/bin/sh", "/bin/ash", "/usr/bin/sh"} {
		if candidate == "" {
			continue
		}
		fd, err := openInRoot(root, candidate, unix.O_PATH)
		if err != nil {
			continue
		}
		var st unix.Stat_t
		err = unix.Fstat(fd, &st)
		unix.Close(fd)
		if err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Mode&0o111 != 0 && !strings.HasSuffix(candidate, "/nologin") && !strings.HasSuffix(candidate, "/false") {
			return []string{candidate}, nil
		}
	}
	return nil, fail(ErrNotFound, []string{"name a program that it has: podsh join POD -- CMD"}, "the pod has no shell")
}

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// joinFacts are what must be known to plan a join.
type joinFacts struct {
	who  identity
	last capability.Cap   // that the kernel knows
	held []capability.Cap // that a joiner has in the pod
	keys bool             // the kernel has keyrings
}

// joinerHolds are the capabilities of someone in the pod's user namespace: all, where that is not the host's.
func joinerHolds(pod *Pod) []capability.Cap {
	var held []capability.Cap
	for _, c := range capability.ListKnown() {
		if pod.Namespaces["user"].Kind != "host" || hasCapability(c) {
			held = append(held, c)
		}
	}
	return held
}

// checkHeld refuses a capability that was asked for by name and that nobody here can give. ALL means all
// that there are.
func checkHeld(names []string, held []capability.Cap) error {
	for _, name := range names {
		if strings.EqualFold(name, "all") {
			continue
		}
		if c, err := parseCapability(name); err == nil && !slices.Contains(held, c) {
			return fail(nil, []string{"leave out --cap-add " + name + ", or use --userns new"},
				"--cap-add %s: you do not have that capability yourself", name)
		}
	}
	return nil
}

// planJoin lists what is done to run a command in a pod. It is pure, as planCreate is.
func planJoin(pod *Pod, spec *JoinSpec, f joinFacts) Plan {
	j := &builder{}
	who := f.who
	flags, options := joinFlags(pod, spec.Only)
	j.explain("let nothing of the caller in: descriptors and keys", "close_range(2)", "")
	last := nsenter.ReportFD
	if spec.TTY {
		last = nsenter.TTYFD
	}
	j.call(unix.SYS_CLOSE_RANGE, 3, nsenter.PodFD-1, 0)
	j.call(unix.SYS_CLOSE_RANGE, last+1, allFDs, 0)
	j.call(unix.SYS_UMASK, 0o022)
	if f.keys {
		j.call(unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, 0)
	}
	j.explain("enter the pod's namespaces, all at once", "setns(2)", strings.Join(append([]string{"nsenter", "--target", strconv.Itoa(pod.Holder.PID)}, append(options, "sh")...), " "))
	if now := flags &^ unix.CLONE_NEWTIME; now != 0 {
		j.call(unix.SYS_SETNS, nsenter.PodFD, now)
	}
	j.explain("clone the process that will be the command: who enters a pid namespace is not in it, its children are", "pid_namespaces(7)", "")
	j.call(nsenter.Clone, 0)
	if flags&unix.CLONE_NEWTIME != 0 { // not while memory is shared with the joiner: EUSERS, setns(2)
		j.explain("enter the pod's time namespace", "time_namespaces(7)", "")
		j.call(unix.SYS_SETNS, nsenter.PodFD, unix.CLONE_NEWTIME)
	}
	j.explain("leave the caller's terminal: nobody inside can push keys into it", "setsid(2)", "")
	j.call(unix.SYS_SETSID)
	j.becomeUser(pod, spec, f)
	if spec.TTY {
		j.openTerminal(flags&unix.CLONE_NEWNS != 0)
	}
	// After the last change of ids, which clears it.
	j.explain("end with the one who joins", "prctl(2) PR_SET_PDEATHSIG", "")
	j.call(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, int(unix.SIGKILL), 0, 0, 0)
	j.call(unix.SYS_SENDTO, nsenter.ReportFD, nsenter.Ready(), nsenter.ReadySize, unix.MSG_NOSIGNAL, 0, 0)
	mnt := pod.Namespaces["mnt"].Kind != "host" && flags&unix.CLONE_NEWNS != 0
	env := commandEnv(pod, spec, who, mnt)
	j.runCommand(spec, who, env, mnt)
	return j.steps
}

// joinFlags are the setns(2) flags of the namespaces to join, and the options of nsenter(1) for them.
func joinFlags(pod *Pod, only []string) (flags int, options []string) {
	for _, ns := range Namespaces {
		wanted := len(only) == 0 || ns.Name == "user" || slices.Contains(only, ns.Name)
		if wanted && pod.Namespaces[ns.Name].Kind != "host" {
			flags |= ns.Flag
			options = append(options, ns.Nsenter)
		}
	}
	return flags, options
}

// becomeUser takes the user's ids, and leaves only the capabilities that a command in a pod has.
func (j *builder) becomeUser(pod *Pod, spec *JoinSpec, f joinFacts) {
	who := f.who
	bounding := adjust(adjust(DefaultCapabilities, pod.Spec.CapAdd, pod.Spec.CapDrop), spec.CapAdd, spec.CapDrop)
	bounding = slices.DeleteFunc(bounding, func(c capability.Cap) bool { return c > f.last || !slices.Contains(f.held, c) })
	held := bounding
	var ambient []capability.Cap
	if who.uid != 0 { // another user than root has those that were asked for by name
		named := slices.Concat(pod.Spec.CapAdd, spec.CapAdd)
		ambient = slices.DeleteFunc(adjust(nil, named, nil), func(c capability.Cap) bool { return !slices.Contains(bounding, c) })
		held = ambient
	}
	groups := "--clear-groups"
	if pod.KeepGroups {
		groups = "--keep-groups"
	} else if len(who.groups) > 0 {
		groups = "--groups " + strings.Join(digits(who.groups), ",")
	}
	j.explain("be the user, with a pod's capabilities and no way to more", "capabilities(7)",
		fmt.Sprintf("exec setpriv --reuid %d --regid %d %s --bounding-set=%s --inh-caps=-all --no-new-privs sh",
			who.uid, who.gid, groups, signed(bounding)))
	j.dropBounding(bounding, f.last)
	if !pod.KeepGroups {
		j.callTolerating(setgroupsDenied(pod), unix.SYS_SETGROUPS, len(who.groups), nativeWords(append(who.groups, 0)))
	}
	j.call(unix.SYS_SETRESGID, int(who.gid), int(who.gid), int(who.gid))
	if len(ambient) > 0 {
		j.call(unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1, 0, 0, 0)
	}
	j.call(unix.SYS_SETRESUID, int(who.uid), int(who.uid), int(who.uid))
	j.call(unix.SYS_CAPSET, capabilityHeader(), capabilityData(held, held, ambient))
	j.call(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
	for _, c := range ambient {
		j.call(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, int(c), 0, 0)
	}
	j.call(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
}

// signed writes a set as setpriv(1) takes it.
func signed(set []capability.Cap) string {
	if len(set) == 0 {
		return "-all"
	}
	return "-all,+" + strings.Join(capabilityNames(set), ",+")
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
func (j *builder) openTerminal(podMounts bool) {
	const tiocgptpeer = 0x5441
	j.explain("allocate a terminal in the pod, and pass its other end out", "pts(4)", "script -qc sh /dev/null")
	_ = podMounts
	ptmx := j.call(unix.SYS_OPENAT, unix.AT_FDCWD, "/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	j.call(unix.SYS_IOCTL, ptmx, unix.TIOCSPTLCK, []byte{0, 0, 0, 0})
	peer := j.call(unix.SYS_IOCTL, ptmx, tiocgptpeer, unix.O_RDWR|unix.O_NOCTTY)
	const copyOfPTMX = nsenter.TTYFD + 64 // a number that is known now, for the message, and that open(2) does not give
	j.call(unix.SYS_DUP3, ptmx, copyOfPTMX, unix.O_CLOEXEC)
	j.call(unix.SYS_SENDMSG, nsenter.TTYFD, nsenter.PassFD(copyOfPTMX), 0)
	j.call(unix.SYS_IOCTL, peer, unix.TIOCSCTTY, 0)
	for fd := range 3 {
		j.call(unix.SYS_DUP3, peer, fd, 0)
	}
	j.call(unix.SYS_CLOSE, peer)
}

func (j *builder) runCommand(spec *JoinSpec, who identity, env []string, podMounts bool) {
	if podMounts {
		dir := spec.Workdir
		if dir == "" {
			dir = who.home
		}
		j.explain("go where a login would", "chdir(2)", "cd "+quote(dir))
		j.call(unix.SYS_CHDIR, "/")
		if spec.Workdir != "" {
			j.call(unix.SYS_CHDIR, dir)
		} else if dir != "/" {
			j.callTolerating(unix.ENOENT, unix.SYS_CHDIR, dir)
		}
	} else if spec.Workdir != "" {
		j.explain("go to the folder that was asked for", "chdir(2)", "cd "+quote(spec.Workdir))
		j.call(unix.SYS_CHDIR, spec.Workdir)
	}
	search := strings.Split(variable(env, "PATH"), ":")
	var argv any = nsenter.Strings(spec.Command)
	cmd := "the command"
	if spec.Command == nil {
		argv = 0 // a saved plan: the joiner puts its own
	} else {
		cmd = quoteAll(spec.Command...)
	}
	j.explain("run the command, found in the pod's PATH", "execve(2)", "exec env -i "+quoteAll(env...)+" "+cmd)
	j.call(nsenter.Exec, argv, nsenter.Strings(env), nsenter.Strings(search))
}

func variable(env []string, name string) string {
	for i := len(env) - 1; i >= 0; i-- {
		if value, ok := strings.CutPrefix(env[i], name+"="); ok {
			return value
		}
	}
	return ""
}

// commandEnv is the environment of a command: nothing of the caller's, but for one that keeps the host's
// mounts and so is the host's own program.
func commandEnv(pod *Pod, spec *JoinSpec, who identity, podMounts bool) []string {
	if !podMounts {
		return mergeEnv(spec.HostEnv, pod.Spec.Env, spec.Env)
	}
	name := who.name
	if name == "" {
		name = strconv.Itoa(int(who.uid))
	}
	env := []string{"PATH=" + defaultPath, "HOME=" + who.home, "USER=" + name, "LOGNAME=" + name, "container=podsh"}
	if who.shell != "" {
		env = append(env, "SHELL="+who.shell)
	}
	if spec.TTY && spec.Term != "" {
		env = append(env, "TERM="+spec.Term)
	}
	return mergeEnv(env, pod.Spec.Env, spec.Env)
}

// mergeEnv puts lists of variables together; the last value of each counts.
func mergeEnv(lists ...[]string) []string {
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

// savedJoin is the plan of a plain join, for the file that lets it run without Go; nothing where every join
// has a plan of its own.
func savedJoin(pod *Pod, f *Facts) ([]byte, error) {
	if !pod.own("mnt") {
		return nil, nil
	}
	who, err := lookUp("", pod.UID, pod.GID, f.Passwd, f.Group)
	if err != nil {
		return nil, err
	}
	pod.confine(&who)
	plan := planJoin(pod, &JoinSpec{}, joinFacts{who, f.LastCap, joinerHolds(pod), f.Keys})
	return nsenter.EncodeSaved(nsenter.Saved{
		PID: pod.Holder.PID, PIDFDInode: pod.Holder.PIDFDInode, Started: pod.Holder.Started,
		BootID: pod.Holder.BootID + "\n", OwnFile: pod.OwnFile,
	}, plan.calls())
}

// joiner opens what runs the plan: podsh itself, or the pod's own unreachable copy of it.
func (j *Joining) joiner(args []string) (*nsenter.Joiner, error) {
	path := "/proc/self/exe"
	if j.Pod.OwnFile {
		path = fmt.Sprintf("/proc/%d/exe", j.Pod.Holder.PID)
	}
	var exe *os.File
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	switch {
	case j.Pod.OwnFile && j.Pod.PlanFormat != nsenter.Format: // a copy of another podsh
		unix.Close(fd)
		if exe, err = sealedCopy(); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, fmt.Errorf("open %s: %w", path, err)
	default:
		exe = os.NewFile(uintptr(fd), path)
	}
	if exited(j.pidfd) { // else path was the holder's
		return nil, fail(ErrExited, []string{"podsh rm " + j.Pod.Title()}, "pod %q has ended", j.Pod.Title())
	}
	return &nsenter.Joiner{Exe: exe, Pod: j.pidfd, Calls: j.Plan.calls(), Args: args}, nil
}

// Exec runs the command in place of this process, which ends with its status; it returns only on error. args
// are this process's own.
func (j *Joining) Exec(args []string) error {
	joiner, err := j.joiner(args)
	if err != nil {
		return err
	}
	return joiner.Exec()
}

// Start runs the command beside this process, which gets the other end of its terminal. Lock the calling
// goroutine to its thread: the command dies with that.
func (j *Joining) Start(args []string) (joiner *os.Process, terminal *os.File, err error) {
	start, err := j.joiner(args)
	if err != nil {
		return nil, nil, err
	}
	return start.StartWithTerminal()
}

// Failed says why a joiner could not carry out its plan: the call at place failed with errno.
func (j *Joining) Failed(place int, errno syscall.Errno) error {
	step, _, ok := j.Plan.at(place)
	switch {
	case !ok:
		return fail(nil, []string{"was it killed, or is memory short?"}, "the joiner of pod %q ended without a word", j.Pod.Title())
	case step.Call.Nr == unix.SYS_SETNS && errno == unix.ESRCH, step.Call.Nr == nsenter.Clone && errno == unix.ENOMEM:
		return fail(ErrExited, []string{"podsh rm " + j.Pod.Title()}, "pod %q has ended", j.Pod.Title())
	case step.Call.Nr == nsenter.Exec:
		return j.execFailed(errno)
	case step.Call.Nr == unix.SYS_CHDIR && j.spec.Workdir != "":
		return fail(nil, []string{"--workdir names a folder of the pod's"}, "--workdir %s: %v", j.spec.Workdir, errno)
	}
	return j.Plan.explainFailure(&nsenter.CallError{Place: place, Errno: errno})
}

func (j *Joining) execFailed(errno syscall.Errno) error {
	command := j.spec.Command[0]
	switch errno {
	case unix.ENOENT, unix.ENOTDIR:
		if strings.Contains(command, "/") {
			return fail(ErrNotFound, []string{"it is looked up in the pod's own root; a script's or program's interpreter must be there, too"},
				"no program %q in pod %q", command, j.Pod.Title())
		}
		return fail(ErrNotFound, []string{"`podsh join " + j.Pod.Title() + " -- sh -c 'echo $PATH'` shows where it is looked for; --env PATH=… changes that"},
			"no program %q in the PATH of pod %q", command, j.Pod.Title())
	case unix.EACCES:
		return fail(ErrNotExecutable, []string{"chmod +x, or see whether it lies on a mount with noexec"}, "%q can't be executed: %v", command, errno)
	}
	return fail(ErrNotExecutable, []string{"is it a program for this machine, or a script with a #! line?"}, "%q can't be executed: %v", command, errno)
}

// IsExited says whether an error means that the pod has ended.
func IsExited(err error) bool { return errors.Is(err, ErrExited) }
