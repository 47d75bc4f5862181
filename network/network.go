// Package network knows what a pod's network is made of: which links, addresses and settings. It acts where
// it stands and refuses to know in which namespace that is: package sandbox places it.
package network

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// UpRequest is the argument of ioctl(SIOCSIFFLAGS) that brings a link up: a struct ifreq, netdevice(7).
func UpRequest(link string) []byte {
	var request [40]byte
	copy(request[:unix.IFNAMSIZ-1], link)
	binary.NativeEndian.PutUint16(request[unix.IFNAMSIZ:], unix.IFF_UP|unix.IFF_RUNNING)
	return request[:]
}

// Sysctl is one setting of a network namespace.
type Sysctl struct {
	Key   string // below /proc/sys, with slashes
	Value string
	Why   string
}

// Sysctls are the settings of a pod's network namespace: in a pod, ping and a server on port 80 need no
// privilege. firstGroup to lastGroup are the groups that exist there.
func Sysctls(firstGroup, lastGroup uint32) []Sysctl {
	return []Sysctl{
		{"net/ipv4/ping_group_range", fmt.Sprintf("%d %d", firstGroup, lastGroup), "let everyone in the pod ping"},
		{"net/ipv4/ip_unprivileged_port_start", "0", "let everyone in the pod listen on ports below 1024"},
	}
}

// Hosts is the text of /etc/hosts for a pod, hosts(5). Entries are IP address and name. rest are more lines: of a
// name that has several the first counts.
func Hosts(hostname string, entries [][2]string, rest string) string {
	var text bytes.Buffer
	fmt.Fprintf(&text, "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	if hostname != "" {
		fmt.Fprintf(&text, "127.0.1.1\t%s\n", hostname)
	}
	for _, entry := range entries {
		fmt.Fprintf(&text, "%s\t%s\n", entry[0], entry[1])
	}
	text.WriteString(rest)
	return text.String()
}

// HostLines are the lines of a hosts(5) that mean something in another network than the host's: what is at an address of
// the loopback interface there is not here.
func HostLines(text string, loopback bool) string {
	var lines bytes.Buffer
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		if ip, err := netip.ParseAddr(fields[0]); err == nil && (loopback || !ip.IsLoopback()) {
			fmt.Fprintf(&lines, "%s %s\n", fields[0], strings.Join(fields[1:], " "))
		}
	}
	return lines.String()
}
