// Package plan turns what was decided of a pod, and what a machine is like, into steps: what podsh does to make a pod,
// to start a container or to run a command in one, each with the reason for it, the manual page that has more, and how
// to do the same by hand. It decides (resolve), writes down (the builders) and explains. It carries nothing out and
// looks at nothing: whoever has the facts gives them.
package plan

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/nsenter"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/ids"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/spec"
	"github.com/podsh/podsh/sandbox/step"
)

// Create lists all that is done to make a pod, in the order in which it happens. It reads nothing and
// does nothing: the same pod and facts give the same plan on every machine.
func Create(pod *pod.Pod, f *Facts, exe ExeKind) step.Plan {
	p := Start(pod, f, exe)
	return p.Rest()
}

// Start is the part of it that needs only the first facts (machine.ReadFacts).
func Start(pod *pod.Pod, f *Facts, exe ExeKind) *Creation {
	p := &Creation{Pod: pod, Facts: f, exe: exe, taken: map[source]nsenter.Result{}}
	p.startHolder()
	p.startAnew()
	return p
}

// Rest is the part that needs all the facts: what follows Start.
func (p *Creation) Rest() step.Plan {
	p.mapIDs()
	p.keepOut()
	if p.Pod.Own("mnt") {
		p.takeSources() // as the user, who may open what the pod's root could not
	}
	p.becomeRoot()
	p.makeKeyring()
	p.shiftClocks()
	if p.Pod.Own("mnt") {
		p.buildRoot()
	}
	p.nameHost()
	p.raiseLoopback()
	if p.Pod.Own("mnt") {
		p.finishRoot()
	}
	p.dropPrivileges()
	p.attachNetwork()
	p.Explain("write down what the pod is, and rename that into place", "rename(2)", "")
	p.Host("save")
	p.Explain("sleep as the pod's first process: reap orphans, end on SIGTERM", "pid_namespaces(7)", "exec podsh pause")
	p.Role(step.Last)
	p.Call(nsenter.Pause)
	return p.Steps
}

// Creation is a plan in the making.
type Creation struct {
	Builder
	Pod   *pod.Pod
	Facts *Facts
	exe   ExeKind

	stage     nsenter.Result            // where the root is built
	inside    bool                      // the new root is the only one
	proc, sys nsenter.Result            // mounts of the pod's own, of which others can't exchange what is in them
	taken     map[source]nsenter.Result // mounts of what is the host's
	member    *ContainerFacts           // where what is made is no pod, but a container in one
	mounts    nsenter.Result            // a container's mount namespace
	shm       nsenter.Result            // the pod's shared memory, where a container has that
	podProc   nsenter.Result            // the pod's /proc, where the container does not come into its pid namespace before
}

// startHolder makes the process that everything else happens in.
func (p *Creation) startHolder() {
	var names, options []string
	for _, ns := range spec.Namespaces {
		if p.Pod.Own(ns.Name) {
			names = append(names, ns.Name)
			options = append(options, ns.Unshare)
			if ns.Name == "user" {
				options = append(options, "--keep-caps")
			}
		}
	}
	for _, clock := range p.Pod.Spec.Clocks {
		options = append(options, fmt.Sprintf("--%s %d", clock.Name, clock.Seconds))
	}
	why := "start a process in new " + fault.Enumerate(names) + " namespaces"
	if len(names) == 0 {
		why = "start a process"
	}
	cmd := strings.Join(append([]string{"setsid unshare"}, append(options, "--fork sh")...), " ")
	for i := len(p.Facts.Enter) - 1; i >= 0; i-- { // the first one entered stands outermost
		cmd = "nsenter " + p.Facts.Enter[i].Cmd + " " + cmd
	}
	p.Explain(why, "namespaces(7)", cmd)
	p.Role(step.Start)
	p.Host("start")
	for i, e := range p.Facts.Enter {
		if e.Flags == 0 {
			continue
		}
		p.Explain("enter "+e.What, "setns(2)", "")
		p.Call(unix.SYS_SETNS, nsenter.EnterFD+i, e.Flags)
	}
	p.Call(nsenter.Clone, p.Pod.Flags())
}

