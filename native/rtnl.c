/* SPDX-License-Identifier: Apache-2.0 */
/* Interfaces and addresses of the calling thread's network namespace, by netlink. */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <linux/if_arp.h>
#include <linux/if_link.h>
#include <linux/netlink.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include "rtnl.h"
#include "shim.h"

enum { BUFFER = 32768 }; /* the kernel fills at most this much of a dump at a time */

int rtnl_open(__u32 groups)
{
	struct sockaddr_nl self = { .nl_family = AF_NETLINK, .nl_groups = groups };
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE), err;

	if (fd < 0)
		return -errno;
	if (!bind(fd, (struct sockaddr *)&self, sizeof(self)))
		return fd;
	err = -errno;
	close(fd);
	return err;
}

int bpvs_rtnl(void)
{
	return rtnl_open(0);
}

static ssize_t rtnl_receive(int fd, void *buffer)
{
	ssize_t got;

	do
		got = recv(fd, buffer, BUFFER, 0);
	while (got < 0 && errno == EINTR);
	return got < 0 ? -errno : got;
}

void rtnl_text(char *out, size_t room, const void *data, size_t length)
{
	size_t size = length < room - 1 ? length : room - 1;

	memcpy(out, data, size);
	out[size] = 0;
}

static void copy_text(char *out, size_t room, const struct rtattr *attr)
{
	rtnl_text(out, room, RTA_DATA(attr), RTA_PAYLOAD(attr));
}

static void read_kind(struct bpvs_interface *out, struct rtattr *info)
{
	int left = (int)RTA_PAYLOAD(info);
	char of[16] = "";

	for (struct rtattr *a = RTA_DATA(info); RTA_OK(a, left); a = RTA_NEXT(a, left)) {
		if (a->rta_type == IFLA_INFO_KIND)
			copy_text(out->kind, sizeof(out->kind), a);
		else if (a->rta_type == IFLA_INFO_SLAVE_KIND)
			copy_text(of, sizeof(of), a);
	}
	if (strcmp(of, "bond") == 0 || strcmp(of, "team") == 0)
		out->more |= BPVS_AGGREGATED;
}

/* Has an interface no link header? As dev_is_mac_header_xmit() of the kernel. */
static int is_bare(unsigned short type)
{
	switch (type) {
	case ARPHRD_TUNNEL:
	case ARPHRD_TUNNEL6:
	case ARPHRD_SIT:
	case ARPHRD_IPGRE:
	case ARPHRD_IP6GRE:
	case ARPHRD_VOID:
	case ARPHRD_NONE:
	case ARPHRD_RAWIP:
	case ARPHRD_PPP:
		return 1;
	default:
		return 0;
	}
}

static void read_interface(void *record, const struct nlmsghdr *msg)
{
	struct bpvs_interface *out = record;
	struct ifinfomsg *info = NLMSG_DATA(msg);
	int left = (int)IFLA_PAYLOAD(msg);

	*out = (struct bpvs_interface){ .ifindex = info->ifi_index, .flags = info->ifi_flags };
	if (info->ifi_type != ARPHRD_ETHER && info->ifi_type != ARPHRD_LOOPBACK)
		out->more |= BPVS_NO_ETHERNET | (is_bare(info->ifi_type) ? BPVS_BARE : 0);
	for (struct rtattr *a = IFLA_RTA(info); RTA_OK(a, left); a = RTA_NEXT(a, left)) {
		switch (a->rta_type & NLA_TYPE_MASK) {
		case IFLA_IFNAME:
			copy_text(out->name, sizeof(out->name), a);
			break;
		case IFLA_MTU:
			memcpy(&out->mtu, RTA_DATA(a), 4);
			break;
		case IFLA_MASTER:
			memcpy(&out->master, RTA_DATA(a), 4);
			break;
		case IFLA_LINK:
			memcpy(&out->link, RTA_DATA(a), 4);
			break;
		case IFLA_LINK_NETNSID:
			out->more |= BPVS_PEER_ELSEWHERE;
			break;
		case IFLA_LINKINFO:
			read_kind(out, a);
			break;
		case IFLA_ADDRESS:
			if (RTA_PAYLOAD(a) == sizeof(out->mac))
				memcpy(out->mac, RTA_DATA(a), sizeof(out->mac));
			break;
		}
	}
}

/* Reads one dump to its end; returns the number of records. */
static int read_dump(int fd, void *buffer, const struct dump *dump)
{
	uint32_t count = 0;

	for (;;) {
		ssize_t got = rtnl_receive(fd, buffer);

		if (got < 0)
			return (int)got;
		for (struct nlmsghdr *m = buffer; NLMSG_OK(m, got); m = NLMSG_NEXT(m, got)) {
			if (m->nlmsg_type == NLMSG_DONE)
				return (int)count;
			if (m->nlmsg_type == NLMSG_ERROR)
				return ((struct nlmsgerr *)NLMSG_DATA(m))->error;
			if (m->nlmsg_type != dump->type)
				continue;
			if (count < dump->room)
				dump->read(dump->out + count * dump->size, m);
			count++;
		}
	}
}

int rtnl_dump(const void *request, size_t size, const struct dump *dump)
{
	void *buffer = malloc(BUFFER);
	int fd = rtnl_open(0), yes = 1, result;

	if (fd < 0 || !buffer) {
		free(buffer);
		return fd < 0 ? fd : -ENOMEM;
	}
	/* Without it the kernel ignores what a request for routes filters by. */
	if (setsockopt(fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, &yes, sizeof(yes)) ||
	    send(fd, request, size, 0) < 0)
		result = -errno;
	else
		result = read_dump(fd, buffer, dump);
	close(fd);
	free(buffer);
	return result;
}

