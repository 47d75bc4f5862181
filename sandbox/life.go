package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/nsenter"
	"github.com/podsh/podsh/sandbox/disk"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/ids"
	"github.com/podsh/podsh/sandbox/member"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/proc"
	"github.com/podsh/podsh/sandbox/store"
	"github.com/podsh/podsh/sandbox/wire"
)

// Kill sends a signal to every member, and tells how many there were.
func Kill(p *pod.Pod, sig unix.Signal) (int, error) {
	pidfd, err := store.Open(p)
	if err != nil {
		return 0, err
	}
	defer pidfd.Close()
	group, err := member.Of(p, pidfd)
	if errors.Is(err, fault.ErrExited) {
		return 0, hasEnded(p)
	}
	if err != nil {
		return 0, err
	}
	if group == nil {
		return 0, fault.New(nil, []string{"podsh rm -f " + p.Title() + " ends the pod itself"},
			"pod %q has no pid, mount or user namespace of its own: nothing tells its members from other processes", p.Title())
	}
	defer group.Close()
	members, err := group.Members(nil)
	for _, m := range members {
		err = errors.Join(err, m.Signal(sig))
		m.PIDFD.Close()
	}
	return len(members), err
}

// hasEnded is the error for a pod whose holder has just ended.
func hasEnded(p *pod.Pod) error {
	_, err := store.Open(p)
	return err
}

// WaitForPod returns when the pod has ended.
func WaitForPod(p *pod.Pod) error {
	pidfd, err := p.Holder.Open()
	if errors.Is(err, fault.ErrExited) {
		return nil
	}
	if err != nil {
		return err
	}
	defer pidfd.Close()
	_, err = proc.Ended(pidfd, time.Time{})
	return err
}

// Stopped tells who did not end by itself when a pod was stopped.
type Stopped struct {
	Processes  []proc.Process
	Containers []*pod.Container
}

// Stop asks the pod's containers to end, then every member, and ends the holder when they have, or after the grace;
// then the kernel ends what is left. A pod that has ended is stopped.
func Stop(p *pod.Pod, grace time.Duration) (stubborn Stopped, err error) {
	if stubborn.Containers, err = stopContainers(p); err != nil {
		return stubborn, err
	}
	stubborn.Processes, err = stop(p, grace)
	return stubborn, err
}

func stop(p *pod.Pod, grace time.Duration) ([]proc.Process, error) {
	pidfd, err := p.Holder.Open()
	if errors.Is(err, fault.ErrExited) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer pidfd.Close()
	group, err := member.Of(p, pidfd)
	if err != nil && !errors.Is(err, fault.ErrExited) {
		return nil, err
	}
	if group == nil { // nobody can be asked
		return nil, end(p, pidfd, nil)
	}
	defer group.Close()
	stubborn, err := group.Terminate(time.Now().Add(grace))
	return stubborn, errors.Join(err, end(p, pidfd, group), group.Destroy())
}

// end ends the holder and waits for that. With it goes all that is in its pid namespace. group may be nil.
func end(p *pod.Pod, pidfd *os.File, group *member.Group) error {
	for i, try := range []struct {
		sig  unix.Signal
		wait time.Duration
	}{{unix.SIGTERM, proc.UntilWake}, {unix.SIGTERM, proc.UntilKill}, {unix.SIGKILL, proc.UntilGiveUp}} {
		if i > 0 && group != nil {
			group.WakeParents()
		}
		if err := (proc.Member{PID: p.Holder.PID, PIDFD: pidfd}).Signal(try.sig); err != nil {
			return err
		}
		if gone, err := proc.Ended(pidfd, time.Now().Add(try.wait)); gone || err != nil {
			return err
		}
	}
	return proc.Hanging("the pause of pod %q (pid %d)", p.Title(), p.Holder.PID)
}

// Remove makes a pod be gone: its holder, if force says so, what it has of the network, what it wrote to disk,
// and its description. The last goes last, so that what can't be removed can still be seen.
func Remove(p *pod.Pod, force bool) error {
	if p.IsHub {
		return removeHub(store.StoreOf(p), p)
	}
	err := remove(p, force)
	if err == nil && p.Hub != "" {
		err = ReleaseHub(store.StoreOf(p))
	}
	return err
}

func remove(p *pod.Pod, force bool) error {
	if p.Format != pod.Format {
		salvage(p)
	}
	var network *os.File // kept to the last: plugins want to see it when they take theirs away
	pidfd, err := p.Holder.Open()
	switch {
	case errors.Is(err, fault.ErrExited):
	case err != nil:
		return err
	default:
		defer pidfd.Close()
		if p.Hub != "" {
			if network, err = os.Open(fmt.Sprintf("/proc/%d/ns/net", p.Holder.PID)); err == nil {
				defer network.Close()
			}
		}
		if !force {
			return fault.New(nil, []string{fmt.Sprintf("podsh rm -f %s, or podsh stop %[1]s first", p.Title())},
				"pod %q is running", p.Title())
		}
		if err := destroy(p, pidfd); err != nil {
			return err
		}
	}
	if err := wire.EndHelper(p, network); err != nil {
		return err
	}
	if err := errors.Join(endSupervisor(p), removeContainers(p)); err != nil {
		return err
	}
	if err := disk.RemoveDisk(p); err != nil {
		return err
	}
	if err := store.StoreOf(p).Forget(p); err != nil {
		return err
	}
	disk.SweepDisks(p) // of a run that was killed
	return nil
}

// destroy ends the holder and all members, without asking those. In a pid namespace of their own they need
// not be known: the kernel kills them.
func destroy(p *pod.Pod, pidfd *os.File) error {
	group, err := member.Of(p, pidfd)
	if errors.Is(err, fault.ErrExited) || p.MemberNamespace() == "pid" {
		err = nil
	}
	err = errors.Join(err, end(p, pidfd, group))
	if group != nil {
		defer group.Close()
		err = errors.Join(err, group.Destroy())
	}
	return err
}

// salvage finds what is needed to remove a pod whose description can't be read: what a version with another
// format most probably writes in the same place; else its holder, which the saved plan names as well; and its
// name, which points to it.
func salvage(p *pod.Pod) {
	var described struct {
		UIDMap []ids.Map `json:"uid_map"`
		GIDMap []ids.Map `json:"gid_map"`
		Upper  string    `json:"upper"`
		Holder proc.ID   `json:"holder"`
	}
	text, _ := os.ReadFile(store.StoreOf(p).Below("pods", p.ID, "pod.json"))
	if json.Unmarshal(text, &described) == nil {
		p.UIDMap, p.GIDMap, p.Upper, p.Holder = described.UIDMap, described.GIDMap, described.Upper, described.Holder
	} else if plan, err := os.ReadFile(store.StoreOf(p).Below("pods", p.ID, "join")); err == nil {
		if saved, err := nsenter.DecodeSaved(plan); err == nil {
			p.Holder = proc.ID{PID: saved.PID, Started: saved.Started, BootID: strings.TrimSpace(saved.BootID), PIDFDInode: saved.PIDFDInode}
		}
	}
	entries, _ := os.ReadDir(store.StoreOf(p).Below("names")) // a name that stays is free all the same
	for _, entry := range entries {
		if store.StoreOf(p).IdOf(entry.Name()) == p.ID {
			p.Spec.Name = entry.Name()
		}
	}
}
