/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * An ICMP error about a balanced packet is translated like the packet it quotes (ip_vs_in_icmp(), ip_vs_out_icmp()), so that
 * path MTU discovery and refusals reach the right end.
 */
#pragma once
#include "icmp.h"
#include "open.h"

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

/* How an error is changed: one end of the outer header (no `outer_old`: neither), the same end of the connection in the quoted
 * one. */
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
		if (w->outer_old &&
		    bpf_l4_csum_replace(skb, check, 0, csum_fold(addr_diff(&outer, af)),
					BPF_F_PSEUDO_HDR))
			return false;
	}
	return !bpf_l4_csum_replace(skb, check, 0, csum_fold(diff), 0) &&
	       (!w->outer_old ||
		address_write(skb, L3_OFF, w->outer_old, w->now, w->to_client, af)) &&
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
	if (!ref.c && filter_from_server(q)) {
		*to_client = true;
		ref = conn_find(q, DIR_OUT, af);
		if (ref.c && (fwd_one_way(ref.c->fwd) ||
			      (egress ? ref.c->fwd != LB_FWD_MASQ && ref.c->fwd != LB_FWD_FULLNAT
				      : fwd_both_ends(ref.c->fwd))))
			ref.c = NULL; /* there is nothing to translate here */
	}
	if (!ref.c && egress && unlikely(masquerades_any()) && filter_has(FILTER_SERVER, q->dst)) {
		*to_client = false;
		ref = conn_translated(q, af);
		if (ref.c && ref.c->fwd != LB_FWD_FULLNAT)
			ref.c = NULL;
	}
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

	if (!n || !cfg || !cfg->schedule_icmp || !filter_to_service(q) ||
	    q->kinds & LB_FEATURE_HANDOVER) /* it may be about a connection of somebody else's */
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

/* What a server's side says of a packet that came from here, at ingress: to the client, and of the host's own connection from
 * the virtual service. What goes on to the server, at egress: about a packet to here. */
static __noinline int icmp_masqueraded(struct __sk_buff *skb, struct icmp_parts *m, enum lb_af af)
{
	const struct tuple *q = &m->quoted;
	struct icmp_rewrite w = { .now = NULL };
	struct lb_conn *c, *partner;
	bool from_server;

	if (!conn_entries(m->conn, &c, &partner))
		return act_drop(HOOK_INGRESS, LB_DROP_NO_MASQUERADE);
	from_server = c->hop == m->conn + 1; /* found by its second entry */
	w.outer_old = from_server ? &m->daddr : NULL;
	w.inner_old = from_server ? &q->daddr : &q->saddr;
	w.now = from_server ? &c->caddr : &partner->caddr;
	w.old_port = from_server ? q->dport : q->sport;
	w.new_port = from_server ? c->cport : partner->cport;
	w.to_client = !from_server;
	if (!icmp_rewrite(skb, m, &w, af))
		return act_drop(HOOK_INGRESS, LB_DROP_REWRITE);
	if (c->fwd == LB_FWD_FULLNAT)
		return act_pass(HOOK_INGRESS);
	w.outer_old = &m->saddr;
	w.inner_old = &q->saddr;
	w.now = &c->vaddr;
	w.old_port = q->sport;
	w.new_port = c->vport;
	w.to_client = true;
	if (!icmp_rewrite(skb, m, &w, af))
		return act_drop(HOOK_INGRESS, LB_DROP_REWRITE);
	count_verdict(LB_ICMP_FORWARD);
	return act_pass(HOOK_INGRESS);
}

/* An error about a packet of a connection. At ingress from the client's side, and from the server's for connections that
 * bypass the stack; at egress to the client for the others. What has options or extension headers never bypasses it. */
static __noinline int icmp_error(struct __sk_buff *skb, struct icmp_parts *m, bool egress,
				 enum lb_af af)
{
	struct packet q = { .ctx = skb,
			    .now = clock_tick(),
			    .kinds = packet_kinds(skb, egress ? HOOK_EGRESS : HOOK_INGRESS) };
	struct icmp_rewrite w = {};
	struct lb_server *srv;
	struct conn_ref ref;
	struct hop hop = {};
	__u32 hop_ref = 0;
	bool bypass, both_ends;

	if (!quote_read(&q, m, af))
		return NOT_OURS;
	ref = icmp_conn(&q, egress, af, &w.to_client);
	if (!ref.c && !egress)
		return icmp_schedule(&q, m, af);
	srv = ref.c ? server_at(ref.server) : NULL;
	if (!srv)
		return NOT_OURS;
	bypass = !egress && m->icmp == ICMP_OFF(af) && ref.c->fwd == LB_FWD_MASQ &&
		 ref.c->flags & LB_CONN_BYPASS;
	both_ends = ref.c->fwd == LB_FWD_RETURN || (egress && !w.to_client);
	if (!egress && w.to_client && !bypass && !both_ends)
		return act_pass(HOOK_INGRESS);
	if (!icmp_sound(skb, m, af))
		return act_drop(HOOK_INGRESS, LB_DROP_MALFORMED);
	if (unlikely(both_ends)) {
		m->quoted = q.t;
		m->conn = ref.index;
		return MASQUERADED_NEXT;
	}
	icmp_plan(&w, m, &q, &ref, srv);
	icmp_describe(&q, m, af);
	if (fwd_one_way(ref.c->fwd))
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
	struct icmp_parts *m = icmp_parts_get();
	int act;

	if (!m || !icmp_read(skb, m, af))
		return NOT_OURS;
	if (!egress && !m->code && m->type == (af == LB_AF_INET ? ICMP4_ECHO : ICMP6_ECHO))
		return echo_answer(skb, m, af);
	if (!icmp_is_error(m->type, af))
		return NOT_OURS;
	act = icmp_error(skb, m, egress, af);
	if (act == MASQUERADED_NEXT)
		return icmp_masqueraded(skb, m, af);
	return act == NOT_OURS && !egress && af == LB_AF_INET ? TUNNEL_NEXT : act;
}
