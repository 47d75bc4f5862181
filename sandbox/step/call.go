package step

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/nsenter"
)

// CallName is CallName of the call, and what is mounted, where that was said by an earlier call: "fsmount proc".
func (plan Plan) CallName(call nsenter.Call) string {
	return strings.TrimSpace(CallName(call) + " " + plan.mounted(call))
}

// CallKey is what doctor.HintsFor knows a call by. It takes those that have the kernel make a file system for one mount(2).
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

// CallKey is what doctor.HintsFor knows a call by: "mount proc", or the name of the system call.
func CallKey(call nsenter.Call) string {
	name := CallNames[call.Nr]
	if call.Nr == unix.SYS_MOUNT {
		if kind, ok := call.Args[2].(string); ok {
			return name + " " + kind
		}
	}
	return name
}

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
