package sandbox

import (
	"errors"
	"net/netip"

	"github.com/podsh/podsh/network"
	"github.com/podsh/podsh/network/control"
	"github.com/podsh/podsh/sandbox/files"
	"github.com/podsh/podsh/sandbox/perform"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/spec"
	"github.com/podsh/podsh/sandbox/store"
	"github.com/podsh/podsh/sandbox/wire"
)

// The steps of the host's side.

// wire begins what the pod's network needs, while the pod's own side is still busy.
func (run *performance) wire() (err error) {
	run.net.Maker, err = perform.StartMaker(run.executor.PIDFD, run.Pod.NetNamespaces(), wire.ForNetwork...)
	return errors.Join(err, run.net.AwaitEarly())
}

// beginNet opens the ports first of all: what is taken is told before anything is made.
func (run *performance) beginNet() error {
	if !run.Pod.Spec.Net.WantsHelper() {
		return nil
	}
	run.net = wire.NewWiring(run.Pod, &pod.NetState{Ports: []network.Port{}, Attachments: []network.Attachment{}})
	run.undo = append(run.undo, run.net.UndoAll)
	if err := run.net.Listen(run.Pod.Spec.Net.Ports); err != nil {
		return err
	}
	run.net.StartEarly(run.facts.Net.Hub)
	return nil
}

func (run *performance) attachNext() error {
	next := run.facts.Net.Networks[len(run.net.State.Attachments)]
	return run.net.Attach(run.facts.Net.Hub, run.executor.PID, next, run.Pod.Spec.Net.Endpoints[next.Name])
}

func (run *performance) leadOut() (err error) {
	n := &run.Pod.Spec.Net
	if n.WayOut == spec.WayOutStack {
		return run.net.LeadOut(run.facts.Net.IPv6)
	}
	run.net.State.Addresses = []netip.Addr{n.Outbound().Own[0].Addr()} // which both programs are told to give
	if err := run.serve(); err != nil || len(n.Ports) == 0 {           // the helper starts them
		return err
	}
	run.net.Maker.Close() // the helper has a copy; ports take more, now that there is an interface
	run.net.Maker, err = perform.StartMaker(run.executor.PIDFD, run.Pod.NetNamespaces(), wire.ForNetwork...)
	return err
}

func (run *performance) giveAddress() (err error) {
	run.net.State.Addresses, err = wire.GiveAddress(run.net.Maker, run.facts.Net.IPv6)
	return err
}

func (run *performance) keepReplies() error { return run.net.KeepReplies(run.Pod.Spec.Net.Ports) }

func (run *performance) serve() error {
	if run.net.State.Served {
		return nil
	}
	if err := run.net.Serve(run.facts.Net.Hub, run.executor.PIDFD); err != nil {
		return err
	}
	return run.net.FollowHost(run.executor.PID, run.executor.PIDFD)
}

func (run *performance) publish() error {
	if err := run.serve(); err != nil {
		return err
	}
	return run.net.Publish()
}

// listenInPod is done while the pod is written down: its folder is there, under another name yet.
func (run *performance) listenInPod(dir string) error {
	if run.net == nil {
		return nil
	}
	if err := files.WriteJSON(dir+"/"+store.NetName, run.net.State); err != nil {
		return err
	}
	listener, err := run.net.ListenForRequests(dir)
	if err != nil || listener == nil {
		return err
	}
	defer listener.Close()
	_, err = run.net.Helper.Ask(&control.Request{Do: control.Listen}, listener)
	return err
}
