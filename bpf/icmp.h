/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A message of ICMP, on tcx: what it is, and the answer to an echo request to a VIP.
 */
#pragma once
#include "headers.h"
#include "refuse.h"

enum {
	ICMP4_ECHOREPLY = 0,
	ICMP4_DEST_UNREACH = 3,
	ICMP4_QUENCH = 4,
	ICMP4_ECHO = 8,
	ICMP4_TIME = 11,
	ICMP4_PARAM = 12,
	ICMP6_ERRORS = 4,
	/* types 1 to 4 */ ICMP6_ECHO = 128,
	ICMP6_ECHOREPLY = 129,
};

/* Where ICMP is in a packet whose IP header has no options and no extension headers. */
#define ICMP_OFF(af) (L3_OFF + ((af) == LB_AF_INET ? 20 : 40))

static __always_inline __u8 icmp_protocol(enum lb_af af)
{
	return af == LB_AF_INET ? IPPROTO_ICMP : IPPROTO_ICMPV6;
}

/* A message: its outer header, and of an error where the parts of what it quotes are. */
struct icmp_parts {
	union lb_addr saddr, daddr;
	__u16 icmp;  /* offset of the ICMP header */
	__u16 end;   /* of the packet's end */
	__u16 inner; /* of the quoted IP header */
	__u16 ports; /* of the quoted transport header */
	__u8 ttl;
	__u8 type;
	__u8 code;
	struct tuple quoted; /* of one about a masqueraded connection, turned round; */
	__u32 conn;          /* the entry that it was found by */
};

/* Where a message is described: the stack has no room for it. */
LB_SCRATCH(lb_icmp_parts, struct icmp_parts, icmp_parts_get)

static __always_inline bool icmp_is_error(__u8 type, enum lb_af af)
{
	if (af == LB_AF_INET)
		return type == ICMP4_DEST_UNREACH || type == ICMP4_QUENCH || type == ICMP4_TIME ||
		       type == ICMP4_PARAM;
	return type >= 1 && type <= ICMP6_ERRORS;
}

/* Is the outer header sound, and followed by ICMP? As in the kernel what is or was a fragment is no message of ICMPv6. */
static __always_inline bool icmp_read(struct __sk_buff *skb, struct icmp_parts *m, enum lb_af af)
{
	struct headers h = {};
	void *data, *end;
	__u32 len;

	if (!headers_read(skb, L3_OFF, af, &h) || h.proto != icmp_protocol(af) || h.shape ||
	    (af == LB_AF_INET6 && h.start) || !packet_pull(skb, HOOK_INGRESS, h.l4 + ICMP_HDR))
		return false;
	data = packet_data(skb, HOOK_INGRESS);
	end = packet_end(skb, HOOK_INGRESS);
	if (data + ICMP_OFF(af) > end)
		return false;
	addresses_read(data, af, &m->saddr, &m->daddr);
	if (af == LB_AF_INET) {
		struct iphdr *ip = data + L3_OFF;

		if (ip_options_sum(ip, h.l4 - L3_OFF, end) != 0xffff)
			return false;
		m->ttl = ip->ttl;
		len = bpf_ntohs(ip->tot_len);
	} else {
		struct ipv6hdr *ip6 = data + L3_OFF;

		m->ttl = ip6->hop_limit;
		len = bpf_ntohs(ip6->payload_len) + sizeof(*ip6);
	}
	m->icmp = h.l4;
	m->inner = h.l4 + ICMP_HDR;
	m->end = L3_OFF + len;
	return L3_OFF + len <= skb->len && L3_OFF + len >= m->inner &&
	       !bpf_skb_load_bytes(skb, m->icmp, &m->type, 2);
}

/* Does the checksum over the whole message hold? */
static __always_inline bool icmp_sound(struct __sk_buff *skb, const struct icmp_parts *m,
				       enum lb_af af)
{
	__u32 len = m->end - m->icmp;
	__u64 sum = sum_tc(skb, m->icmp, len);

	if (af == LB_AF_INET6)
		sum += pseudo_sum(&m->saddr, &m->daddr, IPPROTO_ICMPV6, len, af);
	return csum_fold(sum) == 0xffff;
}

/* Is the address some service's? */
static __always_inline bool addr_is_virtual(const union lb_addr *addr, enum lb_af af)
{
	struct service_query q = { .af = af };

	q.hash = hash_endpoint(lb_hash_key, addr, 0, 0, af);
	addr_copy(&q.addr, addr, af);
	return filter_has(FILTER_SERVICE, q.hash) && service_lookup(&q);
}

/* Answers an echo request to a VIP, without the options and extension headers that it came with. */
static __noinline int echo_answer(struct __sk_buff *skb, const struct icmp_parts *m, enum lb_af af)
{
	__u32 check = ICMP_OFF(af) + 2, more = m->icmp - ICMP_OFF(af);
	void *data, *end;
	__u8 *type;

	if (!addr_is_virtual(&m->daddr, af))
		return NOT_OURS;
	if (more && bpf_skb_adjust_room(skb, -(__s32)more, BPF_ADJ_ROOM_NET, 0))
		return act_drop(HOOK_INGRESS, LB_DROP_REWRITE);
	if (af == LB_AF_INET ? bpf_l4_csum_replace(skb, check, bpf_htons(ICMP4_ECHO << 8), 0, 2)
			     : bpf_l4_csum_replace(skb, check, bpf_htons(ICMP6_ECHO << 8),
						   bpf_htons(ICMP6_ECHOREPLY << 8), 2))
		return act_drop(HOOK_INGRESS, LB_DROP_REWRITE);
	data = packet_data(skb, HOOK_INGRESS);
	end = packet_end(skb, HOOK_INGRESS);
	type = data + ICMP_OFF(af);
	if ((void *)(type + ICMP_HDR) > end)
		return act_drop(HOOK_INGRESS, LB_DROP_REWRITE);
	mac_swap(data);
	*type = af == LB_AF_INET ? ICMP4_ECHOREPLY : ICMP6_ECHOREPLY;
	if (af == LB_AF_INET) {
		struct iphdr *ip = data + L3_OFF;

		*(__u8 *)ip = 0x45;
		ip->tot_len = bpf_htons(m->end - L3_OFF - more);
		ip->saddr = m->daddr.w[0];
		ip->daddr = m->saddr.w[0];
		ip->ttl = TTL;
		ip->check = 0;
		ip->check = ~ip_header_sum(ip);
	} else {
		struct ipv6hdr *ip6 = data + L3_OFF;

		ip6->payload_len = bpf_htons(m->end - ICMP_OFF(af) - more);
		ip6->nexthdr = IPPROTO_ICMPV6;
		__builtin_memcpy(&ip6->saddr, &m->daddr, 16);
		__builtin_memcpy(&ip6->daddr, &m->saddr, 16);
		ip6->hop_limit = TTL;
	}
	count_verdict(LB_ECHO);
	return act_answer(skb, HOOK_INGRESS);
}
