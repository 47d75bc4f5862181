// SPDX-License-Identifier: Apache-2.0
//
// The yardstick for podsh's holder: the least program that can hold a pod, written as the pause program of
// Kubernetes is: handlers, a loop that sleeps until a signal comes, and one that reaps. scripts/bench builds
// it static.

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void ended(int sig)
{
	psignal(sig, "Shutting down, got signal");
	_exit(0);
}

static void reap(int sig)
{
	(void)sig;
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
}

int main(void)
{
	struct sigaction end = {.sa_handler = ended};
	struct sigaction child = {.sa_handler = reap, .sa_flags = SA_NOCLDSTOP};

	if (getpid() != 1)
		fprintf(stderr, "Warning: pause should be the first process\n");
	if (sigaction(SIGINT, &end, NULL) < 0)
		return 1;
	if (sigaction(SIGTERM, &end, NULL) < 0)
		return 2;
	if (sigaction(SIGCHLD, &child, NULL) < 0)
		return 3;
	for (;;)
		pause();
}
