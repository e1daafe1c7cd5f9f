/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Power of two choices (ip_vs_twos.c): two draws by weight among the usable servers, of which the one with the less
 * overhead / weight wins; the first draw wins a tie. A draw is of 0 to the sum of weights, both included, and meets the
 * first server at which the weights so far add up to it: so the head of the list has one chance more than its weight.
 */
#pragma once
#include "walk.h"

static long twos_sum_step(__u32 i, void *ctx)
{
	struct walk *w = walk_of(ctx);
	struct lb_server_state *st;
	__s32 weight;
	__u32 id;

	if (walk_server(w, i, &id, &weight, &st))
		w->load += weight;
	return WALK_ON;
}

static long twos_draw_step(__u32 i, void *ctx)
{
	struct walk *w = walk_of(ctx);
	struct lb_server_state *st;
	__s32 weight;
	__u32 id;

	if (!walk_server(w, i, &id, &weight, &st))
		return WALK_ON;
	w->left -= weight;
	if (w->left > 0)
		return WALK_ON;
	w->best = id;
	w->weight = weight;
	w->load = server_overhead(st);
	return WALK_END;
}

/* Draws a server, with its weight and load; none if those that were summed up are no longer usable. */
static __always_inline __u32 twos_draw(struct walk *w, __u64 total)
{
	__u64 random = (__u64)bpf_get_prandom_u32() << 32 | bpf_get_prandom_u32();

	w->best = 0;
	w->left = random % (total + 1);
	walk_all(w, twos_draw_step);
	return w->best;
}

static __always_inline __u32 sched_twos(struct walk *w)
{
	__u64 total, load;
	__s32 weight;
	__u32 first;

	w->load = 0;
	walk_all(w, twos_sum_step);
	total = w->load;
	if (!total)
		return 0;
	first = twos_draw(w, total);
	weight = w->weight;
	load = w->load;
	if (!twos_draw(w, total))
		return first;
	return first && load * w->weight <= w->load * weight ? first : w->best;
}
