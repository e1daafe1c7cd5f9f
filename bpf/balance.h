/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The life of a packet of ours: requests (client to virtual service) and replies (server to client).
 * A request is translated where it comes in. Then it either goes straight out (bypass) or up the stack, which sees client
 * and server; its reply is translated where it comes in (bypass), or where it leaves to the client.
 */
#pragma once
#include "handover.h"
#include "range.h"
#include "request.h"
#include "stray.h"

/* A packet from an endpoint that may be a server, back to a client of ours. */
static __always_inline int reply_back(struct packet *p, enum lb_hook hook, enum lb_af af)
{
	struct conn_ref ref = conn_find(p, DIR_OUT, af);
	struct lb_server *srv;
	struct rewrite r = {};
	struct hop hop = {};

	if (!ref.c)
		return NOT_OURS;
	if (unlikely(ref.c->fwd == LB_FWD_RETURN))
		return masqueraded_later(p, af, ref.index + 1, ref.server, ref.c->fwd);
	/* What does not leave from here goes up the stack, and is translated as it leaves from there. */
	if (hook != HOOK_EGRESS &&
	    !(!p->odd && ref.c->flags & LB_CONN_BYPASS && ref.c->fwd == LB_FWD_MASQ &&
	      hop_find(p, hook, af, &ref.c->vaddr, &ref.c->caddr, &ref.c->hop, &ref.c->hop_token,
		       &hop) &&
	      hop_usable(p, hook, af, &hop, ref.c->hop, 0)))
		return act_pass(hook);
	conn_step(ref.c, p, DIR_OUT);
	srv = server_at(ref.server);
	if (srv && srv->flags & LB_SERVER_AVAILABLE)
		packet_count(p, DIR_OUT, ref.server);
	if (unlikely(ref.c->fwd != LB_FWD_MASQ && ref.c->fwd != LB_FWD_FULLNAT))
		return act_pass(hook); /* it has the virtual address */
	r.old_addr = &p->t.saddr;
	r.new_addr = &ref.c->vaddr;
	r.old_port = p->t.sport;
	r.new_port = ref.c->vport;
	r.source = true;
	if (!packet_rewrite(p, hook, af, &r))
		return act_drop(hook, LB_DROP_REWRITE);
	if (hook == HOOK_EGRESS)
		return act_pass(hook);
	if (!packet_age(p, hook, af))
		return act_drop(hook, LB_DROP_REWRITE);
	return hop_send(p, hook, &hop, ref.c->hop);
}

/* What is known of a packet that is ours: the rest of it is sound, or is dropped. 0, or what becomes of it. */
static __always_inline int packet_vet(struct packet *p, enum lb_hook hook, enum lb_af af,
				      void *data, void *l4, void *end, bool to_service)
{
	p->mark = packet_mark(p, hook);
	if (unlikely(!packet_sound(p, hook, af, data, l4, end)))
		return to_service && service_find(p, af) ? act_drop(hook, LB_DROP_MALFORMED)
							 : NOT_OURS;
	FORGET(p->t.proto);
	FORGET(p->tcp_flags);
	FORGET(p->gso);
	p->now = clock_tick();
	return 0;
}

/* A packet that comes in, whose headers and ends were read: the action, NOT_OURS, or a part that goes on. What belongs to no
 * connection and does not simply begin one is for a program of its own (`opening`), which reads the packet once more: it is
 * rare, and more than all the rest. */
static __always_inline int balance_in(struct packet *p, enum lb_hook hook, enum lb_af af,
				      void *data, void *l4, void *end, bool opening)
{
	bool to_service = filter_to_service(p);
	bool from_server = hook != HOOK_MARKED && filter_from_server(p);
	int act, back;

	if (likely(!to_service && !from_server))
		return NOT_OURS;
	act = packet_vet(p, hook, af, data, l4, end, to_service);
	if (unlikely(act))
		return act;
	if (opening && hook == HOOK_INGRESS && from_server && unlikely(stray_wanted())) {
		act = stray_refuse(p, af);
		if (act)
			return act;
	}
	if (opening)
		return to_service ? request_new(p, hook, af) : NOT_OURS;
	act = to_service ? request_in(p, hook, af) : NOT_OURS;
	/* A reply before a new connection, as ip_vs_out() is before ip_vs_in(). */
	if (from_server && (act == NOT_OURS || act == OPEN_NEXT)) {
		back = reply_back(p, hook, af);
		if (back != NOT_OURS)
			return back;
		if (hook == HOOK_INGRESS && unlikely(stray_wanted()))
			return OPEN_NEXT;
	}
	return act == OPEN_NEXT ? request_begin(p, hook, af) : act;
}

/* On egress: is it what the host itself sends? */
static __always_inline bool is_own(const struct packet *p)
{
	return !((struct __sk_buff *)p->ctx)->ingress_ifindex;
}

