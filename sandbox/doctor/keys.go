package doctor

import (
	"fmt"
	"strconv"
)

// keyUse is what a user has of the kernel's keys, and may have: proc_key-users(5).
type keyUse struct {
	keys, maxKeys   int
	bytes, maxBytes int
}

// keys reads it; ok says whether this kernel tells.
func (m machine) keys() (use keyUse, ok bool) {
	var usage, made, live int
	line := m.field("/proc/key-users", fmt.Sprintf("%d:", m.uid))
	n, _ := fmt.Sscanf(line, "%d %d/%d %d/%d %d/%d", &usage, &made, &live, &use.keys, &use.maxKeys, &use.bytes, &use.maxBytes)
	if n == 7 {
		return use, true
	}
	var err error
	use = keyUse{} // who has none is not in that file
	if use.maxKeys, err = strconv.Atoi(m.sysctl(m.keySetting("maxkeys"))); err != nil {
		return use, false
	}
	use.maxBytes, err = strconv.Atoi(m.sysctl(m.keySetting("maxbytes")))
	return use, err == nil
}

// keySetting is the name of a limit: root has limits of his own.
func (m machine) keySetting(name string) string {
	if m.uid == 0 {
		name = "root_" + name
	}
	return "kernel.keys." + name
}

// keyQuota: a user may have no more keys. Where a pod has a user namespace its keyring does not count.
func keyQuota(m machine) verdict {
	use, ok := m.keys()
	const room = 40 // for the name of a keyring
	switch {
	case !ok:
	case use.keys >= use.maxKeys:
		name := m.keySetting("maxkeys")
		return verdict{fmt.Sprintf("you have %d keys, and %s is %d", use.keys, name, use.maxKeys),
			m.asRoot(fmt.Sprintf("sysctl -w %s=%d", name, max(2000, 2*use.maxKeys)))}
	case use.bytes+room >= use.maxBytes:
		name := m.keySetting("maxbytes")
		return verdict{fmt.Sprintf("your keys take %d bytes, and %s is %d", use.bytes, name, use.maxBytes),
			m.asRoot(fmt.Sprintf("sysctl -w %s=%d", name, max(200000, 2*use.maxBytes)))}
	}
	return verdict{}
}

// checkKeys tells how many keys are left: pods do without, other programs don't.
func checkKeys(m machine) Finding {
	use, ok := m.keys()
	if !ok {
		return Finding{}
	}
	if v := keyQuota(m); v.found() {
		return Finding{Finding: v.why, Lost: "keys for other programs, in pods and outside: add_key(2) says EDQUOT", Fix: v.fix}
	}
	return Finding{OK: true, Finding: fmt.Sprintf("%d of %d in use (%s); a pod takes one", use.keys, use.maxKeys, m.keySetting("maxkeys"))}
}
