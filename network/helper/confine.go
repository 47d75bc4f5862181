package helper

import (
	"fmt"
	"os"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/podsh/podsh/seccomp"
)

// The helper reads what hostile pods send. Whoever takes it over through that has no capabilities, no pod's
// namespaces, and no system calls but those below: it can start no program, write no file, make no namespace, load
// no code, and reach no other process but through the descriptors that it was given for that.

// confine filters the calls of all threads from here on, seccomp(2); more are rules that this helper needs besides.
func confine(more ...seccomp.Rule) error {
	filter := seccomp.Assemble(slices.Concat(seccomp.Calls(calls...), seccomp.Calls(ofThisMachine...), checked(os.Getpid()), more))
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

// calls are let through whatever their arguments. They were gathered from the sources of Go's runtime and of the
// C library that starts its threads, and by strace(1) of all that a helper does.
var calls = []uint32{
	// Memory, threads, time, and signals; a crash has to be possible as well.
	unix.SYS_MUNMAP, unix.SYS_MREMAP, unix.SYS_MADVISE, unix.SYS_MINCORE, unix.SYS_BRK,
	unix.SYS_FUTEX, unix.SYS_SET_ROBUST_LIST, unix.SYS_RSEQ, unix.SYS_GETPID, unix.SYS_GETTID, unix.SYS_GETEUID,
	unix.SYS_SCHED_YIELD, unix.SYS_SCHED_GETAFFINITY, unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_CLOCK_GETTIME,
	unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_SIGALTSTACK, unix.SYS_RESTART_SYSCALL,
	unix.SYS_GETRANDOM, unix.SYS_UNAME, unix.SYS_EXIT, unix.SYS_EXIT_GROUP,

	// What is open already: descriptors, among them files of pods' that are given to be written, and waiting for them.
	unix.SYS_READ, unix.SYS_WRITE, unix.SYS_READV, unix.SYS_WRITEV, unix.SYS_PREAD64, unix.SYS_PWRITE64, unix.SYS_FTRUNCATE,
	unix.SYS_CLOSE, unix.SYS_FSTAT, unix.SYS_PIPE2, unix.SYS_SPLICE,
	unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL, unix.SYS_EPOLL_PWAIT, unix.SYS_EPOLL_PWAIT2, unix.SYS_EVENTFD2, unix.SYS_PPOLL,

	// Sockets. None listens that was not given so.
	unix.SYS_BIND, unix.SYS_CONNECT, unix.SYS_ACCEPT4, unix.SYS_SHUTDOWN, unix.SYS_GETSOCKNAME, unix.SYS_GETPEERNAME,
	unix.SYS_SENDTO, unix.SYS_RECVFROM, unix.SYS_SENDMSG, unix.SYS_RECVMSG,
}

const (
	// thread are the flags of clone(2) that make a thread: with them none makes a namespace or a process.
	thread = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD
	// ofThread are those that one may have besides. Go's own threads, musl's and glibc's differ in them.
	ofThread = unix.CLONE_SYSVSEM | unix.CLONE_SETTLS | unix.CLONE_PARENT_SETTID | unix.CLONE_CHILD_SETTID |
		unix.CLONE_CHILD_CLEARTID | unix.CLONE_DETACHED

	readOnly  = unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_DIRECTORY | unix.O_NOFOLLOW // beside O_RDONLY, which is 0
	ofSockets = unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK
)

// checked are the calls that could do more than they are needed for, with the arguments that they are needed with.
func checked(pid int) []seccomp.Rule {
	is, but, only := seccomp.Is, seccomp.But, seccomp.Only
	rule := func(call uint32, where ...seccomp.Check) seccomp.Rule { return seccomp.Rule{Call: call, Where: where} }
	return slices.Concat([]seccomp.Rule{
		rule(unix.SYS_CLONE, but(0, ofThread, thread)),
		{Call: unix.SYS_CLONE3, Answer: unix.ENOSYS}, // its flags lie in memory; glibc then takes clone(2)
		rule(unix.SYS_MMAP, only(2, unix.PROT_READ|unix.PROT_WRITE)),
		rule(unix.SYS_MPROTECT, only(2, unix.PROT_READ|unix.PROT_WRITE)),
		rule(unix.SYS_TGKILL, is(0, uint32(pid))), // Go's preemption, and aborts
		rule(unix.SYS_PRCTL, is(0, unix.PR_SET_VMA)),

		rule(unix.SYS_OPENAT, only(2, readOnly)),
		rule(fstatat),
		rule(unix.SYS_FCNTL, is(1, unix.F_GETFD, unix.F_SETFD, unix.F_GETFL, unix.F_DUPFD_CLOEXEC, unix.F_SETPIPE_SZ)),
		rule(unix.SYS_FCNTL, is(1, unix.F_SETFL), but(2, ^uint32(unix.O_ASYNC), 0)), // which would send signals
		rule(unix.SYS_IOCTL, is(1, unix.SIOCINQ, unix.SIOCOUTQ, unix.SIOCATMARK)),

		rule(unix.SYS_SOCKET, is(0, unix.AF_INET, unix.AF_INET6), but(1, ofSockets, unix.SOCK_STREAM), is(2, 0, unix.IPPROTO_TCP)),
		rule(unix.SYS_SOCKET, is(0, unix.AF_INET, unix.AF_INET6), but(1, ofSockets, unix.SOCK_DGRAM),
			is(2, 0, unix.IPPROTO_UDP, unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6)),
		// The host's addresses and routes, to be read: they are the kernel's, and to change them takes a capability.
		rule(unix.SYS_SOCKET, is(0, unix.AF_NETLINK), but(1, ofSockets, unix.SOCK_RAW), is(2, unix.NETLINK_ROUTE)),
	}, options(unix.SYS_SETSOCKOPT, set), options(unix.SYS_GETSOCKOPT, get))
}

// set and get are the options of sockets that the helper has to do with, by their levels.
var (
	set = map[uint32][]uint32{
		unix.SOL_SOCKET: {unix.SO_REUSEADDR, unix.SO_BROADCAST, unix.SO_KEEPALIVE, unix.SO_LINGER, unix.SO_OOBINLINE, unix.SO_BINDTOIFINDEX},
		unix.IPPROTO_TCP: {unix.TCP_NODELAY, unix.TCP_KEEPIDLE, unix.TCP_KEEPINTVL, unix.TCP_KEEPCNT, unix.TCP_USER_TIMEOUT,
			unix.TCP_LINGER2},
		unix.IPPROTO_IP:   {unix.IP_PKTINFO, unix.IP_BIND_ADDRESS_NO_PORT, unix.IP_RECVERR},
		unix.IPPROTO_IPV6: {unix.IPV6_V6ONLY, unix.IPV6_RECVPKTINFO, unix.IPV6_RECVERR},
	}
	get = map[uint32][]uint32{
		unix.SOL_SOCKET:  {unix.SO_TYPE, unix.SO_DOMAIN, unix.SO_PROTOCOL, unix.SO_ERROR, unix.SO_PEERCRED, unix.SO_BINDTOIFINDEX},
		unix.IPPROTO_TCP: {unix.TCP_INFO},
	}
)

func options(call uint32, byLevel map[uint32][]uint32) (rules []seccomp.Rule) {
	for level, known := range byLevel {
		rules = append(rules, seccomp.Rule{Call: call, Where: []seccomp.Check{seccomp.Is(1, level), seccomp.Is(2, known...)}})
	}
	return rules
}
