// SPDX-License-Identifier: Apache-2.0
//
// What nsenter.go writes and nsenter.c reads: both sides of podsh's own protocol, in the byte order and the
// alignment of the machine they run on.

#ifndef PODSH_NSENTER_H
#define PODSH_NSENTER_H

#include <stddef.h>
#include <stdint.h>

#define PODSH_MAGIC UINT64_C(0x36306e616c70) // "plan06": raise it with every change of this file
#define PODSH_MAX_CALLS 4096
#define PODSH_MAX_BYTES (4 << 20)
#define PODSH_MAX_SOCKETS 32
#define PODSH_PID_BYTES 12 // of the digits of a process id, and the zero behind them

// Descriptors that are handed over. Those of a join are high, because Go makes itself the joiner by an exec:
// till then its runtime goes on using the low ones.
enum {
	PODSH_PLAN_FD = 3,   // hold: socket on which plans come
	PODSH_ENTER_FD = 4,  // hold: from here on, the namespaces of others that are entered
	PODSH_JOIN_FD = 64,  // join: file with the plan
	PODSH_POD_FD = 65,   // join: pidfd of the holder
	PODSH_REPORT_FD = 66, // join: where the command's side tells its joiner of a failure
	PODSH_TTY_FD = 67,   // join -t: socket on which the pod's side passes the terminal out
	PODSH_LISTEN_FD = 68, // join --listen: from here on, sockets for the command
};

// Calls that are not one system call.
enum {
	PODSH_CLONE = -1, // (flags): go on as a clone whose parent is the caller's parent; the caller ends
	PODSH_EXEC = -2,  // (argv or 0 for the caller's, envp, folders to search or 0)
	PODSH_PAUSE = -3, // (): be the pause program
	PODSH_INIT = -4,  // (): go on as a child, of which this process stays the init
	PODSH_GETCWD = -5, // (): fail with EXDEV unless the working directory is below the root
	PODSH_GETPID = -6, // (to, size): write this process's id there, in digits and with a zero behind them
	PODSH_REPORT = -7, // (descriptor): tell of failures on that from now on
	PODSH_NULLS = -8,  // (): join: have the /dev/null that is seen now in place of streams that are the caller's
};

struct podsh_call {
	int64_t nr;           // system call number, or one of the above
	int64_t tolerate;     // the errno that is no failure, or 0
	uint64_t from_result; // bit i: arg[i] is the place of an earlier call, whose result is meant
	uint64_t arg[6];
};

// A plan is this head, the calls, the relocations (uint32_t each: where in the plan an offset stands that
// becomes an address), and the data that they point to, which ends with a zero byte.
struct podsh_plan {
	uint64_t magic;
	uint32_t size;  // bytes in all
	uint32_t calls; // how many
	uint32_t relocs;
	uint32_t first; // the place of its first call in the whole list
};

// What comes back: `what` is the place of the call that failed and `value` its errno (a plan itself may send
// such a record: what a netlink socket answered, below zero as it stands there, or 0 for none), or one of these.
enum {
	PODSH_DONE = -1,   // all calls before place `value` are done
	PODSH_CLONED = -2, // `value` is the pid of a clone
	PODSH_READY = -3,  // sent by a plan itself, to see that its joiner is still there
	PODSH_PASSED = -4, // sent by a plan itself: `value` descriptors come with it
};

struct podsh_record {
	int32_t what;
	int32_t value;
};

// A saved plan is this head and a plan: for `podsh join NAME -- CMD` without Go.
struct podsh_saved {
	uint64_t magic;
	uint64_t pidfd_inode; // identifies the holder until reboot (Linux 6.9); 0: not known
	int32_t pid;
	uint32_t own_file;  // the holder runs from a copy of podsh that the pod can't write: run from there too
	char boot_id[40];   // as /proc/sys/kernel/random/boot_id has it
	char proc[24];      // "/proc/4711/"
	char started[24];   // field 22 of /proc/PID/stat
};

// Says whether bytes are a plan that may be performed, and relocates them.
int podsh_is_plan(void *plan, size_t size);

// Gives Go the executor that the constructor forked: its socket, or -1, and its pid.
int podsh_take_spare(int *pid);

// Says whether a page's first touch takes long on this machine.
int podsh_touch_is_slow(void);

#endif
