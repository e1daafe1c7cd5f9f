/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Tunnels to servers: the headers that ip_vs_tunnel_xmit() and ip_vs_tunnel_xmit_v6() put around a packet, for ipip, gue
 * (UDP and a header of 4 bytes, or 12 with a remote checksum) and gre. Outer and inner header may be of different families.
 */
#pragma once
#include "sum.h"
#include "kernel.h"

enum { TUN_IPIP, TUN_GUE, TUN_GRE }; /* IP_VS_CONN_F_TUNNEL_TYPE_* */

enum {
	TUN_CSUM = 1,    /* IP_VS_TUNNEL_ENCAP_FLAG_CSUM */
	TUN_REMCSUM = 2, /* IP_VS_TUNNEL_ENCAP_FLAG_REMCSUM */
	UDP_HDR = 8,
	GUE_HDR = 4,
	GUE_PORT = 6080, /* that nodes of a cluster send to each other's */
	GUE_REMOTE = 8,  /* private flags, and where the sum starts and goes */
	GUE_FLAG_PRIV = 1,
	GUE_PFLAG_REMCSUM = 0x80000000,
	GRE_HDR = 4,
	GRE_SUM = 4,
	GRE_FLAG_CSUM = 0x8000,
	ECN_MASK = 3,
	ECN_ECT0 = 2,
	IPV4_LEAST = 68, /* bytes that every way must take */
	IPV6_LEAST = 1280,
	PORT_LOW = 32768, /* net.ipv4.ip_local_port_range, as the kernel has it by default */
	PORT_HIGH = 60999,
};

/* What goes around a packet. */
struct tunnel {
	union lb_addr saddr, daddr;
	__u32 room; /* bytes of all headers */
	__u32 len;  /* IP length of the packet inside */
	__u32 sum;  /* one's complement sum of the packet inside, where a checksum covers it */
	__be16 sport, dport;
	__u16 fragment;  /* IPv4: DF, or nothing */
	__u16 sum_start; /* with a remote checksum: from the inner header on; 0: none */
	__u16 sum_at;
	__u8 type, af; /* outer */
	__u8 inner;    /* enum lb_af */
	__u8 tos, ttl;
	__u8 checked; /* with a checksum */
};

/* IP in IP of the same family. */
static __always_inline __u8 ipip_protocol(enum lb_af af)
{
	return af == LB_AF_INET ? IPPROTO_IPIP : IPPROTO_IPV6;
}

/* Bytes that a server's tunnel adds, but for a remote checksum. */
static __always_inline __u32 tunnel_room(const struct lb_server *srv)
{
	__u32 room = srv->af == LB_AF_INET6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);

	if (srv->tun_type == TUN_GUE)
		return room + UDP_HDR + GUE_HDR;
	if (srv->tun_type == TUN_GRE)
		return room + GRE_HDR + (srv->tun_flags & TUN_CSUM ? GRE_SUM : 0);
	return room;
}

/* INET_ECN_encapsulate(tos, tos): "congestion experienced" stays inside. */
static __always_inline __u8 tunnel_tos(__u8 tos)
{
	return (tos & ECN_MASK) == ECN_MASK ? (tos & ~ECN_MASK) | ECN_ECT0 : tos;
}

/* The port that a flow's packets come from: any stable hash in the kernel's range, as udp_flow_src_port(). */
static __always_inline __be16 tunnel_port(const struct packet *p)
{
	__u32 hash = hash_pair(lb_hash_key, p->src, p->dst) >> 32;

	return bpf_htons(PORT_LOW + (__u32)((__u64)hash * (PORT_HIGH - PORT_LOW) >> 32));
}

/* The transport checksum of a packet inside. */
struct inner_check {
	bool there; /* the packet has one, and all that it covers */
	bool open;  /* it is still the sum of the pseudo header: somebody after us completes it */
	__u8 proto;
	__u16 at; /* where it is, from the IP header on */
	__u16 pseudo;
};

static __always_inline void inner_check_read(struct inner_check *c, const struct packet *p,
					     enum lb_hook hook, enum lb_af af)
{
	void *data = packet_data(p->ctx, hook), *end = packet_end(p->ctx, hook);
	__u32 l4 = transport_offset(p, hook, af);
	__u16 *check;

	c->there = c->open = false;
	c->at = 0;
	c->proto = p->t.proto;
	if (p->shape)
		return; /* a fragment has only some of what its checksum covers */
	if (p->t.proto != IPPROTO_TCP && p->t.proto != IPPROTO_UDP)
		return;
	c->at = l4 - L3_OFF +
		(p->t.proto == IPPROTO_TCP ? offsetof(struct tcphdr, check)
					   : offsetof(struct udphdr, check));
	check = data + L3_OFF + (c->at & 255);
	if ((void *)(check + 1) > end || !*check)
		return;
	if (af == LB_AF_INET6 && l4 != L3_OFF + sizeof(struct ipv6hdr))
		return; /* nothing covers extension headers */
	c->there = true;
	c->pseudo = pseudo_sum(&p->t.saddr, &p->t.daddr, p->t.proto, p->ip_len + L3_OFF - l4, af);
	c->open = *check == c->pseudo;
}

