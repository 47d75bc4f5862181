package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/nsenter"
	"github.com/podsh/podsh/sandbox/container"
	"github.com/podsh/podsh/sandbox/doctor"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/machine"
	"github.com/podsh/podsh/sandbox/perform"
	"github.com/podsh/podsh/sandbox/plan"
	"github.com/podsh/podsh/sandbox/proc"
	"github.com/podsh/podsh/sandbox/step"
	"github.com/podsh/podsh/sandbox/store"
	"github.com/podsh/podsh/sandbox/wire"
)

// performance is a plan being carried out. Whatever was done is undone when a later step fails: undo is
// registered beside do.
type performance struct {
	*Proposal
	executor *nsenter.Executor
	exeCopy  *os.File
	upper    *os.File // locked while the pod is being made
	net      *wire.Wiring
	undo     []func()
	begun    int  // how many steps are done, or sent
	noKeys   bool // why it failed: the user may have no more keys

	staged *store.Staged // the pod's description
}

func (run *performance) undoAll() {
	for i := len(run.undo) - 1; i >= 0; i-- {
		run.undo[i]()
	}
	run.undo = nil
	if run.exeCopy != nil {
		run.exeCopy.Close()
	}
}

// begin starts the holder, and sends it its first steps without waiting for them.
func (run *performance) begin(steps step.Plan) error {
	if err := run.host(steps[0], hostCalls[steps[0].Host].do); err != nil {
		return err
	}
	run.begun = 1 + perform.Chunk(steps[1:])
	return run.executor.Send(steps[1:run.begun].Calls(), 0)
}

// perform carries out the plan from where it has begun.
func (run *performance) perform() error {
	place := 0
	for at := 1; at < len(run.Plan); {
		steps := run.Plan[at:]
		if steps[0].Side == step.Host {
			if err := run.host(steps[0], hostCalls[steps[0].Host].do); err != nil {
				return err
			}
			at++
			continue
		}
		n := perform.Chunk(steps)
		if at < run.begun {
			n = run.begun - at
		} else {
			if err := run.executor.Send(steps[:n].Calls(), place); err != nil {
				return run.explain(err)
			}
		}
		if err := run.settle(steps, n, place); err != nil {
			return err
		}
		at, place = at+n, place+n
	}
	run.undo = nil
	if run.net != nil {
		run.net.Keep()
	}
	return run.executor.Close()
}

// host does a step of the host's side. One that fails where the pod's side has failed is no news: whoever finds no pod any more
// may notice first, and what the pod's side has said is why.
func (run *performance) host(step step.Step, do func(*performance) error) error {
	err := do(run)
	if err == nil {
		return nil
	}
	if run.executor != nil {
		if why := run.executor.Failed(); why != nil {
			return run.explain(why)
		}
	}
	return fmt.Errorf("%s: %w", step.Why, err)
}

// settle waits until the first n steps, which were sent, are done; and does meanwhile what the host's next
// one needs.
func (run *performance) settle(steps step.Plan, n, place int) error {
	for _, step := range steps[:n] {
		if step.Call.Nr == nsenter.Clone {
			if err := run.executor.Cloned(); err != nil {
				return run.explain(err)
			}
		}
	}
	if n < len(steps) && steps[n].Side == step.Host && hostCalls[steps[n].Host].prepare != nil {
		if err := run.host(steps[n], hostCalls[steps[n].Host].prepare); err != nil {
			return err
		}
	}
	switch steps[n-1].Call.Nr {
	case unix.SYS_EXECVEAT, nsenter.Pause:
		return nil // nobody is left to answer
	}
	if err := run.executor.Wait(place + n); err != nil {
		return run.explain(err)
	}
	return nil
}

// hostCall is a step of the host's side.
type hostCall struct {
	do      func(*performance) error
	prepare func(*performance) error // what can be done for it while the pod's side is still busy
}

