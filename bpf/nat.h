/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Rewriting one end of a packet: address, port, checksums. XDP packets carry whole checksums and are changed in place; on
 * tcx the helpers know about partial and completed ones and about GSO.
 */
#pragma once
#include "crc32c.h"
#include "packet.h"

struct rewrite {
	const union lb_addr *old_addr, *new_addr;
	__be16 old_port, new_port;
	bool source; /* which end */
};

static __always_inline __u16 csum_fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* What replacing the address adds to a one's complement sum. */
static __always_inline __u64 addr_diff(const struct rewrite *r, enum lb_af af)
{
	__u64 d = (__u64)(__u32)~r->old_addr->w[0] + r->new_addr->w[0];

	if (af == LB_AF_INET6)
		for (int i = 1; i < 4; i++)
			d += (__u64)(__u32)~r->old_addr->w[i] + r->new_addr->w[i];
	return d;
}

static __always_inline __u16 csum_apply(__u16 csum, __u64 diff)
{
	return ~csum_fold((__u64)(__u16)~csum + diff);
}

static __always_inline bool rewrite_ip(void *data, void *end, const struct rewrite *r,
				       enum lb_af af, __u64 diff)
{
	if (af == LB_AF_INET) {
		struct iphdr *ip = data + L3_OFF;

		if ((void *)(ip + 1) > end)
			return false;
		if (r->source)
			ip->saddr = r->new_addr->w[0];
		else
			ip->daddr = r->new_addr->w[0];
		ip->check = csum_apply(ip->check, diff);
	} else {
		struct ipv6hdr *ip6 = data + L3_OFF;

		if ((void *)(ip6 + 1) > end)
			return false;
		__builtin_memcpy(r->source ? &ip6->saddr : &ip6->daddr, r->new_addr, 16);
	}
	return true;
}

/* Both ports are at the start of the transport header, whatever it is. */
static __always_inline bool rewrite_port(void *l4, void *end, const struct rewrite *r)
{
	__be16 *ports = l4;

	if ((void *)(ports + 2) > end)
		return false;
	if (r->source)
		ports[0] = r->new_port;
	else
		ports[1] = r->new_port;
	return true;
}

static __always_inline bool rewrite_xdp(struct packet *p, const struct rewrite *r, enum lb_af af)
{
	void *data = packet_data(p->ctx, HOOK_XDP), *end = packet_end(p->ctx, HOOK_XDP), *l4;
	__u64 diff = addr_diff(r, af), ports = (__u64)(__u16)~r->old_port + r->new_port;
	__u16 *check;

	l4 = data + transport_offset(p, HOOK_XDP, af);
	check = l4 + (p->t.proto == IPPROTO_TCP ? offsetof(struct tcphdr, check)
						: offsetof(struct udphdr, check));
	if ((void *)(check + 1) > end || !rewrite_ip(data, end, r, af, diff) ||
	    !rewrite_port(l4, end, r))
		return false;
	if (p->t.proto == IPPROTO_TCP) {
		*check = csum_apply(*check, diff + ports);
	} else if (*check) {
		*check = csum_apply(*check, diff + ports);
		if (!*check)
			*check = 0xffff;
	}
	return true;
}

static __always_inline bool rewrite_tc(struct packet *p, const struct rewrite *r, enum lb_af af)
{
	struct __sk_buff *skb = p->ctx;
	__u32 l4 = transport_offset(p, HOOK_INGRESS, af);
	__u32 check = l4 + (p->t.proto == IPPROTO_TCP ? offsetof(struct tcphdr, check)
						      : offsetof(struct udphdr, check));
	__u64 udp = p->t.proto == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
	void *data, *end;

	if (bpf_l4_csum_replace(skb, check, 0, csum_fold(addr_diff(r, af)), BPF_F_PSEUDO_HDR | udp))
		return false;
	if (r->old_port != r->new_port &&
	    bpf_l4_csum_replace(skb, check, r->old_port, r->new_port, udp | 2))
		return false;
	data = packet_data(skb, HOOK_INGRESS);
	end = packet_end(skb, HOOK_INGRESS);
	return rewrite_ip(data, end, r, af, addr_diff(r, af)) && rewrite_port(data + l4, end, r);
}

/* Rewrites a port of an SCTP packet whose header is at `l4`, `length` bytes with all chunks. The checksum covers neither
 * addresses nor a pseudo header, so it changes with the port alone; on tcx 0 is one that the device will fill in. */
