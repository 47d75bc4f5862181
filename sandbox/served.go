package sandbox

import (
	"fmt"
	"os"
	"slices"

	"github.com/podsh/podsh/network"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/files"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/spec"
	"github.com/podsh/podsh/sandbox/store"
	"github.com/podsh/podsh/sandbox/wire"
)

// Connect puts a pod that runs on one more network.
func Connect(p *pod.Pod, name string, asked spec.Endpoint) (*network.Attachment, error) {
	n, err := store.StoreOf(p).Network(name)
	if err == nil {
		err = asked.On(n)
	}
	if err != nil {
		return nil, err
	}
	hub, release, err := connectable(p, name)
	if err != nil {
		return nil, err
	}
	defer release()
	var attached *network.Attachment
	err = wire.Rewire(p, func(w *wire.Wiring, pidfd *os.File) error {
		if slices.ContainsFunc(w.State.Attachments, func(a network.Attachment) bool { return a.Network == name }) {
			return fault.New(nil, []string{"`podsh inspect " + store.Ref(p) + "` shows its address there"}, "pod %q is on network %q already", p.Title(), name)
		}
		if err := w.Attach(hub, p.Holder.PID, n, asked); err != nil {
			return err
		}
		attached = &w.State.Attachments[len(w.State.Attachments)-1]
		if len(w.State.Ports) > 0 {
			if err := w.KeepReachable(); err != nil {
				return err
			}
		}
		if err := w.Update(hub, pidfd); err != nil {
			return err
		}
		return store.StoreOf(p).Full(files.WriteJSON(store.StoreOf(p).Below("pods", p.ID, "pod.json"), p))
	})
	return attached, err
}

// connectable returns the hub, if the pod can be connected to networks there; release it afterwards.
func connectable(p *pod.Pod, name string) (hub *pod.Pod, release func(), err error) {
	hint := []string{fmt.Sprintf("create it with --net %s, or --net hub to connect it later", name)}
	if p.Hub == "" && !wire.NetworksOnHost() {
		return nil, nil, fault.New(nil, hint, "pod %q was not made in the hub: the kernel lets nobody but root link two user namespaces that are not related", p.Title())
	}
	state, err := store.Net(p)
	if err != nil {
		return nil, nil, err
	}
	if p.Hub == "" && state.Served {
		return nil, nil, fault.New(nil, hint, "pod %q has a helper of its own, and pods on networks share one", p.Title())
	}
	if hub, release, err = useHub(store.StoreOf(p)); err != nil {
		return nil, nil, err
	}
	switch {
	case p.Hub == "" && hub.Namespaces["net"].Kind == "host": // root's networks are on the host, and open to all pods
		p.Hub = hub.ID // which is written down when it is true
		return hub, release, nil
	case p.Hub != hub.ID:
		release()
		return nil, nil, fault.New(nil, hint, "the hub that pod %q was made in has ended", p.Title())
	}
	return hub, release, nil
}
