// Package control is how podsh talks to the helper of a pod's network: a request and its answer, each one
// message of JSON, with descriptors beside it. It knows the words, and not what is done about them.
package control

import (
	"net/netip"

	"github.com/podsh/podsh/network"
	"github.com/podsh/podsh/network/share"
)

// What a request asks for.
const (
	Hello     = "hello"     // whether it is there
	Serve     = "serve"     // Member; descriptors: its holder's pidfd, and a Maker in its network namespace
	Update    = "update"    // Member: what is known of it has changed
	WayOut    = "way out"   // Way, for the member Pod; descriptors: a tun device
	Resolve   = "resolve"   // answer names at Address; descriptors: sockets there, of datagrams and listening
	Forget    = "forget"    // Pod
	Publish   = "publish"   // Ports of Pod; descriptors: for each, Sockets of them
	Unpublish = "unpublish" // Ports of Pod
	Stow      = "stow"      // keep copies of the ports' sockets in a pair; descriptors: its ends, to send to and to receive from
	Listen    = "listen"    // take requests from a socket, too; a descriptor: that
	Follow    = "follow"    // keep Resolver of Pod as the host's is; a descriptor: its resolv.conf
	Status    = "status"
)

// Request is what is asked of a helper.
type Request struct {
	Do       string            `json:"do"`
	Pod      string            `json:"pod,omitempty"`
	Member   *Member           `json:"member,omitempty"`
	Way      *Way              `json:"way,omitempty"`
	Ports    []network.Port    `json:"ports,omitempty"`
	Sockets  []int             `json:"sockets,omitempty"`
	Address  netip.Addr        `json:"address"`
	Resolver *network.Resolver `json:"resolver,omitempty"`
}

// Member is a pod that a helper serves.
type Member struct {
	ID        string                  `json:"id"`
	Names     []string                `json:"names,omitempty"`
	Lead      bool                    `json:"lead,omitempty"` // the helper ends with it
	Addresses []netip.Addr            `json:"addresses"`      // its own, that published ports are dialled at
	Networks  map[string][]netip.Addr `json:"networks,omitempty"`
	Aliases   map[string][]string     `json:"aliases,omitempty"`  // more names, by network
	Internal  bool                    `json:"internal,omitempty"` // it is on internal networks alone
	Hosts     bool                    `json:"hosts,omitempty"`    // it may ask for the names of the host's /etc/hosts
	DNS       []netip.Addr            `json:"dns,omitempty"`      // servers of its own, else the host's
	HostPorts *HostPorts              `json:"host_ports,omitempty"`
}

// HostPorts are what a pod may reach on the host; none listed are all.
type HostPorts []uint16

// Reaches says whether a port is among them; nil has none.
func (h *HostPorts) Reaches(port uint16) bool {
	if h == nil {
		return false
	}
	for _, p := range *h {
		if p == port {
			return true
		}
	}
	return len(*h) == 0
}

// Way is how a pod gets out.
type Way struct {
	Program string `json:"program,omitempty"` // pasta or slirp4netns; else the helper does it
	Path    string `json:"path,omitempty"`    // of the program
	MTU     int    `json:"mtu"`
	Shared  bool   `json:"shared,omitempty"` // it is that of several pods

	Link network.Outbound `json:"link"` // its addresses
}

// Answer is what a helper says to a request.
type Answer struct {
	Error  string  `json:"error,omitempty"`
	Hint   string  `json:"hint,omitempty"`
	Status *Report `json:"status,omitempty"`
}

// What work on networks does.
const (
	Attach = "attach" // Pod to Network; a descriptor: its network namespace. Done has the Attachment
	Detach = "detach" // the Attachment of Pod; a descriptor: its network namespace, or none where that is gone
	Remove = "remove" // Network
)

// Work is what is asked of the network's program where networks are: on the host, or in a hub.
type Work struct {
	Do         string              `json:"do"`
	Network    network.Network     `json:"network"`
	Leases     string              `json:"leases"` // folder
	Cache      string              `json:"cache"`  // folder
	PluginPath []string            `json:"plugin_path,omitempty"`
	Masquerade bool                `json:"masquerade,omitempty"`
	Pod        string              `json:"pod,omitempty"` // its id
	Interface  string              `json:"interface,omitempty"`
	Default    bool                `json:"default,omitempty"` // the way out is to lead over it
	IPs        []netip.Addr        `json:"ips,omitempty"`     // that it is to have
	MAC        string              `json:"mac,omitempty"`
	Attachment *network.Attachment `json:"attachment,omitempty"`
}

// Done is how it went.
type Done struct {
	Error      string              `json:"error,omitempty"`
	Hint       string              `json:"hint,omitempty"`
	Attachment *network.Attachment `json:"attachment,omitempty"`
}

// Report is how a helper is doing.
type Report struct {
	Ports    []PortReport `json:"ports"`
	WayOut   *WayReport   `json:"way_out,omitempty"`
	Resolver []string     `json:"resolver,omitempty"` // the host's name servers
	Resolves []netip.Addr `json:"resolves,omitempty"` // where names are answered, on sockets
	Limits   []Limit      `json:"limits,omitempty"`
	Warnings []string     `json:"warnings,omitempty"`
}

// Limit is how much there may be of something: for the pod that was asked for, as things are, and for all pods of the
// helper. Who has his share is refused more of it, which is counted.
type Limit struct {
	Name string    `json:"name"`
	Pod  share.Use `json:"pod"`
	All  share.Use `json:"all"`
}

// PortReport counts what went through a published port since the helper started.
type PortReport struct {
	Pod string `json:"pod"`
	network.Port
	Connections uint64 `json:"connections"`
	Open        uint64 `json:"open"`
	Refused     uint64 `json:"refused"` // the pod did not take them
	BytesIn     uint64 `json:"bytes_in"`
	BytesOut    uint64 `json:"bytes_out"`
}

// WayReport counts what went out.
type WayReport struct {
	Connections uint64 `json:"connections"`
	Open        uint64 `json:"open"`
	Refused     uint64 `json:"refused"`
	BytesIn     uint64 `json:"bytes_in"`
	BytesOut    uint64 `json:"bytes_out"`
}
