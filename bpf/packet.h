/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A packet, parsed: the one place that knows headers. Every later step takes `struct packet`.
 * `hook` and `af` are constants wherever they are used (all of this is inlined), so one source serves XDP and tcx, IPv4
 * and IPv6, and the compiler drops what does not apply.
 */
#pragma once
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <linux/icmpv6.h>
#include "maps.h"
#include "hash.h"

enum lb_hook { HOOK_XDP, HOOK_INGRESS, HOOK_EGRESS };

enum {
	L3_OFF = ETH_HLEN,
	IP_FRAGMENT = 0x3fff, /* MF and the offset; not DF */
	TCP_FIN = 1,
	TCP_SYN = 2,
	TCP_RST = 4,
	TCP_ACK = 16,
};

/* What parsing says of a packet. */
enum parsed {
	PARSED_FLOW,    /* TCP or UDP with valid headers */
	PARSED_ICMP,    /* ICMP of this family, for icmp.h */
	PARSED_BROKEN,  /* addresses and ports are there, but lengths or checksum are wrong */
	PARSED_FOREIGN, /* none of ours: another protocol, a fragment, too short to say */
};

struct tuple {
	union lb_addr saddr, daddr; /* IPv4: only w[0] is set */
	__be16 sport, dport;
	__u8 proto;
};

struct packet {
	void *ctx;
	struct tuple t;
	__u64 src, dst; /* hash_endpoint() of the two ends */
	__u32 now;      /* tick */
	__u32 ip_len;   /* bytes from the IP header on */
	__u32 wire_len; /* the same of the greatest packet on the wire: GSO cuts it */
	__u16 l4;       /* offset of the transport header */
	__u8 tcp_flags;
	__u8 ttl;
	__u8 gso; /* one skb for many segments: IP lengths are not to be trusted */
};

static __always_inline void *packet_data(void *ctx, enum lb_hook hook)
{
	return (void *)(long)(hook == HOOK_XDP ? ((struct xdp_md *)ctx)->data
					       : ((struct __sk_buff *)ctx)->data);
}

static __always_inline void *packet_end(void *ctx, enum lb_hook hook)
{
	return (void *)(long)(hook == HOOK_XDP ? ((struct xdp_md *)ctx)->data_end
					       : ((struct __sk_buff *)ctx)->data_end);
}

static __always_inline __u32 packet_ifindex(void *ctx, enum lb_hook hook)
{
	return hook == HOOK_XDP ? ((struct xdp_md *)ctx)->ingress_ifindex
				: ((struct __sk_buff *)ctx)->ifindex;
}

static __always_inline __u32 packet_len(void *ctx, enum lb_hook hook)
{
	if (hook == HOOK_XDP)
		return ((struct xdp_md *)ctx)->data_end - ((struct xdp_md *)ctx)->data;
	return ((struct __sk_buff *)ctx)->len;
}

static __always_inline __u32 clock_tick(void)
{
	return bpf_jiffies64() >> lb_tick_shift;
}

