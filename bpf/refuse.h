/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Refusing a packet at once instead of letting its sender wait, on tcx: an ICMP "port unreachable" from the VIP where no
 * server can take a connection (ip_vs_leave()), a TCP reset for a segment of no connection where the VIP is not an address
 * of this host, whose stack would send it.
 *
 * The packet itself becomes the answer. If its transport checksum is still to be filled in by the device (a local sender's
 * CHECKSUM_PARTIAL), that stays so: the field holds the sum of the pseudo header, which is how it is recognised here.
 */
#pragma once
#include "forward.h"
#include "frame.h"
#include "marked.h"
#include "sum.h"

enum {
	ICMP_HDR = 8,
	ICMP4_ROOM = 20 + ICMP_HDR,
	ICMP6_ROOM = 40 + ICMP_HDR,
	ICMP4_QUOTE = 576 - ICMP4_ROOM,
	ICMP6_QUOTE = 1280 - ICMP6_ROOM, /* as icmp_send(), icmp6_send() */
	ICMP_UNREACH = 3,
	ICMP_HOST = 1,
	ICMP_PORT = 3,
	ICMP_FRAG_NEEDED = 4,
	ICMP_TIME = 11,
	ICMP6_UNREACH = 1,
	ICMP6_ADDR = 3,
	ICMP6_PORT = 4,
	ICMP6_TOO_BIG = 2,
	ICMP6_TIME = 3,
	TOS_CONTROL = 0xc0,
	TOS_ROUTED = 0x1e, /* what icmp_send() takes over of the packet's */
};

struct refusal {
	union lb_addr saddr, daddr; /* of the packet refused */
	__u32 quote;                /* bytes of it in the answer */
	__u16 check;                /* its transport checksum */
	__u16 pad;
	__u8 partial; /* that is still to be completed */
	__u8 header;  /* length of its IP header */
	__u8 tos;     /* of the answer */
	__u8 pad2[3];
	__u32 head, rest; /* what the answer says: type and code, as ICMP_SAYS(); the second word */
};

/* Where a refusal is prepared: the stack has no room for it. */
LB_SCRATCH(lb_refusals, struct refusal, refusal_get)

#define ICMP_SAYS(TYPE, CODE) ((__u32)(TYPE) << 24 | (__u32)(CODE) << 16)

/* The answer's headers, into the room made for them. Its checksum covers the quoted packet: of a partial one, what the
 * device will make of that, namely a transport part that sums to ~check. */
static __always_inline bool write_refusal(struct __sk_buff *skb, const struct refusal *r,
					  enum lb_af af)
{
	__u32 header = af == LB_AF_INET ? 20 : 40;
	__u32 quoted = r->partial ? 0 : sum_tc(skb, L3_OFF + header + ICMP_HDR, r->quote);
	__u8 proto = af == LB_AF_INET ? IPPROTO_ICMP : IPPROTO_ICMPV6;
	void *data = packet_data(skb, HOOK_INGRESS), *end = packet_end(skb, HOOK_INGRESS);
	__u32 *icmp = data + L3_OFF + header;
	void *inner = (void *)icmp + ICMP_HDR;
	__u64 sum;

	if (inner + header > end || !(r->partial || quoted))
		return false;
	mac_swap(data);
	header_write(data, af, &r->daddr, &r->saddr, proto, r->quote + ICMP_HDR, r->tos, 0);
	icmp[0] = bpf_htonl(r->head);
	icmp[1] = bpf_htonl(r->rest);
	sum = (__u64)icmp[0] + icmp[1] + quoted;
	if (r->partial) /* and an IPv4 header, with or without options, sums to nothing */
		sum += (af == LB_AF_INET6 ? sum_words(inner, inner + header, header / 4) : 0) +
		       (__u32)(__u16)~r->check;
	if (af == LB_AF_INET6)
		sum += pseudo_sum(&r->daddr, &r->saddr, proto, r->quote + ICMP_HDR, af);
	((__u16 *)icmp)[1] = ~csum_fold(sum);
	return true;
}

