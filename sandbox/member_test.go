package sandbox

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/member"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/proc"
	"github.com/podsh/podsh/sandbox/spec"
	"github.com/podsh/podsh/sandbox/store"
)

// A test's holder is the test binary itself with the argument pause: the constructor of package nsenter takes
// over. Should it not, the suite must not run again in its own child.
func init() {
	if len(os.Args) == 2 && os.Args[1] == "pause" {
		os.Exit(125)
	}
}

// newStore makes an empty store.
func newStore(t *testing.T) *store.Store {
	t.Helper()
	t.Setenv("PODSH_ROOT", filepath.Join(t.TempDir(), "podsh"))
	store, err := store.OpenStore()
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// handmade makes a pod without `podsh create`: the pause in new namespaces of these kinds, and a description.
func handmade(t *testing.T, s *store.Store, name string, kinds ...string) *pod.Pod {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "pause")
	one := []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	pod := &pod.Pod{Format: pod.Format, ID: store.NewID(), Created: time.Now(), Spec: spec.Spec{Name: name},
		Namespaces: map[string]spec.Choice{}, Root: s.Path}
	for _, ns := range spec.Namespaces {
		pod.Namespaces[ns.Name] = spec.Choice{Kind: "host"}
		if slices.Contains(kinds, ns.Name) {
			pod.Namespaces[ns.Name] = spec.Choice{Kind: "new"}
			cmd.SysProcAttr.Cloneflags |= uintptr(ns.Flag)
		}
	}
	if slices.Contains(kinds, "user") {
		cmd.SysProcAttr.UidMappings = one
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	if err := cmd.Start(); err != nil {
		skipOrFail(t, err)
	}
	// Reaped as the session's init would do it, so that the pid is free for others.
	go func() { _ = cmd.Wait() }()
	pidfd, err := os.FindProcess(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pidfd.Kill() })
	untilPause(t, cmd.Process.Pid)
	if pod.Holder, err = proc.Identify(cmd.Process.Pid, openPID(t, cmd.Process.Pid)); err != nil {
		t.Fatal(err)
	}
	describe(t, pod)
	return pod
}

// describe writes a pod into its store.
func describe(t *testing.T, pod *pod.Pod) {
	t.Helper()
	description, err := json.Marshal(pod)
	if err == nil {
		var n *store.Staged
		if n, err = store.StoreOf(pod).Stage(pod.ID, map[string][]byte{"pod.json": description}); err == nil {
			err = store.StoreOf(pod).Place(n, pod)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

// skipOrFail skips a test where the kernel does not let us, but not where it must.
func skipOrFail(t *testing.T, err error) {
	t.Helper()
	if os.Getenv("PODSH_MUST_WORK") == "1" {
		t.Fatal(err)
	}
	t.Skip(err)
}

func openPID(t *testing.T, pid int) *os.File {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	pidfd := os.NewFile(uintptr(fd), "pidfd")
	t.Cleanup(func() { pidfd.Close() })
	return pidfd
}

// untilPause waits until the pause takes signals: it then sleeps in rt_sigtimedwait, with SIGTERM caught.
func untilPause(t *testing.T, pid int) {
	t.Helper()
	eventually(t, "the pause to take signals", func() bool {
		status, err := proc.ReadStatus(pid)
		caught, _ := strconv.ParseUint(status["SigCgt"], 16, 64)
		return err == nil && caught&(1<<(unix.SIGCHLD-1)) != 0
	})
}

// eventually looks again and again: what is waited for has no descriptor to wait on.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited 10 s for %s", what)
		}
	}
}