// mapIDs says which ids of the host the pod's ids are.
func (p *Creation) mapIDs() {
	if !p.Pod.Own("user") {
		return
	}
	uids, gids := p.Pod.UIDMap, p.Pod.GIDMap
	why, cmd := "", ""
	switch hub := p.Facts.Net.Hub; {
	case hub != nil && hub.Own("user"):
		inside, _ := ids.SeenIn(uids, hub.UIDMap) // what it has not is refused when they are written
		insideGroups, _ := ids.SeenIn(gids, hub.GIDMap)
		why = describeMap(uids) + "; they are the hub's already"
		cmd = fmt.Sprintf("nsenter --target %d --user --preserve-credentials sh -c \"printf '%s' >/proc/$HOLDER/uid_map && printf '%s' >/proc/$HOLDER/gid_map\"",
			hub.Holder.PID, strings.ReplaceAll(ids.Lines(inside), "\n", `\n`), strings.ReplaceAll(ids.Lines(insideGroups), "\n", `\n`))
	case p.Pod.OneID:
		why = fmt.Sprintf("be %d inside, yourself outside: one id", uids[0].Inside)
		// gid_map is refused until setgroups is denied: user_namespaces(7).
		cmd = fmt.Sprintf("echo deny >/proc/$HOLDER/setgroups; echo %s >/proc/$HOLDER/uid_map; echo %s >/proc/$HOLDER/gid_map", step.Quote(ids.Words(uids)), step.Quote(ids.Words(gids)))
	case p.Facts.NewUIDMap:
		why = fmt.Sprintf("%s; newuidmap may write what you may not", describeMap(uids))
		cmd = fmt.Sprintf("newuidmap $HOLDER %s && newgidmap $HOLDER %s", ids.Words(uids), ids.Words(gids))
	default:
		why = describeMap(uids)
		cmd = fmt.Sprintf("printf %s >/proc/$HOLDER/uid_map; printf %s >/proc/$HOLDER/gid_map",
			step.Quote(strings.ReplaceAll(ids.Lines(uids), "\n", `\n`)), step.Quote(strings.ReplaceAll(ids.Lines(gids), "\n", `\n`)))
	}
	p.Explain(why, "user_namespaces(7)", cmd)
	p.Host("map ids")
}

func describeMap(ids []ids.Map) string {
	var parts []string
	for _, m := range ids {
		if m.Count == 1 {
			parts = append(parts, fmt.Sprintf("%d is %d outside", m.Inside, m.Outside))
		} else {
			parts = append(parts, fmt.Sprintf("%d to %d are %d to %d outside", m.Inside, m.Inside+m.Count-1, m.Outside, m.Outside+m.Count-1))
		}
	}
	return "map ids: " + strings.Join(parts, ", ")
}

