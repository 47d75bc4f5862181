package wire

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/bits"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/podsh/podsh/network"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/files"
	"github.com/podsh/podsh/sandbox/plan"
	"github.com/podsh/podsh/sandbox/spec"
	"github.com/podsh/podsh/sandbox/step"
	"github.com/podsh/podsh/sandbox/store"
)

// firstSubnets are where networks are looked for that say nothing of it.
var (
	firstSubnet4 = netip.MustParsePrefix("10.89.0.0/24")
	firstSubnet6 = netip.MustParsePrefix("fd70:6f64:7368:1::/64")
)

const mostNetworks = 256 // of the default subnets

// CreateNetwork writes a network down. It comes into being with its first pod.
func CreateNetwork(s *store.Store, spec *spec.NetworkSpec) (*network.Network, error) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	hasIPv6 := slices.ContainsFunc(spec.Subnets, func(subnet netip.Prefix) bool { return !subnet.Addr().Is4() })
	if (spec.IPv6 || hasIPv6) && !files.Exists("/proc/sys/net/ipv6") {
		return nil, fault.New(nil, []string{"leave it out; ipv6.disable=1 on the kernel's command line is the usual cause"}, "this kernel has no IPv6")
	}
	unlock, err := s.Lock()
	if err != nil {
		return nil, s.Full(err)
	}
	defer unlock()
	others, err := s.Networks()
	if err != nil {
		return nil, err
	}
	for _, other := range others {
		if other.Name == spec.Name {
			return nil, fault.New(fault.ErrNameTaken, []string{"podsh network rm " + spec.Name + ", or choose another name"}, "network %q is there already", spec.Name)
		}
	}
	n := &network.Network{Name: spec.Name, Internal: spec.Internal, Conflist: spec.Conflist, Subnets: spec.Subnets, Bridge: freeBridge(others)}
	if spec.Conflist == nil {
		if err := chooseSubnets(n, spec, others); err != nil {
			return nil, err
		}
	} else if n.Conflist, err = namedConflist(spec.Conflist, spec.Name); err != nil {
		return nil, err
	}
	n.Resolver = plan.ResolverFor(NetworksOnHost(), n.OnlyIPv6())
	if err := os.MkdirAll(s.Below("networks"), 0o700); err != nil {
		return nil, s.Full(err)
	}
	return n, s.Full(files.WriteJSON(s.Below("networks", n.Name), n))
}

// namedConflist checks a CNI configuration as far as this can be done without libcni, and gives it the name
// by which podsh knows it. A configuration of one plugin becomes a list.
func namedConflist(text []byte, name string) ([]byte, error) {
	hint := []string{"a CNI network configuration list: {\"cniVersion\": \"1.0.0\", \"name\": …, \"plugins\": [{\"type\": \"bridge\", …}]}"}
	var list map[string]any
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fault.New(nil, hint, "that is no JSON: %v", err)
	}
	if _, ok := list["type"].(string); ok && list["plugins"] == nil {
		list = map[string]any{"cniVersion": list["cniVersion"], "plugins": []any{list}}
	}
	plugins, _ := list["plugins"].([]any)
	if len(plugins) == 0 {
		return nil, fault.New(nil, hint, "it has no plugins")
	}
	for i, plugin := range plugins {
		if p, ok := plugin.(map[string]any); !ok || p["type"] == nil {
			return nil, fault.New(nil, hint, "plugin %d has no type", i+1)
		}
	}
	list["name"] = name
	return json.Marshal(list)
}

func freeBridge(others []*network.Network) string {
	taken := map[string]bool{}
	for _, other := range others {
		taken[other.Bridge] = true
	}
	for i := 0; ; i++ {
		name := fmt.Sprintf("podsh%d", i)
		if !taken[name] && !files.Exists("/sys/class/net/"+name) {
			return name
		}
	}
}

// chooseSubnets finds subnets that nobody has, and refuses those that somebody has.
func chooseSubnets(n *network.Network, spec *spec.NetworkSpec, others []*network.Network) error {
	has6 := false
	for _, subnet := range n.Subnets {
		has6 = has6 || subnet.Addr().Is6()
		if other := Overlapping(subnet, others); other != nil {
			return fault.New(nil, []string{"`podsh network ls` shows which are taken; without --subnet one is chosen"},
				"subnet %s overlaps that of network %q", subnet, other.Name)
		}
	}
	// As docker and podman have it: with --ipv6 both, with a subnet of IPv6 alone only that.
	if !spec.NoIPv4 && (len(n.Subnets) == 0 || spec.IPv6 && n.OnlyIPv6()) {
		subnet, ok := freeSubnet(firstSubnet4, 2, others)
		if !ok {
			return fault.New(nil, []string{"--subnet names one of your own"}, "all %d subnets from %s are taken", mostNetworks, firstSubnet4)
		}
		n.Subnets = append([]netip.Prefix{subnet}, n.Subnets...)
	}
	if spec.IPv6 && !has6 {
		subnet, ok := freeSubnet(firstSubnet6, 7, others)
		if !ok {
			return fault.New(nil, []string{"--subnet names one of your own"}, "all %d subnets from %s are taken", mostNetworks, firstSubnet6)
		}
		n.Subnets = append(n.Subnets, subnet)
	}
	return nil
}

// freeSubnet counts the byte at up until nobody has the subnet, and the host itself has no address in it.
func freeSubnet(first netip.Prefix, at int, others []*network.Network) (netip.Prefix, bool) {
	bytes := first.Addr().AsSlice()
	for range mostNetworks {
		ip, _ := netip.AddrFromSlice(bytes) // of the length that an address has
		subnet := netip.PrefixFrom(ip, first.Bits())
		if Overlapping(subnet, others) == nil && !hostRoutes(subnet) {
			return subnet, true
		}
		bytes[at]++
	}
	return netip.Prefix{}, false
}

// Overlapping is the first network with addresses of the subnet; nil: none.
func Overlapping(subnet netip.Prefix, networks []*network.Network) *network.Network {
	for _, other := range networks {
		for _, taken := range other.Subnets {
			if taken.Overlaps(subnet) {
				return other
			}
		}
	}
	return nil
}

// hostRoutes says whether the host has a route into a subnet: pods there would hide it. What can't be read is
// no obstacle.
func hostRoutes(subnet netip.Prefix) bool {
	routes, _ := os.ReadFile("/proc/net/route")
	for line := range strings.Lines(string(routes)) {
		fields := strings.Fields(line)
		if len(fields) < 8 {
			continue
		}
		destination, err1 := strconv.ParseUint(fields[1], 16, 32)
		mask, err2 := strconv.ParseUint(fields[7], 16, 32)
		if err1 != nil || err2 != nil || mask == 0 {
			continue
		}
		ip := netip.AddrFrom4([4]byte(step.Native.AppendUint32(nil, uint32(destination)))) // as in memory: proc_pid_net(5)
		if netip.PrefixFrom(ip, bits.OnesCount32(uint32(mask))).Overlaps(subnet) {
			return true
		}
	}
	routes, _ = os.ReadFile("/proc/net/ipv6_route")
	for line := range strings.Lines(string(routes)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		destination, err1 := hex.DecodeString(fields[0])
		length, err2 := strconv.ParseUint(fields[1], 16, 8)
		ip, ok := netip.AddrFromSlice(destination)
		if err1 == nil && err2 == nil && ok && length > 0 && netip.PrefixFrom(ip, int(length)).Overlaps(subnet) {
			return true
		}
	}
	return false
}
