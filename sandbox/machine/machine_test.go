package machine

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/rootfs"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/plan"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/proc"
	"github.com/podsh/podsh/sandbox/spec"
)

// tree makes files below a folder: a name that ends in a slash is a folder, a text that begins with -> a link.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		switch to, link := strings.CutPrefix(text, "->"); {
		case strings.HasSuffix(name, "/"):
			err = errors.Join(err, os.MkdirAll(path, 0o755))
		case link:
			err = errors.Join(err, os.Symlink(to, path))
		default:
			err = errors.Join(err, os.WriteFile(path, []byte(text), 0o644))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func facts(dir string) (*plan.Facts, error) {
	f := &plan.Facts{Kernel: KernelVersion()}
	return f, ReadRootFacts(f, &spec.Spec{Rootfs: rootfs.Source{Kind: "dir", Dir: dir}}, false)
}

func TestAFolderIsReadAsIfItWereTheRoot(t *testing.T) {
	f, err := facts(tree(t, map[string]string{
		"proc/": "", "dev/": "", "etc/hosts": "", "etc/hostname": "->/etc/hosts", "etc/resolv.conf": "->../../../../../../../../etc/passwd",
		"etc/passwd": "->/lib/passwd", "lib/passwd": "me:x:7:7::/:/bin/sh\n", "etc/group": "->/dev/../../proc/self/status",
	}))
	if err != nil {
		t.Fatal(err)
	}
	for path, missing := range map[string]bool{"/proc": false, "/dev": false, "/sys": true} {
		if f.Dir.Missing[path] != missing {
			t.Errorf("%s is missing: %v", path, f.Dir.Missing[path])
		}
	}
	if !f.Dir.Files["/etc/hosts"] {
		t.Error("/etc/hosts is a file")
	}
	if f.Passwd != "me:x:7:7::/:/bin/sh\n" { // by a link that is the root's, and not the host's
		t.Errorf("/etc/passwd: %q", f.Passwd)
	}
	if f.Group != "" {
		t.Errorf("/etc/group leads out: %q", f.Group)
	}
}

func TestAFolderThatIsNoRoot(t *testing.T) {
	for name, dir := range map[string]string{
		"it is not there":    filepath.Join(t.TempDir(), "x"),
		"it is a file":       filepath.Join(tree(t, map[string]string{"x": ""}), "x"),
		"proc is a file":     tree(t, map[string]string{"proc": ""}),
		"dev is a link away": tree(t, map[string]string{"dev": "->/dev"}),
	} {
		if _, err := facts(dir); err == nil || !strings.HasPrefix(err.Error(), "rootfs "+dir+": ") || len(fault.Hints(err)) != 1 {
			t.Errorf("%s: %v %q", name, err, fault.Hints(err))
		}
	}
}

func TestLayersAreReadFromTheHighest(t *testing.T) {
	low := tree(t, map[string]string{"etc/passwd": "low", "etc/group": "low", "etc/hosts": "low", "proc": "what the image has is no folder"})
	high := tree(t, map[string]string{"etc/passwd": "high", "etc/hosts/": "", "etc/resolv.conf": ""})
	f := &plan.Facts{}
	ReadLayers(f, []string{low, high})
	if f.Passwd != "high" || f.Group != "low" {
		t.Errorf("passwd %q, group %q", f.Passwd, f.Group)
	}
	for name, is := range map[string]bool{"/etc/hosts": false, "/etc/resolv.conf": true, "/etc/hostname": false} {
		if f.Dir.Files[name] != is {
			t.Errorf("%s is a file: %v", name, f.Dir.Files[name])
		}
	}
	for _, path := range plan.MountPoints {
		if !f.Dir.Missing[path] {
			t.Errorf("%s is not made sure of", path)
		}
	}
}

func TestVolumesAreToBeThere(t *testing.T) {
	dir := tree(t, map[string]string{"file": "", "folder/": ""})
	wanted := &spec.Spec{Rootfs: rootfs.Source{Kind: "host"}, Volumes: []rootfs.Volume{{Source: dir + "/file"}, {Source: dir + "/folder"}}}
	f := &plan.Facts{Kernel: KernelVersion()}
	if err := ReadRootFacts(f, wanted, true); err != nil || len(f.Volumes) != 2 || f.Volumes[0] || !f.Volumes[1] || len(f.Host) == 0 || len(f.Mounts) == 0 {
		t.Errorf("%v, %v", f.Volumes, err)
	}
	wanted.Volumes[0].Source = dir + "/none"
	if err := ReadRootFacts(f, wanted, false); !errors.Is(err, os.ErrNotExist) || len(fault.Hints(err)) != 1 {
		t.Errorf("one that is not there: %v %q", err, fault.Hints(err))
	}
}

