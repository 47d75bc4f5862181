package sandbox

import (
	"path"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// cgroup finds the folder of this process's own cgroup: in the hierarchy of a v1 controller, or else of v2. ""
// where that can't be seen.
func (m machine) cgroup(controller string) string {
	own := map[string]string{} // path by controllers; v2 has none, proc_pid_cgroup(5)
	for line := range strings.Lines(m.text("/proc/self/cgroup")) {
		if fields := strings.SplitN(strings.TrimSpace(line), ":", 3); len(fields) == 3 {
			for name := range strings.SplitSeq(fields[1], ",") {
				own[name] = fields[2]
			}
		}
	}
	for _, kind := range []string{controller, ""} {
		for _, i := range m.mounts() {
			if at, ok := own[kind]; ok && mounts(i, kind) {
				return m.within(i, at)
			}
		}
	}
	return ""
}

// mounts says whether a mount shows the hierarchy of a v1 controller, or with "" that of v2.
func mounts(i *mountinfo.Info, controller string) bool {
	if controller == "" {
		return i.FSType == "cgroup2"
	}
	return i.FSType == "cgroup" && slices.Contains(strings.Split(i.VFSOptions, ","), controller)
}

// within is where a path of a hierarchy is in a mount of it.
func (m machine) within(i *mountinfo.Info, at string) string {
	at, ok := strings.CutPrefix(at+"/", strings.TrimSuffix(i.Root, "/")+"/")
	if dir := path.Join(i.Mountpoint, at); ok && m.exists(dir) {
		return dir
	}
	return "" // outside of our cgroup namespace, or not there in this mount namespace
}

// limits are the controllers that podsh's limits are for.
var limits = []string{"cpu", "memory", "pids"}

// checkCgroup looks whether podsh could make cgroups below its own, and limit what runs in them.
func checkCgroup(m machine) Finding {
	var v1, v2 bool
	for _, i := range m.mounts() {
		v1 = v1 || i.FSType == "cgroup" && !mounts(i, "name=systemd")
		v2 = v2 || i.FSType == "cgroup2"
	}
	switch {
	case v1:
		return m.checkCgroupV1(v2)
	case v2:
		return m.checkCgroupV2()
	}
	return Finding{Finding: "no cgroup file system is mounted here", Lost: "limits on cpu, memory and processes"}
}

func (m machine) checkCgroupV1(hybrid bool) Finding {
	f := Finding{Finding: "v1", Lost: "limits on cpu, memory and processes"}
	if hybrid {
		f.Finding = "hybrid: v2 is mounted, but the controllers are v1's"
	}
	if m.uid != 0 {
		f.Finding += ", which are for root alone"
		if m.exists("/run/systemd/system") {
			f.Finding += "; with systemd.unified_cgroup_hierarchy=1 on the kernel's command line all is v2"
		}
		return f
	}
	return m.withControllers(f, func(controller string) bool { return m.own(m.cgroup(controller)) })
}

func (m machine) checkCgroupV2() Finding {
	dir := m.cgroup("")
	f := Finding{Finding: "v2", Lost: "limits on cpu, memory and processes"}
	switch {
	case dir == "":
		f.Finding += ", but the cgroup of this shell can't be seen"
	case !m.own(dir):
		f.Finding += ", but " + dir + " is not yours"
		if m.hasUserManager() {
			f.Fix = "systemd-run --user --scope -p Delegate=yes bash"
		}
	default:
		given := strings.Fields(m.text(dir + "/cgroup.controllers"))
		f = m.withControllers(f, func(controller string) bool { return slices.Contains(given, controller) })
		switch {
		case f.OK || !m.hasUserManager():
		case m.uid == 0:
			f.Fix = "systemd-run --scope -p Delegate=yes bash"
		default:
			f.Fix = m.asRoot("mkdir -p " + delegateFolder + " && printf '[Service]\\nDelegate=cpu cpuset io memory pids\\n' > " +
				delegateFolder + "/delegate.conf && systemctl daemon-reload")
		}
	}
	return f
}

// delegateFolder is where it is written what systemd hands to users: systemd.resource-control(5), Delegate=.
const delegateFolder = "/etc/systemd/system/user@.service.d"

// withControllers tells which limits there are, and which are lost.
func (m machine) withControllers(f Finding, has func(string) bool) Finding {
	var there, lost []string
	for _, controller := range limits {
		if has(controller) {
			there = append(there, controller)
		} else {
			lost = append(lost, controller)
		}
	}
	if len(there) > 0 {
		f.Finding += ", with " + enumerate(there)
	}
	f.OK, f.Lost = len(lost) == 0, ""
	if !f.OK {
		f.Lost = "limits on " + enumerate(lost)
	}
	return f
}

// own says whether cgroups can be made below dir, and processes moved there.
func (m machine) own(dir string) bool {
	return dir != "" && m.writable(dir) && m.writable(dir+"/cgroup.procs")
}

// hasUserManager says whether systemd runs a service manager for this user, who then can start units.
func (m machine) hasUserManager() bool {
	return m.exists(m.runtime()+"/systemd/private") && m.has("systemd-run") != ""
}
