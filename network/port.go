package network

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Port is a port of the host's that leads to one of a pod's.
type Port struct {
	HostIP   netip.Addr `json:"host_ip"` // of the host; the zero one means all that it has
	HostPort uint16     `json:"host_port"`
	PodPort  uint16     `json:"pod_port"`
	Protocol string     `json:"protocol"` // "tcp" or "udp"
}

// PortForm is how a port is written.
const PortForm = "[HOSTIP:]HOSTPORT:PODPORT[/tcp|/udp]"

// String writes a port as ParsePorts reads it.
func (p Port) String() string {
	return fmt.Sprintf("%s:%d/%s", p.Listens(), p.PodPort, p.Protocol)
}

// Listens is the host's end: 127.0.0.1:8080, or 8080 for all addresses.
func (p Port) Listens() string {
	if p.HostIP.IsValid() {
		return netip.AddrPortFrom(p.HostIP, p.HostPort).String()
	}
	return strconv.Itoa(int(p.HostPort))
}

// Overlaps says whether two ports can't both be listened on.
func (p Port) Overlaps(q Port) bool {
	return p.Protocol == q.Protocol && p.HostPort == q.HostPort && p.HostPort != 0 &&
		(!p.HostIP.IsValid() || !q.HostIP.IsValid() || p.HostIP.IsUnspecified() && p.HostIP.Is4() == q.HostIP.Is4() ||
			q.HostIP.IsUnspecified() && p.HostIP.Is4() == q.HostIP.Is4() || p.HostIP == q.HostIP)
}

// ParsePorts reads [HOSTIP:]HOSTPORT:PODPORT[/tcp|/udp]. Ports may be ranges of the same size, such as
// 8000-8009:80-89; host port 0 is any that is free. An IPv6 address stands in brackets.
func ParsePorts(text string) ([]Port, error) {
	rest, protocol, has := strings.Cut(text, "/")
	if !has {
		protocol = "tcp"
	}
	if protocol != "tcp" && protocol != "udp" {
		return nil, fmt.Errorf("%q: no protocol %q: tcp or udp", text, protocol)
	}
	at := strings.LastIndexByte(rest, ':')
	if at < 0 {
		return nil, fmt.Errorf("%q has no port of the pod's", text)
	}
	podFirst, podLast, err := parseRange(rest[at+1:])
	if err != nil || podFirst == 0 {
		return nil, fmt.Errorf("%q: %q is no port of the pod's", text, rest[at+1:])
	}
	ip, host, err := cutHost(rest[:at])
	if err != nil {
		return nil, fmt.Errorf("%q: %w", text, err)
	}
	first, last, err := parseRange(host)
	if err != nil {
		return nil, fmt.Errorf("%q: %q is no port of the host's", text, host)
	}
	if last-first != podLast-podFirst && last != 0 {
		return nil, fmt.Errorf("%q: %d ports of the host's for %d of the pod's", text, last-first+1, podLast-podFirst+1)
	}
	var ports []Port
	for i := 0; i <= podLast-podFirst; i++ {
		p := Port{HostIP: ip, PodPort: uint16(podFirst + i), Protocol: protocol}
		if last != 0 {
			p.HostPort = uint16(first + i)
		}
		ports = append(ports, p)
	}
	return ports, nil
}

// cutHost takes an address of the host's from the front of its port.
func cutHost(text string) (netip.Addr, string, error) {
	at := strings.LastIndexByte(text, ':')
	if at < 0 {
		return netip.Addr{}, text, nil
	}
	host := strings.TrimSuffix(strings.TrimPrefix(text[:at], "["), "]")
	ip, err := netip.ParseAddr(host)
	if err != nil || ip.Zone() != "" && !ip.IsLinkLocalUnicast() || ip.Is6() != strings.HasPrefix(text, "[") {
		return netip.Addr{}, "", fmt.Errorf("%q is no address (an IPv6 one stands in brackets)", text[:at])
	}
	return ip, text[at+1:], nil
}

var errNoPort = errors.New("no port")

// parseRange reads PORT or FIRST-LAST.
func parseRange(text string) (first, last int, err error) {
	from, to, isRange := strings.Cut(text, "-")
	a, err := strconv.ParseUint(from, 10, 16)
	if err != nil {
		return 0, 0, errNoPort
	}
	b := a
	if isRange {
		if b, err = strconv.ParseUint(to, 10, 16); err != nil || b < a || a == 0 {
			return 0, 0, errNoPort
		}
	}
	return int(a), int(b), nil
}