// startAnew makes the holder run podsh's file once more. In a user namespace that makes its memory belong to
// that namespace, so that whoever owns it may look after the holder though it is not dumpable, ptrace(2); and
// it is the moment to run from a file that is out of the pod's reach (exe.go).
func (p *Creation) startAnew() {
	user := p.Pod.Namespaces["user"].Kind
	if user == "host" && p.exe != ExeMount {
		return
	}
	if user != "host" {
		p.keepCapabilities()
	}
	exe := nsenter.Result(0)
	if p.exe == ExeMount {
		p.Explain("run from a read-only mount of podsh: nothing in the pod can write to its file through /proc/1/exe", "open_tree(2)", "")
		exe = p.Call(unix.SYS_OPEN_TREE, unix.AT_FDCWD, p.Facts.Exe.Path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		p.Call(unix.SYS_MOUNT_SETATTR, exe, "", unix.AT_EMPTY_PATH, MountAttributes(unix.MOUNT_ATTR_RDONLY), MountAttrSize)
	} else {
		p.Explain("start podsh anew, with memory that belongs to the new user namespace", "ptrace(2)", "")
		exe = p.Call(unix.SYS_OPENAT, unix.AT_FDCWD, "/proc/self/exe", unix.O_PATH|unix.O_CLOEXEC)
	}
	p.Call(unix.SYS_EXECVEAT, exe, "", nsenter.Strings([]string{"podsh@hold"}), nsenter.Strings(nil), unix.AT_EMPTY_PATH)
}

// hasRoot says whether the pod has an id 0, as far as is known.
func (p *Creation) hasRoot() bool {
	_, root := ids.Translate(p.Pod.UIDMap, 0, true)
	return root
}

// keepCapabilities lets them survive an exec before any id is mapped, capabilities(7).
func (p *Creation) keepCapabilities() {
	var all []capability.Cap
	for c := capability.Cap(0); c <= p.Facts.LastCap; c++ {
		all = append(all, c)
	}
	p.Explain("keep the capabilities across the next exec", "capabilities(7)", "")
	p.Call(unix.SYS_CAPSET, CapabilityHeader(), CapabilityData(all, all, all))
	for _, c := range all {
		p.Call(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, int(c), 0, 0)
	}
}

// MountAttributes is a struct mount_attr that sets attributes and makes a mount private, mount_setattr(2).
func MountAttributes(set int) []byte {
	var attr []byte
	for _, word := range []uint64{uint64(set), 0, unix.MS_PRIVATE, 0} {
		attr = binary.NativeEndian.AppendUint64(attr, word)
	}
	return attr
}

// keepOut lets nothing of the caller into the pod.
func (p *Creation) keepOut() {
	p.Explain("let nothing of the caller in: descriptors, groups, umask; and let nobody inside look into this process", "close_range(2)", "umask 0")
	p.Call(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	p.Call(unix.SYS_CLOSE_RANGE, nsenter.PlanFD+1, AllFDs, 0)
	p.Call(unix.SYS_UMASK, 0)
	if !p.Pod.Own("mnt") {
		p.Call(unix.SYS_CHDIR, "/") // else the caller's folder could not be unmounted while the pod lives
	}
}

// AllFDs is the last argument of close_range(2) that means all.
const AllFDs = 1<<32 - 1

// becomeRoot takes the ids that the pod's root has.
func (p *Creation) becomeRoot() {
	groups := "--clear-groups"
	if p.Pod.KeepGroups {
		groups = "--keep-groups"
	}
	root := p.hasRoot()
	if p.Pod.Namespaces["user"].Kind != "host" && root {
		p.Explain("be root inside", "credentials(7)", "exec setpriv --reuid 0 --regid 0 "+groups+" sh")
		p.Role(step.Become)
	} else if !p.Pod.KeepGroups {
		p.Explain("be in no other groups", "setgroups(2)", "exec setpriv "+groups+" sh")
		p.Role(step.Become)
	}
	if !p.Pod.KeepGroups {
		p.CallTolerating(setgroupsDenied(p.Pod), unix.SYS_SETGROUPS, 0, 0)
	}
	if p.Pod.Namespaces["user"].Kind != "host" && root {
		p.Call(unix.SYS_SETRESGID, 0, 0, 0)
		p.Call(unix.SYS_SETRESUID, 0, 0, 0)
	}
}

// setgroupsDenied is the errno that setgroups(2) may end with: nobody told us whether it is denied in a user
// namespace that is only known by its file.
func setgroupsDenied(pod *pod.Pod) unix.Errno {
	if pod.Namespaces["user"].Kind == "path" {
		return unix.EPERM
	}
	return 0
}

// shiftClocks: clone(2) has no bit for a time namespace, so it is entered here.
func (p *Creation) shiftClocks() {
	if !p.Pod.Own("time") {
		return
	}
	var offsets strings.Builder
	for _, clock := range p.Pod.Spec.Clocks {
		fmt.Fprintf(&offsets, "%s %d 0\n", clock.Name, clock.Seconds)
	}
	p.Explain("give the pod monotonic and boot clocks of its own", "time_namespaces(7)", "")
	p.Call(unix.SYS_UNSHARE, unix.CLONE_NEWTIME)
	if offsets.Len() > 0 {
		p.write("/proc/self/timens_offsets", unix.O_WRONLY, offsets.String())
	}
	ns := p.Call(unix.SYS_OPENAT, unix.AT_FDCWD, "/proc/self/ns/time_for_children", unix.O_RDONLY|unix.O_CLOEXEC)
	p.Call(unix.SYS_SETNS, ns, unix.CLONE_NEWTIME)
	p.Call(unix.SYS_CLOSE, ns)
}

// write opens a file, writes it and closes it.
func (p *Creation) write(path string, flags int, text string) {
	p.fill(p.Call(unix.SYS_OPENAT, unix.AT_FDCWD, path, flags|unix.O_CLOEXEC, 0o644), text)
}

// fill writes to a file that is open, and closes it.
func (p *Creation) fill(fd nsenter.Result, text string) {
	if text != "" {
		p.Call(unix.SYS_WRITE, fd, text, len(text))
	}
	p.Call(unix.SYS_CLOSE, fd)
}

func (p *Creation) nameHost() {
	if p.Pod.Own("uts") {
		p.Explain("give the pod its own host name", "uts_namespaces(7)", "hostname "+step.Quote(p.Pod.Hostname))
		p.Call(unix.SYS_SETHOSTNAME, p.Pod.Hostname, len(p.Pod.Hostname))
	}
}

// dropPrivileges leaves the holder with no capabilities and no way to any.
func (p *Creation) dropPrivileges() {
	p.Explain("give up every capability: who only sleeps needs none", "capabilities(7)",
		"exec setpriv --bounding-set=-all --inh-caps=-all --ambient-caps=-all --no-new-privs sh")
	p.Role(step.Last)
	p.dropBounding(nil, p.Facts.LastCap)
	p.Call(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
	p.Call(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	p.Call(unix.SYS_CAPSET, CapabilityHeader(), CapabilityData(nil, nil, nil))
	p.Call(unix.SYS_UMASK, 0o022)
}
