// Package machine reads the facts that plans are made of: who we are, which ids may be mapped, what this kernel has,
// what a root is made of, whose namespaces are entered. It decides nothing, and changes nothing: what follows from the facts, package plan knows,
// and why one of them is as it is, package doctor.
package machine

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/moby/sys/capability"
	"github.com/moby/sys/mountinfo"
	idmaps "github.com/moby/sys/user"
	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/rootfs"
	"github.com/podsh/podsh/sandbox/doctor"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/files"
	"github.com/podsh/podsh/sandbox/ids"
	"github.com/podsh/podsh/sandbox/perform"
	"github.com/podsh/podsh/sandbox/plan"
	"github.com/podsh/podsh/sandbox/spec"
	"github.com/podsh/podsh/sandbox/store"
)

// KernelVersion is that of the running kernel.
func KernelVersion() plan.Version {
	var uts unix.Utsname
	var v plan.Version
	if unix.Uname(&uts) == nil {
		_, _ = fmt.Sscanf(unix.ByteSliceToString(uts.Release[:]), "%d.%d", &v.Major, &v.Minor)
	}
	return v
}

// ReadFacts looks at what must be known to start a pod: the user, the kernel, the namespaces of others.
// readRoot does the rest, while that start is already under way. Close the entrances, whatever becomes of the pod.
func ReadFacts(wanted *spec.Spec, s *store.Store) (f *plan.Facts, e Entrances, err error) {
	f = &plan.Facts{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), Kernel: KernelVersion(), Store: s.Path}
	f.Root = f.UID == 0 && perform.HasCapability(capability.CAP_SYS_ADMIN)
	if f.LastCap, err = capability.LastCap(); err != nil {
		return nil, nil, fmt.Errorf("last capability: %w", err)
	}
	if f.Exe, err = perform.ReadExe(); err != nil {
		return nil, nil, err
	}
	f.Data = store.DataFolder(f.UID)
	f.Keys = files.Exists("/proc/sys/kernel/keys")
	f.Namespaces = map[string]bool{}
	for _, ns := range spec.Namespaces {
		f.Namespaces[ns.Name] = files.Exists("/proc/self/ns/" + ns.Name)
	}
	if err := ReadIDs(f, wanted); err != nil {
		return nil, nil, err
	}
	if err := e.read(f, wanted, s); err != nil {
		e.Close()
		return nil, nil, err
	}
	return f, e, nil
}

// ReadIDs finds the ranges that may be mapped.
func ReadIDs(f *plan.Facts, spec *spec.Spec) error {
	f.NewUIDMap = !f.Root
	var err error
	if f.OwnGIDs, err = OwnGIDs(); err != nil {
		return err
	}
	setgroups, err := os.ReadFile("/proc/self/setgroups")
	f.NoSetgroups = err == nil && strings.TrimSpace(string(setgroups)) == "deny"
	if userns := spec.Choice("user"); userns != "new" && (userns != "" || f.Root && !spec.AsksForMap()) {
		return nil
	}
	if noNewPrivs() && !f.Root {
		f.NoRanges = "no_new_privs is set, so newuidmap gets no privileges"
		f.RangesHint = doctor.HintsFor("newuidmap", unix.EPERM)
		return nil
	}
	name := doctor.UserName(f.UID)
	if f.SubUIDs, err = doctor.Subids("/etc/subuid", name, int(f.UID)); err != nil {
		return err
	}
	if f.SubGIDs, err = doctor.Subids("/etc/subgid", name, int(f.UID)); err != nil {
		return err
	}
	switch {
	case len(f.SubUIDs) == 0:
		f.NoRanges = fmt.Sprintf("/etc/subuid has no line for %s", name)
	case len(f.SubGIDs) == 0:
		f.NoRanges = fmt.Sprintf("/etc/subgid has no line for %s", name)
	case f.NewUIDMap && !IsInstalled("newuidmap", "newgidmap"):
		f.NoRanges = "newuidmap is not installed (package uidmap)"
	}
	switch {
	case f.NoRanges == "":
		return nil
	case len(f.SubUIDs) == 0 || len(f.SubGIDs) == 0:
		f.RangesHint, f.YourMap = []string{doctor.ThisMachine().AddRanges()}, doctor.YourMap()
	default:
		f.RangesHint = doctor.HintsFor("newuidmap", unix.EPERM)
	}
	f.SubUIDs, f.SubGIDs = nil, nil
	return nil
}

