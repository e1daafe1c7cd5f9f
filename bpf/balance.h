/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The life of a packet of ours: requests (client to virtual service) and replies (server to client).
 * A request is translated where it comes in. Then it either goes straight out (bypass) or up the stack, which sees client
 * and server; its reply is translated where it comes in (bypass), or where it leaves to the client.
 */
#pragma once
#include "icmp.h"

/* Gives a translated request to the stack. */
static __always_inline int act_stack(const struct packet *p, enum lb_hook hook)
{
	return hook == HOOK_MARKED ? marked_restart(p->ctx) : act_pass(hook);
}

/* Counts, keeps alive, translates and sends one request. XDP touches nothing that it can't send itself. */
static __always_inline int request_forward(struct packet *p, enum lb_hook hook, enum lb_af af,
					   struct conn_ref ref)
{
	struct lb_server *srv = server_at(ref.server);
	struct lb_server_state *st = server_state_at(ref.server);
	struct rewrite r = {};
	struct hop hop = {};
	bool direct;

	if (unlikely(!srv || !st || !(srv->flags & LB_SERVER_AVAILABLE)))
		return act_drop(hook, LB_DROP_SERVER_GONE);
	if (unlikely(ref.c->fwd != LB_FWD_MASQ))
		return transmit_later(p, ref.index + 1, ref.server, ref.c->fwd, false);
	direct = hook != HOOK_MARKED && ref.c->flags & LB_CONN_BYPASS &&
		 hop_find(p, hook, af, &ref.c->caddr, &srv->addr, &st->hop, &st->hop_token, &hop) &&
		 hop_usable(p, hook, af, &hop, st->hop);
	if (hook == HOOK_XDP && !direct)
		return XDP_PASS;
	conn_step(ref.c, p, DIR_IN);
	count_in(ref.server, p->ip_len);
	r.old_addr = &p->t.daddr;
	r.new_addr = &srv->addr;
	r.old_port = p->t.dport;
	r.new_port = ref.dport;
	if (!packet_rewrite(p, hook, af, &r))
		return act_drop(hook, LB_DROP_REWRITE);
	if (!direct)
		return act_stack(p, hook);
	if (!packet_age(p, hook, af))
		return act_drop(hook, LB_DROP_REWRITE);
	return hop_send(p, hook, &hop, st->hop);
}

/* A SYN or INIT that starts a new life on an entry which is about to end (conn_reuse_mode not 0). */
static __always_inline bool conn_reused(const struct conn_ref *ref, const struct packet *p)
{
	__u8 state = ref->c->state;
	struct lb_config *cfg;

	if (p->t.proto == IPPROTO_TCP) {
		if (likely(!(p->tcp_flags & TCP_SYN)) ||
		    (state != LB_TCP_TIME_WAIT && state != LB_TCP_CLOSE))
			return false;
	} else if (p->t.proto != IPPROTO_SCTP || p->sctp_event != SCTP_INIT ||
		   state != LB_SCTP_CLOSED) {
		return false;
	}
	if (ref->c->control) /* is_new_conn_expected(): its template would lead to the same server */
		return false;
	cfg = config_get();
	return cfg && cfg->conn_reuse_mode;
}

/* One-packet scheduling: each datagram is scheduled and translated, and leaves no connection. */
static __always_inline int request_once(struct packet *p, enum lb_hook hook, enum lb_af af,
					struct new_conn *n)
{
	struct lb_server *srv = server_at(READ_ONCE(n->server));
	struct rewrite r = {};

	template_leave(n->control); /* as soon gone as come */
	if (!srv)
		return refuse_unreachable(p->ctx, hook, af);
	count_conn(n->server);
	if (srv->fwd != LB_FWD_MASQ)
		return transmit_later(p, 0, n->server, srv->fwd, false);
	count_in(n->server, p->ip_len);
	r.old_addr = &p->t.daddr;
	r.new_addr = &srv->addr;
	r.old_port = p->t.dport;
	r.new_port = new_conn_port(n, srv);
	return packet_rewrite(p, hook, af, &r) ? act_stack(p, hook)
					       : act_drop(hook, LB_DROP_REWRITE);
}

static __always_inline bool service_once(const struct packet *p, __u32 service)
{
	struct lb_service *svc = service_at(service);

	return p->t.proto == IPPROTO_UDP && svc && svc->flags & LB_SERVICE_ONEPACKET;
}

/* What becomes of an SCTP packet of no connection, as sctp_conn_schedule() does: 0: it may open one. */
static __always_inline int sctp_open(const struct packet *p, enum lb_hook hook)
{
	struct lb_config *cfg = config_get();

	if (p->sctp_event == SCTP_NOTHING)
		return act_drop(hook, LB_DROP_MALFORMED);
	if (p->sctp_event == SCTP_INIT)
		return 0;
	return p->sctp_event == SCTP_ABORT || !cfg || !cfg->sloppy_sctp ? act_pass(hook) : 0;
}

/* No connection yet: is there a service, and may this packet open one? */
static __always_inline int request_open(struct packet *p, enum lb_hook hook, enum lb_af af,
					struct conn_ref *ref)
{
	struct new_conn *n = new_conn_get(NEW_CONN);
	__u32 service = service_find(p, af);
	enum lb_verdict v;

