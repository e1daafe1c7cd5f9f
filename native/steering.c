/* SPDX-License-Identifier: Apache-2.0 */
/* Policy routing for marked packets, of the calling thread's network namespace, by netlink (see bpf/marked.h). */
#define _GNU_SOURCE
#include <errno.h>
#include <net/if.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <linux/fib_rules.h>
#include <linux/if_link.h>
#include <linux/ip.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include "rtnl.h"
#include "shim.h"

enum {
	ROOM = 512,
	VETH_MTU = 65535, /* whatever came in goes out: no "packet too big" because of the veth */
	RP_LOOSE = 2,
};

/* A request that is being written. */
struct request {
	struct nlmsghdr head;
	char body[ROOM];
};

static void *put_space(struct request *r, size_t size)
{
	void *at = (char *)r + NLMSG_ALIGN(r->head.nlmsg_len);

	r->head.nlmsg_len = NLMSG_ALIGN(r->head.nlmsg_len) + (__u32)size;
	return at;
}

static struct rtattr *put(struct request *r, unsigned short type, const void *data, size_t size)
{
	struct rtattr *attr = put_space(r, RTA_LENGTH(size));

	attr->rta_type = type;
	attr->rta_len = (unsigned short)RTA_LENGTH(size);
	if (size)
		memcpy(RTA_DATA(attr), data, size);
	return attr;
}

static void put_word(struct request *r, unsigned short type, __u32 value)
{
	put(r, type, &value, sizeof(value));
}

static void put_text(struct request *r, unsigned short type, const char *text)
{
	put(r, type, text, strlen(text) + 1);
}

static struct rtattr *nest_begin(struct request *r, unsigned short type)
{
	return put(r, type | NLA_F_NESTED, NULL, 0);
}

static void nest_end(struct request *r, struct rtattr *nest)
{
	nest->rta_len = (unsigned short)((char *)r + r->head.nlmsg_len - (char *)nest);
}

static void *request_begin(struct request *r, __u16 type, __u16 flags, size_t header)
{
	memset(r, 0, sizeof(*r));
	r->head.nlmsg_type = type;
	r->head.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags;
	r->head.nlmsg_len = NLMSG_HDRLEN;
	return put_space(r, header);
}

/* Sends a request and waits for what the kernel says of it. */
static int request_send(const struct request *r)
{
	union {
		struct nlmsghdr head;
		char bytes[4096];
	} answer;
	int fd = rtnl_open(0), result;
	ssize_t got;

	if (fd < 0)
		return fd;
	if (send(fd, r, r->head.nlmsg_len, 0) < 0) {
		result = -errno;
	} else {
		do
			got = recv(fd, &answer, sizeof(answer), 0);
		while (got < 0 && errno == EINTR);
		if (got < 0)
			result = -errno;
		else if (!NLMSG_OK(&answer.head, got) || answer.head.nlmsg_type != NLMSG_ERROR)
			result = -EPROTO;
		else
			result = ((struct nlmsgerr *)NLMSG_DATA(&answer.head))->error;
	}
	close(fd);
	return result;
}

static __u8 family_of(uint32_t family)
{
	return family == 4 ? AF_INET : AF_INET6;
}

/* Words and texts of a rule; false: a selector that nobody here asks for. */
static int read_rule_attr(struct bpvs_rule *out, const struct rtattr *a)
{
	switch (a->rta_type) {
	case FRA_PRIORITY:
		memcpy(&out->pref, RTA_DATA(a), 4);
		return 1;
	case FRA_TABLE:
		memcpy(&out->table, RTA_DATA(a), 4);
		return 1;
	case FRA_FWMARK:
		memcpy(&out->mark, RTA_DATA(a), 4);
		return 1;
	case FRA_FWMASK:
		memcpy(&out->mask, RTA_DATA(a), 4);
		return 1;
	case FRA_GOTO:
		memcpy(&out->target, RTA_DATA(a), 4);
		return 1;
	case FRA_PROTOCOL:
		memcpy(&out->protocol, RTA_DATA(a), 1);
		return 1;
	case FRA_IIFNAME:
		rtnl_text(out->iif, sizeof(out->iif), RTA_DATA(a), RTA_PAYLOAD(a));
		return 1;
	case FRA_SUPPRESS_PREFIXLEN:
	case FRA_SUPPRESS_IFGROUP:
		return *(__s32 *)RTA_DATA(a) == -1;
	default:
		return 0;
	}
}

