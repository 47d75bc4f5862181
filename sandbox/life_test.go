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
	"github.com/podsh/podsh/sandbox/proc"
	"github.com/podsh/podsh/sandbox/spec"
)

const never = time.Hour

func TestStopLetsMembersEndInGoodOrder(t *testing.T) {
	for _, kinds := range [][]string{{"user", "pid", "mnt"}, {"user", "mnt"}} {
		pod := handmade(t, newStore(t), "", kinds...)
		done := t.TempDir() + "/done"
		enter(t, pod, `trap 'echo done > `+done+`; exit' TERM; echo; while :; do sleep 0.01; done`)
		stubborn, err := pod.Stop(never)
		if err != nil || len(stubborn.Processes) > 0 {
			t.Fatalf("%v: stop: %v, %v", kinds, stubborn, err)
		}
		if _, err := os.Stat(done); err != nil {
			t.Errorf("%v: the member was not asked: %v", kinds, err)
		}
		if pod.Status() != Exited {
			t.Errorf("%v: the pause still runs", kinds)
		}
	}
}

func TestStopNamesMembersThatDoNotGo(t *testing.T) {
	for _, kinds := range [][]string{{"user", "pid", "mnt"}, {"user", "mnt"}} {
		pod := handmade(t, newStore(t), "", kinds...)
		cmd := enter(t, pod, `trap "" TERM; echo; exec sleep 1000`)
		eventually(t, "the sleep", func() bool { return slices.Contains(membersOf(t, pod), "sleep") })
		stubborn, err := pod.Stop(100 * time.Millisecond)
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
		processes, err := pod.Processes()
		return err == nil && len(processes) == 2 && processes[1].State == "T"
	})
	if stubborn, err := pod.Stop(never); err != nil || len(stubborn.Processes) > 0 {
		t.Errorf("stop: %v, %v", stubborn, err)
	}
}

