/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Packets that are not plain, on tcx: fragments, and IPv6 packets with extension headers. They do not pass by the stack. */
#pragma once
#include "balance.h"

/* Remembers a first fragment, which has `until` bytes of what was cut. */
static __noinline bool fragment_note(const struct new_conn *n, __u32 until, __u32 af)
{
	struct fragment_first first = {};
	struct fragment_key key = {};

	fragment_key(&key, n, af);
	first.sport = n->t.sport;
	first.dport = n->t.dport;
	first.proto = n->t.proto;
	first.until = until;
	first.when = clock_tick();
	return !bpf_map_update_elem(&lb_fragments, &key, &first, BPF_ANY);
}

/* Is the address that it is for some service's? */
static __noinline bool fragment_to_virtual(const struct new_conn *n, __u32 af)
{
	return af == LB_AF_INET ? addr_is_virtual(&n->t.daddr, LB_AF_INET)
				: addr_is_virtual(&n->t.daddr, LB_AF_INET6);
}

/* A later fragment has the ports of its first. 0: they are known; else what becomes of it. */
static __always_inline int fragment_recall(struct new_conn *n, enum lb_hook hook, enum lb_af af,
					   const struct headers *h)
{
	struct fragment_first *first = fragment_first(n, af);

	if (!first)
		return hook != HOOK_EGRESS && fragment_to_virtual(n, af)
			       ? act_drop(hook, LB_DROP_FRAGMENT)
			       : act_pass(hook);
	if (h->from < first->until)
		return act_drop(hook, LB_DROP_FRAGMENT);
	n->t.proto = first->proto;
	n->t.sport = first->sport;
	n->t.dport = first->dport;
	return 0;
}

/* May a fragment be for a service, or leave for a server that sees an address of this host? */
static __always_inline bool fragment_to_ours(const struct packet *p, const struct new_conn *n,
					     enum lb_hook hook, enum lb_af af)
{
	if (hook != HOOK_EGRESS)
		return filter_to_service(p) || fragment_to_virtual(n, af);
	return is_own(p) ? filter_to_service(p)
			 : masquerades_any() && filter_has(FILTER_SERVER, p->dst);
}

/* Remembers a first fragment if its later ones may be ours. */
static __always_inline void fragment_remember(const struct packet *p, struct new_conn *n,
					      enum lb_hook hook, enum lb_af af,
					      const struct headers *h)
{
	if (filter_from_server(p) || fragment_to_ours(p, n, hook, af))
		fragment_note(n, p->ip_len + L3_OFF - h->start, af);
}

/* Reads the transport header of a packet that is no later fragment. 0: it is there; else what becomes of the packet. */
static __always_inline int odd_transport(struct packet *p, struct new_conn *n, enum lb_hook hook,
					 enum lb_af af, const struct headers *h)
{
	void *l4 = packet_data(p->ctx, hook) + transport_offset(p, hook, af),
	     *end = packet_end(p->ctx, hook);

	if (!is_transport(p->t.proto) || l4 + 4 > end)
		return act_pass(hook);
	transport_read(p, af, l4);
	new_conn_describe(n, p, af);
	if (!transport_present(p, l4, end))
		return hook != HOOK_EGRESS && service_find(p, af) ? act_drop(hook, LB_DROP_FRAGMENT)
								  : act_pass(hook);
	if (h->shape & SHAPE_FIRST)
		fragment_remember(p, n, hook, af, h);
	return 0;
}

/* Reads a packet that is not plain, for balance_odd(). ODD_READ_NEXT: it may be ours; ICMP_NEXT; else
 * what becomes of it. */
static __always_inline int odd_read(struct __sk_buff *skb, enum lb_hook hook, enum lb_af af)
{
	struct packet p = { .ctx = skb, .odd = 1, .kinds = packet_kinds(skb, hook) };
	struct new_conn *n = new_conn_get(NEW_CONN);
	struct headers h = {};
	void *data, *end;
	int act;

	if (!n || !headers_read(skb, L3_OFF, af, &h) ||
	    !packet_pull(skb, hook, h.l4 + sizeof(struct tcphdr)))
		return act_pass(hook);
	if (h.proto == icmp_protocol(af) && !h.shape)
		return ICMP_NEXT;
	data = packet_data(skb, hook);
	end = packet_end(skb, hook);
	if (!header_present(hook, af, data, end))
		return act_pass(hook);
	header_read(&p, hook, af, data);
	p.t.proto = h.proto;
	p.l4 = h.l4;
	new_conn_describe(n, &p, af);
	n->fragment = h.id;
	n->l4 = h.l4;
	n->shape = h.shape;
	act = h.shape & SHAPE_LATER ? fragment_recall(n, hook, af, &h)
				    : odd_transport(&p, n, hook, af, &h);
	return act ? act : ODD_READ_NEXT;
}

/* One packet that is not plain, as odd_read() left it on this CPU: the action, NOT_OURS or ODD_OPEN_NEXT. */
static __always_inline int balance_odd(struct __sk_buff *skb, enum lb_hook hook, enum lb_af af,
				       bool opening)
{
	void *data = packet_data(skb, hook), *end = packet_end(skb, hook);
	struct new_conn *n = new_conn_get(NEW_CONN);
	struct packet p;
	int act;

	if (!n || !header_present(hook, af, data, end)) /* known; the verifier forgets */
		return act_pass(hook);
	p.ctx = skb;
	p.odd = 1;
	header_read(&p, hook, af, data);
	p.t.proto = n->t.proto;
	p.t.sport = n->t.sport;
	p.t.dport = n->t.dport;
	p.l4 = n->l4;
	p.shape = n->shape;
	p.tcp_flags = p.t.proto == IPPROTO_SCTP ? SCTP_NOTHING : 0;
	p.kinds = packet_kinds(skb, hook);
	ends_hash(&p, af);
	act = balance_read(&p, hook, af, data, data + transport_offset(&p, hook, af), end, opening);
	return act == OPEN_NEXT ? ODD_OPEN_NEXT : act;
}
