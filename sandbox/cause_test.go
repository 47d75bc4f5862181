package sandbox

import (
	"io/fs"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/nsenter"
	"github.com/podsh/podsh/sandbox/spec"
)

// usual are the files of a machine on which nothing is wrong, as an ordinary user sees it.
var usual = map[string]string{
	"proc/self/status":          "Uid:\t1000\t1000\t1000\t1000\nNoNewPrivs:\t0\nSeccomp:\t0\nCapEff:\t0000000000000000\n",
	"proc/self/uid_map":         "         0          0 4294967295",
	"proc/self/gid_map":         "         0          0 4294967295",
	"proc/sys/kernel/osrelease": "6.1.0-13-amd64",
	"proc/self/mountinfo": "22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n" +
		"23 22 0:21 / /proc rw,nosuid - proc proc rw\n24 22 0:22 / /sys rw,nosuid - sysfs sysfs rw\n" +
		"25 23 0:23 / /proc/sys/fs/binfmt_misc rw - autofs systemd-1 rw\n26 24 0:24 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n",
	"proc/filesystems": "nodev\tproc\nnodev\toverlay\n",
	"etc/os-release":   "ID=debian\n",
}

// pretend makes a machine of the usual files and those that differ.
func pretend(differ map[string]string) machine {
	files := fstest.MapFS{"proc/self/ns/user": {Data: []byte("user:[4026531837]"), Mode: fs.ModeSymlink}}
	for _, ns := range spec.Namespaces[1:] {
		files["proc/self/ns/"+ns.Name] = &fstest.MapFile{}
	}
	for _, set := range []map[string]string{usual, differ} {
		for name, text := range set {
			files[name] = &fstest.MapFile{Data: []byte(text)}
		}
	}
	return machine{
		files: files, uid: 1000, gid: 1000, name: "student", exe: "/proc/self/exe",
		has:        func(program string) string { return "/usr/bin/" + program },
		privileged: func(string) bool { return true },
		reaches:    func(string) bool { return true },
		sealed:     func() error { return nil },
		try:        func(int, ...nsenter.Call) (string, error) { return "", nil },
	}
}

const rootStatus = "NoNewPrivs:\t0\nSeccomp:\t0\nCapEff:\t000001ffffffffff\n"

