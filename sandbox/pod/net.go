package pod

import (
	"net/netip"

	"github.com/podsh/podsh/network"
	"github.com/podsh/podsh/sandbox/proc"
)

// NetState is what a pod's network is like at the moment. Unlike the pod's description it changes while the
// pod lives.
type NetState struct {
	Addresses   []netip.Addr         `json:"addresses"`             // its own: published ports are dialled there
	Ports       []network.Port       `json:"ports"`                 // that are published
	Attachments []network.Attachment `json:"attachments"`           // to networks
	Replies     bool                 `json:"replies,omitempty"`     // answers to clients stay in the pod
	Helper      *proc.ID             `json:"helper,omitempty"`      // the process that leads with this pod
	Keeper      *proc.ID             `json:"keeper,omitempty"`      // who sees that it has ended
	Served      bool                 `json:"served,omitempty"`      // by a helper: its own, or the hub's
	ResolvConf  *FileID              `json:"resolv_conf,omitempty"` // that follows the host's
}

// FileID tells a file from all others while it is there.
type FileID struct {
	Device uint64 `json:"device"`
	Inode  uint64 `json:"inode"`
}

// HasHelper says whether a helper does something for the pod.
func (s *NetState) HasHelper() bool { return s.Served }
