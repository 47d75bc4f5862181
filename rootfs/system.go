package rootfs

import (
	"strings"

	"golang.org/x/sys/unix"
)

// Mount is one file system that the kernel makes, mount(2).
type Mount struct {
	Type   string
	Target string // absolute, in the pod
	Flags  uintptr
	Data   string // of the file system's own: "mode=755"
	Why    string
	Man    string
}

// flagNames are the words of mount(8) for the flags of mount(2), in the order of /proc/PID/mountinfo.
var flagNames = []struct {
	flag uintptr
	name string
}{
	{unix.MS_RDONLY, "ro"}, {unix.MS_NOSUID, "nosuid"}, {unix.MS_NODEV, "nodev"}, {unix.MS_NOEXEC, "noexec"},
}

// FlagNames spells flags as mount(8) takes them.
func FlagNames(flags uintptr) []string {
	var names []string
	for _, f := range flagNames {
		if flags&f.flag != 0 {
			names = append(names, f.name)
		}
	}
	return names
}

// Options are flags and data as mount(8) takes them behind -o.
func (m Mount) Options() string {
	options := FlagNames(m.Flags)
	if m.Data != "" {
		options = append(options, m.Data)
	}
	return strings.Join(options, ",")
}

const noneOfIt = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// The file systems that the kernel makes for every pod.
var (
	Proc   = Mount{"proc", "/proc", noneOfIt, "", "give the pod a /proc that shows its own processes", "proc(5)"}
	Sys    = Mount{"sysfs", "/sys", noneOfIt | unix.MS_RDONLY, "", "show /sys with the pod's own network devices, read-only", "sysfs(5)"}
	Cgroup = Mount{"cgroup2", "/sys/fs/cgroup", noneOfIt | unix.MS_RDONLY, "", "show the pod's cgroups, from its own point of view", "cgroups(7)"}
	Dev    = Mount{"tmpfs", "/dev", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=755,size=64k", "make a /dev with nothing in it", "tmpfs(5)"}
	Pts    = Mount{"devpts", "/dev/pts", unix.MS_NOSUID | unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620", "give the pod terminals of its own", "pts(4)"}
	Shm    = Mount{"tmpfs", "/dev/shm", noneOfIt, "mode=1777,size=64m", "give the pod shared memory of its own", "shm_overview(7)"}
	Mqueue = Mount{"mqueue", "/dev/mqueue", noneOfIt, "", "show the pod's own message queues", "mq_overview(7)"}
)

// Devices are those that programs expect and that do no harm, null(4), full(4), random(4), tty(4). In a user
// namespace nobody can mknod(2) them, so the host's are bound.
var Devices = []string{"null", "zero", "full", "random", "urandom", "tty"}

// DeviceLinks are what else stands in /dev.
var DeviceLinks = [][2]string{
	{"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"},
	{"/proc/self/fd/2", "stderr"}, {"pts/ptmx", "ptmx"},
}

// Masked are paths that show or change more than a pod should: files read as empty, folders are empty. A
// test compares them with those that runc's `spec` masks.
var Masked = []string{
	"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
	"/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
	"/sys/devices/virtual/powercap",
}

// ReadOnly are paths in /proc that change the kernel for all; the same test.
var ReadOnly = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
