package sandbox

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// How the holder's own program is kept out of the pod's reach. A process in the pod that keeps
// /proc/1/exe open could otherwise write to podsh's file once no process runs it any more, if one of the
// pod's ids may write it (CVE-2019-5736 was of this kind).
type exeKind int

const (
	exePlain exeKind = iota // no id in the pod can write the file: run it as it is
	exeMount                // run it from a read-only mount of its own, that nobody else sees
	exeMemfd                // run a sealed copy in memory
)

// exeFile says where podsh's own file is and who can write it.
type exeFile struct {
	Path string // in this mount namespace; "" if there is no such path any more
	UID  uint32
	Open bool // more than its owner may write it, or an ACL may say so
}

func readExe() (exeFile, error) {
	var running, named unix.Stat_t
	if err := unix.Stat("/proc/self/exe", &running); err != nil {
		return exeFile{}, fmt.Errorf("/proc/self/exe: %w", err)
	}
	exe := exeFile{UID: running.Uid, Open: running.Mode&0o022 != 0}
	path, err := os.Readlink("/proc/self/exe")
	if err == nil && unix.Stat(path, &named) == nil && named.Dev == running.Dev && named.Ino == running.Ino {
		exe.Path = path
	}
	return exe, nil
}

// reachable says whether someone with these ids of the host may write the file, or make it writable.
func (e exeFile) reachable(uids []IDMap) bool {
	_, owner := mapID(uids, e.UID, false)
	return owner || e.Open
}

// sealedCopy makes a copy of podsh that cannot be changed, memfd_create(2).
func sealedCopy() (*os.File, error) {
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	fd, err := unix.MemfdCreate("podsh", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if err == unix.EINVAL { // MFD_EXEC came with Linux 6.3
		fd, err = unix.MemfdCreate("podsh", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	file := os.NewFile(uintptr(fd), "podsh")
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		file.Close()
		return nil, err
	}
	defer self.Close()
	if _, err := file.ReadFrom(self); err != nil {
		file.Close()
		return nil, fmt.Errorf("copy podsh: %w", err)
	}
	if _, err := unix.FcntlInt(file.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		file.Close()
		return nil, fmt.Errorf("seal the copy of podsh: %w", err)
	}
	return file, nil
}
