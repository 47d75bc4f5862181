package wire

import (
	"os"
	"slices"

	"github.com/podsh/podsh/network"
	"github.com/podsh/podsh/network/control"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/files"
	"github.com/podsh/podsh/sandbox/perform"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/store"
)

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