	if (!service || !n)
		return act_pass(hook);
	if (p->t.proto == IPPROTO_TCP && (p->tcp_flags & (TCP_SYN | TCP_RST)) != TCP_SYN)
		return hook == HOOK_XDP || segment_is_local(p, af, service)
			       ? act_pass(hook)
			       : refuse_reset(p->ctx, af);
	if (p->t.proto == IPPROTO_SCTP) {
		int act = sctp_open(p, hook);

		if (act)
			return act;
	}
	if (hook == HOOK_XDP && unlikely(service_once(p, service)))
		return XDP_PASS;
	new_conn_describe(n, p, af);
	v = new_conn_pick(n, service);
	if (v == LB_OK && hook != HOOK_XDP && unlikely(service_once(p, service)))
		return request_once(p, hook, af, n);
	if (v == LB_OK)
		v = new_conn_add(n, p, hook, af, ref);
	if (v == LB_OK)
		return 0;
	if (hook == HOOK_XDP)
		return XDP_PASS; /* tcx refuses and counts */
	return v == LB_REFUSE_NO_SERVER ? refuse_unreachable(p->ctx, hook, af) : act_drop(hook, v);
}

/* A packet that comes in for an endpoint that may be a virtual service. */
static __always_inline int request_in(struct packet *p, enum lb_hook hook, enum lb_af af)
{
	struct conn_ref ref = conn_find(p, DIR_IN, af);

	if (hook == HOOK_MARKED && !ref.c && conn_translated(p, af))
		return act_pass(hook);
	if (unlikely(ref.c && conn_reused(&ref, p))) {
		conn_end(ref.index, ref.c->expires, p->now);
		ref.c = NULL;
	}
	return likely(ref.c) ? request_forward(p, hook, af, ref) : OPEN_NEXT;
}

/* A packet for such an endpoint that belongs to no connection. */
static __always_inline int request_new(struct packet *p, enum lb_hook hook, enum lb_af af)
{
	struct conn_ref ref = {};
	int act = request_open(p, hook, af, &ref);

	if (act)
		return act;
	return ref.c ? request_forward(p, hook, af, ref) : act_pass(hook);
}

/* A packet from an endpoint that may be a server, back to a client of ours. */
static __always_inline int reply_back(struct packet *p, enum lb_hook hook, enum lb_af af)
{
	struct conn_ref ref = conn_find(p, DIR_OUT, af);
	struct lb_server *srv;
	struct rewrite r = {};
	struct hop hop = {};

	if (!ref.c)
		return NOT_OURS;
	/* What does not leave from here goes up the stack, and is translated as it leaves from there. */
	if (hook != HOOK_EGRESS && !(ref.c->flags & LB_CONN_BYPASS &&
				     hop_find(p, hook, af, &ref.c->vaddr, &ref.c->caddr,
					      &ref.c->hop, &ref.c->hop_token, &hop) &&
				     hop_usable(p, hook, af, &hop, ref.c->hop)))
		return act_pass(hook);
	conn_step(ref.c, p, DIR_OUT);
	srv = server_at(ref.server);
	if (srv && srv->flags & LB_SERVER_AVAILABLE)
		count_out(ref.server, p->ip_len);
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

/*
 * One packet of one family at one hook: the action, NOT_OURS, ICMP_NEXT or OPEN_NEXT. What belongs to no connection, and so
 * may open one, is for a program of its own (`opening`), which reads the packet once more: it is rare, and more than all
 * the rest.
 */
static __always_inline int balance(void *ctx, enum lb_hook hook, enum lb_af af, bool opening)
{
	void *data, *end, *l4;
	struct packet p; /* filled step by step; zeroing it first would cost as much as a look-up */
	bool to_service, from_server;
	int act, back;

	if (!packet_pull(ctx, hook, af == LB_AF_INET ? 54 : 74))
		return act_pass(hook);
	data = packet_data(ctx, hook);
	end = packet_end(ctx, hook);
	if (!header_present(hook, af, data, end))
		return act_pass(hook);
	p.ctx = ctx;
	header_read(&p, hook, af, data);
	l4 = data + transport_offset(&p, hook, af);
	if (!transport_present(&p, l4, end))
		return hook != HOOK_XDP && icmp_present(&p, af, data) ? ICMP_NEXT : act_pass(hook);
	transport_read(&p, af, l4);
	p.kinds = service_kinds();
	to_service = hook != HOOK_EGRESS && filter_to_service(&p);
	from_server = hook != HOOK_MARKED && filter_from_server(&p);
	if (likely(!to_service && !from_server))
		return act_pass(hook);
	p.mark = packet_mark(&p, hook);
	if (unlikely(!packet_sound(&p, hook, af, data, l4, end)))
		return to_service && service_find(&p, af) ? act_drop(hook, LB_DROP_MALFORMED)
							  : act_pass(hook);
	p.now = clock_tick();
	if (opening)
		return to_service ? request_new(&p, hook, af) : act_pass(hook);
	act = to_service ? request_in(&p, hook, af) : NOT_OURS;
	if ((act != NOT_OURS && act != OPEN_NEXT) || !from_server)
		return act;
	/* A reply before a new connection, as ip_vs_out() is before ip_vs_in(). */
	back = reply_back(&p, hook, af);
	return back == NOT_OURS ? act : back;
}
