package command

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pids lists the holders of the pods that podsh knows of and thinks are running.
func (h *home) pids(t *testing.T) []string {
	t.Helper()
	return strings.Fields(h.must(t, "ps", "--format", "{{.PID}}"))
}

// TestCreateInterrupted ends `podsh create` at a hundred moments of its short life. What keeps running after
// that is a pod that can be seen and removed.
func TestCreateInterrupted(t *testing.T) {
	for _, signal := range []syscall.Signal{unix.SIGKILL, unix.SIGINT, unix.SIGTERM, unix.SIGHUP} {
		t.Run(unix.SignalName(signal), func(t *testing.T) {
			t.Parallel()
			h := newTestHome(t)
			life := h.lifeOfCreate(t)
			for range 50 {
				h.interruptCreate(t, signal, rand.N(life))
			}
			h.onlyPodsRun(t)
			h.must(t, "rm", "-f", "--all")
			if left := h.must(t, "ps", "-a", "-q"); left != "" {
				t.Errorf("after rm -f --all there are still %q", left)
			}
		})
	}
}

// lifeOfCreate measures how long a create takes here and now, and a bit.
func (h *home) lifeOfCreate(t *testing.T) time.Duration {
	t.Helper()
	start := time.Now()
	for range 3 {
		h.must(t, "create")
	}
	return time.Since(start) / 2
}

func (h *home) interruptCreate(t *testing.T, signal syscall.Signal, after time.Duration) {
	t.Helper()
	create := h.command("create", "--name", "web")
	if err := create.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(after, func() { _ = create.Process.Signal(signal) }) // it may have ended
	err := create.Wait()
	timer.Stop()
	if err == nil {
		h.must(t, "rm", "-f", "web")
		return
	}
	// It may have been killed just after the pod was made: then the name is taken, by a pod that is there.
	if _, _, err := h.run("rm", "-f", "web"); err != nil && exitStatus(err) != exitError {
		t.Errorf("rm -f web: %v", err)
	}
}

// onlyPodsRun waits until all processes of this test are holders of pods that podsh knows.
func (h *home) onlyPodsRun(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		known := map[string]bool{}
		for _, pid := range h.pids(t) {
			known[pid] = true
		}
		var left []int
		for _, pid := range h.processes() {
			if !known[fmt.Sprint(pid)] {
				left = append(left, pid)
			}
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("processes of no pod are left: %s", strings.Join(h.kill(left), ", "))
		}
	}
}

// TestCreateGroupKilled: when the shell that a create runs in is gone in the middle of it, with the
// whole process group, no half of a pod stays.
func TestCreateGroupKilled(t *testing.T) {
	t.Parallel()
	h := newTestHome(t)
	life := h.lifeOfCreate(t)
	for range 30 {
		create := h.command("create")
		create.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := create.Start(); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(rand.N(life), func() { _ = unix.Kill(-create.Process.Pid, unix.SIGKILL) })
		_ = create.Wait() // killed, or not
	}
	h.onlyPodsRun(t)
}

// TestManyAtOnce makes and removes a hundred pods at once.
func TestManyAtOnce(t *testing.T) {
	h := newTestHome(t)
	var group sync.WaitGroup
	errs := make(chan error, 100)
	for i := range 100 {
		group.Go(func() {
			name := fmt.Sprintf("pod%d", i)
			if _, stderr, err := h.run("create", "--name", name); err != nil {
				errs <- fmt.Errorf("create %s: %w\n%s", name, err, stderr)
				return
			}
			if _, stderr, err := h.run("join", name, "--", "true"); err != nil {
				errs <- fmt.Errorf("join %s: %w\n%s", name, err, stderr)
			}
			if i%2 == 0 {
				return
			}
			if _, stderr, err := h.run("rm", "-f", name); err != nil {
				errs <- fmt.Errorf("rm %s: %w\n%s", name, err, stderr)
			}
		})
	}
	group.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	if n := len(strings.Fields(h.must(t, "ps", "-q"))); n != 50 {
		t.Errorf("%d pods are left, not 50", n)
	}
	h.must(t, "rm", "-f", "--all")
}

