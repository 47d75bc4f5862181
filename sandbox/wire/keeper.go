package wire

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/nsenter"
	"github.com/podsh/podsh/sandbox/ask"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/perform"
	"github.com/podsh/podsh/sandbox/plan"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/proc"
	"github.com/podsh/podsh/sandbox/step"
	"github.com/podsh/podsh/sandbox/store"
)

// A keeper sees that a helper has ended, when nobody looks: there is no daemon, and the pod's holder is in the pod. It is
// an executor that waits in poll(2), with next to no memory of its own, and becomes podsh once more then:
//
//	podsh@keep STORE POD TIMES
//
// which does what every command that finds the helper gone does (findHelper), unless the pod has ended as well, and goes.
// The new helper has a keeper of its own. TIMES is how often in a row that was needed. The keeper also has the one end of
// a pair in which the helper keeps copies of its ports' sockets: so clients that come meanwhile wait, and find the next.

// KeepName is the argv[0] of what a keeper becomes.
const KeepName = "podsh@keep"

// startKeeper starts the keeper of a helper.
func startKeeper(p *pod.Pod, helper, stowed *os.File, times int) (proc.ID, error) {
	executor, err := perform.StartHand(helper, stowed)
	if err != nil {
		return proc.ID{}, fmt.Errorf("start the helper's keeper: %w", err)
	}
	defer executor.Close()
	keeper, err := proc.Identify(executor.PID, executor.PIDFD)
	if err == nil {
		err = executor.Send(keeperPlan(p, times).Steps.Calls(), 0)
	}
	if err != nil {
		executor.Kill()
		return proc.ID{}, fmt.Errorf("start the helper's keeper: %w", err)
	}
	return keeper, nil
}

// keeperPlan is what a keeper does.
func keeperPlan(p *pod.Pod, times int) *plan.Builder {
	b := &plan.Builder{}
	pollfd := step.Native.AppendUint16(step.Native.AppendUint16(step.Native.AppendUint32(nil, uint32(nsenter.EnterFD)), unix.POLLIN), 0)
	b.Call(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0, 0, 0, 0) // a pod with the host's pid namespace could look into it
	b.Call(unix.SYS_PRCTL, unix.PR_SET_NAME, "podsh-keeper")
	b.Call(unix.SYS_CHDIR, "/")
	b.Call(unix.SYS_PPOLL, pollfd, 1, 0, 0, 0)
	b.Call(unix.SYS_FCNTL, nsenter.PlanFD, unix.F_SETFD, unix.FD_CLOEXEC)
	b.Call(unix.SYS_FCNTL, nsenter.EnterFD, unix.F_SETFD, unix.FD_CLOEXEC)
	args := []string{KeepName, p.Root, p.ID, strconv.Itoa(times)}
	b.Call(unix.SYS_EXECVEAT, unix.AT_FDCWD, "/proc/self/exe", nsenter.Strings(args), nsenter.Strings(ask.SupervisorEnv()), 0)
	return b
}

// stowedFD is where a keeper has its end of the pair.
const stowedFD = nsenter.EnterFD + 1

// A helper that ended soon may end again: the next is started at once, the one after it in a second, then in two, and so
// on, as often as that may double.
const (
	soon     = 10 * time.Second
	mostKept = 7
)

// kept is what a keeper has of the helper that ended; of who is none, nothing.
type kept struct {
	stowed *os.File // where the helper has left its ports' sockets
	times  int      // how often in a row it was started anew
}

// Keep is the main function of what a keeper becomes. There is nobody to tell anything: who looks at the pod, and finds
// no helper, tries it once more and is told.
func Keep(args []string) int {
	if len(args) != 4 {
		return 2
	}
	times, err := strconv.Atoi(args[3])
	if err != nil {
		return 2
	}
	pod, err := (&store.Store{Path: args[1]}).Load(args[2])
	if err != nil {
		return 0 // it has been removed, or never came about
	}
	unix.CloseOnExec(stowedFD)
	if err := keepHelper(pod, kept{stowed: os.NewFile(stowedFD, "stowed"), times: times}); err != nil && !errors.Is(err, fault.ErrExited) {
		return 1
	}
	return 0
}

// keepHelper starts the helper anew, if the pod goes on.
func keepHelper(p *pod.Pod, by kept) error {
	holder, err := store.Open(p)
	if err != nil {
		return err
	}
	defer holder.Close()
	age, err := ownAge() // which is the helper's
	if err != nil {
		return err
	}
	var pause time.Duration
	if age < soon {
		if by.times > 0 {
			pause = time.Second << (by.times - 1)
		}
		by.times = min(by.times+1, mostKept)
	} else {
		by.times = 0
	}
	if gone, err := proc.Ended(holder, time.Now().Add(pause)); gone || err != nil {
		return err
	}
	h, _, err := findHelper(p, by)
	if err != nil {
		return err
	}
	h.close()
	return nil
}

// ownAge is how long this process has been there.
func ownAge() (time.Duration, error) {
	started, err := proc.StartTime(os.Getpid())
	if err != nil {
		return 0, err
	}
	since, err := strconv.ParseInt(started, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("start of this process: %w", err)
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return 0, fmt.Errorf("clock_gettime: %w", err)
	}
	return time.Duration(now.Nano()) - time.Duration(since)*time.Second/proc.Ticks, nil
}

// helperIsGone says whether the helper that leads with this pod has ended.
func helperIsGone(p *pod.Pod) bool {
	h, err := dial(p)
	if err == nil {
		h.close()
	}
	return errors.Is(err, errNoHelper)
}

// untilKept is how long a keeper has for what it does.
const untilKept = 5 * time.Second

// awaitKeeper gives a keeper the time to do its work, if the helper has ended and it is there.
func awaitKeeper(p *pod.Pod) error {
	return withKeeper(p, func(keeper *os.File) error {
		_, err := proc.Ended(keeper, time.Now().Add(untilKept))
		return err
	})
}

// endKeeper ends one that can't do it, and what it has kept open: whoever calls this does it in its place.
func endKeeper(p *pod.Pod) error {
	return withKeeper(p, killNow)
}

// killNow ends a process, and waits until it is gone.
func killNow(pidfd *os.File) error {
	if err := unix.PidfdSendSignal(int(pidfd.Fd()), unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
		return fmt.Errorf("pidfd_send_signal: %w", err)
	}
	_, err := proc.Ended(pidfd, time.Now().Add(proc.UntilGiveUp))
	return err
}

// withKeeper does something with the keeper, if there is one, and it is not this process.
func withKeeper(p *pod.Pod, do func(keeper *os.File) error) error {
	state, err := store.Net(p)
	if err != nil || state.Keeper == nil || state.Keeper.PID == os.Getpid() {
		return err
	}
	return state.Keeper.With(do)
}
