package machine

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/sandbox/pod"
)

// FindResolvConf finds the file without opening it: nothing in the pod is trusted.
func FindResolvConf(root int) (path int, is pod.FileID, err error) {
	path, err = unix.Openat2(root, "etc/resolv.conf", &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS})
	if err != nil {
		return -1, is, fmt.Errorf("find /etc/resolv.conf of the pod: %w", err)
	}
	var st unix.Stat_t
	if err = unix.Fstat(path, &st); err != nil {
		unix.Close(path)
		return -1, is, fmt.Errorf("stat /etc/resolv.conf of the pod: %w", err)
	}
	return path, pod.FileID{Device: st.Dev, Inode: st.Ino}, nil
}
