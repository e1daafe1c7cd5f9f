/* SPDX-License-Identifier: Apache-2.0 */
/* Tables of iptables as the kernel itself has them (iptables-legacy): read and replaced by options of sockets. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <netinet/in.h>
#include "shim.h"

/* Of struct ipt_replace and struct ip6t_replace: where the old counters go. */
enum { COUNTERS_OFFSET = 88 };

static int open_socket(uint32_t family)
{
	return socket(family == 6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
}

int bpvs_xtables_get(uint32_t family, int option, void *value, uint32_t length)
{
	int fd = open_socket(family), result;
	socklen_t room = length;

	if (fd < 0)
		return -errno;
	result = getsockopt(fd, family == 6 ? IPPROTO_IPV6 : IPPROTO_IP, option, value, &room)
			 ? -errno
			 : 0;
	close(fd);
	return result;
}

int bpvs_xtables_set(uint32_t family, int option, void *value, uint32_t length, void *counters)
{
	int fd = open_socket(family), result;

	if (fd < 0)
		return -errno;
	if (counters)
		memcpy((char *)value + COUNTERS_OFFSET, &counters, sizeof(counters));
	result = setsockopt(fd, family == 6 ? IPPROTO_IPV6 : IPPROTO_IP, option, value, length)
			 ? -errno
			 : 0;
	close(fd);
	return result;
}
