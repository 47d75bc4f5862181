// Package perform carries a plan out, whosever it is: it starts executors and makers, sends them calls, maps their ids,
// and says of one that failed what it was for. It knows of a pod which ids it has and which holder,
// and refuses to know its life, which networks it is on, and any order of steps but the plan's.
package perform

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/nsenter"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/proc"
	"github.com/podsh/podsh/sandbox/step"
	"github.com/podsh/podsh/sandbox/store"
)

// Chunk counts the pod's steps that go to the executor at once: up to the host's next one, or to the call
// after which another program image reads the rest.
func Chunk(steps step.Plan) int {
	for i, next := range steps {
		if next.Side == step.Host {
			return i
		}
		if next.Call.Nr == unix.SYS_EXECVEAT {
			return i + 1
		}
	}
	return len(steps)
}

// SendPlan sends calls to an executor, and waits until they are done. It may become a clone of its own on the way, and that
// one once more, which says READY: in a pid namespace below ours its parent knows another number for it.
func SendPlan(plan step.Plan, executor *nsenter.Executor) error {
	clones := 0
	for _, step := range plan {
		if step.Call.Nr == nsenter.Clone {
			clones++
		}
	}
	if clones > 1 {
		if err := executor.TellWho(); err != nil {
			return err
		}
	}
	if err := executor.Send(plan.Calls(), 0); err != nil {
		return err
	}
	for i := range clones {
		cloned := executor.Cloned
		if i > 0 {
			cloned = executor.ClonedBelow
		}
		if err := cloned(); err != nil {
			return err
		}
	}
	return executor.Wait(len(plan))
}

// OpenExe opens the program that performs plans in the pod: podsh itself, or the pod's own unreachable copy of it.
// pidfd is of the holder.
func OpenExe(p *pod.Pod, pidfd *os.File) (*os.File, error) {
	if p.Around != nil {
		outer, err := store.Open(p.Around)
		if err != nil {
			return nil, err
		}
		defer outer.Close()
		return OpenExe(p.Around, outer)
	}
	path := "/proc/self/exe"
	if p.OwnFile {
		path = "/proc/" + strconv.Itoa(p.Holder.PID) + "/exe"
	} else if exe, err := ReadExe(); err != nil || exe.Reachable(p.IdsOutside()) { // the pod was made by another podsh
		return SealedCopy()
	}
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if p.OwnFile && p.PlanFormat != nsenter.Format { // a copy of another podsh
		unix.Close(fd)
		return SealedCopy()
	}
	if proc.Exited(pidfd) { // else path was the holder's
		unix.Close(fd)
		return nil, fault.New(fault.ErrExited, []string{"podsh rm " + p.Title()}, "pod %q has ended", p.Title())
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}
