package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/nsenter"
)

// upperDir is where a pod's writes go on a kernel whose tmpfs can't carry an overlay for an ordinary user
// (it has user xattrs since Linux 6.6); "" where they go to a tmpfs, and end with the pod.
func upperDir(pod *Pod, f *Facts) string {
	root := pod.Spec.Rootfs
	if !pod.own("mnt") || root.Kind != "dir" || root.Mode != "overlay" || pod.Namespaces["user"].Kind == "host" || f.Kernel.atLeast(6, 6) {
		return ""
	}
	return filepath.Join(f.Data, "podsh", "upper", pod.ID)
}

// removeUpper removes what a pod wrote to disk. Its files belong to ids of the pod's, and without root they
// can only be removed where those mean something: in a user namespace with the pod's own maps.
func (p *Pod) removeUpper() error {
	if p.Upper == "" {
		return nil
	}
	err := os.RemoveAll(p.Upper)
	if !errors.Is(err, fs.ErrPermission) || os.Geteuid() == 0 {
		return err
	}
	if err := p.removeInside(); err != nil {
		return fmt.Errorf("remove %s: %w", p.Upper, err)
	}
	if exists(p.Upper) {
		return fail(nil, []string{"is a file in it immutable, or a mount point? lsattr and findmnt tell"}, "%s could not be removed", p.Upper)
	}
	return nil
}

// removeInside runs rm(1) on the upper folder in a user namespace like the pod's, which has ended.
func (p *Pod) removeInside() error {
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
	if err := p.writeMaps(executor.PID, true); err != nil {
		return err
	}
	b := &builder{}
	if _, root := mapID(p.UIDMap, 0, true); root {
		b.call(unix.SYS_SETRESGID, 0, 0, 0)
		b.call(unix.SYS_SETRESUID, 0, 0, 0)
	}
	b.call(nsenter.Exec, nsenter.Strings([]string{"rm", "-rf", "--", p.Upper}),
		nsenter.Strings([]string{"PATH=" + defaultPath}), nsenter.Strings(strings.Split(defaultPath, ":")))
	if err := executor.Send(b.steps.calls(), 0); err != nil {
		return err
	}
	return executor.Ended()
}