// TestOneNameManyPods: of ten that want the same name at once exactly one gets it, and the others say why.
func TestOneNameManyPods(t *testing.T) {
	t.Parallel()
	h := newTestHome(t)
	for range 5 {
		var group sync.WaitGroup
		var mu sync.Mutex
		var ids []string
		for range 10 {
			group.Go(func() {
				stdout, stderr, err := h.run("create", "--name", "web")
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					ids = append(ids, strings.TrimSpace(stdout))
				} else if !strings.Contains(stderr, `"web"`) {
					t.Errorf("refused, but not for the name: %s", stderr)
				}
			})
		}
		group.Wait()
		if len(ids) != 1 || h.must(t, "ps", "-q") != ids[0] {
			t.Fatalf("the name went to %q", ids)
		}
		h.must(t, "rm", "-f", "web")
		h.onlyPodsRun(t)
	}
}

// TestRemovedTwiceAtOnce: of many that remove the same pod, one does, and none leaves a mess.
func TestRemovedTwiceAtOnce(t *testing.T) {
	t.Parallel()
	h := newTestHome(t)
	for range 5 {
		h.must(t, "create", "--name", "web")
		var group sync.WaitGroup
		for range 5 {
			group.Go(func() {
				_, stderr, err := h.run("rm", "-f", "web")
				if err != nil && !strings.Contains(stderr, "web") {
					t.Errorf("rm -f web: %v: %s", err, stderr)
				}
			})
		}
		group.Wait()
		if left := h.must(t, "ps", "-a", "-q"); left != "" {
			t.Fatalf("%q is left", left)
		}
	}
}

// TestRemoveInterrupted kills `podsh rm -f` at any moment; a second one ends its work.
func TestRemoveInterrupted(t *testing.T) {
	t.Parallel()
	h := newTestHome(t)
	for range 30 {
		h.must(t, "create", "--name", "web")
		rm := h.command("rm", "-f", "web")
		if err := rm.Start(); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(rand.N(15*time.Millisecond), func() { _ = rm.Process.Kill() })
		_ = rm.Wait() // killed, or not
		h.must(t, "ps", "-a")
		h.must(t, "rm", "-f", "--all")
		if left := h.must(t, "ps", "-a", "-q"); left != "" {
			t.Fatalf("%q is left", left)
		}
	}
	h.onlyPodsRun(t)
}

// TestJoinersEndWithThePod: none of many joined commands outlives the pod, and each joiner says so with its
// status.
func TestJoinersEndWithThePod(t *testing.T) {
	t.Parallel()
	h := newTestHome(t)
	h.must(t, "create", "--name", "web")
	var joiners []*exec.Cmd
	for i := range 10 {
		args := []string{"join", "web", "--", "sleep", "308"}
		if i%2 == 1 {
			args = []string{"join", "--workdir", "/", "web", "--", "sleep", "308"}
		}
		join := h.command(args...)
		if err := join.Start(); err != nil {
			t.Fatal(err)
		}
		joiners = append(joiners, join)
	}
	h.must(t, "rm", "-f", "web")
	for _, join := range joiners {
		// One that came before the end was killed with the pod; one that came after it found none.
		if status := exitStatus(join.Wait()); status != 128+int(unix.SIGKILL) && status != 128+int(unix.SIGTERM) && status != exitJoinError {
			t.Errorf("a joiner ended with status %d", status)
		}
	}
}

// TestDiskFull: where the store's disk is full, create says so, and leaves nothing half-made.
func TestDiskFull(t *testing.T) {
	h := newTestHome(t)
	script := `mkdir -p "$PODSH_ROOT" && mount -t tmpfs -o size=64k,mode=700 full "$PODSH_ROOT" || exit 100
podsh create --name first || exit 101
head -c 1000000 /dev/zero >"$PODSH_ROOT/ballast" 2>/dev/null
podsh create --name second 2>"$HOME/stderr" && exit 102
podsh ps -a || exit 103
podsh join first -- true || exit 104
podsh rm -f first || exit 105
rm "$PODSH_ROOT/ballast"
podsh create --name third || exit 106
podsh rm -f --all || exit 107
test -z "$(ls "$PODSH_ROOT/pods" "$PODSH_ROOT/names" | grep -v :)" || exit 108`
	cmd := h.inMountNamespace("sh", "-c", script)
	out, err := cmd.CombinedOutput()
	stderr, _ := os.ReadFile(filepath.Join(h.dir, "stderr")) // not there: then it did not come so far
	switch status := exitStatus(err); {
	case status == 100 && os.Getenv("PODSH_MUST_WORK") != "1":
		t.Skip("no tmpfs can be mounted here")
	case status != 0:
		t.Fatalf("step %d: %v\n%s%s", status, err, out, stderr)
	}
	text := string(stderr)
	if !strings.Contains(text, "no space left on device") || !hintLine.MatchString(text) {
		t.Errorf("a full disk is reported as:\n%s", text)
	}
	if strings.Contains(string(out), "second") {
		t.Errorf("the pod that could not be made is listed:\n%s", out)
	}
}

