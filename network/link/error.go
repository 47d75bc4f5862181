package link

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

var (
	// ErrAttached says that the pod has that interface on a network already.
	ErrAttached = errors.New("the pod is attached already")
	// ErrNoNAT says that nothing is there that could tell the kernel to translate addresses.
	ErrNoNAT = errors.New("neither nft nor iptables is installed")
)

// InUseError says which pods keep a network from being removed.
type InUseError struct{ Pods []string } // ids

func (e *InUseError) Error() string { return "in use by " + strings.Join(e.Pods, ", ") }

// OverlapError says that two networks would share addresses, or an interface.
type OverlapError struct {
	What  string // the subnet or the bridge
	Other string // the network that has it
	Has   string // the subnet or the bridge there
}

func (e *OverlapError) Error() string {
	return fmt.Sprintf("%s overlaps %s of network %q", e.What, e.Has, e.Other)
}

// ExhaustedError says that every address of a subnet is leased.
type ExhaustedError struct{ Subnet netip.Prefix }

func (e *ExhaustedError) Error() string { return fmt.Sprintf("no address left in %s", e.Subnet) }

// TakenError says that an address is another pod's.
type TakenError struct {
	Address string
	Pod     string // its id
}

func (e *TakenError) Error() string { return fmt.Sprintf("%s is taken by pod %s", e.Address, e.Pod) }

// NoPluginError says that a CNI plugin is not where plugins are.
type NoPluginError struct {
	Plugin string
	Path   []string // the folders searched
}

func (e *NoPluginError) Error() string {
	where := strings.Join(e.Path, ", ")
	if where == "" {
		where = "no folder at all"
	}
	return fmt.Sprintf("no CNI plugin %q in %s", e.Plugin, where)
}
