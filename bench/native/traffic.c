/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server and clients that cost little and always the same, for bench/traffic.ts: blocking calls, a thread per kind of
 * service, nothing but the work itself between two clock readings.
 *
 *   traffic serve CPU ADDRESS...            TCP requests, bulk TCP and UDP echo, until it is killed; says "ready"
 *   traffic short CPU ADDRESS PORT COUNT    TCP connections one after the other: a request and an answer each
 *   traffic kept  CPU ADDRESS PORT COUNT    requests and answers one after the other, a hundred on each TCP connection
 *   traffic udp   CPU ADDRESS PORT COUNT    datagrams one after the other, each echoed
 *   traffic bulk  CPU ADDRESS PORT BYTES    one TCP connection
 *
 * Clients print a line of JSON: how much, how long, the process's CPU time, and latencies.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <error.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { REQUEST = 64, BLOCK = 128 * 1024, BACKLOG = 1024 };
/* Also in bench/traffic/paths.ts. */
enum {
	SHORT_PORT = 8080,
	KEPT_PORT = 8081,
	UDP_PORT = 9000,
	BULK_PORT = 9001,
	KEPT_REQUESTS = 100
};

enum load { SHORT, KEPT, UDP, BULK, LOADS };
static const char *const load_names[LOADS] = { "short", "kept", "udp", "bulk" };

struct result {
	unsigned long count;
	double seconds, cpu_seconds, p50_us, p99_us;
};

static void fail(const char *what)
{
	error(1, errno, "%s", what);
}

static double now(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

static void stay_on(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		fail("sched_setaffinity");
}

struct target {
	struct sockaddr_storage address;
	socklen_t length;
};

static struct target target_of(const char *address, int port)
{
	struct target t = { .length = sizeof(struct sockaddr_in) };
	struct sockaddr_in *in = (struct sockaddr_in *)&t.address;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&t.address;

	if (inet_pton(AF_INET, address, &in->sin_addr) == 1) {
		in->sin_family = AF_INET;
		in->sin_port = htons(port);
		return t;
	}
	if (inet_pton(AF_INET6, address, &in6->sin6_addr) != 1)
		error(1, 0, "%s is no address", address);
	in6->sin6_family = AF_INET6;
	in6->sin6_port = htons(port);
	t.length = sizeof(*in6);
	return t;
}

/* ---- server ---- */

static int bound(const char *address, int type, int port)
{
	struct target t = target_of(address, port);
	int fd = socket(t.address.ss_family, type, 0), on = 1;

	if (fd < 0)
		fail("socket");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (struct sockaddr *)&t.address, t.length))
		fail("bind");
	if (type == SOCK_STREAM && listen(fd, BACKLOG))
		fail("listen");
	return fd;
}

/* Answers a request; false: there was none. */
static bool answer_one(int fd)
{
	char request[REQUEST];

	return recv(fd, request, sizeof(request), MSG_WAITALL) == sizeof(request) &&
	       send(fd, request, sizeof(request), MSG_NOSIGNAL) == sizeof(request);
}

static int accept_one(int listener)
{
	int fd = accept(listener, NULL, NULL);

	if (fd < 0)
		fail("accept");
	return fd;
}

static void *serve_short(void *arg)
{
	for (;;) {
		int fd = accept_one((int)(long)arg);

		answer_one(fd);
		close(fd);
	}
	return NULL;
}

/* Answers until the client ends the connection. */
static void *serve_kept(void *arg)
{
	for (;;) {
		int fd = accept_one((int)(long)arg);

		while (answer_one(fd))
			;
		close(fd);
	}
	return NULL;
}

static void *serve_bulk(void *arg)
{
	static __thread char block[BLOCK];

	for (;;) {
		int fd = accept_one((int)(long)arg);

		while (recv(fd, block, sizeof(block), 0) > 0)
			;
		close(fd);
	}
	return NULL;
}

static void *serve_udp(void *arg)
{
	int fd = (int)(long)arg;
	char datagram[REQUEST];

	for (;;) {
		struct sockaddr_in6 from;
		socklen_t length = sizeof(from);
		ssize_t got = recvfrom(fd, datagram, sizeof(datagram), 0, (struct sockaddr *)&from,
				       &length);

		if (got > 0)
			sendto(fd, datagram, got, 0, (struct sockaddr *)&from, length);
	}
	return NULL;
}

static void start(void *(*server)(void *), int fd)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, server, (void *)(long)fd))
		fail("pthread_create");
}

/* Every address has sockets of its own: an answer to a datagram so comes from where it was sent to. */
static void serve(char **addresses)
{
	for (; *addresses; addresses++) {
		start(serve_short, bound(*addresses, SOCK_STREAM, SHORT_PORT));
		start(serve_kept, bound(*addresses, SOCK_STREAM, KEPT_PORT));
		start(serve_bulk, bound(*addresses, SOCK_STREAM, BULK_PORT));
		start(serve_udp, bound(*addresses, SOCK_DGRAM, UDP_PORT));
	}
	puts("ready");
	fflush(stdout);
	pause();
}

