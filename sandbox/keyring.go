package sandbox

import (
	"github.com/podsh/podsh/sandbox/plan"
	"github.com/podsh/podsh/sandbox/pod"
	"github.com/podsh/podsh/sandbox/store"
)

// keyringName names the keyring of a pod that has none by its user namespace.
func keyringName(pod *pod.Pod, shared bool) string {
	switch {
	case pod.Namespaces["user"].Kind != "host":
		return ""
	case shared:
		return plan.ThreadKeyring
	}
	return "podsh." + store.NewID() + store.NewID()
}
