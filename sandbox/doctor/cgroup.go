package doctor

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

// checkCgroup tells which cgroups there are. podsh sets no limits by them: nothing is lost without.
func checkCgroup(m machine) Finding {
	var v1, v2 bool
	for _, i := range m.mounts() {
		v1 = v1 || i.FSType == "cgroup" && !mounts(i, "name=systemd")
		v2 = v2 || i.FSType == "cgroup2"
	}
	kind := "no cgroup file system is mounted here"
	switch {
	case v1 && v2:
		kind = "hybrid: v2 is mounted, but the controllers are v1's"
	case v1:
		kind = "v1"
	case v2:
		kind = "v2"
	}
	return Finding{OK: true, Finding: kind + "; podsh sets no limits yet"}
}

// hasUserManager says whether systemd runs a service manager for this user, who then can start units.
func (m machine) hasUserManager() bool {
	return m.exists(m.runtime()+"/systemd/private") && m.has("systemd-run") != ""
}
