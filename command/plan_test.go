package command

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What podsh prints is what podsh does: the script of --dry-run=sh builds the same pod, and the calls of
// --dry-run=json are those that strace(1) sees.

func TestScriptBuildsTheSamePod(t *testing.T) {
	pods := map[string][]string{
		"host":         nil,
		"namespaces":   {"--ipc", "host", "--cgroupns", "host"},
		"overlay":      {"--rootfs", "ROOTFS", "--volume", "/usr:/usr:ro"},
		"read-only":    {"--read-only", "--tmpfs", "/scratch", "--volume", "ROOTFS:/vol:ro"},
		"folder":       {"--rootfs", "ROOTFS:rw", "--volume", "/usr:/usr:ro"},
		"clocks":       {"--time", "boottime=+1d"},
		"host network": {"--net", "host"},
		"unmasked":     {"--unmask", "all"},
	}
	if hasSubIDs() { // else there would be no root inside to umount(8)
		pods["your own user"] = []string{"--keep-id"}
	}
	for name, flags := range pods {
		t.Run(name, func(t *testing.T) {
			h := newTestHome(t)
			rootfs := filepath.Join(h.dir, "rootfs")
			makeRootWithoutUsr(t, rootfs)
			args := []string{"create", "--name", "same"}
			for _, flag := range flags {
				args = append(args, strings.ReplaceAll(flag, "ROOTFS", rootfs))
			}
			script := h.must(t, append(args, "--dry-run=sh")...)
			h.must(t, args...)
			ours := h.pids(t)[0]
			theirs := h.byHand(t, script)
			for _, look := range []struct {
				what string
				at   func(*testing.T, string) string
			}{
				{"namespaces", differingNamespaces}, {"uid_map", procFile("uid_map")}, {"gid_map", procFile("gid_map")},
				{"mounts", mountTable}, {"capabilities", capabilities},
				{"host name", inside("uts", "hostname")}, {"interfaces", inside("net", "ip", "-brief", "address")},
				{"clocks", procFile("timens_offsets")},
			} {
				if a, b := look.at(t, ours), look.at(t, theirs); a != b {
					t.Errorf("%s\npodsh:\n%s\nby hand:\n%s", look.what, a, b)
				}
			}
		})
	}
}

// makeRootWithoutUsr makes a root in which the host's programs run, once its /usr is shown there: a script
// needs setpriv(1) in the pod, which busybox does not quite have.
func makeRootWithoutUsr(t *testing.T, dir string) {
	t.Helper()
	for _, sub := range []string{"etc", "usr"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, link := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := os.Symlink("usr/"+link, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
}

// byHand runs a script that builds a pod, and returns the pid of its holder, which ends with the test.
func (h *home) byHand(t *testing.T, script string) string {
	t.Helper()
	t.Cleanup(func() { // when it has ended: nobody else removes what it wrote to disk
		uppers, _ := filepath.Glob(filepath.Join(h.dir, ".local/share/podsh/upper/*")) // the pattern is a good one
		for _, upper := range uppers {
			if _, err := os.Lstat(filepath.Join(upper, "pod")); err != nil {
				_ = os.RemoveAll(upper) // what is left is reported
			}
		}
	})
	cmd := exec.Command("sh")
	cmd.Env, cmd.Stdin, cmd.Stderr = h.env(), strings.NewReader(script), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, script)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatalf("the script printed %q", out)
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		defer unix.Close(pidfd)
		if err := unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0); err != nil {
			t.Error(err)
		}
		if n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 5000); n != 1 {
			t.Errorf("the pod made by hand does not end: %v", err)
		}
	})
	awaitProgram(t, pid, "pause", "sleep")
	return strconv.Itoa(pid)
}

// awaitProgram waits until a process has become one of these programs.
func awaitProgram(t *testing.T, pid int, names ...string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if err == nil && slices.Contains(names, strings.TrimSpace(string(comm))) {
			return
		}
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("process %d is %q, none of %q: %v", pid, comm, names, err)
		}
	}
}

func differingNamespaces(t *testing.T, pid string) string {
	var differ []string
	for _, ns := range []string{"user", "pid", "uts", "ipc", "net", "mnt", "cgroup", "time"} {
		host, err := os.Readlink("/proc/self/ns/" + ns)
		if err != nil {
			t.Fatal(err)
		}
		if pod, err := os.Readlink("/proc/" + pid + "/ns/" + ns); err != nil {
			t.Fatal(err)
		} else if pod != host {
			differ = append(differ, ns)
		}
	}
	return strings.Join(differ, " ")
}

