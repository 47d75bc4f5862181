package sandbox

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/nsenter"
)

// pathArgs says which arguments of a call are paths that the kernel walks.
var pathArgs = map[int][]int{
	unix.SYS_CHDIR: {0}, unix.SYS_CHROOT: {0}, unix.SYS_PIVOT_ROOT: {0, 1}, unix.SYS_UMOUNT2: {0}, unix.SYS_MOUNT: {0, 1},
	unix.SYS_OPENAT: {1}, unix.SYS_OPENAT2: {1}, unix.SYS_OPEN_TREE: {1}, unix.SYS_MOVE_MOUNT: {1, 3}, unix.SYS_MOUNT_SETATTR: {1},
	unix.SYS_MKDIRAT: {1}, unix.SYS_MKNODAT: {1}, unix.SYS_SYMLINKAT: {2}, unix.SYS_UNLINKAT: {1}, unix.SYS_FCHOWNAT: {1}, unix.SYS_FCHMODAT: {1},
	unix.SYS_EXECVEAT: {1},
}

// opening are the calls whose result is a descriptor that a path can lead through.
var opening = []int{unix.SYS_OPENAT, unix.SYS_OPENAT2, unix.SYS_OPEN_TREE, unix.SYS_FSMOUNT}

// TestNamesOfThePodAreWalkedAlone: from where the pod's root is the only one, no call walks a path through links that
// proc(5) makes, and none walks any while something is open that was opened before: CVE-2024-21626.
func TestNamesOfThePodAreWalkedAlone(t *testing.T) {
	for name, plan := range examplePlans(t) {
		inside, walks := false, 0
		open := map[nsenter.Result]bool{}
		for i, call := range plan.calls() {
			for _, arg := range pathArgs[call.Nr] {
				path := textAt(call, arg)
				if !inside || path == "" || path == "." || path == "/" {
					continue
				}
				walks++
				if call.Nr != unix.SYS_OPENAT2 || !noMagicLinks(call) {
					t.Errorf("%s: %s walks a path of the pod's plainly", name, showCall(call))
				}
				if len(open) > 0 {
					t.Errorf("%s: %s walks a path of the pod's, and what these have opened is still open: %v", name, showCall(call), open)
				}
			}
			switch {
			case call.Nr == nsenter.Exec && len(open) > 0:
				t.Errorf("%s: a program is looked for while these are open: %v", name, open)
			case slices.Contains(opening, call.Nr):
				open[nsenter.Result(i)] = true
			case call.Nr == unix.SYS_CLOSE:
				if fd, ok := call.Args[0].(nsenter.Result); ok {
					delete(open, fd)
				}
			case call.Nr == unix.SYS_CLOSE_RANGE && call.Args[1] == allFDs: // all that a plan keeps stands below
				clear(open)
			case call.Nr == unix.SYS_UMOUNT2, joinsMounts(call): // the host's root is gone
				inside = true
			}
		}
		if name != "join-only" && !inside || strings.HasPrefix(name, "run-") && walks == 0 {
			t.Errorf("%s: there was nothing to look at", name)
		}
	}
}

// joinsMounts says whether a call makes the root of a pod's mount namespace that of this process, setns(2).
func joinsMounts(call nsenter.Call) bool {
	if call.Nr != unix.SYS_SETNS || call.Args[0] != nsenter.PodFD {
		return false
	}
	flags, ok := call.Args[1].(int)
	return ok && flags&unix.CLONE_NEWNS != 0
}

// noMagicLinks says whether an openat2(2) goes through no link of proc(5)'s.
func noMagicLinks(call nsenter.Call) bool {
	how, ok := call.Args[2].([]byte)
	return ok && native.Uint64(how[16:])&(unix.RESOLVE_NO_MAGICLINKS|unix.RESOLVE_NO_SYMLINKS) != 0
}
