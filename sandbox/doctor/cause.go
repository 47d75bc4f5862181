package doctor

import (
	"errors"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/sandbox/fault"
)

// cause is one reason for which a system call fails. It is named only when its check has found it: one errno
// has many reasons, and the wrong one sends people to switch off what protects them.
type cause struct {
	call   string // as plan.CallName writes it, or the first words of that; "" is any call
	errnos []syscall.Errno
	check  func(m machine) verdict
}

// verdict is what a check found: why, and the narrowest command that mends it, if there is one. A zero
// verdict means that it is something else.
type verdict struct {
	why string
	fix string
}

func (v verdict) found() bool { return v.why != "" }

// String is the verdict as one hint.
func (v verdict) String() string {
	if v.fix == "" {
		return v.why
	}
	return v.why + ": " + v.fix
}

var (
	denied   = []syscall.Errno{unix.EPERM, unix.EACCES}
	filtered = []syscall.Errno{unix.EPERM, unix.EACCES, unix.ENOSYS}
	whatever []syscall.Errno
)

// causes is the one table of what makes calls fail. Those of one call stand together; all that are found
// are told, as each of them alone is enough.
var causes = []cause{
	{"clone", []syscall.Errno{unix.EPERM}, userNamespacesOff},
	{"clone", []syscall.Errno{unix.EPERM}, chrooted},
	{"clone", []syscall.Errno{unix.EPERM}, unmapped},
	{"clone", denied, withoutUserns},
	{"clone", filtered, refused("unshare")}, // the same filters, and a call that can be tried without harm
	{"clone", []syscall.Errno{unix.ENOSPC, unix.EUSERS}, namespaceLimit},
	{"clone", []syscall.Errno{unix.EINVAL}, namespaceMissing},
	{"clone", []syscall.Errno{unix.EAGAIN}, processLimit},
	{"clone", []syscall.Errno{unix.ENOMEM}, always(
		"clone(2) says so where a pid namespace has lost its PID 1; whether the pod has ended says", "podsh ps -a")},
	{"unshare", denied, withoutUserns},
	{"unshare", filtered, refused("unshare")},
	{"unshare", []syscall.Errno{unix.ENOSPC, unix.EUSERS}, namespaceLimit},
	{"unshare", []syscall.Errno{unix.EINVAL}, namespaceMissing},

	{"uid_map", []syscall.Errno{unix.EPERM}, nestedMap},
	{"uid_map", []syscall.Errno{unix.EACCES}, unreadable},
	{"gid_map", []syscall.Errno{unix.EPERM}, nestedMap},
	{"gid_map", []syscall.Errno{unix.EACCES}, unreadable},
	{"newuidmap", whatever, mapperMissing},
	{"newuidmap", whatever, privilegesOff},
	{"newuidmap", whatever, mapperPlain},
	{"newuidmap", whatever, nested},

	{"mount proc", denied, covered("/proc", "proc", "podsh create --pid host")},
	{"mount sysfs", denied, covered("/sys", "sysfs", "podsh create --net host")},
	{"mount overlay", []syscall.Errno{unix.ENODEV}, overlayMissing},
	{"mount overlay", []syscall.Errno{unix.EPERM, unix.EINVAL}, overlayKernel},
	{"mount", []syscall.Errno{unix.ENOSPC}, mountLimit},
	{"mount", []syscall.Errno{unix.EINVAL}, chrooted},
	{"mount", filtered, refused("mount")},
	{"pivot_root", []syscall.Errno{unix.EINVAL}, chrooted},
	{"pivot_root", []syscall.Errno{unix.EINVAL}, initialRoot},

	{"open_tree", filtered, refused("open_tree")},
	{"move_mount", filtered, refused("open_tree")}, // filters treat the new mount calls alike
	{"fsopen", filtered, refused("open_tree")},
	{"fsmount", filtered, refused("open_tree")},
	{"move_mount", []syscall.Errno{unix.ENOSYS}, missing("move_mount")},
	{"fsopen", []syscall.Errno{unix.ENOSYS}, missing("fsopen")},
	{"fsconfig", []syscall.Errno{unix.ENOSYS}, missing("fsconfig")},
	{"fsmount", []syscall.Errno{unix.ENOSYS}, missing("fsmount")},
	{"mount_setattr", filtered, refused("mount_setattr")},
	{"close_range", filtered, refused("close_range")},
	{"openat2", filtered, refused("openat2")},
	{"pidfd_open", filtered, refused("pidfd_open")},

	{"setns", []syscall.Errno{unix.EINVAL}, older(5, 8, "enters no namespaces by a pidfd")},
	{"setns", []syscall.Errno{unix.ESRCH}, always("the process that holds the namespaces has ended meanwhile", "podsh ps -a")},
	{"setns", []syscall.Errno{unix.EPERM}, nested},
	{"setns", filtered, refused("setns")},
	{"keyctl", []syscall.Errno{unix.EDQUOT}, keyQuota},
	{"keyctl", filtered, refused("keyctl")},
	{"memfd_create", []syscall.Errno{unix.EACCES}, memoryNoExec},

	{"", []syscall.Errno{unix.EMFILE}, fileLimit},
	{"", []syscall.Errno{unix.ENFILE}, always("all processes together have too many files open", "sysctl fs.file-nr")},
	{"", denied, appArmor},
	{"", []syscall.Errno{unix.EACCES}, confined},
}

// HintsFor says why a system call has failed, as far as this machine can be asked, and what mends it. The
// call is named as plan.CallName does it: "clone", "mount proc on /proc". No hint means that nothing is known.
func HintsFor(call string, errno syscall.Errno) []string {
	var hints []string
	verdicts, known := ThisMachine().verdicts(call, errno)
	for _, v := range verdicts {
		hints = append(hints, v.String())
	}
	if known && len(hints) == 0 {
		hints = append(hints, "`podsh doctor` looks for the cause")
	}
	return hints
}

// verdicts asks all the causes of a failure; known says whether there were any to ask for this call.
func (m machine) verdicts(call string, errno syscall.Errno) (found []verdict, known bool) {
	call = strings.Replace(call, "newgidmap", "newuidmap", 1)
	for _, c := range causes {
		if !c.of(call, errno) {
			continue
		}
		known = known || c.call != ""
		if v := c.check(m); v.found() && !slices.Contains(found, v) {
			found = append(found, v)
		}
	}
	return found, known
}

func (c cause) of(call string, errno syscall.Errno) bool {
	if len(c.errnos) > 0 && !slices.Contains(c.errnos, errno) {
		return false
	}
	return c.call == "" || call == c.call || strings.HasPrefix(call, c.call+" ")
}

// always is a check for what needs none.
func always(why, fix string) func(machine) verdict {
	return func(machine) verdict { return verdict{why, fix} }
}

// Hints lists the hints of an error and of all that it wraps, outermost first. What may fail wherever a file is
// opened is explained here.
func Hints(err error) []string {
	hints := fault.Hints(err)
	for _, errno := range []syscall.Errno{unix.EMFILE, unix.ENFILE} {
		if !errors.Is(err, errno) {
			continue
		}
		for _, hint := range HintsFor("", errno) {
			if !slices.Contains(hints, hint) {
				hints = append([]string{hint}, hints...)
			}
		}
	}
	return hints
}
