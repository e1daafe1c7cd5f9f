/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Requests that NAT does not touch, as most of them go: over a known hop, by direct routing or in a plain envelope. */
#pragma once
#include "forward.h"

/* May a packet that NAT does not touch go at once? What is not plain, or has a checksum for the envelope to cover, may not. */
static __always_inline bool transmit_is_plain(const struct packet *p, enum lb_hook hook,
					      const struct lb_server *srv, __u8 fwd)
{
	if (hook == HOOK_MARKED || p->odd || p->t.proto == IPPROTO_SCTP)
		return false;
	return fwd == LB_FWD_DROUTE ||
	       (fwd == LB_FWD_TUNNEL && !(srv->tun_flags & (TUN_CSUM | TUN_REMCSUM)));
}

/* Puts the envelope around the packet, if it has one. */
static __always_inline bool transmit_envelop(struct tunnel *t, const struct packet *p,
					     enum lb_hook hook, enum lb_af af)
{
	return !t->room || (tunnel_describe(t, p, hook, af) && tunnel_push(p->ctx, hook, t) &&
			    tunnel_write(p->ctx, hook, t));
}

/* A request that NAT does not touch. Over a known hop it goes at once; what else there may be to do is transmit.h's. */
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
		goto later;
	t = &x->t;
	t->room = 0;
	if (fwd == LB_FWD_TUNNEL)
		tunnel_measure(t, srv, &unsummed, false);
	p->wire_len += t->room;
	if (!hop_find_out(p->ctx, p->now, hook, srv, st, &hop, t->room ? &t->saddr : NULL) ||
	    !hop_usable(p, hook, af, &hop, st->hop) || (hook != HOOK_XDP && hop.kick) ||
	    tunnel_is_narrow(t, hop.mtu))
		goto unwrap;
	conn_step(ref->c, p, DIR_IN);
	packet_count(p, DIR_IN, ref->server);
	if (!packet_age(p, hook, af) || !transmit_envelop(t, p, hook, af))
		return act_drop(hook, LB_DROP_REWRITE);
	return hop_send(p, hook, &hop, st->hop);
unwrap:
	p->wire_len -= t->room;
later:
	return transmit_later(p, af, ref->index + 1, ref->server, fwd, false);
}
