package doctor

import (
	"fmt"
	"io/fs"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/sandbox/spec"
)

// The checks of the table in cause.go, in its order.

// userNamespacesOff finds the switch that Debian and Arch have added to their kernels.
func userNamespacesOff(m machine) verdict {
	const name = "kernel.unprivileged_userns_clone"
	if m.Root() || m.sysctl(name) != "0" {
		return verdict{}
	}
	return verdict{name + " is 0: only root may make user namespaces", m.asRoot("sysctl -w " + name + "=1")}
}

// chrooted: after chroot(2), nothing is mounted at what is / now. The kernel makes no user namespace there, as
// that would be a way out of it.
func chrooted(m machine) verdict {
	mounts := m.mounts()
	if len(mounts) == 0 || slices.ContainsFunc(mounts, func(i *mountinfo.Info) bool { return i.Mountpoint == "/" }) {
		return verdict{}
	}
	return verdict{"this shell is in a chroot, where the kernel refuses it: run podsh outside", ""}
}

// unmapped: someone whose id means nothing in this user namespace can't own another one. Where AppArmor denies
// everything in there, that an id is missing is its doing.
func unmapped(m machine) verdict {
	if m.restricted() {
		return verdict{}
	}
	file, id := "uid_map", m.uid
	if holds(m.text("/proc/self/uid_map"), m.uid) {
		file, id = "gid_map", m.gid
	}
	if !holds(m.text("/proc/self/"+file), id) {
		return verdict{fmt.Sprintf("id %d is not mapped in the user namespace of this shell (/proc/self/%s)", id, file),
			"unshare --user --map-root-user"}
	}
	return verdict{}
}

func holds(idMap string, id int) bool {
	for line := range strings.Lines(idMap) {
		var first, outside, count int
		if n, _ := fmt.Sscan(line, &first, &outside, &count); n == 3 && id >= first && id < first+count {
			return true
		}
	}
	return false
}

// namespaceLimit finds the kind of namespace of which there may be no more.
func namespaceLimit(m machine) verdict {
	for _, ns := range spec.Namespaces {
		limit := m.sysctl("user.max_" + ns.Name + "_namespaces")
		if ns.Name == "time" && limit != "0" {
			continue // clone(2) makes none to try it with
		}
		if limit == "0" {
			fix := fmt.Sprintf("sysctl -w user.max_%s_namespaces=10000", ns.Name)
			if m.uid != 0 { // each user namespace has its own, for its own root to set: namespaces(7)
				fix = m.asRoot(fix)
			}
			return verdict{fmt.Sprintf("user.max_%s_namespaces is 0", ns.Name), fix}
		}
		if _, err := m.try(ns.Flag); err == unix.ENOSPC {
			return m.usedUp(ns)
		}
	}
	return verdict{}
}

func (m machine) usedUp(ns spec.Namespace) verdict {
	name := "user.max_" + ns.Name + "_namespaces"
	limit := m.sysctl(name)
	n, err := strconv.Atoi(limit)
	if !m.Initial() || err != nil {
		return verdict{fmt.Sprintf("there may be no more %s namespaces: %s is %s here, and every outer user namespace has a limit of its own",
			ns.Name, name, limit), ""}
	}
	return verdict{fmt.Sprintf("all %d %s namespaces that you may have are in use (%s)", n, ns.Name, name),
		m.asRoot(fmt.Sprintf("sysctl -w %s=%d", name, 2*n))}
}

func namespaceMissing(m machine) verdict {
	for _, ns := range spec.Namespaces {
		if !m.exists("/proc/self/ns/" + ns.Name) {
			return verdict{fmt.Sprintf("this kernel has no %s namespaces", ns.Name), "podsh create --" + ns.Option + " host"}
		}
	}
	return verdict{}
}

// processLimit looks at the three limits that let clone(2) fail with EAGAIN.
func processLimit(m machine) verdict {
	own, all := m.threads()
	if limit, err := strconv.Atoi(firstWord(m.field("/proc/self/limits", "Max processes"))); err == nil && own >= limit && !m.Root() {
		return verdict{fmt.Sprintf("you run %d threads, and may run %d", own, limit), "ulimit -u unlimited"}
	}
	for _, name := range []string{"kernel.threads-max", "kernel.pid_max"} {
		if limit, err := strconv.Atoi(m.sysctl(name)); err == nil && all >= limit-1 {
			return verdict{fmt.Sprintf("all together run %d threads, and %s is %d", all, name, limit),
				m.asRoot(fmt.Sprintf("sysctl -w %s=%d", name, 2*limit))}
		}
	}
	for dir := m.cgroup("pids"); dir != "" && dir != "/"; dir = path.Dir(dir) {
		if limit := m.number(dir + "/pids.max"); limit < math.MaxInt && m.number(dir+"/pids.current") >= limit {
			return verdict{fmt.Sprintf("the cgroup %s is full: %d processes (pids.max)", dir, limit),
				m.asRoot("echo max > " + dir + "/pids.max")}
		}
	}
	return verdict{}
}

func firstWord(text string) string {
	word, _, _ := strings.Cut(text, " ")
	return word
}

// threads counts those of this user, and those of all.
func (m machine) threads() (own, all int) {
	processes, _ := fs.Glob(m.files, "proc/[0-9]*/status")
	for _, file := range processes {
		n, _ := strconv.Atoi(m.field(file, "Threads:"))
		all += n
		if uid, _, _ := strings.Cut(m.field(file, "Uid:"), "\t"); uid == strconv.Itoa(m.uid) {
			own += n
		}
	}
	return own, all
}

func fileLimit(m machine) verdict {
	limit := firstWord(m.field("/proc/self/limits", "Max open files"))
	if limit == "" { // to look takes a file, too
		limit = "no more"
	}
	return verdict{"this process may have " + limit + " files open", "ulimit -n 1024, in a new shell where this one has given up the right to that"}
}
