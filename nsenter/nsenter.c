// SPDX-License-Identifier: Apache-2.0
//
// The side of podsh that enters namespaces. A Go program has many threads before its first line runs, and
// the kernel lets no process with threads enter a user namespace (setns(2)); so this runs as a constructor,
// before the Go runtime starts, and most often instead of it.
//
// It knows six roles, told apart by the exact shape of the arguments (argv[0] with an @ is written by podsh
// alone, and carries no authority: what it asks for, its caller could do):
//
//	podsh@hold                perform plans that arrive on PLAN_FD, until one ends in PAUSE
//	podsh@join join ARG...    perform the plan on JOIN_FD in a child, and be its joiner
//	podsh join NAME -- CMD    the same with the plan that `podsh create` saved; Go never starts
//	podsh@copy, podsh@unpack  perform one plan that arrives on PLAN_FD, and go on to Go
//	podsh pause               the pause program by itself
//	podsh create|run ARG...   fork an executor (podsh@hold) for Go to use, and go on to Go
//
// Everything else, and any doubt before the first side effect, is left to Go: the constructor returns.
//
// A plan is a list of system calls, made by Go (nsenter.go encodes it, package sandbox writes it). There is
// no policy here, so this file does not grow with what podsh can do. It allocates nothing and calls only
// functions that are async-signal-safe.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "nsenter.h"

#define ALL_SIGNALS (~(uint64_t)0)
#define SIGSET_BYTES 8 // the kernel's sigset_t, not the C library's: rt_sigprocmask(2)
#define BENEATH 0x08   // RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS: openat2(2), whose header musl-gcc does not see
#define NO_SYMLINKS 0x04
#define SLOW_TOUCH 8000   // nanoseconds
#define GO_RESERVES (750UL << 20) // bytes, of which a heap that grows takes the last 64 MiB; measured with Go 1.26
#define MOST_POPULATED (1 << 20)
#define POPULATE_WRITE 23 // MADV_POPULATE_WRITE: madvise(2), from Linux 5.14

// What the calls of a plan returned, by their place in the whole list: a pod can be made by several plans,
// and a later one refers to the descriptors that an earlier one opened.
static int64_t podsh_results[PODSH_MAX_CALLS];

struct podsh_run {
	struct podsh_plan *plan;
	int report;  // socket on which failures and the pids of clones are told
	char **argv; // the command to run, where the plan leaves that open
	char *name;  // what `ps` shows of the holder, and how many bytes of arguments there are
	size_t name_size;
	int untold; // of the clones to come, how many nobody asks for
	int nulls;  // bit i: stream i is the caller's /dev/null

	// A joiner blocks all signals; the command gets back what its caller had.
	const uint64_t *mask;
	const struct sigaction *on_child;
};

static void podsh_report(int fd, int32_t what, int32_t value)
{
	struct podsh_record record = {what, value};

	(void)!send(fd, &record, sizeof(record), MSG_NOSIGNAL);
}

