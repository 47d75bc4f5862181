package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/sandbox/fault"
)

// mostLinks is how many symbolic links a path may lead over, path_resolution(7).
const mostLinks = 40

// CheckWay refuses a folder of root's that somebody else could exchange, on the way to it or in its place: whoever can do
// that chooses what root executes. Every folder and link on the way has to be root's, and those that others may write to
// have to be sticky. What is not there yet is made by us.
func CheckWay(path string) error {
	if os.Geteuid() != 0 {
		return nil // what others do to a user's own folders is between them
	}
	left, at := strings.Split(path, "/"), "/"
	for links := 0; ; {
		if err := checkOnWay(at); err != nil {
			return err
		}
		for len(left) > 0 && left[0] == "" {
			left = left[1:]
		}
		if len(left) == 0 {
			return nil
		}
		next := filepath.Join(at, left[0])
		left = left[1:]
		var st unix.Stat_t
		if err := unix.Lstat(next, &st); errors.Is(err, unix.ENOENT) {
			return nil
		} else if err != nil {
			return fmt.Errorf("stat %s: %w", next, err)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFLNK {
			at = next
			continue
		}
		if links++; links > mostLinks {
			return fmt.Errorf("%s: %w", path, unix.ELOOP)
		}
		if !isRoots(st.Uid) {
			return changeable(next, "belongs to uid %d", st.Uid)
		}
		target, err := os.Readlink(next)
		if err != nil {
			return err
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		left = append(strings.Split(target, "/"), left...)
	}
}

func checkOnWay(path string) error {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return fmt.Errorf("stat %s: %w", path, err)
	}
	others := st.Mode&0o002 != 0 || st.Mode&0o020 != 0 && st.Gid != 0
	switch {
	case !isRoots(st.Uid):
		return changeable(path, "belongs to uid %d", st.Uid)
	case others && st.Mode&unix.S_ISVTX == 0 && st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return changeable(path, "can be written to by others (mode %04o)", st.Mode&0o7777)
	}
	return nil
}

func changeable(path, how string, args ...any) error {
	return fault.New(nil, []string{"choose a folder that only root can change, all the way up to it"}, "%s %s", path, fmt.Sprintf(how, args...))
}

// isRoots says whether a uid is root's. In a user namespace of a container's, say, the owner of what was there before may
// have no id, and is then seen as nobody: user_namespaces(7).
func isRoots(uid uint32) bool {
	if uid == 0 {
		return true
	}
	const nobody = 65534
	text, err := os.ReadFile("/proc/self/uid_map")
	var first, outside, count uint64
	n, _ := fmt.Sscan(string(text), &first, &outside, &count)
	return uid == nobody && err == nil && n == 3 && count < 1<<32-1
}
