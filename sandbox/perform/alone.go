package perform

import (
	"slices"

	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/nsenter"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/step"
)

// Who unpacks a layer or copies files is alone with a folder. It is led there by two plans: the first ends in an exec of
// the program, which must still find its loader if it has one, and the second is performed before Go starts, by one thread
// for all that come later. So the program never has more than its work takes.

// Capabilities that the work on files takes, capabilities(7): to read whatever there is; to write it, and give it owners,
// modes and times; and, for layers, the capabilities of files.
var (
	ToRead   = []capability.Cap{capability.CAP_DAC_READ_SEARCH}
	ToWrite  = []capability.Cap{capability.CAP_CHOWN, capability.CAP_DAC_OVERRIDE, capability.CAP_FOWNER, capability.CAP_FSETID}
	ToUnpack = append(slices.Clip(ToWrite), capability.CAP_SETFCAP)
)

// Ours are those of some capabilities that we can give in a pod. What we lack is no loss of the program's.
func Ours(p *pod.Pod, wanted []capability.Cap) []capability.Cap {
	if p.Namespaces["user"].Kind != "host" {
		return wanted
	}
	return slices.DeleteFunc(slices.Clone(wanted), func(c capability.Cap) bool { return !HasCapability(c) })
}

// LeadAway sends both plans and waits until the program goes on by itself. The second begins at the place then.
func LeadAway(executor *nsenter.Executor, plan step.Plan, then int) error {
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

// LastCap is the last capability that the kernel has; without /proc, the last that we know.
func LastCap() capability.Cap {
	last, err := capability.LastCap()
	if err != nil {
		return capability.CAP_CHECKPOINT_RESTORE
	}
	return last
}

// HasCapability says whether this process can use a capability where it is.
func HasCapability(c capability.Cap) bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&header, &data[0]) == nil && data[c/32].Effective&(1<<(c%32)) != 0
}
