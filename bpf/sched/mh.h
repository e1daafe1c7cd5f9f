/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Maglev hashing (ip_vs_mh.c): the server of the client's bucket in a table that changes little when servers come and
 * go; with mh-port the client's port counts too. With mh-fallback (SCHED1) other buckets are tried where that server can
 * take no connection. */
#pragma once
#include "table.h"
#include "siphash.h"

enum { MH_KEY = 2654435761U }; /* golden ratio, both halves of the first key */

static __always_inline __u32 mh_bucket(__u32 key)
{
	return hsiphash(key, MH_KEY) % LB_MH_BUCKETS;
}

static long mh_step(__u32 i, void *ctx)
{
	struct walk *w = walk_of(ctx);

	return table_take(w, mh_bucket(w->key + (i + w->start) % LB_MH_BUCKETS));
}

static __always_inline __u32 sched_mh(struct walk *w)
{
	if (!w->table)
		return 0;
	w->key = client_key(w);
	w->start = mh_bucket(w->key);
	if (table_take(w, w->start) == WALK_ON && w->flags & LB_SERVICE_SCHED1 && walk_any(w))
		walk_steps(w, LB_MH_BUCKETS, mh_step);
	return w->best;
}
