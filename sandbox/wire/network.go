package wire

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/machine"
	"github.com/podsh/podsh/sandbox/store"
)

// RemoveNetwork removes a network that no pod is on.
func RemoveNetwork(s *store.Store, name string) error {
	n, err := s.Network(name)
	broken := errors.Is(err, store.ErrBrokenNetwork) // then nobody knows its bridge
	if err != nil && !broken {
		return err
	}
	hub, unlock, err := s.LockHub(unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer unlock()
	on, err := s.PodsOn(name)
	if err != nil {
		return err
	}
	if len(on) > 0 {
		return fault.New(nil, []string{fmt.Sprintf("podsh network disconnect %s POD, or podsh rm -f %s", name, strings.Join(on, " "))},
			"network %q is in use by %s", name, strings.Join(on, ", "))
	}
	if !broken && (hub != nil || NetworksOnHost()) {
		work, err := StartWork(s, hub)
		if err != nil {
			return err
		}
		defer work.Close()
		if err := work.Remove(n); err != nil {
			return err
		}
	}
	leases := s.Below("leases", name)
	if hub == nil {
		leases = s.Below("leases") // nobody has any
	}
	if err := os.RemoveAll(leases); err != nil {
		return err
	}
	return os.Remove(s.Below("networks", name))
}

// PruneNetworks removes the networks that no pod is on, and returns their names.
func PruneNetworks(s *store.Store) (removed []string, err error) {
	networks, err := s.Networks()
	if err != nil {
		return nil, err
	}
	for _, n := range networks {
		on, onErr := s.PodsOn(n.Name)
		if onErr == nil && len(on) == 0 {
			if onErr = RemoveNetwork(s, n.Name); onErr == nil {
				removed = append(removed, n.Name)
			}
		}
		if inUse, stillErr := s.PodsOn(n.Name); onErr != nil && stillErr == nil && len(inUse) > 0 {
			continue // by a pod that came meanwhile
		}
		err = errors.Join(err, onErr)
	}
	return removed, err
}

// NetworksOnHost says whether networks come to be on the host: for root, if the kernel can be told to do what
// the helper does else, to send what comes from pods out under the host's address.
func NetworksOnHost() bool {
	if os.Geteuid() != 0 {
		return false
	}
	return machine.IsInstalled("nft") || machine.IsInstalled("iptables")
}

// isGone says whether what was to be removed was not there.
func isGone(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) }
