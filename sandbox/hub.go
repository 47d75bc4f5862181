package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// The hub is where networks are: a pod of podsh's own, made with the first pod that is to be on one and removed
// after the last. An ordinary user can't make a bridge on the host, but can in a network namespace that
// belongs to a user namespace of theirs; and one end of a veth(4) can be put into a pod only by someone who
// has power over both. So the user namespaces of pods on networks are children of the hub's. Its helper is the
// way out for all of them. Root's networks are on the host: then the hub has the host's network namespace,
// and holds nothing but its helper.

const hubFile = "hub"

// Hub returns the pod that networks are in, or nil.
func (s *Store) Hub() (*Pod, error) {
	id, err := os.ReadFile(s.path(hubFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	hub, err := s.load(strings.TrimSpace(string(id)))
	if errors.Is(err, ErrNoPod) || err == nil && hub.Status() != Running {
		return nil, nil
	}
	return hub, err
}

// lockHub keeps the hub as it is. Whoever makes a pod there shares the lock, so that the hub is not removed
// meanwhile; whoever makes or removes the hub has it alone.
func (s *Store) lockHub(how int) (hub *Pod, unlock func(), err error) {
	f, err := os.OpenFile(s.path("hub.lock"), os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, nil, s.full(err)
	}
	for {
		if err = unix.Flock(int(f.Fd()), how); err != unix.EINTR {
			break
		}
	}
	if err == nil {
		hub, err = s.Hub()
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return hub, func() { f.Close() }, nil
}

// useHub returns the hub, made if it isn't there; it stays until release is called.
func (s *Store) useHub() (hub *Pod, release func(), err error) {
	for {
		hub, release, err = s.lockHub(unix.LOCK_SH)
		if err != nil || hub != nil {
			return hub, release, err
		}
		release()
		if err := s.ensureHub(); err != nil {
			return nil, nil, err
		}
	}
}

// ensureHub makes the hub, if it isn't there.
func (s *Store) ensureHub() error {
	hub, unlock, err := s.lockHub(unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer unlock()
	if hub != nil {
		return nil
	}
	spec := &Spec{Hostname: "hub", Namespaces: map[string]Choice{}}
	spec.Rootfs.Kind = "host"
	if networksOnHost() {
		spec.Namespaces["net"] = Choice{Kind: "host"}
	} else {
		spec.Net = Net{WayOut: WayOutStack, Sysctls: []Sysctl{{"net.ipv4.ip_forward", "1"}}}
		if exists("/proc/sys/net/ipv6") {
			spec.Net.Sysctls = append(spec.Net.Sysctls, Sysctl{"net.ipv6.conf.all.forwarding", "1"})
		}
	}
	proposal, err := Propose(spec, s, Options{hub: true})
	if err != nil {
		return fmt.Errorf("the hub of networks: %w", err)
	}
	defer proposal.Close()
	if hub, _, err = proposal.Create(); err != nil {
		return fmt.Errorf("the hub of networks: %w", err)
	}
	if err := writeText(s.path(hubFile), hub.ID); err != nil {
		return errors.Join(s.full(err), hub.remove(true))
	}
	return nil
}

// ReleaseHub removes the hub if no pod needs it any more. While somebody uses it, it is theirs to release.
func (s *Store) ReleaseHub() error {
	if !exists(s.path(hubFile)) {
		return nil
	}
	hub, unlock, err := s.lockHub(unix.LOCK_EX | unix.LOCK_NB)
	if err == unix.EWOULDBLOCK {
		return nil
	}
	if err != nil {
		return err
	}
	defer unlock()
	if hub == nil { // it has ended by itself
		return s.forgetHub()
	}
	ids, err := s.ids()
	if err != nil {
		return err
	}
	for _, id := range ids {
		pod, err := s.load(id)
		if err == nil && pod.Hub == hub.ID {
			return nil
		}
	}
	return s.removeHub(hub)
}

// removeHub removes it with all networks that are there; where they are on the host, one by one.
func (s *Store) removeHub(hub *Pod) error {
	if hub.Namespaces["net"].Kind == "host" {
		if err := s.clearNetworks(hub); err != nil {
			return err
		}
	}
	if err := hub.remove(true); err != nil {
		return err
	}
	return s.forgetHub()
}

func (s *Store) forgetHub() error {
	return errors.Join(os.RemoveAll(s.path("leases")), os.Remove(s.path(hubFile)))
}

func (s *Store) clearNetworks(hub *Pod) error {
	networks, err := s.Networks()
	if err != nil || len(networks) == 0 {
		return err
	}
	work, err := s.startWork(hub)
	if err != nil {
		return err
	}
	defer work.close()
	for _, n := range networks {
		if _, derr := work.do(removal(n)); derr != nil {
			err = errors.Join(err, derr)
		}
	}
	return err
}

// inHub lists the pods of a hub that run.
func (s *Store) inHub(hub *Pod) ([]*Pod, error) {
	pods, err := s.List()
	if err != nil {
		return nil, err
	}
	var in []*Pod
	for _, pod := range pods {
		if pod.Hub == hub.ID && pod.Status() == Running {
			in = append(in, pod)
		}
	}
	return in, nil
}

func writeText(path, text string) error {
	temporary := path + ".new"
	if err := os.WriteFile(temporary, []byte(text), 0o600); err != nil {
		os.Remove(temporary)
		return err
	}
	return os.Rename(temporary, path)
}
