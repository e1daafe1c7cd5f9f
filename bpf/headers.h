/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a packet that is not plain consists of: a fragment, or one with IPv6 extension headers. On tcx only; XDP leaves them
 * to it. Headers are skipped as ipv6_find_hdr() does, also a routing header with segments left.
 */
#pragma once
#include "packet.h"

enum {
	HEADERS_MAX = 8,   /* extension headers; beyond that a packet is the stack's */
	L4_MAX = 1023,     /* the same for the offset of the transport header */
	IPV6_MORE = 1,     /* of a fragment header's offset */
	FRAGMENT_UNIT = 8, /* bytes */
};

struct headers {
	__u32 id;    /* of a fragment: of the datagram that it is one of */
	__u16 l4;    /* offset of the transport header; of a later fragment: of what it has */
	__u16 start; /* offset of what was cut into fragments */
	__u16 from;  /* bytes of that in the fragments before */
	__u8 proto;  /* of the transport header */
	__u8 shape;  /* enum packet_shape */
	__u16 pad;
};

/* The first bytes of every extension header, all of a fragment's. */
struct extension {
	__u8 next, length;
	__be16 offset;
	__be32 id;
};

static __always_inline bool is_extension(__u8 proto)
{
	return proto == IPPROTO_HOPOPTS || proto == IPPROTO_ROUTING || proto == IPPROTO_FRAGMENT ||
	       proto == IPPROTO_AH || proto == IPPROTO_DSTOPTS;
}

/* The bytes of an extension header of the type `proto`. */
static __always_inline __u32 extension_length(__u8 proto, const struct extension *x)
{
	if (proto == IPPROTO_FRAGMENT)
		return sizeof(*x);
	return proto == IPPROTO_AH ? (x->length + 2) * 4 : (x->length + 1) * 8;
}

static __always_inline void fragment_read(struct headers *h, __u32 id, __u32 from, bool more)
{
	h->id = id;
	h->from = from;
	h->shape = from ? SHAPE_LATER : more ? SHAPE_FIRST : 0;
}

static __noinline bool headers_read4(struct __sk_buff *skb, __u32 l3, struct headers *h)
{
	struct iphdr ip;
	__u16 offset;

	if (bpf_skb_load_bytes(skb, l3, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl < 5)
		return false;
	offset = bpf_ntohs(ip.frag_off);
	fragment_read(h, ip.id, (offset & IP_OFFSET) * FRAGMENT_UNIT, offset & IP_MORE);
	h->l4 = h->start = l3 + ip.ihl * 4;
	h->proto = ip.protocol;
	return true;
}

/* False: too many headers, or they end in the middle. */
static __noinline bool headers_read6(struct __sk_buff *skb, __u32 l3, struct headers *h)
{
	__u32 at = l3 + sizeof(struct ipv6hdr);
	struct extension x;
	__u8 proto;

	if (bpf_skb_load_bytes(skb, l3, &proto, 1) || proto >> 4 != 6 ||
	    bpf_skb_load_bytes(skb, l3 + offsetof(struct ipv6hdr, nexthdr), &proto, 1))
		return false;
	for (int i = 0; i < HEADERS_MAX && at <= L4_MAX; i++) {
		h->l4 = at;
		h->proto = proto;
		if (!is_extension(proto) || h->shape & SHAPE_LATER)
			return true;
		if (bpf_skb_load_bytes(skb, at, &x, sizeof(x)))
			return false;
		at += extension_length(proto, &x);
		if (proto == IPPROTO_FRAGMENT) {
			__u16 offset = bpf_ntohs(x.offset);

			fragment_read(h, x.id, offset & ~(FRAGMENT_UNIT - 1), offset & IPV6_MORE);
			h->start = at;
		}
		proto = x.next;
	}
	return false;
}

/* Reads the headers of the packet whose IP header is at `l3`; `h` is empty before. */
static __always_inline bool headers_read(struct __sk_buff *skb, __u32 l3, enum lb_af af,
					 struct headers *h)
{
	return af == LB_AF_INET ? headers_read4(skb, l3, h) : headers_read6(skb, l3, h);
}
