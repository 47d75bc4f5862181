package helper

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The helper reads what hostile pods send. Whoever takes it over through that has no capabilities, no pod's
// namespaces, and none of the system calls below: it can start no program, change no file, and look into no
// other process.

// forbidden are refused with EPERM, seccomp(2).
var forbidden = []uint32{
	unix.SYS_EXECVE, unix.SYS_EXECVEAT,
	unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PIDFD_GETFD, unix.SYS_KCMP,
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT, unix.SYS_SETNS, unix.SYS_UNSHARE,
	unix.SYS_OPEN_TREE, unix.SYS_MOVE_MOUNT, unix.SYS_FSOPEN, unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_MOUNT_SETATTR,
	unix.SYS_OPENAT2, unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_NAME_TO_HANDLE_AT,
	unix.SYS_UNLINKAT, unix.SYS_RENAMEAT2, unix.SYS_LINKAT, unix.SYS_SYMLINKAT, unix.SYS_MKDIRAT, unix.SYS_MKNODAT,
	unix.SYS_FCHMODAT, unix.SYS_FCHOWNAT, unix.SYS_FCHMOD, unix.SYS_FCHOWN, unix.SYS_TRUNCATE, unix.SYS_SETXATTR, unix.SYS_LSETXATTR,
	unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN,
	unix.SYS_USERFAULTFD, unix.SYS_IO_URING_SETUP, unix.SYS_PERSONALITY, unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE,
	unix.SYS_KEXEC_LOAD, unix.SYS_REBOOT, unix.SYS_SWAPON, unix.SYS_ACCT, unix.SYS_QUOTACTL, unix.SYS_UTIMENSAT,
	unix.SYS_SOCKETPAIR, fchmodat2, setxattrat, removexattrat, fileSetattr,
}

// The same number on both machines; package unix has not got them all.
const (
	fchmodat2     = 452
	setxattrat    = 463
	removexattrat = 466
	fileSetattr   = 469
)

// families are the sockets that may be made: none leads to another process of this host's.
var families = []uint32{unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK}

// x32 marks calls of another ABI on amd64, which have numbers of their own.
const x32 = 0x40000000

// confine filters the calls of all threads from here on. Files can be opened for reading alone.
func confine() error {
	filter := assemble(append(legacy, forbidden...))
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	const wholeProcess = unix.SECCOMP_FILTER_FLAG_TSYNC
	thread, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, wholeProcess, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return fmt.Errorf("seccomp: %w", errno)
	}
	if thread != 0 {
		return fmt.Errorf("seccomp: thread %d has a filter of its own", thread)
	}
	return nil
}

// Offsets in a struct seccomp_data, seccomp(2). The family of a socket(2) is its first argument and the flags of
// openat(2) are its third: of both the lower half, which comes first on the machines that podsh is for.
const (
	atNumber = 0
	atArch   = 4
	atFamily = 16
	atFlags  = 16 + 2*8
)

// assemble writes the filter, a program for the machine of bpf(4)'s classic kind.
func assemble(calls []uint32) []unix.SockFilter {
	const load, equal, greater, anySet, done = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K,
		unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	arch := map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}[runtime.GOARCH]
	const writes = unix.O_WRONLY | unix.O_RDWR | unix.O_CREAT | unix.O_TRUNC
	refuse := uint32(unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM))
	filter := []unix.SockFilter{
		{Code: load, K: atArch}, {Code: equal, Jt: 1, K: arch}, {Code: done, K: refuse},
		{Code: load, K: atNumber}, {Code: greater, Jf: 1, K: x32}, {Code: done, K: refuse},
	}
	for _, call := range calls {
		filter = append(filter, unix.SockFilter{Code: equal, Jf: 1, K: call}, unix.SockFilter{Code: done, K: refuse})
	}
	filter = append(filter, unix.SockFilter{Code: equal, Jf: uint8(len(families) + 2), K: unix.SYS_SOCKET}, unix.SockFilter{Code: load, K: atFamily})
	for i, family := range families {
		filter = append(filter, unix.SockFilter{Code: equal, Jt: uint8(len(families) - i), K: family})
	}
	filter = append(filter, unix.SockFilter{Code: done, K: refuse}, unix.SockFilter{Code: load, K: atNumber})
	return append(filter,
		unix.SockFilter{Code: equal, Jf: 3, K: unix.SYS_OPENAT},
		unix.SockFilter{Code: load, K: atFlags}, unix.SockFilter{Code: anySet, Jf: 1, K: writes}, unix.SockFilter{Code: done, K: refuse},
		unix.SockFilter{Code: done, K: unix.SECCOMP_RET_ALLOW})
}
