package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/network"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/files"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/spec"
	"github.com/podsh/podsh/sandbox/store"
	"github.com/podsh/podsh/sandbox/wire"
)

// useHub returns the hub, made if it isn't there; it stays until release is called.
func useHub(s *store.Store) (hub *pod.Pod, release func(), err error) {
	for range 3 { // it may be removed between the two locks
		hub, release, err = s.LockHub(unix.LOCK_SH)
		if err != nil || hub != nil {
			return hub, release, err
		}
		release()
		if err := ensureHub(s); err != nil {
			return nil, nil, err
		}
	}
	return nil, nil, fault.New(nil, []string{"`podsh ps -a` shows whether it is there"}, "the hub of networks ended as soon as it was made")
}

// ensureHub makes the hub, if it isn't there.
func ensureHub(s *store.Store) error {
	hub, unlock, err := s.LockHub(unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer unlock()
	if hub != nil {
		return nil
	}
	if err := removeDeadHub(s); err != nil { // once another has its place nobody would look for it
		return err
	}
	wanted := &spec.Spec{Hostname: "hub", Namespaces: map[string]spec.Choice{}}
	wanted.Rootfs.Kind = "host"
	if wire.NetworksOnHost() {
		wanted.Namespaces["net"] = spec.Choice{Kind: "host"}
	} else {
		wanted.Net = spec.Net{WayOut: spec.WayOutStack, Sysctls: []spec.Sysctl{{Key: "net.ipv4.ip_forward", Value: "1"}}}
		if files.Exists("/proc/sys/net/ipv6") {
			wanted.Net.Sysctls = append(wanted.Net.Sysctls, spec.Sysctl{Key: "net.ipv6.conf.all.forwarding", Value: "1"})
		}
	}
	proposal, err := Propose(wanted, s, Options{hub: true})
	if err != nil {
		return fmt.Errorf("the hub of networks: %w", err)
	}
	defer proposal.Close()
	if err := files.WriteText(s.Below(store.HubFile), proposal.Pod.ID); err != nil { // first: a hub that nobody finds would stay
		return s.Full(err)
	}
	if _, _, err := proposal.Create(); err != nil {
		return errors.Join(fmt.Errorf("the hub of networks: %w", err), forgetHub(s))
	}
	return nil
}

// ReleaseHub removes the hub, with all networks that are there, if no pod needs it any more; else what pods have
// left in it that are gone. Of many that remove their pods at once the last to look sees none, and waits for the hub;
// the others leave it to whoever has it.
func ReleaseHub(s *store.Store) error {
	needed, err := hubNeeded(s)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	how := unix.LOCK_EX
	if needed {
		how |= unix.LOCK_NB
	}
	hub, unlock, err := s.LockHub(how)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unlock()
	needed, err = hubNeeded(s) // a pod may have been made there meanwhile, and the hub may be another
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if needed {
		return sweepLeases(s, hub)
	}
	if hub == nil && !wire.NetworksOnHost() { // it ended by itself, and its networks with it
		return forgetHub(s)
	}
	if err := clearNetworks(s, hub); err != nil {
		return err
	}
	if hub != nil {
		if err := remove(hub, true); err != nil {
			return err
		}
	}
	return forgetHub(s)
}

// hubNeeded says whether there are pods that were made in the hub, even if they have ended: they hold addresses. Networks
// on the host outlive a hub, so there it may have been any. Without a hub the error is fs.ErrNotExist.
func hubNeeded(s *store.Store) (bool, error) {
	hub, err := os.ReadFile(s.Below(store.HubFile))
	if err != nil {
		return false, err
	}
	ids, err := s.Ids()
	if err != nil {
		return false, err
	}
	onHost := wire.NetworksOnHost()
	for _, id := range ids {
		if pod, err := s.Load(id); err == nil && pod.Hub != "" && (onHost || pod.Hub == strings.TrimSpace(string(hub))) {
			return true, nil
		}
	}
	return false, nil
}

// forgetHub removes what describes it. One that is dead is removed as a pod, too.
func forgetHub(s *store.Store) error {
	if err := removeDeadHub(s); err != nil {
		return err
	}
	err := errors.Join(os.RemoveAll(s.Below("leases")), os.Remove(s.Below(store.HubFile)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// removeDeadHub removes the pod that was the hub. Whoever asks has the hub alone, and knows that it has ended.
func removeDeadHub(s *store.Store) error {
	id, err := os.ReadFile(s.Below(store.HubFile))
	if err != nil {
		return nil // there was none; if that can't be read, the hub could not have been looked for
	}
	dead, err := s.Load(strings.TrimSpace(string(id)))
	if err != nil {
		return nil // it is gone
	}
	return remove(dead, true)
}

// removeHub removes a hub by its name, once it has ended: one that runs is needed, or just being made.
func removeHub(s *store.Store, hub *pod.Pod) error {
	_, unlock, err := s.LockHub(unix.LOCK_EX)
	if err != nil {
		return err
	}
	if store.StatusOf(hub) == pod.Running {
		unlock()
		return fault.New(nil, []string{"it goes with the last of them: podsh rm -f --all removes all"}, "pod %q is the hub of the pods on networks", hub.Title())
	}
	err = remove(hub, true)
	unlock()
	if err != nil {
		return err
	}
	return ReleaseHub(s)
}

// clearNetworks takes networks away that are on the host; those in a hub go with it. hub may be nil.
func clearNetworks(s *store.Store, hub *pod.Pod) error {
	if hub != nil && hub.Own("net") {
		return nil
	}
	for _, resolver := range []netip.Addr{network.HostResolver, network.HostResolver6} {
		err := network.Ask(network.DeleteAddress(network.Loopback, wire.HostPrefix(resolver)))
		if err != nil && err != unix.EADDRNOTAVAIL && err != unix.EOPNOTSUPP && err != unix.EAFNOSUPPORT { // without IPv6
			return fmt.Errorf("take the address %s from lo: %w", resolver, err)
		}
	}
	networks, err := s.Networks()
	if err != nil || len(networks) == 0 {
		return err
	}
	work, err := wire.StartWork(s, hub)
	if err != nil {
		return err
	}
	defer work.Close()
	for _, n := range networks {
		err = errors.Join(err, work.Remove(n))
	}
	return err
}

// sweepLeases gives addresses back that pods had which are not there any more: their creation was killed.
func sweepLeases(s *store.Store, hub *pod.Pod) error {
	if hub == nil {
		return nil
	}
	networks, err := s.Networks()
	if err != nil {
		return err
	}
	var swept *wire.Work
	for _, n := range networks {
		orphans, oerr := wire.OrphansOn(s, n)
		if oerr != nil || len(orphans) == 0 {
			err = errors.Join(err, oerr)
			continue
		}
		if swept == nil {
			if swept, err = wire.StartWork(s, hub); err != nil {
				return err
			}
			defer swept.Close()
		}
		err = errors.Join(err, swept.Release(n, orphans))
	}
	return err
}
