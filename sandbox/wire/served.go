package wire

import (
	"errors"
	"fmt"
	"os"

	"github.com/podsh/podsh/network/control"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/perform"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/spec"
	"github.com/podsh/podsh/sandbox/store"
)

// Leader is the pod that this one's helper leads with: itself, or its hub.
func Leader(p *pod.Pod) (*pod.Pod, error) {
	if p.Hub == "" {
		return p, nil
	}
	hub, err := store.StoreOf(p).Hub()
	if err != nil {
		return nil, err
	}
	if hub == nil || hub.ID != p.Hub {
		return nil, fault.New(nil, []string{fmt.Sprintf("its networks are gone; podsh rm -f %s, and create it again", p.Title())},
			"the hub that pod %q was made in has ended", p.Title())
	}
	return hub, nil
}

// findHelper connects to the helper that leads with this pod. One that has ended is started anew, and gets
// back all that the last one had.
func findHelper(p *pod.Pod, by kept) (h *helper, restarted bool, err error) {
	if h, err = dial(p); !errors.Is(err, errNoHelper) {
		return h, false, err
	}
	if err := awaitKeeper(p); err != nil {
		return nil, false, err
	}
	unlock, err := store.LockNet(p)
	if err != nil {
		return nil, false, err
	}
	defer unlock()
	if h, err = dial(p); !errors.Is(err, errNoHelper) { // somebody was faster
		return h, false, err
	}
	if h, err = restartHelper(p, by); err != nil {
		return nil, false, fmt.Errorf("start the helper of pod %q anew: %w", p.Title(), err)
	}
	return h, true, nil
}

// restartHelper starts a helper in place of one that has ended.
func restartHelper(p *pod.Pod, by kept) (_ *helper, err error) {
	if err := endKeeper(p); err != nil {
		return nil, err
	}
	state, err := store.Net(p)
	if err != nil {
		return nil, err
	}
	h, err := startHelper(p, by.times)
	if err != nil {
		return nil, err
	}
	defer func() {
		h.stowed.close() // whom they were for is not there any more
		if err != nil {
			h.kill()
		}
	}()
	if h.stowed, err = takeSockets(by.stowed); err != nil {
		return nil, err
	}
	served := []*pod.Pod{p}
	if p.IsHub {
		in, err := store.StoreOf(p).InHub(p)
		if err != nil {
			return nil, err
		}
		served = append(served, in...)
	}
	for _, pod := range served {
		err := serveAgain(pod, h, pod == p)
		if err != nil && pod == p {
			return nil, err
		}
		if err != nil { // it is not to take the others with it
			h.lost = append(h.lost, fmt.Errorf("pod %q: %w", pod.Title(), err))
		}
	}
	if p.IsHub && !p.Own("net") && len(served) > 1 {
		w := NewWiring(p, state)
		w.Helper = h
		if err := w.resolveLocked(p); err != nil {
			return nil, err
		}
	}
	os.Remove(store.StoreOf(p).Below("pods", p.ID, store.ControlName)) // the last one's; else bind(2) says so
	listener, err := listenIn(store.StoreOf(p).Below("pods", p.ID))
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	if _, err := h.Ask(&control.Request{Do: control.Listen}, listener); err != nil {
		return nil, err
	}
	state.Helper, state.Keeper = &h.process, &h.keeper
	return h, store.SaveNet(p, state)
}

// serveAgain makes a new helper do for a pod what the last one did.
func serveAgain(p *pod.Pod, h *helper, leads bool) error {
	state, err := store.Net(p)
	if err != nil {
		return err
	}
	pidfd, err := store.Open(p)
	if errors.Is(err, fault.ErrExited) && !leads {
		return nil
	}
	if err != nil {
		return err
	}
	defer pidfd.Close()
	again := *state
	again.Ports = nil
	w := NewWiring(p, &again)
	w.Helper, w.own = &helper{conn: h.conn, stowed: h.stowed}, leads
	defer func() {
		w.Helper = nil // it is the caller's
		w.close()
	}()
	if w.Maker, err = perform.StartMaker(pidfd, p.NetNamespaces(), ForNetwork...); err != nil {
		return err
	}
	if p.Spec.Net.WayOut == spec.WayOutStack {
		if err := w.openTun(); err != nil {
			return err
		}
	}
	if err := w.serveMember(pidfd); err != nil {
		return err
	}
	if err := w.followHostAgain(pidfd); err != nil {
		return err
	}
	if err := w.Listen(state.Ports); err != nil {
		return err
	}
	return w.Publish()
}

