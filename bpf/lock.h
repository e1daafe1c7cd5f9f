/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The lock of a line of the connection index: held for a few stores, by who adds to it or removes from it. */
#pragma once
#include "conn.h"

enum { LOCK_SPINS = 512 };

struct lock_wait {
	struct lb_conn_line *line;
	__u64 locked;
};

static __always_inline bool line_try(struct lb_conn_line *line)
{
	return !READ_ONCE(line->lock) && __sync_val_compare_and_swap(&line->lock, 0, 1) == 0;
}

static long lock_step(__u32 i, void *ctx)
{
	struct lock_wait *w = ctx;

	(void)i;
	w->locked = line_try(w->line);
	return w->locked;
}

/* The first try is nearly always enough. (Were the others a loop here, the verifier would go on from each of them.) */
static __always_inline bool line_lock(struct lb_conn_line *line)
{
	struct lock_wait w = { .line = line };

	if (likely(line_try(line)))
		return true;
	bpf_loop(LOCK_SPINS, lock_step, &w, 0);
	return w.locked;
}

static __always_inline void line_unlock(struct lb_conn_line *line)
{
	__sync_lock_test_and_set(&line->lock, 0);
}
