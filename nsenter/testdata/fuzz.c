// SPDX-License-Identifier: Apache-2.0
//
// A fuzz target for what nsenter.c reads: plans that come over a socket or lie in a file, and the files around them.
// scripts/fuzz-c builds it with the sanitizers. What the plan would do is not done: no system call of a plan is made.
//
// The first byte of an input says which way it comes in, and what of its head is put right, so that the fuzzer need
// not guess a magic number or this machine's boot id.

#define _GNU_SOURCE
#include <errno.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

// Memory that is mapped is taken from the heap instead, where the sanitizer watches its ends, and counted: what is
// refused stays mapped, as the next that happens is Go.
#define MOST_MAPPED 8
static void *fuzz_mapped[MOST_MAPPED];

static void *fuzz_mmap(size_t size)
{
	for (int i = 0; i < MOST_MAPPED; i++)
		if (!fuzz_mapped[i])
			return (fuzz_mapped[i] = calloc(1, size)) ? fuzz_mapped[i] : MAP_FAILED;
	abort();
}

static int fuzz_munmap(void *memory)
{
	for (int i = 0; i < MOST_MAPPED; i++)
		if (fuzz_mapped[i] == memory) {
			fuzz_mapped[i] = NULL;
			free(memory);
			return 0;
		}
	abort();
}

// Bits of an input's first byte.
enum {
	RIGHT = 1,   // the magic number, and numbers of calls that can be
	SAVED = 2,   // it is a file of a store
	SOCKET = 4,  // it comes over a socket
	SIZE = 8,    // its size is wrong
	END = 16,    // and so is its end
	HOLDER = 32, // it is for a holder that was started since the last boot
};

static jmp_buf fuzz_over;
static uint64_t fuzz_seed;

#ifndef __clang__ // what a call that is made up would have written is not
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wanalyzer-use-of-uninitialized-value"
#endif

// Some calls fail, others return a number.
static int64_t fuzz_syscall(int64_t nr, const uint64_t *a)
{
	if (nr == SYS_openat2)
		return syscall(SYS_openat2, a[0], a[1], a[2], a[3]); // podsh_read_file's own
	fuzz_seed = fuzz_seed * 6364136223846793005 + 1442695040888963407;
	if (fuzz_seed >> 61 == 0) {
		errno = (int)(fuzz_seed >> 32 & 127);
		return -1;
	}
	return (int64_t)(fuzz_seed >> 40);
}

#define mmap(at, size, prot, flags, fd, offset) fuzz_mmap(size)
#define munmap(memory, size) fuzz_munmap(memory)
#define syscall(...) fuzz_syscall_(__VA_ARGS__, 0, 0, 0, 0, 0, 0)
#define fuzz_syscall_(nr, a, b, c, d, e, f, ...) \
	fuzz_syscall((int64_t)(nr), (uint64_t[]){(uint64_t)(a), (uint64_t)(b), (uint64_t)(c), (uint64_t)(d), (uint64_t)(e), (uint64_t)(f)})
#define _exit(status) longjmp(fuzz_over, 1)
#include "../nsenter.c"
#undef mmap
#undef munmap
#undef syscall
#undef _exit

// A plan that was taken: every address in it leads into it, and what lies there ends in it, if it is text.
static void fuzz_look(struct podsh_plan *plan, size_t size)
{
	char *base = (char *)plan;
	uint32_t *relocs = (uint32_t *)((struct podsh_call *)(plan + 1) + plan->calls);

	if (plan->size != size || plan->first + plan->calls > PODSH_MAX_CALLS)
		abort();
	for (uint32_t i = 0; i < plan->relocs; i++) {
		uint32_t at;
		uintptr_t to;

		memcpy(&at, relocs + i, sizeof(at));
		memcpy(&to, base + at, sizeof(to));
		if (to < (uintptr_t)base || to >= (uintptr_t)base + size || strlen((char *)to) >= size)
			abort();
	}
}

// The loop over calls, each of which is made up. Those that are not one system call are left out.
static void fuzz_perform(struct podsh_plan *plan)
{
	struct podsh_call *calls = (struct podsh_call *)(plan + 1);
	struct podsh_run run = {.plan = plan, .report = -1};

	for (uint32_t i = 0; i < plan->calls; i++)
		if (calls[i].nr < 0 || calls[i].nr == SYS_openat2)
			calls[i].nr = 0;
	if (!setjmp(fuzz_over))
		podsh_perform(&run);
}

