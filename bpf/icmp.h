/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * ICMP, on tcx: echo to a VIP is answered here; an error about a balanced packet is translated like the packet it quotes
 * (ip_vs_in_icmp(), ip_vs_out_icmp()), so that path MTU discovery and refusals reach the right end.
 */
#pragma once
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

/* Offsets in a packet whose outer header has no options. */
#define ICMP_OFF(af)  (L3_OFF + ((af) == LB_AF_INET ? 20 : 40))
#define INNER_OFF(af) (ICMP_OFF(af) + ICMP_HDR)
#define INNER_L4(af)  (INNER_OFF(af) + ((af) == LB_AF_INET ? 20 : 40))

/* ICMP behind a sound outer header without options? */
static __always_inline bool icmp_present(const struct packet *p, enum lb_af af, void *data)
{
	if (p->t.proto != (af == LB_AF_INET ? IPPROTO_ICMP : IPPROTO_ICMPV6) ||
	    p->l4 != ICMP_OFF(af))
		return false;
	if (p->ip_len > packet_len(p->ctx, HOOK_INGRESS) - L3_OFF ||
	    p->ip_len < INNER_OFF(af) - L3_OFF)
		return false;
	return af == LB_AF_INET6 || ip_header_sum(data + L3_OFF) == 0xffff;
}

static __always_inline bool icmp_is_error(__u8 type, enum lb_af af)
{
	if (af == LB_AF_INET)
		return type == ICMP4_DEST_UNREACH || type == ICMP4_QUENCH || type == ICMP4_TIME ||
		       type == ICMP4_PARAM;
	return type >= 1 && type <= ICMP6_ERRORS;
}

/* The ends of the outer header, and what is left of its life. */
struct outer {
	union lb_addr saddr, daddr;
	__u8 ttl;
};

static __always_inline bool outer_read(struct __sk_buff *skb, struct outer *o, enum lb_af af)
{
	void *data = packet_data(skb, HOOK_INGRESS), *end = packet_end(skb, HOOK_INGRESS);

	if (data + INNER_OFF(af) > end)
		return false;
	addresses_read(data, af, &o->saddr, &o->daddr);
	o->ttl = af == LB_AF_INET ? ((struct iphdr *)(data + L3_OFF))->ttl
				  : ((struct ipv6hdr *)(data + L3_OFF))->hop_limit;
	return true;
}

/* Is the address some service's? */
static __always_inline bool addr_is_virtual(const union lb_addr *addr, enum lb_af af)
{
	struct service_query q = { .af = af };

	q.hash = hash_endpoint(lb_hash_key, addr, 0, 0, af);
	addr_copy(&q.addr, addr, af);
	return filter_has(FILTER_SERVICE, q.hash) && service_lookup(&q);
}

static __noinline int echo_answer(struct __sk_buff *skb, enum lb_af af)
{
	struct outer o = {};
	__u32 check = ICMP_OFF(af) + 2;
	void *data, *end;
	__u8 *type;

	if (!outer_read(skb, &o, af) || !addr_is_virtual(&o.daddr, af))
		return NOT_OURS;
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
		__u32 diff = (__u16)~bpf_htons(ip->ttl << 8) + (__u32)bpf_htons(TTL << 8);

		ip->saddr = o.daddr.w[0];
		ip->daddr = o.saddr.w[0];
		ip->ttl = TTL;
		ip->check = csum_apply(ip->check, diff);
	} else {
		struct ipv6hdr *ip6 = data + L3_OFF;

		__builtin_memcpy(&ip6->saddr, &o.daddr, 16);
		__builtin_memcpy(&ip6->daddr, &o.saddr, 16);
		ip6->hop_limit = TTL;
	}
	count_verdict(LB_ECHO);
	return bpf_redirect(skb->ifindex, 0);
}

