package names

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// settings are what a resolv.conf says, within glibc's bounds (MAXNS, RES_MAXRETRANS, RES_MAXRETRY in resolv.h).
type settings struct {
	servers  []netip.AddrPort
	timeout  time.Duration // for one try of one server
	attempts int           // rounds over all servers
	text     string
}

const (
	maxServers  = 3
	maxTimeout  = 30 * time.Second
	maxAttempts = 5

	// Less than glibc's 5 s: the pod's resolver waits 5 s for us, and the second server may know.
	defaultTimeout  = 2 * time.Second
	defaultAttempts = 2
)

// parse reads a resolv.conf(5).
func parse(text string) (settings, error) {
	defaults := fmt.Sprintf("options timeout:%d attempts:%d\n", defaultTimeout/time.Second, defaultAttempts)
	config, err := dns.ClientConfigFromReader(strings.NewReader(defaults + text))
	if err != nil {
		return settings{}, err
	}
	s := settings{
		text:     text,
		timeout:  time.Duration(max(1, min(config.Timeout, int(maxTimeout/time.Second)))) * time.Second,
		attempts: max(1, min(config.Attempts, maxAttempts)),
	}
	for _, server := range config.Servers {
		addr, err := netip.ParseAddr(server) // with a scope, too: fe80::1%eth0
		if err == nil && len(s.servers) < maxServers {
			s.servers = append(s.servers, netip.AddrPortFrom(addr.Unmap(), 53))
		}
	}
	if s.servers == nil {
		s.servers = []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 53)}
	}
	return s, nil
}
