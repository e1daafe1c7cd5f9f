/* SPDX-License-Identifier: Apache-2.0 */
/* The sync daemon: multicast sockets bound to an interface rather than to an address, as ip_vs_sync.c makes them; and the
 * search of the connection table for what other directors have to be told. */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <unistd.h>
#include "shim.h"
#include "../bpf/abi.h"

#ifndef SO_BINDTOIFINDEX
#define SO_BINDTOIFINDEX 62 /* kernel 5.1 */
#endif

union socket_address {
	struct sockaddr any;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
};

static socklen_t group_address(const struct bpvs_group *group, union socket_address *out)
{
	memset(out, 0, sizeof(*out));
	if (group->family == LB_AF_INET) {
		out->in.sin_family = AF_INET;
		out->in.sin_port = htons(group->port);
		memcpy(&out->in.sin_addr, group->addr, 4);
		return sizeof(out->in);
	}
	out->in6.sin6_family = AF_INET6;
	out->in6.sin6_port = htons(group->port);
	out->in6.sin6_scope_id = group->ifindex;
	memcpy(&out->in6.sin6_addr, group->addr, 16);
	return sizeof(out->in6);
}

static int set_option(int fd, int level, int name, int value)
{
	return setsockopt(fd, level, name, &value, sizeof(value)) ? -errno : 0;
}

/* Messages go out of the interface, are not heard by this host, and may be cut to fit. */
static int set_sending(int fd, const struct bpvs_group *group)
{
	struct ip_mreqn interface = { .imr_ifindex = (int)group->ifindex };
	int err;

	if (group->family == LB_AF_INET) {
		if (setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &interface, sizeof(interface)))
			return -errno;
		err = set_option(fd, IPPROTO_IP, IP_MULTICAST_LOOP, 0);
		if (!err)
			err = set_option(fd, IPPROTO_IP, IP_MULTICAST_TTL, group->ttl);
		return err ? err : set_option(fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT);
	}
	err = set_option(fd, IPPROTO_IPV6, IPV6_MULTICAST_IF, (int)group->ifindex);
	if (!err)
		err = set_option(fd, IPPROTO_IPV6, IPV6_MULTICAST_LOOP, 0);
	if (!err)
		err = set_option(fd, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, group->ttl);
	return err ? err : set_option(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DONT);
}

/* Hears the group on the interface alone. */
static int set_receiving(int fd, const struct bpvs_group *group)
{
	struct ip_mreqn member = { .imr_ifindex = (int)group->ifindex };
	struct ipv6_mreq member6 = { .ipv6mr_interface = group->ifindex };
	union socket_address address;
	socklen_t size = group_address(group, &address);
	int err = set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);

	if (!err)
		err = set_option(fd, SOL_SOCKET, SO_BINDTOIFINDEX, (int)group->ifindex);
	if (err)
		return err;
	if (bind(fd, &address.any, size))
		return -errno;
	memcpy(&member.imr_multiaddr, group->addr, 4);
	memcpy(&member6.ipv6mr_multiaddr, group->addr, 16);
	if (group->family == LB_AF_INET)
		err = setsockopt(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &member, sizeof(member));
	else
		err = setsockopt(fd, IPPROTO_IPV6, IPV6_ADD_MEMBERSHIP, &member6, sizeof(member6));
	return err ? -errno : 0;
}

static int group_socket(const struct bpvs_group *group,
			int (*set)(int fd, const struct bpvs_group *group))
{
	int family = group->family == LB_AF_INET ? AF_INET : AF_INET6;
	int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_UDP), err;

	if (fd < 0)
		return -errno;
	err = set(fd, group);
	if (!err)
		return fd;
	close(fd);
	return err;
}

int bpvs_group_send(const struct bpvs_group *group)
{
	union socket_address address;
	socklen_t size = group_address(group, &address);
	int fd = group_socket(group, set_sending), err;

	if (fd < 0 || !connect(fd, &address.any, size))
		return fd;
	err = -errno;
	close(fd);
	return err;
}

