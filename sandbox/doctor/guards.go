package doctor

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/podsh/podsh/sandbox/plan"
	"github.com/podsh/podsh/sandbox/step"
)

// refused makes the check for a call that the kernel does not have, or that a filter stops before the kernel
// sees it.
func refused(call string) func(machine) verdict {
	return func(m machine) verdict {
		if since := callSince[call]; m.kernel().Before(since) {
			return verdict{fmt.Sprintf("Linux %v has no %s(2): it came with %v", m.kernel(), call, since), ""}
		}
		if m.status("Seccomp") != "2" || m.reaches(call) {
			return verdict{}
		}
		why := fmt.Sprintf("a seccomp filter that this shell has inherited refuses %s(2)", call)
		return verdict{why, m.container("--security-opt seccomp=unconfined")}
	}
}

// missing makes the check for ENOSYS from a call that can't be tried without harm.
func missing(call string) func(machine) verdict {
	return func(m machine) verdict {
		since := callSince[call]
		switch {
		case m.kernel().Before(since):
			return refused(call)(m)
		case m.status("Seccomp") == "2":
			return verdict{fmt.Sprintf("a seccomp filter that this shell has inherited refuses %s(2), which Linux %v has", call, m.kernel()),
				m.container("--security-opt seccomp=unconfined")}
		}
		return verdict{}
	}
}

// container is how to start the container that this is with another option, or "".
func (m machine) container(option string) string {
	switch {
	case m.exists("/run/.containerenv"):
		return "podman run " + option + " …"
	case m.exists("/.dockerenv"):
		return "docker run " + option + " …"
	}
	return ""
}

// callSince says with which Linux the younger calls came.
var callSince = map[string]plan.Version{
	"open_tree": {Major: 5, Minor: 2}, "move_mount": {Major: 5, Minor: 2}, "fsopen": {Major: 5, Minor: 2}, "fsconfig": {Major: 5, Minor: 2}, "fsmount": {Major: 5, Minor: 2},
	"pidfd_open": {Major: 5, Minor: 3}, "openat2": {Major: 5, Minor: 6}, "close_range": {Major: 5, Minor: 9}, "mount_setattr": {Major: 5, Minor: 12},
}

// older makes the check for a kernel from before a version.
func older(major, minor int, what string) func(machine) verdict {
	return func(m machine) verdict {
		if m.kernel().AtLeast(major, minor) {
			return verdict{}
		}
		return verdict{fmt.Sprintf("Linux %v %s; %d.%d does", m.kernel(), what, major, minor), ""}
	}
}

// label is AppArmor's name for this process, such as `unconfined` or `docker-default (enforce)`.
func (m machine) label() string {
	if label := m.text("/proc/self/attr/apparmor/current"); label != "" {
		return label
	}
	if m.text("/sys/module/apparmor/parameters/enabled") == "Y" {
		return m.text("/proc/self/attr/current")
	}
	return ""
}

// profile is AppArmor's profile for this process and its mode, or "" where it has none.
func (m machine) profile() (name, mode string) {
	label := m.label() // a name can be a path, with whatever stands in such
	i := strings.LastIndex(label, " (")
	if i < 0 { // unconfined
		return "", ""
	}
	return label[:i], strings.TrimSuffix(label[i+2:], ")")
}

// restricted says whether this shell is in a user namespace in which AppArmor denies everything, by Ubuntu's profile.
func (m machine) restricted() bool { return strings.Contains(m.label(), "unprivileged_userns") }

// confined: AppArmor answers EACCES to what a profile that it enforces does not allow. Files on mounts that have no place
// yet, as podsh makes them, have no path to look up in it.
func confined(m machine) verdict {
	name, mode := m.profile()
	if mode != "enforce" || m.restricted() {
		return verdict{}
	}
	return verdict{"AppArmor's profile " + name + " confines this shell: for pods it needs the rules `userns,` and `mount,`, and flags=(attach_disconnected)",
		m.container("--security-opt apparmor=unconfined")}
}

// withoutUserns: a profile that lets everything else pass has to name user namespaces where AppArmor restricts those.
func withoutUserns(m machine) verdict {
	name, mode := m.profile()
	if m.sysctl("kernel.apparmor_restrict_unprivileged_userns") != "1" || mode != "unconfined" || m.Root() {
		return verdict{}
	}
	return verdict{"AppArmor's profile " + name + " has no rule `userns,`: add that to it, and load it with apparmor_parser -r", ""}
}

// appArmor finds what Ubuntu has since 23.10: programs without a profile that allows it get user namespaces in
// which all capabilities are denied, or none.
func appArmor(m machine) verdict {
	switch {
	case m.sysctl("kernel.apparmor_restrict_unprivileged_userns") != "1":
	case m.restricted():
		return verdict{"this shell is in a user namespace in which AppArmor denies all capabilities: run podsh outside", ""}
	case m.label() == "unconfined" && !m.Root():
		return verdict{"AppArmor lets only programs that have a profile use user namespaces", m.asRoot(profileCommand(m.exe))}
	}
	return verdict{}
}

// profileCommand installs a profile for podsh's own path alone: it is named after that, and so is its file, since there
// may be other copies of podsh. The path stands in quotes, and what is special in apparmor.d(5) behind a backslash.
func profileCommand(exe string) string {
	escaped := strings.NewReplacer(`\`, `\\`, `"`, `\"`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`,
		`{`, `\{`, `}`, `\}`, `^`, `\^`, `@`, `\@`).Replace(exe)
	file := step.Quote("/etc/apparmor.d/podsh" + strings.NewReplacer("%", "%25", ".", "%2E", "/", ".").Replace(exe))
	return fmt.Sprintf("printf '%%s\\n' 'abi <abi/4.0>,' %s | tee %s && apparmor_parser -r %s",
		step.Quote(fmt.Sprintf(`"%s" flags=(unconfined) { userns, }`, escaped)), file, file)
}

// memoryNoExec: no program may be started from memory, memfd_create(2). The setting came with Linux 6.3.
func memoryNoExec(m machine) verdict {
	const name = "vm.memfd_noexec"
	if m.sysctl(name) != "2" {
		return verdict{}
	}
	return verdict{name + " is 2: no program may be started from memory, as podsh starts its own", m.asRoot("sysctl -w " + name + "=1")}
}

// Unwrapped is the errno in an error, if there is one.
func Unwrapped(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

// checkMemory makes a program in memory, and starts none.
func checkMemory(m machine) Finding {
	if err := m.sealed(); err != nil {
		return m.failed(Finding{Lost: "images, ways out, published ports and networks, which have programs of their own"}, "memfd_create", Unwrapped(err))
	}
	return Finding{OK: true, Finding: "programs can be started from it"}
}
