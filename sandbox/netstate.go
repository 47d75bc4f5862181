package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/network"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/files"
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
	ResolvConf  *fileID              `json:"resolv_conf,omitempty"` // that follows the host's
}

// fileID tells a file from all others while it is there.
type fileID struct {
	Device uint64 `json:"device"`
	Inode  uint64 `json:"inode"`
}

// netName is the file that holds it, in the pod's folder.
const netName = "net.json"

// Net reads what the pod's network is like; nothing, where it is empty.
func (p *Pod) Net() (*NetState, error) {
	state := &NetState{}
	text, err := os.ReadFile(storeOf(p).path("pods", p.ID, netName))
	if errors.Is(err, fs.ErrNotExist) {
		return state, nil
	}
	if err == nil {
		err = json.Unmarshal(text, state)
	}
	if err != nil {
		return nil, fmt.Errorf("network of pod %q: %w", p.Title(), err)
	}
	return state, nil
}

// saveNet writes it, whole or not at all.
func (p *Pod) saveNet(state *NetState) error {
	return storeOf(p).full(files.WriteJSON(storeOf(p).path("pods", p.ID, netName), state))
}

// lockNet keeps other commands from changing the pod's network.
func (p *Pod) lockNet() (unlock func(), err error) {
	folder, err := files.LockFolder(storeOf(p).path("pods", p.ID), unix.LOCK_EX)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.ErrNoPod, nil, "no pod %q", p.Title())
	}
	if err != nil {
		return nil, err
	}
	return func() { folder.Close() }, nil
}
