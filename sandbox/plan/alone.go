package plan

import (
	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/sandbox/ids"
	"github.com/podsh/podsh/sandbox/pod"
)

// BeAlone makes the folder where the program stands its root, and lets go of the old one, which after pivot_root(2) lies
// on the new; then it keeps no capabilities but some.
func (b *Builder) BeAlone(last capability.Cap, keep []capability.Cap) {
	b.Explain("have nothing but the folder, and no capability that the work on files does not take", "capabilities(7)", "")
	b.Call(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	b.Call(unix.SYS_PIVOT_ROOT, ".", ".")
	b.Call(unix.SYS_UMOUNT2, ".", unix.MNT_DETACH)
	b.Call(unix.SYS_CHDIR, "/")
	b.dropBounding(keep, last)
	b.Call(unix.SYS_CAPSET, CapabilityHeader(), CapabilityData(keep, keep, nil))
}

// BeRoot makes the executor the pod's root, as a program of ours is to be that works on its files: it ends with podsh, and
// gains nothing by what it executes.
func (b *Builder) BeRoot(p *pod.Pod) {
	if _, root := ids.Translate(p.UIDMap, 0, true); root {
		if !p.KeepGroups {
			b.CallTolerating(setgroupsDenied(p), unix.SYS_SETGROUPS, 0, 0)
		}
		b.Call(unix.SYS_SETRESGID, 0, 0, 0)
		b.Call(unix.SYS_SETRESUID, 0, 0, 0)
	}
	b.Call(unix.SYS_UMASK, 0)
	b.Call(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, int(unix.SIGKILL), 0, 0, 0)
	b.Call(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	b.Call(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, make([]byte, sigsetSize), 0, sigsetSize)
}
