package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/network"
)

// ApartTable is a routing table that refuses the subnets of all networks; whatever comes from a network's
// bridge is led past it. Any number would do that nobody else uses.
const ApartTable = 28773

// Priorities of the rules, ip-rule(8). They come after table local, at 0, so that a network's gateway
// answers; and before table main, at 32766.
const (
	ruleOwn      = 7000 + iota // iif BRIDGE to SUBNET lookup main: the network's own
	ruleApart                  // iif BRIDGE lookup ApartTable: other networks
	ruleInternal               // iif BRIDGE prohibit: anything else, if it is internal
)

// ensureBridge makes a network's bridge with all that belongs to it, if it isn't there. The bridge comes up
// last: one that is up is whole. The caller holds the lock of the leases.
func (p Place) ensureBridge(ctx context.Context, h *netlink.Handle, n Network) (netlink.Link, error) {
	bridge, err := h.LinkByName(n.Bridge)
	switch {
	case err == nil && !n.owns(bridge):
		return nil, fmt.Errorf("there is an interface %s already that is not this network's", n.Bridge)
	case err == nil && bridge.Attrs().Flags&net.FlagUp != 0:
		return bridge, nil
	case err != nil && !isNoLink(err):
		return nil, fmt.Errorf("look up %s: %w", n.Bridge, err)
	}
	if err := p.removeBridge(ctx, n); err != nil { // what a process left that was killed over it
		return nil, err
	}
	bridge, err = p.makeBridge(ctx, h, n)
	if err != nil {
		return nil, errors.Join(err, p.removeBridge(context.WithoutCancel(ctx), n))
	}
	return bridge, nil
}

func (p Place) makeBridge(ctx context.Context, h *netlink.Handle, n Network) (netlink.Link, error) {
	attributes := netlink.NewLinkAttrs()
	attributes.Name = n.Bridge
	attributes.HardwareAddr = mac((*network.Network)(&n).Gateway()) // else it changes with the pods that come and go
	bridge := &netlink.Bridge{LinkAttrs: attributes}
	if err := h.LinkAdd(bridge); err != nil {
		return nil, fmt.Errorf("make bridge %s: %w", n.Bridge, err)
	}
	if err := h.LinkSetAlias(bridge, n.alias()); err != nil {
		return nil, fmt.Errorf("mark bridge %s: %w", n.Bridge, err)
	}
	if err := linkSysctls(n.Bridge, n.has6()); err != nil {
		return nil, err
	}
	for _, subnet := range n.Subnets {
		gateway, _ := network.Ends(subnet)
		if err := addAddress(h, bridge, netip.PrefixFrom(gateway, subnet.Bits())); err != nil {
			return nil, err
		}
	}
	if err := keepApart(h, n); err != nil {
		return nil, err
	}
	if err := forward(n); err != nil {
		return nil, err
	}
	if p.Masquerade && !n.Internal {
		if err := addNAT(ctx, n); err != nil {
			return nil, err
		}
	}
	if err := h.LinkSetUp(bridge); err != nil {
		return nil, fmt.Errorf("bring %s up: %w", n.Bridge, err)
	}
	return bridge, nil
}

// removeBridge removes the bridge and all that belongs to it, as far as it is there.
func (p Place) removeBridge(ctx context.Context, n Network) error {
	h, err := routes()
	if err != nil {
		return err
	}
	defer h.Close()
	if err := deleteLink(h, n.Bridge, n.owns); err != nil {
		return err
	}
	for _, rule := range n.rules() {
		if err := h.RuleDel(rule); err != nil && !isAny(err, unix.ENOENT, unix.EAFNOSUPPORT, unix.EOPNOTSUPP) {
			return fmt.Errorf("remove %q: %w", rule, err)
		}
	}
	for _, subnet := range n.Subnets {
		if err := h.RouteDel(refusal(subnet)); err != nil && !isAny(err, unix.ESRCH, unix.EAFNOSUPPORT, unix.EOPNOTSUPP) {
			return fmt.Errorf("remove the route that refuses %s: %w", subnet, err)
		}
	}
	if p.Masquerade && !n.Internal {
		return removeNAT(ctx, n)
	}
	return nil
}

// keepApart refuses to carry packets from this network to others, and to this from the others.
func keepApart(h *netlink.Handle, n Network) error {
	for _, subnet := range n.Subnets {
		if err := h.RouteReplace(refusal(subnet)); err != nil {
			return fmt.Errorf("refuse %s in routing table %d: %w", subnet, ApartTable, err)
		}
	}
	for _, rule := range n.rules() {
		err := h.RuleAdd(rule)
		if isAny(err, unix.EAFNOSUPPORT, unix.EOPNOTSUPP) && rule.Family == unix.AF_INET6 && !n.has6() {
			continue // the kernel has no IPv6
		}
		if err != nil && !isAny(err, unix.EEXIST) {
			return fmt.Errorf("add %q: %w", rule, err)
		}
	}
	return nil
}

// rules lead what comes from a network's bridge past ApartTable; for IPv6 even if the network has none, since
// a pod may give itself any address.
func (n Network) rules() []*netlink.Rule {
	var rules []*netlink.Rule
	add := func(priority, family int) *netlink.Rule {
		rule := netlink.NewRule()
		rule.Priority, rule.Family, rule.IifName = priority, family, n.Bridge
		rules = append(rules, rule)
		return rule
	}
	for _, subnet := range n.Subnets {
		rule := add(ruleOwn, family(subnet.Addr()))
		rule.Dst, rule.Table = ipNet(subnet), unix.RT_TABLE_MAIN
	}
	if n.Internal && n.Resolver.IsValid() { // names are answered all the same
		rule := add(ruleOwn, family(n.Resolver))
		rule.Dst, rule.Table = ipNet(host(n.Resolver)), unix.RT_TABLE_MAIN
	}
	linkLocal := add(ruleOwn, unix.AF_INET) // what clouds tell a machine there is not for pods
	linkLocal.Dst, linkLocal.Type = ipNet(netip.MustParsePrefix("169.254.0.0/16")), unix.RTN_PROHIBIT
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		add(ruleApart, family).Table = ApartTable
		if n.Internal {
			add(ruleInternal, family).Type = unix.RTN_PROHIBIT
		}
	}
	return rules
}

func host(ip netip.Addr) netip.Prefix { return netip.PrefixFrom(ip, ip.BitLen()) }

func refusal(subnet netip.Prefix) *netlink.Route {
	return &netlink.Route{Dst: ipNet(subnet), Type: unix.RTN_PROHIBIT, Table: ApartTable}
}

func (n Network) has6() bool {
	return slices.ContainsFunc(n.Subnets, func(subnet netip.Prefix) bool { return subnet.Addr().Is6() })
}

// alias marks what is ours, and tells people: `ip link` shows it.
func (n Network) alias() string { return "podsh network " + n.Name }

// owns tells the network's bridge from another of that name. A link gets its alias after it is made: one that
// is down and has none is what a killed process left.
func (n Network) owns(link netlink.Link) bool {
	alias, up := link.Attrs().Alias, link.Attrs().Flags&net.FlagUp != 0
	return link.Type() == "bridge" && (alias == n.alias() || alias == "" && !up)
}
