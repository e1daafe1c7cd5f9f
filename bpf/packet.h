/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A packet, parsed: the one place that knows headers. Every later step takes `struct packet`.
 * `hook` and `af` are constants wherever they are used (all of this is inlined), so one source serves XDP and tcx, IPv4
 * and IPv6, and the compiler drops what does not apply.
 */
#pragma once
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <linux/icmpv6.h>
#include "sctp.h"
#include "hash.h"

enum {
	L3_OFF = LB_BARE ? 0 : ETH_HLEN,
	IP_FRAGMENT = 0x3fff, /* MF and the offset; not DF */
	IP_OFFSET = 0x1fff,
	GSO_BY_FRAGS = 0xffff,
	IP_MORE = 0x2000,
	IP_DONT_FRAGMENT = 0x4000,
	TTL = 64, /* of what is sent from here */
	TCP_FIN = 1,
	TCP_SYN = 2,
	TCP_RST = 4,
	TCP_ACK = 16,
	TCP_STATE_FLAGS = TCP_FIN | TCP_SYN | TCP_RST | TCP_ACK,
};

struct tuple {
	union lb_addr saddr, daddr; /* IPv4: only w[0] is set */
	__be16 sport, dport;
	__u8 proto;
};

/* What is odd about a packet that is not plain (headers.h). */
enum packet_shape {
	SHAPE_FIRST = 1, /* the first fragment of a datagram */
	SHAPE_LATER = 2, /* a later one: no transport header */
};

/* Of a packet, beside what services there are: it came in a tunnel from another node, so it is for a service (decap.h). */
enum { KIND_ARRIVED = 128 };

struct packet {
	void *ctx;
	struct tuple t;
	__u64 src, dst;          /* hash_endpoint() of the two ends */
	__u32 now;               /* tick */
	__u32 ip_len;            /* bytes from the IP header on */
	__u32 wire_len;          /* the same of the greatest packet on the wire: GSO cuts it */
	__u16 l4;                /* offset of the transport header */
	union {                  /* what the packet means for the connection's state */
		__u8 tcp_flags;  /* those that count: TCP_STATE_FLAGS */
		__u8 sctp_event; /* enum sctp_event */
	};
	__u8 ttl;
	__u8 gso; /* one skb for many segments: IP lengths are not to be trusted */
	__u8 kinds; /* enum lb_feature: what services there are, but for those of a whole endpoint; KIND_ARRIVED */
	__u32 mark; /* the firewall mark it is looked up by */
	__u8 odd;   /* not plain; a constant wherever it is used, as is this of a plain one: */
	__u8 shape; /* enum packet_shape */
};

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

