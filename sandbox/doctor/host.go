package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/sandbox/store"
)

// checkRuntime looks at the folder in which pods are described. One that is not there is not made, so that
// doctor leaves nothing behind.
func checkRuntime(machine) Finding {
	_, err := os.Lstat(store.Root())
	if err == nil {
		_, err = store.OpenStore()
	}
	if err == nil {
		err = canWrite(store.Root())
	}
	if errors.Is(err, fs.ErrNotExist) {
		if err = canWrite(filepath.Dir(store.Root())); err == nil {
			return Finding{OK: true, Required: true, Finding: store.Root() + " will be made"}
		}
	}
	if err == nil {
		return Finding{OK: true, Required: true, Finding: store.Root()}
	}
	f := Finding{Required: true, Finding: strings.TrimPrefix(err.Error(), "runtime folder "), Lost: "pods", Fix: "export PODSH_ROOT=$(mktemp -d)"}
	if hints := Hints(err); len(hints) > 0 && strings.HasPrefix(hints[0], "chmod") {
		f.Fix = hints[0]
	}
	return f
}

// canWrite says whether something can be made in a folder, and why not.
func canWrite(dir string) error {
	if err := unix.Faccessat(unix.AT_FDCWD, dir, unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
		return fmt.Errorf("write to %s: %w", dir, err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("statfs %s: %w", dir, err)
	}
	// Some file systems count no blocks or no inodes: they have no limit.
	if st.Blocks > 0 && st.Bavail == 0 || st.Files > 0 && st.Ffree == 0 {
		return fmt.Errorf("write to %s: %w", dir, unix.ENOSPC)
	}
	return nil
}

// checkLingering: where systemd-logind is, it ends what a user has when he logs out for the last time.
func checkLingering(m machine) Finding {
	if m.uid == 0 || !m.exists(fmt.Sprintf("/run/systemd/users/%d", m.uid)) {
		return Finding{}
	}
	if m.exists("/var/lib/systemd/linger/" + m.name) {
		return Finding{OK: true, Finding: "on: pods outlive a logout"}
	}
	f := Finding{Finding: "off", Lost: "pods, when you log out", Fix: "loginctl enable-linger"}
	if !m.exists("/usr/share/dbus-1/system-services/org.freedesktop.PolicyKit1.service") { // without polkit, logind asks for root
		f.Fix = m.asRoot("loginctl enable-linger " + m.name)
	}
	return f
}

// checkTun opens the device by which a user's pods get a way out.
func checkTun(m machine) Finding {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err == nil {
		unix.Close(fd) // nothing was made: that takes an ioctl
		return Finding{OK: true, Finding: "can be opened"}
	}
	f := Finding{Finding: err.Error(), Lost: "a way out for pods: --net outbound, and networks without root", Fix: m.asRoot("modprobe tun")}
	if err == unix.EACCES || err == unix.EPERM {
		f.Fix = m.asRoot("chmod 666 /dev/net/tun")
	}
	return f
}

// checkPing tells who may ping on the host, icmp(7). In pods everyone may.
func checkPing(m machine) Finding {
	fields := strings.Fields(m.sysctl("net.ipv4.ping_group_range"))
	if len(fields) != 2 || !m.Initial() { // elsewhere groups show that are none
		return Finding{}
	}
	low, _ := strconv.Atoi(fields[0])
	high, _ := strconv.Atoi(fields[1])
	who := fmt.Sprintf("groups %d to %d may on the host", low, high)
	if low > high {
		who = "on the host nobody may without privileges"
	}
	f := Finding{OK: true, Finding: fmt.Sprintf("%s (net.ipv4.ping_group_range %d %d); in pods all may", who, low, high)}
	if gid := os.Getegid(); gid < low || gid > high {
		if low > high { // nobody
			low, high = gid, gid
		}
		f.OK, f.Lost = false, "answers to pings that leave a pod"
		f.Fix = m.asRoot(fmt.Sprintf("sysctl net.ipv4.ping_group_range=\"%d %d\"", min(gid, low), max(gid, high)))
	}
	return f
}

// checkPorts tells which ports of the host are for root, ip(7). In pods none are.
func checkPorts(m machine) Finding {
	start, err := strconv.Atoi(m.sysctl("net.ipv4.ip_unprivileged_port_start"))
	if err != nil {
		return Finding{}
	}
	who := fmt.Sprintf("those of the host below %d need privileges", start)
	if start == 0 {
		who = "none of the host need privileges"
	}
	return Finding{OK: true, Finding: fmt.Sprintf("%s (net.ipv4.ip_unprivileged_port_start); in pods none do", who)}
}
