package wire

import (
	"fmt"
	"net/netip"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/network/control"
	"github.com/podsh/podsh/sandbox/machine"
	"github.com/podsh/podsh/sandbox/plan"
	"github.com/podsh/podsh/sandbox/pod"
)

// A pod's resolv.conf follows the host's, as far as nobody has said what it is to be: its helper has it open, and keeps
// it up to date.

// followsHost says whether there is something to follow.
func followsHost(p *pod.Pod) bool {
	n := &p.Spec.Net
	return n.FollowsHost() && p.Own("mnt") && (len(n.Search) == 0 || len(n.Options) == 0)
}

// FollowHost gives the helper of a pod that is being made the file that podsh has just written there. Nobody in the pod
// can have put another in its place yet.
func (w *Wiring) FollowHost(pid int, pidfd *os.File) error {
	if !followsHost(w.pod) {
		return nil
	}
	root, err := machine.OpenRootOf(w.pod, pid, pidfd)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	path, is, err := machine.FindResolvConf(root)
	if err != nil {
		return err
	}
	defer unix.Close(path)
	w.State.ResolvConf = &is
	return w.follow(path)
}

// followHostAgain gives it to a helper that was started anew, unless it is another file by now: then it is theirs who put
// it there.
func (w *Wiring) followHostAgain(pidfd *os.File) error {
	if w.State.ResolvConf == nil {
		return nil
	}
	root, err := machine.OpenRoot(w.pod, pidfd)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	path, is, err := machine.FindResolvConf(root)
	if err != nil {
		return nil
	}
	defer unix.Close(path)
	if is != *w.State.ResolvConf {
		return nil
	}
	return w.follow(path)
}

func (w *Wiring) follow(path int) error {
	file, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", path), os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("open /etc/resolv.conf of the pod: %w", err)
	}
	defer file.Close()
	where := &plan.NetFacts{OnHost: w.pod.Hub != "" && NetworksOnHost(), OnlyIPv6: len(w.State.Addresses) > 0 && !slices.ContainsFunc(w.State.Addresses, netip.Addr.Is4)}
	_, err = w.Helper.Ask(&control.Request{Do: control.Follow, Pod: w.pod.ID, Resolver: plan.ResolverOf(&w.pod.Spec.Net, where)}, file)
	return err
}
