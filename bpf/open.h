/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What opens a connection hands it on to lb_schedule. */
#pragma once
#include "defence.h"
#include "forward.h"

/* Describes the connection that a packet opens, for lb_schedule. */
static __always_inline int request_describe(const struct packet *p, enum lb_hook hook, enum lb_af af,
					    struct new_conn *n, __u32 service, enum once once)
{
	if (unlikely(defence_drops()))
		return act_drop(hook, LB_DROP_DEFENCE);
	if (p->t.sport == bpf_htons(FTP_DATA_PORT))
		return act_pass(hook); /* what a server of FTP begins itself: ip_vs_schedule() */
	new_conn_describe(n, p, af);
	if (hook == HOOK_INGRESS && unlikely(came_in_tunnel(p->ctx)))
		n->origin = ORIGIN_TUNNEL;
	n->event = p->tcp_flags;
	n->virtual_service = service;
	n->hook = hook;
	n->once = once;
	n->shape = p->shape;
	n->odd = p->odd;
	return SCHEDULE_NEXT;
}
