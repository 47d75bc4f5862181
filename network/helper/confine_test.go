package helper

import (
	"errors"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const confinedIn = "PODSH_TEST_CONFINED"

// again runs the test once more in a process of its own, which can be confined, and returns what it said.
func again(t *testing.T) (string, error) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), confinedIn+"="+t.TempDir())
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// confineNow confines the test's process as serve confines a helper.
func confineNow(t *testing.T) {
	t.Helper()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	if err := confine(); err != nil {
		t.Fatal(err)
	}
}

// holes are what a helper that was taken over would try. Every one of them works, or fails for another reason than
// EPERM, for a process of the same user without a filter: TestHolesAreOpen sees to that.
func holes(t *testing.T, dir string) map[string]func() error {
	file := filepath.Join(dir, "file")
	open, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	tcp, udp := socketOf(t, unix.SOCK_STREAM), socketOf(t, unix.SOCK_DGRAM)
	other, err := unix.PidfdOpen(os.Getpid(), 0) // which is harmless to signal
	if err != nil {
		t.Fatal(err)
	}
	name, err := unix.BytePtrFromString(file)
	if err != nil {
		t.Fatal(err)
	}
	at, fd := uintptr(unsafe.Pointer(name)), open.Fd()
	here := ^uintptr(99) // AT_FDCWD
	call := func(nr uintptr, args ...uintptr) func() error {
		return func() error {
			var a [6]uintptr
			copy(a[:], args)
			if _, _, errno := unix.Syscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5]); errno != 0 {
				return errno
			}
			return nil
		}
	}
	socket := func(family, kind, protocol int) func() error {
		return func() error {
			s, err := unix.Socket(family, kind, protocol)
			if err == nil {
				unix.Close(s)
			}
			return err
		}
	}
	option := func(level, option, value int) func() error {
		return func() error { return unix.SetsockoptInt(tcp, level, option, value) }
	}
	clone := func(flags uintptr) func() error { return func() error { return cloned(flags) } }
	self := os.Getpid()
	all := map[string]func() error{
		// files
		"write a file":              func() error { return os.WriteFile(file, nil, 0o600) },
		"make a file":               func() error { return os.WriteFile(file+"2", nil, 0o600) },
		"open to append":            func() error { return openAs(file, unix.O_WRONLY|unix.O_APPEND) },
		"open for both":             func() error { return openAs(file, unix.O_RDWR) },
		"truncate by openat":        func() error { return openAs(file, unix.O_TRUNC) },
		"a file without a name":     func() error { return openAs(dir, unix.O_TMPFILE|unix.O_RDWR) },
		"open as a mere place":      func() error { return openAs(dir, unix.O_PATH) },
		"openat2":                   func() error { return openat2(file) },
		"remove a file":             func() error { return unix.Unlinkat(unix.AT_FDCWD, file, 0) },
		"make a folder":             func() error { return os.Mkdir(file+"3", 0o700) },
		"rename":                    func() error { return unix.Renameat2(unix.AT_FDCWD, file, unix.AT_FDCWD, file, 0) },
		"link":                      func() error { return unix.Linkat(unix.AT_FDCWD, file, unix.AT_FDCWD, file+"5", 0) },
		"a symbolic link":           func() error { return unix.Symlinkat("x", unix.AT_FDCWD, file+"6") },
		"a fifo":                    func() error { return unix.Mknodat(unix.AT_FDCWD, file+"7", unix.S_IFIFO|0o600, 0) },
		"chmod":                     func() error { return os.Chmod(file, 0o644) },
		"fchmod":                    func() error { return open.Chmod(0o644) },
		"fchmodat2":                 call(452, here, at, 0o644, 0),
		"chown":                     func() error { return os.Chown(file, os.Getuid(), os.Getgid()) },
		"fchown":                    func() error { return open.Chown(os.Getuid(), os.Getgid()) },
		"truncate":                  func() error { return os.Truncate(file, 0) },
		"times":                     func() error { return os.Chtimes(file, time.Now(), time.Now()) },
		"setxattr":                  func() error { return unix.Setxattr(file, acl, world, 0) },
		"lsetxattr":                 func() error { return unix.Lsetxattr(file, acl, world, 0) },
		"an ACL by its descriptor":  func() error { return unix.Fsetxattr(int(fd), acl, world, 0) },
		"setxattrat":                call(463, here, at, 0, 0, 0, 0),
		"removexattr":               func() error { return unix.Fremovexattr(int(fd), "user.x") },
		"flags of a file":           func() error { return unix.IoctlSetPointerInt(int(fd), fsSetFlags, fsNoDump) },
		"attributes of a file":      call(469, here, at, 0, 0, 0, 0),
		"clone a file":              func() error { return unix.IoctlFileClone(int(fd), int(fd)) },
		"copy into a file":          call(unix.SYS_COPY_FILE_RANGE, fd, 0, fd, 0, 1, 0),
		"fallocate":                 call(unix.SYS_FALLOCATE, fd, 0, 0, 1),
		"lock a file":               func() error { return unix.Flock(int(fd), unix.LOCK_EX|unix.LOCK_NB) },
		"a lease":                   func() error { _, err := unix.FcntlInt(fd, unix.F_SETLEASE, unix.F_UNLCK); return err },
		"a handle":                  call(unix.SYS_NAME_TO_HANDLE_AT, here, at, 0, 0, 0),
		"go elsewhere":              func() error { return os.Chdir(dir) },
		"memory as a file":          func() error { _, err := unix.MemfdCreate("x", 0); return err },
		"io_uring":                  call(unix.SYS_IO_URING_SETUP, 1, 0),
		"asynchronous I/O":          call(unix.SYS_IO_SETUP, 1, 0),
		"the kernel's keys":         func() error { _, err := unix.KeyctlInt(unix.KEYCTL_GET_KEYRING_ID, -2, 0, 0, 0); return err },
		"a packet of several files": call(unix.SYS_SENDFILE, fd, fd, 0, 1),

		// programs and code
		"start a program":         func() error { return exec.Command("/bin/true").Run() },
		"execve":                  call(unix.SYS_EXECVE, at, 0, 0),
		"execveat":                call(unix.SYS_EXECVEAT, here, at, 0, 0, 0),
		"memory to run":           call(unix.SYS_MMAP, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON, ^uintptr(0), 0),
		"let memory run":          call(unix.SYS_MPROTECT, 0, 4096, unix.PROT_READ|unix.PROT_EXEC),
		"a protection key's":      call(unix.SYS_PKEY_MPROTECT, 0, 4096, unix.PROT_EXEC, ^uintptr(0)),
		"a shared memory segment": call(unix.SYS_SHMGET, 0, 4096, unix.IPC_CREAT|0o600),
		"another personality":     call(unix.SYS_PERSONALITY, 0xffffffff),
		"bpf":                     call(unix.SYS_BPF, 0, 0, 0),
		"perf":                    call(unix.SYS_PERF_EVENT_OPEN, 0, 0, 0, 0, 0),
		"userfaultfd":             call(unix.SYS_USERFAULTFD, 1),
		"dumpable again":          func() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0) },
		"another name":            func() error { return unix.Prctl(unix.PR_SET_NAME, 0, 0, 0, 0) },
		"a tracer":                func() error { return unix.Prctl(unix.PR_SET_PTRACER, 1, 0, 0, 0) },
		"another filter":          call(unix.SYS_SECCOMP, 2, 0, 0),
		"other limits":            func() error { return unix.Prlimit(0, unix.RLIMIT_NOFILE, nil, &unix.Rlimit{}) },

		// processes
		"fork":                         clone(uintptr(unix.SIGCHLD)),
		"a user namespace":             clone(uintptr(unix.SIGCHLD) | unix.CLONE_NEWUSER | unix.CLONE_NEWNET),
		"a mount namespace":            clone(uintptr(unix.SIGCHLD) | unix.CLONE_NEWNS),
		"vfork":                        clone(uintptr(unix.SIGCHLD) | unix.CLONE_VFORK),
		"a brother":                    clone(uintptr(unix.SIGCHLD) | unix.CLONE_PARENT),
		"unshare":                      func() error { return unix.Unshare(unix.CLONE_NEWUSER) },
		"unshare, a small one":         func() error { return unix.Unshare(unix.CLONE_SYSVSEM) },
		"setns":                        func() error { return unix.Setns(other, 0) },
		"mount":                        func() error { return unix.Mount("none", dir, "tmpfs", 0, "") },
		"open_tree":                    call(unix.SYS_OPEN_TREE, here, at, 0),
		"fsopen":                       call(unix.SYS_FSOPEN, at, 0),
		"chroot":                       func() error { return unix.Chroot(dir) },
		"kill":                         func() error { return unix.Kill(self, 0) },
		"kill all":                     func() error { return unix.Kill(os.Getppid(), 0) },
		"tkill":                        call(unix.SYS_TKILL, uintptr(self), 0),
		"tgkill of another":            func() error { return unix.Tgkill(os.Getppid(), os.Getppid(), 0) },
		"a signal with a word":         call(unix.SYS_RT_SIGQUEUEINFO, uintptr(self), 0, 0),
		"a signal by a pidfd":          func() error { return unix.PidfdSendSignal(other, 0, nil, 0) },
		"pidfd_open":                   func() error { _, err := unix.PidfdOpen(self, 0); return err },
		"another's descriptor":         func() error { _, err := unix.PidfdGetfd(other, int(fd), 0); return err },
		"a namespace by a pidfd":       func() error { _, err := unix.IoctlRetInt(other, pidfdGetNet); return err },
		"signals from a descriptor":    func() error { _, err := unix.FcntlInt(uintptr(udp), unix.F_SETOWN, self); return err },
		"which signal":                 func() error { _, err := unix.FcntlInt(uintptr(udp), fSetSig, 0); return err },
		"signals by O_ASYNC":           func() error { _, err := unix.FcntlInt(uintptr(udp), unix.F_SETFL, unix.O_ASYNC); return err },
		"signals by ioctl":             func() error { return unix.IoctlSetPointerInt(udp, unix.SIOCSPGRP, self) },
		"signals of a folder":          func() error { _, err := unix.FcntlInt(fd, unix.F_NOTIFY, 0); return err },
		"ptrace":                       call(unix.SYS_PTRACE, 0x4207, uintptr(os.Getppid()), 0, 0),
		"another's memory":             call(unix.SYS_PROCESS_VM_READV, uintptr(self), 0, 0, 0, 0, 0),
		"write another's memory":       call(unix.SYS_PROCESS_VM_WRITEV, uintptr(self), 0, 0, 0, 0, 0),
		"priorities":                   func() error { return unix.Setpriority(unix.PRIO_PROCESS, self, 19) },
		"a session":                    func() error { _, err := unix.Setsid(); return err },
		"wait for children":            call(unix.SYS_WAIT4, ^uintptr(0), 0, unix.WNOHANG, 0),
		"a terminal's input (TIOCSTI)": func() error { return unix.IoctlSetPointerInt(udp, unix.TIOCSTI, 0) },

		// sockets
		"listen":                    func() error { return unix.Listen(tcp, 1) },
		"a UNIX socket":             socket(unix.AF_UNIX, unix.SOCK_STREAM, 0),
		"a pair":                    func() error { _, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0); return err },
		"a socket of packets":       socket(unix.AF_PACKET, unix.SOCK_RAW, 0),
		"a raw socket":              socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP),
		"SCTP":                      socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP),
		"MPTCP":                     socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP),
		"UDP-Lite":                  socket(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDPLITE),
		"the firewall":              socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER),
		"the kernel's cryptography": socket(unix.AF_ALG, unix.SOCK_SEQPACKET, 0),
		"virtual machines' sockets": socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0),
		"a program for a socket":    func() error { return unix.SetsockoptSockFprog(udp, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, allowAll()) },
		"another protocol in TCP":   func() error { return unix.SetsockoptString(tcp, unix.IPPROTO_TCP, unix.TCP_ULP, "tls") },
		"a device for a socket":     func() error { return unix.SetsockoptString(tcp, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, "") },
		"a mark":                    option(unix.SOL_SOCKET, unix.SO_MARK, 0),
		"repair":                    option(unix.IPPROTO_TCP, unix.TCP_REPAIR, 0),
		"a group":                   option(unix.IPPROTO_IP, unix.IP_MULTICAST_TTL, 1),
		"what a socket's filter is": func() error { _, err := unix.GetsockoptInt(udp, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER); return err },
		"the links of the host":     func() error { _, err := unix.IoctlRetInt(udp, unix.SIOCGIFCONF); return err },
		"many packets at once":      call(unix.SYS_SENDMMSG, uintptr(udp), 0, 0, 0),
	}
	maps.Copy(all, legacyHoles(call, at))
	return all
}

