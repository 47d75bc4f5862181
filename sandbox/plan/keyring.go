package plan

import (
	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/sandbox/pod"
)

// A session keyring is inherited, and with it the right to use the keys in it: keyrings(7). So whoever goes into a
// pod, and its holder, which somebody in there might come to control, takes the pod's in place of the caller's. A pod
// has one and not each command, as a user may have no more than 200 keys, in pods and outside.

// joinable are the rights to a pod's keyring: all for those that have it, and for others no more than to find it by
// its name, which is what it takes to get it: keyctl_join_session_keyring(3).
const joinable = 0x3f<<24 | keySearch<<16 | keySearch // for the possessor, its owner, and who is neither

const keySearch = 0x08 // KEY_USR_SEARCH and KEY_OTH_SEARCH: keyctl_setperm(3)

// ThreadKeyring is what the kernel calls the keyring that a thread has for itself: thread-keyring(7).
const ThreadKeyring = "_tid"

// takeKeyring takes the pod's session keyring in place of the caller's. It stands in the pod's user namespace.
//
// Each user namespace has names of its own for keyrings (Linux 5.3). So the pod's is the one of a name that everybody
// has: that of a thread, the only one that the kernel makes even if the quota is used up (KEY_ALLOC_QUOTA_OVERRUN in
// its security/keys/process_keys.c). The holder's is the first of them. If somebody in the pod has revoked that, the
// next one's is; it does not depend on the pod's good will whether its user can look into it.
//
// Without a user namespace the name must be the pod's, and a secret: that is root, who may have a million keys. Where he is
// root of somebody else's container he may have 200 like others; with those used up such pods share a thread's, too.
func (b *Builder) takeKeyring(pod *pod.Pod) {
	b.Explain("have the pod's keyring in place of the caller's", "keyrings(7)", "")
	switch {
	case pod.Namespaces["user"].Kind != "host" || pod.Keyring == ThreadKeyring:
		own := b.Call(unix.SYS_KEYCTL, unix.KEYCTL_GET_KEYRING_ID, unix.KEY_SPEC_THREAD_KEYRING, 1)
		b.Call(unix.SYS_KEYCTL, unix.KEYCTL_SETPERM, own, joinable)
		b.Call(unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, ThreadKeyring)
	case pod.Keyring != "":
		b.Call(unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, pod.Keyring)
	default: // an older podsh made it
		b.Call(unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, 0)
	}
}

// makeKeyring is takeKeyring for the pod's first process.
func (p *Creation) makeKeyring() {
	if !p.Facts.Keys {
		return
	}
	p.takeKeyring(p.Pod)
	if p.Pod.Namespaces["user"].Kind == "host" && p.Pod.Keyring != ThreadKeyring {
		p.Call(unix.SYS_KEYCTL, unix.KEYCTL_SETPERM, unix.KEY_SPEC_SESSION_KEYRING, joinable)
	}
}
