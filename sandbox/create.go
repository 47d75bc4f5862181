package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/nsenter"
)

// Proposal is a pod that could be made, and the plan to make it.
type Proposal struct {
	Pod      *Pod
	Plan     Plan
	Warnings []string

	facts *Facts
	store *Store
	exe   exeKind
}

// Propose reads the facts and plans a pod; nothing is changed. detailed says that the plan will be shown.
func Propose(spec *Spec, store *Store, detailed bool) (*Proposal, error) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	if spec.Name != "" {
		if id := store.named(spec.Name); id != "" {
			return nil, nameTaken(spec.Name, id)
		}
	}
	facts, err := readFacts(spec, store, detailed)
	if err != nil {
		return nil, err
	}
	return propose(spec, store, facts)
}

func propose(spec *Spec, store *Store, facts *Facts) (*Proposal, error) {
	pod, warnings, err := resolve(spec, facts, newID())
	if err != nil {
		return nil, err
	}
	pod.store = store
	pod.Upper = upperDir(pod, facts)
	exe := chooseExe(pod, facts)
	pod.OwnFile = exe != exePlain
	return &Proposal{pod, planCreate(pod, facts, exe), warnings, facts, store, exe}, nil
}

// chooseExe decides how podsh's file is kept out of the pod's reach.
func chooseExe(pod *Pod, f *Facts) exeKind {
	uids := pod.UIDMap
	if pod.Namespaces["user"].Kind == "host" {
		uids = []IDMap{{0, 0, 1<<32 - 1}}
	}
	known := pod.Namespaces["user"].Kind != "path"
	switch {
	case known && !f.Exe.reachable(uids):
		return exePlain
	case pod.own("mnt") && f.Exe.Path != "" && f.Kernel.atLeast(5, 12):
		return exeMount
	}
	return exeMemfd
}

// Create makes a pod as proposed. Where newuidmap turns out not to work, it makes one with a single id and
// warns.
func (p *Proposal) Create() (*Pod, []string, error) {
	defer p.facts.Close()
	warnings := p.Warnings
	for {
		err := p.perform()
		var refused *idsRefused
		if errors.As(err, &refused) && len(p.Pod.Spec.UIDMap)+len(p.Pod.Spec.GIDMap) == 0 {
			var again *Proposal
			if again, err = propose(&p.Pod.Spec, p.store, p.facts.withoutRanges(refused.Error())); err == nil {
				*p = *again
				warnings = p.Warnings
				continue
			}
		}
		return p.Pod, warnings, err
	}
}

// idsRefused says that newuidmap did not do what /etc/subuid promises.
type idsRefused struct{ why string }

func (e *idsRefused) Error() string { return e.why }

// performance is a plan being carried out. Whatever was done is undone when a later step fails: undo is
// registered beside do.
type performance struct {
	*Proposal
	executor *nsenter.Executor
	exeCopy  *os.File
	undo     []func()

	description, join []byte // of the pod, for the store
}

func (p *Proposal) perform() (err error) {
	run := &performance{Proposal: p}
	defer func() {
		if err != nil {
			for i := len(run.undo) - 1; i >= 0; i-- {
				run.undo[i]()
			}
		}
		if run.exeCopy != nil {
			run.exeCopy.Close()
		}
	}()
	place := 0
	for steps := p.Plan; len(steps) > 0; {
		if steps[0].Side == Host {
			if err := hostCalls[steps[0].Host].do(run); err != nil {
				return fmt.Errorf("%s: %w", steps[0].Why, err)
			}
			steps = steps[1:]
			continue
		}
		n := chunk(steps)
		if err := run.send(steps[:n], place); err != nil {
			return p.Plan.explainFailure(err)
		}
		if n < len(steps) && steps[n].Side == Host {
			if prepare := hostCalls[steps[n].Host].prepare; prepare != nil {
				if err := prepare(run); err != nil {
					return fmt.Errorf("%s: %w", steps[n].Why, err)
				}
			}
		}
		if err := run.wait(steps[:n], place); err != nil {
			return p.Plan.explainFailure(err)
		}
		place, steps = place+n, steps[n:]
	}
	return run.executor.Close()
}

// chunk counts the pod's steps that go to the executor at once: up to the host's next one, or to the call
// after which another program image reads the rest.
func chunk(steps Plan) int {
	for i, step := range steps {
		if step.Side == Host {
			return i
		}
		if step.Call.Nr == unix.SYS_EXECVEAT {
			return i + 1
		}
	}
	return len(steps)
}

