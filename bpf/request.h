/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Requests, client to virtual service: of a connection, and those that may begin one. */
#pragma once
#include "direct.h"
#include "fragment.h"
#include "mark.h"
#include "open.h"
#include "refuse.h"

/* Gives a translated request to the stack. */
static __always_inline int act_stack(const struct packet *p, enum lb_hook hook)
{
	return hook == HOOK_MARKED ? marked_restart(p->ctx) : act_pass(hook);
}

/* Hands over a request that is masqueraded, or the host's own. */
static __always_inline int request_hand_over(const struct packet *p, enum lb_hook hook,
					     enum lb_af af, const struct conn_ref *ref)
{
	__u8 fwd = ref->c->fwd;

	if (fwd_both_ends(fwd))
		return masqueraded_later(p, af, ref->index + 1, ref->server, fwd);
	return fwd_one_way(fwd) ? transmit_later(p, af, ref->index + 1, ref->server, fwd, false)
				: act_pass(hook);
}

/* Counts, keeps alive, translates and sends one request. XDP touches nothing that it can't send itself. */
static __always_inline int request_forward(struct packet *p, enum lb_hook hook, enum lb_af af,
					   struct conn_ref ref, struct lb_server *srv)
{
	struct lb_server_state *st = server_state_at(ref.server);
	struct rewrite r = {};
	struct hop hop = {};
	bool direct;

	if (unlikely(!srv || !st || !(srv->flags & LB_SERVER_AVAILABLE)))
		return act_drop(hook, LB_DROP_SERVER_GONE);
	if (hook == HOOK_EGRESS || unlikely(ref.c->fwd >= LB_FWD_FULLNAT))
		return request_hand_over(p, hook, af, &ref);
	if (unlikely(ref.c->fwd != LB_FWD_MASQ))
		return request_transmit(p, hook, af, &ref, srv, st);
	direct = hook != HOOK_MARKED && !p->odd && ref.c->flags & LB_CONN_BYPASS &&
		 hop_find(p, hook, af, &ref.c->caddr, &srv->addr, &st->hop, &st->hop_token, &hop) &&
		 hop_usable(p, hook, af, &hop, st->hop, 0);
	if (hook == HOOK_XDP && !direct)
		return XDP_PASS;
	conn_step(ref.c, p, DIR_IN);
	packet_count(p, DIR_IN, ref.server);
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

/* As is_new_conn(): would the packet begin a connection? */
static __always_inline bool packet_begins(const struct packet *p)
{
	if (p->t.proto == IPPROTO_TCP)
		return p->tcp_flags & TCP_SYN;
	return p->t.proto == IPPROTO_SCTP && p->sctp_event == SCTP_INIT;
}

/* As is_new_conn_expected(): is the entry about to end, so that a new one at its ends is no surprise? Bit 1 of the mode:
 * where replies are not seen FIN_WAIT is all that there is to see of an end. One made by a template goes on with it. */
static __always_inline bool conn_reusable(const struct lb_conn *c, __u32 mode)
{
	if (c->control)
		return false;
	if (c->proto == IPPROTO_SCTP)
		return c->state == LB_SCTP_CLOSED;
	return c->state == LB_TCP_TIME_WAIT || c->state == LB_TCP_CLOSE ||
	       (mode & 2 && c->state == LB_TCP_FIN_WAIT && c->flags & LB_CONN_NOOUTPUT);
}

/* As ip_vs_in_hook(): is the packet to be scheduled anew, and the connection that it was found to belong to over? Either
 * it begins another one (conn_reuse_mode, or the server is quiesced), or the server is gone. */
static __always_inline bool conn_superseded(const struct conn_ref *ref, const struct packet *p,
					    const struct lb_server *srv)
{
	bool gone = !srv || !(srv->flags & LB_SERVER_AVAILABLE);
	struct lb_config *cfg;

	if (likely(!packet_begins(p) && !gone))
		return false;
	cfg = config_get();
	if (!cfg)
		return false;
	if (cfg->expire_nodest_conn && (gone || (!srv->weight && ref->c->packets)))
		return true; /* not the very packet that a template led to a server of weight 0 */
	return packet_begins(p) && cfg->conn_reuse_mode &&
	       conn_reusable(ref->c, cfg->conn_reuse_mode);
}

/* Sends a datagram to the server that was picked for it. */
static __always_inline int request_once(struct packet *p, enum lb_hook hook, enum lb_af af,
					struct new_conn *n, __u32 id)
{
	struct lb_server *srv = server_at(id);
	struct rewrite r = {};

	if (!srv)
		return act_drop(hook, LB_DROP_SERVER_GONE);
	if (!(p->shape & SHAPE_LATER))
		count_conn(id);
	if (srv->fwd != LB_FWD_MASQ)
		return transmit_later(p, af, 0, id, srv->fwd, false);
	packet_count(p, DIR_IN, id);
	r.old_addr = &p->t.daddr;
	r.new_addr = &srv->addr;
	r.old_port = p->t.dport;
	r.new_port = new_conn_port(n, srv);
	return packet_rewrite(p, hook, af, &r) ? act_stack(p, hook)
					       : act_drop(hook, LB_DROP_REWRITE);
}

/* A fragment of a datagram: all of them go to one server, which the first was given. */
static __always_inline int once_fragment(struct packet *p, enum lb_hook hook, enum lb_af af,
					 struct new_conn *n)
{
	struct fragment_first *first;

