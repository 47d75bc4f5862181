package link

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/network"
)

// carrierTimeout is how long the kernel may take to notice that both ends of a link are up.
const carrierTimeout = 2 * time.Second

// attach connects a pod to a network of podsh's own, with the same result as CNI's bridge and host-local.
func (p Place) attach(ctx context.Context, n Network, pod Pod) (a *Attachment, err error) {
	h, err := routes()
	if err != nil {
		return nil, err
	}
	defer h.Close()
	var undo undo
	defer func() {
		if err != nil {
			a, err = nil, errors.Join(err, undo.run())
		}
	}()
	name := pod.hostInterface()
	if _, err := h.LinkByName(name); err == nil {
		return nil, fmt.Errorf("%s: %w", pod.Interface, ErrAttached)
	}
	a = &Attachment{Network: n.Name, Interface: pod.Interface, HostInterface: name, Default: pod.Default && !n.Internal}
	bridge, err := p.prepare(ctx, h, n, pod, a, &undo)
	if err != nil {
		return nil, err
	}
	if err := connect(h, bridge, pod, a, &undo); err != nil {
		return nil, err
	}
	return a, awaitCarrier(ctx, h, name, func() error { return a.configure(n, pod) })
}

// prepare takes what a pod needs of a network, under the lock that Remove takes as well: addresses, a bridge.
func (p Place) prepare(ctx context.Context, h *netlink.Handle, n Network, pod Pod, a *Attachment, undo *undo) (netlink.Link, error) {
	leases, err := p.openLeases(n)
	if err != nil {
		return nil, err
	}
	defer leases.Close()
	if err := leases.Lock(); err != nil {
		return nil, fmt.Errorf("lock %s: %w", leases.dir, err)
	}
	defer leases.Unlock()
	if a.Addresses, err = leases.take(n, pod); err != nil {
		return nil, err
	}
	taken := &Attachment{Addresses: a.Addresses, MAC: pod.MAC}
	undo.add(func() error { return p.release(n, pod, taken) })
	for _, subnet := range n.Subnets {
		gateway, _ := network.Ends(subnet)
		a.Gateways = append(a.Gateways, gateway)
	}
	if a.MAC = pod.MAC; a.MAC == "" {
		a.MAC = mac(a.Addresses[0].Addr()).String()
	}
	return p.ensureBridge(ctx, h, n)
}

// connect makes the two ends of a link, one on the bridge and one in the pod.
func connect(h *netlink.Handle, bridge netlink.Link, pod Pod, a *Attachment, undo *undo) error {
	hardware, err := net.ParseMAC(a.MAC)
	if err != nil {
		return err
	}
	attributes := netlink.NewLinkAttrs()
	attributes.Name, attributes.Flags = a.HostInterface, net.FlagUp
	veth := &netlink.Veth{
		LinkAttrs: attributes,
		PeerName:  pod.Interface, PeerHardwareAddr: hardware, PeerNamespace: netlink.NsFd(int(pod.NetNS.Fd())),
	}
	if err := h.LinkAdd(veth); err != nil {
		return fmt.Errorf("make a link %s in the pod: %w", pod.Interface, err)
	}
	undo.add(func() error { return deleteLink(h, a.HostInterface, isVeth) })
	if err := h.LinkSetMaster(veth, bridge); err != nil {
		return fmt.Errorf("put %s on %s: %w", a.HostInterface, bridge.Attrs().Name, err)
	}
	return nil
}

// configure gives the pod's end its addresses and routes.
func (a *Attachment) configure(n Network, pod Pod) error {
	netns, err := ns.GetNS(fmt.Sprintf("/proc/self/fd/%d", pod.NetNS.Fd()))
	if err != nil {
		return fmt.Errorf("open the pod's network namespace: %w", err)
	}
	defer netns.Close()
	return netns.Do(func(ns.NetNS) error {
		h, err := routes()
		if err != nil {
			return err
		}
		defer h.Close()
		link, err := h.LinkByName(a.Interface)
		if err != nil {
			return fmt.Errorf("look up %s in the pod: %w", a.Interface, err)
		}
		a.MTU = link.Attrs().MTU
		if err := linkSysctls(a.Interface, n.has6()); err != nil {
			return err
		}
		for _, address := range a.Addresses {
			if err := addAddress(h, link, address); err != nil {
				return err
			}
		}
		if err := h.LinkSetUp(link); err != nil {
			return fmt.Errorf("bring %s up in the pod: %w", a.Interface, err)
		}
		if n.Internal && n.Resolver.IsValid() {
			gateway := a.Gateways[slices.IndexFunc(a.Gateways, func(ip netip.Addr) bool { return ip.Is4() == n.Resolver.Is4() })]
			route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(host(n.Resolver)), Gw: gateway.AsSlice()}
			if err := h.RouteReplace(route); err != nil {
				return fmt.Errorf("add a route to %s: %w", n.Resolver, err)
			}
		}
		if !a.Default {
			return nil
		}
		for _, gateway := range a.Gateways {
			route := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: gateway.AsSlice()}
			if err := h.RouteAdd(route); err != nil {
				return fmt.Errorf("add a default route via %s: %w", gateway, err)
			}
		}
		return nil
	})
}

// awaitCarrier does what brings the pod's end up, and returns when the bridge carries its frames. The kernel
// sees that both ends are up in a work queue of its own (net/core/link_watch.c); until then the bridge drops
// them, and a first SYN would be sent again only after a second.
func awaitCarrier(ctx context.Context, h *netlink.Handle, name string, do func() error) error {
	changes, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK)
	if err != nil {
		return fmt.Errorf("listen for changes of links: %w", err)
	}
	defer changes.Close()
	if err := do(); err != nil {
		return err
	}
	deadline := time.Now().Add(carrierTimeout)
	for {
		link, err := h.LinkByName(name)
		if err != nil {
			return fmt.Errorf("look up %s: %w", name, err)
		}
		if link.Attrs().OperState == netlink.OperUp {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		left := time.Until(deadline)
		if left <= 0 {
			return fmt.Errorf("%s is %s still after %v", name, link.Attrs().OperState, carrierTimeout)
		}
		wait := unix.NsecToTimeval(int64(left))
		_ = changes.SetReceiveTimeout(&wait)
		_, _, _ = changes.Receive() // whatever it is, the link is looked at again
	}
}

// detach removes the link, whose other end goes with it, then gives back the addresses: not before nobody
// uses them.
func (p Place) detach(n Network, pod Pod, a *Attachment) error {
	h, err := routes()
	if err != nil {
		return err
	}
	defer h.Close()
	return errors.Join(deleteLink(h, pod.hostInterface(), isVeth), p.release(n, pod, a))
}

// hostInterface names the end that is not in the pod: it can be found again from the pod alone.
func (pod Pod) hostInterface() string {
	hash := fnv.New64a()
	fmt.Fprintf(hash, "%s %s", pod.ID, pod.Interface)
	return fmt.Sprintf("veth%016x", hash.Sum64())[:unix.IFNAMSIZ-1]
}

func isVeth(link netlink.Link) bool { return link.Type() == "veth" }

// mac is the hardware address that goes with an address, so that neighbours which remember the pair are right when the
// address is leased again. 0a is a locally administered one. Of IPv6, which is longer, it is a digest.
func mac(address netip.Addr) net.HardwareAddr {
	bytes := address.AsSlice()
	if address.Is6() {
		hash := fnv.New32a()
		hash.Write(bytes)
		bytes = hash.Sum(nil)
	}
	return append(net.HardwareAddr{0x0a, 0x58}, bytes...)
}
