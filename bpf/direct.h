/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Requests that NAT does not touch, as most of them go: over a known hop, by direct routing or in a plain envelope. */
#pragma once
#include "forward.h"

/* May a packet that NAT does not touch go at once? What is not plain, or has a checksum for the envelope to cover, may not. */
static __always_inline bool transmit_is_plain(const struct packet *p, enum lb_hook hook,
					      const struct lb_server *srv, __u8 fwd)
{
	if (hook == HOOK_MARKED || p->odd || p->t.proto == IPPROTO_SCTP ||
	    (hook == HOOK_INGRESS && unlikely(came_in_tunnel(p->ctx))))
		return false;
	return fwd == LB_FWD_DROUTE ||
	       (fwd == LB_FWD_TUNNEL && !(srv->tun_flags & (TUN_CSUM | TUN_REMCSUM)));
}

/* A request that NAT does not touch. Over a known hop it goes at once. Else XDP leaves it to tcx, and there the rest is
 * transmit.h's, as is all that is not plain. */
static __always_inline int request_transmit(struct packet *p, enum lb_hook hook, enum lb_af af,
					    const struct conn_ref *ref, const struct lb_server *srv,
					    struct lb_server_state *st)
{
	struct transmit *x = transmit_get(); /* the stack has no room for a tunnel */
	struct inner_check unsummed = {};
	__u8 fwd = ref->c->fwd;
	struct hop hop = {};
	struct tunnel *t;

	if (!x || !transmit_is_plain(p, hook, srv, fwd))
		return transmit_later(p, af, ref->index + 1, ref->server, fwd, false);
	t = &x->t;
	t->room = 0;
	if (fwd == LB_FWD_TUNNEL)
		tunnel_measure(t, srv, &unsummed, false);
	if (!hop_find_out(p->ctx, p->now, hook, srv, st, &hop, t->room ? &t->saddr : NULL) ||
	    !hop_usable(p, hook, af, &hop, st->hop, t->room) || (hook != HOOK_XDP && hop.kick) ||
	    tunnel_is_narrow(t, hop.mtu))
		return hook == HOOK_XDP
			       ? XDP_PASS
			       : transmit_later(p, af, ref->index + 1, ref->server, fwd, false);
	conn_step(ref->c, p, DIR_IN);
	packet_count(p, DIR_IN, ref->server);
	if (!packet_age(p, hook, af) || (t->room && !tunnel_wrap(t, p, hook, af)))
		return act_drop(hook, LB_DROP_REWRITE);
	return hop_send(p, hook, &hop, st->hop);
}