const (
	acl         = "system.posix_acl_access"
	fsSetFlags  = 0x40086602 // FS_IOC_SETFLAGS, ioctl_iflags(2)
	fsNoDump    = 0x40
	pidfdGetNet = 0xff04 // PIDFD_GET_NET_NAMESPACE, ioctl_pidfd(2)
	fSetSig     = 10
)

// world is an ACL that lets everybody read and write, acl(5): version 2, then tag, permissions and id.
var world = []byte("\x02\x00\x00\x00" + "\x01\x00\x06\x00\xff\xff\xff\xff" + "\x04\x00\x06\x00\xff\xff\xff\xff" + "\x20\x00\x06\x00\xff\xff\xff\xff")

func allowAll() *unix.SockFprog {
	return &unix.SockFprog{Len: 1, Filter: &unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 1}}
}

func socketOf(t *testing.T, kind int) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, kind, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func openAs(name string, flags int) error {
	fd, err := unix.Openat(unix.AT_FDCWD, name, flags|unix.O_CLOEXEC, 0o600)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

func openat2(name string) error {
	fd, err := unix.Openat2(unix.AT_FDCWD, name, &unix.OpenHow{})
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// cloned makes a process that ends at once, if that is not refused: fork(2), of which Go says nothing.
func cloned(flags uintptr) error {
	pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, flags, 0, 0, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	if pid == 0 {
		for {
			syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
		}
	}
	_, err := unix.Wait4(int(pid), nil, 0, nil)
	if errors.Is(err, unix.ECHILD) { // a brother's parent is another
		return nil
	}
	return err
}

func TestConfined(t *testing.T) {
	dir := os.Getenv(confinedIn)
	if dir == "" {
		if out, err := again(t); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	all := holes(t, dir)
	other := make(chan func() error)
	done := make(chan error)
	go func() { // a thread that is there before
		runtime.LockOSThread()
		for do := range other {
			done <- do()
		}
	}()
	other <- func() error { return nil }
	<-done
	confineNow(t)
	for what, do := range all {
		if err := do(); !errors.Is(err, unix.EPERM) {
			t.Errorf("%s: %v", what, err)
		}
		other <- do
		if err := <-done; !errors.Is(err, unix.EPERM) {
			t.Errorf("%s, on another thread: %v", what, err)
		}
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_CLONE3, 0, 0, 0); errno != unix.ENOSYS {
		t.Errorf("clone3: %v", errno)
	}
	info, err := os.Stat(filepath.Join(dir, "file"))
	if err != nil || info.Mode().Perm() != 0o600 || info.Size() != 4 {
		t.Errorf("the file is %v, %v", info, err)
	}
	worksConfined(t, dir)
}

// worksConfined does what is needed: Go's own work, files to be read, sockets.
func worksConfined(t *testing.T, dir string) {
	if text, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(text) != "text" {
		t.Errorf("read a file: %q, %v", text, err)
	}
	if _, err := net.InterfaceAddrs(); err != nil {
		t.Errorf("the host's addresses: %v", err)
	}
	for _, network := range []string{"udp4", "tcp4"} {
		conn, err := net.DialTimeout(network, "127.0.0.1:1", time.Second)
		if err == nil {
			conn.Close()
		} else if !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("%s: %v", network, err)
		}
	}
	runs := make(chan int)
	for range 64 { // threads of their own, a growing heap, and loops that have to be preempted
		go func() {
			runtime.LockOSThread()
			grown, n := make([]byte, 1<<20), 0
			for deadline := time.Now().Add(30 * time.Millisecond); time.Now().Before(deadline); n++ {
				grown = append(grown[:0], make([]byte, 1<<16)...)
			}
			runs <- n + len(grown)
		}()
	}
	for range 64 {
		<-runs
	}
	debug.FreeOSMemory()
}

// A helper without a filter could do most of that: what the kernel refuses anyway proves nothing.
func TestHolesAreOpen(t *testing.T) {
	dir := os.Getenv(confinedIn)
	if dir == "" {
		if out, err := again(t); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	all := holes(t, dir)
	for _, what := range []string{"an ACL by its descriptor", "flags of a file", "kill", "a signal by a pidfd", "tgkill of another", "fork",
		"a UNIX socket", "listen", "memory to run", "memory as a file", "signals from a descriptor", "a pair", "another's descriptor"} {
		do := all[what]
		if do == nil {
			t.Fatalf("no hole is called %q", what)
		}
		if err := do(); err != nil && !errors.Is(err, unix.EOPNOTSUPP) { // a file system without ACLs
			t.Errorf("%s: %v", what, err)
		}
	}
}

// A crash ends the helper, with its words and Go's status, and an abort by the signal.
func TestConfinedCrash(t *testing.T) {
	if os.Getenv(confinedIn) != "" {
		confineNow(t)
		go func() { panic("no more") }()
		select {}
	}
	out, err := again(t)
	var status *exec.ExitError
	if !errors.As(err, &status) || status.ExitCode() != 2 || !strings.Contains(out, "panic: no more") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestConfinedAbort(t *testing.T) {
	if os.Getenv(confinedIn) != "" {
		debug.SetTraceback("crash")
		confineNow(t)
		go func() { panic("no more") }()
		select {}
	}
	out, err := again(t)
	var status *exec.ExitError
	if !errors.As(err, &status) || status.Sys().(syscall.WaitStatus).Signal() != unix.SIGABRT {
		t.Errorf("%v\n%s", err, out)
	}
}

// A helper that has started a program can end it, and wait for that, and end no other.
func TestConfinedWithProgram(t *testing.T) {
	if os.Getenv(confinedIn) == "" {
		if out, err := again(t); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	p := &program{cmd: exec.Command("sleep", "100"), ended: make(chan error, 1)}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.ended <- p.wait() }()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	if err := confine(p.rules()...); err != nil {
		t.Fatal(err)
	}
	for _, target := range []int{os.Getpid(), os.Getppid(), p.cmd.Process.Pid} {
		if err := unix.Kill(target, 0); !errors.Is(err, unix.EPERM) {
			t.Errorf("signal 0 to %d: %v", target, err)
		}
	}
	if err := exec.Command("true").Run(); !errors.Is(err, unix.EPERM) {
		t.Errorf("another program: %v", err)
	}
	p.stop()
	if status := p.cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != unix.SIGKILL {
		t.Errorf("it ended by %s", strconv.Itoa(int(status)))
	}
	p.stop() // once more is as good
}
