package link

import (
	"fmt"
	"net/netip"

	"github.com/containernetworking/cni/pkg/utils"
)

// Check says what is wrong with a network, by itself or beside the others. It asks nothing of the system.
// Errors: *OverlapError.
func Check(n Network, others []Network) error {
	if err := utils.ValidateNetworkName(n.Name); err != nil { // it becomes a folder, and part of a table's name
		return fmt.Errorf("network name %q: %w", n.Name, err)
	}
	if err := n.check(); err != nil {
		return fmt.Errorf("network %q: %w", n.Name, err)
	}
	for _, other := range others {
		if err := n.besides(other); err != nil {
			return fmt.Errorf("network %q: %w", n.Name, err)
		}
	}
	return nil
}

func (n Network) check() error {
	if n.isCNI() {
		_, err := n.parse("")
		return err
	}
	if err := utils.ValidateInterfaceName(n.Bridge); err != nil {
		return fmt.Errorf("bridge name %q: %w", n.Bridge, err)
	}
	var four, six int
	for _, subnet := range n.Subnets {
		if err := checkSubnet(subnet); err != nil {
			return fmt.Errorf("subnet %s: %w", subnet, err)
		}
		if subnet.Addr().Is4() {
			four++
		} else {
			six++
		}
	}
	if four > 1 || six > 1 || four+six == 0 {
		return fmt.Errorf("%d IPv4 and %d IPv6 subnets: a network has one of either, or one of both", four, six)
	}
	return nil
}

func checkSubnet(subnet netip.Prefix) error {
	address := subnet.Addr()
	switch {
	case !subnet.IsValid() || address.Is4In6():
		return fmt.Errorf("not a subnet")
	case subnet != subnet.Masked():
		return fmt.Errorf("it has host bits set; did you mean %s?", subnet.Masked())
	case address.IsUnspecified() || address.IsLoopback() || address.IsMulticast() || address.IsLinkLocalUnicast():
		return fmt.Errorf("not addresses that pods can have")
	case subnet.Bits() > address.BitLen()-2:
		return fmt.Errorf("too small for a gateway and a pod")
	}
	return nil
}

func (n Network) besides(other Network) error {
	if n.Name == other.Name {
		return &OverlapError{What: "the name", Other: other.Name, Has: "the name"}
	}
	if !n.isCNI() && !other.isCNI() && n.Bridge == other.Bridge {
		return &OverlapError{What: n.Bridge, Other: other.Name, Has: other.Bridge}
	}
	for _, mine := range n.Subnets {
		for _, its := range other.Subnets {
			if mine.Overlaps(its) {
				return &OverlapError{What: mine.String(), Other: other.Name, Has: its.String()}
			}
		}
	}
	return nil
}
