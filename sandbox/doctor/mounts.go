package doctor

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"

	"github.com/podsh/podsh/sandbox/fault"
)

// initialRoot: pivot_root(2) can't leave the root that the kernel has unpacked itself.
func initialRoot(m machine) verdict {
	for _, i := range m.mounts() {
		if i.Mountpoint == "/" && i.FSType == "rootfs" {
			return verdict{"/ is the initial ramfs, which pivot_root(2) can't leave: boot from a root of its own", ""}
		}
	}
	return verdict{}
}

// mountOf finds the mount that a file is on.
func mountOf(mounts []*mountinfo.Info, file string) *mountinfo.Info {
	var best *mountinfo.Info
	for _, i := range mounts {
		at := strings.TrimSuffix(i.Mountpoint, "/") + "/"
		if strings.HasPrefix(file, at) && (best == nil || len(i.Mountpoint) >= len(best.Mountpoint)) {
			best = i
		}
	}
	return best
}

// emptyFolders are made for mounts: what is mounted there covers nothing.
var emptyFolders = []string{"/proc/sys/fs/binfmt_misc", "/proc/fs/nfsd", "/proc/fs/lustre", "/proc/openprom", "/proc/xen",
	"/sys/fs/cgroup", "/sys/fs/pstore", "/sys/fs/bpf", "/sys/fs/selinux", "/sys/fs/fuse/connections", "/sys/fs/resctrl",
	"/sys/kernel/config", "/sys/kernel/debug", "/sys/kernel/security", "/sys/kernel/tracing", "/sys/firmware/efi/efivars", "/sys/hypervisor"}

// covered: the kernel gives a user namespace a new proc or sysfs only if it can see all of the old one:
// mount_too_revealing() in the kernel's fs/namespace.c.
func covered(at, kind, instead string) func(machine) verdict {
	return func(m machine) verdict {
		whole, readOnly, over := false, false, []string{}
		for _, i := range m.mounts() {
			if i.FSType == kind && i.Root == "/" && i.Mountpoint == at {
				whole, readOnly = true, slices.Contains(strings.Split(i.Options, ","), "ro")
			}
			if strings.HasPrefix(i.Mountpoint, at+"/") && !below(i.Mountpoint, emptyFolders) {
				over = append(over, i.Mountpoint)
			}
		}
		switch {
		case !whole:
			return verdict{fmt.Sprintf("this shell sees no whole %s, and who does not gets no new one", kind), instead}
		case len(over) > 0:
			slices.Sort(over)
			shown := over[:min(len(over), 3)]
			if more := len(over) - len(shown); more > 0 {
				shown = append(shown[:len(shown):len(shown)], fmt.Sprintf("%d more", more))
			}
			why := fmt.Sprintf("mounts lie over %s, and who can't see all of %s gets no new one", fault.Enumerate(shown), at)
			if option := m.container(unmask[m.exists("/run/.containerenv")]); option != "" {
				why += " (" + option + " leaves it whole)"
			}
			return verdict{why, instead}
		case readOnly && kind == "proc": // podsh's sysfs is read-only as well
			return verdict{at + " is mounted read-only, and so there is no other to write to", instead}
		}
		return verdict{}
	}
}

// unmask is the option with which podman (true) and docker leave /proc and /sys as they are.
var unmask = map[bool]string{true: "--security-opt unmask=ALL", false: "--security-opt systempaths=unconfined"}

func below(path string, folders []string) bool {
	return slices.ContainsFunc(folders, func(f string) bool { return path == f || strings.HasPrefix(path, f+"/") })
}

func overlayMissing(m machine) verdict {
	if slices.Contains(strings.Fields(m.text("/proc/filesystems")), "overlay") {
		return verdict{}
	}
	return verdict{"the kernel has no overlay file system loaded", m.asRoot("modprobe overlay")}
}

// overlayKernel: before 5.11 overlays have no option userxattr, and are for root alone. Debian's parameter
// permit_mounts_in_userns does not help: the option is still missing.
func overlayKernel(m machine) verdict {
	if m.Root() || m.kernel().AtLeast(5, 11) {
		return verdict{}
	}
	return verdict{fmt.Sprintf("Linux %v lets only root mount overlays, 5.11 everyone", m.kernel()), "podsh create --rootfs DIR:ro"}
}

func mountLimit(m machine) verdict {
	max, err := strconv.Atoi(m.sysctl("fs.mount-max"))
	if n := len(m.mounts()); err == nil && n+100 >= max {
		return verdict{fmt.Sprintf("there are %d mounts already, and fs.mount-max is %d", n, max),
			m.asRoot(fmt.Sprintf("sysctl -w fs.mount-max=%d", 2*max))}
	}
	return verdict{}
}
