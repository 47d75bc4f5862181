package wire

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/podsh/podsh/network"
	"github.com/podsh/podsh/network/control"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/files"
	"github.com/podsh/podsh/sandbox/perform"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/proc"
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

// Publish publishes more ports of a pod that runs, and returns them with the numbers that they got.
func Publish(p *pod.Pod, ports []network.Port) ([]network.Port, error) {
	if p.Spec.Net.Down {
		return nil, fault.New(nil, []string{"create it without --net none"}, "in pod %q not even localhost works: nothing can be reached", p.Title())
	}
	var published []network.Port
	err := Rewire(p, func(w *Wiring, pidfd *os.File) error {
		for _, port := range ports {
			if i := slices.IndexFunc(w.State.Ports, port.Overlaps); i >= 0 {
				return fault.New(nil, []string{"podsh port rm " + p.Title() + " " + w.State.Ports[i].String()}, "%s is published already, as %s", port.Listens(), w.State.Ports[i])
			}
		}
		if err := w.Listen(ports); err != nil {
			return err
		}
		if !w.State.Served {
			if err := w.ensureAddress(); err != nil {
				return err
			}
		}
		if err := w.KeepReplies(ports); err != nil {
			return err
		}
		if err := w.begin(pidfd); err != nil {
			return err
		}
		if err := w.Publish(); err != nil {
			return err
		}
		for _, l := range w.ports {
			published = append(published, l.Port)
		}
		return nil
	})
	return published, err
}

// ensureAddress gives the pod an address of its own that has none.
func (w *Wiring) ensureAddress() (err error) {
	if len(w.State.Addresses) == 0 {
		w.State.Addresses, err = GiveAddress(w.Maker, files.Exists("/proc/sys/net/ipv6"))
	}
	return err
}

// begin makes a first helper serve a pod that had none.
func (w *Wiring) begin(pidfd *os.File) error {
	if w.State.Served {
		return nil
	}
	if err := w.serveMember(pidfd); err != nil {
		return err
	}
	dir := store.StoreOf(w.pod).Below("pods", w.pod.ID)
	os.Remove(dir + "/" + store.ControlName) // of one that has ended
	listener, err := w.ListenForRequests(dir)
	if err != nil || listener == nil {
		return err
	}
	defer listener.Close()
	w.undo = append(w.undo, func() { os.Remove(dir + "/" + store.ControlName) })
	_, err = w.Helper.Ask(&control.Request{Do: control.Listen}, listener)
	return err
}

// Unpublish ends published ports, and what goes through them. A port without a number of the pod's means
// whichever it leads to.
func Unpublish(p *pod.Pod, ports []network.Port) error {
	return Rewire(p, func(w *Wiring, _ *os.File) error {
		var gone []network.Port
		for _, port := range ports {
			i := slices.IndexFunc(w.State.Ports, func(q network.Port) bool {
				return q.HostPort == port.HostPort && q.Protocol == port.Protocol && (q.HostIP == port.HostIP || !port.HostIP.IsValid()) &&
					(port.PodPort == 0 || q.PodPort == port.PodPort)
			})
			if i < 0 {
				return fault.New(nil, []string{"`podsh port ls " + p.Title() + "` shows those that are"}, "%s of pod %q is not published", port.Listens(), p.Title())
			}
			gone = append(gone, w.State.Ports[i])
			w.State.Ports = slices.Delete(w.State.Ports, i, i+1)
		}
		_, err := w.Helper.Ask(&control.Request{Do: control.Unpublish, Pod: p.ID, Ports: gone})
		if err == nil {
			err = forgetPortReplies(w.Maker, w.State, gone)
		}
		return err
	})
}