/* What the answer needs to know of the packet, before that is cut and moved. */
static __always_inline bool refusal_of(struct __sk_buff *skb, enum lb_af af, struct refusal *r)
{
	void *data = packet_data(skb, HOOK_INGRESS), *end = packet_end(skb, HOOK_INGRESS), *l4;
	__u32 len, off;
	__u8 proto;

	if (af == LB_AF_INET) {
		struct iphdr *ip = data + L3_OFF;

		if ((void *)(ip + 1) > end)
			return false;
		r->header = ip->ihl * 4;
		r->tos = TOS_CONTROL | (ip->tos & TOS_ROUTED);
		proto = ip->protocol;
		len = bpf_ntohs(ip->tot_len);
	} else {
		struct ipv6hdr *ip6 = data + L3_OFF;

		if ((void *)(ip6 + 1) > end)
			return false;
		r->header = 40;
		proto = ip6->nexthdr;
		len = bpf_ntohs(ip6->payload_len) + 40;
	}
	addresses_read(data, af, &r->saddr, &r->daddr);
	l4 = data + L3_OFF + r->header;
	off = proto == IPPROTO_TCP ? offsetof(struct tcphdr, check)
				   : offsetof(struct udphdr, check);
	if (l4 + off + 2 > end)
		return false;
	r->check = *(__u16 *)(l4 + off);
	r->partial = (proto == IPPROTO_TCP || proto == IPPROTO_UDP) &&
		     r->check == pseudo_sum(&r->saddr, &r->daddr, proto, len - r->header, af);
	r->quote = len;
	return true;
}

/* An answer to who did not ask this host comes from the address that the host has towards him, where that is known. */
static __noinline int refusal_own_source(struct __sk_buff *skb, struct refusal *r, enum lb_af af)
{
	struct bpf_fib_lookup f = {};
	union lb_addr *src = (union lb_addr *)f.ipv6_src;

	f.family = af == LB_AF_INET ? AF_INET_ : AF_INET6_;
	f.tot_len = 1;
	__builtin_memcpy(f.ipv6_dst, &r->saddr, 16);
	fib_output(skb, &f, skb->ifindex);
	source_fill(&f, &r->saddr);
	if (src->w[0] || src->d[1])
		addr_copy(&r->daddr, src, af);
	return 0;
}

/* Answers a request by an ICMP error: `says` is ICMP_SAYS() and the verdict, `rest` its second word. The tcx action. */
__noinline int refuse(struct __sk_buff *skb, __u32 hook, enum lb_af af, __u32 says, __u32 rest)
{
	__u32 most = af == LB_AF_INET ? ICMP4_QUOTE : ICMP6_QUOTE,
	      room = af == LB_AF_INET ? ICMP4_ROOM : ICMP6_ROOM;
	struct refusal *r = refusal_get();

	if (!r || !refusal_of(skb, af, r))
		goto failed;
	if ((says & 0xff) == LB_REFUSE_STRAY)
		refusal_own_source(skb, r, af);
	r->head = says & 0xffff0000;
	r->rest = rest;
	if (r->quote > most)
		r->quote = most;
	if (skb->len != L3_OFF + r->quote && bpf_skb_change_tail(skb, L3_OFF + r->quote, 0))
		goto failed;
	if (bpf_skb_adjust_room(skb, room, BPF_ADJ_ROOM_MAC, 0) || bpf_skb_pull_data(skb, 0))
		goto failed;
	if (!write_refusal(skb, r, af))
		goto failed;
	count_verdict(says & 0xff);
	if (hook == HOOK_MARKED)
		return marked_answer(skb);
	return act_answer(skb, hook);
failed:
	count_verdict(LB_DROP_REFUSE_FAILED);
	return 2; /* TC_ACT_SHOT */
}

/* Answers by an ICMP port unreachable, counted under `why`: what no server can take, what belongs to no connection. The tcx
 * action. */
static __always_inline int refuse_port(struct __sk_buff *skb, __u32 hook, enum lb_af af,
				       enum lb_verdict why)
{
	return refuse(skb, hook, af,
		      why | (af == LB_AF_INET ? ICMP_SAYS(ICMP_UNREACH, ICMP_PORT)
					      : ICMP_SAYS(ICMP6_UNREACH, ICMP6_PORT)),
		      0);
}

/* The reset that answers a segment (RFC 9293, 3.5.2), written over it; the packet is cut to headers already. */
static __always_inline bool write_reset(struct __sk_buff *skb, const struct refusal *r,
					enum lb_af af, const struct tcphdr *old, __u32 segment)
{
	void *data = packet_data(skb, HOOK_INGRESS), *end = packet_end(skb, HOOK_INGRESS);
	struct tcphdr *th = data + L3_OFF + (af == LB_AF_INET ? 20 : 40);
	__u16 pseudo = pseudo_sum(&r->saddr, &r->daddr, IPPROTO_TCP, sizeof(*th), af);
	__u32 seq = old->ack ? old->ack_seq : 0;
	__u32 ack = old->ack ? 0 : bpf_htonl(bpf_ntohl(old->seq) + segment);

	if ((void *)(th + 1) > end)
		return false;
	mac_swap(data);
	header_write(data, af, &r->daddr, &r->saddr, IPPROTO_TCP, sizeof(*th), 0, IP_DONT_FRAGMENT);
	th->source = old->dest;
	th->dest = old->source;
	th->seq = seq;
	th->ack_seq = ack;
	((__u32 *)th)[3] = bpf_htonl(5 << 28 | (TCP_RST | (old->ack ? 0 : TCP_ACK)) << 16);
	th->check = 0;
	th->urg_ptr = 0;
	th->check = r->partial ? pseudo : ~csum_fold(sum_words(th, th + 1, 5) + pseudo);
	return true;
}

