package sandbox

import (
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/nsenter"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/member"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/proc"
	"github.com/podsh/podsh/sandbox/spec"
	"github.com/podsh/podsh/sandbox/store"
)

const never = time.Hour

func TestStopLetsMembersEndInGoodOrder(t *testing.T) {
	for _, kinds := range [][]string{{"user", "pid", "mnt"}, {"user", "mnt"}} {
		p := handmade(t, newStore(t), "", kinds...)
		done := t.TempDir() + "/done"
		enter(t, p, `trap 'echo done > `+done+`; exit' TERM; echo; while :; do sleep 0.01; done`)
		stubborn, err := Stop(p, never)
		if err != nil || len(stubborn.Processes) > 0 {
			t.Fatalf("%v: stop: %v, %v", kinds, stubborn, err)
		}
		if _, err := os.Stat(done); err != nil {
			t.Errorf("%v: the member was not asked: %v", kinds, err)
		}
		if store.StatusOf(p) != pod.Exited {
			t.Errorf("%v: the pause still runs", kinds)
		}
	}
}

func TestStopNamesMembersThatDoNotGo(t *testing.T) {
	for _, kinds := range [][]string{{"user", "pid", "mnt"}, {"user", "mnt"}} {
		pod := handmade(t, newStore(t), "", kinds...)
		cmd := enter(t, pod, `trap "" TERM; echo; exec sleep 1000`)
		eventually(t, "the sleep", func() bool { return slices.Contains(membersOf(t, pod), "sleep") })
		stubborn, err := Stop(pod, 100*time.Millisecond)
		if err != nil || len(stubborn.Processes) != 1 || stubborn.Processes[0].CommandLine() != "sleep 1000" {
			t.Errorf("%v: stop: %v, %v", kinds, stubborn, err)
		}
		_ = cmd.Wait() // it was killed: else this never returns
	}
}

func TestStopWakesMembersThatAreStopped(t *testing.T) {
	pod := handmade(t, newStore(t), "", "user", "pid")
	enter(t, pod, `echo; kill -STOP $$`)
	eventually(t, "the member to stop", func() bool {
		processes, err := member.Processes(pod)
		return err == nil && len(processes) == 2 && processes[1].State == "T"
	})
	if stubborn, err := Stop(pod, never); err != nil || len(stubborn.Processes) > 0 {
		t.Errorf("stop: %v, %v", stubborn, err)
	}
}

