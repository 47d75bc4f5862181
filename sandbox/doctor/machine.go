package doctor

import (
	"io/fs"
	"math"
	"os"
	"os/user"
	"strconv"
	"strings"
	"syscall"

	"github.com/moby/sys/capability"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/nsenter"
	"github.com/podsh/podsh/sandbox/ids"
	"github.com/podsh/podsh/sandbox/plan"
	"github.com/podsh/podsh/sandbox/step"
)

// machine is what checks ask. It reads nothing before it is asked, and tests put a made-up one in its place.
type machine struct {
	files      fs.FS
	uid, gid   int
	name       string                                                          // of the user, or the uid as text: subuid(5) takes both
	exe        string                                                          // podsh's own path
	runtimeDir string                                                          // $XDG_RUNTIME_DIR
	has        func(program string) string                                     // its path, or ""
	privileged func(path string) bool                                          // setuid root, or with file capabilities
	reaches    func(call string) bool                                          // does it get as far as the kernel?
	try        func(flags int, calls ...nsenter.Call) (call string, err error) // performs calls in new namespaces
	sealed     func() error                                                    // makes a program in memory
	tryMap     func(uids, gids []ids.Map) (said string, err error)             // has newuidmap and newgidmap map ids
}

// ThisMachine reads the one that podsh runs on. Each look is taken when a check asks for it.
func ThisMachine() machine {
	exe, _ := os.Executable()
	m := machine{
		files: os.DirFS("/"), uid: os.Geteuid(), gid: os.Getegid(), name: strconv.Itoa(os.Geteuid()), exe: exe,
		runtimeDir: os.Getenv("XDG_RUNTIME_DIR"),
		has:        func(program string) string { path, _ := ProgramPath(program); return path },
		privileged: isPrivileged,
		reaches:    reaches,
	}
	if u, err := user.LookupId(m.name); err == nil {
		m.name = u.Username
	}
	m.try = func(flags int, calls ...nsenter.Call) (string, error) { return try(m.userns()|flags, calls) }
	m.tryMap = tryMap
	m.sealed = func() error {
		program, err := nsenter.Sealed("podsh", strings.NewReader(""))
		if err == nil {
			program.Close()
		}
		return err
	}
	return m
}

// text is a file without the white space around it, or "".
func (m machine) text(path string) string {
	text, _ := fs.ReadFile(m.files, strings.TrimPrefix(path, "/"))
	return strings.TrimSpace(string(text))
}

func (m machine) exists(path string) bool {
	_, err := fs.Lstat(m.files, strings.TrimPrefix(path, "/"))
	return err == nil
}

func (m machine) sysctl(name string) string {
	return m.text("/proc/sys/" + strings.ReplaceAll(name, ".", "/"))
}

// number reads a count; "max", or no file, is as good as endless.
func (m machine) number(path string) int {
	n, err := strconv.Atoi(m.text(path))
	if err != nil {
		return math.MaxInt
	}
	return n
}

// field finds the line of a file that begins with name, and returns what comes behind it.
func (m machine) field(path, name string) string {
	for line := range strings.Lines(m.text(path)) {
		if rest, ok := strings.CutPrefix(strings.TrimLeft(line, " "), name); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

func (m machine) status(name string) string { return m.field("/proc/self/status", name+":") }

func (m machine) capable(c capability.Cap) bool {
	set, _ := strconv.ParseUint(m.status("CapEff"), 16, 64)
	return set>>c&1 == 1
}

// Root says whether podsh makes pods without a user namespace here.
func (m machine) Root() bool { return m.uid == 0 && m.capable(capability.CAP_SYS_ADMIN) }

// nested says whether this is a user namespace in which not all ids are mapped.
func (m machine) nested() bool {
	return !strings.HasSuffix(m.text("/proc/self/uid_map"), " 4294967295")
}

// Initial says whether this is the machine's first user namespace; its number is fixed, PROC_USER_INIT_INO.
func (m machine) Initial() bool {
	link, _ := fs.ReadLink(m.files, "proc/self/ns/user")
	return link == "user:[4026531837]"
}

// runtime is the folder that systemd-logind gives a user for as long as he is logged in.
func (m machine) runtime() string {
	if m.runtimeDir != "" {
		return m.runtimeDir
	}
	return "/run/user/" + strconv.Itoa(m.uid)
}

func (m machine) userns() int {
	if m.Root() {
		return 0
	}
	return unix.CLONE_NEWUSER
}

func (m machine) kernel() (v plan.Version) {
	parts := strings.FieldsFunc(m.sysctl("kernel.osrelease"), func(r rune) bool { return r < '0' || r > '9' })
	if len(parts) > 1 {
		v.Major, _ = strconv.Atoi(parts[0])
		v.Minor, _ = strconv.Atoi(parts[1])
	}
	return v
}

func (m machine) mounts() []*mountinfo.Info {
	mounts, _ := mountinfo.GetMountsFromReader(strings.NewReader(m.text("/proc/self/mountinfo")), nil)
	return mounts
}

// asRoot makes a command one that root performs, whoever types it; "" where only root of the outside could.
func (m machine) asRoot(command string) string {
	switch {
	case m.uid == 0 && !m.Initial():
		return ""
	case m.uid == 0:
		return command
	case m.has("sudo") == "":
		return "su - -c " + step.Quote(command) // without the dash, PATH lacks /usr/sbin
	case strings.ContainsAny(command, "|&;><"):
		return "sudo sh -c " + step.Quote(command)
	}
	return "sudo " + command
}

func isPrivileged(path string) bool {
	var st unix.Stat_t
	if unix.Stat(path, &st) == nil && st.Mode&unix.S_ISUID != 0 && st.Uid == 0 {
		return true
	}
	n, err := unix.Getxattr(path, "security.capability", nil)
	return err == nil && n > 0
}

// harmless are system calls with arguments that the kernel always refuses, and with which errno. Another one
// comes from a filter that stands before the kernel: seccomp(2).
var harmless = map[string]struct {
	nr    uintptr
	args  [3]uintptr
	errno syscall.Errno
}{
	"unshare":       {unix.SYS_UNSHARE, [3]uintptr{unix.CLONE_NEWUSER | unix.CLONE_PTRACE}, unix.EINVAL}, // no flag of unshare(2)
	"mount":         {unix.SYS_MOUNT, [3]uintptr{0, 1, 0}, unix.EFAULT},
	"open_tree":     {unix.SYS_OPEN_TREE, [3]uintptr{0, 0, 1 << 30}, unix.EINVAL},
	"mount_setattr": {unix.SYS_MOUNT_SETATTR, [3]uintptr{0, 0, 1 << 30}, unix.EINVAL},
	"setns":         {unix.SYS_SETNS, [3]uintptr{^uintptr(0), 0, 0}, unix.EBADF},
	"keyctl":        {unix.SYS_KEYCTL, [3]uintptr{1 << 30, 0, 0}, unix.EOPNOTSUPP},
	"close_range":   {unix.SYS_CLOSE_RANGE, [3]uintptr{2, 1, 0}, unix.EINVAL},
	"openat2":       {unix.SYS_OPENAT2, [3]uintptr{0, 0, 0}, unix.EINVAL},
	"pidfd_open":    {unix.SYS_PIDFD_OPEN, [3]uintptr{^uintptr(0), 0, 0}, unix.EINVAL},
}

func reaches(call string) bool {
	h := harmless[call]
	_, _, errno := unix.RawSyscall6(h.nr, h.args[0], h.args[1], h.args[2], 0, 0, 0)
	return errno == h.errno
}