int bpvs_group_receive(const struct bpvs_group *group)
{
	return group_socket(group, set_receiving);
}

int bpvs_send(int fd, const void *message, uint32_t size)
{
	ssize_t sent = send(fd, message, size, MSG_DONTWAIT | MSG_NOSIGNAL);

	return sent < 0 ? -errno : (int)sent;
}

int bpvs_try_lock(int fd)
{
	if (!flock(fd, LOCK_EX | LOCK_NB))
		return 1;
	return errno == EWOULDBLOCK ? 0 : -errno;
}

/* Tells one connection from the next that an entry is used for. */
static __u32 conn_mark(const volatile struct lb_conn *c)
{
	__u32 mark = (__u32)c->cport << 16 | c->vport;

	for (int i = 0; i < 4; i++)
		mark = (mark ^ c->caddr.w[i] ^ c->vaddr.w[i] << 7) * 2654435761U;
	return mark ^ c->proto;
}

/* May others know of it in this state? As ip_vs_sync_conn_needed(): those that are being opened are not told of, nor is a
 * client's first few datagrams worth it. */
static int conn_settled(const volatile struct lb_conn *c)
{
	if (c->proto & LB_TEMPLATE)
		return 1;
	switch (c->state) {
	case LB_TCP_ESTABLISHED:
	case LB_TCP_FIN_WAIT:
	case LB_TCP_CLOSE:
	case LB_TCP_CLOSE_WAIT:
	case LB_TCP_TIME_WAIT:
	case LB_SCTP_ESTABLISHED:
	case LB_SCTP_SHUTDOWN_SENT:
	case LB_SCTP_SHUTDOWN_RECEIVED:
	case LB_SCTP_SHUTDOWN_ACK_SENT:
	case LB_SCTP_CLOSED:
		return 1;
	case LB_UDP_NORMAL:
		return c->packets >= LB_SYNC_DATAGRAMS;
	default:
		return 0;
	}
}

/* How many ticks nearer its end the others' copy may be before they are told again: half its time, but at least ten seconds
 * and at most the refresh period. */
static __u32 refresh_ticks(const volatile struct lb_conn *c, const struct bpvs_sync_scan *scan)
{
	__u32 seconds = c->proto & LB_TEMPLATE ? c->hop_token
			: c->state < LB_STATES ? scan->config->timeout[c->state]
					       : 0;
	__u64 half = (__u64)seconds * scan->hz / 2, least = 10ULL * scan->hz,
	      most = (__u64)scan->refresh_s * scan->hz;

	if (half < least)
		half = least;
	return (half < most ? half : most) >> scan->tick_shift;
}

/* Is there something about the entry that the others don't know? */
static int conn_due(const volatile struct lb_conn *c, const struct bpvs_told *told,
		    const struct bpvs_told *now, const struct bpvs_sync_scan *scan)
{
	if (told->mark != now->mark || told->state != now->state)
		return 1;
	return (__s32)(now->expires - told->expires - refresh_ticks(c, scan)) >= 0;
}

uint32_t bpvs_sync_scan(struct bpvs_sync_scan *scan, uint32_t *due, uint32_t room)
{
	uint32_t count = 0;

	for (; scan->at < scan->end && count < room; scan->at++) {
		const volatile struct lb_conn *c = &scan->conns[scan->at];
		struct bpvs_told *told = &scan->told[scan->at], now = { 0 };

		if (!c->af || c->flags & (LB_CONN_SYNC | LB_CONN_VOID | LB_CONN_SOCKET) ||
		    !conn_settled(c)) {
			told->mark = 0;
			continue;
		}
		now.expires = c->expires;
		if ((__s32)(now.expires - scan->now) <= 0 && !(c->proto & LB_TEMPLATE))
			continue;
		now.mark = conn_mark(c) | 1;
		now.state = c->state | (__u32)(c->flags & LB_CONN_ASSURED) << 8;
		if (!conn_due(c, told, &now, scan))
			continue;
		*told = now;
		due[count++] = scan->at;
	}
	return count;
}
