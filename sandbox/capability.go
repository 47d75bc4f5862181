package sandbox

import (
	"slices"

	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"
)

// capabilityHeader is the first argument of capset(2), for the caller itself.
func capabilityHeader() []byte {
	return nativeWords([]uint32{unix.LINUX_CAPABILITY_VERSION_3, 0})
}

// dropBounding takes all capabilities but those in keep out of the bounding set.
func (b *builder) dropBounding(keep []capability.Cap, last capability.Cap) {
	for c := capability.Cap(0); c <= last; c++ {
		if !slices.Contains(keep, c) {
			b.call(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, int(c), 0, 0, 0)
		}
	}
}

// capabilityData is the second argument of capset(2): effective, permitted and inheritable, low words, then
// high words.
func capabilityData(effective, permitted, inheritable []capability.Cap) []byte {
	var words [6]uint32
	for i, set := range [][]capability.Cap{effective, permitted, inheritable} {
		for _, c := range set {
			words[i+3*(int(c)/32)] |= 1 << (c % 32)
		}
	}
	return nativeWords(words[:])
}
