/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Never queue (ip_vs_nq.c): the first of the list that has no active connection; if all have some, as sed. */
#pragma once
#include "sed.h"

static long nq_step(__u32 i, void *ctx)
{
	struct walk *w = walk_of(ctx);
	struct lb_server_state *st;
	__s32 weight;
	__u32 id;

	if (!walk_server(w, i, &id, &weight, &st))
		return WALK_ON;
	if (!st->active) {
		w->best = id;
		return WALK_END;
	}
	sed_weigh(w, id, weight, st);
	return WALK_ON;
}

static __always_inline __u32 sched_nq(struct walk *w)
{
	walk_all(w, nq_step);
	return w->best;
}