static __always_inline bool sctp_write(void *ctx, enum lb_hook hook, __u32 l4, __u32 length,
				       __u32 ports, bool source)
{
	__u32 difference = (ports >> 16 ^ (ports & 0xffff)) << (source ? 0 : 16);
	struct sctp_header h;
	__be16 port = ports;

	if (hook == HOOK_XDP ? bpf_xdp_load_bytes(ctx, l4, &h, sizeof(h))
			     : bpf_skb_load_bytes(ctx, l4, &h, sizeof(h)))
		return false;
	if (source)
		h.source = port;
	else
		h.dest = port;
	if (hook == HOOK_XDP || h.check)
		h.check ^= crc32c_change(difference, length);
	return !(hook == HOOK_XDP
			 ? bpf_xdp_store_bytes(ctx, l4, &h, sizeof(h))
			 : bpf_skb_store_bytes(ctx, l4, &h, sizeof(h), BPF_F_RECOMPUTE_CSUM));
}

/* (Functions of their own: few packets are SCTP. `ports`: the old one << 16 | the new one.) */
static __noinline bool sctp_write_xdp(struct xdp_md *ctx, __u32 l4, __u32 length, __u32 ports,
				      bool source)
{
	return sctp_write(ctx, HOOK_XDP, l4, length, ports, source);
}

static __noinline bool sctp_write_tc(struct __sk_buff *ctx, __u32 l4, __u32 length, __u32 ports,
				     bool source)
{
	return sctp_write(ctx, HOOK_INGRESS, l4, length, ports, source);
}

/* The change of the checksum depends on how much follows, which the first fragment does not tell. */
static __always_inline bool rewrite_sctp(struct packet *p, enum lb_hook hook, enum lb_af af,
					 const struct rewrite *r)
{
	__u32 l4 = transport_offset(p, hook, af), length = p->ip_len - (l4 - L3_OFF);
	__u32 ports = (__u32)r->old_port << 16 | r->new_port;

	if (r->old_port != r->new_port && p->shape & SHAPE_FIRST)
		return false;
	if (r->old_port != r->new_port &&
	    !(hook == HOOK_XDP ? sctp_write_xdp(p->ctx, l4, length, ports, r->source)
			       : sctp_write_tc(p->ctx, l4, length, ports, r->source)))
		return false;
	return rewrite_ip(packet_data(p->ctx, hook), packet_end(p->ctx, hook), r, af,
			  addr_diff(r, af));
}

/* Rewrites an address of a packet that has no transport header, but for a checksum of all of it that the card took. */
static __always_inline bool rewrite_address(struct packet *p, enum lb_af af, const struct rewrite *r)
{
	__u32 at = L3_OFF +
		   (r->source ? offsetof(struct ipv6hdr, saddr) : offsetof(struct ipv6hdr, daddr));

	if (af == LB_AF_INET6)
		return !bpf_skb_store_bytes(p->ctx, at, r->new_addr, 16, BPF_F_RECOMPUTE_CSUM);
	return rewrite_ip(packet_data(p->ctx, HOOK_INGRESS), packet_end(p->ctx, HOOK_INGRESS), r,
			  af, addr_diff(r, af));
}

/* Rewrites one end of a packet. False: the kernel would not; the packet must go no further. */
static __always_inline bool packet_rewrite(struct packet *p, enum lb_hook hook, enum lb_af af,
					   const struct rewrite *r)
{
	if (p->shape & SHAPE_LATER)
		return rewrite_address(p, af, r);
	if (unlikely(p->t.proto == IPPROTO_SCTP))
		return rewrite_sctp(p, hook, af, r);
	return hook == HOOK_XDP ? rewrite_xdp(p, r, af) : rewrite_tc(p, r, af);
}

/* TTL or hop limit one less, as forwarding does. The caller made sure that it is more than 1. */
static __always_inline bool packet_age(struct packet *p, enum lb_hook hook, enum lb_af af)
{
	void *data = packet_data(p->ctx, hook), *end = packet_end(p->ctx, hook);

	if (af == LB_AF_INET) {
		struct iphdr *ip = data + L3_OFF;
		__u32 check;

		if ((void *)(ip + 1) > end)
			return false;
		check = ip->check +
			bpf_htons(0x0100); /* RFC 1624 by the fast way of ip_decrease_ttl() */
		ip->check = check + (check >= 0xffff);
		ip->ttl--;
	} else {
		struct ipv6hdr *ip6 = data + L3_OFF;

		if ((void *)(ip6 + 1) > end)
			return false;
		ip6->hop_limit--;
	}
	return true;
}
