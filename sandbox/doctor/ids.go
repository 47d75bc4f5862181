package doctor

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/sandbox/ids"
)

// nested shows the ids that there are to map.
func nested(m machine) verdict {
	if !m.nested() {
		return verdict{}
	}
	ids := strings.Join(strings.Fields(m.text("/proc/self/uid_map")), " ")
	return verdict{fmt.Sprintf("this shell is in a user namespace that has only the ids %q (/proc/self/uid_map)", ids), ""}
}

// nestedMap: root of the outside can be mapped only by who has the capability, and others only if they are
// there.
func nestedMap(m machine) verdict {
	if v := noSetfcap(m); v.found() {
		return v
	}
	return nested(m)
}

// noSetfcap: since Linux 5.12, who maps root of the outside must be able to set file capabilities there.
func noSetfcap(m machine) verdict {
	if m.uid != 0 || m.capable(capability.CAP_SETFCAP) {
		return verdict{}
	}
	return verdict{"root lacks CAP_SETFCAP here, without which it can't be mapped", m.container("--cap-add SETFCAP")}
}

// unreadable: who runs a file without being able to read it is not dumpable, and its /proc files are root's.
func unreadable(m machine) verdict {
	if unix.Access(m.exe, unix.R_OK) == nil {
		return verdict{}
	}
	return verdict{"podsh's own file is not readable, so its processes are hidden from you", m.asRoot("chmod a+r " + m.exe)}
}

var mappers = []string{"newuidmap", "newgidmap"}

// mapperMissing says how to install newuidmap: by this system's name for the package.
func mapperMissing(m machine) verdict {
	for _, program := range mappers {
		if m.has(program) == "" {
			return verdict{program + " is not installed", m.asRoot(m.packageCommand())}
		}
	}
	return verdict{}
}

// mapperPackages says which package newuidmap is in, by ID and ID_LIKE of os-release(5).
var mapperPackages = []struct{ system, command string }{
	{"debian", "apt-get install uidmap"}, {"ubuntu", "apt-get install uidmap"},
	{"fedora", "dnf install shadow-utils"}, {"rhel", "dnf install shadow-utils"},
	{"suse", "zypper install shadow"}, {"opensuse", "zypper install shadow"},
	{"arch", "pacman -S shadow"}, {"alpine", "apk add shadow-uidmap"}, {"void", "xbps-install shadow"},
}

func (m machine) packageCommand() string {
	text := m.field("/etc/os-release", "ID=") + " " + m.field("/etc/os-release", "ID_LIKE=")
	systems := strings.Fields(strings.ReplaceAll(text, `"`, " "))
	for _, p := range mapperPackages {
		if slices.Contains(systems, p.system) {
			return p.command
		}
	}
	return mapperPackages[0].command
}

// privilegesOff: under no_new_privs, programs that are setuid gain nothing: prctl(2).
func privilegesOff(m machine) verdict {
	if m.Root() || m.status("NoNewPrivs") != "1" {
		return verdict{}
	}
	v := verdict{why: "no_new_privs is set on this shell, and so newuidmap gains no privileges"}
	if m.hasUserManager() {
		v.fix = "systemd-run --user --pty bash"
	}
	return v
}

// mapperPlain: newuidmap needs setuid root, or the capability as the file's own.
func mapperPlain(m machine) verdict {
	for _, program := range mappers {
		file := m.has(program)
		if file == "" {
			continue
		}
		if !m.privileged(file) && !m.nested() { // there, who owns it may not show
			return verdict{file + " is not setuid root", m.asRoot("chmod u+s " + m.has("newuidmap") + " " + m.has("newgidmap"))}
		}
		if on := mountOf(m.mounts(), file); on != nil && slices.Contains(strings.Split(on.Options, ","), "nosuid") {
			return verdict{fmt.Sprintf("%s lies on %s, which is mounted nosuid", file, on.Mountpoint),
				m.asRoot("mount -o remount,suid " + on.Mountpoint)}
		}
	}
	return verdict{}
}

const oneID = "all ids but one: no program in a pod can become another user, as www-data or postgres do"

// checkIDs looks which ids pods can have.
func checkIDs(m machine) Finding {
	switch {
	case m.Root() && m.nested():
		return checkNestedIDs(m)
	case unmapped(m).found():
		v := unmapped(m)
		return Finding{Finding: v.why, Lost: oneID, Fix: v.fix}
	}
	uids, errUID := Subids("/etc/subuid", m.name, m.uid)
	gids, errGID := Subids("/etc/subgid", m.name, m.uid)
	if err := errors.Join(errUID, errGID); err != nil {
		return Finding{Finding: err.Error(), Lost: oneID}
	}
	f := Finding{OK: true, Finding: "one, as /etc/subuid and /etc/subgid have no ranges for " + m.name}
	some := len(uids) > 0 && len(gids) > 0
	if some {
		f.Finding = fmt.Sprintf("uids %s (/etc/subuid) and gids %s (/etc/subgid), besides your own", showRanges(uids), showRanges(gids))
	}
	if m.Root() {
		f.Finding = "all, as root; with --userns new " + f.Finding
	}
	if some || m.Root() {
		return f
	}
	if v := nested(m); v.found() {
		return Finding{Finding: v.why, Lost: oneID}
	}
	f.OK, f.Lost = false, oneID
	f.Fix = m.AddRanges()
	return f
}