// enter starts a shell script in a pod and returns when it has said, by an echo, that it is ready.
func enter(t *testing.T, pod *pod.Pod, script string) *exec.Cmd {
	t.Helper()
	args := []string{"--target", strconv.Itoa(pod.Holder.PID)}
	for _, ns := range spec.Namespaces {
		if pod.Namespaces[ns.Name].Kind == "new" {
			args = append(args, ns.Nsenter)
		}
	}
	if pod.Namespaces["user"].Kind == "new" {
		args = append(args, "--preserve-credentials")
	}
	cmd := exec.Command("nsenter", append(args, "sh", "-c", script)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Stderr = os.Stderr
	said, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
		_ = cmd.Wait()
	})
	if n, err := said.Read(make([]byte, 1)); n != 1 {
		t.Fatalf("nsenter %v: %v", args, err)
	}
	return cmd
}

// membersOf are the members' names, sorted.
func membersOf(t *testing.T, p *pod.Pod) []string {
	t.Helper()
	members, err := member.Members([]*pod.Pod{p})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, pid := range members[p.ID] {
		if status, err := proc.ReadStatus(pid); err == nil {
			names = append(names, status["Name"])
		}
	}
	slices.Sort(names)
	return names
}

func TestMembersAreToldByTheNamespaceThatIsThePodsOwn(t *testing.T) {
	store := newStore(t)
	for _, test := range []struct {
		kinds []string
		want  []string
	}{
		{[]string{"user", "pid", "mnt"}, []string{"sh", "sleep"}},
		// nsenter is in the namespaces itself but for the pid namespace, so it counts.
		{[]string{"user", "mnt"}, []string{"sh", "sleep"}},
		{[]string{"user"}, []string{"sh", "sleep"}},
	} {
		pod := handmade(t, store, "", test.kinds...)
		other := handmade(t, store, "", test.kinds...)
		enter(t, pod, "echo; sleep 1000 & wait")
		enter(t, other, "echo; exec tail -f /dev/null")
		eventually(t, "the sleep", func() bool { return slices.Contains(membersOf(t, pod), "sleep") })
		if got := membersOf(t, pod); !slices.Equal(got, test.want) {
			t.Errorf("members of a pod with %v: %q, not %q", test.kinds, got, test.want)
		}
		eventually(t, "the tail", func() bool { return slices.Equal(membersOf(t, other), []string{"tail"}) })
	}
}

func TestProcessesInNestedNamespacesAreMembers(t *testing.T) {
	pod := handmade(t, newStore(t), "", "user", "pid", "mnt")
	enter(t, pod, "echo; exec unshare --user --map-root-user --pid --fork --kill-child unshare --pid --fork --kill-child sleep 1000")
	want := []string{"sleep", "unshare", "unshare"}
	eventually(t, "the nested sleep to be a member", func() bool { return slices.Equal(membersOf(t, pod), want) })
}

func TestMembersOfAPodWithoutNamespaces(t *testing.T) {
	p := handmade(t, newStore(t), "", "user", "net")
	p.Namespaces["user"] = spec.Choice{Kind: "host"}
	if p.MemberNamespace() != "" {
		t.Fatal("its net namespace tells nothing")
	}
	members, err := member.Members([]*pod.Pod{p})
	if err != nil || len(members) != 0 {
		t.Errorf("members %v, %v", members, err)
	}
	if _, err := Kill(p, unix.SIGKILL); err == nil || len(fault.Hints(err)) == 0 {
		t.Errorf("kill: %v", err)
	}
	if _, err := Stop(p, time.Second); err != nil || store.StatusOf(p) != pod.Exited {
		t.Errorf("stop: %v", err)
	}
}

func TestStatuses(t *testing.T) {
	s := newStore(t)
	running := handmade(t, s, "web", "user", "pid")
	reused := *running // the same pid, another process
	reused.Holder.PIDFDInode, reused.Holder.Started = 0, "1"
	rebooted := *running
	rebooted.Holder.BootID = "another"
	got := store.Statuses([]*pod.Pod{running, &reused, &rebooted, {ID: "unreadable"}})
	if want := []pod.Status{pod.Running, pod.Exited, pod.Exited, pod.Broken}; !slices.Equal(got, want) {
		t.Errorf("%v, not %v", got, want)
	}
}