// TestCauses: each cause is named where it is found, with its fix.
func TestCauses(t *testing.T) {
	apparmor := map[string]string{"proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1", "proc/self/attr/apparmor/current": "unconfined"}
	for _, test := range []struct {
		files map[string]string
		call  string
		errno syscall.Errno
		want  string
	}{
		{map[string]string{"proc/sys/kernel/unprivileged_userns_clone": "0"}, "clone", unix.EPERM,
			"kernel.unprivileged_userns_clone is 0: only root may make user namespaces: sudo sysctl -w kernel.unprivileged_userns_clone=1"},
		{map[string]string{"proc/self/mountinfo": "23 22 0:21 / /proc rw,nosuid - proc proc rw\n"}, "clone", unix.EPERM, "in a chroot"},
		{map[string]string{"proc/self/mountinfo": "1 1 0:2 / / rw - rootfs rootfs rw\n"}, "pivot_root", unix.EINVAL, "initial ramfs"},
		{map[string]string{"proc/self/uid_map": "0 1000 1"}, "clone", unix.EPERM, "id 1000 is not mapped"},
		{map[string]string{"proc/sys/user/max_net_namespaces": "0"}, "clone", unix.ENOSPC,
			"user.max_net_namespaces is 0: sudo sysctl -w user.max_net_namespaces=10000"},
		{map[string]string{"proc/self/limits": "Max processes             3                    3     processes\n",
			"proc/7/status": "Uid:\t1000\t1000\nThreads:\t3\n"}, "clone", unix.EAGAIN, "you run 3 threads, and may run 3"},
		{map[string]string{"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cgroup.procs": "", "sys/fs/cgroup/a/pids.max": "9",
			"sys/fs/cgroup/a/pids.current": "9"}, "clone", unix.EAGAIN, "the cgroup /sys/fs/cgroup/a is full: 9 processes"},
		{map[string]string{"proc/sys/kernel/threads-max": "12", "proc/7/status": "Uid:\t0\t0\nThreads:\t12\n"}, "clone", unix.EAGAIN,
			"sudo sysctl -w kernel.threads-max=24"},
		{apparmor, "clone", unix.EACCES, "AppArmor lets only programs that have a profile use user namespaces: " +
			`sudo sh -c 'printf '\''%s\n'\'' '\''abi <abi/4.0>,'\'' '\''"/proc/self/exe" flags=(unconfined) { userns, }'\'' ` +
			"| tee /etc/apparmor.d/podsh.proc.self.exe && apparmor_parser -r /etc/apparmor.d/podsh.proc.self.exe'"},
		{apparmor, "mount tmpfs", unix.EPERM, "AppArmor"},
		{map[string]string{"proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1", "proc/self/attr/apparmor/current": "/home/ann/my (own)/podsh (unconfined)"},
			"clone", unix.EACCES, "AppArmor's profile /home/ann/my (own)/podsh has no rule `userns,`"},
		{map[string]string{"proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1", "proc/self/attr/apparmor/current": "mine (enforce)"},
			"clone", unix.EACCES, "AppArmor's profile mine confines this shell: for pods it needs the rules `userns,`"},
		{map[string]string{"proc/self/attr/apparmor/current": "mine (enforce)"}, "execveat", unix.EACCES, "flags=(attach_disconnected)"},
		{map[string]string{"proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1", "proc/self/attr/apparmor/current": "unprivileged_userns (enforce)",
			"proc/self/uid_map": "0 1001 1"}, "clone", unix.EPERM, "run podsh outside"},
		{map[string]string{"proc/sys/vm/memfd_noexec": "2"}, "memfd_create", unix.EACCES, "sudo sysctl -w vm.memfd_noexec=1"},
		{map[string]string{"proc/self/uid_map": "0 1000 1\n1000 2000 9"}, "uid_map", unix.EPERM, `only the ids "0 1000 1 1000 2000 9"`},
		{map[string]string{"proc/self/status": "NoNewPrivs:\t1\n"}, "newuidmap", unix.EPERM, "no_new_privs is set"},
		{map[string]string{"proc/self/mountinfo": "22 1 8:1 / / rw,nosuid - ext4 /dev/sda1 rw\n"}, "newgidmap", unix.EPERM, "mounted nosuid"},
		{map[string]string{"proc/self/mountinfo": usual["proc/self/mountinfo"] + "27 23 0:5 /null /proc/kcore rw - devtmpfs udev rw\n",
			".dockerenv": ""}, "mount proc on /proc", unix.EPERM,
			"mounts lie over /proc/kcore, and who can't see all of /proc gets no new one (docker run --security-opt systempaths=unconfined … leaves it whole): podsh create --pid host"},
		{map[string]string{"proc/self/mountinfo": "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n23 22 0:21 / /proc ro - proc proc rw\n"}, "mount proc", unix.EPERM,
			"/proc is mounted read-only"},
		{map[string]string{"proc/self/mountinfo": "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"}, "mount sysfs", unix.EPERM, "sees no whole sysfs"},
		{map[string]string{"proc/filesystems": "nodev\tproc\n"}, "mount overlay", unix.ENODEV, "sudo modprobe overlay"},
		{map[string]string{"proc/sys/kernel/osrelease": "5.10.0-32-cloud-amd64"}, "mount overlay on root", unix.EPERM, "Linux 5.10 lets only root"},
		{map[string]string{"proc/sys/kernel/osrelease": "5.10.0-32-cloud-amd64"}, "mount_setattr", unix.ENOSYS, "it came with 5.12"},
		{map[string]string{"proc/sys/fs/mount-max": "5"}, "mount tmpfs", unix.ENOSPC, "sudo sysctl -w fs.mount-max=10"},
		{map[string]string{"proc/self/status": "Seccomp:\t2\n"}, "fsopen", unix.ENOSYS, "seccomp filter"},
		{map[string]string{"proc/self/attr/apparmor/current": "docker-default (enforce)"}, "mount tmpfs", unix.EACCES, "docker-default"},
		{map[string]string{"proc/sys/kernel/osrelease": "5.4.0"}, "setns", unix.EINVAL, "5.8 does"},
		{map[string]string{"proc/key-users": "    0:    23 22/22 15/1000000 328/25000000\n 1000:     3 3/3 200/200 45/20000\n"}, "keyctl", unix.EDQUOT,
			"you have 200 keys, and kernel.keys.maxkeys is 200: sudo sysctl -w kernel.keys.maxkeys=2000"},
		{map[string]string{"proc/self/limits": "Max open files            1024                 4096     files\n"}, "openat /etc", unix.EMFILE, "1024 files"},
	} {
		found, _ := pretend(test.files).verdicts(test.call, test.errno)
		if len(found) != 1 || !strings.Contains(found[0].String(), test.want) {
			t.Errorf("%s: %v: got %q, want %q", test.call, test.errno, found, test.want)
		}
	}
}