/* Is the checksum one for the server to complete, with the tunnel's help? Not if the device does it on the way out. */
static __always_inline bool sum_is_remote(const struct inner_check *c, void *ctx, enum lb_hook hook,
					  const struct lb_server *srv)
{
	return srv->tun_type == TUN_GUE && srv->tun_flags & TUN_REMCSUM && c->open &&
	       (hook == HOOK_XDP || !checksum_is_partial(ctx));
}

/* The sum of the packet inside. With a transport checksum, which makes all that it covers sum to the complement of the
 * pseudo header, its bytes are not looked at. An IPv4 header sums to nothing. */
static __always_inline __u32 inner_sum(const struct inner_check *c, const struct packet *p,
				       enum lb_hook hook, enum lb_af af, bool remote)
{
	void *data = packet_data(p->ctx, hook), *end = packet_end(p->ctx, hook);
	void *ip = data + L3_OFF;

	if (!c->there || remote || (af == LB_AF_INET6 && ip + sizeof(struct ipv6hdr) > end))
		return hook == HOOK_XDP ? sum_xdp(p->ctx, L3_OFF, p->ip_len)
					: sum_tc(p->ctx, L3_OFF, p->ip_len);
	return csum_fold((af == LB_AF_INET6 ? sum_words(ip, ip + sizeof(struct ipv6hdr), 10) : 0) +
			 (__u16)~c->pseudo);
}

/* What kind of envelope it is, and how great. */
static __always_inline void tunnel_measure(struct tunnel *t, const struct lb_server *srv,
					   const struct inner_check *c, bool remote)
{
	t->daddr = srv->addr;
	t->dport = srv->tun_port;
	t->type = srv->tun_type;
	t->af = srv->af;
	t->checked = (t->type == TUN_GUE && srv->tun_flags & (TUN_CSUM | TUN_REMCSUM)) ||
		     (t->type == TUN_GRE && srv->tun_flags & TUN_CSUM);
	t->room = tunnel_room(srv) + (remote ? GUE_REMOTE : 0);
	t->sum_at = c->at;
	t->sum_start = 0;
	if (remote)
		t->sum_start = c->at - (c->proto == IPPROTO_TCP ? offsetof(struct tcphdr, check)
								: offsetof(struct udphdr, check));
}

/* Reads of the packet what its envelope takes over. */
static __always_inline bool tunnel_describe(struct tunnel *t, const struct packet *p,
					    enum lb_hook hook, enum lb_af af)
{
	void *data = packet_data(p->ctx, hook), *end = packet_end(p->ctx, hook);

	t->inner = af;
	t->len = p->ip_len;
	t->ttl = p->ttl - 1;
	if (t->type == TUN_GUE)
		t->sport = tunnel_port(p);
	if (af == LB_AF_INET) {
		struct iphdr *ip = data + L3_OFF;

		if ((void *)(ip + 1) > end)
			return false;
		t->tos = tunnel_tos(ip->tos);
		t->fragment = bpf_ntohs(ip->frag_off) & IP_DONT_FRAGMENT;
	} else {
		__be32 *word = data + L3_OFF;

		if ((void *)(word + 1) > end)
			return false;
		t->tos = tunnel_tos(bpf_ntohl(*word) >> 20);
		t->fragment = 0;
	}
	return true;
}

/* What follows the outer IP header. */
static __always_inline __u8 tunnel_proto(const struct tunnel *t)
{
	if (t->type == TUN_GUE)
		return IPPROTO_UDP;
	if (t->type == TUN_GRE)
		return IPPROTO_GRE;
	return t->inner == LB_AF_INET ? IPPROTO_IPIP : IPPROTO_IPV6;
}

static __always_inline bool write_gre(void *at, void *end, const struct tunnel *t)
{
	__u16 *gre = at;

	if ((void *)(gre + GRE_HDR / 2) > end)
		return false;
	gre[0] = t->checked ? bpf_htons(GRE_FLAG_CSUM) : 0;
	gre[1] = t->inner == LB_AF_INET ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6);
	if (!t->checked)
		return true;
	if ((void *)(gre + (GRE_HDR + GRE_SUM) / 2) > end)
		return false;
	gre[3] = 0;
	gre[2] = ~csum_fold((__u64)gre[0] + gre[1] + t->sum);
	return true;
}

