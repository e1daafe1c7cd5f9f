/* SPDX-License-Identifier: Apache-2.0 */
/* libbpf reports through a callback with a va_list; here its messages gather in one buffer until someone asks. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <bpf/libbpf.h>
#include "shim.h"

enum {
	LOG_MAX = 16 << 20
}; /* a verifier's log can have megabytes; what comes later matters more */

static pthread_mutex_t log_mutex = PTHREAD_MUTEX_INITIALIZER;
static char *log_text;
static size_t log_used, log_room;

/* Makes room for `need` more bytes, giving up the older half when the limit is reached. */
static bool log_grow(size_t need)
{
	size_t room = log_room ? log_room : 4096;
	char *text;

	if (need >= LOG_MAX / 2)
		return false;
	if (log_used + need > LOG_MAX) {
		memmove(log_text, log_text + log_used / 2, log_used - log_used / 2);
		log_used -= log_used / 2;
	}
	while (room < log_used + need)
		room *= 2;
	if (room == log_room)
		return true;
	text = realloc(log_text, room);
	if (!text)
		return false;
	log_text = text;
	log_room = room;
	return true;
}

static int log_print(enum libbpf_print_level level, const char *format, va_list args)
{
	va_list again;
	int length;

	if (level == LIBBPF_DEBUG)
		return 0;
	va_copy(again, args);
	length = vsnprintf(NULL, 0, format, again);
	va_end(again);
	if (length <= 0)
		return length;
	pthread_mutex_lock(&log_mutex);
	if (log_grow((size_t)length + 1)) {
		vsnprintf(log_text + log_used, (size_t)length + 1, format, args);
		log_used += (size_t)length;
	}
	pthread_mutex_unlock(&log_mutex);
	return length;
}

void bpvs_log_init(void)
{
	libbpf_set_print(log_print);
}

int64_t bpvs_log_take(char *out, uint64_t size)
{
	size_t count;

	pthread_mutex_lock(&log_mutex);
	count = log_used < size ? log_used : size;
	if (count)
		memcpy(out, log_text + log_used - count, count);
	log_used = 0;
	pthread_mutex_unlock(&log_mutex);
	return (int64_t)count;
}
