/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * ICMP, on tcx: echo to a VIP is answered here; an error about a balanced packet is translated like the packet it quotes
 * (ip_vs_in_icmp(), ip_vs_out_icmp()), so that path MTU discovery and refusals reach the right end.
 */
#pragma once
#include "headers.h"
#include "open.h"
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
};

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
	return bpf_redirect(skb->ifindex, 0);
}

/* The packet that an error quotes, turned round: as the one that would come from where the error goes. A later fragment has
 * no ports, and is nobody's, as for the kernel. */
static __always_inline bool quote_read(struct packet *q, struct icmp_parts *m, enum lb_af af)
{
	__u32 saddr = m->inner + (af == LB_AF_INET ? offsetof(struct iphdr, saddr)
						   : offsetof(struct ipv6hdr, saddr)),
	      size = af == LB_AF_INET ? 4 : 16;
	struct headers h = {};
	__be16 ports[2];

	if (!headers_read(q->ctx, m->inner, af, &h) || h.shape & SHAPE_LATER ||
	    !is_transport(h.proto) || h.l4 + sizeof(ports) > m->end ||
	    bpf_skb_load_bytes(q->ctx, saddr, &q->t.daddr, size) ||
	    bpf_skb_load_bytes(q->ctx, saddr + size, &q->t.saddr, size) ||
	    bpf_skb_load_bytes(q->ctx, h.l4, ports, sizeof(ports)))
		return false;
	m->ports = h.l4;
	q->t.proto = h.proto;
	q->t.sport = ports[1];
	q->t.dport = ports[0];
	ends_hash(q, af);
	return true;
}

/* How an error is changed: one end of the outer header, the same end of the connection in the quoted one. */
struct icmp_rewrite {
	const union lb_addr *outer_old, *inner_old, *now;
	__be16 old_port, new_port;
	__u32 token;
	bool to_client;
};

/* Puts an address into the IP header at `l3`. */
static __always_inline bool address_write(struct __sk_buff *skb, __u32 l3, const union lb_addr *old,
					  const union lb_addr *now, bool source, enum lb_af af)
{
	if (af == LB_AF_INET)
		return !bpf_l3_csum_replace(skb, l3 + offsetof(struct iphdr, check), old->w[0],
					    now->w[0], 4) &&
		       !bpf_skb_store_bytes(skb,
					    l3 + (source ? offsetof(struct iphdr, saddr)
							 : offsetof(struct iphdr, daddr)),
					    now, 4, 0);
	return !bpf_skb_store_bytes(
		skb,
		l3 + (source ? offsetof(struct ipv6hdr, saddr) : offsetof(struct ipv6hdr, daddr)),
		now, 16, 0);
}

/* Rewrites outer and quoted headers, and the checksums. In the quoted IPv4 header a new address and its checksum cancel
 * out, so the ICMP checksum changes by the port alone; ICMPv6 sums all of it, and the outer addresses. */
static __always_inline bool icmp_rewrite(struct __sk_buff *skb, const struct icmp_parts *m,
					 const struct icmp_rewrite *w, enum lb_af af)
{
	struct rewrite outer = { .old_addr = w->outer_old, .new_addr = w->now };
	struct rewrite inner = { .old_addr = w->inner_old, .new_addr = w->now };
	__u64 diff = (__u64)(__u16)~w->old_port + w->new_port;
	__u32 check = m->icmp + 2;

	if (af == LB_AF_INET6) {
		diff += addr_diff(&inner, af);
		if (bpf_l4_csum_replace(skb, check, 0, csum_fold(addr_diff(&outer, af)),
					BPF_F_PSEUDO_HDR))
			return false;
	}
	return !bpf_l4_csum_replace(skb, check, 0, csum_fold(diff), 0) &&
	       address_write(skb, L3_OFF, w->outer_old, w->now, w->to_client, af) &&
	       address_write(skb, m->inner, w->inner_old, w->now, !w->to_client, af) &&
	       !bpf_skb_store_bytes(skb, m->ports + (w->to_client ? 2 : 0), &w->new_port, 2, 0);
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
	ref = conn_find(q, DIR_OUT, af);
	if (ref.c && ref.c->fwd != LB_FWD_MASQ)
		ref.c = NULL; /* there is nothing to translate */
	return ref;
}

/* Describes the error itself, for those who count and send it. */
static __always_inline void icmp_describe(struct packet *q, const struct icmp_parts *m,
					  enum lb_af af)
{
	q->t.proto = icmp_protocol(af);
	q->l4 = m->icmp;
	q->ttl = m->ttl;
	q->ip_len = m->end - L3_OFF;
	q->wire_len = q->ip_len;
	q->odd = m->icmp != ICMP_OFF(af);
}

/* A client's error about a connection that NAT does not touch goes to the server as it is, as ip_vs_icmp_xmit() sends it:
 * the way of the connection's packets. (Nothing else of such a connection comes here.) */
