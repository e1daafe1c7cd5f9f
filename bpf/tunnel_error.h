/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * ICMP errors that come back to this host about a packet that it sent through a tunnel. As ip_vs_in_icmp() does, the client
 * is told, by an error that quotes what it had sent: so it learns of a smaller MTU on the way to the server. As in the
 * kernel, for IPv4 in IPv4 only.
 */
#pragma once
#include "transmit.h"

enum {
	ANSWER_OFF = L3_OFF + 20 + ICMP_HDR, /* what the client is told about */
	GRE_FLAGS_KNOWN = GRE_FLAG_CSUM,
	GUE_HLEN = 0x1f,
	GUE_CONTROL = 0x20,
	PMTU_LEAST = 552, /* net.ipv4.route.min_pmtu */
};

/* What such an error is about. */
struct tunneled {
	union lb_addr server; /* that the tunnel leads to */
	__u32 quoted;         /* offset of the header that it quotes: ours around the packet */
	__u32 inner;          /* of the packet that was in it */
	__be16 port;          /* gue: that it was sent to */
	__u8 type;
	__u8 tos;
	__u32 fragment; /* IPv4's word of the packet */
	__u32 length;   /* IP length of the error */
};

/* Reads the tunnel's headers: the bytes behind the outer IP header, 0: no tunnel. */
static __always_inline __u32 tunneled_read(struct __sk_buff *skb, struct tunneled *t, __u8 proto,
					   __u32 at)
{
	__u16 w[6] = {};
	__u8 *gue = (__u8 *)&w[4];

	if (proto == IPPROTO_IPIP) {
		t->type = TUN_IPIP;
		return sizeof(struct iphdr);
	}
	if (proto == IPPROTO_GRE) {
		t->type = TUN_GRE;
		if (bpf_skb_load_bytes(skb, at, w, GRE_HDR) || w[1] != bpf_htons(ETH_P_IP) ||
		    w[0] & bpf_htons((__u16)~GRE_FLAGS_KNOWN))
			return 0;
		return sizeof(struct iphdr) + GRE_HDR + (w[0] ? GRE_SUM : 0);
	}
	t->type = TUN_GUE;
	if (proto != IPPROTO_UDP || bpf_skb_load_bytes(skb, at, w, sizeof(w)) ||
	    gue[0] & ~GUE_HLEN || gue[1] != IPPROTO_IPIP)
		return 0;
	t->port = w[1];
	return sizeof(struct iphdr) + UDP_HDR + GUE_HDR + gue[0] * 4;
}

/* Reads the ends of the packet that was in the tunnel. False: the error quotes too little of it, or something else. */
static __always_inline bool tunneled_flow(struct __sk_buff *skb, struct tunneled *t,
					  struct packet *q)
{
	struct iphdr ip;
	__be16 ports[2];

	if (bpf_skb_load_bytes(skb, t->inner, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl < 5 ||
	    ip.frag_off & bpf_htons(IP_OFFSET) ||
	    bpf_skb_load_bytes(skb, t->inner + ip.ihl * 4, ports, sizeof(ports)))
		return false;
	t->tos = ip.tos;
	t->fragment = bpf_ntohs(ip.frag_off);
	q->t.saddr.w[0] = ip.saddr;
	q->t.daddr.w[0] = ip.daddr;
	q->t.sport = ports[0];
	q->t.dport = ports[1];
	q->t.proto = ip.protocol;
	q->src = hash_endpoint(lb_hash_key, &q->t.saddr, ports[0], ip.protocol, LB_AF_INET);
	q->dst = hash_endpoint(lb_hash_key, &q->t.daddr, ports[1], ip.protocol, LB_AF_INET);
	return true;
}

/* Reads all of it: what the quoted header sent from here, and around what. */
static __always_inline bool tunneled_parse(struct __sk_buff *skb, struct tunneled *t,
					   struct packet *q)
{
	struct iphdr outer, ours;
	__u32 room;

