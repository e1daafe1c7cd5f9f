/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Requests that reach their server as they are: by direct routing (ip_vs_dr_xmit()) or in a tunnel (ip_vs_tunnel_xmit()).
 * Replies do not pass here. As in the kernel such a packet never meets this host's forwarding, and the way to the server is
 * the one that the host itself would take. A server that is local to the host gets the packet from its stack.
 *
 * These functions start where balance() left off, on a stack of their own; struct transmit says what is known by then.
 */
#pragma once
#include "refuse.h"

/* The way to a server that no next hop is known for, or whose neighbour the kernel is to look after. */
struct way {
	struct bpf_redir_neigh neigh;
	__u32 ifindex;
	__u32 mtu; /* what fits, if the packet does not */
	__s32 fib; /* BPF_FIB_LKUP_RET_* */
};

/* Asks the fib for it; `len` is the packet's IP length as it will leave. */
static __noinline int way_ask(struct __sk_buff *skb, const struct lb_server *srv, __u32 len,
			      struct way *way, union lb_addr *src)
{
	struct bpf_fib_lookup f = {};

	f.family = srv->af == LB_AF_INET6 ? AF_INET6_ : AF_INET_;
	f.tot_len = len;
	__builtin_memcpy(f.ipv6_dst, &srv->addr, 16);
	way->fib = fib_output(skb, &f, skb->ifindex);
	source_fill(&f, &srv->addr);
	way->ifindex = f.ifindex;
	way->mtu = f.mtu_result;
	way->neigh.nh_family = f.family;
	__builtin_memcpy(way->neigh.ipv6_nh, f.ipv6_dst, 16);
	__builtin_memcpy(src, f.ipv6_src, 16);
	return 0;
}

/* Can the kernel's neighbour code send the packet? */
static __always_inline bool way_open(const struct way *way)
{
	return way->fib == BPF_FIB_LKUP_RET_SUCCESS || way->fib == BPF_FIB_LKUP_RET_NO_NEIGH;
}

/* Sends the packet by it. An interface without Ethernet headers may be a tunnel with many ends, of which the kernel knows the right one
 * if it looks for the way itself: by the packet's own addresses, if these lead to the server (`addressed`). (Not static: the verifier looks at it once.) */
__noinline int way_send(struct __sk_buff *skb, struct way *way, __u32 addressed)
{
	HIDE(skb); /* where frames have a header already it is not used, and would not be handed over */
	if (!way || !frame_begin(skb))
		return act_drop(HOOK_INGRESS, LB_DROP_REWRITE);
	if (addressed && link_is_bare(way->ifindex))
		return bpf_redirect_neigh(way->ifindex, NULL, 0, 0);
	return bpf_redirect_neigh(way->ifindex, &way->neigh, sizeof(way->neigh), 0);
}

/* A tunnel that has no address to begin at leads nowhere. (Not static: the verifier looks at it once.) */
__noinline int way_needs_source(const struct transmit *x, struct way *way)
{
	if (!x || !way || !x->t.room || x->t.saddr.d[0] || x->t.saddr.d[1])
		return 0;
	if (way_open(way))
		way->fib = BPF_FIB_LKUP_RET_UNREACHABLE;
	return 0;
}

/* The packet belongs to its connection, and counts. Errors only count. */
static __always_inline void transmit_count(const struct transmit *x, const struct packet *p)
{
	struct lb_conn *c = x->conn && !x->icmp ? conn_at(x->conn - 1) : NULL;

	if (c)
		conn_step(c, p, DIR_IN);
	packet_count(p, DIR_IN, x->server);
}

/* Says in x->t what goes around the packet, if anything does. */
static __always_inline void transmit_measure(struct transmit *x, const struct packet *p,
					     enum lb_hook hook, enum lb_af af,
					     const struct lb_server *srv, struct inner_check *check)
{
	x->t.room = 0;
	if (x->fwd != LB_FWD_TUNNEL)
		return;
	if (srv->tun_flags & (TUN_CSUM | TUN_REMCSUM))
		inner_check_read(check, p, hook, af);
	tunnel_measure(&x->t, srv, check, sum_is_remote(check, p->ctx, hook, srv));
}

/* Puts the envelope around the packet, if it has one. The action, or 0. */
static __always_inline int transmit_wrap(struct transmit *x, const struct packet *p,
					 enum lb_hook hook, enum lb_af af,
					 const struct inner_check *check)
{
	struct tunnel *t = &x->t;

	if (!t->room)
		return 0;
	if (p->gso && t->checked) {
		if (t->type != TUN_GUE || t->af == LB_AF_INET6)
			return act_drop(hook, LB_DROP_SEGMENTS);
		t->checked = false; /* IPv4 has UDP without */
	}
	if (t->checked)
		t->sum = inner_sum(check, p, hook, af, t->sum_start);
	return tunnel_wrap(t, p, hook, af) ? 0 : act_drop(hook, LB_DROP_REWRITE);
}

/* Answers a packet that can't go on by an ICMP error, or drops it, if it is one itself. `says` as for refuse(). */
static __always_inline int transmit_answer(const struct transmit *x, struct __sk_buff *skb,
					   enum lb_hook hook, enum lb_af af, __u32 says, __u32 rest)
{
	return x->icmp ? act_drop(hook, says & 0xff) : refuse(skb, hook, af, says, rest);
}

/* A packet greater than `mtu`, of which the envelope has its part. */
static __always_inline int refuse_too_big(const struct transmit *x, struct __sk_buff *skb,
					  enum lb_hook hook, enum lb_af af, __u32 mtu)
{
	mtu -= x->t.room;
	if (af == LB_AF_INET6 && mtu < IPV6_LEAST)
		mtu = IPV6_LEAST;
	return transmit_answer(x, skb, hook, af,
			       LB_REFUSE_TOO_BIG |
				       (af == LB_AF_INET ? ICMP_SAYS(ICMP_UNREACH, ICMP_FRAG_NEEDED)
							 : ICMP_SAYS(ICMP6_TOO_BIG, 0)),
			       mtu);
}

