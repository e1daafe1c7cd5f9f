/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Shortest expected delay (ip_vs_sed.c): the least (active + 1) / weight, compared by cross-multiplying; inactive
 * connections do not count. Ties keep the first of the list. */
#pragma once
#include "walk.h"

static __always_inline void sed_weigh(struct walk *w, __u32 id, __s32 weight,
				      const struct lb_server_state *st)
{
	__u64 load = (__u64)(__u32)st->active + 1;

	if (!w->best || w->load * (__u64)weight > load * (__u64)w->weight) {
		w->best = id;
		w->load = load;
		w->weight = weight;
	}
}

static long sed_step(__u32 i, void *ctx)
{
	struct walk *w = walk_of(ctx);
	struct lb_server_state *st;
	__s32 weight;
	__u32 id;

	if (walk_server(w, i, &id, &weight, &st))
		sed_weigh(w, id, weight, st);
	return WALK_ON;
}

static __always_inline __u32 sched_sed(struct walk *w)
{
	walk_all(w, sed_step);
	return w->best;
}
