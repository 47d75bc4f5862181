package names

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// resolvConf is a resolv.conf(5) that may change at any time: a VPN comes up, a laptop moves.
type resolvConf struct {
	path string

	mu       sync.Mutex
	looked   time.Time
	seen     fs.FileInfo // of the last good reading; nil: there was no file
	settings settings
}

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

	// maxResolvConf bounds what is read of the file, in bytes.
	maxResolvConf = 64 << 10
)

// read returns the settings as they are now, give or take a second.
func (c *resolvConf) read() (settings, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.settings.servers != nil && time.Since(c.looked) < time.Second {
		return c.settings, nil
	}
	err := c.reread()
	if err == nil {
		c.looked = time.Now()
	}
	return c.settings, err
}

func (c *resolvConf) reread() error {
	file, err := os.Open(c.path)
	if errors.Is(err, fs.ErrNotExist) {
		c.seen = nil
		c.settings, err = parse("")
		return err
	}
	if err != nil {
		return err
	}
	defer file.Close()
	now, err := file.Stat() // before it is read: who writes meanwhile makes it differ again
	if err != nil {
		return err
	}
	if c.seen != nil && os.SameFile(c.seen, now) && c.seen.ModTime().Equal(now.ModTime()) && c.seen.Size() == now.Size() {
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(file, maxResolvConf))
	if err != nil {
		return err
	}
	settings, err := parse(string(text))
	if err != nil {
		return fmt.Errorf("%s: %w", c.path, err)
	}
	c.seen, c.settings = now, settings
	return nil
}

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
