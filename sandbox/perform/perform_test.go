package perform

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/nsenter"
	"github.com/podsh/podsh/rootfs"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/ids"
	"github.com/podsh/podsh/sandbox/plan"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/spec"
	"github.com/podsh/podsh/sandbox/step"
)

// inNamespaces starts a process in new namespaces whose maps nobody has written yet.
func inNamespaces(t *testing.T, flags uintptr) (pid int, pidfd *os.File) {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	fd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	pidfd = os.NewFile(uintptr(fd), "pidfd")
	t.Cleanup(func() { pidfd.Close() })
	return cmd.Process.Pid, pidfd
}

// oneID is a pod that has the caller's ids alone.
func oneID() *pod.Pod {
	return &pod.Pod{OneID: true, UIDMap: []ids.Map{{Inside: 7, Outside: uint32(os.Geteuid()), Count: 1}},
		GIDMap: []ids.Map{{Inside: 8, Outside: uint32(os.Getegid()), Count: 1}}}
}

func TestTheCallersIdsAreMapped(t *testing.T) {
	pid, _ := inNamespaces(t, unix.CLONE_NEWUSER)
	if err := WriteMaps(oneID(), pid, true); err != nil {
		t.Fatalf("%v %q", err, fault.Hints(err))
	}
	for name, want := range map[string]string{
		"setgroups": "deny", "uid_map": fmt.Sprintf("7 %d 1", os.Geteuid()), "gid_map": fmt.Sprintf("8 %d 1", os.Getegid()),
	} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
		if got := strings.Join(strings.Fields(string(text)), " "); err != nil || got != want {
			t.Errorf("%s: %q, want %q: %v", name, got, want, err)
		}
	}
	if err := WriteMaps(oneID(), pid, false); !errors.Is(err, unix.EPERM) { // once for all
		t.Errorf("a second time: %v", err)
	}
}

