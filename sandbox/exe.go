package sandbox

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/nsenter"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/ids"
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
func (e exeFile) reachable(uids []ids.Map) bool {
	_, owner := ids.Translate(uids, e.UID, false)
	return owner || e.Open
}

// sealedCopy makes a copy of podsh that cannot be changed.
func sealedCopy() (*os.File, error) {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	defer self.Close()
	return inMemory(nsenter.Sealed("podsh", self))
}

// inMemory says of a program that could not be made in memory why.
func inMemory(program *os.File, err error) (*os.File, error) {
	if errno, ok := unwrapped(err).(syscall.Errno); ok {
		err = fault.WithHints(err, hintsFor("memfd_create", errno))
	}
	return program, err
}
