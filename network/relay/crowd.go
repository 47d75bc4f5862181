package relay

import (
	"net/netip"
	"sync"

	"github.com/podsh/podsh/network/share"
)

// crowd are the clients of one pod's ports, of TCP or of UDP, who have the pod's places. Of the relay's limit each pod
// has a share, and of the pod's each client's address: it may have as many places as are still free. So one machine
// that opens all it can, or floods, leaves room for the others.
type crowd struct {
	places *share.Limit[Sockets]
	pod    Sockets
	ports  int // under Relay.mu

	mu      sync.Mutex
	clients map[netip.Addr]int
	refused uint64
}

// crowdKey is which ports have a crowd in common.
type crowdKey struct {
	pod  Sockets
	kind int
}

// household is who counts as one client: whoever has an IPv6 address has a /64 of them, RFC 6177. All link-local ones
// are of the same.
func household(client netip.Addr) netip.Addr {
	if client.Is4() || client.IsLinkLocalUnicast() {
		return client.WithZone("")
	}
	prefix, err := client.Prefix(64)
	if err != nil { // no address: there is none with fewer bits
		return client
	}
	return prefix.Addr()
}

// hasRoom says whether the pod may have one more place, for whoever has none yet.
func (c *crowd) hasRoom() bool {
	use := c.places.Of(c.pod)
	return use.Used < use.Limit
}

// admit takes a place for a client, if there is one for this client.
func (c *crowd) admit(client netip.Addr) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	has := c.clients[client]
	use := c.places.Of(c.pod)
	if has >= (use.Limit-(use.Used-has)+1)/2 || !c.places.Take(c.pod) { // as package share divides
		return false
	}
	c.clients[client]++
	return true
}

// has says whether a client has any place.
func (c *crowd) has(client netip.Addr) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.clients[client] > 0
}

// refuse counts a client, or what it sent, for whom there was no place.
func (c *crowd) refuse() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refused++
}

// release gives a place back.
func (c *crowd) release(client netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.clients[client]--; c.clients[client] == 0 {
		delete(c.clients, client)
	}
	c.places.Give(c.pod)
}

// Use says how a limit of the relay's is used, by one pod and by all.
type Use struct {
	Name     string // connections of TCP, or flows of UDP
	Pod, All share.Use
}

// Uses says how the limits are used; sockets stand for the pod whose own use is wanted.
func (r *Relay) Uses(sockets Sockets) []Use {
	r.mu.Lock()
	defer r.mu.Unlock()
	var uses []Use
	for _, l := range r.limits {
		use := Use{Name: l.name, Pod: l.places.Of(sockets), All: l.places.All()}
		use.Pod.Refused, use.All.Refused = 0, l.refused
		for key, c := range r.crowds {
			if key.kind != l.kind {
				continue
			}
			c.mu.Lock()
			use.All.Refused += c.refused
			if key.pod == sockets {
				use.Pod.Refused = c.refused
			}
			c.mu.Unlock()
		}
		uses = append(uses, use)
	}
	return uses
}