static void fuzz_taken(struct podsh_plan *plan, size_t size)
{
	if (!plan)
		return;
	fuzz_look(plan, size);
	fuzz_perform(plan);
}

// A store with one pod, called a.
static char fuzz_store[] = "/dev/shm/podsh-fuzz-XXXXXX"; // in memory: thousands of times a second

static void fuzz_end(void)
{
	char command[64];

	snprintf(command, sizeof(command), "rm -r %s", fuzz_store);
	if (system(command))
		perror(fuzz_store);
}

static void fuzz_begin(void)
{
	static int begun;

	if (begun++)
		return;
	if (!mkdtemp(fuzz_store) || chdir(fuzz_store) || mkdir("names", 0700) || mkdir("pods", 0700) || mkdir("pods/b", 0700) ||
	    mkdir("pods/a", 0700) || setenv("PODSH_ROOT", fuzz_store, 1) || atexit(fuzz_end))
		abort();
}

static void fuzz_write(const char *path, const void *data, size_t size)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0 || write(fd, data, size) != (ssize_t)size)
		abort();
	close(fd);
}

// A joiner's way: which pod it is, what is saved of it, and whether the process is the one.
static void fuzz_load(uint8_t *data, size_t size, uint8_t how)
{
	struct podsh_saved head;
	struct podsh_plan *plan;
	uint8_t named = size ? *data & 31 : 0;

	unlink("names/a");
	if (named && named < size)
		fuzz_write("names/a", data + 1, named);
	if (how & RIGHT && size > sizeof(head)) {
		memcpy(&head, data, sizeof(head));
		head.magic = PODSH_MAGIC;
		if (how & HOLDER) {
			head.pidfd_inode = 0;
			podsh_read_proc("/proc/sys/kernel/random/", "boot_id", head.boot_id, sizeof(head.boot_id));
		}
		memcpy(data, &head, sizeof(head));
		fuzz_write("names/a", "b", 1);
	}
	fuzz_write("pods/b/join", data, size);
	if ((plan = podsh_load("a", &head))) {
		podsh_is_holder(&head);
		fuzz_taken(plan, size - sizeof(head));
	}
}

// The socket's way: a plan that may come in pieces, or end before its time.
static void fuzz_receive(const uint8_t *data, size_t size)
{
	struct podsh_plan *plan;
	int fd = memfd_create("plan", MFD_CLOEXEC);

	if (fd < 0 || write(fd, data, size) != (ssize_t)size || lseek(fd, 0, SEEK_SET))
		abort();
	if ((plan = podsh_receive(fd)))
		fuzz_taken(plan, plan->size);
	close(fd);
}

static void fuzz_put_right(uint8_t *data, size_t size, uint8_t how)
{
	struct podsh_plan head;

	if (size < sizeof(head))
		return;
	memcpy(&head, data, sizeof(head));
	head.magic = PODSH_MAGIC;
	head.calls %= 64;
	head.relocs %= 64;
	if (!(how & SIZE))
		head.size = (uint32_t)size;
	memcpy(data, &head, sizeof(head));
	if (!(how & END))
		data[size - 1] = 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
	uint8_t *data, how;

	fuzz_begin();
	if (!size--)
		return 0;
	how = *input++;
	fuzz_seed = how;
	if (!(data = malloc(size ? size : 1))) // of just that size, and aligned
		return 0;
	memcpy(data, input, size);
	if (how & RIGHT) {
		size_t before = how & SAVED && size > sizeof(struct podsh_saved) ? sizeof(struct podsh_saved) : 0;

		fuzz_put_right(data + before, size - before, how);
	}
	if (how & SAVED)
		fuzz_load(data, size, how);
	else if (how & SOCKET)
		fuzz_receive(data, size);
	else if (podsh_is_plan(data, size))
		fuzz_taken((struct podsh_plan *)data, size);
	free(data);
	for (int i = 0; i < MOST_MAPPED; i++) {
		free(fuzz_mapped[i]);
		fuzz_mapped[i] = NULL;
	}
	return 0;
}
