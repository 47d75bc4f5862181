package sandbox

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/sandbox/ask"
	"github.com/podsh/podsh/sandbox/disk"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/member"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/proc"
	"github.com/podsh/podsh/sandbox/store"
)

// Settle writes down that a container has ended whose watcher was killed, and ends what is left of it.
func Settle(c *pod.Container, state *pod.ContainerState) error {
	written, err := store.Written(c)
	if err != nil || state.Status != pod.Ended || written.Status != pod.Up && written.Status != pod.Restarting {
		return nil
	}
	err = sweepLost(c, state)
	state.MountNS = 0 // another may have that number by now
	return errors.Join(err, store.SaveState(c, state))
}

// sweepLost ends what is left in the mount namespace of a container whose watcher was killed. Only the pod's own
// members are looked at.
func sweepLost(c *pod.Container, state *pod.ContainerState) error {
	if state.MountNS == 0 || isAnothers(c, state.MountNS) {
		return nil
	}
	pidfd, err := store.Open(c.In)
	if err != nil {
		return nil // with the pod all that was in it has ended
	}
	defer pidfd.Close()
	for {
		left, err := leftInStore(c, state.MountNS)
		if err != nil || len(left) == 0 {
			return err
		}
		deadline := time.Now().Add(proc.UntilGiveUp)
		for _, m := range left {
			err = errors.Join(err, m.Signal(unix.SIGKILL))
		}
		for _, m := range left {
			gone, waitErr := proc.Ended(m.PIDFD, deadline)
			if waitErr == nil && !gone {
				waitErr = proc.Hanging("process %d of container %q", m.PID, c.Title())
			}
			err = errors.Join(err, waitErr)
			m.PIDFD.Close()
		}
		if err != nil {
			return err
		}
	}
}

// isAnothers says whether a mount namespace is that of a container which runs: the kernel gives numbers once more.
func isAnothers(c *pod.Container, mountNS uint64) bool {
	containers, err := store.Containers(c.In)
	return err != nil || slices.ContainsFunc(containers, func(other *pod.Container) bool {
		state, err := store.StateOf(other)
		return other.ID != c.ID && err == nil && state.Status == pod.Up && state.MountNS == mountNS
	})
}

// leftInStore opens the members of the pod that are in a mount namespace, which is the container's: no process of the pod's
// own is in it, nor is one of a container that runs.
func leftInStore(c *pod.Container, mountNS uint64) ([]proc.Member, error) {
	pidfd, err := store.Open(c.In)
	if err != nil {
		return nil, nil
	}
	defer pidfd.Close()
	group, err := member.Of(c.In, pidfd)
	if err != nil || group == nil {
		return nil, nil
	}
	defer group.Close()
	members, err := group.Members(nil)
	var left []proc.Member
	for _, m := range members {
		if inode, nsErr := proc.NamespaceInode(fmt.Sprint(m.PID), "mnt"); nsErr == nil && inode == mountNS {
			left = append(left, m)
		} else {
			m.PIDFD.Close()
		}
	}
	return left, err
}

// stopContainers ends all containers of a pod, at the same time: each by its own signal, and in its own time. It returns
// those that had to be made to.
func stopContainers(p *pod.Pod) (stubborn []*pod.Container, err error) {
	containers, err := store.Containers(p)
	if err != nil {
		return nil, err
	}
	made, errs := make([]bool, len(containers)), make([]error, len(containers))
	done := make(chan int)
	for i, c := range containers {
		go func() {
			made[i], errs[i] = StopContainer(c, 0, nil)
			done <- i
		}()
	}
	for range containers {
		<-done
	}
	for i, c := range containers {
		if made[i] {
			stubborn = append(stubborn, c)
		}
	}
	return stubborn, errors.Join(errs...)
}

// removeContainers removes what the containers of a pod that has ended have on disk.
func removeContainers(p *pod.Pod) error {
	containers, err := store.Containers(p)
	for _, c := range containers {
		err = errors.Join(err, disk.RemoveDiskContainer(c))
	}
	return err
}

// endSupervisor ends the supervisor of a pod that is on its way out.
func endSupervisor(p *pod.Pod) error {
	containers, err := store.Containers(p)
	if err != nil {
		return err
	}
	for _, c := range containers {
		state, err := store.Written(c)
		if err != nil || c.Broken == nil && !c.Spec.Detached && !c.Spec.TTY || state.Watcher.PID == os.Getpid() {
			continue
		}
		if err := proc.EndProcess(state.Watcher, "the supervisor of pod "+p.Title()); err != nil {
			return err
		}
	}
	return nil
}

// RecoverContainers looks after the containers whose watcher was killed: what the kernel has left of them is ended, and
// those that are to start once more get a new supervisor. What did not work is no reason not to look at the others.
func RecoverContainers(p *pod.Pod) []error {
	containers, err := store.Containers(p)
	if err != nil {
		return []error{err}
	}
	var problems []error
	supervise := false
	for _, c := range containers {
		if c.Broken != nil {
			problems = append(problems, c.Broken)
		}
		written, err := store.Written(c)
		if err != nil || written.Status != pod.Up && written.Status != pod.Restarting {
			continue
		}
		state, err := store.StateOf(c)
		if err != nil || state.Status != pod.Ended || state.Reason == "" {
			continue // it is watched over, or was removed
		}
		again := c.Spec.Detached && !state.Stopped && c.Spec.Restart.Again(state.ExitCode, state.InARow) && store.StatusOf(p) == pod.Running
		hint := "`podsh start " + c.Title() + "`, or `podsh rm " + c.Title() + "`"
		if c.Spec.Remove {
			hint = "it is removed, as its --rm says"
		}
		if again {
			hint = "it starts once more, as its --restart says: `podsh ps -c` shows when"
		}
		problems = append(problems, fault.New(nil, []string{hint}, "container %q has ended: %s", c.Title(), state.Reason))
		if again {
			supervise = true // who takes over writes it down
			continue
		}
		if err := Settle(c, state); err != nil {
			problems = append(problems, err)
		}
		if c.Spec.Remove {
			if err := Discard(c); err != nil {
				problems = append(problems, err)
			}
		}
	}
	if supervise {
		conn, err := ask.EnsureSupervisor(p)
		if err != nil {
			return append(problems, err)
		}
		conn.Close()
	}
	return problems
}
