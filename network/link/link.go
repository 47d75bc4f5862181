// Package link owns what pods share to reach each other: networks. It makes their bridges and keeps them
// apart, leases addresses, and attaches pods to them and detaches them. A network that podsh makes itself is
// a bridge made here by netlink, with leases as CNI's host-local plugin keeps them; one that a user describes
// by a CNI configuration list is left to libcni and the plugins named there.
//
// It acts where it stands, as root of a network namespace: the host's, or that of an ordinary user's hub. It
// refuses to know which of the two, how it got there, where descriptions of networks are kept, and what ports
// and names are. Of pods it knows an id and an open network namespace.
package link

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"runtime"

	"github.com/containernetworking/cni/pkg/utils"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/network"
)

// Network is a network as it was asked for. Either Conflist is set, or Bridge and Subnets are.
type Network network.Network

// Place says where networks keep what they write down, and what is to be found where they are.
type Place struct {
	LeaseDir   string   `json:"leaseDir"`             // host-local's dataDir: a folder for each network
	CacheDir   string   `json:"cacheDir"`             // what libcni remembers for DEL
	PluginPath []string `json:"pluginPath,omitempty"` // folders of CNI plugins
	Masquerade bool     `json:"masquerade,omitempty"` // let the kernel translate the addresses of what goes out
}

// Pod is one end of an attachment.
type Pod struct {
	ID        string
	NetNS     *os.File // its network namespace; for Detach nil if that is gone
	Interface string   // the name of its end, such as eth0
	Default   bool     // this network is its way out

	IPs []netip.Addr // that it is to have, of a family at most one; else those that are free
	MAC string       // else one that goes with its address
}

// Attachment is what became of a pod's interface.
type Attachment network.Attachment

// Attach connects a pod to a network, and makes the network's bridge if this is its first pod. What was done
// is undone when a later part fails. Errors: ErrAttached, ErrNoNAT, *ExhaustedError, *TakenError,
// *NoPluginError.
func (p Place) Attach(ctx context.Context, n Network, pod Pod) (*Attachment, error) {
	defer runtime.KeepAlive(pod.NetNS) // its number is used, which a finalizer would close
	if err := Check(n, nil); err != nil {
		return nil, err
	}
	if err := pod.check(); err != nil {
		return nil, err
	}
	if pod.NetNS == nil {
		return nil, fmt.Errorf("pod %s: its network namespace is missing", pod.ID)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	attach := p.attach
	if n.isCNI() {
		attach = p.attachCNI
	}
	a, err := attach(ctx, n, pod)
	if err != nil {
		return nil, fmt.Errorf("network %q: %w", n.Name, err)
	}
	return a, nil
}

// Detach undoes Attach. What is gone already, with the pod's namespace or by an earlier Detach, is no error.
// a is what Attach said; without it the leases are searched for the pod.
func (p Place) Detach(ctx context.Context, n Network, pod Pod, a *Attachment) error {
	defer runtime.KeepAlive(pod.NetNS)
	if err := Check(n, nil); err != nil {
		return err
	}
	if err := pod.check(); err != nil {
		return err
	}
	var err error
	if n.isCNI() {
		err = p.detachCNI(ctx, n, pod)
	} else {
		err = p.detach(n, pod, a)
	}
	if err != nil {
		return fmt.Errorf("network %q: %w", n.Name, err)
	}
	return nil
}

// Remove takes a network away: its bridge, the rules that keep it apart, its address translation, its folder
// of leases. What plugins of a conflist made for all pods, such as a bridge, they have no command to remove.
// Errors: *InUseError while pods are attached.
func (p Place) Remove(ctx context.Context, n Network) error {
	if err := Check(n, nil); err != nil {
		return err
	}
	if err := p.remove(ctx, n); err != nil {
		return fmt.Errorf("network %q: %w", n.Name, err)
	}
	return nil
}

func (p Place) remove(ctx context.Context, n Network) error {
	leases, err := p.openLeases(n)
	if err != nil {
		return err
	}
	defer leases.Close()
	if err := leases.Lock(); err != nil {
		return fmt.Errorf("lock %s: %w", leases.dir, err)
	}
	defer leases.Unlock()
	pods, err := p.pods(n)
	if err != nil {
		return err
	}
	if len(pods) > 0 {
		return &InUseError{Pods: pods}
	}
	if !n.isCNI() {
		if err := p.removeBridge(ctx, n); err != nil {
			return err
		}
	}
	return os.RemoveAll(leases.dir) // while the lock is held: who waits for it finds no folder
}

func (n Network) isCNI() bool { return len(n.Conflist) > 0 }

func (pod Pod) check() error {
	// The id becomes a line of a lease, the interface part of a path below /proc/sys.
	if err := utils.ValidateContainerID(pod.ID); err != nil {
		return fmt.Errorf("pod id %q: %w", pod.ID, err)
	}
	if err := utils.ValidateInterfaceName(pod.Interface); err != nil {
		return fmt.Errorf("interface name %q: %w", pod.Interface, err)
	}
	return nil
}

// undo is a list of what takes back what was done.
type undo []func() error

func (u *undo) add(step func() error) { *u = append(*u, step) }

// run takes everything back, last things first, and returns the first error.
func (u undo) run() (err error) {
	for i := len(u) - 1; i >= 0; i-- {
		if e := u[i](); err == nil {
			err = e
		}
	}
	return err
}

// routes opens a socket for requests about links, addresses, routes and rules: rtnetlink(7). It belongs to the
// network namespace of the calling thread.
func routes() (*netlink.Handle, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	return h, nil
}
