package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/nsenter"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/files"
	"github.com/podsh/podsh/sandbox/ids"
	"github.com/podsh/podsh/sandbox/perform"
	"github.com/podsh/podsh/sandbox/plan"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/store"
)

// UpperDir is where a pod's writes go on a kernel whose tmpfs can't carry an overlay for an ordinary user
// (it has user xattrs since Linux 6.6); "" where they go to a tmpfs, and end with the pod.
func UpperDir(pod *pod.Pod, f *plan.Facts) string {
	root := pod.Spec.Rootfs
	if !pod.Own("mnt") || !root.IsFolder() || root.Mode != "overlay" || pod.Namespaces["user"].Kind == "host" || f.Kernel.AtLeast(6, 6) {
		return ""
	}
	return filepath.Join(f.Data, "podsh", "upper", pod.ID)
}

// SweepUppers removes the folders that have lost their pods, as far as this pod's ids reach. Those with what a container
// wrote stay.
func SweepUppers(p *pod.Pod, all string) {
	entries, _ := os.ReadDir(all) // it is there
	for _, entry := range entries {
		dir := filepath.Join(all, entry.Name())
		lock, err := files.LockFolder(dir, unix.LOCK_EX|unix.LOCK_NB)
		if err != nil {
			continue // in the making
		}
		if !files.Exists(filepath.Join(dir, "pod")) {
			_ = os.Remove(dir) // if it is empty, create was killed right here; else it is a script's
		} else if store.LeftIn(dir) == store.LeftBare {
			_ = removeTree(p, dir) // the next create tries again
		}
		lock.Close()
	}
}

// RemoveUpper removes what a pod wrote to disk. Its files belong to ids of the pod's, and without root they
// can only be removed where those mean something: in a user namespace with the pod's own maps.
func RemoveUpper(p *pod.Pod) error {
	if p.Upper == "" {
		return nil
	}
	err := removeAll(p.Upper)
	if !errors.Is(err, fs.ErrPermission) || os.Geteuid() == 0 {
		return err
	}
	if err := removeInside(p); err != nil {
		return fmt.Errorf("remove %s: %w", p.Upper, err)
	}
	if files.Exists(p.Upper) {
		return fault.New(nil, []string{"is a file in it immutable, or a mount point? lsattr and findmnt tell"}, "%s could not be removed", p.Upper)
	}
	return nil
}

// removeInside removes the upper folder in a user namespace like the pod's, which has ended. podsh itself does so, as
// podsh@remove: a process that got away from a container may still exchange names in there, and not every rm(1) can be
// trusted to go through no link then.
func removeInside(p *pod.Pod) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	last, err := capability.LastCap()
	if err != nil {
		return err
	}
	attr := &syscall.SysProcAttr{Setsid: true, Cloneflags: unix.CLONE_NEWUSER}
	for c := capability.Cap(0); c <= last; c++ {
		attr.AmbientCaps = append(attr.AmbientCaps, uintptr(c)) // they last through the execs, capabilities(7)
	}
	executor, err := nsenter.Start("/proc/self/exe", null, nil, attr)
	if err != nil {
		return err
	}
	defer executor.Kill()
	if err := perform.WriteMaps(p, executor.PID, true); err != nil {
		return err
	}
	b := &plan.Builder{}
	if _, root := ids.Translate(p.UIDMap, 0, true); root {
		b.Call(unix.SYS_SETRESGID, 0, 0, 0)
		b.Call(unix.SYS_SETRESUID, 0, 0, 0)
	}
	b.Call(unix.SYS_EXECVEAT, unix.AT_FDCWD, "/proc/self/exe", nsenter.Strings([]string{RemoveName, p.Upper}), nsenter.Strings(nil), 0)
	if err := executor.Send(b.Steps.Calls(), 0); err != nil {
		return err
	}
	return executor.Ended()
}

// RemoveName is the argv[0] of who removes; the folder stands behind.
const RemoveName = "podsh@remove"

// RemoveMain is its main function. There is nobody to tell anything: who started it looks whether the folder is gone.
func RemoveMain(args []string) int {
	if len(args) != 2 || removeAll(args[1]) != nil {
		return 1
	}
	return 0
}