// TestNoCause: where nothing is wrong, nothing is named but what is always so.
func TestNoCause(t *testing.T) {
	always := map[string]bool{"clone ENOMEM": true, "setns ESRCH": true, " EMFILE": true, " ENFILE": true}
	for _, c := range causes {
		errnos := c.errnos
		if len(errnos) == 0 {
			errnos = denied
		}
		for _, errno := range errnos {
			found, _ := pretend(nil).verdicts(c.call, errno)
			if name := c.call + " " + unix.ErrnoName(errno); len(found) > 0 && !always[name] {
				t.Errorf("%s: %q", name, found)
			}
		}
	}
	if hints := hintsFor("clone", unix.EXDEV); len(hints) > 0 {
		t.Errorf("hints for what is not in the table: %q", hints)
	}
}

// TestRootIsFree: what holds ordinary users back is not named to root.
func TestRootIsFree(t *testing.T) {
	m := pretend(map[string]string{"proc/self/status": rootStatus, "proc/sys/kernel/unprivileged_userns_clone": "0",
		"proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1", "proc/self/attr/apparmor/current": "unconfined"})
	m.uid, m.gid = 0, 0
	if found, _ := m.verdicts("clone", unix.EPERM); len(found) > 0 {
		t.Errorf("got %q", found)
	}
	m.files.(fstest.MapFS)["proc/self/attr/apparmor/current"].Data = []byte("unprivileged_userns (enforce)")
	if found, _ := m.verdicts("mount tmpfs", unix.EPERM); len(found) != 1 || !strings.Contains(found[0].why, "run podsh outside") {
		t.Errorf("root of a user namespace that AppArmor restricts: got %q", found)
	}
}

// TestUsedUp: a limit that is not 0 can be reached; which one is found by trying.
func TestUsedUp(t *testing.T) {
	m := pretend(map[string]string{"proc/sys/user/max_net_namespaces": "7"})
	m.try = func(flags int, _ ...nsenter.Call) (string, error) {
		if flags&unix.CLONE_NEWNET != 0 {
			return "clone", unix.ENOSPC
		}
		return "", nil
	}
	want := "all 7 net namespaces that you may have are in use (user.max_net_namespaces): sudo sysctl -w user.max_net_namespaces=14"
	if found, _ := m.verdicts("clone", unix.ENOSPC); len(found) != 1 || found[0].String() != want {
		t.Errorf("got %q, want %q", found, want)
	}
}

func TestMappers(t *testing.T) {
	for _, test := range []struct{ id, want string }{
		{"ID=debian", "sudo apt-get install uidmap"}, {"ID=linuxmint\nID_LIKE=\"ubuntu debian\"", "sudo apt-get install uidmap"},
		{"ID=fedora", "sudo dnf install shadow-utils"}, {"ID=\"opensuse-leap\"\nID_LIKE=\"suse opensuse\"", "sudo zypper install shadow"},
		{"ID=alpine", "sudo apk add shadow-uidmap"},
	} {
		m := pretend(map[string]string{"etc/os-release": test.id})
		m.has = func(program string) string { return map[string]string{"sudo": "/usr/bin/sudo"}[program] }
		if v := mapperMissing(m); v.fix != test.want {
			t.Errorf("%s: %q", test.id, v.fix)
		}
	}
	m := pretend(nil)
	m.privileged = func(string) bool { return false }
	if v := mapperPlain(m); v.fix != "sudo chmod u+s /usr/bin/newuidmap /usr/bin/newgidmap" {
		t.Errorf("%q", v)
	}
}