// OwnGIDs reads the groups that are mapped where podsh runs; Outside is of no use to us.
func OwnGIDs() ([]ids.Map, error) {
	current, err := idmaps.CurrentProcessGIDMap()
	if err != nil {
		return nil, fmt.Errorf("/proc/self/gid_map: %w", err)
	}
	var own []ids.Map
	for _, m := range current {
		own = append(own, ids.Map{Inside: uint32(m.ID), Outside: uint32(m.ParentID), Count: uint32(m.Count)})
	}
	return own, nil
}

// IsInstalled says whether all of the programs are found.
func IsInstalled(programs ...string) bool {
	for _, p := range programs {
		if _, err := doctor.ProgramPath(p); err != nil {
			return false
		}
	}
	return true
}

func noNewPrivs() bool {
	on, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	return err == nil && on == 1
}

// ReadRootFacts looks at what the pod's root is made of. detailed is for a plan that is shown.
func ReadRootFacts(f *plan.Facts, spec *spec.Spec, detailed bool) (err error) {
	if mnt := spec.Choice("mnt"); mnt != "new" && mnt != "" {
		return nil
	}
	if detailed || !f.Kernel.AtLeast(5, 12) {
		if f.Mounts, err = mountinfo.GetMounts(nil); err != nil {
			return err
		}
	}
	readHidden(f)
	if f.Root {
		if f.ProcEntries, err = procEntries(); err != nil {
			return err
		}
	}
	var fs unix.Statfs_t
	f.CgroupV2 = unix.Statfs("/sys/fs/cgroup", &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC
	if err := readNames(f, spec); err != nil {
		return err
	}
	for _, v := range spec.Volumes {
		info, err := os.Stat(v.Source)
		if err != nil {
			return fault.WithHint(fmt.Errorf("volume: %w", err), "--volume SRC:DST needs a SRC that is there")
		}
		f.Volumes = append(f.Volumes, info.IsDir())
	}
	switch spec.Rootfs.Kind {
	case "dir":
		return readDir(f, spec.Rootfs.Dir)
	case "layers":
		ReadLayers(f, spec.Rootfs.Layers)
		return nil
	}
	if f.Host, err = rootfs.Host(); err != nil {
		return err
	}
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	group, err := os.ReadFile("/etc/group")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f.Passwd, f.Group = string(passwd), string(group)
	return nil
}

// readHidden finds those of the paths that are hidden, or read-only, in a pod that this kernel has.
func readHidden(f *plan.Facts) {
	for _, path := range rootfs.Masked {
		var st unix.Stat_t
		if unix.Stat(path, &st) == nil {
			f.Masked = append(f.Masked, path)
			if f.MaskedFiles == nil {
				f.MaskedFiles = map[string]bool{}
			}
			f.MaskedFiles[path] = st.Mode&unix.S_IFMT != unix.S_IFDIR
		}
	}
	for _, path := range rootfs.ReadOnly {
		if files.Exists(path) {
			f.ReadOnly = append(f.ReadOnly, path)
		}
	}
}

// procEntries lists the files and folders of /proc that are the kernel's, and not a process's.
func procEntries() ([]string, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var list []string
	for _, e := range entries {
		isProcess := e.Name()[0] >= '0' && e.Name()[0] <= '9'
		if !isProcess && (e.IsDir() || e.Type().IsRegular()) {
			list = append(list, "/proc/"+e.Name())
		}
	}
	return list, nil
}

func readDir(f *plan.Facts, dir string) error {
	const hint = "--rootfs takes a folder with a root file system in it, or host"
	f.Dir = plan.DirFacts{Missing: map[string]bool{}, Files: map[string]bool{}}
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fault.WithHint(fmt.Errorf("rootfs %s: %w", dir, err), hint)
	}
	defer unix.Close(root)
	if err := unix.Faccessat(unix.AT_FDCWD, dir, unix.R_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
		return fault.WithHint(fmt.Errorf("rootfs %s: %w", dir, err), hint)
	}
	for _, path := range plan.MountPoints {
		var st unix.Stat_t
		err := unix.Fstatat(root, strings.TrimPrefix(path, "/"), &st, unix.AT_SYMLINK_NOFOLLOW)
		f.Dir.Missing[path] = err != nil
		if err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return fault.New(nil, []string{"a root file system that can be trusted with it has a folder there"},
				"rootfs %s: %s is no folder", dir, path)
		}
	}
	for _, path := range plan.EtcFiles {
		fd, err := files.OpenIn(root, path, unix.O_PATH)
		if err != nil {
			continue
		}
		var st unix.Stat_t
		f.Dir.Files[path] = unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG
		unix.Close(fd)
	}
	f.Passwd, f.Group = files.ReadIn(root, "/etc/passwd"), files.ReadIn(root, "/etc/group")
	return nil
}
