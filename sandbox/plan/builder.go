package plan

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/nsenter"
	"github.com/podsh/podsh/sandbox/fault"
	"github.com/podsh/podsh/sandbox/step"
)

// Builder collects the steps of a plan, and knows those that more than one plan has.
type Builder struct{ step.Builder }

// enterFolder goes to a folder of the pod's, as it is seen from the root that this process has; it need not be there where
// ENOENT is tolerated. No link that proc(5) makes is followed on the way: it could lead to whatever this process has open.
func (b *Builder) enterFolder(dir string, tolerate unix.Errno) {
	b.Explain("go to the folder where it starts", "openat2(2)", "cd "+step.Quote(dir))
	b.Role(step.Folder)
	fd := b.CallTolerating(tolerate, unix.SYS_OPENAT2, unix.AT_FDCWD, dir, openHow(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, unix.RESOLVE_NO_MAGICLINKS), openHowSize)
	var notOpen unix.Errno
	if tolerate != 0 {
		notOpen = unix.EBADF
	}
	b.CallTolerating(notOpen, unix.SYS_FCHDIR, fd)
	b.Call(nsenter.Getcwd)
	b.CallTolerating(notOpen, unix.SYS_CLOSE, fd)
}

// FolderFailed says why the folder where a command starts can't be that.
func FolderFailed(dir string, errno unix.Errno, hint string) error {
	switch errno {
	case unix.ELOOP:
		return fault.New(nil, []string{hint}, "folder %q: it leads through a link of /proc, or through links without end, which is not followed", dir)
	case unix.EXDEV:
		return fault.New(nil, []string{hint}, "folder %q: it leads out of the root file system", dir)
	}
	return fault.New(nil, []string{hint}, "folder %q: %v", dir, errno)
}

// CloseOnExec leaves nothing open for the program that comes but 0, 1 and 2: what the executor was given, up to last, goes
// with the exec, so that a failure of it can still be told, and all behind that at once. CLOSE_RANGE_CLOEXEC, which would
// do it in one call, came with Linux 5.11.
func (b *Builder) CloseOnExec(last int, keep ...int) {
	b.Call(unix.SYS_CLOSE_RANGE, last+1, AllFDs, 0)
	for fd := nsenter.PlanFD; fd <= last; fd++ {
		if slices.Contains(keep, fd) {
			continue
		}
		b.CallTolerating(unix.EBADF, unix.SYS_FCNTL, fd, unix.F_SETFD, unix.FD_CLOEXEC)
	}
}