/* Answers a segment that belongs to no connection. The tcx action. */
__noinline int refuse_reset(struct __sk_buff *skb, __u32 l4, enum lb_af af)
{
	__u32 header = af == LB_AF_INET ? 20 : 40, segment;
	struct refusal r = {};
	struct tcphdr old;

	if (!refusal_of(skb, af, &r) || bpf_skb_load_bytes(skb, l4, &old, sizeof(old)))
		goto failed;
	count_verdict(LB_REFUSE_NO_CONN);
	if (old.rst)
		return 2; /* TC_ACT_SHOT: a reset is not answered */
	segment = r.quote - (l4 - L3_OFF) - old.doff * 4 + old.syn + old.fin;
	if (bpf_skb_change_tail(skb, L3_OFF + header + sizeof(old), 0) ||
	    bpf_skb_pull_data(skb, 0) || !write_reset(skb, &r, af, &old, segment))
		goto failed;
	return act_answer(skb, HOOK_INGRESS);
failed:
	count_verdict(LB_DROP_REFUSE_FAILED);
	return 2; /* TC_ACT_SHOT */
}

/* Has this host's stack a socket for the segment, connected or listening? (A function of its own for the stack's sake.) */
static __noinline bool stack_has_socket(struct __sk_buff *skb, __u32 l4, enum lb_af af)
{
	void *data = packet_data(skb, HOOK_INGRESS), *end = packet_end(skb, HOOK_INGRESS);
	struct bpf_sock_tuple t = {};
	struct tcphdr *th = data + (l4 & 127);
	struct bpf_sock *sk;

	if (data + L3_OFF + (af == LB_AF_INET ? 20 : 40) > end || (void *)(th + 1) > end)
		return false;
	if (af == LB_AF_INET) {
		struct iphdr *ip = data + L3_OFF;

		t.ipv4.saddr = ip->saddr;
		t.ipv4.daddr = ip->daddr;
		t.ipv4.sport = th->source;
		t.ipv4.dport = th->dest;
	} else {
		struct ipv6hdr *ip6 = data + L3_OFF;

		__builtin_memcpy(t.ipv6.saddr, &ip6->saddr, 16);
		__builtin_memcpy(t.ipv6.daddr, &ip6->daddr, 16);
		t.ipv6.sport = th->source;
		t.ipv6.dport = th->dest;
	}
	sk = bpf_skc_lookup_tcp(skb, &t, af == LB_AF_INET ? sizeof(t.ipv4) : sizeof(t.ipv6),
				BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return false;
	bpf_sk_release(sk);
	return true;
}

/* May the packet's destination be this host's own address? The fib says the same of an address that it has no route to. (A
 * function of its own for the stack's sake.) */
static __noinline bool destination_may_be_local(struct __sk_buff *skb, enum lb_af af)
{
	void *data = packet_data(skb, HOOK_INGRESS), *end = packet_end(skb, HOOK_INGRESS);
	struct bpf_fib_lookup f = {};

	f.ifindex = skb->ifindex;
	if (af == LB_AF_INET) {
		struct iphdr *ip = data + L3_OFF;

		if ((void *)(ip + 1) > end)
			return true;
		f.family = AF_INET_;
		f.ipv4_src = ip->saddr;
		f.ipv4_dst = ip->daddr;
	} else {
		struct ipv6hdr *ip6 = data + L3_OFF;

		if ((void *)(ip6 + 1) > end)
			return true;
		f.family = AF_INET6_;
		__builtin_memcpy(f.ipv6_src, &ip6->saddr, 16);
		__builtin_memcpy(f.ipv6_dst, &ip6->daddr, 16);
	}
	return bpf_fib_lookup(skb, &f, sizeof(f), 0) == BPF_FIB_LKUP_RET_NOT_FWDED;
}

/* Is a segment of no connection the stack's? With IPVS all are; here only those that it has a socket for, as its answer to
 * any other is the reset that it gets here. A service of any port may have a segment of the host's own or of a host behind
 * it: what goes to an address of the host is the stack's; and of a service by mark also what it forwards. */
static __always_inline bool segment_is_local(struct packet *p, enum lb_af af, __u32 service)
{
	struct lb_service *svc = service_at(service);

	if (svc && svc->fwmark)
		return true;
	return destination_may_be_local(p->ctx, af) &&
	       ((svc && svc->vport != p->t.dport) || stack_has_socket(p->ctx, p->l4, af));
}
