package plan

import (
	"slices"

	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"
)

// CapabilityHeader is the first argument of capset(2), for the caller itself.
func CapabilityHeader() []byte {
	return nativeWords([]uint32{unix.LINUX_CAPABILITY_VERSION_3, 0})
}

// dropBounding takes all capabilities but those in keep out of the bounding set.
func (b *Builder) dropBounding(keep []capability.Cap, last capability.Cap) {
	for c := capability.Cap(0); c <= last; c++ {
		if !slices.Contains(keep, c) {
			b.Call(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, int(c), 0, 0, 0)
		}
	}
}

// CapabilityData is the second argument of capset(2): effective, permitted and inheritable, low words, then
// high words.
func CapabilityData(effective, permitted, inheritable []capability.Cap) []byte {
	var words [6]uint32
	for i, set := range [][]capability.Cap{effective, permitted, inheritable} {
		for _, c := range set {
			words[i+3*(int(c)/32)] |= 1 << (c % 32)
		}
	}
	return nativeWords(words[:])
}
