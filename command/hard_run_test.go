package command

import (
	"archive/tar"
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// containerHome is a test home with a pod called web, and a root file system of busybox for its containers, all of which
// sleep for a time that no other process does.
type containerHome struct {
	*home
	rootfs, sleep string
}

func newContainerHome(t *testing.T) *containerHome {
	t.Helper()
	h := &containerHome{newTestHome(t), filepath.Join(t.TempDir(), "rootfs"), fmt.Sprint(1e6+rand.IntN(1e6)) + ".5"}
	if err := makeRootfs(h.rootfs); err != nil {
		t.Fatal(err)
	}
	h.must(t, "create", "--name", "web")
	return h
}

// run are the arguments that run a container; flags stand before its name.
func (h *containerHome) runArgs(flags ...string) []string {
	return append(append([]string{"run", "--pod", "web"}, flags...), "--rootfs", h.rootfs, "sh", "-c", "sleep "+h.sleep+" & exec sleep "+h.sleep)
}

// sleepers counts the processes of containers.
func (h *containerHome) sleepers() (n int) {
	commands, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range commands {
		if text, err := os.ReadFile(file); err == nil && strings.Contains(string(text), "sleep\x00"+h.sleep) {
			n++
		}
	}
	return n
}

// settles waits until there are so many processes of containers.
func (h *containerHome) settles(t *testing.T, want int) {
	t.Helper()
	h.settlesAt(t, func() int { return want })
}

// settlesAt is settles where what is wanted may change meanwhile.
func (h *containerHome) settlesAt(t *testing.T, want func() int) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); h.sleepers() != want(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d processes of containers, not %d", h.sleepers(), want())
		}
	}
}

// watchers are the pids of those who watch over containers that run.
func (h *containerHome) watchers(t *testing.T) []int {
	t.Helper()
	var rows []struct {
		State struct {
			Watcher struct{ PID int }
		}
	}
	if err := json.Unmarshal([]byte(h.must(t, "ps", "-c", "--json")), &rows); err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, row := range rows {
		pids = append(pids, row.State.Watcher.PID)
	}
	return pids
}

// TestRunInterrupted ends `podsh run` at many moments of its life, in the foreground and detached: what runs after that
// is a container that can be seen and removed, and of others nothing is left.
func TestRunInterrupted(t *testing.T) {
	for _, flags := range [][]string{{}, {"-d"}, {"--rm"}, {"-d", "--rm", "--pid", "private"}} {
		for _, signal := range []syscall.Signal{unix.SIGKILL, unix.SIGTERM} {
			t.Run(fmt.Sprint(flags, unix.SignalName(signal)), func(t *testing.T) {
				h := newContainerHome(t)
				start := time.Now()
				h.must(t, h.runArgs("-d")...)
				life := 2 * time.Since(start)
				for range 10 {
					run := h.command(h.runArgs(flags...)...)
					if err := run.Start(); err != nil {
						t.Fatal(err)
					}
					timer := time.AfterFunc(rand.N(life), func() { _ = run.Process.Signal(signal) }) // it may have ended
					_ = run.Wait()                                                                   // however it ends
					timer.Stop()
					h.must(t, "ps", "-c", "-a")
				}
				// The supervisor goes on with what it was asked for when the last client was killed.
				h.settlesAt(t, func() int { return 2 * len(h.watchers(t)) })
				h.must(t, "rm", "-f", "--all")
				h.settles(t, 0)
			})
		}
	}
}

// killAndWait kills a process that is no child of ours, and waits until it has ended: until then it is there.
func killAndWait(t *testing.T, pid int) {
	t.Helper()
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err == unix.ESRCH {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	if err := unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
		t.Fatal(err)
	}
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 10_000)
		if err == unix.EINTR {
			continue
		}
		if n != 1 {
			t.Fatalf("process %d does not end: %v", pid, err)
		}
		return
	}
}

