package store

import (
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/proc"
)

// Statuses looks what many pods are doing, in the order of the pods.
func Statuses(pods []*pod.Pod) []pod.Status {
	statuses := make([]pod.Status, len(pods))
	proc.InParts(len(pods), func(from, to int) {
		for i := from; i < to; i++ {
			statuses[i] = StatusOf(pods[i])
		}
	})
	return statuses
}
