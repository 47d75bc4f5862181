package perform

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/nsenter"
	"github.com/podsh/podsh/sandbox/doctor"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/plan"
)

// ReadExe reads whose the file is that this process runs from, and where it lies, if it still does.
func ReadExe() (plan.ExeFile, error) {
	var running, named unix.Stat_t
	if err := unix.Stat("/proc/self/exe", &running); err != nil {
		return plan.ExeFile{}, fmt.Errorf("/proc/self/exe: %w", err)
	}
	exe := plan.ExeFile{UID: running.Uid, Open: running.Mode&0o022 != 0}
	path, err := os.Readlink("/proc/self/exe")
	if err == nil && unix.Stat(path, &named) == nil && named.Dev == running.Dev && named.Ino == running.Ino {
		exe.Path = path
	}
	return exe, nil
}

// SealedCopy makes a copy of podsh that cannot be changed.
func SealedCopy() (*os.File, error) {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	defer self.Close()
	return InMemory(nsenter.Sealed("podsh", self))
}

// InMemory says of a program that could not be made in memory why.
func InMemory(program *os.File, err error) (*os.File, error) {
	if errno, ok := doctor.Unwrapped(err).(syscall.Errno); ok {
		err = fault.WithHints(err, doctor.HintsFor("memfd_create", errno))
	}
	return program, err
}