/* On tcx a packet that can't go on as it is: the action, or 0 when it can. In the order of __ip_vs_get_out_rt(). */
static __always_inline int transmit_refuse(const struct transmit *x, struct packet *p,
					   enum lb_hook hook, enum lb_af af, const struct hop *hop,
					   const struct way *way)
{
	bool known = hop->ifindex;
	__u32 mtu = known ? hop->mtu : way->mtu;
	bool fits = known ? p->wire_len + x->t.room <= mtu
			  : way->fib != BPF_FIB_LKUP_RET_FRAG_NEEDED;

	if (!known && fits && !way_open(way))
		return transmit_answer(x, p->ctx, hook, af,
				       LB_REFUSE_NO_ROUTE |
					       (af == LB_AF_INET
							? ICMP_SAYS(ICMP_UNREACH, ICMP_HOST)
							: ICMP_SAYS(ICMP6_UNREACH, ICMP6_ADDR)),
				       0);
	if (p->ttl <= 1)
		return transmit_answer(x, p->ctx, hook, af,
				       LB_REFUSE_TTL | (af == LB_AF_INET ? ICMP_SAYS(ICMP_TIME, 0)
									 : ICMP_SAYS(ICMP6_TIME, 0)),
				       0);
	if (!packet_age(p, hook, af))
		return act_drop(hook, LB_DROP_REWRITE);
	if ((known || !fits) && tunnel_is_narrow(&x->t, mtu))
		return act_drop(hook, LB_DROP_NARROW);
	return fits ? 0 : refuse_too_big(x, p->ctx, hook, af, mtu);
}

/* Would the packet go from one tunnel into another? The node that it came from took this one for a server's: so the connection
 * here, begun by what came straight from the client, is over. */
static __always_inline bool transmit_loops(const struct transmit *x, struct __sk_buff *skb)
{
	struct lb_conn *c = x->conn ? conn_at(x->conn - 1) : NULL;

	if (likely(!came_in_tunnel(skb)) || x->fwd != LB_FWD_TUNNEL)
		return false;
	if (c && !x->icmp)
		conn_end(x->conn - 1, c->expires, x->now);
	return true;
}

/* Finds the way at tcx, and sends there what can go. */
static __always_inline int transmit_tc(struct __sk_buff *skb, enum lb_hook hook, enum lb_af af)
{
	struct transmit *x = transmit_get();
	struct inner_check check = {};
	struct lb_server_state *st;
	struct lb_server *srv;
	struct hop hop = {};
	struct way way = {};
	struct packet p;
	int act;

	if (!x)
		return act_pass(hook);
	if (hook == HOOK_INGRESS && unlikely(transmit_loops(x, skb)))
		return act_drop(hook, LB_DROP_LOOP);
	transmit_take(&p, x, skb, af);
	if (p.gso && skb->gso_size == GSO_BY_FRAGS)
		p.wire_len =
			0; /* a list of SCTP's segments tells no size: for the kernel, too, it fits */
	srv = server_at(x->server);
	st = server_state_at(x->server);
	if (!srv || !st)
		return act_drop(hook, LB_DROP_SERVER_GONE);
	transmit_count(x, &p);
	transmit_measure(x, &p, hook, af, srv, &check);
	if (!hop_find_out(skb, p.now, hook, srv, st, &hop, x->t.room ? &x->t.saddr : NULL) ||
	    hop.kick) {
		way_ask(skb, srv, p.wire_len + x->t.room, &way, &x->t.saddr);
		way_needs_source(x, &way);
	}
	if (!hop.ifindex && way.fib == BPF_FIB_LKUP_RET_NOT_FWDED)
		return act_pass(hook); /* a server of the host's own */
	act = transmit_refuse(x, &p, hook, af, &hop, &way);
	if (!act)
		act = transmit_wrap(x, &p, hook, af, &check);
	if (act)
		return act;
	if (likely(hop.ifindex && !(hop.kick && way_open(&way)))) {
		hop.kick = false;
		return hop_send(&p, hook, &hop, st->hop);
	}
	if (hop.kick)
		hop_kicked(st->hop, p.now, hook);
	return way_send(skb, &way, x->t.room);
}

/* Sends a packet on its way, by XDP: whatever is not plain is left to tcx, untouched. */
static __always_inline int transmit_xdp(struct xdp_md *ctx, enum lb_hook hook, enum lb_af af)
{
	struct transmit *x = transmit_get();
	struct inner_check check = {};
	struct lb_server_state *st;
	struct lb_server *srv;
	struct hop hop = {};
	struct packet p;
	int act;

	if (!x)
		return XDP_PASS;
	transmit_take(&p, x, ctx, af);
	srv = server_at(x->server);
	st = server_state_at(x->server);
	if (!srv || !st)
		return XDP_PASS;
	transmit_measure(x, &p, hook, af, srv, &check);
	if (!hop_find_out(ctx, p.now, hook, srv, st, &hop, x->t.room ? &x->t.saddr : NULL) ||
	    !hop_usable(&p, hook, af, &hop, st->hop, x->t.room) || tunnel_is_narrow(&x->t, hop.mtu))
		return XDP_PASS;
	transmit_count(x, &p);
	if (!packet_age(&p, hook, af))
		return act_drop(hook, LB_DROP_REWRITE);
	act = transmit_wrap(x, &p, hook, af, &check);
	return act ? act : hop_send(&p, hook, &hop, st->hop);
}