// TestSupervisorKilled kills a pod's supervisor again and again: its containers end with it, and the one that is to
// go on does, under a new one.
func TestSupervisorKilled(t *testing.T) {
	h := newContainerHome(t)
	h.must(t, h.runArgs("-d", "--name", "once")...)
	h.must(t, h.runArgs("-d", "--name", "always", "--restart", "always")...)
	for range 2 { // the second restart waits for ten seconds
		for _, pid := range h.watchers(t) {
			killAndWait(t, pid)
		}
		h.must(t, "ps", "-c", "-a")
		if out := h.must(t, "ps", "-c", "-a"); !strings.Contains(out, "exited (137)") {
			t.Errorf("once is not exited:\n%s", out)
		}
		for deadline := time.Now().Add(5 * time.Second); h.sleepers() != 2 && !strings.Contains(h.must(t, "ps", "-c"), "restarting in"); {
			if time.Now().After(deadline) {
				t.Fatalf("always does not start once more:\n%s", h.must(t, "ps", "-c", "-a"))
			}
		}
	}
	h.must(t, "rm", "-f", "web")
	h.settles(t, 0)
}

// TestPodOfContainersKilled kills the pause: with it all that is in the pod ends, and its supervisor, even where it waits
// to start a container once more; what they wrote is removed with the pod.
func TestPodOfContainersKilled(t *testing.T) {
	h := newContainerHome(t)
	for _, pids := range []string{"shared", "private"} {
		h.must(t, h.runArgs("-d", "--name", pids, "--pid", pids, "--restart", "always")...)
	}
	h.must(t, "run", "-d", "--pod", "web", "--name", "fails", "--restart", "always", "--rootfs", h.rootfs, "sh", "-c", "exit 1")
	for deadline := time.Now().Add(5 * time.Second); !strings.Contains(h.must(t, "ps", "-c"), "restarting in"); {
		if time.Now().After(deadline) {
			t.Fatal("what fails again and again is not waited with")
		}
	}
	for _, pid := range h.pids(t) {
		var holder int
		fmt.Sscan(pid, &holder)
		if err := unix.Kill(holder, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	h.settles(t, 0)
	h.onlyPodsRun(t)
	out := h.must(t, "ps", "-c", "-a")
	if strings.Count(out, "exited (137)") != 2 || strings.Count(out, "exited (1)") != 1 {
		t.Errorf("not all have ended as they did:\n%s", out)
	}
	if _, stderr, err := h.run("start", "web/shared"); err == nil || !strings.Contains(stderr, `pod "web" has ended`) {
		t.Errorf("start in a pod that has ended: %v\n%s", err, stderr)
	}
	h.must(t, "rm", "web")
	if left, _ := filepath.Glob(filepath.Join(h.dir, ".local/share/podsh/upper/*")); len(left) > 0 {
		t.Errorf("left on disk: %q", left)
	}
}

// TestManyContainersAtOnce: a pod with many starts and stops at the same time has one supervisor, and in the end none.
func TestManyContainersAtOnce(t *testing.T) {
	h := newContainerHome(t)
	const many = 20
	failed := make(chan string, many)
	for i := range many {
		go func() {
			name := fmt.Sprintf("c%d", i)
			for _, args := range [][]string{h.runArgs("-d", "--name", name), {"stop", "-t", "0", "web/" + name}, {"start", "web/" + name}} {
				if _, stderr, err := h.run(args...); err != nil {
					failed <- fmt.Sprintf("podsh %s: %v\n%s", strings.Join(args, " "), err, stderr)
					return
				}
			}
			failed <- ""
		}()
	}
	for range many {
		if why := <-failed; why != "" {
			t.Error(why)
		}
	}
	h.settles(t, 2*many)
	watchers := map[int]bool{}
	for _, pid := range h.watchers(t) {
		watchers[pid] = true
	}
	if len(watchers) != 1 {
		t.Errorf("%d supervisors", len(watchers))
	}
	h.must(t, "stop", "-t", "0", "web")
	h.settles(t, 0)
	h.onlyPodsRun(t)
}

// TestLargeLayer runs from a tar of a hundred thousand files.
func TestLargeLayer(t *testing.T) {
	h := newContainerHome(t)
	file, err := os.Create(filepath.Join(h.dir, "large.tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	buffered := bufio.NewWriter(file)
	w := tar.NewWriter(buffered)
	err = w.AddFS(os.DirFS(h.rootfs))
	for i := 0; i < 100_000 && err == nil; i++ {
		err = w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("many/%d/%d", i%100, i), Mode: 0o644})
	}
	if err = errors.Join(err, w.Close(), buffered.Flush()); err != nil {
		t.Fatal(err)
	}
	if got := h.must(t, "run", "--rm", "--rootfs", file.Name(), "sh", "-c", "set -- /many/*/*; echo $#"); got != "100000" {
		t.Error(got)
	}
}