/* The same of a packet that leaves: a reply, what goes to a server and may have to come from here (masqueraded.h), or what the
 * host itself sends to a service, all of which is for the program of its own (`opening`). */
static __always_inline int balance_out(struct packet *p, enum lb_af af, void *data, void *l4,
				       void *end, bool opening)
{
	bool own = is_own(p), from_server = !opening && filter_from_server(p);
	bool to_service = own && filter_to_service(p);
	bool to_server = !opening && !own && unlikely(masquerades_any()) &&
			 filter_has(FILTER_SERVER, p->dst);
	int act;

	if (likely(!from_server && !to_service && !to_server))
		return NOT_OURS;
	act = packet_vet(p, HOOK_EGRESS, af, data, l4, end, to_service);
	if (unlikely(act))
		return act;
	if (from_server) {
		act = reply_back(p, HOOK_EGRESS, af);
		if (act != NOT_OURS)
			return act;
	}
	if (to_server)
		return masqueraded_later(p, af, 0, 0, LB_FWD_FULLNAT);
	if (!opening)
		return to_service ? OPEN_NEXT : NOT_OURS;
	act = request_in(p, HOOK_EGRESS, af);
	if (act != OPEN_NEXT)
		return act;
	if (unlikely(p->kinds & LB_FEATURE_HANDOVER) && handover_passes(p, HOOK_EGRESS, af))
		return act_pass(HOOK_EGRESS);
	return request_new(p, HOOK_EGRESS, af);
}

/* May it be in a tunnel from another node? */
static __always_inline bool tunnel_may_end(const struct packet *p)
{
	return p->kinds & LB_FEATURE_PEERS && p->t.proto == IPPROTO_UDP &&
	       p->t.dport == bpf_htons(GUE_PORT);
}

/* One packet whose headers and ends were read. What is nobody's may be for an address that only services are to have. */
static __always_inline int balance_read(struct packet *p, enum lb_hook hook, enum lb_af af,
					void *data, void *l4, void *end, bool opening)
{
	int act;

	if (opening && hook != HOOK_EGRESS && unlikely(p->kinds & LB_FEATURE_HANDOVER) &&
	    (hook != HOOK_INGRESS || !packet_vet(p, hook, af, data, l4, end, false)) &&
	    handover_passes(p, hook, af))
		return act_pass(hook);
	act = hook == HOOK_EGRESS ? balance_out(p, af, data, l4, end, opening)
				  : balance_in(p, hook, af, data, l4, end, opening);
	if (act != NOT_OURS || hook == HOOK_XDP || hook == HOOK_MARKED ||
	    likely(!(p->kinds & (LB_FEATURE_RANGES | LB_FEATURE_PEERS))) ||
	    (hook == HOOK_EGRESS && !is_own(p)))
		return act;
	if (hook == HOOK_INGRESS && !p->odd && !opening && tunnel_may_end(p))
		return DECAP_NEXT;
	if (!(p->kinds & LB_FEATURE_RANGES) || !range_near(&p->t.daddr, af))
		return act;
	return opening ? range_refuse(p, hook, af) : range_holds(&p->t.daddr, af) ? OPEN_NEXT : act;
}

/* One packet of one family at one hook: the action, NOT_OURS, or a part that goes on with it. */
static __always_inline int balance(void *ctx, enum lb_hook hook, enum lb_af af, bool opening)
{
	void *data, *end, *l4;
	struct packet p; /* filled step by step; zeroing it first would cost as much as a look-up */

	if (!packet_pull(ctx, hook, L3_OFF + (af == LB_AF_INET ? 40 : 60)))
		return act_pass(hook);
	data = packet_data(ctx, hook);
	end = packet_end(ctx, hook);
	if (!header_present(hook, af, data, end))
		return act_pass(hook);
	if (unlikely(header_of_fragment(af, data)))
		return hook == HOOK_XDP ? XDP_PASS : ODD_NEXT;
	p.ctx = ctx;
	p.odd = p.shape = 0;
	header_read(&p, hook, af, data);
	l4 = data + transport_offset(&p, hook, af);
	if (!transport_present(&p, l4, end)) {
		if (hook != HOOK_XDP && p.t.proto == icmp_protocol(af))
			return ICMP_NEXT;
		if (hook == HOOK_INGRESS && p.t.proto == ipip_protocol(af) &&
		    service_kinds() & LB_FEATURE_PEERS)
			return DECAP_NEXT;
		return hook != HOOK_XDP && af == LB_AF_INET6 && is_extension(p.t.proto)
			       ? ODD_NEXT
			       : act_pass(hook);
	}
	transport_read(&p, af, l4);
	p.kinds = packet_kinds(ctx, hook);
	return balance_read(&p, hook, af, data, l4, end, opening);
}
