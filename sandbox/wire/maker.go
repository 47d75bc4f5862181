package wire

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/network"
	"github.com/podsh/podsh/sandbox/perform"
	"github.com/podsh/podsh/sandbox/plan"
	"github.com/podsh/podsh/sandbox/pod"
)

// ForNetwork are the capabilities that setting a network up takes: over the network, and to listen below 1024.
var ForNetwork = []capability.Cap{capability.CAP_NET_ADMIN, capability.CAP_NET_RAW, capability.CAP_NET_BIND_SERVICE}

// setSysctl writes a setting of the network that the maker is in: /proc/sys/net shows each process its own.
func setSysctl(m *perform.Maker, key, value string) error {
	b := &plan.Builder{}
	fd := b.Call(unix.SYS_OPENAT, unix.AT_FDCWD, "/proc/sys/"+key, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	b.Call(unix.SYS_WRITE, fd, value, len(value))
	b.Call(unix.SYS_CLOSE, fd)
	if _, err := m.Do(b); err != nil {
		return fmt.Errorf("set %s: %w", strings.ReplaceAll(key, "/", "."), err)
	}
	return nil
}

// GiveAddress gives a pod without any other an address of its own, on its loopback interface: not every
// kernel has dummy ones.
func GiveAddress(m *perform.Maker, ipv6 bool) ([]netip.Addr, error) {
	own := []netip.Addr{network.OwnAddress4.Addr()}
	requests := [][]byte{network.SetLink(network.Loopback, 65536), network.AddAddress(network.Loopback, netip.PrefixFrom(own[0], 32))}
	if ipv6 {
		ip := network.OwnAddress6.Addr()
		own = append(own, ip)
		requests = append(requests, network.AddAddress(network.Loopback, netip.PrefixFrom(ip, 128)))
	}
	return own, m.Request("address on lo", requests...)
}

// keepReplies makes what answers a client of a published port stay in the pod.
func keepReplies(m *perform.Maker, own []netip.Addr) error {
	if err := setSysctl(m, "net/ipv4/tcp_fwmark_accept", "1"); err != nil { // connections
		return err
	}
	for _, ip := range firstOfEach(own) {
		reflect := "net/ipv4/fwmark_reflect" // resets, and ICMP: that a port is closed must be told, too
		if ip.Is6() {
			reflect = "net/ipv6/fwmark_reflect"
		}
		if err := setSysctl(m, reflect, "1"); err != nil {
			return err
		}
		if err := m.Request("route for answers", network.AddReplyRoute(ip)); err != nil {
			return err
		}
		if err := m.Request("rule for answers", network.AddReplyRule(ip)); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	return nil
}

// firstOfEach is one address of each family.
func firstOfEach(ips []netip.Addr) []netip.Addr {
	var first []netip.Addr
	seen := map[bool]bool{}
	for _, ip := range ips {
		if !seen[ip.Is4()] {
			first = append(first, ip)
			seen[ip.Is4()] = true
		}
	}
	return first
}

// keepPortReplies does so for what UDP ports send.
//
// What they send to pods on the same network takes the usual way: peers know the pod by its own address.
func keepPortReplies(m *perform.Maker, state *pod.NetState, ports []network.Port) error {
	own := state.Addresses
	if slices.ContainsFunc(ports, func(p network.Port) bool { return p.Protocol == "udp" }) {
		for i := range state.Attachments {
			for _, address := range state.Attachments[i].Addresses {
				if err := m.Request("rule for peers", network.AddPeerRule(address.Masked())); err != nil && !errors.Is(err, unix.EEXIST) {
					return err
				}
			}
		}
	}
	for _, ip := range firstOfEach(own) {
		for _, port := range ports {
			if port.Protocol != "udp" {
				continue
			}
			if err := m.Request("rule for answers", network.AddPortRule(ip, port.PodPort)); err != nil && !errors.Is(err, unix.EEXIST) {
				return err
			}
		}
	}
	return nil
}
