/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Schedulers by hash: user space fills a table of buckets when the list changes, a new connection looks into one. */
#pragma once
#include "walk.h"

/* As the kernel folds an address, with any family: the unused words of an IPv4 address are zero. */
static __always_inline __u32 addr_fold(const union lb_addr *addr)
{
	return bpf_ntohl(addr->w[0] ^ addr->w[1] ^ addr->w[2] ^ addr->w[3]);
}

/* Port (with the scheduler's flag for it) and address of the client. */
static __always_inline __u32 client_key(const struct walk *w)
{
	__u32 port = w->flags & LB_SERVICE_SCHED2 ? bpf_ntohs(w->flow.sport) : 0;

	return port + addr_fold(&w->flow.saddr);
}

/* hash_32() of linux/hash.h, 8 bits of it: LB_HASH_BUCKETS. */
static __always_inline __u32 hash_bucket(__u32 key)
{
	return (key * 0x61C88647U) >> 24;
}

static long any_step(__u32 i, void *ctx)
{
	struct walk *w = walk_of(ctx);

	return walk_usable(w, i) ? walk_take(w, i) : WALK_ON;
}

/* Can any server of the list take a connection? If not, a fallback would look into all buckets in vain. */
static __always_inline bool walk_any(struct walk *w)
{
	bool any;

	walk_all(w, any_step);
	any = w->best;
	w->best = 0;
	return any;
}

/* Takes the server of a bucket; WALK_ON if it can take no connection, as is_unavailable() says. */
static __always_inline long table_take(struct walk *w, __u32 bucket)
{
	union lb_cell *cell = cell_at(w->table + bucket / LB_CELL_BUCKETS);
	struct lb_server_state *st;
	__s32 weight;
	__u32 id;

	if (!cell || !walk_server(w, cell->bucket[bucket % LB_CELL_BUCKETS], &id, &weight, &st))
		return WALK_ON;
	w->best = id;
	w->weight = weight;
	return WALK_END;
}
