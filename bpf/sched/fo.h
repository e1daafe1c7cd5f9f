/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Weighted failover (ip_vs_fo.c): the greatest weight; ties keep the first of the list. */
#pragma once
#include "walk.h"

static __always_inline void fo_weigh(struct walk *w, __u32 id, __s32 weight)
{
	if (weight > w->weight) {
		w->best = id;
		w->weight = weight;
	}
}

static long fo_step(__u32 i, void *ctx)
{
	struct walk *w = walk_of(ctx);
	struct lb_server_state *st;
	__s32 weight;
	__u32 id;

	if (walk_server(w, i, &id, &weight, &st))
		fo_weigh(w, id, weight);
	return WALK_ON;
}

static __always_inline __u32 sched_fo(struct walk *w)
{
	w->weight = 0;
	walk_all(w, fo_step);
	return w->best;
}
