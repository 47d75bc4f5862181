package plan

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/nsenter"
	"github.com/podsh/podsh/sandbox/fault"
)

// CallName is callName, and what is mounted, where that was said by an earlier call: "fsmount proc".
func (plan Plan) CallName(call nsenter.Call) string {
	return strings.TrimSpace(CallName(call) + " " + plan.mounted(call))
}

// CallKey is what hintsFor knows a call by. It takes those that have the kernel make a file system for one mount(2).
func (plan Plan) CallKey(call nsenter.Call, errno unix.Errno) string {
	if kind := plan.mounted(call); kind != "" && errno != unix.ENOSYS {
		return "mount " + kind
	}
	return CallKey(call)
}

// mounted is the type of the file system that a call of fsconfig(2) or fsmount(2) is about.
func (plan Plan) mounted(call nsenter.Call) string {
	if call.Nr != unix.SYS_FSCONFIG && call.Nr != unix.SYS_FSMOUNT {
		return ""
	}
	place, ok := call.Args[0].(nsenter.Result)
	if !ok {
		return ""
	}
	opened, _, _ := plan.At(int(place))
	return TextAt(opened.Call, 0)
}

// CallKey is what hintsFor knows a call by: "mount proc", or the name of the system call.
func CallKey(call nsenter.Call) string {
	name := CallNames[call.Nr]
	if call.Nr == unix.SYS_MOUNT {
		if kind, ok := call.Args[2].(string); ok {
			return name + " " + kind
		}
	}
	return name
}

// Side says who performs a step.
type Side string

const (
	Host   Side = "host" // podsh, where the user is
	Inside Side = "pod"  // the executor, in the new namespaces
)

// Step is one thing podsh does to the system, and how a person would do it by hand. A step of the pod's side
// is one system call; one of the host's side is a function in hostCalls.
//
// A step without Why belongs to the one before it: it takes more than one call to do what that one says.
type Step struct {
	Side Side
	Call nsenter.Call // pod
	Host string       // host: key into hostCalls
	Why  string       // "give the pod its own host name"
	Cmd  string       // "hostname web": the same by hand, in sh; $HOLDER is its pid, $root where the root is built
	Man  string       // "uts_namespaces(7)"
	Role role         // what the script must know about Cmd
	Need string       // a hint for where a name that somebody gave means nothing in the pod: by hand that is no better
}

// role of a command in the script: most are simply run where the step is.
type role int

const (
	plain  role = iota
	start       // starts the holder: all that follows on the pod's side runs in it
	become      // replaces the shell in the holder by one with other ids
	last        // replaces the shell in the holder by the pause program
	Folder      // goes to the folder where the command starts, which is run as any other
)

// Plan is all that podsh does to make or enter a pod, in this order.
type Plan []Step