// TestProfileQuotes: a path can hold what has a meaning for AppArmor or for sh.
func TestProfileQuotes(t *testing.T) {
	got := profileCommand(`/home/o'neil/my [tools]/podsh`)
	if want := `'"/home/o'\''neil/my \[tools\]/podsh" flags=(unconfined) { userns, }'`; !strings.Contains(got, want) {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if want := `tee '/etc/apparmor.d/podsh.home.o'\''neil.my [tools].podsh' &&`; !strings.Contains(got, want) {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

// TestProfilesOfCopies: each copy of podsh has a profile and a file of its own: those of one leave the others alone.
func TestProfilesOfCopies(t *testing.T) {
	seen := map[string]string{}
	for _, exe := range []string{"/home/ann/podsh", "/home/ann/.local/bin/podsh", "/home/ann/%2Elocal/bin/podsh", "/a.b/podsh", "/a/b/podsh", "/usr/bin/podsh"} {
		command := profileCommand(exe)
		_, file, _ := strings.Cut(command, "tee ")
		file, _, _ = strings.Cut(file, " ")
		if other, ok := seen[file]; ok {
			t.Errorf("%s and %s both have their profile in %s", exe, other, file)
		}
		seen[file] = exe
		if !strings.Contains(command, `'"`+exe+`" flags`) || strings.Contains(command, "profile ") {
			t.Errorf("the profile of %s has another name than its path: %s", exe, command)
		}
	}
}

func TestAsRoot(t *testing.T) {
	m := pretend(nil)
	for command, want := range map[string]string{"modprobe tun": "sudo modprobe tun", "echo 1 > /x": "sudo sh -c 'echo 1 > /x'"} {
		if got := m.asRoot(command); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	m.has = func(string) string { return "" }
	if got := m.asRoot("modprobe tun"); got != "su - -c 'modprobe tun'" {
		t.Error(got)
	}
	m.uid = 0
	if got := m.asRoot("modprobe tun"); got != "modprobe tun" {
		t.Error(got)
	}
	m.files.(fstest.MapFS)["proc/self/ns/user"].Data = []byte("user:[4026532000]")
	if got := m.asRoot("modprobe tun"); got != "" {
		t.Error(got)
	}
}

// TestHarmless: the calls that ask for a filter get as far as the kernel where there is none, and do nothing.
func TestHarmless(t *testing.T) {
	if thisMachine().status("Seccomp") == "2" {
		mustWork(t, "these tests run under a seccomp filter")
	}
	for call := range harmless {
		if !thisMachine().kernel().Before(callSince[call]) && !reaches(call) {
			t.Errorf("%s does not reach the kernel", call)
		}
	}
}

// TestRefused: a filter is told from the kernel. It is set on one thread, which ends with its goroutine.
func TestRefused(t *testing.T) {
	reached := make(chan bool)
	go func() {
		runtime.LockOSThread()
		filter := []unix.SockFilter{
			{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the number of the call
			{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_UNSHARE, Jf: 1},
			{Code: unix.BPF_RET, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
			{Code: unix.BPF_RET, K: unix.SECCOMP_RET_ALLOW},
		}
		program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			t.Error(err)
		}
		if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0); err != nil {
			t.Error(err)
		}
		reached <- reaches("unshare")
		reached <- reaches("mount")
	}()
	if <-reached {
		t.Error("unshare reaches the kernel through a filter that refuses it")
	}
	if !<-reached {
		t.Error("mount does not reach the kernel through a filter that lets it")
	}
	m := pretend(map[string]string{"proc/self/status": "Seccomp:\t2\n", "run/.containerenv": ""})
	m.reaches = func(call string) bool { return call != "unshare" }
	found, _ := m.verdicts("clone", unix.EPERM)
	want := "a seccomp filter that this shell has inherited refuses unshare(2): podman run --security-opt seccomp=unconfined …"
	if len(found) != 1 || found[0].String() != want {
		t.Errorf("got %q, want %q", found, want)
	}
}

func FuzzHints(f *testing.F) {
	f.Add("mount proc on /proc", 1, usual["proc/self/mountinfo"], "0 0 1", "0::/\n")
	f.Add("clone", 28, "", "x", "1:pids:/a\n")
	f.Fuzz(func(t *testing.T, call string, errno int, mountinfo, idMap, cgroup string) {
		m := pretend(map[string]string{"proc/self/mountinfo": mountinfo, "proc/self/uid_map": idMap, "proc/self/cgroup": cgroup,
			"proc/self/limits": mountinfo, "proc/key-users": idMap})
		_, _ = m.verdicts(call, syscall.Errno(errno))
		_ = checkCgroup(m)
		_ = checkNestedIDs(m)
		_ = nextRange(idMap)
	})
}