// maker starts one in new user and network namespaces.
func maker(t *testing.T) *Maker {
	t.Helper()
	pid, pidfd := inNamespaces(t, unix.CLONE_NEWUSER|unix.CLONE_NEWNET)
	if err := WriteMaps(oneID(), pid, false); err != nil {
		t.Fatal(err)
	}
	m, err := StartMaker(pidfd, unix.CLONE_NEWUSER|unix.CLONE_NEWNET, capability.CAP_NET_ADMIN)
	if err != nil {
		t.Fatalf("%v %q", err, fault.Hints(err))
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// socketOf makes a socket of datagrams where the maker is.
func socketOf(t *testing.T, m *Maker) int {
	t.Helper()
	b := &plan.Builder{}
	made := b.Call(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	fds, err := m.Do(b, made)
	if err != nil || len(fds) != 1 {
		t.Fatalf("%v, %v", fds, err)
	}
	t.Cleanup(func() { unix.Close(fds[0]) })
	return fds[0]
}

// localhost connects a socket to localhost, which is out of reach in a network namespace that is new: "lo" is down.
func localhost(socket int) error {
	return unix.Connect(socket, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 9})
}

func TestAMakerMakesSocketsWhereItWasLed(t *testing.T) {
	m := maker(t)
	if err := localhost(socketOf(t, m)); err != unix.ENETUNREACH {
		t.Errorf("its socket is not of a new network namespace: %v", err)
	}
	b := &plan.Builder{}
	b.Call(unix.SYS_OPENAT, unix.AT_FDCWD, "/no/such/file", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if _, err := m.Do(b); !errors.Is(err, unix.ENOENT) || !strings.Contains(err.Error(), "open") {
		t.Errorf("a call that fails is told as %v", err)
	}
	if _, err := m.Do(b); !errors.Is(err, nsenter.ErrGone) {
		t.Errorf("then it is gone: %v", err)
	}
}

func TestAMakerThatIsGivenAwayMakesSocketsAndNothingElse(t *testing.T) {
	m := maker(t)
	if err := m.Confine(); err != nil {
		t.Fatal(err)
	}
	socketOf(t, m)
	b := &plan.Builder{}
	b.Call(unix.SYS_OPENAT, unix.AT_FDCWD, "/proc/self/status", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if _, err := m.Do(b); !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ENOSYS) {
		t.Errorf("open: %v", err)
	}
}

func TestAMakerHasNoCapabilityButThose(t *testing.T) {
	b := &plan.Builder{}
	b.Call(unix.SYS_UNSHARE, unix.CLONE_NEWUTS) // which takes CAP_SYS_ADMIN
	if _, err := maker(t).Do(b); !errors.Is(err, unix.EPERM) {
		t.Errorf("unshare: %v", err)
	}
	b = &plan.Builder{}
	made := b.Call(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	b.Call(unix.SYS_SETSOCKOPT, made, unix.SOL_SOCKET, unix.SO_MARK, "\x01\x00\x00\x00", 4) // and this CAP_NET_ADMIN
	if _, err := maker(t).Do(b); err != nil {
		t.Errorf("setsockopt: %v", err)
	}
}

func TestChunksEndWhereTheHostOrAnotherProgramGoesOn(t *testing.T) {
	inside, host, exec := step.Step{Side: step.Inside}, step.Step{Side: step.Host}, step.Step{Side: step.Inside, Call: nsenter.Call{Nr: unix.SYS_EXECVEAT}}
	for _, test := range []struct {
		steps step.Plan
		want  int
	}{
		{nil, 0}, {step.Plan{inside, inside}, 2}, {step.Plan{host, inside}, 0},
		{step.Plan{inside, host, exec}, 1}, {step.Plan{inside, exec, inside}, 2},
	} {
		if got := Chunk(test.steps); got != test.want {
			t.Errorf("%v: %d, want %d", test.steps, got, test.want)
		}
	}
}

func TestAFailureSaysWhatTheCallWasFor(t *testing.T) {
	steps := step.Plan{
		{Side: step.Host, Host: "save", Why: "write it down"},
		{Side: step.Inside, Call: nsenter.Call{Nr: unix.SYS_CHDIR, Args: []any{"/x"}}, Why: "go there", Cmd: "cd /x\npwd"},
		{Side: step.Inside, Call: nsenter.Call{Nr: unix.SYS_CHDIR, Args: []any{"/y"}}, Why: "and there", Need: "a folder", Cmd: "cd /y"},
		{Side: step.Inside, Call: nsenter.Call{Nr: unix.SYS_CHDIR, Args: []any{"/z"}}}, // of the same step
	}
	other := errors.New("other")
	for _, test := range []struct {
		err  error
		is   error
		want string
		hint string
	}{
		{&nsenter.CallError{Place: 0, Errno: unix.ELOOP}, unix.ELOOP, "go there: chdir /x: ", "by hand: cd /x"},
		{&nsenter.CallError{Place: 1, Errno: unix.ENOENT}, unix.ENOENT, "and there: chdir /y: ", "a folder"},
		{&nsenter.CallError{Place: 2, Errno: unix.ELOOP}, unix.ELOOP, "and there: chdir /z: ", "by hand: cd /y"},
		{fmt.Errorf("read: %w", io.EOF), nil, nsenter.ErrGone.Error(), "was it killed"},
		{other, other, "other", ""},
	} {
		err := ExplainFailure(steps, test.err)
		hints := strings.Join(fault.Hints(err), "\n")
		if !strings.HasPrefix(err.Error(), test.want) || test.is != nil && !errors.Is(err, test.is) || !strings.HasPrefix(hints, test.hint) || (hints == "") != (test.hint == "") {
			t.Errorf("%v: %v %q", test.err, err, hints)
		}
	}
}

func TestMountsBelowAreNamedWhereTheyMayBeTheCause(t *testing.T) {
	below := rootfs.Source{Kind: "dir", Dir: "/", Mode: "overlay"}
	if hints := fault.Hints(HintAtMounts(unix.EINVAL, below)); len(hints) != 1 || !strings.Contains(hints[0], "there are mounts below / ") {
		t.Errorf("%q", hints)
	}
	for _, test := range []struct {
		err  error
		root rootfs.Source
	}{{unix.EPERM, below}, {unix.EINVAL, rootfs.Source{Kind: "dir", Dir: "/", Mode: "ro"}}, {unix.EINVAL, rootfs.Source{Kind: "dir", Dir: t.TempDir(), Mode: "overlay"}}} {
		if err := HintAtMounts(test.err, test.root); err != test.err || len(fault.Hints(err)) > 0 {
			t.Errorf("%v of %+v: %q", test.err, test.root, fault.Hints(err))
		}
	}
}

func TestASealedCopyIsThisProgramAndStaysSo(t *testing.T) {
	file, err := SealedCopy()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteAt([]byte("x"), 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("write: %v", err)
	}
	self, err := os.Stat("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if info, err := file.Stat(); err != nil || info.Size() != self.Size() {
		t.Errorf("%v, %v", info, err)
	}
}

func TestOurCapabilitiesBoundThoseOfAPodThatIsOnTheHost(t *testing.T) {
	wanted := []capability.Cap{capability.CAP_CHOWN, LastCap() + 1}
	host := &pod.Pod{Namespaces: map[string]spec.Choice{"user": {Kind: "host"}}}
	own := &pod.Pod{Namespaces: map[string]spec.Choice{"user": {Kind: "new"}}}
	if got := Ours(own, wanted); !slices.Equal(got, wanted) {
		t.Errorf("in a user namespace of its own: %v", got)
	}
	var want []capability.Cap
	if HasCapability(capability.CAP_CHOWN) {
		want = wanted[:1]
	}
	if got := Ours(host, wanted); !slices.Equal(got, want) {
		t.Errorf("on the host: %v, want %v", got, want)
	}
}