/* One's complement sum of an IPv4 header without options; 0xffff when its checksum is right. */
static __always_inline __u32 ip_header_sum(const struct iphdr *ip)
{
	const __u32 *w = (const __u32 *)ip;
	__u64 sum = (__u64)w[0] + w[1] + w[2] + w[3] + w[4];

	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/* The transport header: ports, flags, lengths. `left` is what the IP header leaves for it. */
static __always_inline enum parsed parse_transport(struct packet *p, void *l4, void *end, __u32 left)
{
	if (p->t.proto == IPPROTO_TCP) {
		struct tcphdr *th = l4;

		if ((void *)(th + 1) > end)
			return PARSED_FOREIGN;
		p->t.sport = th->source;
		p->t.dport = th->dest;
		p->tcp_flags = ((__u8 *)th)[13];
		if (th->doff < 5 || th->doff * 4 > left)
			return PARSED_BROKEN;
		p->wire_len = th->doff * 4;
		return PARSED_FLOW;
	}
	if (p->t.proto == IPPROTO_UDP) {
		struct udphdr *uh = l4;
		__u32 len;

		if ((void *)(uh + 1) > end)
			return PARSED_FOREIGN;
		p->t.sport = uh->source;
		p->t.dport = uh->dest;
		p->tcp_flags = 0;
		len = bpf_ntohs(uh->len);
		if (len < sizeof(*uh) || (len > left && !p->gso))
			return PARSED_BROKEN;
		p->wire_len = sizeof(*uh);
		return PARSED_FLOW;
	}
	return PARSED_FOREIGN;
}

/* Reads an IPv4 packet. XDP leaves packets with options to tcx, which leaves them to the stack to forward. */
static __always_inline enum parsed parse_ipv4(struct packet *p, enum lb_hook hook, void *data,
					      void *end)
{
	struct iphdr *ip = data + L3_OFF;
	__u32 room = packet_len(p->ctx, hook) - L3_OFF, header;
	enum parsed verdict;

	if ((void *)(ip + 1) > end || ip->version != 4 || ip->ihl < 5)
		return PARSED_FOREIGN;
	if (hook == HOOK_XDP && ip->ihl != 5)
		return PARSED_FOREIGN;
	header = hook == HOOK_XDP ? 20 : ip->ihl * 4;
	p->t.saddr.w[0] = ip->saddr;
	p->t.daddr.w[0] = ip->daddr;
	p->t.proto = ip->protocol;
	p->ttl = ip->ttl;
	p->l4 = L3_OFF + header;
	p->ip_len = p->gso ? room : bpf_ntohs(ip->tot_len);
	if (ip->frag_off & bpf_htons(IP_FRAGMENT))
		return PARSED_FOREIGN;
	if (p->t.proto == IPPROTO_ICMP)
		return p->ip_len <= room ? PARSED_ICMP : PARSED_FOREIGN;
	if (p->ip_len > room || p->ip_len < header)
		verdict = PARSED_BROKEN;
	else
		verdict = header == 20 && ip_header_sum(ip) != 0xffff ? PARSED_BROKEN : PARSED_FLOW;
	room = parse_transport(p, data + p->l4, end, p->ip_len - header);
	return verdict == PARSED_BROKEN && room == PARSED_FLOW ? PARSED_BROKEN : room;
}

static __always_inline enum parsed parse_ipv6(struct packet *p, enum lb_hook hook, void *data,
					      void *end)
{
	struct ipv6hdr *ip6 = data + L3_OFF;
	__u32 room = packet_len(p->ctx, hook) - L3_OFF, payload;
	enum parsed verdict;

	if ((void *)(ip6 + 1) > end || ip6->version != 6)
		return PARSED_FOREIGN;
	__builtin_memcpy(&p->t.saddr, &ip6->saddr, 16);
	__builtin_memcpy(&p->t.daddr, &ip6->daddr, 16);
	p->t.proto = ip6->nexthdr;
	p->ttl = ip6->hop_limit;
	p->l4 = L3_OFF + sizeof(*ip6);
	payload = p->gso ? room - (__u32)sizeof(*ip6) : bpf_ntohs(ip6->payload_len);
	p->ip_len = payload + sizeof(*ip6);
	if (p->t.proto == IPPROTO_ICMPV6)
		return p->ip_len <= room ? PARSED_ICMP : PARSED_FOREIGN;
	verdict = parse_transport(p, ip6 + 1, end, payload);
	return verdict == PARSED_FLOW && p->ip_len > room ? PARSED_BROKEN : verdict;
}

/* Where the transport header is: a constant but for IPv4 options, which only tcx takes. */
static __always_inline __u32 transport_offset(const struct packet *p, enum lb_hook hook,
					      enum lb_af af)
{
	if (af == LB_AF_INET6)
		return L3_OFF + sizeof(struct ipv6hdr);
	return hook == HOOK_XDP ? L3_OFF + sizeof(struct iphdr) : p->l4 & 127;
}

/* Makes the headers of a non-linear skb readable; false when the packet is too short for them. */
static __always_inline bool packet_pull(void *ctx, enum lb_hook hook, __u32 want)
{
	void *data = packet_data(ctx, hook), *end = packet_end(ctx, hook);
	__u32 len = packet_len(ctx, hook);

	if (hook == HOOK_XDP || data + want <= end || (__u64)(end - data) >= len)
		return true;
	return bpf_skb_pull_data(ctx, want < len ? want : len) == 0;
}

static __always_inline enum parsed packet_parse(struct packet *p, enum lb_hook hook, enum lb_af af)
{
	enum parsed verdict;

	if (!packet_pull(p->ctx, hook, af == LB_AF_INET ? 54 : 74))
		return PARSED_FOREIGN;
	p->gso = hook != HOOK_XDP && ((struct __sk_buff *)p->ctx)->gso_segs > 1;
	verdict = af == LB_AF_INET
			  ? parse_ipv4(p, hook, packet_data(p->ctx, hook), packet_end(p->ctx, hook))
			  : parse_ipv6(p, hook, packet_data(p->ctx, hook), packet_end(p->ctx, hook));
	if (verdict == PARSED_FLOW || verdict == PARSED_BROKEN) {
		if (p->gso)
			p->wire_len += transport_offset(p, hook, af) - L3_OFF +
				       ((struct __sk_buff *)p->ctx)->gso_size;
		else
			p->wire_len = p->ip_len;
		p->src = hash_endpoint(lb_hash_key, &p->t.saddr, p->t.sport, p->t.proto, af);
		p->dst = hash_endpoint(lb_hash_key, &p->t.daddr, p->t.dport, p->t.proto, af);
	}
	return verdict;
}