// CallNames are the system calls that plans use.
var CallNames = map[int]string{
	nsenter.Clone: "clone", nsenter.Exec: "execve", nsenter.Pause: "pause", nsenter.Init: "fork", nsenter.Getcwd: "getcwd", nsenter.Getpid: "getpid", nsenter.Report: "report", nsenter.Nulls: "openat2",
	unix.SYS_CAPSET: "capset", unix.SYS_CHDIR: "chdir", unix.SYS_CLOSE: "close",
	unix.SYS_CLOSE_RANGE: "close_range", unix.SYS_DUP3: "dup3", unix.SYS_EXECVEAT: "execveat",
	unix.SYS_FCHDIR: "fchdir", unix.SYS_FCHMOD: "fchmod", unix.SYS_FCHOWN: "fchown", unix.SYS_FCHOWNAT: "fchownat", unix.SYS_FCNTL: "fcntl", unix.SYS_FCHMODAT: "fchmodat", unix.SYS_FSCONFIG: "fsconfig", unix.SYS_FSMOUNT: "fsmount",
	unix.SYS_FSOPEN: "fsopen", unix.SYS_IOCTL: "ioctl", unix.SYS_KEYCTL: "keyctl", unix.SYS_MKDIRAT: "mkdirat",
	unix.SYS_MKNODAT: "mknodat", unix.SYS_MOUNT: "mount", unix.SYS_MOUNT_SETATTR: "mount_setattr",
	unix.SYS_MOVE_MOUNT: "move_mount", unix.SYS_OPENAT: "openat", unix.SYS_OPENAT2: "openat2",
	unix.SYS_OPEN_TREE: "open_tree", unix.SYS_PIVOT_ROOT: "pivot_root", unix.SYS_PRCTL: "prctl", unix.SYS_PRLIMIT64: "prlimit",
	unix.SYS_RECVMSG: "recvmsg", unix.SYS_RT_SIGACTION: "rt_sigaction", unix.SYS_RT_SIGPROCMASK: "rt_sigprocmask", unix.SYS_SENDMSG: "sendmsg", unix.SYS_SENDTO: "sendto", unix.SYS_SETGROUPS: "setgroups",
	unix.SYS_SETHOSTNAME: "sethostname", unix.SYS_SETNS: "setns", unix.SYS_SETRESGID: "setresgid",
	unix.SYS_SETRESUID: "setresuid", unix.SYS_SETSID: "setsid", unix.SYS_SOCKET: "socket",
	unix.SYS_SYMLINKAT: "symlinkat", unix.SYS_UMASK: "umask", unix.SYS_UNLINKAT: "unlinkat", unix.SYS_UMOUNT2: "umount2",
	unix.SYS_UNSHARE: "unshare", unix.SYS_WRITE: "write",
}

// CallName is a system call and, where it helps, what it was applied to: "mount proc on /proc".
func CallName(call nsenter.Call) string {
	name := CallNames[call.Nr]
	if name == "" {
		name = fmt.Sprintf("system call %d", call.Nr)
	}
	text := func(i int) string { return TextAt(call, i) }
	if call.Nr == unix.SYS_MOUNT && text(2) != "" {
		return fmt.Sprintf("mount %s on %s", text(2), text(1))
	}
	var objects []string
	for i := range call.Args {
		if s := text(i); s != "" && s != "." && len(s) < 256 {
			objects = append(objects, s)
		}
	}
	return strings.TrimSpace(name + " " + strings.Join(objects, " "))
}

// TextAt is an argument that is a string, else nothing.
func TextAt(call nsenter.Call, i int) string {
	if i < len(call.Args) {
		if s, ok := call.Args[i].(string); ok {
			return s
		}
	}
	return ""
}

// FirstText is the first argument of a call that is a string.
func FirstText(call nsenter.Call) string {
	for i := range call.Args {
		if s := TextAt(call, i); s != "" {
			return s
		}
	}
	return ""
}

// String shows a call much as strace(1) would.
func ShowCall(call nsenter.Call) string {
	var args []string
	for _, arg := range call.Args {
		args = append(args, showArg(arg))
	}
	return CallNames[call.Nr] + "(" + strings.Join(args, ", ") + ")"
}

func showArg(arg any) string {
	switch a := arg.(type) {
	case string:
		return fmt.Sprintf("%q", a)
	case []byte:
		return fmt.Sprintf("%q", string(a))
	case nsenter.Result:
		return fmt.Sprintf("<%d>", int(a))
	case nsenter.At:
		return fmt.Sprintf("&%q[%d]", string(a.Buffer.Bytes), a.Offset)
	case nsenter.Words:
		var words []string
		for _, word := range a {
			words = append(words, showArg(word))
		}
		return "[" + strings.Join(words, ", ") + "]"
	case int:
		if a > 9 || a < -1 {
			return fmt.Sprintf("%#x", uint64(a))
		}
		return fmt.Sprint(a)
	}
	return fmt.Sprintf("%#x", arg)
}

// Calls returns the calls of the pod's side, in order.
func (p Plan) Calls() []nsenter.Call {
	var calls []nsenter.Call
	for _, step := range p {
		if step.Side == Inside {
			calls = append(calls, step.Call)
		}
	}
	return calls
}