static void read_rule(void *record, const struct nlmsghdr *msg)
{
	struct bpvs_rule *out = record;
	struct fib_rule_hdr *rule = NLMSG_DATA(msg);
	int left = (int)(msg->nlmsg_len - NLMSG_LENGTH(sizeof(*rule)));

	*out = (struct bpvs_rule){ .family = rule->family == AF_INET ? 4 : 6,
				   .action = rule->action,
				   .more = rule->src_len || rule->dst_len || rule->tos ||
					   rule->flags & FIB_RULE_INVERT };
	for (struct rtattr *a = (struct rtattr *)(rule + 1); RTA_OK(a, left); a = RTA_NEXT(a, left))
		if (!read_rule_attr(out, a))
			out->more = 1;
}

int bpvs_rules(uint32_t family, struct bpvs_rule *out, uint32_t room)
{
	struct {
		struct nlmsghdr head;
		struct fib_rule_hdr rule;
	} request = {
		.head = { .nlmsg_len = sizeof(request),
			  .nlmsg_type = RTM_GETRULE,
			  .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP },
		.rule.family = family_of(family),
	};
	struct dump dump = { .read = read_rule,
			     .out = (char *)out,
			     .size = sizeof(*out),
			     .room = room,
			     .type = RTM_NEWRULE };

	return rtnl_dump(&request, sizeof(request), &dump);
}

int bpvs_rule_change(const struct bpvs_rule *rule, int add)
{
	struct request r;
	struct fib_rule_hdr *hdr = request_begin(&r, add ? RTM_NEWRULE : RTM_DELRULE,
						 add ? NLM_F_CREATE : 0, sizeof(*hdr));

	hdr->family = family_of(rule->family);
	hdr->action = rule->action;
	put_word(&r, FRA_PRIORITY, rule->pref);
	put(&r, FRA_PROTOCOL, &rule->protocol, 1);
	if (rule->table)
		put_word(&r, FRA_TABLE, rule->table);
	if (rule->mask) {
		put_word(&r, FRA_FWMARK, rule->mark);
		put_word(&r, FRA_FWMASK, rule->mask);
	}
	if (rule->action == FR_ACT_GOTO)
		put_word(&r, FRA_GOTO, rule->target);
	if (rule->iif[0])
		put_text(&r, FRA_IIFNAME, rule->iif);
	return request_send(&r);
}

static void put_end(struct request *r, const char *name, const uint8_t *mac)
{
	put_text(r, IFLA_IFNAME, name);
	put(r, IFLA_ADDRESS, mac, 6);
	put_word(r, IFLA_MTU, VETH_MTU);
}

static int veth_create(const char *name, const char *peer, const uint8_t *mac)
{
	struct request r;
	struct rtattr *info, *data, *other;

	request_begin(&r, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, sizeof(struct ifinfomsg));
	put_end(&r, name, mac);
	info = nest_begin(&r, IFLA_LINKINFO);
	put_text(&r, IFLA_INFO_KIND, "veth");
	data = nest_begin(&r, IFLA_INFO_DATA);
	other = nest_begin(&r, VETH_INFO_PEER);
	memset(put_space(&r, sizeof(struct ifinfomsg)), 0, sizeof(struct ifinfomsg));
	put_end(&r, peer, mac);
	nest_end(&r, other);
	nest_end(&r, data);
	nest_end(&r, info);
	return request_send(&r);
}

