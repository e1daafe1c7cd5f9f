/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Expiry. A timer of the kernel's walks the entries ever used, a slice at a time, and ends what has expired: with no process
 * of ours alive connections end, and the servers' counts stay true. The same timer estimates rates.
 */
#pragma once
#include "flood.h"
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
	__u32 nodest; /* expire_nodest_conn: connections of removed servers end too: ip_vs_expire_nodest_conn_flush() */
	__u32 used; /* connections that go on */
};

static long sweep_step(__u32 i, void *ctx)
{
	struct sweep *s = ctx;
	struct lb_conn *c = conn_at(s->at + i);

	if (!c || !c->af)
		return 0;
	if (!(c->flags & LB_CONN_SOCKET) &&
	    (tick_past(s->now, c->expires) || (unlikely(s->nodest) && server_removed(c->server))))
		conn_end(s->at + i, c->expires, s->now);
	else
		s->used++;
	return 0;
}

/* Walks `want` entries from `at`; where the next slice begins. `used`: how many of these are connections, added. */
static __always_inline __u32 sweep_slice(__u32 at, __u32 want, __u32 *used)
{
	struct lb_config *cfg = config_get();
	struct sweep s = { .at = at, .now = clock_tick() };

	if (!cfg)
		return 0;
	s.nodest = cfg->expire_nodest_conn;
	s.high = pool_high();
	if (s.at >= s.high)
		s.at = 0;
	if (want < s.high / SWEEP_ROUND)
		want = s.high / SWEEP_ROUND;
	if (want > s.high - s.at)
		want = s.high - s.at;
	bpf_loop(want, sweep_step, &s, 0);
	*used += s.used;
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

/* A slice of the timer's round; at the end of one it is known how many connections there are. */
static __always_inline void sweep_next(struct lb_sweeper *sw)
{
	struct lb_conn_pool *first = pool_at(0);
	struct lb_defence *d = defence_get();
	__u32 used = sw->used;

	sw->cursor = sweep_slice(sw->cursor, SWEEP_SLICE, &used);
	if (first && d && sw->cursor >= first->high) {
		d->used = used;
		used = 0;
		sw->cursor = 0;
	}
	sw->used = used;
	defence_tick(first ? first->high : 0);
}

static int sweep_tick(void *map, __u32 *key, struct lb_sweeper *sw)
{
	(void)map;
	(void)key;
	sweep_next(sw);
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
	sw->cursor = 0;
	sw->used = 0;
	sweep_next(sw);
	sw->memo = memo_sweep(0, MEMO_SLICE);
	bpf_timer_init(&sw->timer, &lb_sweepers, CLOCK_MONOTONIC_); /* -EBUSY: it is there already */
	if (bpf_timer_set_callback(&sw->timer, sweep_tick))
		return -1;
	return bpf_timer_start(&sw->timer, SWEEP_PERIOD_NS, 0);
}
