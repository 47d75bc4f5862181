package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

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
	entries, err := os.ReadDir(s.path("networks"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var networks []*network.Network
	for _, entry := range entries {
		if !spec.IsName(entry.Name()) || strings.HasSuffix(entry.Name(), ".new") {
			continue
		}
		n, err := s.readNetwork(entry.Name())
		if err != nil {
			return nil, err
		}
		networks = append(networks, n)
	}
	return networks, nil
}

// Network finds a network by its name.
func (s *Store) Network(name string) (*network.Network, error) { return s.networkBeside(name, nil) }

// networkBeside finds a network by its name, where words may have been meant as well.
func (s *Store) networkBeside(name string, words []string) (*network.Network, error) {
	n, err := s.readNetwork(name)
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

// networksNamed finds the networks that --net names.
func (s *Store) networksNamed(names ...string) (networks []*network.Network, err error) {
	for _, name := range names {
		n, err := s.networkBeside(name, spec.NetWords)
		if err != nil {
			return nil, err
		}
		networks = append(networks, n)
	}
	return networks, nil
}

var errBrokenNetwork = errors.New("broken")

func (s *Store) readNetwork(name string) (*network.Network, error) {
	if !spec.IsName(name) {
		return nil, fs.ErrNotExist
	}
	text, err := os.ReadFile(s.path("networks", name))
	if err != nil {
		return nil, err
	}
	n := &network.Network{}
	if err := json.Unmarshal(text, n); err != nil {
		return nil, fault.New(errBrokenNetwork, []string{"podsh network rm " + name + ", and create it again"},
			"description of network %q (%s): %v", name, s.path("networks", name), err)
	}
	return n, nil
}

// RemoveNetwork removes a network that no pod is on.
func (s *Store) RemoveNetwork(name string) error {
	n, err := s.Network(name)
	broken := errors.Is(err, errBrokenNetwork) // then nobody knows its bridge
	if err != nil && !broken {
		return err
	}
	hub, unlock, err := s.lockHub(unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer unlock()
	on, err := s.podsOn(name)
	if err != nil {
		return err
	}
	if len(on) > 0 {
		return fault.New(nil, []string{fmt.Sprintf("podsh network disconnect %s POD, or podsh rm -f %s", name, strings.Join(on, " "))},
			"network %q is in use by %s", name, strings.Join(on, ", "))
	}
	if !broken && (hub != nil || networksOnHost()) {
		work, err := s.startWork(hub)
		if err != nil {
			return err
		}
		defer work.close()
		if err := work.remove(n); err != nil {
			return err
		}
	}
	leases := s.path("leases", name)
	if hub == nil {
		leases = s.path("leases") // nobody has any
	}
	if err := os.RemoveAll(leases); err != nil {
		return err
	}
	return os.Remove(s.path("networks", name))
}

// PruneNetworks removes the networks that no pod is on, and returns their names.
func (s *Store) PruneNetworks() (removed []string, err error) {
	networks, err := s.Networks()
	if err != nil {
		return nil, err
	}
	for _, n := range networks {
		on, onErr := s.podsOn(n.Name)
		if onErr == nil && len(on) == 0 {
			if onErr = s.RemoveNetwork(n.Name); onErr == nil {
				removed = append(removed, n.Name)
			}
		}
		if inUse, stillErr := s.podsOn(n.Name); onErr != nil && stillErr == nil && len(inUse) > 0 {
			continue // by a pod that came meanwhile
		}
		err = errors.Join(err, onErr)
	}
	return removed, err
}

// podsOn names the pods that are on a network.
func (s *Store) podsOn(name string) ([]string, error) {
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

// networksOnHost says whether networks come to be on the host: for root, if the kernel can be told to do what
// the helper does else, to send what comes from pods out under the host's address.
func networksOnHost() bool {
	if os.Geteuid() != 0 {
		return false
	}
	return isInstalled("nft") || isInstalled("iptables")
}

// isGone says whether what was to be removed was not there.
func isGone(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) }
