/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Weighted round robin (ip_vs_wrr.c): rounds of falling weight. The state is {server used last, current weight cw}: from
 * there on, the next server with weight >= cw; at the end of the list cw falls by the gcd, below 1 back to the greatest.
 */
#pragma once
#include "walk.h"

static long wrr_step(__u32 i, void *ctx)
{
	struct walk *w = walk_of(ctx);
	__u32 at = w->start + i, id;
	struct lb_server_state *st;
	__s32 weight;

	if (at >= w->count)
		return WALK_END;
	if (!walk_server(w, at, &id, &weight, &st) || weight < w->least)
		return WALK_ON;
	w->best = id;
	w->weight = weight;
	return WALK_END;
}

/* The greatest weight among servers that can take a connection, in w->weight. */
static long wrr_greatest_step(__u32 i, void *ctx)
{
	struct walk *w = walk_of(ctx);
	struct lb_server_state *st;
	__s32 weight;
	__u32 id;

	if (walk_server(w, i, &id, &weight, &st) && weight > w->weight)
		w->weight = weight;
	return WALK_ON;
}

/* cw at the next round in which somebody is served: falling by gcd one at a time would take as many rounds as the
 * greatest weight, so go straight to the greatest multiple that a usable server reaches. 0: nobody is usable. */
static __always_inline __s32 wrr_next_weight(struct walk *w, __s32 cw)
{
	__s32 gcd = w->gcd, top;

	w->weight = 0;
	walk_all(w, wrr_greatest_step);
	top = w->weight;
	if (top <= 0 || gcd <= 0)
		return 0;
	cw -= gcd;
	if (cw <= 0)
		cw = w->max_weight;
	if (cw > top)
		cw -= (__s32)(((__u32)(cw - top) + gcd - 1) / (__u32)gcd) * gcd;
	return cw > 0 ? cw : (__s32)w->max_weight;
}

static __always_inline __u32 sched_wrr(struct walk *w)
{
	struct lb_service_state *st = service_state_at(w->service);
	__u64 last;
	__s32 cw;

	if (!st || !w->max_weight)
		return 0;
	last = READ_ONCE(st->cursor);
	cw = (__s32)last;
	w->start = last >> 32 ? walk_after(w, last >> 32) : 0;
	w->least = cw > 0 ? cw : 1;
	/* walk_after() says 0 for "behind the last": the round is then over. */
	if (!(last >> 32) || w->start)
		walk_all(w, wrr_step);
	if (!w->best) {
		cw = wrr_next_weight(w, cw);
		if (!cw)
			return 0;
		w->start = 0;
		w->least = cw;
		walk_all(w, wrr_step);
	}
	if (w->best)
		w->raced = __sync_val_compare_and_swap(&st->cursor, last,
						       (__u64)w->best << 32 | (__u32)cw) != last;
	return w->best;
}
