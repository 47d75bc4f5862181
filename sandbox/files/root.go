// Package files writes files whole or not at all, locks folders, and opens what lies below a root that nobody trusts.
// It does not know what the files are for, and imports nothing of podsh's.
package files

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Exists says whether something has that path, if only a link that leads nowhere.
func Exists(path string) bool {
	var st unix.Stat_t
	return unix.Lstat(path, &st) == nil
}

// OpenIn opens a path as a process with that root would: no link leads out, openat2(2).
func OpenIn(root int, path string, flags uint64) (int, error) {
	return unix.Openat2(root, path, &unix.OpenHow{
		Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
}

// maxFile bounds what is read of a file in a pod: nothing in there is trusted.
const maxFile = 1 << 20

// ReadIn reads a regular file below root as a process in the pod would find it; nothing if there is none.
func ReadIn(root int, name string) string {
	path, err := OpenIn(root, name, unix.O_PATH) // which wakes no device and waits for no pipe
	if err != nil {
		return ""
	}
	defer unix.Close(path)
	var st unix.Stat_t
	if unix.Fstat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > maxFile {
		return ""
	}
	// Who has a lease on it is not waited for, fcntl(2): F_SETLEASE.
	file, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", path), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return ""
	}
	defer file.Close()
	text := make([]byte, st.Size)
	n, _ := file.ReadAt(text, 0) // what could be read counts: it shrinks while others write
	return string(text[:n])
}
