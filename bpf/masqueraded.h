/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Packets of masqueraded connections (masquerade.h). Where both directions bypass the stack both ends are rewritten at once. Else
 * each end is where the stack must not see it otherwise: it sees client and server, as of any connection, and never the
 * address that the server sees, which is its own:
 *
 *   request  in: to the server           out: from this host
 *   reply    in: to the client           out: from the virtual address (balance.h)
 *
 * The host's own connections (LB_FWD_HOST) are rewritten whole where they leave and where they come in: the stack sees client
 * and virtual address.
 */
#pragma once
#include "transmit.h"

/* A masqueraded packet: its connection's two entries. */
struct masqueraded {
	struct lb_conn *c, *partner;
	struct lb_server *srv;
	struct lb_server_state *st;
};

/* The connection lives on, and so does its second entry. */
static __always_inline void masqueraded_step(const struct masqueraded *m, const struct packet *p,
					     enum lb_dir dir)
{
	conn_step(m->c, p, dir);
	conn_touch(m->partner, m->c->state, p->now);
}

/* The packet is for the server. */
static __always_inline bool rewrite_to_server(const struct masqueraded *m, struct packet *p,
					      enum lb_hook hook, enum lb_af af)
{
	struct rewrite r = { .old_addr = &m->c->vaddr,
			     .new_addr = &m->srv->addr,
			     .old_port = m->c->vport,
			     .new_port = m->c->dport };

	return packet_rewrite(p, hook, af, &r);
}

/* It comes from this host. */
static __always_inline bool rewrite_from_host(const struct masqueraded *m, struct packet *p,
					      enum lb_hook hook, enum lb_af af)
{
	struct rewrite r = { .old_addr = &m->c->caddr,
			     .new_addr = &m->partner->caddr,
			     .old_port = m->c->cport,
			     .new_port = m->partner->cport,
			     .source = true };

	return packet_rewrite(p, hook, af, &r);
}

/* The packet is for the client. */
static __always_inline bool rewrite_to_client(const struct masqueraded *m, struct packet *p,
					      enum lb_hook hook, enum lb_af af)
{
	struct rewrite r = { .old_addr = &m->partner->caddr,
			     .new_addr = &m->c->caddr,
			     .old_port = m->partner->cport,
			     .new_port = m->c->cport };

	return packet_rewrite(p, hook, af, &r);
}

/* It comes from the virtual service. */
static __always_inline bool rewrite_from_service(const struct masqueraded *m, struct packet *p,
						 enum lb_hook hook, enum lb_af af)
{
	struct rewrite r = { .old_addr = &m->srv->addr,
			     .new_addr = &m->c->vaddr,
			     .old_port = m->c->dport,
			     .new_port = m->c->vport,
			     .source = true };

	return packet_rewrite(p, hook, af, &r);
}

/* May the packet go past the stack? */
static __always_inline bool masqueraded_bypass(const struct masqueraded *m, const struct packet *p,
					       enum lb_hook hook)
{
	return hook != HOOK_MARKED && hook != HOOK_EGRESS && !p->odd && m->c->flags & LB_CONN_BYPASS;
}

/* A client's packet, where it comes in. */
static __always_inline int masqueraded_request(const struct masqueraded *m, struct packet *p,
					       enum lb_hook hook, enum lb_af af)
{
	struct hop hop = {};
	bool direct = masqueraded_bypass(m, p, hook) &&
		      hop_find(p, hook, af, &m->c->caddr, &m->srv->addr, &m->st->hop,
			       &m->st->hop_token, &hop) &&
		      hop_usable(p, hook, af, &hop, m->st->hop, 0);

	if (hook == HOOK_XDP && !direct)
		return XDP_PASS;
	masqueraded_step(m, p, DIR_IN);
	packet_count(p, DIR_IN, m->c->server);
	if (!rewrite_to_server(m, p, hook, af))
		return act_drop(hook, LB_DROP_REWRITE);
	if (!direct)
		return hook == HOOK_MARKED ? marked_restart(p->ctx) : act_pass(hook);
	if (!rewrite_from_host(m, p, hook, af) || !packet_age(p, hook, af))
		return act_drop(hook, LB_DROP_REWRITE);
	return hop_send(p, hook, &hop, m->st->hop);
}

/* Gives a packet to the host's stack as if it came by the interface `ifindex`. Its frame, if it had one, is for nobody there: that it
 * is for the host is told by the address of our veth (lb_tc_ingress), and on lo by none. What leaves by lo does not simply go on:
 * connection tracking would take it for what it was. */
static __always_inline int host_deliver(struct __sk_buff *skb, enum lb_hook hook, __u32 ifindex)
{
	__u16 *mac;

	if (hook == HOOK_INGRESS && ifindex == skb->ifindex)
		return act_pass(hook);
	if (!frame_begin(skb))
		return act_drop(HOOK_INGRESS, LB_DROP_REWRITE);
	mac = packet_data(skb, HOOK_INGRESS);
	if ((void *)(mac + 3) > packet_end(skb, HOOK_INGRESS))
		return act_drop(HOOK_INGRESS, LB_DROP_REWRITE);
	mac[0] = ifindex == LOOPBACK_IFINDEX_ ? 0 : bpf_htons(MARKED_MAC_0);
	mac[1] = ifindex == LOOPBACK_IFINDEX_ ? 0 : bpf_htons(MARKED_MAC_1);
	mac[2] = ifindex == LOOPBACK_IFINDEX_ ? 0 : bpf_htons(MARKED_MAC_2);
	return bpf_redirect(ifindex, BPF_F_INGRESS);
}

