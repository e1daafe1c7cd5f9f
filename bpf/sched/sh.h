/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Source hashing (ip_vs_sh.c): the server of the client's bucket; with sh-port its port counts too. With sh-fallback
 * (SCHED1) other buckets are tried where that server can take no connection. */
#pragma once
#include "table.h"

/* ip_vs_sh_get_fallback() adds the hash twice: to the offset, and as ip_vs_sh_hashkey() of that offset. */
static long sh_step(__u32 i, void *ctx)
{
	struct walk *w = walk_of(ctx);

	return table_take(w, (i + 2 * w->start) % LB_HASH_BUCKETS);
}

static __always_inline __u32 sched_sh(struct walk *w)
{
	if (!w->table)
		return 0;
	w->start = hash_bucket(client_key(w));
	if (table_take(w, w->start) == WALK_ON && w->flags & LB_SERVICE_SCHED1 && walk_any(w))
		walk_steps(w, LB_HASH_BUCKETS, sh_step);
	return w->best;
}