// hostCalls are the steps of the host's side, by name.
var hostCalls = map[string]hostCall{
	"start":   {do: (*performance).start},
	"map ids": {do: (*performance).mapIDs},
	"save":    {do: (*performance).save, prepare: (*performance).stage},

	"attach":  {do: (*performance).attachNext, prepare: (*performance).wire},
	"way out": {do: (*performance).leadOut, prepare: (*performance).wire},
	"address": {do: (*performance).giveAddress, prepare: (*performance).wire},
	"replies": {do: (*performance).keepReplies, prepare: (*performance).wire},
	"serve":   {do: (*performance).serve, prepare: (*performance).wire},
	"publish": {do: (*performance).publish},
}

func (run *performance) start() (err error) {
	if run.exe == plan.ExeMemfd {
		if run.exeCopy, err = perform.SealedCopy(); err != nil {
			return err
		}
	}
	if err := run.makeUpper(); err != nil {
		return err
	}
	if run.exeCopy == nil && len(run.facts.Enter) == 0 {
		run.executor = nsenter.Spare()
	} else if spare := nsenter.Spare(); spare != nil {
		spare.Reap() // else it would be there as long as podsh run
	}
	if run.executor == nil {
		if run.executor, err = run.startExecutor(); err != nil {
			return err
		}
	}
	run.undo = append(run.undo, run.executor.Kill)
	return nil
}

// startExecutor starts podsh, or a sealed copy of it, as an executor that has the namespaces of others at
// hand.
func (run *performance) startExecutor() (*nsenter.Executor, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	if run.exeCopy != nil {
		return nsenter.StartFile(run.exeCopy, null, run.held.entrances, &syscall.SysProcAttr{Setsid: true})
	}
	return nsenter.Start("/proc/self/exe", null, run.held.entrances, &syscall.SysProcAttr{Setsid: true})
}

func (run *performance) mapIDs() error {
	if hub := run.facts.Net.Hub; hub != nil && hub.Own("user") {
		return perform.WriteMapsBelow(run.Pod, hub, run.executor.PID)
	}
	err := perform.WriteMaps(run.Pod, run.executor.PID, run.facts.NewUIDMap)
	if err != nil && run.Pod.Spec.AsksForMap() {
		return fault.WithHint(err, "you may map your own ids, and those that /etc/subuid and /etc/subgid give you: %s", doctor.YourMap())
	}
	return err
}

// stage writes the pod's description, and the plan for plain joins that stands beside it, but not where they are found.
func (run *performance) stage() (err error) {
	pod := run.Pod
	if pod.Holder, err = proc.Identify(run.executor.PID, run.executor.PIDFD); err != nil {
		return err
	}
	pod.Created, pod.PlanFormat = time.Now().UTC(), nsenter.Format
	description, err := json.Marshal(pod)
	if err != nil {
		return err
	}
	join, err := plan.SavedJoin(pod, run.facts, machine.JoinerHolds(pod))
	if err != nil {
		return err
	}
	if run.staged, err = run.store.Stage(pod.ID, map[string][]byte{"pod.json": description, "join": join}); err != nil {
		return err
	}
	run.undo = append(run.undo, func() {
		if run.staged != nil {
			run.staged.Discard()
		}
	})
	return nil
}

// save puts both in their place.
func (run *performance) save() error {
	if run.staged == nil { // another step of the host's stood before this one
		if err := run.stage(); err != nil {
			return err
		}
	}
	if err := run.listenInPod(run.staged.Dir); err != nil {
		return run.store.Full(err)
	}
	n := run.staged
	run.staged = nil
	if err := run.store.Place(n, run.Pod); err != nil {
		return err
	}
	run.undo = append(run.undo, func() { _ = run.store.Forget(run.Pod) }) // as good as can be: it lists as exited
	return nil
}

// explain says what a call that failed was for, and looks for a cause that only this pod can have.
func (run *performance) explain(err error) error {
	var failed *nsenter.CallError
	if errors.As(err, &failed) {
		step, _, _ := run.Plan.At(failed.Place)
		run.noKeys = step.Call.Nr == unix.SYS_KEYCTL && failed.Errno == unix.EDQUOT
	}
	if source := run.Pod.Spec.Rootfs; source.IsFolder() {
		if why := container.Mismatched(run.Pod.Spec.Volumes, []string{source.Dir}); why != nil {
			return why
		}
	}
	return perform.HintAtMounts(perform.ExplainFailure(run.Plan, err), run.Pod.Spec.Rootfs)
}