/* A server's packet of a forwarded connection, where it comes in. */
static __always_inline int masqueraded_reply(const struct masqueraded *m, struct packet *p,
					     enum lb_hook hook, enum lb_af af)
{
	struct hop hop = {};
	bool direct = masqueraded_bypass(m, p, hook) &&
		      hop_find(p, hook, af, &m->c->vaddr, &m->c->caddr, &m->partner->hop,
			       &m->partner->hop_token, &hop) &&
		      hop_usable(p, hook, af, &hop, m->partner->hop, 0);

	if (hook == HOOK_XDP && !direct)
		return XDP_PASS;
	if (direct) {
		masqueraded_step(m, p, DIR_OUT);
		packet_count(p, DIR_OUT, m->c->server);
	} else {
		conn_touch(m->partner, m->c->state, p->now);
	}
	if (!rewrite_to_client(m, p, hook, af))
		return act_drop(hook, LB_DROP_REWRITE);
	if (!direct)
		return act_pass(hook);
	if (!rewrite_from_service(m, p, hook, af) || !packet_age(p, hook, af))
		return act_drop(hook, LB_DROP_REWRITE);
	return hop_send(p, hook, &hop, m->partner->hop);
}

/* A server's packet to the host itself, where it comes in, or, from the host, where it leaves by lo. It comes from where what it
 * answers went, so that who checks sources finds it right. */
static __always_inline int masqueraded_back(const struct masqueraded *m, struct packet *p,
					    enum lb_hook hook, enum lb_af af)
{
	if (hook == HOOK_XDP)
		return XDP_PASS;
	masqueraded_step(m, p, DIR_OUT);
	packet_count(p, DIR_OUT, m->c->server);
	if (!rewrite_to_client(m, p, hook, af) || !rewrite_from_service(m, p, hook, af))
		return act_drop(hook, LB_DROP_REWRITE);
	return host_deliver(p->ctx, hook, m->partner->hop);
}

/* A packet of the host's own, where it leaves: by the way that leads to the server, which may be another one, or back to the
 * host. */
static __always_inline int masqueraded_own(const struct masqueraded *m, struct packet *p,
					   enum lb_af af)
{
	struct __sk_buff *skb = p->ctx;
	struct hop hop = {};
	struct way way = {};
	union lb_addr source;

	masqueraded_step(m, p, DIR_IN);
	packet_count(p, DIR_IN, m->c->server);
	m->partner->hop = skb->ifindex;
	if (!rewrite_to_server(m, p, HOOK_EGRESS, af) || !rewrite_from_host(m, p, HOOK_EGRESS, af))
		return act_drop(HOOK_EGRESS, LB_DROP_REWRITE);
	if (hop_find_out(skb, p->now, HOOK_EGRESS, m->srv, m->st, &hop, NULL))
		return hop_send(p, HOOK_EGRESS, &hop, m->st->hop);
	way_ask(skb, m->srv, p->wire_len, &way, &source);
	if (way.fib == BPF_FIB_LKUP_RET_NOT_FWDED)
		return host_deliver(skb, HOOK_EGRESS, LOOPBACK_IFINDEX_);
	if (!way_open(&way))
		return act_drop(HOOK_EGRESS, LB_REFUSE_NO_ROUTE);
	return way_send(skb, &way, true);
}

/* A packet that leaves for a server: from here, if its connection is masqueraded. */
static __always_inline int masqueraded_leave(struct packet *p, enum lb_af af)
{
	struct conn_ref ref = conn_translated(p, af);
	struct masqueraded m = {};

	if (!ref.c || ref.c->fwd != LB_FWD_FULLNAT)
		return act_pass(HOOK_EGRESS);
	m.c = ref.c;
	m.partner = conn_partner(m.c, ref.index);
	if (!m.partner)
		return act_drop(HOOK_EGRESS, LB_DROP_NO_MASQUERADE);
	conn_touch(m.partner, m.c->state, p->now);
	return rewrite_from_host(&m, p, HOOK_EGRESS, af) ? act_pass(HOOK_EGRESS)
							 : act_drop(HOOK_EGRESS, LB_DROP_REWRITE);
}

/* Whose the packet is, from the entry that it was found by. False: the connection is over. */
static __always_inline bool masqueraded_find(struct masqueraded *m, const struct transmit *x)
{
	m->srv = server_at(x->server);
	m->st = server_state_at(x->server);
	return conn_entries(x->conn - 1, &m->c, &m->partner) && m->srv && m->st &&
	       m->c->server == x->server;
}

/* A packet that balance() handed over. */
static __always_inline int masqueraded_handle(void *ctx, enum lb_hook hook, enum lb_af af)
{
	struct transmit *x = transmit_get();
	struct masqueraded m;
	struct packet p;

	if (!x)
		return act_pass(hook);
	transmit_take(&p, x, ctx, af);
	if (hook == HOOK_XDP)
		p.odd = p.shape = 0;
	if (hook == HOOK_EGRESS && !x->conn)
		return masqueraded_leave(&p, af);
	if (!masqueraded_find(&m, x))
		return act_drop(hook, LB_DROP_NO_MASQUERADE);
	if (x->fwd == LB_FWD_RETURN)
		return m.c->fwd == LB_FWD_HOST ? masqueraded_back(&m, &p, hook, af)
		       : hook == HOOK_EGRESS   ? act_pass(hook)
					       : masqueraded_reply(&m, &p, hook, af);
	return hook == HOOK_EGRESS ? masqueraded_own(&m, &p, af)
				   : masqueraded_request(&m, &p, hook, af);
}
