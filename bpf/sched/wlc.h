/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Weighted least connections (ip_vs_wlc.c): the least (active * 256 + inactive) / weight, compared by cross-multiplying;
 * ties keep the first of the list. */
#pragma once
#include "walk.h"

static __always_inline void wlc_weigh(struct walk *w, __u32 id, __s32 weight,
				      const struct lb_server_state *st)
{
	__u64 load = server_overhead(st);

	if (!w->best || w->load * (__u64)weight > load * (__u64)w->weight) {
		w->best = id;
		w->load = load;
		w->weight = weight;
	}
}

static long wlc_step(__u32 i, void *ctx)
{
	struct walk *w = walk_of(ctx);
	struct lb_server_state *st;
	__s32 weight;
	__u32 id;

	if (walk_server(w, i, &id, &weight, &st))
		wlc_weigh(w, id, weight, st);
	return WALK_ON;
}

static __always_inline __u32 sched_wlc(struct walk *w)
{
	walk_all(w, wlc_step);
	return w->best;
}