/* An interface without IPv6 addresses, which it would else give itself. No IPv6 is no error. */
static int link_without_ipv6(int ifindex)
{
	struct request r;
	struct ifinfomsg *link = request_begin(&r, RTM_SETLINK, 0, sizeof(*link));
	struct rtattr *spec, *inet6;
	__u8 none = IN6_ADDR_GEN_MODE_NONE;
	int err;

	link->ifi_index = ifindex;
	spec = nest_begin(&r, IFLA_AF_SPEC);
	inet6 = nest_begin(&r, AF_INET6);
	put(&r, IFLA_INET6_ADDR_GEN_MODE, &none, 1);
	nest_end(&r, inet6);
	nest_end(&r, spec);
	err = request_send(&r);
	return err == -EAFNOSUPPORT ? 0 : err;
}

/* Up, without ARP. Packets that come out of it came in elsewhere: their source is not looked for behind it (rp_filter), and
 * may be this host (accept_local). */
static int link_up(int ifindex)
{
	struct request r;
	struct ifinfomsg *link = request_begin(&r, RTM_SETLINK, 0, sizeof(*link));
	struct rtattr *spec, *inet, *conf;

	link->ifi_index = ifindex;
	link->ifi_flags = IFF_UP | IFF_NOARP;
	link->ifi_change = IFF_UP | IFF_NOARP;
	spec = nest_begin(&r, IFLA_AF_SPEC);
	inet = nest_begin(&r, AF_INET);
	conf = nest_begin(&r, IFLA_INET_CONF);
	put_word(&r, IPV4_DEVCONF_RP_FILTER, RP_LOOSE);
	put_word(&r, IPV4_DEVCONF_ACCEPT_LOCAL, 1);
	nest_end(&r, conf);
	nest_end(&r, inet);
	nest_end(&r, spec);
	return request_send(&r);
}

/* Gives it an address that no packet has (RFC 7600's dummy address): the kernel's check of sources refuses all that comes
 * out of an interface without any. */
static int link_address(int ifindex)
{
	struct request r;
	struct ifaddrmsg *addr = request_begin(&r, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE,
					       sizeof(*addr));
	__u8 dummy[4] = { 192, 0, 0, 8 };

	addr->ifa_family = AF_INET;
	addr->ifa_prefixlen = 32;
	addr->ifa_scope = RT_SCOPE_HOST;
	addr->ifa_index = (__u32)ifindex;
	put(&r, IFA_LOCAL, dummy, sizeof(dummy));
	return request_send(&r);
}

int bpvs_veth_make(const char *name, const char *peer, const uint8_t *mac)
{
	const char *ends[] = { name, peer };
	int err = veth_create(name, peer, mac);

	for (int i = 0; i < 2 && !err; i++) {
		int ifindex = (int)if_nametoindex(ends[i]);

		err = ifindex ? link_without_ipv6(ifindex) : -ENODEV;
		if (!err)
			err = link_up(ifindex);
	}
	return err ? err : link_address((int)if_nametoindex(peer));
}

int bpvs_link_delete(int ifindex)
{
	struct request r;
	struct ifinfomsg *link = request_begin(&r, RTM_DELLINK, 0, sizeof(*link));

	link->ifi_index = ifindex;
	return request_send(&r);
}

int bpvs_route_default(uint32_t family, uint32_t table, int ifindex)
{
	struct request r;
	struct rtmsg *route = request_begin(&r, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE,
					    sizeof(*route));

	route->rtm_family = family_of(family);
	route->rtm_protocol = RTPROT_STATIC;
	route->rtm_scope = family == 4 ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
	route->rtm_type = RTN_UNICAST;
	put_word(&r, RTA_TABLE, table);
	put_word(&r, RTA_OIF, (__u32)ifindex);
	return request_send(&r);
}
