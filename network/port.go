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

// ParsePublished reads what names published ports: what ParsePorts reads, or the host's end alone,
// [HOSTIP:]HOSTPORT[/tcp|/udp]; then PodPort is 0, which is no port.
func ParsePublished(text string) ([]Port, error) {
	rest, protocol, err := cutProtocol(text)
	if err != nil {
		return nil, err
	}
	ip, host, err := cutHost(rest)
	if err != nil { // HOSTPORT:PODPORT, with an address before it or not
		ports, err := ParsePorts(text)
		if err == nil && ports[0].HostPort == 0 {
			err = fmt.Errorf("%q: a port that is published has a number", text)
		}
		return ports, err
	}
	first, last, err := parseRange(host)
	if err != nil || first == 0 {
		return nil, fmt.Errorf("%q: %q is no port of the host's", text, host)
	}
	var ports []Port
	for port := first; port <= last; port++ {
		ports = append(ports, Port{HostIP: ip, HostPort: uint16(port), Protocol: protocol})
	}
	return ports, nil
}

// cutProtocol takes the protocol from the end of a port.
func cutProtocol(text string) (rest, protocol string, err error) {
	rest, protocol, has := strings.Cut(text, "/")
	if !has {
		protocol = "tcp"
	}
	if protocol != "tcp" && protocol != "udp" {
		return "", "", fmt.Errorf("%q: no protocol %q: tcp or udp", text, protocol)
	}
	return rest, protocol, nil
}

// ParsePorts reads [HOSTIP:]HOSTPORT:PODPORT[/tcp|/udp]. Ports may be ranges of the same size, such as
// 8000-8009:80-89; host port 0 is any that is free. An IPv6 address stands in brackets.
func ParsePorts(text string) ([]Port, error) {
	rest, protocol, err := cutProtocol(text)
	if err != nil {
		return nil, err
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
		return nil, fmt.Errorf("%q: %d of the host's ports for %d of the pod's", text, last-first+1, podLast-podFirst+1)
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
	host, closed := strings.CutSuffix(text[:at], "]")
	host, opened := strings.CutPrefix(host, "[")
	ip, err := netip.ParseAddr(host)
	if err != nil || ip.Zone() != "" && !ip.IsLinkLocalUnicast() || strings.ContainsAny(ip.Zone(), "[]") ||
		ip.Is6() != opened || opened != closed {
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
