package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/podsh/podsh/network"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/spec"
)

// Networks are described in the store, beside the pods:
//
//	networks/NAME       the network
//	hub                 the id of the hub, the pod that holds the bridges
//	leases/NAME/IP      the id of the pod that has an address, as the plugin host-local writes it; so with a MAC
//	                    that was asked for
//	leases/cache        what libcni keeps

// Networks lists the networks, by name.
func (s *Store) Networks() ([]*network.Network, error) {
	entries, err := os.ReadDir(s.Below("networks"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var networks []*network.Network
	for _, entry := range entries {
		if !spec.IsName(entry.Name()) || strings.HasSuffix(entry.Name(), ".new") {
			continue
		}
		n, err := s.ReadNetwork(entry.Name())
		if err != nil {
			return nil, err
		}
		networks = append(networks, n)
	}
	return networks, nil
}

// Network finds a network by its name.
func (s *Store) Network(name string) (*network.Network, error) { return s.networkBeside(name, nil) }

// NetworksNamed finds the networks that --net names.
func (s *Store) NetworksNamed(names ...string) (networks []*network.Network, err error) {
	for _, name := range names {
		n, err := s.networkBeside(name, spec.NetWords)
		if err != nil {
			return nil, err
		}
		networks = append(networks, n)
	}
	return networks, nil
}

// networkBeside finds a network by its name, where words may have been meant as well.
func (s *Store) networkBeside(name string, words []string) (*network.Network, error) {
	n, err := s.ReadNetwork(name)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return n, err
	}
	hint := "`podsh network ls` shows all networks"
	if spec.IsName(name) && !spec.ReservedNetwork(name) {
		hint += ", `podsh network create " + name + "` makes it"
	}
	networks, _ := s.Networks() // for the hint alone
	known := slices.Clone(words)
	for _, other := range networks {
		known = append(known, other.Name)
	}
	if near := fault.Nearest(name, known); near != "" {
		hint = fmt.Sprintf("did you mean %q? `podsh network ls` shows all networks", near)
	} else if foreign := spec.ForeignNets[name]; foreign != "" && words != nil {
		hint = foreign
	}
	return nil, fault.New(fault.ErrNoNetwork, []string{hint}, "no network named %q", name)
}

// ErrBrokenNetwork says that a network's description can't be read.
var ErrBrokenNetwork = errors.New("broken")

// ReadNetwork reads a description: fs.ErrNotExist if there is none, ErrBrokenNetwork if it is of no use.
func (s *Store) ReadNetwork(name string) (*network.Network, error) {
	if !spec.IsName(name) {
		return nil, fs.ErrNotExist
	}
	text, err := os.ReadFile(s.Below("networks", name))
	if err != nil {
		return nil, err
	}
	n := &network.Network{}
	if err := json.Unmarshal(text, n); err != nil {
		return nil, fault.New(ErrBrokenNetwork, []string{"podsh network rm " + name + ", and create it again"},
			"description of network %q (%s): %v", name, s.Below("networks", name), err)
	}
	return n, nil
}

// PodsOn names the pods that are on a network.
func (s *Store) PodsOn(name string) ([]string, error) {
	pods, err := s.List()
	if err != nil {
		return nil, err
	}
	var on []string
	for _, p := range pods {
		state, err := Net(p)
		if err != nil {
			continue // it can only be removed
		}
		if slices.ContainsFunc(state.Attachments, func(a network.Attachment) bool { return a.Network == name }) {
			on = append(on, p.Title())
		}
	}
	return on, nil
}
