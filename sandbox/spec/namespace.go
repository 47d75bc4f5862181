package spec

import (
	"golang.org/x/sys/unix"
)

// Namespace is one kind of Linux namespace.
type Namespace struct {
	Name    string // as /proc/PID/ns has it
	Flag    int    // for clone(2), unshare(2) and setns(2)
	Option  string // of podsh create, without the dashes
	Unshare string // of unshare(1)
	Nsenter string // of nsenter(1)
	Man     string
	Gives   string // what a new one means, in a few words
}

// Namespaces is the one table of them, in the order in which podsh speaks of them. The user namespace comes
// first because it owns the others.
var Namespaces = []Namespace{
	{"user", unix.CLONE_NEWUSER, "userns", "--user", "--user", "user_namespaces(7)", "ids and capabilities of its own"},
	{"pid", unix.CLONE_NEWPID, "pid", "--pid", "--pid", "pid_namespaces(7)", "process ids of its own"},
	{"uts", unix.CLONE_NEWUTS, "uts", "--uts", "--uts", "uts_namespaces(7)", "a host name of its own"},
	{"ipc", unix.CLONE_NEWIPC, "ipc", "--ipc", "--ipc", "ipc_namespaces(7)", "System V IPC and POSIX message queues of its own"},
	{"net", unix.CLONE_NEWNET, "net", "--net", "--net", "network_namespaces(7)", "network interfaces of its own"},
	{"mnt", unix.CLONE_NEWNS, "mnt", "--mount", "--mount", "mount_namespaces(7)", "mounts of its own"},
	{"cgroup", unix.CLONE_NEWCGROUP, "cgroupns", "--cgroup", "--cgroup", "cgroup_namespaces(7)", "a view of the cgroups of its own"},
	{"time", unix.CLONE_NEWTIME, "time", "--time", "--time", "time_namespaces(7)", "monotonic and boot clocks of its own"},
}
