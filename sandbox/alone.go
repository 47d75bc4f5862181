package sandbox

import (
	"slices"

	"github.com/moby/sys/capability"

	"github.com/podsh/podsh/nsenter"
	"github.com/podsh/podsh/sandbox/plan"
	"github.com/podsh/podsh/sandbox/pod"
)

// Who unpacks a layer or copies files is alone with a folder. It is led there by two plans: the first ends in an exec of
// the program, which must still find its loader if it has one, and the second is performed before Go starts, by one thread
// for all that come later. So the program never has more than its work takes.

// Capabilities that the work on files takes, capabilities(7): to read whatever there is; to write it, and give it owners,
// modes and times; and, for layers, the capabilities of files.
var (
	toRead   = []capability.Cap{capability.CAP_DAC_READ_SEARCH}
	toWrite  = []capability.Cap{capability.CAP_CHOWN, capability.CAP_DAC_OVERRIDE, capability.CAP_FOWNER, capability.CAP_FSETID}
	toUnpack = append(slices.Clip(toWrite), capability.CAP_SETFCAP)
)

// ours are those of some capabilities that we can give in a pod. What we lack is no loss of the program's.
func ours(p *pod.Pod, wanted []capability.Cap) []capability.Cap {
	if p.Namespaces["user"].Kind != "host" {
		return wanted
	}
	return slices.DeleteFunc(slices.Clone(wanted), func(c capability.Cap) bool { return !hasCapability(c) })
}

// leadAway sends both plans and waits until the program goes on by itself. The second begins at the place then.
func leadAway(executor *nsenter.Executor, plan plan.Plan, then int) error {
	calls := plan.Calls()
	err := executor.Send(calls[:then], 0)
	if err == nil {
		err = executor.Cloned()
	}
	if err == nil {
		err = executor.Send(calls[then:], then)
	}
	if err == nil {
		err = executor.Became()
	}
	return err
}

// lastCap is the last capability that the kernel has; without /proc, the last that we know.
func lastCap() capability.Cap {
	last, err := capability.LastCap()
	if err != nil {
		return capability.CAP_CHECKPOINT_RESTORE
	}
	return last
}
