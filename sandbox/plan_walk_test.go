package sandbox

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/nsenter"
	"github.com/podsh/podsh/rootfs"
	"github.com/podsh/podsh/sandbox/plan"
	"github.com/podsh/podsh/sandbox/step"
)

// pathArgs says which arguments of a call are paths that the kernel walks.
var pathArgs = map[int][]int{
	unix.SYS_CHDIR: {0}, unix.SYS_CHROOT: {0}, unix.SYS_PIVOT_ROOT: {0, 1}, unix.SYS_UMOUNT2: {0}, unix.SYS_MOUNT: {0, 1},
	unix.SYS_OPENAT: {1}, unix.SYS_OPENAT2: {1}, unix.SYS_OPEN_TREE: {1}, unix.SYS_MOVE_MOUNT: {1, 3}, unix.SYS_MOUNT_SETATTR: {1},
	unix.SYS_MKDIRAT: {1}, unix.SYS_MKNODAT: {1}, unix.SYS_SYMLINKAT: {2}, unix.SYS_UNLINKAT: {1}, unix.SYS_FCHOWNAT: {1}, unix.SYS_FCHMODAT: {1},
	unix.SYS_EXECVEAT: {1},
}

// noPaths are the calls that take text in which there is no path. Whatever else takes some is in pathArgs, or refused.
var noPaths = map[int]bool{
	unix.SYS_FSOPEN: true, unix.SYS_FSCONFIG: true, unix.SYS_KEYCTL: true, unix.SYS_SETHOSTNAME: true, unix.SYS_WRITE: true, unix.SYS_PRCTL: true,
}

// madeUp are the file systems that the kernel makes from nothing: no option of theirs is a path, as an overlay's are.
var madeUp = []string{"tmpfs", "proc", "sysfs", "cgroup2", "devpts", "mqueue"}

// walker follows a plan: which of what it has opened leads to the host, and whose names its paths are.
type walker struct {
	inside bool           // the pod's root is the only one
	own    bool           // the working directory is in memory that nobody else knows
	at     nsenter.Result // what that was opened as
	opened map[nsenter.Result]nsenter.Call
	host   map[nsenter.Result]bool // open, and not for the pod
	calls  []nsenter.Call
}

// TestNamesOfThePodAreWalkedAlone: a path of the pod's is walked only when nothing of the host's is open, and never through
// a link that proc(5) makes. CVE-2024-21626 is what happens otherwise, CVE-2025-52881 what happens to names that are
// walked twice.
func TestNamesOfThePodAreWalkedAlone(t *testing.T) {
	for name, steps := range examplePlans(t) {
		w := &walker{opened: map[nsenter.Result]nsenter.Call{}, host: map[nsenter.Result]bool{}, calls: steps.Calls()}
		walks := 0
		for i, call := range w.calls {
			if _, known := pathArgs[call.Nr]; !known && step.FirstText(call) != "" && !noPaths[call.Nr] ||
				call.Nr == unix.SYS_FSOPEN && !slices.Contains(madeUp, step.TextAt(call, 0)) {
				t.Errorf("%s: %s: nothing is known of its paths", name, step.ShowCall(call))
			}
			for _, arg := range pathArgs[call.Nr] {
				path := step.TextAt(call, arg)
				if path == "" || path == "." || path == "/" {
					continue
				}
				if w.inside {
					walks++
				}
				if why := w.refuses(call, arg, path); why != "" {
					t.Errorf("%s: %s: %s", name, step.ShowCall(call), why)
				}
			}
			if call.Nr == nsenter.Exec && len(w.opened) > 0 {
				t.Errorf("%s: a program is looked for while these are open: %v", name, w.opened)
			}
			w.follow(nsenter.Result(i), call)
		}
		if name != "join-only" && !w.inside || !strings.HasPrefix(name, "join-") && walks == 0 {
			t.Errorf("%s: there was nothing to look at", name)
		}
	}
}

// refuses says why a path may not be walked here.
func (w *walker) refuses(call nsenter.Call, arg int, path string) string {
	component := !strings.Contains(path, "/") && path != ".."
	_, ofOurs := w.ours(call, arg)
	switch {
	case !w.inside && strings.HasPrefix(path, "/"): // the host's, as the user meant it
		return ""
	case !w.inside && (w.own || ofOurs) && !strings.Contains(path, ".."):
		return ""
	case !w.inside:
		return "before pivot_root this is no path of the host's, and none in memory of our own"
	case len(w.host) > 0:
		return fmt.Sprintf("it walks a path of the pod's, and these lead to the host: %v", w.host)
	case call.Nr == unix.SYS_OPENAT2 && noMagicLinks(call):
		return ""
	case call.Nr == unix.SYS_MKDIRAT || call.Nr == unix.SYS_MKNODAT || call.Nr == unix.SYS_SYMLINKAT || call.Nr == unix.SYS_UNLINKAT:
		if component { // which none of these follows
			return ""
		}
	case (call.Nr == unix.SYS_MOUNT || call.Nr == unix.SYS_MOUNT_SETATTR) && w.own && (component || strings.HasPrefix(path, "self/fd/")): // from our own /proc
		return ""
	}
	return "it walks a path of the pod's plainly"
}