// AddRanges is the command that gives this user ranges of ids which nobody else has.
func (m machine) AddRanges() string {
	next := nextRange(m.text("/etc/subuid") + "\n" + m.text("/etc/subgid"))
	add := fmt.Sprintf("%d-%d", next, next+65535)
	return m.asRoot(fmt.Sprintf("usermod --add-subuids %s --add-subgids %s %s", add, add, m.name))
}

// checkNestedIDs is for root of a user namespace, who can map what that has.
func checkNestedIDs(m machine) Finding {
	f := nested(m)
	var count int
	for line := range strings.Lines(m.text("/proc/self/uid_map")) {
		if fields := strings.Fields(line); len(fields) == 3 {
			n, _ := strconv.Atoi(fields[2])
			count += n
		}
	}
	if count > 1 {
		return Finding{OK: true, Finding: fmt.Sprintf("the %d of this user namespace", count)}
	}
	return Finding{Finding: f.why, Lost: oneID}
}

func showRanges(ranges []ids.Range) string {
	var text []string
	for _, r := range ranges {
		text = append(text, fmt.Sprintf("%d-%d", r.Start, r.Start+r.Count-1))
	}
	return strings.Join(text, " ")
}

// nextRange finds the first id behind all ranges, from where useradd(8) begins.
func nextRange(subids string) int {
	next := 100000
	for line := range strings.Lines(subids) {
		fields := strings.Split(strings.TrimSpace(line), ":")
		if len(fields) != 3 {
			continue
		}
		start, _ := strconv.Atoi(fields[1])
		count, _ := strconv.Atoi(fields[2])
		next = max(next, start+count)
	}
	return next
}

// checkMappers has newuidmap and newgidmap write a map, if there are ranges for one.
func checkMappers(m machine) Finding {
	if m.Root() {
		return Finding{} // root writes maps itself
	}
	f := Finding{Finding: "newuidmap and newgidmap are installed", Lost: oneID}
	for _, check := range []func(machine) verdict{mapperMissing, mapperPlain} {
		if v := check(m); v.found() {
			f.Finding, f.Fix = v.why, v.fix
			return f
		}
	}
	uids, _ := Subids("/etc/subuid", m.name, m.uid) // checkIDs tells of errors
	gids, _ := Subids("/etc/subgid", m.name, m.uid)
	if m.try == nil || len(uids) == 0 || len(gids) == 0 || privilegesOff(m).found() { // nothing to map, or told elsewhere
		f.OK, f.Lost = true, ""
		return f
	}
	said, err := m.tryMap(ids.RootMap(uint32(m.uid), uids), ids.RootMap(uint32(m.gid), gids))
	if err != nil {
		f = m.failed(f, "newuidmap", unix.EPERM)
		f.Finding = strings.Replace(f.Finding, "newuidmap: "+unix.EPERM.Error(), said, 1)
		return f
	}
	return Finding{OK: true, Finding: "newuidmap and newgidmap map the ranges"}
}

func checkPrivileges(m machine) Finding {
	if m.Root() {
		return Finding{}
	}
	if v := privilegesOff(m); v.found() {
		return Finding{Finding: v.why, Lost: oneID, Fix: v.fix}
	}
	return Finding{OK: true, Finding: "not set"}
}

// UserName is the host's name for a uid, or its digits.
func UserName(uid uint32) string {
	digits := strconv.Itoa(int(uid))
	if u, err := user.LookupId(digits); err == nil {
		return u.Username
	}
	return digits
}

// YourMap is a map that this user may ask for, as flags: to the ranges that he has; root has all, and takes ids that are
// nobody's.
func YourMap() string {
	m := ThisMachine()
	uid := os.Geteuid()
	uids, _ := Subids("/etc/subuid", UserName(uint32(uid)), uid) // for a hint alone
	gids, _ := Subids("/etc/subgid", UserName(uint32(uid)), uid)
	switch {
	case len(uids) > 0 && len(gids) > 0 && uids[0] == gids[0]:
		return fmt.Sprintf("--uidmap 0:%d:%d", uids[0].Start, uids[0].Count)
	case len(uids) > 0 && len(gids) > 0:
		return fmt.Sprintf("--uidmap 0:%d:%d --gidmap 0:%d:%d", uids[0].Start, uids[0].Count, gids[0].Start, gids[0].Count)
	case uid == 0:
		return fmt.Sprintf("--uidmap 0:%d:65536", nextRange(m.text("/etc/subuid")+"\n"+m.text("/etc/subgid")))
	}
	return fmt.Sprintf("--uidmap 0:%d:1 --gidmap 0:%d:1", uid, os.Getegid())
}
