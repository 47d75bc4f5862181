package command

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// home is where one test's pods live: a store, and a copy of podsh that no other test runs. Which processes
// are this test's is told by the file they run from; a name or a parent would not tell.
type home struct {
	dir   string
	podsh string
}

func (h *home) root() string { return filepath.Join(h.dir, ".pods") }

func (h *home) images() string { return filepath.Join(h.dir, ".local/share/podsh/images") }

// env is what a person's shell would have, with this test's podsh first in PATH.
func (h *home) env() []string {
	return []string{
		"PATH=" + filepath.Dir(h.podsh) + ":" + os.Getenv("PATH") + ":/usr/local/sbin:/usr/sbin:/sbin",
		"PODSH_ROOT=" + h.root(),
		"HOME=" + h.dir,
		"LANG=C.UTF-8",
	}
}

// run runs podsh and returns what it wrote, on stdout and on stderr.
func (h *home) run(args ...string) (stdout, stderr string, err error) {
	cmd := h.command(args...)
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	err = cmd.Run()
	return out.String(), complaints.String(), err
}

func (h *home) command(args ...string) *exec.Cmd {
	cmd := exec.Command(h.podsh, args...)
	cmd.Env = h.env()
	return cmd
}

// clear removes all pods and returns what is left nevertheless: processes that run this test's podsh (they
// are killed), or files in its store. Ends are awaited, for a while.
func (h *home) clear() string {
	if _, err := os.Stat(h.root()); err == nil {
		// A session may have spoilt the store on purpose: then the processes tell.
		_ = h.command("rm", "--force", "--all").Run()
	}
	if _, err := os.Stat(h.images()); err == nil {
		_ = h.command("image", "prune", "--all").Run() // files of layers may belong to ids that only podsh can be
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		left := h.processes()
		if len(left) == 0 {
			return strings.Join(h.files(), ", ")
		}
		if time.Now().After(deadline) {
			return strings.Join(h.kill(left), ", ")
		}
	}
}

// processes lists those that run this test's podsh.
func (h *home) processes() []int {
	mine, err := os.Stat(h.podsh)
	if err != nil {
		return nil
	}
	var pids []int
	entries, _ := os.ReadDir("/proc") // /proc is there
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if exe, err := os.Stat(filepath.Join("/proc", entry.Name(), "exe")); err == nil && os.SameFile(exe, mine) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// files lists what is in the store, or was written by pods, though there are none.
func (h *home) files() []string {
	var left []string
	for _, pattern := range []string{"pods/*", "names/*", "mnt/*", "new-*", "gone-*", "hub", "leases"} {
		found, _ := filepath.Glob(filepath.Join(h.root(), pattern)) // the patterns are good ones
		left = append(left, found...)
	}
	written, _ := filepath.Glob(filepath.Join(h.dir, ".local/share/podsh/upper/*")) // by pods, on disk
	left = append(left, written...)
	for _, pattern := range []string{"blobs/sha256/*", "layers/*/[!l]*"} { // of images; lock-* stays
		found, _ := filepath.Glob(filepath.Join(h.images(), pattern))
		left = append(left, found...)
	}
	return left
}

func (h *home) kill(pids []int) []string {
	var names []string
	for _, pid := range pids {
		cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) // it may have gone just now
		words := strings.Join(strings.Split(strings.TrimRight(string(cmdline), "\x00"), "\x00"), " ")
		names = append(names, fmt.Sprintf("process %d (%s)", pid, words))
		_ = unix.Kill(pid, unix.SIGKILL) // and may have gone now
	}
	return names
}

func newHome(dir string) (*home, error) {
	h := &home{dir, filepath.Join(dir, ".bin", "podsh")}
	if err := os.MkdirAll(filepath.Dir(h.podsh), 0o755); err != nil {
		return nil, err
	}
	return h, copyFile(podshBinary, h.podsh, 0o755)
}

// copyFile makes a program to run. No process may be forked meanwhile: it would hold the file open for
// writing until it execs, and what is open for writing can't be run, execve(2).
func copyFile(from, to string, mode fs.FileMode) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return os.WriteFile(to, text, mode)
}

// The hard days: what a script can't show, since it needs a process killed at the wrong moment, many at
// once, or a full disk.

// newTestHome is a store and a podsh of this test's own; when the test ends nothing may be left of them.
func newTestHome(t *testing.T) *home {
	t.Helper()
	h, err := newHome(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if left := h.clear(); left != "" {
			t.Errorf("left over: %s", left)
		}
	})
	return h
}

// must runs podsh, which has to succeed.
func (h *home) must(t *testing.T, args ...string) string {
	t.Helper()
	stdout, stderr, err := h.run(args...)
	if err != nil {
		t.Fatalf("podsh %s: %v\n%s", strings.Join(args, " "), err, stderr)
	}
	return strings.TrimSpace(stdout)
}