// ours says whether the folder that a path is walked from is a mount that the plan has made itself.
func (w *walker) ours(call nsenter.Call, arg int) (nsenter.Result, bool) {
	if arg == 0 {
		return 0, false
	}
	fd, ok := call.Args[arg-1].(nsenter.Result)
	return fd, ok && w.opened[fd].Nr == unix.SYS_FSMOUNT
}

// follow takes in what a call has opened, closed and entered.
func (w *walker) follow(place nsenter.Result, call nsenter.Call) {
	switch call.Nr {
	case unix.SYS_OPENAT, unix.SYS_OPENAT2, unix.SYS_OPEN_TREE, unix.SYS_FSMOUNT:
		w.opened[place] = call
		w.host[place] = !w.inside && call.Nr == unix.SYS_OPENAT
		if !w.host[place] {
			delete(w.host, place)
		}
	case unix.SYS_MOVE_MOUNT:
		if dst := step.TextAt(call, 3); dst == "lower" || dst == "disk" { // below what the pod sees
			w.host[call.Args[0].(nsenter.Result)] = true
			w.host[w.at] = true // where it stands
		}
	case unix.SYS_DUP3:
		if fd, ok := call.Args[0].(nsenter.Result); ok && w.host[fd] {
			w.host[nsenter.Result(-call.Args[1].(int))] = true
		}
	case unix.SYS_CLOSE:
		if fd, ok := call.Args[0].(nsenter.Result); ok {
			delete(w.opened, fd)
			delete(w.host, fd)
		} else {
			delete(w.host, nsenter.Result(-call.Args[0].(int)))
		}
	case unix.SYS_CLOSE_RANGE:
		w.close(call)
	case unix.SYS_FCHDIR, unix.SYS_CHDIR:
		fd, ok := call.Args[0].(nsenter.Result)
		if ok {
			w.at = fd
		}
		w.own = ok && (w.opened[fd].Nr == unix.SYS_FSMOUNT || w.isProc(fd)) ||
			!w.inside && call.Args[0] == "/proc/self/fd" // where only our own descriptors have names
	case unix.SYS_UMOUNT2:
		w.inside = true
	case unix.SYS_SETNS:
		w.inside = w.inside || joinsMounts(call)
	}
}

// isProc says whether what is open is a copy of a /proc, the host's or the pod's: nobody exchanges names there. Of other
// copies one can't tell.
func (w *walker) isProc(fd nsenter.Result) bool {
	call := w.opened[fd]
	if call.Nr != unix.SYS_OPEN_TREE {
		return false
	}
	if at, ok := call.Args[0].(nsenter.Result); ok {
		call = w.calls[at]
	}
	return step.TextAt(call, 1) == rootfs.Proc.Target
}

// close follows a close_range(2): all that there is, since what is kept stands below, or copies at numbers that are known.
func (w *walker) close(call nsenter.Call) {
	if call.Args[1] == plan.AllFDs {
		clear(w.opened)
		clear(w.host)
		return
	}
	for fd := call.Args[0].(int); fd <= call.Args[1].(int); fd++ {
		delete(w.host, nsenter.Result(-fd))
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
	return ok && step.Native.Uint64(how[16:])&(unix.RESOLVE_NO_MAGICLINKS|unix.RESOLVE_NO_SYMLINKS) != 0
}

// TestOwnProcShowsWhoMounts: where mount(2) is called for a descriptor by way of the root's own /proc, as before Linux 5.12,
// that /proc must show the process that calls it: it has to be in the pid namespace that this shows.
func TestOwnProcShowsWhoMounts(t *testing.T) {
	seen := 0
	for name, steps := range examplePlans(t) {
		outside := false
		for _, call := range steps.Calls() {
			if call.Nr == unix.SYS_SETNS && call.Args[1] == unix.CLONE_NEWPID {
				outside = true // only what it clones is in there
			}
			if call.Nr == unix.SYS_MOUNT && strings.HasPrefix(step.TextAt(call, 1), "self/fd/") {
				seen++
				if outside {
					t.Fatalf("%s: %s", name, step.ShowCall(call))
				}
			}
		}
	}
	if seen == 0 {
		t.Error("no plan does so")
	}
}