// At finds the step whose call stands at place among the pod's, and the step that says why.
func (p Plan) At(place int) (step, why Step, ok bool) {
	n := 0
	for _, s := range p {
		if s.Why != "" {
			why = s
		}
		if s.Side != Inside {
			continue
		}
		if n == place {
			return s, why, true
		}
		n++
	}
	return Step{}, Step{}, false
}

// Builder collects the steps of a plan.
type Builder struct {
	Steps Plan
	Calls int
	head  Step // what is said of the next step
}

// Explain says why the next call is made, and how to do the same by hand.
func (b *Builder) Explain(why, man, cmd string) {
	b.head = Step{Why: why, Man: man, Cmd: cmd}
}

// explainNeeding is explain, for what fails where a name that somebody gave means nothing in the pod.
func (b *Builder) explainNeeding(need, why, man, cmd string) {
	b.Explain(why, man, cmd)
	b.head.Need = need
}

// Call adds a system call on the pod's side; its result can be an argument of later ones.
func (b *Builder) Call(nr int, args ...any) nsenter.Result {
	return b.CallTolerating(0, nr, args...)
}

// CallTolerating adds a call that may fail with one errno.
func (b *Builder) CallTolerating(errno unix.Errno, nr int, args ...any) nsenter.Result {
	step := b.head
	b.head = Step{}
	step.Side, step.Call = Inside, nsenter.Call{Nr: nr, Args: args, Tolerate: errno}
	b.Steps = append(b.Steps, step)
	b.Calls++
	return nsenter.Result(b.Calls - 1)
}

// host adds a step on the host's side.
func (b *Builder) host(key string) {
	step := b.head
	b.head = Step{}
	step.Side, step.Host = Host, key
	b.Steps = append(b.Steps, step)
}

// enterFolder goes to a folder of the pod's, as it is seen from the root that this process has; it need not be there where
// ENOENT is tolerated. No link that proc(5) makes is followed on the way: it could lead to whatever this process has open.
func (b *Builder) enterFolder(dir string, tolerate unix.Errno) {
	b.Explain("go to the folder where it starts", "openat2(2)", "cd "+Quote(dir))
	b.head.Role = Folder
	fd := b.CallTolerating(tolerate, unix.SYS_OPENAT2, unix.AT_FDCWD, dir, openHow(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, unix.RESOLVE_NO_MAGICLINKS), openHowSize)
	var notOpen unix.Errno
	if tolerate != 0 {
		notOpen = unix.EBADF
	}
	b.CallTolerating(notOpen, unix.SYS_FCHDIR, fd)
	b.Call(nsenter.Getcwd)
	b.CallTolerating(notOpen, unix.SYS_CLOSE, fd)
}

// FolderFailed says why the folder where a command starts can't be that.
func FolderFailed(dir string, errno unix.Errno, hint string) error {
	switch errno {
	case unix.ELOOP:
		return fault.New(nil, []string{hint}, "folder %q: it leads through a link of /proc, or through links without end, which is not followed", dir)
	case unix.EXDEV:
		return fault.New(nil, []string{hint}, "folder %q: it leads out of the root file system", dir)
	}
	return fault.New(nil, []string{hint}, "folder %q: %v", dir, errno)
}

// CloseOnExec leaves nothing open for the program that comes but 0, 1 and 2: what the executor was given, up to last, goes
// with the exec, so that a failure of it can still be told, and all behind that at once. CLOSE_RANGE_CLOEXEC, which would
// do it in one call, came with Linux 5.11.
func (b *Builder) CloseOnExec(last int, keep ...int) {
	b.Call(unix.SYS_CLOSE_RANGE, last+1, AllFDs, 0)
	for fd := nsenter.PlanFD; fd <= last; fd++ {
		if slices.Contains(keep, fd) {
			continue
		}
		b.CallTolerating(unix.EBADF, unix.SYS_FCNTL, fd, unix.F_SETFD, unix.FD_CLOEXEC)
	}
}
