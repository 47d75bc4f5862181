package wire

import (
	"errors"
	"net/netip"
	"os"
	"slices"

	"github.com/podsh/podsh/network"
	"github.com/podsh/podsh/network/control"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/proc"
	"github.com/podsh/podsh/sandbox/store"
)

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
