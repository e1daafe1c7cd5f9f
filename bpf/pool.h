/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Entries for connections: taken from a stack of free ones (one a lane, so that CPUs do not meet), else from those never
 * used, else from another lane's stack. The stack's links are in the free entries; a count of changes in the head guards
 * against a head that was away and came back.
 */
#pragma once
#include "state.h"

enum { POOL_TRIES = 16, POOL_PUSH_TRIES = 64, POOL_STEAL = 64 };

static __always_inline struct lb_conn *conn_at(__u32 i)
{
	return bpf_map_lookup_elem(&lb_conns, &i);
}

static __always_inline struct lb_conn_pool *pool_at(__u32 i)
{
	return bpf_map_lookup_elem(&lb_conn_pools, &i);
}

/* Pops a free entry of one lane: index + 1, or 0. */
static __always_inline __u32 pool_pop(struct lb_conn_pool *pool)
{
	for (int i = 0; i < POOL_TRIES; i++) {
		__u64 head = READ_ONCE(pool->head), next;
		struct lb_conn *c;

		if (!(__u32)head)
			return 0;
		c = conn_at((__u32)head - 1);
		if (!c)
			return 0;
		next = ((head >> 32) + 1) << 32 | READ_ONCE(c->server);
		if (__sync_val_compare_and_swap(&pool->head, head, next) == head)
			return head;
	}
	return 0;
}

/* Gives an entry back. Bounded: after that many lost races in a row the entry is lost too, and counted. */
__noinline int pool_push(__u32 index)
{
	struct lb_conn_pool *pool = pool_at(index >> 6 & lb_lane_mask);
	struct lb_conn *c = conn_at(index);

	for (int i = 0; pool && c && i < POOL_PUSH_TRIES; i++) {
		__u64 head = READ_ONCE(pool->head);

		c->server = head;
		if (__sync_val_compare_and_swap(&pool->head, head,
						((head >> 32) + 1) << 32 | (index + 1)) == head)
			return 1;
	}
	count_verdict(LB_ENTRY_LOST);
	return 0;
}

/* How many entries were ever used. */
static __always_inline __u32 pool_high(void)
{
	struct lb_conn_pool *first = pool_at(0);
	__u32 high = first ? READ_ONCE(first->high) : 0;

	return high < lb_conn_max ? high : lb_conn_max;
}

/* The next entry that was never used: index + 1, or 0. */
static __always_inline __u32 pool_grow(void)
{
	struct lb_conn_pool *first = pool_at(0);
	__u32 i;

	if (!first || READ_ONCE(first->high) >= lb_conn_max)
		return 0;
	i = __sync_fetch_and_add(&first->high, 1);
	return i < lb_conn_max ? i + 1 : 0;
}

static long pool_steal_step(__u32 i, void *ctx)
{
	struct lb_conn_pool *pool = pool_at(i & lb_lane_mask);
	__u32 *taken = ctx;

	if (pool)
		*taken = pool_pop(pool);
	return *taken || i >= lb_lane_mask;
}

/* A free entry: index + 1, or 0 when there is none. */
__noinline __u32 pool_take(void)
{
	struct lb_conn_pool *mine = pool_at(lane());
	__u32 taken = mine ? pool_pop(mine) : 0;

	if (!taken)
		taken = pool_grow();
	if (!taken)
		bpf_loop(POOL_STEAL, pool_steal_step, &taken, 0);
	return taken;
}