// read that survives signals and short reads; 0 means that all of it came
static int podsh_read_all(int fd, void *to, size_t size)
{
	for (size_t done = 0; done < size;) {
		ssize_t n = read(fd, (char *)to + done, size - done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -1;
		done += (size_t)n;
	}
	return 0;
}

// The plan's offsets become addresses. A plan that points outside of its data, or has addresses where it says where
// they are, is refused whole: it may come from a file.
static int podsh_relocate(struct podsh_plan *plan, size_t size)
{
	uint64_t fixed = sizeof(*plan) + (uint64_t)plan->calls * sizeof(struct podsh_call);
	uint64_t data = fixed + (uint64_t)plan->relocs * sizeof(uint32_t);
	char *base = (char *)plan;

	if (plan->magic != PODSH_MAGIC || plan->size != size || (uint64_t)plan->first + plan->calls > PODSH_MAX_CALLS ||
	    data > size || base[size - 1] != 0)
		return -1;
	for (uint32_t i = 0; i < plan->relocs; i++) {
		uint32_t at;
		uint64_t target;

		memcpy(&at, base + fixed + i * sizeof(at), sizeof(at));
		if (at % 8 || at < sizeof(*plan) || at > size - 8 || (at + sizeof(target) > fixed && at < data))
			return -1;
		memcpy(&target, base + at, sizeof(target));
		if (target < data || target >= size)
			return -1;
		target += (uint64_t)(uintptr_t)base;
		memcpy(base + at, &target, sizeof(target));
	}
	return 0;
}

// The same check, for tests: it is what stands between a spoilt file and this process.
int podsh_is_plan(void *plan, size_t size)
{
	return size > sizeof(struct podsh_plan) && !podsh_relocate(plan, size);
}

// Receive a whole plan; NULL for anything less, and at the end of the stream.
static struct podsh_plan *podsh_receive(int fd)
{
	struct podsh_plan head;
	void *plan;

	if (podsh_read_all(fd, &head, sizeof(head)) || head.size <= sizeof(head) || head.size > PODSH_MAX_BYTES)
		return NULL;
	plan = mmap(NULL, head.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (plan == MAP_FAILED)
		return NULL;
	memcpy(plan, &head, sizeof(head));
	if (podsh_read_all(fd, (char *)plan + sizeof(head), head.size - sizeof(head)) || podsh_relocate(plan, head.size)) {
		munmap(plan, head.size);
		return NULL;
	}
	return plan;
}

// clone(2) with the caller's parent as parent; the caller tells the new pid, as seen from its own pid
// namespace, and goes.
static int podsh_clone(struct podsh_run *run, uint64_t flags)
{
	int untold = run->untold-- > 0, pid = (int)syscall(SYS_clone, flags | CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);

	if (pid > 0) {
		if (!untold)
			podsh_report(run->report, PODSH_CLONED, pid);
		_exit(0);
	}
	if (pid == 0 && run->mask) {
		sigaction(SIGCHLD, run->on_child, NULL);
		syscall(SYS_rt_sigprocmask, SIG_SETMASK, run->mask, NULL, SIGSET_BYTES);
	}
	return pid;
}

// execve(2), with a search through dirs as execvp(3) does it, but through the pod's PATH and not the caller's.
static int podsh_exec(char **argv, char **envp, char **dirs)
{
	int denied = 0;

	if (!dirs || strchr(argv[0], '/'))
		return execve(argv[0], argv, envp);
	for (; *dirs; dirs++) {
		char path[PATH_MAX];
		size_t dir = strlen(*dirs), name = strlen(argv[0]);

		if (!name || dir + name + 2 > sizeof(path))
			continue;
		memcpy(path, *dirs, dir);
		path[dir] = '/';
		memcpy(path + dir + 1, argv[0], name + 1);
		execve(path, argv, envp);
		if (errno == EACCES)
			denied = 1;
		else if (errno != ENOENT && errno != ENOTDIR)
			return -1;
	}
	errno = denied ? EACCES : ENOENT;
	return -1;
}

static void podsh_nothing(int sig)
{
	(void)sig;
}

static void podsh_say(const char *text)
{
	(void)!write(STDERR_FILENO, text, strlen(text));
}

// What Kubernetes' pause does: end on SIGINT and SIGTERM, reap, sleep. PID 1 gets only the signals that it
// has a handler for (pid_namespaces(7)), so there are handlers, though the signals stay blocked and are
// taken one by one: none is lost between two looks.
static __attribute__((noreturn)) void podsh_pause(void)
{
	struct sigaction end = {.sa_handler = podsh_nothing};
	struct sigaction child = {.sa_handler = podsh_nothing, .sa_flags = SA_NOCLDSTOP};
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	if (sigaction(SIGINT, &end, NULL))
		_exit(1);
	if (sigaction(SIGTERM, &end, NULL))
		_exit(2);
	if (sigaction(SIGCHLD, &child, NULL))
		_exit(3);
	for (;;) {
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		switch (sigwaitinfo(&set, NULL)) {
		case SIGINT:
			podsh_say("Shutting down, got signal: Interrupt\n");
			_exit(0);
		case SIGTERM:
			podsh_say("Shutting down, got signal: Terminated\n");
			_exit(0);
		}
	}
}

// What `ps` shows of this process from now on; of its arguments nothing is left.
static void podsh_rename(struct podsh_run *run, const char *name)
{
	memset(run->name, 0, run->name_size);
	strncpy(run->name, name, run->name_size - 1);
	prctl(PR_SET_NAME, name);
}

// The command's status, as a shell would give it.
static int podsh_status(int status)
{
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

// The init of a pid namespace with one command in it: it reaps, passes every signal on, and ends with the
// command. A signal that is blocked is not ignored, not even for a PID 1 that has no handler for it.
static int podsh_init(struct podsh_run *run)
{
	sigset_t all;
	siginfo_t info;
	int command = fork(), pid, status;

	if (command <= 0)
		return command;
	syscall(SYS_close_range, STDERR_FILENO + 1, ~0U, 0);
	munmap(run->plan, run->plan->size);
	podsh_rename(run, "init");
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	for (;;) {
		while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
			if (pid == command)
				_exit(podsh_status(status));
		if (sigwaitinfo(&all, &info) > 0 && info.si_signo != SIGCHLD)
			kill(command, info.si_signo);
	}
}

// Is the working directory below the root? The kernel puts "(unreachable)" before the path of one that is not: getcwd(2).
static int podsh_getcwd(void)
{
	char path[PATH_MAX];

	path[0] = 0;
	if (syscall(SYS_getcwd, path, sizeof(path)) > 0 && path[0] == '/')
		return 0;
	errno = EXDEV;
	return -1;
}

// Write a number; returns where it ends.
static char *podsh_digits(char *to, uint32_t n)
{
	char digits[PODSH_PID_BYTES], *from = digits;

	do
		*from++ = (char)('0' + n % 10);
	while (n /= 10);
	while (from > digits)
		*to++ = *--from;
	*to = 0;
	return to;
}

// This process's id, as its own pid namespace counts: before it was cloned nobody knew that, and a command has it as a variable.
static int podsh_getpid(char *to, uint64_t size)
{
	if (size < PODSH_PID_BYTES) {
		errno = EINVAL;
		return -1;
	}
	podsh_digits(to, (uint32_t)getpid());
	return 0;
}

// Root in a pod could change the mode of the host's /dev/null, by /proc/self/fd: null(4) is the pod's own instead.
static int podsh_nulls(const struct podsh_run *run)
{
	struct {
		uint64_t flags, mode, resolve;
	} how = {.flags = O_RDWR | O_CLOEXEC, .resolve = NO_SYMLINKS};
	int fd, failed = 0;

	if (!run->nulls)
		return 0;
	fd = (int)syscall(SYS_openat2, AT_FDCWD, "/dev/null", &how, sizeof(how));
	if (fd < 0)
		return -1;
	for (int i = 0; i <= 2; i++)
		if (run->nulls >> i & 1)
			failed |= dup2(fd, i) < 0;
	close(fd);
	return -failed;
}

static int64_t podsh_call(struct podsh_run *run, struct podsh_call *call)
{
	uint64_t a[6];

	for (int i = 0; i < 6; i++) {
		a[i] = call->arg[i];
		if (call->from_result >> i & 1)
			a[i] = (uint64_t)podsh_results[a[i] % PODSH_MAX_CALLS];
	}
	switch (call->nr) {
	case PODSH_CLONE:
		return podsh_clone(run, a[0]);
	case PODSH_EXEC:
		return podsh_exec(a[0] ? (char **)a[0] : run->argv, (char **)a[1], (char **)a[2]);
	case PODSH_PAUSE:
		close(run->report);
		munmap(run->plan, run->plan->size);
		podsh_rename(run, "pause");
		podsh_pause();
	case PODSH_INIT:
		return podsh_init(run);
	case PODSH_GETCWD:
		return podsh_getcwd();
	case PODSH_GETPID:
		return podsh_getpid((char *)a[0], a[1]);
	case PODSH_NULLS:
		return podsh_nulls(run);
	case PODSH_REPORT:
		run->report = (int)a[0];
		return 0;
	}
	return syscall(call->nr, a[0], a[1], a[2], a[3], a[4], a[5]);
}

// The loop over calls. The first one that fails, but for the errno that it may fail with, is told by its
// place in the whole list and ends the process.
static void podsh_perform(struct podsh_run *run)
{
	struct podsh_plan *plan = run->plan;
	struct podsh_call *calls = (struct podsh_call *)(plan + 1);

	for (uint32_t i = 0; i < plan->calls; i++) {
		int64_t result = podsh_call(run, &calls[i]);
		if (result == -1 && errno != calls[i].tolerate) {
			podsh_report(run->report, (int32_t)(plan->first + i), errno);
			_exit(125);
		}
		podsh_results[plan->first + i] = result;
	}
}

// podsh@hold: one plan after the other. The end of the stream before a PAUSE means that podsh create is gone, and
// so is this pod.
static void podsh_hold(char **argv)
{
	struct podsh_run run = {.report = PODSH_PLAN_FD, .name = argv[0]};
	sigset_t end;

	// From before PID 1 can be seen until it takes them: without a handler they would be lost.
	sigemptyset(&end);
	sigaddset(&end, SIGINT);
	sigaddset(&end, SIGTERM);
	sigaddset(&end, SIGCHLD);
	sigprocmask(SIG_BLOCK, &end, NULL);
	prctl(PR_SET_NAME, "pause"); // now: whoever joins may look before the last plan is read
	for (; *argv; argv++)
		run.name_size = (size_t)(*argv - run.name) + strlen(*argv) + 1; // they lie behind each other: execve(2)

	while ((run.plan = podsh_receive(PODSH_PLAN_FD))) {
		podsh_perform(&run);
		podsh_report(run.report, PODSH_DONE, (int32_t)(run.plan->first + run.plan->calls));
		munmap(run.plan, run.plan->size);
	}
	_exit(125);
}

// podsh@copy and podsh@unpack: a plan for the one thread that there is, before Go has others, and after the program was
// loaded, which in the root that it is led to could not be.
static void podsh_prepare(void)
{
	struct podsh_run run = {.plan = podsh_receive(PODSH_PLAN_FD), .report = PODSH_PLAN_FD};

	if (!run.plan)
		_exit(125);
	podsh_perform(&run);
	munmap(run.plan, run.plan->size);
}

// Read a small file of /proc as text.
static int podsh_read_proc(const char *dir, const char *name, char *to, size_t size)
{
	char path[64];
	ssize_t n;
	int fd;

	strcpy(path, dir);
	strcat(path, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = read(fd, to, size - 1);
	close(fd);
	to[n < 0 ? 0 : n] = 0;
	return n <= 0;
}

// Whether a process has a use of its own for a signal, or none at all: proc_pid_status(5). Who waits
// for it has it blocked.
static int podsh_takes(int pid, int sig)
{
	static const char *const sets[] = {"\nSigBlk:\t", "\nSigIgn:\t", "\nSigCgt:\t"};
	char path[32] = "/proc/", text[4096];
	uint64_t takes = 0;

	strcpy(podsh_digits(path + strlen(path), (uint32_t)pid), "/");
	if (podsh_read_proc(path, "status", text, sizeof(text)))
		return 0;
	for (int i = 0; i < 3; i++) {
		const char *digit = strstr(text, sets[i]);
		uint64_t set = 0;

		for (digit = digit ? digit + strlen(sets[i]) : ""; *digit > ' '; digit++)
			set = set << 4 | (uint64_t)(*digit <= '9' ? *digit - '0' : *digit - 'a' + 10);
		takes |= set;
	}
	return takes >> (sig - 1) & 1;
}

// Pass one signal on. What the terminal sent (SI_KERNEL) was meant for everything that runs in the
// foreground: the command is in a session of its own, so its whole group gets it. A stop from the keyboard
// has no effect on a session without a terminal, so it becomes SIGSTOP and stops the joiner as well; one that
// somebody sent is the command's, if that has a use for it: some count their workers by SIGTTIN and SIGTTOU.
static void podsh_forward(int pid, siginfo_t *info)
{
	static int stopped; // the whole group was: it is to go on as a whole
	int sig = info->si_signo;
	int stop = (sig == SIGTSTP || sig == SIGTTIN || sig == SIGTTOU) &&
		   (info->si_code == SI_KERNEL || !podsh_takes(pid, sig));
	int whom = info->si_code == SI_KERNEL || (sig == SIGCONT && stopped) ? -pid : pid;

	if (kill(whom, stop ? SIGSTOP : sig) && whom < 0)
		kill(pid, stop ? SIGSTOP : sig);
	if (stop || sig == SIGCONT)
		stopped = stop && whom < 0;
	if (stop)
		kill(getpid(), SIGSTOP);
}

// Wait for the command, passing signals on. Returns its status; -1 if it never ran.
static int podsh_await(int pid)
{
	uint64_t all = ALL_SIGNALS;
	int status, got;

	for (;;) {
		siginfo_t info;

		while ((got = waitpid(-1, &status, WNOHANG)) > 0)
			if (got == pid)
				return podsh_status(status);
		if (got < 0 && errno == ECHILD)
			return -1;
		if (syscall(SYS_rt_sigtimedwait, &all, &info, NULL, SIGSET_BYTES) > 0 && info.si_signo != SIGCHLD)
			podsh_forward(pid, &info);
	}
}

// Go knows what a call was for, so it speaks of a failure: podsh@failed:CALL:ERRNO, and the arguments as
// they were.
static void podsh_fail(const struct podsh_record *record, char **argv, char **envp)
{
	char name[48] = "podsh@failed:", *to = name + strlen(name);
	int32_t numbers[2] = {record->what, record->value};

	for (int i = 0; i < 2; i++) {
		if (numbers[i] < 0)
			*to++ = '-';
		to = podsh_digits(to, numbers[i] < 0 ? 0 : (uint32_t)numbers[i]);
		*to++ = i ? 0 : ':';
	}
	argv[0] = name;
	execve("/proc/self/exe", argv, envp);
	podsh_say("podsh: error: entering the pod did not work, and /proc is not there to say why\n");
	_exit(125);
}

// Move the environment to memory that no clone gets: what becomes the command could be looked into before it is that, and
// is none of the pod's. It is for Go alone, should this join fail. The new place is returned.
static char **podsh_hide(char **envp)
{
	size_t count = 0, size = 0;
	char **list, *to;

	for (; envp[count]; count++)
		size += strlen(envp[count]) + 1;
	list = mmap(NULL, (count + 1) * sizeof(*list) + size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (list == MAP_FAILED || madvise(list, (count + 1) * sizeof(*list) + size, MADV_DONTFORK)) {
		podsh_say("podsh: error: there is no memory to enter the pod with\n");
		_exit(125);
	}
	to = (char *)(list + count + 1);
	for (size_t i = 0; i < count; i++) {
		size_t n = strlen(envp[i]) + 1;

		list[i] = memcpy(to, envp[i], n);
		explicit_bzero(envp[i], n);
		to += n;
	}
	environ = list;
	return list;
}

// The clones that a plan makes: the last of them becomes the command.
static int podsh_clones(const struct podsh_plan *plan)
{
	const struct podsh_call *calls = (const struct podsh_call *)(plan + 1);
	int clones = 0;

	for (uint32_t i = 0; i < plan->calls; i++)
		clones += calls[i].nr == PODSH_CLONE;
	return clones;
}

// The child's half of a join. It shares the joiner's memory, which waits for it: nothing is copied.
static int podsh_enter(void *arg)
{
	struct podsh_run *run = arg;

	podsh_perform(run);
	_exit(125);
}

// Is a pid that was told one of a child of this process? The clone has the same socket, and in a pod of root's whoever has
// SYS_PTRACE can seize it before it is the command: any other pid would be sent the caller's signals.
static int podsh_is_child(int pid)
{
	return pid > 0 && !waitid(P_PID, (id_t)pid, NULL, WEXITED | WNOHANG | WNOWAIT);
}

// Which of the streams are null(4)? One that is closed with the exec stands for one that was closed.
static int podsh_null_streams(void)
{
	struct stat st;
	int nulls = 0;

	for (int fd = 0; fd <= 2; fd++)
		if (!(fcntl(fd, F_GETFD) & FD_CLOEXEC) && !fstat(fd, &st) && S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3))
			nulls |= 1 << fd;
	return nulls;
}

// Join: a child enters the namespaces, and clones the command as a child of this process, which stays where
// it is, outside. So the joiner is never seen in the pod, and the command ends with it (PR_SET_PDEATHSIG).
static void podsh_join(struct podsh_run *run, char **argv, char **envp)
{
	static char stack[16384] __attribute__((aligned(16)));
	uint64_t all = ALL_SIGNALS, before;
	struct sigaction reap = {.sa_handler = SIG_DFL}, was;
	struct podsh_record record = {PODSH_DONE, 0};
	int ends[2], status = -1;

	prctl(PR_SET_DUMPABLE, 0); // this memory holds the caller's environment
	envp = podsh_hide(envp);
	prctl(PR_SET_NAME, "podsh");
	fcntl(PODSH_POD_FD, F_SETFD, FD_CLOEXEC); // they came through an exec, and are not for the command
	fcntl(PODSH_TTY_FD, F_SETFD, FD_CLOEXEC);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
		_exit(125);
	if (ends[1] != PODSH_REPORT_FD) { // the plan knows the number; the other end must not be there
		int other = ends[0] == PODSH_REPORT_FD ? fcntl(ends[0], F_DUPFD_CLOEXEC, PODSH_LISTEN_FD + PODSH_MAX_SOCKETS) : ends[0];

		if (other < 0 || dup3(ends[1], PODSH_REPORT_FD, O_CLOEXEC) < 0)
			_exit(125);
		close(ends[1]);
		ends[0] = other;
	}
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &before, SIGSET_BYTES);
	sigaction(SIGCHLD, &reap, &was); // a caller that ignores it would leave us without a status
	run->report = PODSH_REPORT_FD;
	run->nulls = podsh_null_streams();
	run->untold = podsh_clones(run->plan) - 1; // a clone may be faster than the word about it, so there is one word
	run->mask = &before;
	run->on_child = &was;
	if (clone(podsh_enter, stack + sizeof(stack), CLONE_VM | CLONE_VFORK | SIGCHLD, run) < 0)
		record.value = errno;
	close(PODSH_REPORT_FD);
	syscall(SYS_close_range, PODSH_LISTEN_FD, PODSH_LISTEN_FD + PODSH_MAX_SOCKETS - 1, 0); // whether they listen is the command's
	while (!podsh_read_all(ends[0], &record, sizeof(record)) &&
	       (record.what == PODSH_READY ||
		(record.what == PODSH_CLONED && !podsh_is_child(record.value))))
		; // the command may be faster than the word about it
	if (record.what == PODSH_CLONED)
		status = podsh_await(record.value);
	while (record.what < 0 && !podsh_read_all(ends[0], &record, sizeof(record)))
		; // READY, and behind it a failure or nothing
	if (record.what < 0 && status >= 0)
		_exit(status);
	sigaction(SIGCHLD, &was, NULL);
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, SIGSET_BYTES);
	podsh_fail(&record, argv, envp);
}

// Can nobody but root change what is on the way to a folder? What is on it otherwise is Go's to look at.
static int podsh_is_roots_way(int fd)
{
	struct stat st, below = {0};
	int dir = fcntl(fd, F_DUPFD_CLOEXEC, 0), up;

	for (;; dir = up, below = st) {
		if (dir < 0 || fstat(dir, &st) || st.st_uid || ((st.st_mode & 022) && !(st.st_mode & S_ISVTX)))
			break;
		if (st.st_dev == below.st_dev && st.st_ino == below.st_ino) {
			close(dir);
			return 1;
		}
		up = openat(dir, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
		close(dir);
	}
	close(dir);
	return 0;
}

// Open the folder that PODSH_ROOT names.
static int podsh_open_named(const char *path)
{
	struct {
		uint64_t flags, mode, resolve;
	} how = {.flags = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, .resolve = geteuid() ? 0 : NO_SYMLINKS};
	int fd = (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof(how));

	if (fd >= 0 && !geteuid() && !podsh_is_roots_way(fd)) {
		close(fd);
		return -1;
	}
	return fd;
}

// Open the folder in which pods are described (sandbox.Root has the rule); -1 for anything unusual.
static int podsh_open_root(void)
{
	const char *root = getenv("PODSH_ROOT"), *runtime = getenv("XDG_RUNTIME_DIR");
	struct stat st;
	int fd;

	if (root && *root) {
		fd = podsh_open_named(root);
	} else if (!geteuid()) {
		fd = open("/run/podsh", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	} else if (runtime && *runtime == '/') {
		int dir = open(runtime, O_PATH | O_DIRECTORY | O_CLOEXEC);
		fd = openat(dir, "podsh", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		close(dir);
	} else {
		return -1;
	}
	if (fd < 0 || fstat(fd, &st) || st.st_uid != geteuid() || (st.st_mode & 077)) {
		close(fd);
		return -1;
	}
	return fd;
}

// Read a whole file below dir that only we can have written, into memory of its own. Returns its size, or -1.
static ssize_t podsh_read_file(int dir, const char *path, char **to)
{
	struct {
		uint64_t flags, mode, resolve;
	} how = {.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK, .resolve = BENEATH | NO_SYMLINKS};
	int fd = (int)syscall(SYS_openat2, dir, path, &how, sizeof(how));
	ssize_t n = -1;
	struct stat st;

	if (fd >= 0 && !fstat(fd, &st) && S_ISREG(st.st_mode) && st.st_uid == geteuid() && !(st.st_mode & 022) &&
	    st.st_size > 0 && st.st_size <= PODSH_MAX_BYTES) {
		// A mapping of just that size: a large one may cost a huge page, half a millisecond to clear.
		*to = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (*to != MAP_FAILED && !podsh_read_all(fd, *to, (size_t)st.st_size))
			n = st.st_size;
	}
	close(fd);
	return n;
}

static int podsh_is_name(const char *name)
{
	size_t n = strlen(name);

	return n > 0 && n <= 63 && name[0] != '.' && name[0] != '-' &&
	       strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") == n;
}

// The plan that `podsh create` left for NAME, a pod's name or its whole id.
static struct podsh_plan *podsh_load(const char *name, struct podsh_saved *head)
{
	char path[112] = "names/", id[16] = "";
	struct stat st;
	char *file;
	int root;
	ssize_t n;

	if (!podsh_is_name(name) || (root = podsh_open_root()) < 0)
		return NULL;
	strcat(path, name);
	n = podsh_read_file(root, path, &file);
	if (n < 0 && (n = (ssize_t)strlen(name)) < (ssize_t)sizeof(id))
		strcpy(id, name);
	else if (n < (ssize_t)sizeof(id))
		memcpy(id, file, (size_t)n);
	strcpy(path, "pods/");
	strcat(path, id);
	strcat(path, "/names/");
	strcat(path, name);
	if (!podsh_is_name(id) || !fstatat(root, path, &st, AT_SYMLINK_NOFOLLOW)) {
		close(root); // a container is called so, too: Go knows which is meant
		return NULL;
	}
	strcpy(path + strlen("pods/") + strlen(id), "/join");
	n = podsh_read_file(root, path, &file);
	close(root);
	if (n <= (ssize_t)(sizeof(*head) + sizeof(struct podsh_plan)))
		return NULL;
	memcpy(head, file, sizeof(*head));
	file += sizeof(*head); // a multiple of 8: the plan is aligned
	n -= (ssize_t)sizeof(*head);
	head->boot_id[sizeof(head->boot_id) - 1] = 0;
	head->proc[sizeof(head->proc) - 1] = 0;
	head->started[sizeof(head->started) - 1] = 0;
	if (head->magic != PODSH_MAGIC || podsh_relocate((struct podsh_plan *)file, (size_t)n))
		return NULL;
	return (struct podsh_plan *)file;
}

// Is the process behind PODSH_POD_FD the holder that the plan was made for? The pidfd was opened first, so
// whatever /proc says of the number now is said of the same process, or of a later one and then differs.
static int podsh_is_holder(const struct podsh_saved *head)
{
	char text[1024], *field;
	struct stat st;

	if (podsh_read_proc("/proc/sys/kernel/random/", "boot_id", text, sizeof(text)) ||
	    strcmp(text, head->boot_id))
		return 0;
	if (head->pidfd_inode)
		return !fstat(PODSH_POD_FD, &st) && st.st_ino == head->pidfd_inode;
	if (podsh_read_proc(head->proc, "stat", text, sizeof(text)) || !(field = strrchr(text, ')')))
		return 0;
	for (int i = 2; i < 22 && field; i++)
		field = strchr(field + 1, ' ');
	return field && !strncmp(field + 1, head->started, strlen(head->started)) &&
	       field[1 + strlen(head->started)] == ' ';
}

// Do all streams lead nowhere but to themselves? A folder, or what O_PATH has opened, would lead out of the pod: Go says so.
static int podsh_streams_are_usual(void)
{
	struct stat st;

	for (int fd = 0; fd <= 2; fd++) {
		if (fcntl(fd, F_GETFD) & FD_CLOEXEC) // it stands for one that was closed
			continue;
		if (fstat(fd, &st) || S_ISDIR(st.st_mode) || (fcntl(fd, F_GETFL) & O_PATH))
			return 0;
	}
	return 1;
}

// podsh join NAME -- CMD, if all is as usual; else it returns, having done nothing.
static void podsh_join_saved(char **argv, char **envp, int from_pod)
{
	struct podsh_saved head;
	struct podsh_run run = {.argv = argv + 4};
	struct termios tty;
	int fd;

	// A terminal all around wants a terminal inside: that is Go's.
	if (!ioctl(0, TCGETS, &tty) && !ioctl(1, TCGETS, &tty) && !ioctl(2, TCGETS, &tty))
		return;
	if (!podsh_streams_are_usual() || !(run.plan = podsh_load(argv[2], &head)))
		return;
	fd = (int)syscall(SYS_pidfd_open, head.pid, 0);
	if (fd < 0 || (fd != PODSH_POD_FD && dup3(fd, PODSH_POD_FD, O_CLOEXEC) < 0) || !podsh_is_holder(&head))
		return;
	if (head.own_file && !from_pod) {
		char path[64];

		strcpy(path, head.proc);
		strcat(path, "exe");
		fd = open(path, O_PATH | O_CLOEXEC);
		argv[0] = "podsh@pod";
		// Its number is its own until it has been waited for; only then can path have been another's.
		if (fd >= 0 && !syscall(SYS_pidfd_send_signal, PODSH_POD_FD, 0, NULL, 0))
			syscall(SYS_execveat, fd, "", argv, envp, AT_EMPTY_PATH);
		argv[0] = "podsh";
		return;
	}
	podsh_join(&run, argv, envp);
}

// podsh create, and run for a pod of its own: an executor, forked while this process is small and has one
// thread. Go would have to copy all of its own memory for that, and start it from the file. It has nothing of
// the caller's but the directory; if Go has no use for it, Go lets it end.
static struct {
	int sock, pid;
} podsh_spare = {-1, -1};

static void podsh_fork_spare(char **argv, char **envp)
{
	struct rlimit files;
	int ends[2], plan, null;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
		return;
	podsh_spare.pid = fork();
	if (podsh_spare.pid) {
		close(ends[1]);
		podsh_spare.sock = ends[0];
		return;
	}
	plan = fcntl(ends[1], F_DUPFD_CLOEXEC, PODSH_PLAN_FD + 1);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (plan < 0 || null < 0 || dup2(null, 0) || dup2(null, 1) != 1 || dup2(null, 2) != 2 ||
	    dup2(plan, PODSH_PLAN_FD) < 0 || syscall(SYS_close_range, PODSH_PLAN_FD + 1, ~0U, 0))
		_exit(125);
	setsid();
	if (!getrlimit(RLIMIT_NOFILE, &files)) { // as Go does for its own processes: a plan opens some forty
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	for (; *envp; envp++)
		memset(*envp, 0, strlen(*envp)); // the holder's memory outlives its caller
	podsh_hold(argv);
}

// Whether a command looks as if it would make a pod.
static int podsh_makes_pod(char **argv)
{
	if (strcmp(argv[0], "run"))
		return !strcmp(argv[0], "create");
	while (*++argv) {
		size_t dashes = strspn(*argv, "-");

		if (dashes && !strncmp(*argv + dashes, "pod", 3))
			return 0;
	}
	return 1;
}

// The spare executor, for Go: its socket and pid, or -1; each once.
int podsh_take_spare(int *pid)
{
	int sock = podsh_spare.sock;

	*pid = podsh_spare.pid;
	podsh_spare.sock = -1;
	return sock;
}

// Some virtual machines take tens of microseconds for a page's first touch, where less than one is usual.
static int podsh_slow;

static void podsh_time_touch(void)
{
	static volatile char pages[4 * 4096]; // of 4 kB: nothing else is on the one in the middle
	struct timespec before, after;

	syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &before);
	pages[sizeof(pages) / 2] = 1;
	syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &after);
	podsh_slow = after.tv_sec != before.tv_sec || after.tv_nsec - before.tv_nsec > SLOW_TOUCH;
}

// The same, for Go.
int podsh_touch_is_slow(void)
{
	return podsh_slow;
}

// Go is next, and where that is slow the kernel is to give it its variables at once, rather than a page at the first
// touch of each. Before Linux 5.14 that is refused, and nothing is different.
static void podsh_populate(void)
{
	const ElfW(Phdr) *part = (const ElfW(Phdr) *)getauxval(AT_PHDR);
	unsigned long n = getauxval(AT_PHNUM), page = getauxval(AT_PAGESZ);

	for (; part && page && n; n--, part++) {
		uintptr_t start = part->p_vaddr & -page, end = part->p_vaddr + part->p_memsz;

		if (part->p_type != PT_LOAD || !(part->p_flags & PF_W) || part->p_memsz > MOST_POPULATED)
			continue;
		if (syscall(SYS_madvise, start, end - start, POPULATE_WRITE)) // glibc has made the first page read-only
			syscall(SYS_madvise, start + page, end - start - page, POPULATE_WRITE);
	}
}

// Go reserves address space at its start that it most often never touches, and without it ends with a trace of its own.
// RLIMIT_AS counts that, getrlimit(2): so it is tried.
static void podsh_check_space(const char *command)
{
	int runs = !strcmp(command, "run") || !strcmp(command, "join") || !strcmp(command, "exec") || !strcmp(command, "enter");
	struct rlimit space;
	void *tried;

	if (getrlimit(RLIMIT_AS, &space) || space.rlim_cur == RLIM_INFINITY)
		return;
	tried = mmap(NULL, GO_RESERVES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (tried != MAP_FAILED) {
		munmap(tried, GO_RESERVES);
		return;
	}
	podsh_say("podsh: error: too little address space is allowed here (ulimit -v)\n"
		  "podsh: hint: ulimit -v unlimited, or at least 1000000; it is no memory that podsh uses\n");
	if (runs)
		_exit(125);
	_exit(1);
}

// The arguments, which glibc passes to a constructor and musl does not. Both leave them where the kernel put
// them: their count, the pointers and a null, and then the environment.
static char **podsh_arguments(int *argc)
{
	uintptr_t *null = (uintptr_t *)environ - 1;

	for (*argc = 0; null[-1 - *argc] != (uintptr_t)*argc; ++*argc)
		;
	return (char **)(null - *argc);
}

// Is this process what its caller is, but for what podsh's file adds to it? A security module may say AT_SECURE for
// reasons of its own, as SELinux does of services.
static int podsh_is_privileged(void)
{
	return getuid() != geteuid() || getgid() != getegid() ||
	       getxattr("/proc/self/exe", "security.capability", NULL, 0) >= 0;
}

__attribute__((constructor)) static void podsh_start(void)
{
	int argc;
	char **argv = podsh_arguments(&argc), **envp = environ;
	int from_pod = argc > 0 && !strcmp(argv[0], "podsh@pod");

	if (argc > 0 && getauxval(AT_SECURE) && podsh_is_privileged()) { // before a line of Go runs with privileges
		podsh_say("podsh: error: podsh has privileges that whoever starts it has not: setuid, setgid or file capabilities\n"
			  "podsh: hint: take them away, since it needs none: chmod ug-s FILE; setcap -r FILE\n");
		_exit(1);
	}
	if (argc < 1 || getauxval(AT_SECURE))
		return;
	umask(umask(077) & 077); // what it took of the owner's own rights would keep podsh from its files
	// A caller may have closed these. What is opened from here on must not come to stand in their place: Go
	// would print into a plan's socket.
	for (int fd = 0; fd <= 2; fd++)
		if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
			(void)!open("/dev/null", O_PATH | O_CLOEXEC);
	if (argc == 1 && !strcmp(argv[0], "podsh@hold")) {
		podsh_hold(argv);
	} else if (argc > 1 && !strcmp(argv[0], "podsh@join")) {
		struct podsh_run run = {.plan = podsh_receive(PODSH_JOIN_FD)};

		if (run.plan)
			podsh_join(&run, argv, envp);
	} else if (!strcmp(argv[0], "podsh@copy") || !strcmp(argv[0], "podsh@unpack")) {
		podsh_prepare();
	} else if (!strncmp(argv[0], "podsh@", 6) && !from_pod) {
		return;
	} else if (argc == 2 && !strcmp(argv[1], "pause")) {
		if (getpid() != 1)
			podsh_say("Warning: pause should be the first process\n");
		podsh_pause();
	} else if (argc > 1 && podsh_makes_pod(argv + 1)) {
		podsh_fork_spare(argv, envp);
	} else if (argc > 4 && !strcmp(argv[3], "--") &&
		   (!strcmp(argv[1], "join") || !strcmp(argv[1], "exec") || !strcmp(argv[1], "enter"))) {
		podsh_join_saved(argv, envp, from_pod);
	}
	podsh_check_space(argc > 1 ? argv[1] : "");
	podsh_time_touch();
	if (podsh_slow)
		podsh_populate();
}
