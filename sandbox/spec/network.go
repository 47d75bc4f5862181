package spec

import (
	"net/netip"
	"strings"

	"github.com/podsh/podsh/network"
	"github.com/podsh/podsh/sandbox/fault"
)

// NetworkSpec is what a user asked for.
type NetworkSpec struct {
	Name     string
	Subnets  []netip.Prefix
	IPv6     bool
	NoIPv4   bool
	Internal bool
	Conflist []byte // of the user's own
}

// Validate says what is wrong with it by itself.
func (n *NetworkSpec) Validate() error {
	if !IsName(n.Name) || ReservedNetwork(n.Name) || strings.HasSuffix(n.Name, ".new") || n.Name == "cache" {
		return fault.New(fault.ErrInvalid, []string{"letters, digits, and _ . - but not first; 63 at most; and no word that --net knows"}, "malformed network name %q", n.Name)
	}
	if n.Conflist != nil && (len(n.Subnets) > 0 || n.IPv6 || n.NoIPv4 || n.Internal) {
		return fault.New(fault.ErrInvalid, []string{"say it in the configuration itself"}, "--conflist excludes --subnet, --ipv4, --ipv6 and --internal")
	}
	families := map[bool]int{}
	for _, subnet := range n.Subnets {
		families[subnet.Addr().Is4()]++
		most := 126
		if subnet.Addr().Is4() {
			most = 29
		}
		if subnet.Masked() != subnet {
			return fault.New(fault.ErrInvalid, []string{"--subnet " + subnet.Masked().String()}, "--subnet %s: there are bits behind the mask", subnet)
		}
		if subnet.Bits() > most || subnet.Bits() < 8 || subnet.Addr().IsLoopback() || subnet.Addr().IsMulticast() || subnet.Addr().IsLinkLocalUnicast() {
			return fault.New(fault.ErrInvalid, []string{"such as --subnet 10.90.0.0/24, up to /29, or --subnet fd00:1234::/64"}, "--subnet %s is not for pods", subnet)
		}
		if subnet.Overlaps(netip.PrefixFrom(network.OwnAddress4.Addr(), 24).Masked()) || subnet.Overlaps(network.OwnAddress6.Masked()) || subnet.Contains(network.HostResolver6) {
			return fault.New(fault.ErrInvalid, []string{"such as --subnet 10.90.0.0/24 or fd00:1234::/64"}, "--subnet %s: podsh has addresses there", subnet)
		}
	}
	if families[true] > 1 || families[false] > 1 {
		return fault.New(fault.ErrInvalid, []string{"--subnet 10.90.0.0/24 --subnet fd00:1234::/64"}, "a network has one subnet of IPv4 at most, and one of IPv6")
	}
	if n.NoIPv4 && (families[true] > 0 || families[false] == 0 && !n.IPv6) {
		return fault.New(fault.ErrInvalid, []string{"--ipv4=false --ipv6, or --subnet fd00:1234::/64"}, "--ipv4=false leaves the network no subnet, or contradicts one")
	}
	return nil
}
