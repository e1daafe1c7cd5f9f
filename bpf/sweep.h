/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Expiry. A timer of the kernel's walks the entries ever used, a slice at a time, and ends what has expired: with no process
 * of ours alive connections end, and the servers' counts stay true. The same timer estimates rates.
 */
#pragma once
#include "sched/memo_sweep.h"
#include "estimate.h"

enum {
	SWEEP_PERIOD_NS = 50 * 1000 * 1000,
	SWEEP_ROUND = 16,   /* slices that make a round: all entries within about a second */
	SWEEP_SLICE = 4096, /* entries in a slice at least: a small table is done at once */
	CLOCK_MONOTONIC_ = 1,
};

struct sweep {
	__u32 at, high, now;
};

static long sweep_step(__u32 i, void *ctx)
{
	struct sweep *s = ctx;
	struct lb_conn *c = conn_at(s->at + i);

	if (c && c->af && tick_past(s->now, c->expires))
		conn_end(s->at + i, c->expires, s->now);
	return 0;
}

/* Walks `want` entries from `at`; where the next slice begins. */
static __always_inline __u32 sweep_slice(__u32 at, __u32 want)
{
	struct lb_conn_pool *first = pool_at(0);
	struct sweep s = { .at = at, .now = clock_tick() };

	if (!first)
		return 0;
	s.high = first->high < lb_conn_max ? first->high : lb_conn_max;
	if (s.at >= s.high)
		s.at = 0;
	if (want < s.high / SWEEP_ROUND)
		want = s.high / SWEEP_ROUND;
	if (want > s.high - s.at)
		want = s.high - s.at;
	bpf_loop(want, sweep_step, &s, 0);
	return s.at + want;
}

/* How long until the next run: runs have a fixed distance, whatever time they take themselves. */
static __always_inline __u64 sweep_delay(struct lb_sweeper *sw, __u64 now)
{
	sw->due += SWEEP_PERIOD_NS;
	if (sw->due <= now || sw->due > now + SWEEP_PERIOD_NS)
		sw->due = now + SWEEP_PERIOD_NS;
	return sw->due - now;
}

static int sweep_tick(void *map, __u32 *key, struct lb_sweeper *sw)
{
	(void)map;
	(void)key;
	sw->cursor = sweep_slice(sw->cursor, SWEEP_SLICE);
	sw->slice = estimate_slice(sw->slice);
	sw->memo = memo_sweep(sw->memo, MEMO_SLICE);
	bpf_timer_start(&sw->timer, sweep_delay(sw, bpf_ktime_get_ns()), 0);
	return 0;
}

/* Starts the timer, or moves it to this program's code. */
static __always_inline int sweep_start(void)
{
	__u32 zero = 0;
	struct lb_sweeper *sw = bpf_map_lookup_elem(&lb_sweepers, &zero);

	if (!sw)
		return -1;
	/* A first slice at once; it also has the verifier see the callees that else only the callback has. */
	sw->cursor = sweep_slice(0, SWEEP_SLICE);
	sw->memo = memo_sweep(0, MEMO_SLICE);
	bpf_timer_init(&sw->timer, &lb_sweepers, CLOCK_MONOTONIC_); /* -EBUSY: it is there already */
	if (bpf_timer_set_callback(&sw->timer, sweep_tick))
		return -1;
	return bpf_timer_start(&sw->timer, SWEEP_PERIOD_NS, 0);
}