func procFile(name string) func(*testing.T, string) string {
	return func(t *testing.T, pid string) string {
		text, err := os.ReadFile("/proc/" + pid + "/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
}

// mountTable lists mount points, types and options, without the numbers that differ between any two pods.
func mountTable(t *testing.T, pid string) string {
	var rows []string
	for _, line := range strings.Split(strings.TrimSpace(procFile("mountinfo")(t, pid)), "\n") {
		mount, super, _ := strings.Cut(line, " - ")
		m, s := strings.Fields(mount), strings.Fields(super)
		rows = append(rows, strings.Join([]string{m[4], m[5], s[0], s[2]}, " "))
	}
	sort.Strings(rows)
	return strings.Join(rows, "\n")
}

func capabilities(t *testing.T, pid string) string {
	var rows []string
	for _, line := range strings.Split(procFile("status")(t, pid), "\n") {
		if strings.HasPrefix(line, "Cap") || strings.HasPrefix(line, "NoNewPrivs") || strings.HasPrefix(line, "Uid") || strings.HasPrefix(line, "Gid") {
			rows = append(rows, line)
		}
	}
	return strings.Join(rows, "\n")
}

// inside runs a program of the host's in one of the pod's namespaces.
func inside(namespace string, command ...string) func(*testing.T, string) string {
	return func(t *testing.T, pid string) string {
		if !strings.Contains(differingNamespaces(t, pid), namespace) {
			return "the host's"
		}
		args := []string{"--target", pid, "--" + namespace}
		if os.Getuid() != 0 {
			args = append(args, "--user", "--preserve-credentials")
		}
		out, err := exec.Command("nsenter", append(args, command...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("nsenter %s: %v\n%s", args, err, out)
		}
		return string(out)
	}
}

// TestPlanIsWhatStraceSees compares the pod's side of a plan with the calls of the process that holds the pod.
func TestPlanIsWhatStraceSees(t *testing.T) {
	h := newTestHome(t)
	args := []string{"create", "--name", "traced", "--read-only", "--tmpfs", "/scratch"}
	if os.Getuid() != 0 { // newuidmap gets no privileges while it is traced: execve(2)
		args = append(args, "--uidmap", fmt.Sprintf("0:%d:1", os.Getuid()), "--gidmap", fmt.Sprintf("0:%d:1", os.Getgid()))
	}
	planned := plannedCalls(t, h.must(t, append(args, "--dry-run=json")...))
	log := filepath.Join(h.dir, "strace")
	strace := exec.Command("strace", append([]string{"-f", "-qq", "-o", log, h.podsh}, args...)...)
	strace.Env = h.env()
	out, err := strace.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := strace.Start(); err != nil {
		t.Fatal(err)
	}
	id := make([]byte, 13)
	if _, err := out.Read(id); err != nil {
		t.Fatal(err)
	}
	pid := h.pids(t)[0]
	h.must(t, "rm", "-f", "traced")
	if err := strace.Wait(); err != nil {
		t.Fatal(err) // it ends with the holder
	}
	seen := tracedCalls(t, log, pid, planned)
	if len(seen) < len(planned) {
		t.Fatalf("the plan has %d calls, strace saw %d\n%q\n%q", len(planned), len(seen), planned, seen)
	}
	for i := range planned {
		if planned[i] != seen[i] {
			t.Fatalf("call %d: the plan has %q, strace saw %q", i, planned[i:min(i+5, len(planned))], seen[i:min(i+5, len(seen))])
		}
	}
}

// plannedCalls are the names of the pod's calls, from the one after the clone to the last before the pause.
func plannedCalls(t *testing.T, plan string) []string {
	var steps []struct{ Side, Call string }
	if err := json.Unmarshal([]byte(plan), &steps); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, step := range steps {
		name, _, _ := strings.Cut(step.Call, "(")
		if step.Side == "pod" && name != "clone" && name != "pause" {
			names = append(names, name)
		}
	}
	if len(names) < 100 {
		t.Fatalf("a plan of %d calls", len(names))
	}
	return names
}

// tracedCalls are the names of the calls of one process that are among planned. What the executor itself
// does (it reads plans and reports) is of other names, but for the start of a program, before main.
func tracedCalls(t *testing.T, log, pid string, planned []string) []string {
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	loading := false // the loader's and the C library's own calls, until the next plan is read
	for _, line := range strings.Split(string(text), "\n") {
		who, call, _ := strings.Cut(line, " ")
		name, args, isCall := strings.Cut(strings.TrimSpace(call), "(")
		if who == pid && name == "read" && strings.HasPrefix(args, "3,") {
			loading = false
		}
		if who != pid || !isCall || loading || !slices.Contains(planned, name) {
			continue
		}
		names = append(names, name)
		loading = name == "execveat"
	}
	return names
}