func TestStopEndsAHolderThatIsStopped(t *testing.T) {
	p := handmade(t, newStore(t), "", "user", "pid")
	if err := unix.Kill(p.Holder.PID, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if _, err := Stop(p, 0); err != nil || store.StatusOf(p) != pod.Exited {
		t.Errorf("stop: %v, %v", store.StatusOf(p), err)
	}
	if _, err := Stop(p, never); err != nil {
		t.Errorf("stop of what has ended: %v", err)
	}
}

func TestThePauseOfAnotherPodIsNoMember(t *testing.T) {
	s := newStore(t)
	p := handmade(t, s, "web", "user", "pid")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	pause := t.TempDir() + "/pause"
	if err := os.Symlink(self, pause); err != nil {
		t.Fatal(err)
	}
	enter(t, p, "echo; exec "+pause+" pause")
	eventually(t, "the pause", func() bool { return slices.Equal(membersOf(t, p), []string{"pause"}) })
	members, err := member.Members([]*pod.Pod{p})
	if err != nil {
		t.Fatal(err)
	}
	// As if it held a pod that was made with --pid pod:web.
	pid := members[p.ID][0]
	guest := &pod.Pod{Format: pod.Format, ID: store.NewID(), Root: s.Path, Namespaces: map[string]spec.Choice{"pid": {Kind: "pod", Value: "web"}}}
	if guest.Holder, err = proc.Identify(pid, openPID(t, pid)); err != nil {
		t.Fatal(err)
	}
	describe(t, guest)
	if n, err := Kill(p, unix.SIGKILL); n != 0 || err != nil || store.StatusOf(guest) != pod.Running {
		t.Errorf("kill reached %d: %v", n, err)
	}
	if stubborn, err := Stop(p, never); len(stubborn.Processes) > 0 || err != nil || store.StatusOf(guest) != pod.Exited {
		t.Errorf("stop: %v, %v", stubborn, err)
	}
}

func TestKillSparesThePause(t *testing.T) {
	p := handmade(t, newStore(t), "", "user", "pid")
	enter(t, p, "echo; exec sleep 1000")
	if n, err := Kill(p, unix.SIGKILL); n != 1 || err != nil {
		t.Errorf("kill: %d, %v", n, err)
	}
	eventually(t, "the member to be gone", func() bool { return len(membersOf(t, p)) == 0 })
	if store.StatusOf(p) != pod.Running {
		t.Error("the pause is gone")
	}
	if n, err := Kill(p, unix.SIGKILL); n != 0 || err != nil {
		t.Errorf("kill of nobody: %d, %v", n, err)
	}
	if err := unix.Kill(p.Holder.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := WaitForPod(p); err != nil {
		t.Fatal(err)
	}
	if _, err := Kill(p, unix.SIGKILL); !errors.Is(err, fault.ErrExited) {
		t.Errorf("kill in a pod that has ended: %v", err)
	}
}

func TestWait(t *testing.T) {
	pod := handmade(t, newStore(t), "", "user", "pid")
	waited := make(chan error)
	go func() { waited <- WaitForPod(pod) }()
	if _, err := Stop(pod, 0); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; err != nil {
		t.Error(err)
	}
	if err := WaitForPod(pod); err != nil {
		t.Errorf("wait for what has ended: %v", err)
	}
}

func TestRemove(t *testing.T) {
	s := newStore(t)
	p := handmade(t, s, "web", "user", "pid")
	err := Remove(p, false)
	if err == nil || !strings.Contains(strings.Join(fault.Hints(err), " "), "podsh rm -f web") || store.StatusOf(p) != pod.Running {
		t.Errorf("remove of a running pod: %v, %q", err, fault.Hints(err))
	}
	if err := Remove(p, true); err != nil || store.StatusOf(p) != pod.Exited {
		t.Errorf("remove by force: %v", err)
	}
	if _, err := s.Find("web"); !errors.Is(err, fault.ErrNoPod) {
		t.Errorf("find: %v", err)
	}
	handmade(t, s, "web", "user", "pid") // the name is free
}

func TestRemoveKillsMembersOutsideAPIDNamespace(t *testing.T) {
	pod := handmade(t, newStore(t), "", "user", "mnt")
	cmd := enter(t, pod, `trap "" TERM; echo; while :; do sleep 0.001; done`) // forks all the time
	if err := Remove(pod, true); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // else this never returns
}

func TestRemoveByManyAtOnce(t *testing.T) {
	s := newStore(t)
	handmade(t, s, "web", "user", "pid")
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			pod, err := s.Find("web")
			if err == nil {
				err = Remove(pod, true)
			}
			if err != nil && !errors.Is(err, fault.ErrNoPod) {
				t.Error(err)
			}
		})
	}
	group.Wait()
	left, err := os.ReadDir(s.Path)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range left {
		if store.IsLeftover(entry.Name()) {
			t.Errorf("%s is left", entry.Name())
		}
	}
	if names, err := os.ReadDir(s.Below("names")); err != nil || len(names) > 0 {
		t.Errorf("names are left: %v, %v", names, err)
	}
}

// What a pod's description has lost, another place may still know: nothing keeps running.
func TestRemoveOfAPodWhoseDescriptionIsUnreadable(t *testing.T) {
	for name, spoil := range map[string]func(p *pod.Pod, text []byte) []byte{
		"cut off": func(p *pod.Pod, text []byte) []byte { return text[:len(text)/2] },
		"empty":   func(p *pod.Pod, text []byte) []byte { return nil },
		"of another version": func(p *pod.Pod, _ []byte) []byte {
			other := *p
			other.Format++
			text, _ := json.Marshal(&other)
			return text
		},
	} {
		s := newStore(t)
		of := handmade(t, s, "web", "user", "pid")
		plan, err := nsenter.EncodeSaved(nsenter.Saved{PID: of.Holder.PID, PIDFDInode: of.Holder.PIDFDInode,
			Started: of.Holder.Started, BootID: of.Holder.BootID + "\n"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		path := s.Below("pods", of.ID)
		text, err := os.ReadFile(path + "/pod.json")
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.WriteFile(path+"/join", plan, 0o600), os.WriteFile(path+"/pod.json", spoil(of, text), 0o600)); err != nil {
			t.Fatal(err)
		}
		broken, err := s.Find("web")
		if broken == nil || err == nil || store.StatusOf(broken) != pod.Broken {
			t.Fatalf("%s: find: %v, %v", name, broken, err)
		}
		if err := Remove(broken, false); err == nil {
			t.Errorf("%s: removed while it runs", name)
		}
		if err := Remove(broken, true); err != nil {
			t.Errorf("%s: remove: %v", name, err)
		}
		if store.StatusOf(of) != pod.Exited {
			t.Errorf("%s: the pause still runs", name)
		}
		if names, err := os.ReadDir(s.Below("names")); err != nil || len(names) > 0 {
			t.Errorf("%s: names are left: %v, %v", name, names, err)
		}
	}
}