static __always_inline int icmp_transmit(const struct packet *q, const struct conn_ref *ref,
					 enum lb_af af)
{
	count_verdict(LB_ICMP_FORWARD);
	return transmit_later(q, af, ref->index + 1, ref->server, ref->c->fwd, true);
}

/* With schedule_icmp, an error from a client's side about no connection begins one, as ip_vs_in_icmp() does, so that where
 * directors share the traffic each finds the same server; a server that is picked by the client's address, that is. The error
 * then comes here again. SCHEDULE_NEXT, or what becomes of it. */
static __always_inline int icmp_schedule(const struct packet *q, const struct icmp_parts *m,
					 enum lb_af af)
{
	struct new_conn *n = new_conn_get(NEW_CONN);
	struct lb_config *cfg = config_get();
	struct lb_service *svc;
	__u32 service;
	int act;

	if (!n || !cfg || !cfg->schedule_icmp || !filter_to_service(q))
		return NOT_OURS;
	service = service_find(q, af);
	svc = service ? service_at(service) : NULL;
	if (!svc || svc->flags & LB_SERVICE_ONEPACKET)
		return NOT_OURS;
	if (!icmp_sound(q->ctx, m, af))
		return act_drop(HOOK_INGRESS, LB_DROP_MALFORMED);
	act = request_describe(q, HOOK_INGRESS, af, n, service, ONCE_NO);
	n->icmp = act == SCHEDULE_NEXT;
	return act;
}

/* Notes what changes, and what to. */
static __always_inline void icmp_plan(struct icmp_rewrite *w, const struct icmp_parts *m,
				      const struct packet *q, const struct conn_ref *ref,
				      const struct lb_server *srv)
{
	w->outer_old = w->to_client ? &m->saddr : &m->daddr;
	w->inner_old = w->to_client ? &q->t.saddr : &q->t.daddr;
	w->now = w->to_client ? &ref->c->vaddr : &srv->addr;
	w->old_port = w->to_client ? q->t.sport : q->t.dport;
	w->new_port = w->to_client ? ref->c->vport : ref->dport;
}

/* An error about a packet of a connection. At ingress from the client's side, and from the server's for connections that
 * bypass the stack; at egress to the client for the others. What has options or extension headers never bypasses it. */
static __noinline int icmp_error(struct __sk_buff *skb, struct icmp_parts *m, bool egress,
				 enum lb_af af)
{
	struct packet q = { .ctx = skb, .now = clock_tick(), .kinds = service_kinds() };
	struct icmp_rewrite w = {};
	struct lb_server *srv;
	struct conn_ref ref;
	struct hop hop = {};
	__u32 hop_ref = 0;
	bool bypass;

	if (!quote_read(&q, m, af))
		return NOT_OURS;
	ref = icmp_conn(&q, egress, af, &w.to_client);
	if (!ref.c && !egress)
		return icmp_schedule(&q, m, af);
	srv = ref.c ? server_at(ref.server) : NULL;
	if (!srv)
		return NOT_OURS;
	bypass = !egress && m->icmp == ICMP_OFF(af) && ref.c->flags & LB_CONN_BYPASS;
	if (!egress && w.to_client && !bypass)
		return act_pass(HOOK_INGRESS);
	if (!icmp_sound(skb, m, af))
		return act_drop(HOOK_INGRESS, LB_DROP_MALFORMED);
	icmp_plan(&w, m, &q, &ref, srv);
	icmp_describe(&q, m, af);
	if (ref.c->fwd != LB_FWD_MASQ)
		return icmp_transmit(&q, &ref, af);
	bypass = bypass && m->ttl > 1 &&
		 hop_find(&q, HOOK_INGRESS, af, w.to_client ? &ref.c->vaddr : &ref.c->caddr,
			  w.to_client ? &ref.c->caddr : &srv->addr, &hop_ref, &w.token, &hop);
	if (!icmp_rewrite(skb, m, &w, af))
		return act_drop(HOOK_INGRESS, LB_DROP_REWRITE);
	if (srv->flags & LB_SERVER_AVAILABLE)
		packet_count(&q, w.to_client ? DIR_OUT : DIR_IN, ref.server);
	count_verdict(LB_ICMP_FORWARD);
	if (!bypass || !packet_age(&q, HOOK_INGRESS, af))
		return act_pass(HOOK_INGRESS);
	return hop_send(&q, HOOK_INGRESS, &hop, hop_ref);
}

/* One ICMP packet at a tcx hook: the action, or NOT_OURS. */
static __always_inline int icmp_handle(struct __sk_buff *skb, bool egress, enum lb_af af)
{
	struct icmp_parts m = {};
	int act;

	if (!icmp_read(skb, &m, af))
		return NOT_OURS;
	if (!egress && !m.code && m.type == (af == LB_AF_INET ? ICMP4_ECHO : ICMP6_ECHO))
		return echo_answer(skb, &m, af);
	if (!icmp_is_error(m.type, af))
		return NOT_OURS;
	act = icmp_error(skb, &m, egress, af);
	return act == NOT_OURS && !egress && af == LB_AF_INET ? TUNNEL_NEXT : act;
}
