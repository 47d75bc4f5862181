// Package doctor knows for which reasons the kernel refuses what podsh asks of it, and what to do about each: it checks
// this machine, and names the cause of a call that failed only when its check has found it. It changes nothing. It
// knows nothing of pods but where they are described, and does not know at which step of what a call failed.
package doctor

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/rootfs"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/plan"
	"github.com/podsh/podsh/sandbox/spec"
)

// Finding is what one check of Doctor has found.
type Finding struct {
	Check    string `json:"check"`
	OK       bool   `json:"ok"`
	Required bool   `json:"required"` // without it no pod can be made
	Finding  string `json:"finding"`
	Lost     string `json:"lost"` // what can't be had while it is so
	Fix      string `json:"fix"`  // the one command that mends it, where there is one
}

// checks are what podsh needs of a machine. Each looks by doing where that leaves nothing behind. One that has
// no meaning on this machine finds nothing at all.
var checks = []struct {
	name string
	find func(m machine) Finding
}{
	{"kernel", checkKernel},
	{"user namespace", probing(checkUserNamespace)},
	{"namespaces", probing(checkNamespaces)},
	{"proc", probing(checkProc)},
	{"sysfs", probing(checkSysfs)},
	{"overlay", probing(checkOverlay)},
	{"ids", checkIDs},
	{"newuidmap", checkMappers},
	{"no_new_privs", checkPrivileges},
	{"keys", checkKeys},
	{"memory", checkMemory},
	{"runtime folder", checkRuntime},
	{"cgroup", checkCgroup},
	{"lingering", checkLingering},
	{"/dev/net/tun", checkTun},
	{"ping", checkPing},
	{"low ports", checkPorts},
}

// Doctor looks whether this machine can make pods, and what they would lack.
func Doctor() []Finding { return ThisMachine().doctor() }

func (m machine) doctor() []Finding {
	var findings []Finding
	for _, check := range checks {
		f := check.find(m)
		if f.Finding == "" {
			continue
		}
		f.Check = check.name
		findings = append(findings, f)
		if f.Required && !f.OK {
			m.try = nil
		}
	}
	return findings
}

// probing leaves a check out that would fail for the reason for which one before it did.
func probing(check func(m machine) Finding) func(m machine) Finding {
	return func(m machine) Finding {
		if m.try == nil {
			return Finding{}
		}
		return check(m)
	}
}

// minKernel is the oldest that podsh can make pods on; below goodKernel it does with less.
var minKernel, goodKernel = plan.Version{Major: 5, Minor: 9}, plan.Version{Major: 5, Minor: 11}

// news is what younger kernels have that podsh uses.
var news = []struct {
	since plan.Version
	what  string
	users bool // root does without
}{
	{plan.Version{Major: 5, Minor: 9}, "close_range(2)", false},
	{plan.Version{Major: 5, Minor: 11}, "overlays without root", true}, // and with them images
	{plan.Version{Major: 5, Minor: 12}, "mount_setattr(2)", false},
	{plan.Version{Major: 6, Minor: 6}, "user xattrs on tmpfs", true},
	{plan.Version{Major: 6, Minor: 9}, "inodes of pidfds", false},
}

func checkKernel(m machine) Finding {
	v := m.kernel()
	f := Finding{OK: !v.Before(goodKernel), Finding: "Linux " + m.sysctl("kernel.osrelease")}
	var lacks []string
	for _, n := range news {
		if v.Before(n.since) && !(n.users && m.Root()) {
			lacks = append(lacks, fmt.Sprintf("%s (%v)", n.what, n.since))
		}
	}
	switch {
	case v.Before(goodKernel):
		f.Finding += fmt.Sprintf(", older than %v", goodKernel)
		f.Lost = fault.Enumerate(lacks)
	case len(lacks) > 0:
		f.Finding += ", without " + fault.Enumerate(lacks)
	}
	f.Required = f.OK || v.Before(minKernel)
	return f
}

// checkUserNamespace: root's pods have one only if that is asked for.
func checkUserNamespace(m machine) Finding {
	f := Finding{Required: !m.Root(), Lost: "pods"}
	if m.Root() {
		f.Lost = "podsh create --userns new"
	}
	if call, err := m.try(unix.CLONE_NEWUSER); err != nil {
		return m.failed(f, call, err)
	}
	f.OK, f.Lost, f.Finding = true, "", "can be made"
	return f
}

// checkNamespaces makes all that a pod has if nothing else is said.
func checkNamespaces(m machine) Finding {
	flags, names := 0, []string{}
	for _, ns := range spec.Namespaces {
		if ns.Name != "time" && ns.Name != "user" {
			flags |= ns.Flag
			names = append(names, ns.Name)
		}
	}
	if call, err := m.try(flags, probePod(m.kernel())...); err != nil {
		return m.failed(Finding{Required: true, Lost: "pods"}, call, err)
	}
	if m.exists("/proc/self/ns/time") {
		names = append(names, "time")
	}
	return Finding{OK: true, Required: true, Finding: fault.Enumerate(names) + " can be made, with a root of their own"}
}

func checkProc(m machine) Finding {
	if call, err := m.try(unix.CLONE_NEWPID|unix.CLONE_NEWNS, probeMount(rootfs.Proc)...); err != nil {
		return m.failed(Finding{Lost: "process ids of a pod's own"}, call, err)
	}
	return Finding{OK: true, Finding: "can be mounted"}
}

func checkSysfs(m machine) Finding {
	if call, err := m.try(unix.CLONE_NEWNET|unix.CLONE_NEWNS, probeMount(rootfs.Sys)...); err != nil {
		return m.failed(Finding{Lost: "a network of a pod's own"}, call, err)
	}
	return Finding{OK: true, Finding: "can be mounted"}
}

func checkOverlay(m machine) Finding {
	user := m.userns() != 0 || !m.Initial()
	if call, err := m.try(unix.CLONE_NEWNS, probeOverlay(user)...); err != nil {
		return m.failed(Finding{Lost: "containers from images, and root file systems that a pod can write to and others share (--rootfs DIR)"}, call, err)
	}
	f := Finding{OK: true, Finding: "can be mounted, with what pods write in memory"}
	if !user {
		return f
	}
	if _, err := m.try(unix.CLONE_NEWNS, probeUserXattr()...); err != nil {
		f.Finding = "can be mounted, with what pods write on disk, as tmpfs has user xattrs only since Linux 6.6"
	}
	return f
}

// failed tells of a call that was tried and failed, and of all the causes that are found.
func (m machine) failed(f Finding, call string, err error) Finding {
	f.Finding = err.Error()
	if call != "" {
		f.Finding = call + ": " + err.Error()
	}
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return f
	}
	found, _ := m.verdicts(call, errno)
	for _, v := range found {
		f.Finding += "; " + v.why
		if f.Fix == "" {
			f.Fix = v.fix
		}
	}
	return f
}