	if (p->shape & SHAPE_LATER)
		new_conn_describe(n, p, af);
	first = fragment_first(n, af);
	if (p->shape & SHAPE_LATER)
		return first && first->server ? request_once(p, hook, af, n, first->server)
					      : act_drop(hook, LB_DROP_FRAGMENT);
	if (first)
		first->server = n->server;
	return request_once(p, hook, af, n, n->server);
}

/* One-packet scheduling: each datagram is scheduled and translated, and leaves no connection. It comes here twice: to be
 * scheduled, and then to be sent. */
static __always_inline bool once_is_picked(struct new_conn *n, const struct packet *p)
{
	bool picked = n->once == ONCE_PICKED && n->client == p->src && n->service == p->dst;

	n->once = ONCE_NO;
	return picked;
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

/* As tcp_conn_schedule(): a SYN may open a connection; with sloppy_tcp anything but a reset. */
static __always_inline bool tcp_opens(const struct packet *p)
{
	struct lb_config *cfg;

	if (p->tcp_flags & TCP_RST)
		return false;
	if (likely(p->tcp_flags & TCP_SYN))
		return true;
	cfg = config_get();
	return cfg && cfg->sloppy_tcp;
}

/* A packet of no connection: is there a service, and may this packet open one? */
static __always_inline int request_new(struct packet *p, enum lb_hook hook, enum lb_af af)
{
	struct new_conn *n = new_conn_get(NEW_CONN);
	__u32 service;
	bool once;
	int act;

	if (unlikely(mark_wanted(p)))
		packet_mark_by_rules(p, hook, af);
	service = service_find(p, af);
	if (!service || !n)
		return NOT_OURS;
	once = unlikely(service_once(p, service));
	if (once && (hook == HOOK_XDP || hook == HOOK_EGRESS))
		return act_pass(hook);
	if (p->shape & SHAPE_LATER)
		return once ? once_fragment(p, hook, af, n) : act_drop(hook, LB_DROP_FRAGMENT);
	if (p->t.proto == IPPROTO_TCP && !tcp_opens(p))
		return hook == HOOK_XDP || hook == HOOK_EGRESS || segment_is_local(p, af, service)
			       ? act_pass(hook)
			       : refuse_reset(p->ctx, p->l4, af);
	act = p->t.proto == IPPROTO_SCTP ? sctp_open(p, hook) : 0;
	if (act)
		return act;
	if (once && once_is_picked(n, p))
		return p->shape ? once_fragment(p, hook, af, n)
				: request_once(p, hook, af, n, n->server);
	return request_describe(p, hook, af, n, service, once ? ONCE_WANTED : ONCE_NO);
}

/* The same for what nearly all connections begin with: a datagram or a SYN, with services of nothing but endpoints. All
 * others are left to the part that opens. */
static __always_inline int request_begin(struct packet *p, enum lb_hook hook, enum lb_af af)
{
	struct new_conn *n = new_conn_get(NEW_CONN);
	__u32 service;

	if (unlikely(!n || service_kinds() || p->odd) ||
	    !(p->t.proto == IPPROTO_UDP ||
	      (p->t.proto == IPPROTO_TCP && (p->tcp_flags & (TCP_SYN | TCP_RST)) == TCP_SYN)))
		return OPEN_NEXT;
	service = service_find(p, af);
	if (!service)
		return NOT_OURS;
	return unlikely(service_once(p, service))
		       ? OPEN_NEXT
		       : request_describe(p, hook, af, n, service, ONCE_NO);
}

/* Schedules what request_new() described: where the packet goes on, or what becomes of it. XDP leaves it to tcx to refuse,
 * and to count that. */
static __always_inline int schedule(void *ctx, bool xdp, struct new_conn *n)
{
	enum lb_verdict v = conn_schedule(ctx, xdp ? HOOK_XDP : HOOK_INGRESS, n);

	if (v == LB_OK)
		return PACKET_NEXT;
	if (xdp)
		return XDP_PASS;
	if (unlikely(n->icmp))
		return act_drop(HOOK_INGRESS, v); /* an error is not answered by another */
	if (v == LB_REFUSE_NO_SERVER && unlikely(ftp_data(n)))
		return act_pass(HOOK_INGRESS);
	return v == LB_REFUSE_NO_SERVER ? refuse_port(ctx, n->hook, n->af, v)
					: act_drop(HOOK_INGRESS, v);
}

/* A packet that comes in for an endpoint that may be a virtual service. */
static __always_inline int request_in(struct packet *p, enum lb_hook hook, enum lb_af af)
{
	struct conn_ref ref = conn_find(p, DIR_IN, af);
	struct lb_server *srv = ref.c ? server_at(ref.server) : NULL;

	if (hook == HOOK_MARKED && !ref.c && conn_translated(p, af).c)
		return act_pass(hook);
	if (unlikely(ref.c && conn_superseded(&ref, p, srv))) {
		conn_end(ref.index, ref.c->expires, p->now);
		ref.c = NULL;
	}
	if (likely(ref.c))
		return request_forward(p, hook, af, ref, srv);
	return mark_or_service(p) ? OPEN_NEXT : NOT_OURS;
}