int bpvs_interfaces(struct bpvs_interface *out, uint32_t room)
{
	struct {
		struct nlmsghdr head;
		struct ifinfomsg info;
	} request = {
		.head = { .nlmsg_len = sizeof(request),
			  .nlmsg_type = RTM_GETLINK,
			  .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP },
		.info.ifi_family = AF_UNSPEC,
	};
	struct dump dump = { .read = read_interface,
			     .out = (char *)out,
			     .size = sizeof(*out),
			     .room = room,
			     .type = RTM_NEWLINK };

	return rtnl_dump(&request, sizeof(request), &dump);
}

int bpvs_clsact_filters(int ifindex, int egress)
{
	struct {
		struct nlmsghdr head;
		struct tcmsg tc;
	} request = {
		.head = { .nlmsg_len = sizeof(request),
			  .nlmsg_type = RTM_GETTFILTER,
			  .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP },
		.tc = { .tcm_ifindex = ifindex,
			.tcm_parent = TC_H_MAKE(TC_H_CLSACT,
						egress ? TC_H_MIN_EGRESS : TC_H_MIN_INGRESS) },
	};
	struct dump dump = { .type = RTM_NEWTFILTER };

	return rtnl_dump(&request, sizeof(request), &dump);
}

int bpvs_route_type(int fd, uint32_t family, const uint8_t *address)
{
	size_t size = family == 4 ? 4 : 16;
	struct {
		struct nlmsghdr head;
		struct rtmsg route;
		struct rtattr attr;
		uint8_t dst[16];
	} request = {
		.head = { .nlmsg_len = (__u32)(NLMSG_LENGTH(sizeof(struct rtmsg)) +
					       RTA_LENGTH(size)),
			  .nlmsg_type = RTM_GETROUTE,
			  .nlmsg_flags = NLM_F_REQUEST },
		.route = { .rtm_family = family == 4 ? AF_INET : AF_INET6,
			   .rtm_dst_len = (unsigned char)(size * 8) },
		.attr = { .rta_type = RTA_DST, .rta_len = (unsigned short)RTA_LENGTH(size) },
	};
	union {
		struct nlmsghdr head;
		char bytes[4096];
	} answer;
	ssize_t got;

	memcpy(request.dst, address, size);
	if (send(fd, &request, request.head.nlmsg_len, 0) < 0)
		return -errno;
	do
		got = recv(fd, &answer, sizeof(answer), 0);
	while (got < 0 && errno == EINTR);
	if (got < 0)
		return -errno;
	if (!NLMSG_OK(&answer.head, got) || answer.head.nlmsg_type != RTM_NEWROUTE)
		return RTN_UNSPEC;
	return ((struct rtmsg *)NLMSG_DATA(&answer.head))->rtm_type;
}

int bpvs_source(uint32_t family, const uint8_t *to, uint8_t *out)
{
	union {
		struct sockaddr any;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	} end = { 0 };
	void *address = family == 4 ? (void *)&end.v4.sin_addr : (void *)&end.v6.sin6_addr;
	size_t size = family == 4 ? sizeof(end.v4.sin_addr) : sizeof(end.v6.sin6_addr);
	socklen_t length = family == 4 ? sizeof(end.v4) : sizeof(end.v6);
	int fd = socket(family == 4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0), err = 0;

	if (fd < 0)
		return -errno;
	end.any.sa_family = family == 4 ? AF_INET : AF_INET6;
	end.v4.sin_port = htons(9); /* which both have in one place; nothing is sent */
	memcpy(address, to, size);
	if (connect(fd, &end.any, length) || getsockname(fd, &end.any, &length))
		err = -errno;
	else
		memcpy(out, address, size);
	close(fd);
	return err;
}

struct watch {
	int netlink, notify;
};

/* Takes all messages that are waiting and passes on that there were some. ENOBUFS (messages were lost) counts. */
static bool watch_drain(const struct watch *watch)
{
	char scrap[8192];
	ssize_t got;

	do
		got = recv(watch->netlink, scrap, sizeof(scrap), MSG_DONTWAIT);
	while (got > 0 || (got < 0 && (errno == EINTR || errno == ENOBUFS)));
	if (got == 0 || errno != EAGAIN)
		return false;
	/* A full socket means that the reader has news waiting anyway. */
	return send(watch->notify, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL) == 1 || errno == EAGAIN;
}

static void *watch_run(void *arg)
{
	struct watch *watch = arg;
	struct pollfd fds[2] = { { .fd = watch->netlink, .events = POLLIN },
				 { .fd = watch->notify, .events = POLLIN } };

	for (;;) {
		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			break;
		if (fds[1].revents || (fds[0].revents && !watch_drain(watch)))
			break;
	}
	close(watch->netlink);
	close(watch->notify);
	free(watch);
	return NULL;
}

int bpvs_watch(void)
{
	struct watch *watch = malloc(sizeof(*watch));
	int pair[2], err = 0;
	pthread_t thread;

	if (!watch)
		return -ENOMEM;
	watch->netlink = rtnl_open(RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR);
	if (watch->netlink < 0) {
		err = watch->netlink;
		free(watch);
		return err;
	}
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)) {
		err = -errno;
	} else {
		watch->notify = pair[1];
		err = -pthread_create(&thread, NULL, watch_run, watch);
		if (!err) {
			pthread_detach(thread);
			return pair[0];
		}
		close(pair[0]);
		close(pair[1]);
	}
	close(watch->netlink);
	free(watch);
	return err;
}
