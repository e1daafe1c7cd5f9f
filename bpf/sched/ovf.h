/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Weighted overflow (ip_vs_ovf.c): the greatest weight among servers with no more active connections than their weight;
 * ties keep the first of the list. When all are full, nobody. */
#pragma once
#include "fo.h"

static long ovf_step(__u32 i, void *ctx)
{
	struct walk *w = walk_of(ctx);
	struct lb_server_state *st;
	__s32 weight;
	__u32 id;

	if (walk_server(w, i, &id, &weight, &st) && st->active <= weight)
		fo_weigh(w, id, weight);
	return WALK_ON;
}

static __always_inline __u32 sched_ovf(struct walk *w)
{
	w->weight = 0;
	walk_all(w, ovf_step);
	return w->best;
}