// forgetPortReplies removes the rules of UDP ports that are not published any more.
func forgetPortReplies(m *perform.Maker, state *pod.NetState, gone []network.Port) error {
	for _, port := range gone {
		if port.Protocol != "udp" || slices.ContainsFunc(state.Ports, func(q network.Port) bool { return q.Protocol == "udp" && q.PodPort == port.PodPort }) {
			continue
		}
		for _, ip := range firstOfEach(state.Addresses) {
			if err := m.Request("rule for answers", network.DeletePortRule(ip, port.PodPort)); err != nil && !isGone(err) {
				return err
			}
		}
	}
	return nil
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

// EndHelper ends what a helper does for a pod that is removed: the helper itself, if it is the pod's own. The
// pod's leases go, too, if it was on networks, with what is left of its interfaces.
func EndHelper(p *pod.Pod, netns *os.File) error {
	state, err := store.Net(p)
	if err != nil {
		return nil // there is nothing to be known; the helper ends with the pod
	}
	if err := endKeeper(p); err != nil { // first: it has the ports, too
		return err
	}
	if state.Helper != nil {
		if err := proc.EndProcess(*state.Helper, "the helper of the pod's network"); err != nil {
			return err
		}
	}
	if p.Hub == "" {
		return nil
	}
	hub, err := store.StoreOf(p).Hub()
	if err != nil || hub == nil || hub.ID != p.Hub {
		return err
	}
	if h, err := dial(hub); err == nil {
		_, _ = h.Ask(&control.Request{Do: control.Forget, Pod: p.ID}) // it watches the pod as well
		h.close()
	}
	return detachAll(p, hub, state, netns)
}

// detachAll gives back what the pod has of networks. netns may be nil: gone.
func detachAll(p *pod.Pod, hub *pod.Pod, state *pod.NetState, netns *os.File) error {
	if len(state.Attachments) == 0 {
		return nil
	}
	work, err := StartWork(store.StoreOf(p), hub)
	if err != nil {
		return err
	}
	defer work.Close()
	for i := range state.Attachments {
		a := &state.Attachments[i]
		n, nerr := store.StoreOf(p).ReadNetwork(a.Network)
		if nerr != nil {
			continue // it was removed by force, and its leases with it
		}
		var files []*os.File
		if netns != nil {
			files = append(files, netns)
		}
		if _, derr := work.do(&control.Work{Do: control.Detach, Network: *n, Pod: p.ID, Attachment: a}, files...); derr != nil {
			err = errors.Join(err, derr)
		}
	}
	return err
}

// leadOutAgain lets another network lead out in place of one that is gone.
func (w *Wiring) leadOutAgain(gone network.Attachment) error {
	if !gone.Default {
		return nil
	}
	for i := range w.State.Attachments {
		a := &w.State.Attachments[i]
		if n, err := store.StoreOf(w.pod).ReadNetwork(a.Network); err != nil || n.Internal || len(a.Gateways) == 0 {
			continue
		}
		for _, gateway := range a.Gateways {
			if err := w.Maker.Request("default route via "+gateway.String(), network.AddDefaultRoute(0, gateway)); err != nil {
				return err
			}
		}
		a.Default = true
		return nil
	}
	return nil
}

// KeepReachable makes the published ports of a pod go on working when its addresses have changed.
func (w *Wiring) KeepReachable() error {
	if err := w.ensureAddress(); err != nil {
		return err
	}
	if err := keepReplies(w.Maker, w.State.Addresses); err != nil {
		return err
	}
	return keepPortReplies(w.Maker, w.State, w.State.Ports)
}

// Update tells the helper what has changed.
func (w *Wiring) Update(hub *pod.Pod, pidfd *os.File) error {
	if !w.State.Served {
		return w.Serve(hub, pidfd)
	}
	_, err := w.Helper.Ask(&control.Request{Do: control.Update, Member: w.member()})
	return err
}

// Disconnect takes a pod that runs off a network.
func Disconnect(p *pod.Pod, name string) error {
	n, err := store.StoreOf(p).Network(name)
	if err != nil {
		return err
	}
	hub, err := Leader(p)
	if err != nil {
		return err
	}
	return Rewire(p, func(w *Wiring, pidfd *os.File) error {
		i := slices.IndexFunc(w.State.Attachments, func(a network.Attachment) bool { return a.Network == name })
		if i < 0 {
			return fault.New(nil, []string{"`podsh inspect " + store.Ref(p) + "` shows which it is on"}, "pod %q is not on network %q", p.Title(), name)
		}
		if err := w.openNetwork(p.Holder.PID); err != nil {
			return err
		}
		if w.work, err = StartWork(store.StoreOf(p), hub); err != nil {
			return err
		}
		a := w.State.Attachments[i]
		if _, err := w.work.do(&control.Work{Do: control.Detach, Network: *n, Pod: p.ID, Attachment: &a}, w.netns); err != nil {
			return err
		}
		w.State.Attachments = slices.Delete(w.State.Attachments, i, i+1)
		w.State.Addresses = slices.DeleteFunc(w.State.Addresses, func(ip netip.Addr) bool {
			return slices.ContainsFunc(a.Addresses, func(own netip.Prefix) bool { return own.Addr() == ip })
		})
		if err := w.leadOutAgain(a); err != nil {
			return err
		}
		if len(w.State.Ports) > 0 { // the kernel took the routes for answers away with the address
			if err := w.KeepReachable(); err != nil {
				return err
			}
		}
		return w.Update(hub, pidfd)
	})
}
