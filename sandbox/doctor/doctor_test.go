package doctor

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/nsenter"
	"github.com/podsh/podsh/rootfs"
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
	if hints := HintsFor("clone", unix.EXDEV); len(hints) > 0 {
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
	if ThisMachine().status("Seccomp") == "2" {
		mustWork(t, "these tests run under a seccomp filter")
	}
	for call := range harmless {
		if !ThisMachine().kernel().Before(callSince[call]) && !reaches(call) {
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

func TestDoctorOfPing(t *testing.T) {
	for groups, want := range map[string]string{
		"0\t2147483647": "groups 0 to 2147483647 may on the host (net.ipv4.ping_group_range 0 2147483647); in pods all may",
		"1\t0":          "on the host nobody may without privileges (net.ipv4.ping_group_range 1 0); in pods all may",
		"":              "", // no IPv4
	} {
		f := checkPing(pretend(map[string]string{"proc/sys/net/ipv4/ping_group_range": groups}))
		if f.Finding != want || want != "" && f.OK != strings.HasPrefix(groups, "0") || !f.OK && want != "" && f.Fix == "" {
			t.Errorf("%q: %+v", groups, f)
		}
	}
}

func TestDoctorOfLowPorts(t *testing.T) {
	for start, want := range map[string]string{"1024": "below 1024 need privileges", "0": "none of the host need privileges", "": ""} {
		f := checkPorts(pretend(map[string]string{"proc/sys/net/ipv4/ip_unprivileged_port_start": start}))
		if !strings.Contains(f.Finding, want) || (want == "") != (f.Finding == "") || want != "" && !f.OK {
			t.Errorf("%q: %+v", start, f)
		}
	}
}

// mustWork skips a test that this machine can't run, unless it has to.
func mustWork(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("PODSH_MUST_WORK") == "1" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

func findings(list []Finding) map[string]Finding {
	byName := map[string]Finding{}
	for _, f := range list {
		byName[f.Check] = f
	}
	return byName
}

// TestDoctor looks at the machine that the tests run on: whatever it finds has the form that it should have,
// and nothing is left.
func TestDoctor(t *testing.T) {
	root := filepath.Join(t.TempDir(), "podsh")
	t.Setenv("PODSH_ROOT", root)
	before := mountTable(t)
	list := Doctor()
	for _, f := range list {
		if f.Check == "" || f.Finding == "" || f.OK != (f.Lost == "") || f.OK && f.Fix != "" {
			t.Errorf("malformed: %+v", f)
		}
		if f.Required && !f.OK {
			mustWork(t, "no pods here: %s: %s", f.Check, f.Finding)
		}
	}
	for _, check := range []string{"kernel", "user namespace", "namespaces", "proc", "overlay", "ids", "runtime folder", "cgroup"} {
		if _, ok := findings(list)[check]; !ok {
			t.Errorf("nothing is said of %s", check)
		}
	}
	if _, err := os.Lstat(root); err == nil {
		t.Errorf("doctor made %s", root)
	}
	if after := mountTable(t); after != before {
		t.Errorf("mounts before:\n%s\nafter:\n%s", before, after)
	}
}

func mountTable(t *testing.T) string {
	t.Helper()
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return string(table)
}

// TestDoctorOfOldKernels: below 5.11 something is lost, below 5.9 all.
func TestDoctorOfOldKernels(t *testing.T) {
	for _, test := range []struct {
		release      string
		ok, required bool
		finding      string
		lost         string
	}{
		{"6.18.1", true, true, "Linux 6.18.1", ""},
		{"6.1.0-13-amd64", true, true, "Linux 6.1.0-13-amd64, without user xattrs on tmpfs (6.6) and inodes of pidfds (6.9)", ""},
		{"5.10.0-32-cloud-amd64", false, false, "Linux 5.10.0-32-cloud-amd64, older than 5.11",
			"overlays without root (5.11), mount_setattr(2) (5.12), user xattrs on tmpfs (6.6) and inodes of pidfds (6.9)"},
		{"5.4.0", false, true, "Linux 5.4.0, older than 5.11",
			"close_range(2) (5.9), overlays without root (5.11), mount_setattr(2) (5.12), user xattrs on tmpfs (6.6) and inodes of pidfds (6.9)"},
	} {
		want := Finding{OK: test.ok, Required: test.required, Finding: test.finding, Lost: test.lost}
		if got := checkKernel(pretend(map[string]string{"proc/sys/kernel/osrelease": test.release})); got != want {
			t.Errorf("got %+v\nwant %+v", got, want)
		}
	}
}

// TestDoctorOfOldKernelsAsRoot: what only others go without is not lost.
func TestDoctorOfOldKernelsAsRoot(t *testing.T) {
	m := pretend(map[string]string{"proc/sys/kernel/osrelease": "5.10.0", "proc/self/status": rootStatus})
	m.uid, m.gid = 0, 0
	if got := checkKernel(m); got.Lost != "mount_setattr(2) (5.12) and inodes of pidfds (6.9)" {
		t.Errorf("got %+v", got)
	}
}

// TestDoctorWithoutNamespaces: the cause is told once, and what would fail for it is left out.
func TestDoctorWithoutNamespaces(t *testing.T) {
	m := pretend(map[string]string{"proc/sys/user/max_user_namespaces": "0"})
	m.try = func(int, ...nsenter.Call) (string, error) { return "clone", unix.ENOSPC }
	list := findings(m.doctor())
	f := list["user namespace"]
	if f.OK || !f.Required || f.Finding != "clone: no space left on device; user.max_user_namespaces is 0" ||
		f.Fix != "sudo sysctl -w user.max_user_namespaces=10000" {
		t.Errorf("got %+v", f)
	}
	for _, check := range []string{"namespaces", "proc", "overlay"} {
		if f, ok := list[check]; ok {
			t.Errorf("also told: %+v", f)
		}
	}
}

func TestDoctorOfRuntimeFolder(t *testing.T) {
	dir := t.TempDir()
	open, file := filepath.Join(dir, "open"), filepath.Join(dir, "file")
	for _, err := range []error{os.Mkdir(open, 0o755), os.WriteFile(file, nil, 0o600)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		root, finding, fix string
		ok                 bool
	}{
		{filepath.Join(dir, "new"), " will be made", "", true},
		{open, "is open to others (mode 0755)", "chmod 700 " + open, false},
		{file, "is not a folder", "export PODSH_ROOT=$(mktemp -d)", false},
		{"/nonexistent/podsh", "write to /nonexistent: no such file or directory", "export PODSH_ROOT=$(mktemp -d)", false},
	} {
		t.Setenv("PODSH_ROOT", test.root)
		f := checkRuntime(machine{})
		if f.OK != test.ok || !strings.Contains(f.Finding, test.finding) || f.Fix != test.fix {
			t.Errorf("got %+v, want %+v", f, test)
		}
	}
}

// TestDoctorOfCgroups: nothing is offered that mends what podsh would not use.
func TestDoctorOfCgroups(t *testing.T) {
	const root = "22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n"
	const v2 = "26 22 0:24 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
	const v1 = "27 22 0:25 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
	for mounts, want := range map[string]string{
		root:           "no cgroup file system is mounted here; podsh sets no limits yet",
		root + v2:      "v2; podsh sets no limits yet",
		root + v1:      "v1; podsh sets no limits yet",
		root + v2 + v1: "hybrid: v2 is mounted, but the controllers are v1's; podsh sets no limits yet",
	} {
		m := pretend(map[string]string{"proc/self/mountinfo": mounts})
		if got := checkCgroup(m); got != (Finding{OK: true, Finding: want}) {
			t.Errorf("got %+v\nwant %s", got, want)
		}
	}
}

// TestNextRange: ranges that are given to others are not offered again.
func TestNextRange(t *testing.T) {
	for subids, want := range map[string]int{
		"": 100000, "a:1000:5": 100000, "a:100000:65536\nb:165536:65536\n": 231072, "nonsense\na:x:y": 100000,
	} {
		if got := nextRange(subids); got != want {
			t.Errorf("%q: got %d, want %d", subids, got, want)
		}
	}
}

// TestTryNamesTheCall: a probe says which of its calls failed, and how.
func TestTryNamesTheCall(t *testing.T) {
	m := ThisMachine()
	if call, err := m.try(unix.CLONE_NEWNS); err != nil {
		mustWork(t, "no mount namespace here: %s: %v", call, err)
	}
	call, err := m.try(unix.CLONE_NEWNS, probeMount(rootfs.Mount{Type: "nosuchfs"})...)
	if call != "mount nosuchfs on /proc" || err != syscall.Errno(unix.ENODEV) {
		t.Errorf("got %s: %v", call, err)
	}
}

// TestDoctorOfKeys: how many keys a user has, and may have.
func TestDoctorOfKeys(t *testing.T) {
	const limits = "proc/sys/kernel/keys/maxkeys"
	for _, test := range []struct {
		files map[string]string
		uid   int
		want  Finding
	}{
		{map[string]string{}, 1000, Finding{}},
		{map[string]string{limits: "200", "proc/sys/kernel/keys/maxbytes": "20000", "proc/key-users": " 7:     3 3/3 200/200 45/20000\n"}, 1000,
			Finding{OK: true, Finding: "0 of 200 in use (kernel.keys.maxkeys); a pod takes one"}},
		{map[string]string{"proc/key-users": " 1000:     3 3/3 9/200 45/20000\n"}, 1000,
			Finding{OK: true, Finding: "9 of 200 in use (kernel.keys.maxkeys); a pod takes one"}},
		{map[string]string{"proc/key-users": "    0:     3 3/3 9/1000000 45/25000000\n"}, 0,
			Finding{OK: true, Finding: "9 of 1000000 in use (kernel.keys.root_maxkeys); a pod takes one"}},
		{map[string]string{"proc/key-users": " 1000:     3 3/3 231/200 45/20000\n"}, 1000,
			Finding{Finding: "you have 231 keys, and kernel.keys.maxkeys is 200", Lost: "keys for other programs, in pods and outside: add_key(2) says EDQUOT",
				Fix: "sudo sysctl -w kernel.keys.maxkeys=2000"}},
		{map[string]string{"proc/key-users": " 1000:     3 3/3 31/200 19999/20000\n"}, 1000,
			Finding{Finding: "your keys take 19999 bytes, and kernel.keys.maxbytes is 20000", Lost: "keys for other programs, in pods and outside: add_key(2) says EDQUOT",
				Fix: "sudo sysctl -w kernel.keys.maxbytes=200000"}},
	} {
		m := pretend(test.files)
		m.uid = test.uid
		if got := checkKeys(m); got != test.want {
			t.Errorf("got %+v\nwant %+v", got, test.want)
		}
	}
}

func FuzzSubIDs(f *testing.F) {
	f.Add("ada:100000:65536\n1000:5:5\n")
	f.Add("ada:-1:9223372036854775807\n#\n::\n")
	f.Fuzz(func(t *testing.T, text string) {
		file := filepath.Join(t.TempDir(), "subuid")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		ranges, _ := Subids(file, "ada", 1000)
		for _, r := range ranges {
			if r.Count == 0 || uint64(r.Start)+uint64(r.Count) > 1<<32 {
				t.Errorf("%q: %v", text, r)
			}
		}
	})
}
