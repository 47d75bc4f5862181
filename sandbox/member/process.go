package member

import (
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/proc"
	"github.com/podsh/podsh/sandbox/store"
)

// Processes lists the pod's holder and its members.
func Processes(p *pod.Pod) ([]proc.Process, error) {
	pidfd, err := store.Open(p)
	if err != nil {
		return nil, err
	}
	defer pidfd.Close()
	members, err := Members([]*pod.Pod{p})
	if err != nil {
		return nil, err
	}
	read, err := proc.NewReader(p.Holder.PID)
	if err != nil && proc.Ending(pidfd) {
		_, err := store.Open(p)
		return nil, err
	}
	if err != nil {
		return nil, err
	}
	var processes []proc.Process
	for _, pid := range append([]int{p.Holder.PID}, members[p.ID]...) {
		if process, err := read.Read(pid); err == nil { // else it is gone
			processes = append(processes, process)
		}
	}
	return processes, nil
}