	if (bpf_skb_load_bytes(skb, L3_OFF, &outer, sizeof(outer)))
		return false;
	t->length = bpf_ntohs(outer.tot_len);
	t->quoted = L3_OFF + outer.ihl * 4 + ICMP_HDR;
	if (bpf_skb_load_bytes(skb, t->quoted, &ours, sizeof(ours)) || ours.version != 4 ||
	    ours.ihl != 5 || ours.frag_off & bpf_htons(IP_OFFSET) || ours.saddr != outer.daddr)
		return false;
	room = tunneled_read(skb, t, ours.protocol, t->quoted + sizeof(ours));
	if (!room)
		return false;
	t->server.w[0] = ours.daddr;
	t->inner = t->quoted + room;
	return tunneled_flow(skb, t, q);
}

/* Is it this connection's tunnel? */
static __always_inline bool tunneled_by(const struct tunneled *t, const struct conn_ref *ref)
{
	struct lb_server *srv = ref->c ? server_at(ref->server) : NULL;

	return srv && ref->c->fwd == LB_FWD_TUNNEL && srv->af == LB_AF_INET &&
	       srv->addr.w[0] == t->server.w[0] && srv->tun_type == t->type &&
	       (t->type != TUN_GUE || srv->tun_port == t->port);
}

/* What the client is told: the size that a packet of its own may have. 0: nothing, its packets may be cut. */
static __always_inline __u32 tunneled_says(const struct tunneled *t, __u32 head, __u32 rest)
{
	__u32 mtu = rest & 0xffff;

	if (head != ICMP_SAYS(ICMP_UNREACH, ICMP_FRAG_NEEDED))
		return rest;
	if (mtu < PMTU_LEAST)
		mtu = PMTU_LEAST;
	return mtu - (t->inner - t->quoted);
}

/* Writes the error to the client over the one that came, which is cut to an IP header, the ICMP header and the client's
 * packet. */
static __always_inline bool tunneled_write(struct __sk_buff *skb, const struct packet *q,
					   const struct tunneled *t, __u32 head, __u32 rest,
					   __u32 quote)
{
	__u32 quoted = sum_tc(skb, ANSWER_OFF, quote);
	void *data = packet_data(skb, HOOK_INGRESS), *end = packet_end(skb, HOOK_INGRESS);
	__u32 *icmp = data + L3_OFF + 20;

	if (data + ANSWER_OFF > end || !quoted)
		return false;
	header_write(data, LB_AF_INET, &q->t.daddr, &q->t.saddr, IPPROTO_ICMP, quote + ICMP_HDR,
		     TOS_CONTROL | (t->tos & TOS_ROUTED), 0);
	icmp[0] = bpf_htonl(head);
	icmp[1] = bpf_htonl(rest);
	((__u16 *)icmp)[1] = ~csum_fold((__u64)icmp[0] + icmp[1] + quoted);
	return true;
}

/* Sends what is addressed to a client, from this host itself. */
static __always_inline int client_send(struct __sk_buff *skb, __be32 to)
{
	struct bpf_fib_lookup f = { .family = AF_INET_, .tot_len = 1, .ipv4_dst = to };
	long fib = fib_output(skb, &f, skb->ifindex);
	struct way way = {};

	if (fib != BPF_FIB_LKUP_RET_SUCCESS && fib != BPF_FIB_LKUP_RET_NO_NEIGH)
		return act_drop(HOOK_INGRESS, LB_REFUSE_NO_ROUTE);
	way.ifindex = f.ifindex;
	way.neigh.nh_family = f.family;
	__builtin_memcpy(way.neigh.ipv6_nh, f.ipv6_dst, 16);
	return way_send(skb, &way, true);
}

/* An error that quotes no packet of a connection itself. The tcx action, or NOT_OURS. */
static __always_inline int tunnel_error(struct __sk_buff *skb)
{
	struct packet q = { .ctx = skb, .now = clock_tick() };
	__u32 icmp[2], quote, head, rest;
	struct tunneled t = {};
	struct conn_ref ref;

	if (!tunneled_parse(skb, &t, &q))
		return NOT_OURS;
	ref = conn_find(&q, DIR_IN, LB_AF_INET);
	if (!tunneled_by(&t, &ref) ||
	    bpf_skb_load_bytes(skb, t.quoted - ICMP_HDR, icmp, sizeof(icmp)))
		return NOT_OURS;
	quote = t.length + L3_OFF - t.inner;
	if (t.length + L3_OFF < t.inner + 28)
		return NOT_OURS;
	if (sum_tc(skb, t.quoted - ICMP_HDR, t.length + L3_OFF - (t.quoted - ICMP_HDR)) != 0xffff)
		return act_drop(HOOK_INGRESS, LB_DROP_MALFORMED);
	head = bpf_ntohl(icmp[0]) & 0xffff0000;
	if (head == ICMP_SAYS(ICMP_UNREACH, ICMP_FRAG_NEEDED) && !(t.fragment & IP_DONT_FRAGMENT))
		return NOT_OURS; /* its packets may be cut: nobody has to know */
	rest = tunneled_says(&t, head, bpf_ntohl(icmp[1]));
	if (quote > ICMP4_QUOTE)
		quote = ICMP4_QUOTE;
	if (bpf_skb_change_tail(skb, t.inner + quote, 0) ||
	    bpf_skb_adjust_room(skb, -(__s32)(t.inner - ANSWER_OFF), BPF_ADJ_ROOM_NET, 0) ||
	    bpf_skb_pull_data(skb, 0) || !tunneled_write(skb, &q, &t, head, rest, quote))
		return act_drop(HOOK_INGRESS, LB_DROP_REWRITE);
	count_out(ref.server, 1, quote);
	count_verdict(LB_ICMP_FORWARD);
	return client_send(skb, q.t.saddr.w[0]);
}