/* `len`: of the UDP packet. */
static __always_inline bool write_gue(void *at, void *end, const struct tunnel *t, __u32 len)
{
	struct udphdr *udp = at;
	__u32 *gue = (void *)(udp + 1);
	__u64 sum = t->sum;

	if ((void *)(gue + 1) > end)
		return false;
	udp->source = t->sport;
	udp->dest = t->dport;
	udp->len = bpf_htons(len);
	udp->check = 0;
	*gue = bpf_htonl((t->sum_start ? (GUE_REMOTE / 4) << 24 | GUE_FLAG_PRIV : 0) |
			 (t->inner == LB_AF_INET ? IPPROTO_IPIP : IPPROTO_IPV6) << 16);
	sum += *gue;
	if (t->sum_start) {
		if ((void *)(gue + 3) > end)
			return false;
		gue[1] = bpf_htonl(GUE_PFLAG_REMCSUM);
		gue[2] = bpf_htonl((__u32)t->sum_start << 16 | t->sum_at);
		sum += (__u64)gue[1] + gue[2];
	}
	if (!t->checked)
		return true;
	sum += (__u32)udp->source + udp->dest + udp->len;
	sum += pseudo_sum(&t->saddr, &t->daddr, IPPROTO_UDP, len, LB_AF_INET6);
	udp->check = ~csum_fold(sum);
	if (!udp->check)
		udp->check = 0xffff;
	return true;
}

/* The IP header. With DF there is no identification, else a random one. */
static __always_inline bool write_outer4(void *data, void *end, const struct tunnel *t)
{
	struct iphdr *ip = data + L3_OFF;
	__u32 *w = (__u32 *)ip;

	if ((void *)(ip + 1) > end)
		return false;
	w[0] = bpf_htonl(0x45000000 | (__u32)t->tos << 16 | ((t->len + t->room) & 0xffff));
	w[1] = bpf_htonl(t->fragment ? t->fragment : bpf_get_prandom_u32() << 16);
	w[2] = bpf_htonl((__u32)t->ttl << 24 | (__u32)tunnel_proto(t) << 16);
	ip->saddr = t->saddr.w[0];
	ip->daddr = t->daddr.w[0];
	ip->check = ~ip_header_sum(ip);
	return true;
}

static __always_inline bool write_outer6(void *data, void *end, const struct tunnel *t)
{
	struct ipv6hdr *ip6 = data + L3_OFF;

	if ((void *)(ip6 + 1) > end)
		return false;
	*(__u32 *)ip6 = bpf_htonl(0x60000000 | (__u32)t->tos << 20);
	ip6->payload_len = bpf_htons(t->len + t->room - sizeof(*ip6));
	ip6->nexthdr = tunnel_proto(t);
	ip6->hop_limit = t->ttl;
	__builtin_memcpy(&ip6->saddr, &t->saddr, 16);
	__builtin_memcpy(&ip6->daddr, &t->daddr, 16);
	return true;
}

/* Says in the frame, if there is one, of which family the packet is now. */
static __always_inline bool frame_retype(void *data, void *end, enum lb_af af)
{
	__be16 *type = data + offsetof(struct ethhdr, h_proto);

	if (LB_BARE)
		return true;
	if ((void *)(type + 1) > end)
		return false;
	*type = af == LB_AF_INET6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);
	return true;
}

/* Writes the headers into the room made for them; the MAC addresses are hop_send()'s. */
static __always_inline bool tunnel_write(void *ctx, enum lb_hook hook, const struct tunnel *t)
{
	void *data = packet_data(ctx, hook), *end = packet_end(ctx, hook), *next;
	__u32 outer = sizeof(struct iphdr);

	if (!frame_retype(data, end, t->af))
		return false;
	if (t->af == LB_AF_INET6) {
		outer = sizeof(struct ipv6hdr);
		if (!write_outer6(data, end, t))
			return false;
		next = data + L3_OFF + sizeof(struct ipv6hdr);
	} else {
		if (!write_outer4(data, end, t))
			return false;
		next = data + L3_OFF + sizeof(struct iphdr);
	}
	if (t->type == TUN_GRE)
		return write_gre(next, end, t);
	return t->type != TUN_GUE || write_gue(next, end, t, t->len + t->room - outer);
}

/* Is the way to a tunnel's server too narrow to be used at all? */
static __always_inline bool tunnel_is_narrow(const struct tunnel *t, __u32 mtu)
{
	return t->room && (__s32)(mtu - t->room) < (t->af == LB_AF_INET6 ? IPV6_LEAST : IPV4_LEAST);
}

/* Makes the room. */
static __always_inline bool tunnel_push(void *ctx, enum lb_hook hook, const struct tunnel *t)
{
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO;

	if (hook == HOOK_XDP)
		return bpf_xdp_adjust_head(ctx, -(int)t->room) == 0;
	flags |= t->af == LB_AF_INET6 ? BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 : BPF_F_ADJ_ROOM_ENCAP_L3_IPV4;
	if (t->type == TUN_GUE)
		flags |= BPF_F_ADJ_ROOM_ENCAP_L4_UDP;
	else if (t->type == TUN_GRE)
		flags |= BPF_F_ADJ_ROOM_ENCAP_L4_GRE;
	return bpf_skb_adjust_room(ctx, t->room, BPF_ADJ_ROOM_MAC, flags) == 0;
}

/* Puts the envelope that was measured around the packet. */
static __always_inline bool tunnel_wrap(struct tunnel *t, const struct packet *p, enum lb_hook hook,
					enum lb_af af)
{
	return tunnel_describe(t, p, hook, af) && tunnel_push(p->ctx, hook, t) &&
	       tunnel_write(p->ctx, hook, t);
}