/* ---- clients ---- */

static int connected(const struct target *t, int type)
{
	int fd = socket(t->address.ss_family, type, 0);
	struct timeval patience = { .tv_sec = 5 };

	if (fd < 0)
		fail("socket");
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	if (connect(fd, (const struct sockaddr *)&t->address, t->length))
		fail("connect");
	return fd;
}

/* One connection; the server closes first, so that no port of the client has to wait. */
static void request(const struct target *t)
{
	char block[REQUEST] = { 1 };
	int fd = connected(t, SOCK_STREAM);

	if (send(fd, block, sizeof(block), MSG_NOSIGNAL) != sizeof(block))
		fail("send");
	if (recv(fd, block, sizeof(block), MSG_WAITALL) != sizeof(block))
		fail("no answer");
	if (recv(fd, block, sizeof(block), 0) != 0)
		fail("no end");
	close(fd);
}

static void echo(int fd)
{
	char block[REQUEST] = { 1 };

	if (send(fd, block, sizeof(block), MSG_NOSIGNAL) != sizeof(block))
		fail("send");
	if (recv(fd, block, sizeof(block), MSG_WAITALL) != sizeof(block))
		fail("no answer");
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* A request and its answer; `fd` is the connection, or one is made: of datagrams one, of TCP one for every hundred requests. */
static void echo_kept(const struct target *t, enum load load, int *fd, unsigned long number)
{
	if (load == KEPT && number % KEPT_REQUESTS == 0 && *fd >= 0) {
		close(*fd);
		*fd = -1;
	}
	if (*fd < 0)
		*fd = connected(t, load == KEPT ? SOCK_STREAM : SOCK_DGRAM);
	echo(*fd);
}

/* Requests, one at a time. */
static struct result exchange(const struct target *t, enum load load, unsigned long count)
{
	double *took = calloc(count, sizeof(*took)), start, cpu;
	struct result r = { .count = count };
	int fd = -1;

	if (!took || !count)
		error(1, 0, "bad count");
	cpu = now(CLOCK_PROCESS_CPUTIME_ID);
	start = now(CLOCK_MONOTONIC);
	for (unsigned long i = 0; i < count; i++) {
		double before = now(CLOCK_MONOTONIC);

		if (load == SHORT)
			request(t);
		else
			echo_kept(t, load, &fd, i);
		took[i] = now(CLOCK_MONOTONIC) - before;
	}
	r.seconds = now(CLOCK_MONOTONIC) - start;
	r.cpu_seconds = now(CLOCK_PROCESS_CPUTIME_ID) - cpu;
	qsort(took, count, sizeof(*took), by_value);
	r.p50_us = took[count / 2] * 1e6;
	r.p99_us = took[count * 99 / 100] * 1e6;
	free(took);
	return r;
}

static struct result bulk(const struct target *t, unsigned long bytes)
{
	static char block[BLOCK];
	int fd = connected(t, SOCK_STREAM);
	struct result r = { .count = bytes };
	double cpu = now(CLOCK_PROCESS_CPUTIME_ID), start = now(CLOCK_MONOTONIC);

	for (unsigned long left = bytes; left > 0;) {
		ssize_t sent = send(fd, block, left < BLOCK ? left : BLOCK, MSG_NOSIGNAL);

		if (sent <= 0)
			fail("send");
		left -= sent;
	}
	shutdown(fd, SHUT_WR);
	if (recv(fd, block, sizeof(block), 0) != 0)
		fail("no end");
	r.seconds = now(CLOCK_MONOTONIC) - start;
	r.cpu_seconds = now(CLOCK_PROCESS_CPUTIME_ID) - cpu;
	close(fd);
	return r;
}

static enum load load_of(const char *name)
{
	for (int load = 0; load < LOADS; load++) {
		if (!strcmp(name, load_names[load]))
			return load;
	}
	error(2, 0,
	      "usage: traffic serve CPU ADDRESS... | short|kept|udp|bulk CPU ADDRESS PORT COUNT");
	return LOADS;
}

int main(int argc, char **argv)
{
	unsigned long amount;
	struct target t;
	struct result r;
	enum load load;

	if (argc >= 3)
		stay_on(atoi(argv[2]));
	if (argc > 3 && !strcmp(argv[1], "serve")) {
		serve(argv + 3);
		return 0;
	}
	load = load_of(argc == 6 ? argv[1] : "");
	t = target_of(argv[3], atoi(argv[4]));
	amount = strtoul(argv[5], NULL, 10);
	r = load == BULK ? bulk(&t, amount) : exchange(&t, load, amount);
	printf("{\"count\":%lu,\"seconds\":%.9f,\"cpuSeconds\":%.9f,\"p50Us\":%.2f,\"p99Us\":%.2f}\n",
	       r.count, r.seconds, r.cpu_seconds, r.p50_us, r.p99_us);
	return 0;
}