/* The same of one with options, `header` bytes long. */
static __always_inline __u32 ip_options_sum(const struct iphdr *ip, __u32 header, void *end)
{
	const __u32 *w = (const __u32 *)ip;
	__u64 sum = ip_header_sum(ip);

	for (__u32 i = 5; i < 15 && i * 4 < header && (void *)(w + i + 1) <= end; i++)
		sum += w[i];
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/*
 * Reading a packet goes in steps, each either a test that changes nothing or a read that cannot fail: so a packet that is
 * not ours leaves by the first test that says so, and nothing is prepared for it.
 */

/* Makes the headers of a non-linear skb readable; false when the packet is too short for them. */
static __always_inline bool packet_pull(void *ctx, enum lb_hook hook, __u32 want)
{
	void *data = packet_data(ctx, hook), *end = packet_end(ctx, hook);
	__u32 len = packet_len(ctx, hook);

	if (hook == HOOK_XDP || data + want <= end || (__u64)(end - data) >= len)
		return true;
	/* SCTP's segments are a list of packets, from which nothing may be pulled; the headers are there. */
	if (((struct __sk_buff *)ctx)->gso_size == GSO_BY_FRAGS)
		return true;
	return bpf_skb_pull_data(ctx, want < len ? want : len) == 0;
}

/* Exchanges a frame's two addresses. */
static __always_inline void mac_swap(void *data)
{
	__u16 *m = data;

	if (LB_BARE)
		return;
	for (int i = 0; i < 3; i++) {
		__u16 x = m[i];

		m[i] = m[i + 3];
		m[i + 3] = x;
	}
}

/* Is there an IP header that says so itself? XDP leaves IPv4 options to tcx. */
static __always_inline bool header_present(enum lb_hook hook, enum lb_af af, void *data, void *end)
{
	if (af == LB_AF_INET) {
		struct iphdr *ip = data + L3_OFF;
		__u8 first;

		if ((void *)(ip + 1) > end)
			return false;
		first = *(__u8 *)ip;
		return first == 0x45 || (hook != HOOK_XDP && first >> 4 == 4 && (first & 15) >= 5);
	}
	return data + L3_OFF + sizeof(struct ipv6hdr) <= end && *(__u8 *)(data + L3_OFF) >> 4 == 6;
}

/* Is it a fragment's? (IPv6 has a header of its own for that.) */
static __always_inline bool header_of_fragment(enum lb_af af, void *data)
{
	struct iphdr *ip = data + L3_OFF;

	return af == LB_AF_INET && ip->frag_off & bpf_htons(IP_FRAGMENT);
}

/* The two addresses of a present header. */
static __always_inline void addresses_read(void *data, enum lb_af af, union lb_addr *saddr,
					   union lb_addr *daddr)
{
	if (af == LB_AF_INET) {
		saddr->w[0] = ((struct iphdr *)(data + L3_OFF))->saddr;
		daddr->w[0] = ((struct iphdr *)(data + L3_OFF))->daddr;
	} else {
		__builtin_memcpy(saddr, &((struct ipv6hdr *)(data + L3_OFF))->saddr, 16);
		__builtin_memcpy(daddr, &((struct ipv6hdr *)(data + L3_OFF))->daddr, 16);
	}
}

/* Writes a whole header without options for `len` bytes of `proto` behind it; tos and the words of IPv4's identification
 * and fragment offset as given. */
static __always_inline void header_write(void *data, enum lb_af af, const union lb_addr *saddr,
					 const union lb_addr *daddr, __u8 proto, __u32 len,
					 __u8 tos, __u32 fragment)
{
	if (af == LB_AF_INET) {
		struct iphdr *ip = data + L3_OFF;
		__u32 *w = (__u32 *)ip;

		w[0] = bpf_htonl(0x45000000 | (__u32)tos << 16 | (len + sizeof(*ip)));
		w[1] = bpf_htonl(fragment);
		w[2] = bpf_htonl(TTL << 24 | (__u32)proto << 16);
		ip->saddr = saddr->w[0];
		ip->daddr = daddr->w[0];
		ip->check = ~ip_header_sum(ip);
	} else {
		struct ipv6hdr *ip6 = data + L3_OFF;

		*(__u32 *)ip6 = bpf_htonl(0x60000000);
		ip6->payload_len = bpf_htons(len);
		ip6->nexthdr = proto;
		ip6->hop_limit = TTL;
		__builtin_memcpy(&ip6->saddr, saddr, 16);
		__builtin_memcpy(&ip6->daddr, daddr, 16);
	}
}

static __always_inline void header_read(struct packet *p, enum lb_hook hook, enum lb_af af,
					void *data)
{
	if (af == LB_AF_INET) {
		struct iphdr *ip = data + L3_OFF;

		p->t.proto = ip->protocol;
		p->ttl = ip->ttl;
		p->l4 = L3_OFF + (hook == HOOK_XDP ? 20 : ip->ihl * 4);
		p->ip_len = bpf_ntohs(ip->tot_len);
	} else {
		struct ipv6hdr *ip6 = data + L3_OFF;

		p->t.proto = ip6->nexthdr;
		p->ttl = ip6->hop_limit;
		p->l4 = L3_OFF + sizeof(*ip6);
		p->ip_len = bpf_ntohs(ip6->payload_len) + sizeof(*ip6);
	}
	addresses_read(data, af, &p->t.saddr, &p->t.daddr);
	p->gso = hook != HOOK_XDP && ((struct __sk_buff *)p->ctx)->gso_segs > 1;
	if (p->gso)
		p->ip_len = packet_len(p->ctx, hook) - L3_OFF;
}

/* Where the transport header is: a constant but for IPv4 options and IPv6 extension headers, which only tcx takes. */
static __always_inline __u32 transport_offset(const struct packet *p, enum lb_hook hook,
					      enum lb_af af)
{
	if (af == LB_AF_INET6)
		return p->odd ? p->l4 & 1023 : L3_OFF + sizeof(struct ipv6hdr);
	return hook == HOOK_XDP ? L3_OFF + sizeof(struct iphdr) : p->l4 & 127;
}

static __always_inline bool is_transport(__u8 proto)
{
	return proto == IPPROTO_TCP || proto == IPPROTO_UDP || proto == IPPROTO_SCTP;
}

/* Is there a whole header of TCP, UDP or SCTP? */
static __always_inline bool transport_present(const struct packet *p, void *l4, void *end)
{
	if (p->t.proto == IPPROTO_TCP)
		return l4 + sizeof(struct tcphdr) <= end;
	if (p->t.proto == IPPROTO_UDP)
		return l4 + sizeof(struct udphdr) <= end;
	return p->t.proto == IPPROTO_SCTP && l4 + sizeof(struct sctp_header) <= end;
}

static __always_inline void ends_hash(struct packet *p, enum lb_af af)
{
	p->src = hash_endpoint(lb_hash_key, &p->t.saddr, p->t.sport, p->t.proto, af);
	p->dst = hash_endpoint(lb_hash_key, &p->t.daddr, p->t.dport, p->t.proto, af);
}

static __always_inline void transport_read(struct packet *p, enum lb_af af, void *l4)
{
	p->t.sport = ((__be16 *)l4)[0];
	p->t.dport = ((__be16 *)l4)[1];
	ends_hash(p, af);
}

/* Whether the transport header is sound: its length, 0 if it is not. Also reads what it means for the connection. `room` is
 * what the IP header leaves for it. The caller knows that it is there; the verifier forgets. */
static __always_inline __u32 tcp_sound(struct packet *p, void *l4, void *end, __u32 room)
{
	__u32 own;

	if (l4 + sizeof(struct tcphdr) > end)
		return 0;
	p->tcp_flags = ((__u8 *)l4)[13] & TCP_STATE_FLAGS;
	own = ((__u8 *)l4)[12] >> 2 & 60;
	return own < sizeof(struct tcphdr) || own > room ? 0 : own;
}

static __always_inline __u32 udp_sound(struct packet *p, void *l4, void *end, __u32 room)
{
	__u32 len;

	if (l4 + sizeof(struct udphdr) > end)
		return 0;
	len = bpf_ntohs(((struct udphdr *)l4)->len);
	p->tcp_flags = 0;
	if (len < sizeof(struct udphdr) ||
	    (p->shape & SHAPE_FIRST ? room < sizeof(struct udphdr) : len > room && !p->gso))
		return 0;
	return sizeof(struct udphdr);
}

static __always_inline __u32 sctp_sound(struct packet *p, enum lb_hook hook, __u32 at, __u32 room)
{
	__u32 own = sizeof(struct sctp_header);

	if (room < own)
		return 0;
	p->sctp_event = hook == HOOK_XDP ? sctp_event_xdp(p->ctx, at + own, at + room)
					 : sctp_event_tc(p->ctx, at + own, at + room);
	return own;
}

/* Do lengths and the IPv4 checksum hold? For packets of ours only; also reads what only those need. */
static __always_inline bool packet_sound(struct packet *p, enum lb_hook hook, enum lb_af af,
					 void *data, void *l4, void *end)
{
	__u32 room = packet_len(p->ctx, hook) - L3_OFF,
	      header = transport_offset(p, hook, af) - L3_OFF, own;

	if (p->ip_len > room || p->ip_len < header)
		return false;
	if (af == LB_AF_INET &&
	    (hook == HOOK_XDP ? ip_header_sum(data + L3_OFF)
			      : ip_options_sum(data + L3_OFF, header, end)) != 0xffff)
		return false;
	room = p->ip_len - header;
	if (p->shape & SHAPE_LATER) {
		p->wire_len = p->ip_len;
		return true;
	}
	if (p->t.proto == IPPROTO_TCP)
		own = tcp_sound(p, l4, end, room);
	else if (p->t.proto == IPPROTO_UDP)
		own = udp_sound(p, l4, end, room);
	else
		own = sctp_sound(p, hook, L3_OFF + header, room);
	if (!own)
		return false;
	p->wire_len = p->gso ? header + own + ((struct __sk_buff *)p->ctx)->gso_size : p->ip_len;
	return true;
}
