/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Least connections (ip_vs_lc.c): the least active * 256 + inactive; ties keep the first of the list. */
#pragma once
#include "walk.h"

static long lc_step(__u32 i, void *ctx)
{
	struct walk *w = walk_of(ctx);
	struct lb_server_state *st;
	__s32 weight;
	__u64 load;
	__u32 id;

	if (!walk_server(w, i, &id, &weight, &st))
		return WALK_ON;
	load = server_overhead(st);
	if (!w->best || load < w->load) {
		w->best = id;
		w->load = load;
	}
	return WALK_ON;
}

static __always_inline __u32 sched_lc(struct walk *w)
{
	walk_all(w, lc_step);
	return w->best;
}
