package machine

import (
	"slices"
	"strings"

	"github.com/moby/sys/capability"

	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/perform"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/spec"
)

// JoinerHolds are the capabilities of someone in the pod's user namespace: all, where that is not the host's.
func JoinerHolds(pod *pod.Pod) []capability.Cap {
	var held []capability.Cap
	for _, c := range capability.ListKnown() {
		if pod.Namespaces["user"].Kind != "host" || perform.HasCapability(c) {
			held = append(held, c)
		}
	}
	return held
}

// CheckHeld refuses a capability that was asked for by name and that nobody here can give. ALL means all
// that there are.
func CheckHeld(names []string, held []capability.Cap) error {
	for _, name := range names {
		if strings.EqualFold(name, "all") {
			continue
		}
		if c, err := spec.ParseCapability(name); err == nil && !slices.Contains(held, c) {
			return fault.New(nil, []string{"leave out --cap-add " + name + ", or use --userns new"},
				"--cap-add %s: you do not have that capability yourself", name)
		}
	}
	return nil
}