func TestAHostsFileIsBounded(t *testing.T) {
	dir := tree(t, map[string]string{"most": strings.Repeat("#", mostHosts), "more": strings.Repeat("#", mostHosts+1)})
	for name, ok := range map[string]bool{"most": true, "more": false, "none": false} {
		wanted := &spec.Spec{}
		wanted.Net.HostsFile = filepath.Join(dir, name)
		f := &plan.Facts{}
		if err := readNames(f, wanted); (err == nil) != ok || ok && len(f.Hosts) != mostHosts || !ok && (f.Hosts != "" || len(fault.Hints(err)) != 1) {
			t.Errorf("%s: %d bytes, %v %q", name, len(f.Hosts), err, fault.Hints(err))
		}
	}
}

func TestThePodsResolvConfIsFoundThroughNoLink(t *testing.T) {
	for name, test := range map[string]struct {
		files map[string]string
		is    bool
	}{
		"a file":                  {map[string]string{"etc/resolv.conf": ""}, true},
		"a link":                  {map[string]string{"etc/resolv.conf": "->hosts", "etc/hosts": ""}, false},
		"a link out":              {map[string]string{"etc/resolv.conf": "->/etc/passwd"}, false},
		"below a link":            {map[string]string{"etc": "->real", "real/resolv.conf": ""}, false},
		"nothing":                 {map[string]string{"etc/": ""}, false},
		"something in its folder": {map[string]string{"etc/resolv.conf/x": ""}, true},
	} {
		dir := tree(t, test.files)
		root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		fd, id, err := FindResolvConf(root)
		unix.Close(root)
		if (err == nil) != test.is {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil {
			continue
		}
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(dir, "etc/resolv.conf"), &st); err != nil || id != (pod.FileID{Device: st.Dev, Inode: st.Ino}) {
			t.Errorf("%s: %+v, %v", name, id, err)
		}
		unix.Close(fd)
	}
}

func TestNamespacesByTheirFiles(t *testing.T) {
	for _, test := range []struct {
		option, path string
		root         bool
		want         string // "": it can be entered
	}{
		{"net", "/proc/self/ns/net", true, ""},
		{"net", "/proc/self/ns/uts", true, "is no net namespace"},
		{"net", "/proc/self/stat", true, "is no net namespace"},
		{"net", "/no/such/file", true, "no such file"},
		{"net", "/proc/self/ns/net", false, "user namespace"}, // that we are in, or one out of reach
		{"user", "/proc/self/ns/user", false, ""},
	} {
		f := &plan.Facts{Root: test.root}
		wanted := &spec.Spec{Namespaces: map[string]spec.Choice{test.option: {Kind: "path", Value: test.path}}}
		var entrances Entrances
		err := entrances.read(f, wanted, nil)
		if (err == nil) != (test.want == "") || err != nil && (!strings.Contains(err.Error(), test.want) || len(fault.Hints(err)) != 1) {
			t.Errorf("%+v: %v %q", test, err, fault.Hints(err))
		}
		if err == nil && (len(f.Enter) != 1 || f.Enter[0].What != test.path) || err != nil && len(f.Enter) != 0 {
			t.Errorf("%+v: %+v", test, f.Enter)
		}
		entrances.Close()
	}
}

func TestTheRootOfAHolderThatHasEndedIsNobodyElses(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	pidfd := os.NewFile(uintptr(fd), "pidfd")
	defer pidfd.Close()
	p := &pod.Pod{Spec: spec.Spec{Name: "web"}, Holder: proc.ID{PID: cmd.Process.Pid}}
	root, err := OpenRoot(p, pidfd)
	if err != nil {
		t.Fatal(err)
	}
	var ours, its unix.Stat_t
	if err := errors.Join(unix.Stat("/", &ours), unix.Fstat(root, &its)); err != nil || ours.Ino != its.Ino || ours.Dev != its.Dev {
		t.Errorf("another root: %v", err)
	}
	unix.Close(root)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	p.Holder.PID = os.Getpid() // as if the number had been given to another process
	if _, err := OpenRoot(p, pidfd); !errors.Is(err, fault.ErrExited) || len(fault.Hints(err)) != 1 {
		t.Errorf("%v %q", err, fault.Hints(err))
	}
}

func TestWhatNobodyHasIsNotGiven(t *testing.T) {
	own := &pod.Pod{Namespaces: map[string]spec.Choice{"user": {Kind: "new"}}}
	if err := CheckHeld([]string{"SYS_ADMIN", "ALL"}, JoinerHolds(own)); err != nil {
		t.Errorf("in a user namespace of the pod's: %v", err)
	}
	held := []capability.Cap{capability.CAP_CHOWN}
	if err := CheckHeld([]string{"chown", "all"}, held); err != nil {
		t.Errorf("what is held: %v", err)
	}
	if err := CheckHeld([]string{"chown", "net_raw"}, held); err == nil || !strings.Contains(err.Error(), "net_raw") || len(fault.Hints(err)) != 1 {
		t.Errorf("what is not: %v %q", err, fault.Hints(err))
	}
}

func TestTheKernelIsThatOfUname(t *testing.T) {
	out, err := exec.Command("uname", "-r").Output()
	if v := KernelVersion(); err != nil || !strings.HasPrefix(string(out), fmt.Sprintf("%d.%d", v.Major, v.Minor)) || v.Major < 5 {
		t.Errorf("%v, and uname says %s: %v", v, out, err)
	}
}
