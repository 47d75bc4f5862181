package network

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// ResolvConf is what a resolv.conf(5) says.
type ResolvConf struct {
	Servers []string
	Search  []string
	Options []string
}

// ParseResolvConf reads one as glibc does: of several lists of domains the last counts, options add up.
func ParseResolvConf(text string) (c ResolvConf) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 || strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";") {
			continue
		}
		switch fields[0] {
		case "nameserver":
			c.Servers = append(c.Servers, fields[1])
		case "domain":
			c.Search = fields[1:2]
		case "search":
			c.Search = fields[1:]
		case "options":
			c.Options = append(c.Options, fields[1:]...)
		}
	}
	return c
}

// String is its text.
func (c ResolvConf) String() string {
	var text bytes.Buffer
	for _, server := range c.Servers {
		fmt.Fprintf(&text, "nameserver %s\n", server)
	}
	for _, line := range []struct {
		word   string
		values []string
	}{{"search", c.Search}, {"options", c.Options}} {
		if len(line.values) > 0 {
			fmt.Fprintf(&text, "%s %s\n", line.word, strings.Join(line.values, " "))
		}
	}
	if len(c.Servers) == 0 {
		text.WriteString("# this pod has no way out\n")
	}
	return text.String()
}

// Resolver is how names are looked up in a pod.
type Resolver struct {
	Servers []netip.Addr `json:"servers"`           // whom it asks
	Search  []string     `json:"search,omitempty"`  // domains; none: those of the host
	Options []string     `json:"options,omitempty"` // none: those of the host
	First   []string     `json:"first,omitempty"`   // domains before all others
}

// NoSearch, alone among the domains, means none.
const NoSearch = "."

// ResolvConf is what the pod's file says, when the host's says so.
func (r *Resolver) ResolvConf(host ResolvConf) ResolvConf {
	c := ResolvConf{Search: host.Search, Options: host.Options}
	for _, server := range r.Servers {
		c.Servers = append(c.Servers, server.String())
	}
	if len(r.Search) > 0 {
		c.Search = r.Search
	}
	if len(r.Options) > 0 {
		c.Options = r.Options
	}
	if !slices.Contains(r.Search, NoSearch) {
		c.Search = slices.Concat(r.First, c.Search)
	}
	c.Search = slices.DeleteFunc(slices.Clone(c.Search), func(domain string) bool { return domain == NoSearch })
	return c
}
