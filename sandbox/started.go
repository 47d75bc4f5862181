package sandbox

import (
	"github.com/podsh/podsh/sandbox/container"
	"github.com/podsh/podsh/sandbox/member"
	"github.com/podsh/podsh/sandbox/pod"
)

// SweepMounts ends whatever is left in the container's mount namespace.
func SweepMounts(s *container.Started, pod *pod.Pod) error {
	if s.Mounts == nil {
		return nil
	}
	group, err := member.InMounts(pod, s.Mounts)
	if err != nil {
		return err
	}
	return group.Destroy()
}
