package spec

import (
	"fmt"
	"slices"
	"strings"

	"github.com/moby/sys/capability"

	"github.com/podsh/podsh/sandbox/fault"
)

// DefaultCapabilities are what a command that joins a pod as its root has: those of podman, which are
// Docker's without MKNOD, NET_RAW and AUDIT_WRITE. capabilities(7)
var DefaultCapabilities = []capability.Cap{
	capability.CAP_CHOWN, capability.CAP_DAC_OVERRIDE, capability.CAP_FOWNER, capability.CAP_FSETID,
	capability.CAP_KILL, capability.CAP_NET_BIND_SERVICE, capability.CAP_SETFCAP, capability.CAP_SETGID,
	capability.CAP_SETPCAP, capability.CAP_SETUID, capability.CAP_SYS_CHROOT,
}

// ParseCapability reads NET_ADMIN, net_admin or CAP_NET_ADMIN.
func ParseCapability(name string) (capability.Cap, error) {
	plain := strings.TrimPrefix(strings.ToLower(name), "cap_")
	var known []string
	for _, c := range capability.ListKnown() {
		if c.String() == plain {
			return c, nil
		}
		known = append(known, strings.ToUpper(c.String()))
	}
	hint := "capabilities(7) lists them, such as NET_ADMIN; ALL means all"
	if near := fault.Nearest(strings.ToUpper(plain), known); near != "" {
		hint = fmt.Sprintf("did you mean %s? %s", near, hint)
	}
	return 0, fault.New(fault.ErrInvalid, []string{hint}, "no capability %q", name)
}

// ValidateCapabilities says which name is none. "all" is one.
func ValidateCapabilities(add, drop []string) error {
	for _, name := range slices.Concat(add, drop) {
		if strings.EqualFold(name, "all") {
			continue
		}
		if _, err := ParseCapability(name); err != nil {
			return err
		}
	}
	return nil
}

// Adjust returns set with add and without drop, sorted; ALL stands for all. The names are valid.
func Adjust(set []capability.Cap, add, drop []string) []capability.Cap {
	has := map[capability.Cap]bool{}
	for _, c := range set {
		has[c] = true
	}
	change := func(names []string, to bool) {
		for _, name := range names {
			if strings.EqualFold(name, "all") {
				for _, c := range capability.ListKnown() {
					has[c] = to
				}
			} else if c, err := ParseCapability(name); err == nil {
				has[c] = to
			}
		}
	}
	// ALL first, so that `--cap-drop ALL --cap-add CHOWN` leaves CHOWN.
	slices.SortStableFunc(add, allFirst)
	if slices.ContainsFunc(drop, func(s string) bool { return strings.EqualFold(s, "all") }) {
		change(drop, false)
		change(add, true)
	} else {
		change(add, true)
		change(drop, false)
	}
	var result []capability.Cap
	for _, c := range capability.ListKnown() {
		if has[c] {
			result = append(result, c)
		}
	}
	return result
}

func allFirst(a, b string) int {
	switch aAll, bAll := strings.EqualFold(a, "all"), strings.EqualFold(b, "all"); {
	case aAll == bAll:
		return 0
	case aAll:
		return -1
	}
	return 1
}

// CapabilityNames are as setpriv(1) and capsh(1) write them.
func CapabilityNames(set []capability.Cap) []string {
	var names []string
	for _, c := range set {
		names = append(names, c.String())
	}
	return names
}
