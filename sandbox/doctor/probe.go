package doctor

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/nsenter"
	"github.com/podsh/podsh/rootfs"
	"github.com/podsh/podsh/sandbox/ids"
	"github.com/podsh/podsh/sandbox/plan"
	"github.com/podsh/podsh/sandbox/step"
)

// try performs calls in new namespaces, as `podsh create` would, and says which call failed and how. With the
// process all of it is gone again.
func try(flags int, calls []nsenter.Call) (call string, err error) {
	e, call, err := startProbe(flags)
	if err != nil {
		return call, err
	}
	defer e.Kill()
	if flags&unix.CLONE_NEWUSER != 0 {
		own := map[string]string{
			"uid_map": ids.Lines([]ids.Map{{Inside: 0, Outside: uint32(os.Geteuid()), Count: 1}}),
			"gid_map": ids.Lines([]ids.Map{{Inside: 0, Outside: uint32(os.Getegid()), Count: 1}}),
		}
		for _, file := range []string{"setgroups", "uid_map", "gid_map"} {
			text := own[file]
			if file == "setgroups" {
				text = "deny" // gid_map is refused until then, user_namespaces(7)
			}
			if err := writeProbe(e.PID, file, text); err != nil {
				return file, err
			}
		}
	}
	err = e.Send(calls, 0)
	if err == nil {
		err = e.Wait(len(calls))
	}
	var failed *nsenter.CallError
	if errors.As(err, &failed) {
		return step.CallName(calls[failed.Place]), failed.Errno
	}
	return "", err
}

func writeProbe(pid int, file, text string) error {
	f, err := os.OpenFile(fmt.Sprintf("/proc/%d/%s", pid, file), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(text)
	return err
}

// startProbe starts an executor that has all capabilities in its namespaces, even before ids are mapped:
// ambient ones survive the exec.
func startProbe(flags int) (e *nsenter.Executor, call string, err error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, "openat", err
	}
	defer null.Close()
	attr := &syscall.SysProcAttr{Cloneflags: uintptr(flags), Setsid: true}
	if flags&unix.CLONE_NEWUSER != 0 {
		last, err := capability.LastCap()
		if err != nil {
			return nil, "openat", err
		}
		for c := range last + 1 {
			attr.AmbientCaps = append(attr.AmbientCaps, uintptr(c))
		}
	}
	e, err = nsenter.Start("/proc/self/exe", null, nil, attr)
	return e, "clone", err
}

// tryMap has newuidmap and newgidmap write maps as `podsh create` would, and returns what they said when they
// did not.
func tryMap(uids, gids []ids.Map) (said string, err error) {
	e, _, err := startProbe(unix.CLONE_NEWUSER)
	if err != nil {
		return err.Error(), err
	}
	defer e.Kill()
	for i, mapped := range [][]ids.Map{uids, gids} {
		arguments := append([]string{strconv.Itoa(e.PID)}, strings.Fields(ids.Words(mapped))...)
		path, err := ProgramPath(mappers[i])
		if err != nil {
			return err.Error(), err
		}
		if output, err := exec.Command(path, arguments...).CombinedOutput(); err != nil {
			return FirstLine(string(output), err), err
		}
	}
	return "", nil
}

// What probes mount, they mount on /proc: it is the one folder that is there wherever podsh runs, and in the
// probe's own mount namespace nobody else sees it.

// probePod does in new namespaces what every pod needs, with the calls that `podsh create` makes.
func probePod(kernel plan.Version) []nsenter.Call {
	b := &plan.Builder{}
	b.Call(unix.SYS_CLOSE_RANGE, nsenter.PlanFD+1, plan.AllFDs, 0)
	makePrivate(b)
	tree := b.Call(unix.SYS_OPEN_TREE, unix.AT_FDCWD, "/dev/null", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if kernel.AtLeast(5, 12) {
		b.Call(unix.SYS_MOUNT_SETATTR, tree, "", unix.AT_EMPTY_PATH, plan.MountAttributes(unix.MOUNT_ATTR_RDONLY), plan.MountAttrSize)
	}
	fs := b.Call(unix.SYS_FSOPEN, "tmpfs", unix.FSOPEN_CLOEXEC)
	b.Call(unix.SYS_FSCONFIG, fs, unix.FSCONFIG_CMD_CREATE, 0, 0, 0)
	mnt := b.Call(unix.SYS_FSMOUNT, fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
	b.Call(unix.SYS_MOVE_MOUNT, mnt, "", unix.AT_FDCWD, "/proc", unix.MOVE_MOUNT_F_EMPTY_PATH)
	b.Call(unix.SYS_FCHDIR, mnt)
	b.Call(unix.SYS_PIVOT_ROOT, ".", ".")
	b.CallTolerating(unix.EINVAL, unix.SYS_UNSHARE, unix.CLONE_NEWTIME) // a kernel can be built without
	return b.Steps.Calls()
}

// makePrivate comes first: nothing that is mounted in a probe may reach the host, whatever propagation it has
// there.
func makePrivate(b *plan.Builder) {
	b.Call(unix.SYS_MOUNT, 0, "/", 0, unix.MS_REC|unix.MS_PRIVATE, 0)
}

func mountProbe(b *plan.Builder, m rootfs.Mount, target string) {
	b.Call(unix.SYS_MOUNT, m.Type, target, m.Type, int(m.Flags), m.Data)
}

// probeMount mounts one file system that the kernel makes, as pods do.
func probeMount(m rootfs.Mount) []nsenter.Call {
	b := &plan.Builder{}
	makePrivate(b)
	mountProbe(b, m, "/proc")
	return b.Steps.Calls()
}

// probeOverlay mounts an overlay whose folders all lie on one tmpfs. Its marks are user xattrs where the
// kernel gives no others, that is in a user namespace: option userxattr, Linux 5.11.
func probeOverlay(userns bool) []nsenter.Call {
	b := &plan.Builder{}
	makePrivate(b)
	mountProbe(b, rootfs.Shm, "/proc")
	for _, dir := range []string{"lower", "upper", "work", "merged"} {
		b.Call(unix.SYS_MKDIRAT, unix.AT_FDCWD, "/proc/"+dir, 0o700)
	}
	data := "lowerdir=/proc/lower,upperdir=/proc/upper,workdir=/proc/work"
	if userns {
		data += ",userxattr"
	}
	mountProbe(b, rootfs.Mount{Type: "overlay", Flags: unix.MS_NODEV, Data: data}, "/proc/merged")
	return b.Steps.Calls()
}

// probeUserXattr does to a tmpfs what an overlay in a user namespace does to its upper folder (Linux 6.6).
func probeUserXattr() []nsenter.Call {
	b := &plan.Builder{}
	makePrivate(b)
	mountProbe(b, rootfs.Shm, "/proc")
	b.Call(unix.SYS_SETXATTR, "/proc", "user.overlay.opaque", "y", 1, 0)
	return b.Steps.Calls()
}
