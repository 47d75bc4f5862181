package store

import (
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/pod"
)

// The hub is where networks are: a pod of podsh's own, made with the first pod that is to be on one and removed
// after the last. An ordinary user can't make a bridge on the host, but can in a network namespace that
// belongs to a user namespace of theirs; and one end of a veth(4) can be put into a pod only by someone who
// has power over both. So the user namespaces of pods on networks are children of the hub's. Its helper is the
// way out for all of them. Root's networks are on the host: then the hub has the host's network namespace,
// and holds nothing but its helper.

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
