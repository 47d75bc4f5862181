// SPDX-License-Identifier: Apache-2.0
//
// What libFuzzer does, for where there is gcc alone: inputs are changed at random, and those that lead to a place in the
// code where none has been (gcc's -fsanitize-coverage=trace-pc) are changed further.
//
//	fuzz SECONDS    fuzz for so long
//	fuzz FILE       try one input, such as the last one of a run that crashed
//
// The input in hand is in the file crash while it is tried.

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);
void __sanitizer_cov_trace_pc(void);

#define LARGEST 2048
#define MOST_KEPT 4096

static uint8_t seen[1 << 16];
static int fresh;

void __sanitizer_cov_trace_pc(void)
{
	static uintptr_t last;
	uintptr_t at = (uintptr_t)__builtin_return_address(0);
	uint8_t *place = &seen[(at ^ last << 1) % sizeof(seen)];

	fresh |= !*place;
	*place = 1;
	last = at;
}

static uint64_t chance(void)
{
	static uint64_t x = 88172645463325252;

	x ^= x << 13;
	x ^= x >> 7;
	return x ^= x << 17;
}

static struct input {
	uint32_t size;
	uint8_t bytes[LARGEST];
} kept[MOST_KEPT], *in_hand; // in memory that is the file crash

static int count;

// Values at which checks turn, in the two widths that there are.
static void put_value(uint8_t *at, size_t left)
{
	static const uint64_t turns[] = {0, 1, 8, 24, 32, 96, 0x7fffffff, 0x80000000, 0xffffffff, INT64_MAX, UINT64_MAX};
	uint64_t value = turns[chance() % (sizeof(turns) / sizeof(*turns))] + chance() % 3 - 1;

	memcpy(at, &value, left < 8 ? left : chance() % 2 ? 4 : 8);
}

static void change(struct input *in)
{
	size_t at = chance() % in->size, left = in->size - at;

	switch (chance() % 6) {
	case 0:
		in->bytes[at] ^= (uint8_t)(1 << chance() % 8);
		break;
	case 1:
		in->bytes[at] = (uint8_t)chance();
		break;
	case 2:
		put_value(in->bytes + at, left);
		break;
	case 3: // a number as small as the places in a plan are
		at &= ~(size_t)3;
		if (in->size - at >= 4)
			memcpy(in->bytes + at, &(uint32_t){(uint32_t)(chance() % 256 * 4)}, 4);
		break;
	case 4:
		in->size = 1 + (uint32_t)(chance() % LARGEST);
		break;
	case 5: { // a part of another one
		struct input *other = &kept[chance() % (uint64_t)count];
		size_t n = left < other->size ? left : other->size;

		memcpy(in->bytes + at, other->bytes, chance() % (n + 1));
	}
	}
}

static int try_file(const char *path)
{
	FILE *file = fopen(path, "rb");

	if (!file)
		return perror(path), 2;
	in_hand->size = (uint32_t)fread(in_hand->bytes, 1, LARGEST, file);
	if (in_hand->size == LARGEST && !fseek(file, 0, SEEK_SET)) // what a crash has left, with its size before it
		(void)!fread(in_hand, 1, sizeof(*in_hand), file);
	fclose(file);
	return LLVMFuzzerTestOneInput(in_hand->bytes, in_hand->size);
}

int main(int argc, char **argv)
{
	static struct input own;
	uint64_t tried = 0;
	time_t end;
	int fd;

	in_hand = &own;
	if (argc != 2)
		return 2;
	if (strspn(argv[1], "0123456789") < strlen(argv[1]))
		return try_file(argv[1]);
	if ((fd = open("crash", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)) < 0 || ftruncate(fd, sizeof(own)))
		return perror("crash"), 2;
	if ((in_hand = mmap(NULL, sizeof(own), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)) == MAP_FAILED)
		return perror("mmap"), 2;
	for (count = 0; count < 64; count++) { // each way in
		kept[count].size = 512;
		kept[count].bytes[0] = (uint8_t)count;
	}
	for (end = time(NULL) + atoi(argv[1]); time(NULL) < end; tried++) {
		*in_hand = kept[chance() % (uint64_t)count];
		for (uint64_t n = 1 + chance() % 8; n; n--)
			change(in_hand);
		fresh = 0;
		LLVMFuzzerTestOneInput(in_hand->bytes, in_hand->size);
		if (fresh && count < MOST_KEPT)
			kept[count++] = *in_hand;
	}
	printf("%llu inputs, %d of them new\n", (unsigned long long)tried, count);
	return 0;
}
