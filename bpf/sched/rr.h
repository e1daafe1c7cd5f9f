/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Round robin (ip_vs_rr.c): the next usable server after the one used last; weights count only as zero or not. */
#pragma once
#include "walk.h"

static long rr_step(__u32 i, void *ctx)
{
	struct walk *w = walk_of(ctx);
	__u32 at = w->start + i;

	if (at >= w->count)
		at -= w->count;
	return walk_usable(w, at) ? walk_take(w, at) : WALK_ON;
}

static __always_inline __u32 sched_rr(struct walk *w)
{
	struct lb_service_state *st = service_state_at(w->service);
	__u64 last;

	if (!st)
		return 0;
	last = READ_ONCE(st->cursor);
	w->start = walk_after(w, last);
	/* The first try is nearly always the one. An empty list has none: its cell's neighbour is another's. */
	if (w->count && rr_step(0, &w) == WALK_ON)
		walk_all(w, rr_step);
	if (w->best)
		w->raced = __sync_val_compare_and_swap(&st->cursor, last, (__u64)w->best) != last;
	return w->best;
}