// inMountNamespace is a command that may mount: in a mount namespace of its own, and for an ordinary user in
// a user namespace as well.
func (h *home) inMountNamespace(args ...string) *exec.Cmd {
	unshare := []string{"--mount"}
	if os.Getuid() != 0 {
		unshare = []string{"--mount", "--user", "--map-root-user"}
	}
	cmd := exec.Command("unshare", append(append(unshare, "--"), args...)...)
	cmd.Env = h.env()
	return cmd
}

// TestOutOfProcesses: where no process can be started there is no pod, and nothing of it.
func TestOutOfProcesses(t *testing.T) {
	if os.Getuid() == 0 {
		return // no such limit for root: setrlimit(2)
	}
	h := newTestHome(t)
	h.must(t, "ps")
	cmd := exec.Command("prlimit", "--nproc=1", h.podsh, "create")
	cmd.Env = h.env()
	if out, err := cmd.CombinedOutput(); err == nil {
		t.Errorf("a pod without a process: %s", out)
	}
	if left := h.must(t, "ps", "-a", "-q"); left != "" {
		t.Errorf("%q is left", left)
	}
}

// TestHolderIsSmall: a holder is one thread and no Go runtime: a few dozen kB.
func TestHolderIsSmall(t *testing.T) {
	t.Parallel()
	h := newTestHome(t)
	h.must(t, "create", "--name", "web")
	pid := h.pids(t)[0]
	status, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		t.Fatal(err)
	}
	var rss int
	for line := range strings.Lines(string(status)) {
		if n, _ := fmt.Sscanf(line, "VmRSS: %d kB", &rss); n == 1 {
			break
		}
	}
	if !strings.Contains(string(status), "Threads:\t1\n") || rss > 4096 {
		t.Errorf("the holder has become big:\n%s", status)
	}
}

// TestPrivilegedFile: a podsh that is setuid or setgid, or has file capabilities, would do for everybody what only some
// may, so it does nothing.
func TestPrivilegedFile(t *testing.T) {
	if os.Getuid() != 0 {
		return // nobody else can make such a file that another one runs
	}
	dir := t.TempDir()
	for _, folder := range []string{dir, filepath.Dir(dir)} { // open to others
		if err := os.Chmod(folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	const nobody = 65534
	capabilities := []byte{1, 0, 0, 2, 0, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0} // struct vfs_cap_data: SYS_ADMIN, effective
	for name, privilege := range map[string]func(path string) error{
		"plain":        func(string) error { return nil },
		"setuid":       func(path string) error { return os.Chmod(path, 0o755|os.ModeSetuid) },
		"setgid":       func(path string) error { return os.Chmod(path, 0o755|os.ModeSetgid) },
		"capabilities": func(path string) error { return unix.Setxattr(path, "security.capability", capabilities, 0) },
	} {
		path := filepath.Join(dir, name)
		if err := copyFile(podshBinary, path, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := privilege(path); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"version"}, {"create"}, {"join", "web", "--", "id"}} {
			cmd := exec.Command(path, args...)
			cmd.Dir, cmd.Env = "/", []string{"PODSH_ROOT=/nonexistent/pods"}
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
			out, err := cmd.CombinedOutput()
			refused := exitStatus(err) == exitError && strings.Contains(string(out), "podsh: error: podsh has privileges") && strings.Contains(string(out), "podsh: hint: ")
			if refused != (name != "plain") {
				t.Errorf("%s: podsh %s: %v\n%s", name, strings.Join(args, " "), err, out)
			}
		}
	}
}