func TestStopEndsAHolderThatIsStopped(t *testing.T) {
	pod := handmade(t, newStore(t), "", "user", "pid")
	if err := unix.Kill(pod.Holder.PID, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if _, err := pod.Stop(0); err != nil || pod.Status() != Exited {
		t.Errorf("stop: %v, %v", pod.Status(), err)
	}
	if _, err := pod.Stop(never); err != nil {
		t.Errorf("stop of what has ended: %v", err)
	}
}

func TestThePauseOfAnotherPodIsNoMember(t *testing.T) {
	store := newStore(t)
	pod := handmade(t, store, "web", "user", "pid")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	pause := t.TempDir() + "/pause"
	if err := os.Symlink(self, pause); err != nil {
		t.Fatal(err)
	}
	enter(t, pod, "echo; exec "+pause+" pause")
	eventually(t, "the pause", func() bool { return slices.Equal(membersOf(t, pod), []string{"pause"}) })
	members, err := Members([]*Pod{pod})
	if err != nil {
		t.Fatal(err)
	}
	// As if it held a pod that was made with --pid pod:web.
	pid := members[pod.ID][0]
	guest := &Pod{Format: podFormat, ID: newID(), Root: store.Path, Namespaces: map[string]spec.Choice{"pid": {Kind: "pod", Value: "web"}}}
	if guest.Holder, err = proc.Identify(pid, openPID(t, pid)); err != nil {
		t.Fatal(err)
	}
	describe(t, guest)
	if n, err := pod.Kill(unix.SIGKILL); n != 0 || err != nil || guest.Status() != Running {
		t.Errorf("kill reached %d: %v", n, err)
	}
	if stubborn, err := pod.Stop(never); len(stubborn.Processes) > 0 || err != nil || guest.Status() != Exited {
		t.Errorf("stop: %v, %v", stubborn, err)
	}
}

func TestKillSparesThePause(t *testing.T) {
	pod := handmade(t, newStore(t), "", "user", "pid")
	enter(t, pod, "echo; exec sleep 1000")
	if n, err := pod.Kill(unix.SIGKILL); n != 1 || err != nil {
		t.Errorf("kill: %d, %v", n, err)
	}
	eventually(t, "the member to be gone", func() bool { return len(membersOf(t, pod)) == 0 })
	if pod.Status() != Running {
		t.Error("the pause is gone")
	}
	if n, err := pod.Kill(unix.SIGKILL); n != 0 || err != nil {
		t.Errorf("kill of nobody: %d, %v", n, err)
	}
	if err := unix.Kill(pod.Holder.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := pod.Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := pod.Kill(unix.SIGKILL); !errors.Is(err, fault.ErrExited) {
		t.Errorf("kill in a pod that has ended: %v", err)
	}
}

func TestWait(t *testing.T) {
	pod := handmade(t, newStore(t), "", "user", "pid")
	waited := make(chan error)
	go func() { waited <- pod.Wait() }()
	if _, err := pod.Stop(0); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; err != nil {
		t.Error(err)
	}
	if err := pod.Wait(); err != nil {
		t.Errorf("wait for what has ended: %v", err)
	}
}

func TestRemove(t *testing.T) {
	store := newStore(t)
	pod := handmade(t, store, "web", "user", "pid")
	err := pod.Remove(false)
	if err == nil || !strings.Contains(strings.Join(Hints(err), " "), "podsh rm -f web") || pod.Status() != Running {
		t.Errorf("remove of a running pod: %v, %q", err, Hints(err))
	}
	if err := pod.Remove(true); err != nil || pod.Status() != Exited {
		t.Errorf("remove by force: %v", err)
	}
	if _, err := store.Find("web"); !errors.Is(err, fault.ErrNoPod) {
		t.Errorf("find: %v", err)
	}
	handmade(t, store, "web", "user", "pid") // the name is free
}

func TestRemoveKillsMembersOutsideAPIDNamespace(t *testing.T) {
	pod := handmade(t, newStore(t), "", "user", "mnt")
	cmd := enter(t, pod, `trap "" TERM; echo; while :; do sleep 0.001; done`) // forks all the time
	if err := pod.Remove(true); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // else this never returns
}

func TestRemoveByManyAtOnce(t *testing.T) {
	store := newStore(t)
	handmade(t, store, "web", "user", "pid")
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			pod, err := store.Find("web")
			if err == nil {
				err = pod.Remove(true)
			}
			if err != nil && !errors.Is(err, fault.ErrNoPod) {
				t.Error(err)
			}
		})
	}
	group.Wait()
	left, err := os.ReadDir(store.Path)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range left {
		if isLeftover(entry.Name()) {
			t.Errorf("%s is left", entry.Name())
		}
	}
	if names, err := os.ReadDir(store.path("names")); err != nil || len(names) > 0 {
		t.Errorf("names are left: %v, %v", names, err)
	}
}

// What a pod's description has lost, another place may still know: nothing keeps running.
func TestRemoveOfAPodWhoseDescriptionIsUnreadable(t *testing.T) {
	for name, spoil := range map[string]func(p *Pod, text []byte) []byte{
		"cut off": func(p *Pod, text []byte) []byte { return text[:len(text)/2] },
		"empty":   func(p *Pod, text []byte) []byte { return nil },
		"of another version": func(p *Pod, _ []byte) []byte {
			other := *p
			other.Format++
			text, _ := json.Marshal(&other)
			return text
		},
	} {
		store := newStore(t)
		pod := handmade(t, store, "web", "user", "pid")
		plan, err := nsenter.EncodeSaved(nsenter.Saved{PID: pod.Holder.PID, PIDFDInode: pod.Holder.PIDFDInode,
			Started: pod.Holder.Started, BootID: pod.Holder.BootID + "\n"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		path := store.path("pods", pod.ID)
		text, err := os.ReadFile(path + "/pod.json")
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.WriteFile(path+"/join", plan, 0o600), os.WriteFile(path+"/pod.json", spoil(pod, text), 0o600)); err != nil {
			t.Fatal(err)
		}
		broken, err := store.Find("web")
		if broken == nil || err == nil || broken.Status() != Broken {
			t.Fatalf("%s: find: %v, %v", name, broken, err)
		}
		if err := broken.Remove(false); err == nil {
			t.Errorf("%s: removed while it runs", name)
		}
		if err := broken.Remove(true); err != nil {
			t.Errorf("%s: remove: %v", name, err)
		}
		if pod.Status() != Exited {
			t.Errorf("%s: the pause still runs", name)
		}
		if names, err := os.ReadDir(store.path("names")); err != nil || len(names) > 0 {
			t.Errorf("%s: names are left: %v, %v", name, names, err)
		}
	}
}
