/* SPDX-License-Identifier: Apache-2.0 */
/* Requests to netlink families whose messages user space writes and reads itself. */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>
#include <linux/netlink.h>
#include "shim.h"

enum { CHUNK = 32768 }; /* the kernel fills at most this much of a dump at a time */

/* The kernel answers while it is asked: what is not there after a request never comes. */
static int collect(int fd, __u8 *out, __u32 room)
{
	__u32 used = 0;
	ssize_t got;

	for (;;) {
		if (room - used < CHUNK)
			return -EMSGSIZE;
		got = recv(fd, out + used, room - used, MSG_DONTWAIT);
		if (got >= 0)
			used += got;
		else if (errno == EAGAIN)
			return used;
		else if (errno != EINTR)
			return -errno;
	}
}

int bpvs_netlink(int protocol, const void *request, uint32_t length, void *out, uint32_t room)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol), size = length + CHUNK,
	    result;

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size));
	if (send(fd, request, length, 0) < 0)
		result = -errno;
	else
		result = collect(fd, out, room);
	close(fd);
	return result;
}
