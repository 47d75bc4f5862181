package sandbox

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/nsenter"
	"github.com/podsh/podsh/rootfs"
)

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
	m := thisMachine()
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
