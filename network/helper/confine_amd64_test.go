package helper

import "golang.org/x/sys/unix"

// legacyHoles are calls that amd64 has besides, and those of x32 and of ia32's numbers.
func legacyHoles(call func(nr uintptr, args ...uintptr) func() error, name uintptr) map[string]func() error {
	const x32 = 0x40000000
	return map[string]func() error{
		"open(2)":           call(unix.SYS_OPEN, name, unix.O_WRONLY, 0),
		"open(2), to read":  call(unix.SYS_OPEN, name, 0, 0),
		"creat(2)":          call(unix.SYS_CREAT, name, 0o600),
		"chmod(2)":          call(unix.SYS_CHMOD, name, 0o666),
		"unlink(2)":         call(unix.SYS_UNLINK, name),
		"fork(2)":           call(unix.SYS_FORK),
		"modify_ldt(2)":     call(unix.SYS_MODIFY_LDT, 0, 0, 0),
		"ioperm(2)":         call(unix.SYS_IOPERM, 0, 1, 0),
		"x32's open":        call(x32+unix.SYS_OPEN, name, 0, 0),
		"x32's getpid":      call(x32 + unix.SYS_GETPID),
		"x32's own execve":  call(x32+520, name, 0, 0),
		"a call of no kind": call(5000),
	}
}