// EnsureHelpers looks whether the helpers of pods are there, and starts those anew that have ended. It tells
// of each, and of what went wrong.
func EnsureHelpers(pods []*pod.Pod) (warnings []error) {
	looked := map[string]bool{}
	for _, p := range pods {
		state, err := store.Net(p)
		if err != nil {
			warnings = append(warnings, err)
			continue
		}
		if !state.HasHelper() {
			continue
		}
		leader, err := Leader(p)
		if err != nil {
			warnings = append(warnings, err)
			continue
		}
		if looked[leader.ID] {
			continue
		}
		looked[leader.ID] = true
		if err := ensureHelper(leader); err != nil {
			warnings = append(warnings, err)
		}
	}
	return warnings
}

// ensureHelper returns what is to be told: that the helper had ended, or can't be started.
func ensureHelper(p *pod.Pod) error {
	state, err := store.Net(p)
	if err != nil {
		return err
	}
	if state.Helper != nil {
		pidfd, err := state.Helper.Open()
		if err == nil {
			pidfd.Close()
			return nil
		}
	}
	h, restarted, err := findHelper(p, kept{})
	if err != nil {
		if store.StatusOf(p) == pod.Exited {
			return nil
		}
		return err
	}
	h.close()
	if restarted && len(h.lost) > 0 {
		return fault.WithHint(fmt.Errorf("the helper of networks had ended and was started anew, but not for all: %w", errors.Join(h.lost...)),
			"podsh port rm POD PORT, or remove the pod: then add it again")
	}
	if restarted {
		what := fmt.Sprintf("pod %q", p.Title())
		if p.IsHub {
			what = "networks"
		}
		return fault.New(nil, []string{"connections that went through it are gone; was it killed, or is memory short?"},
			"the helper of %s had ended: it was started anew, with all its ports", what)
	}
	return nil
}

// Rewire changes the network of a pod that runs: change is undone if it fails.
func Rewire(p *pod.Pod, change func(w *Wiring, pidfd *os.File) error) error {
	if p.Namespaces["net"].Kind != "new" || p.IsHub {
		return fault.New(nil, []string{"it is done with the pod whose network that is"}, "pod %q has no network of its own", p.Title())
	}
	pidfd, err := store.Open(p)
	if err != nil {
		return err
	}
	defer pidfd.Close()
	leader, err := Leader(p)
	if err != nil {
		return err
	}
	if leader == p && helperIsGone(p) {
		if err := awaitKeeper(p); err != nil {
			return err
		}
	}
	unlock, err := store.LockNet(p)
	if err != nil {
		return err
	}
	defer unlock()
	state, err := store.Net(p)
	if err != nil {
		return err
	}
	w := NewWiring(p, state)
	defer w.UndoAll()
	if err := findOrStart(p, w, leader); err != nil {
		return err
	}
	if w.Maker, err = perform.StartMaker(pidfd, p.NetNamespaces(), ForNetwork...); err != nil {
		return err
	}
	if err := change(w, pidfd); err != nil {
		return err
	}
	if err := store.SaveNet(p, state); err != nil {
		return err
	}
	w.Keep()
	return nil
}

// findOrStart gives the wiring a helper: the one that the pod has, or its first.
func findOrStart(p *pod.Pod, w *Wiring, leader *pod.Pod) (err error) {
	if leader != p {
		w.Helper, _, err = findHelper(leader, kept{})
		return err
	}
	if !w.State.Served {
		return w.startHelper(nil)
	}
	if w.Helper, err = dial(p); errors.Is(err, errNoHelper) {
		if w.Helper, err = restartHelper(p, kept{}); err == nil {
			w.State.Helper, w.State.Keeper = &w.Helper.process, &w.Helper.keeper
		}
	}
	return err
}

// Report asks the pod's helper how it is doing; nil if there is none.
func Report(p *pod.Pod) (*control.Report, error) {
	state, err := store.Net(p)
	if err != nil || !state.HasHelper() {
		return nil, err
	}
	leader, err := Leader(p)
	if err != nil {
		return nil, err
	}
	h, _, err := findHelper(leader, kept{})
	if err != nil {
		return nil, err
	}
	defer h.close()
	answer, err := h.Ask(&control.Request{Do: control.Status, Pod: p.ID})
	if err != nil {
		return nil, err
	}
	return answer.Status, nil
}

// Update tells the helper what has changed.
func (w *Wiring) Update(hub *pod.Pod, pidfd *os.File) error {
	if !w.State.Served {
		return w.Serve(hub, pidfd)
	}
	_, err := w.Helper.Ask(&control.Request{Do: control.Update, Member: w.member()})
	return err
}
