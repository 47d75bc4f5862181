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
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/store"
)

// resolve makes the helper of networks on the host answer names there: in a hub its own stack does.
func (w *Wiring) resolve(hub *pod.Pod) error {
	if hub.Own("net") {
		return nil
	}
	unlock, err := store.LockNet(hub) // many pods may come at once, and one of them listens
	if err != nil {
		return err
	}
	defer unlock()
	return w.resolveLocked(hub)
}

// resolveLocked does so, for who has locked the hub's network.
func (w *Wiring) resolveLocked(hub *pod.Pod) error {
	answer, err := w.Helper.Ask(&control.Request{Do: control.Status, Pod: hub.ID})
	if err != nil {
		return err
	}
	for _, resolver := range hostResolvers(store.StoreOf(w.pod)) {
		if err == nil && !slices.Contains(answer.Status.Resolves, resolver) {
			err = w.resolveAt(resolver)
		}
	}
	return err
}

func (w *Wiring) resolveAt(resolver netip.Addr) error {
	if err := network.Ask(network.AddAddress(network.Loopback, HostPrefix(resolver))); err != nil {
		return fmt.Errorf("give lo the address %s: %w", resolver, err)
	}
	var sockets []*os.File
	defer func() { control.Close(sockets) }()
	for _, protocol := range []string{"udp", "tcp"} {
		l, err := listen(network.Port{HostIP: resolver, HostPort: 53, Protocol: protocol}, nil)
		if err != nil {
			return fault.WithHint(fmt.Errorf("name server of networks: listen on %s, port 53: %w", resolver, errors.Unwrap(err)),
				"a name server of the host's listens on all addresses: `ss -lnp 'sport = :53'`")
		}
		sockets = append(sockets, l.Sockets...)
	}
	_, err := w.Helper.Ask(&control.Request{Do: control.Resolve, Address: resolver}, sockets...)
	return err
}

// hostResolvers are where pods on networks that are on the host ask for names.
func hostResolvers(s *store.Store) []netip.Addr {
	networks, err := s.Networks()
	resolvers := []netip.Addr{network.HostResolver}
	if slices.ContainsFunc(networks, (*network.Network).OnlyIPv6) || err != nil && files.Exists("/proc/sys/net/ipv6") {
		resolvers = append(resolvers, network.HostResolver6)
	}
	return resolvers
}

// HostPrefix is the prefix of one address alone.
func HostPrefix(ip netip.Addr) netip.Prefix { return netip.PrefixFrom(ip, ip.BitLen()) }
