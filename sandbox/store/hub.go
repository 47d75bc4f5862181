package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/files"
	"github.com/podsh/podsh/sandbox/pod"
)

// The hub is where networks are: a pod of podsh's own, made with the first pod that is to be on one and removed
// after the last. An ordinary user can't make a bridge on the host, but can in a network namespace that
// belongs to a user namespace of theirs; and one end of a veth(4) can be put into a pod only by someone who
// has power over both. So the user namespaces of pods on networks are children of the hub's. Its helper is the
// way out for all of them. Root's networks are on the host: then the hub has the host's network namespace,
// and holds nothing but its helper.

// HubFile holds the hub's id.
const HubFile = "hub"

// Hub returns the pod that networks are in, or nil.
func (s *Store) Hub() (*pod.Pod, error) {
	id, err := os.ReadFile(s.Below(HubFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	hub, err := s.Load(strings.TrimSpace(string(id)))
	if errors.Is(err, fault.ErrNoPod) || err == nil && StatusOf(hub) != pod.Running {
		return nil, nil
	}
	return hub, err
}

// LockHub keeps the hub as it is. Whoever makes a pod there shares the lock, so that the hub is not removed
// meanwhile; whoever makes or removes the hub has it alone.
func (s *Store) LockHub(how int) (hub *pod.Pod, unlock func(), err error) {
	f, err := os.OpenFile(s.Below("hub.lock"), os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, nil, s.Full(fault.WithHint(fmt.Errorf("lock of the hub of networks: %w", err), "ls -ld %s: it is podsh's own, and can be removed while no podsh runs", s.Below("hub.lock")))
	}
	if err = files.Lock(f, how); err == nil {
		hub, err = s.Hub()
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return hub, func() { f.Close() }, nil
}

// InHub lists the pods of a hub that run.
func (s *Store) InHub(hub *pod.Pod) ([]*pod.Pod, error) {
	pods, err := s.List()
	if err != nil {
		return nil, err
	}
	var in []*pod.Pod
	for _, p := range pods {
		if p.Hub == hub.ID && StatusOf(p) == pod.Running {
			in = append(in, p)
		}
	}
	return in, nil
}