func (run *performance) send(steps Plan, place int) error {
	calls := steps.calls()
	if err := run.executor.Send(calls, place); err != nil {
		return err
	}
	for _, call := range calls {
		if call.Nr == nsenter.Clone {
			if err := run.executor.Cloned(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (run *performance) wait(steps Plan, place int) error {
	switch steps[len(steps)-1].Call.Nr {
	case unix.SYS_EXECVEAT, nsenter.Pause:
		return nil // nobody is left to answer
	}
	return run.executor.Wait(place + len(steps))
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
	"save":    {do: (*performance).save, prepare: (*performance).describe},
}

func (run *performance) start() (err error) {
	path := ""
	if run.exe == exeMemfd {
		if run.exeCopy, err = sealedCopy(); err != nil {
			return err
		}
		if path, err = nsenter.Path(run.exeCopy); err != nil {
			return err
		}
	}
	if err := run.makeUpper(); err != nil {
		return err
	}
	if path == "" && len(run.facts.Enter) == 0 {
		run.executor = nsenter.Spare()
	}
	if run.executor == nil {
		if run.executor, err = run.startExecutor(path); err != nil {
			return err
		}
	}
	run.undo = append(run.undo, run.executor.Kill)
	return nil
}

// startExecutor starts podsh, or a sealed copy of it, as an executor that has the namespaces of others at
// hand.
func (run *performance) startExecutor(path string) (*nsenter.Executor, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	if path == "" {
		path = "/proc/self/exe"
	}
	var files []*os.File
	for _, e := range run.facts.Enter {
		files = append(files, e.File)
	}
	return nsenter.Start(path, null, files, &syscall.SysProcAttr{Setsid: true})
}

// makeUpper makes the folder on disk for the pod's writes, where it needs one.
func (run *performance) makeUpper() error {
	dir := run.Pod.Upper
	if dir == "" {
		return nil
	}
	run.undo = append(run.undo, func() { _ = run.Pod.removeUpper() }) // rm tries again, and says why
	return os.MkdirAll(dir, 0o700)
}

// mapIDs writes the maps of the pod's user namespace: by itself where it may, else through the two programs
// that may, side by side.
func (run *performance) mapIDs() error {
	pod := run.Pod
	if run.facts.NewUIDMap && !pod.OneID {
		return run.newIDMaps()
	}
	proc := fmt.Sprintf("/proc/%d/", run.executor.PID)
	files := []struct{ name, text string }{
		{"setgroups", "deny"}, // gid_map is refused until then: user_namespaces(7)
		{"uid_map", lines(pod.UIDMap)}, {"gid_map", lines(pod.GIDMap)},
	}
	if !pod.OneID {
		files = files[1:]
	}
	for _, file := range files {
		if err := os.WriteFile(proc+file.name, []byte(file.text), 0); err != nil {
			var errno syscall.Errno
			errors.As(err, &errno)
			return withHints(err, hintsFor(file.name, errno))
		}
	}
	return nil
}

func (run *performance) newIDMaps() error {
	pid := strconv.Itoa(run.executor.PID)
	programs := []struct {
		name string
		ids  []IDMap
	}{{"newuidmap", run.Pod.UIDMap}, {"newgidmap", run.Pod.GIDMap}}
	var commands []*exec.Cmd
	var output [2]bytes.Buffer
	var failed error
	for i, program := range programs {
		cmd := exec.Command(program.name, append([]string{pid}, strings.Fields(words(program.ids))...)...)
		cmd.Stderr = &output[i]
		if err := cmd.Start(); err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		commands = append(commands, cmd)
	}
	for i, cmd := range commands {
		if err := cmd.Wait(); err != nil {
			failed = &idsRefused{fmt.Sprintf("%s: %s", programs[i].name, firstLine(output[i].String(), err))}
		}
	}
	if failed == nil {
		return nil
	}
	return withHints(failed, hintsFor("newuidmap", unix.EPERM))
}

func firstLine(text string, err error) string {
	if line, _, _ := strings.Cut(strings.TrimSpace(text), "\n"); line != "" {
		return line
	}
	return err.Error()
}

// describe makes the pod's description, and the plan for plain joins that stands beside it.
func (run *performance) describe() (err error) {
	pod := run.Pod
	if pod.Holder, err = identify(run.executor.PID, run.executor.PIDFD); err != nil {
		return err
	}
	pod.Created, pod.PlanFormat = time.Now().UTC(), nsenter.Format
	if run.description, err = json.Marshal(pod); err != nil {
		return err
	}
	run.join, err = savedJoin(pod, run.facts)
	return err
}

// save writes both to disk.
func (run *performance) save() error {
	if err := run.store.save(run.Pod, run.description, run.join); err != nil {
		return err
	}
	run.undo = append(run.undo, func() { _ = run.store.forget(run.Pod) }) // as good as can be: it lists as exited
	return nil
}

// explainFailure says what a call that failed was for.
func (plan Plan) explainFailure(err error) error {
	var failed *nsenter.CallError
	if !errors.As(err, &failed) {
		if errors.Is(err, io.EOF) || errors.Is(err, nsenter.ErrGone) {
			return fail(nil, []string{"was it killed, or is memory short? `podsh doctor` looks at this machine"}, "%v", nsenter.ErrGone)
		}
		return err
	}
	step, why, ok := plan.at(failed.Place)
	if !ok {
		return err
	}
	name := callName(step.Call)
	hints := hintsFor(callKey(step.Call), failed.Errno)
	if why.Cmd != "" && len(hints) == 0 {
		line, _, _ := strings.Cut(why.Cmd, "\n")
		hints = append(hints, "by hand: "+line)
	}
	return &failure{fmt.Sprintf("%s: %s: %v", why.Why, name, failed.Errno), failed.Errno, hints}
}

// callKey is what hintsFor knows a call by: "mount proc", or the name of the system call.
func callKey(call nsenter.Call) string {
	name := callNames[call.Nr]
	if call.Nr == unix.SYS_MOUNT {
		if kind, ok := call.Args[2].(string); ok {
			return name + " " + kind
		}
	}
	return name
}

func withHints(err error, hints []string) error {
	return &failure{err.Error(), err, hints}
}