/* The packet that an error quotes, turned round: as the one that would come from where the error goes. */
static __always_inline bool inner_parse(struct packet *q, enum lb_af af)
{
	void *data = packet_data(q->ctx, HOOK_INGRESS), *end = packet_end(q->ctx, HOOK_INGRESS);
	__be16 *ports = data + INNER_L4(af);

	if ((void *)(ports + 4) > end)
		return false;
	if (af == LB_AF_INET) {
		struct iphdr *ip = data + INNER_OFF(af), *outer = data + L3_OFF;

		if (bpf_ntohs(outer->tot_len) + L3_OFF < INNER_L4(af) + 8)
			return false;

		if (ip->version != 4 || ip->ihl != 5 || ip->frag_off & bpf_htons(0x1fff))
			return false;
		q->t.saddr.w[0] = ip->daddr;
		q->t.daddr.w[0] = ip->saddr;
		q->t.proto = ip->protocol;
	} else {
		struct ipv6hdr *ip6 = data + INNER_OFF(af), *outer = data + L3_OFF;

		if (ip6->version != 6 ||
		    bpf_ntohs(outer->payload_len) + ICMP_OFF(af) < INNER_L4(af) + 8)
			return false;
		__builtin_memcpy(&q->t.saddr, &ip6->daddr, 16);
		__builtin_memcpy(&q->t.daddr, &ip6->saddr, 16);
		q->t.proto = ip6->nexthdr;
	}
	if (q->t.proto != IPPROTO_TCP && q->t.proto != IPPROTO_UDP && q->t.proto != IPPROTO_SCTP)
		return false;
	q->t.sport = ports[1];
	q->t.dport = ports[0];
	q->src = hash_endpoint(lb_hash_key, &q->t.saddr, q->t.sport, q->t.proto, af);
	q->dst = hash_endpoint(lb_hash_key, &q->t.daddr, q->t.dport, q->t.proto, af);
	return true;
}

/* How an error is changed: one end of the outer header, the same end of the connection in the quoted one. */
struct icmp_rewrite {
	const union lb_addr *outer_old, *inner_old, *now;
	__be16 old_port, new_port;
	__u32 token;
	bool to_client;
};

static __always_inline bool icmp_write4(void *data, void *end, const struct icmp_rewrite *w)
{
	struct iphdr *ip = data + L3_OFF, *inner = data + INNER_OFF(LB_AF_INET);
	__be16 *ports = data + INNER_L4(LB_AF_INET);
	__u32 now = w->now->w[0];

	if ((void *)(ports + 2) > end)
		return false;
	ip->check = csum_apply(ip->check, (__u64)(__u32)~w->outer_old->w[0] + now);
	inner->check = csum_apply(inner->check, (__u64)(__u32)~w->inner_old->w[0] + now);
	if (w->to_client) {
		ip->saddr = now;
		inner->daddr = now;
		ports[1] = w->new_port;
	} else {
		ip->daddr = now;
		inner->saddr = now;
		ports[0] = w->new_port;
	}
	return true;
}

static __always_inline bool icmp_write6(void *data, void *end, const struct icmp_rewrite *w)
{
	struct ipv6hdr *ip6 = data + L3_OFF, *inner = data + INNER_OFF(LB_AF_INET6);
	__be16 *ports = data + INNER_L4(LB_AF_INET6);

	if ((void *)(ports + 2) > end)
		return false;
	__builtin_memcpy(w->to_client ? &ip6->saddr : &ip6->daddr, w->now, 16);
	__builtin_memcpy(w->to_client ? &inner->daddr : &inner->saddr, w->now, 16);
	ports[w->to_client ? 1 : 0] = w->new_port;
	return true;
}

/* Rewrites outer and quoted headers, and the checksums. In the quoted IPv4 header a new address and its checksum cancel
 * out, so the ICMP checksum changes by the port alone; ICMPv6 sums all of it, and the outer addresses. */
static __always_inline bool icmp_rewrite(struct __sk_buff *skb, const struct icmp_rewrite *w,
					 enum lb_af af)
{
	struct rewrite outer = { .old_addr = w->outer_old, .new_addr = w->now };
	struct rewrite inner = { .old_addr = w->inner_old, .new_addr = w->now };
	__u64 diff = (__u64)(__u16)~w->old_port + w->new_port;
	void *data, *end;

	if (af == LB_AF_INET6) {
		diff += addr_diff(&inner, af);
		if (bpf_l4_csum_replace(skb, ICMP_OFF(af) + 2, 0, csum_fold(addr_diff(&outer, af)),
					BPF_F_PSEUDO_HDR))
			return false;
	}
	if (bpf_l4_csum_replace(skb, ICMP_OFF(af) + 2, 0, csum_fold(diff), 0))
		return false;
	data = packet_data(skb, HOOK_INGRESS);
	end = packet_end(skb, HOOK_INGRESS);
	return af == LB_AF_INET ? icmp_write4(data, end, w) : icmp_write6(data, end, w);
}

/* The connection that an error is about, and whether it goes to the client's end. */
static __always_inline struct conn_ref icmp_conn(const struct packet *q, bool egress, enum lb_af af,
						 bool *to_client)
{
	struct conn_ref ref = {};

	if (!egress && filter_to_service(q))
		ref = conn_find(q, DIR_IN, af);
	if (ref.c || !filter_from_server(q))
		return ref;
	*to_client = true;
	return conn_find(q, DIR_OUT, af);
}

/* A client's error about a connection that NAT does not touch goes to the server as it is, as ip_vs_icmp_xmit() sends it:
 * the way of the connection's packets. (Nothing else of such a connection comes here.) */
static __always_inline int icmp_transmit(struct packet *q, const struct outer *o,
					 const struct conn_ref *ref, enum lb_af af)
{
	void *data = packet_data(q->ctx, HOOK_INGRESS);

	if (data + INNER_OFF(af) > packet_end(q->ctx, HOOK_INGRESS))
		return NOT_OURS;
	q->t.proto = af == LB_AF_INET ? IPPROTO_ICMP : IPPROTO_ICMPV6;
	q->l4 = ICMP_OFF(af);
	q->ttl = o->ttl;
	q->gso = 0;
	q->tcp_flags = 0;
	q->ip_len = af == LB_AF_INET
			    ? bpf_ntohs(((struct iphdr *)(data + L3_OFF))->tot_len)
			    : bpf_ntohs(((struct ipv6hdr *)(data + L3_OFF))->payload_len) + 40;
	q->wire_len = q->ip_len;
	count_verdict(LB_ICMP_FORWARD);
	return transmit_later(q, ref->index + 1, ref->server, ref->c->fwd, true);
}

/* An error about a packet of a connection. At ingress from the client's side, and from the server's for connections that
 * bypass the stack; at egress to the client for the others. */
static __noinline int icmp_error(struct __sk_buff *skb, bool egress, enum lb_af af)
{
	struct packet q = { .ctx = skb, .now = clock_tick(), .kinds = service_kinds() };
	struct icmp_rewrite w = {};
	struct outer o = {};
	struct lb_server *srv;
	struct conn_ref ref;
	struct hop hop = {};
	__u32 hop_ref = 0;
	bool bypass;

	if (!outer_read(skb, &o, af) || !inner_parse(&q, af))
		return NOT_OURS;
	ref = icmp_conn(&q, egress, af, &w.to_client);
	srv = ref.c ? server_at(ref.server) : NULL;
	if (!srv)
		return NOT_OURS;
	if (ref.c->fwd != LB_FWD_MASQ)
		return icmp_transmit(&q, &o, &ref, af);
	bypass = !egress && ref.c->flags & LB_CONN_BYPASS;
	if (!egress && w.to_client && !bypass)
		return act_pass(HOOK_INGRESS);
	w.outer_old = w.to_client ? &o.saddr : &o.daddr;
	w.inner_old = w.to_client ? &q.t.saddr : &q.t.daddr;
	w.now = w.to_client ? &ref.c->vaddr : &srv->addr;
	w.old_port = w.to_client ? q.t.sport : q.t.dport;
	w.new_port = w.to_client ? ref.c->vport : ref.dport;
	bypass = bypass && o.ttl > 1 &&
		 hop_find(&q, HOOK_INGRESS, af, w.to_client ? &ref.c->vaddr : &ref.c->caddr,
			  w.to_client ? &ref.c->caddr : &srv->addr, &hop_ref, &w.token, &hop);
	if (!icmp_rewrite(skb, &w, af))
		return act_drop(HOOK_INGRESS, LB_DROP_REWRITE);
	count_verdict(LB_ICMP_FORWARD);
	if (!bypass || !packet_age(&q, HOOK_INGRESS, af))
		return act_pass(HOOK_INGRESS);
	return hop_send(&q, HOOK_INGRESS, &hop, hop_ref);
}

/* One ICMP packet at a tcx hook, its outer header without options: the action, or NOT_OURS. */
static __always_inline int icmp_handle(struct __sk_buff *skb, bool egress, enum lb_af af)
{
	__u8 *icmp, type;
	int act;

	if (!packet_pull(skb, HOOK_INGRESS, INNER_L4(af) + 8))
		return NOT_OURS;
	icmp = packet_data(skb, HOOK_INGRESS) + ICMP_OFF(af);
	if ((void *)(icmp + ICMP_HDR) > packet_end(skb, HOOK_INGRESS))
		return NOT_OURS;
	type = icmp[0];
	if (!egress && !icmp[1] && type == (af == LB_AF_INET ? ICMP4_ECHO : ICMP6_ECHO))
		return echo_answer(skb, af);
	if (!icmp_is_error(type, af))
		return NOT_OURS;
	act = icmp_error(skb, egress, af);
	return act == NOT_OURS && !egress && af == LB_AF_INET ? TUNNEL_NEXT : act;
}
