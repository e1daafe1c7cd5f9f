/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The lock of a line of the connection index: held for a few stores, by who adds to it or removes from it. */
#pragma once
#include "conn.h"

enum { LOCK_SPINS = 512 };

static __always_inline bool line_lock(struct lb_conn_line *line)
{
	for (int i = 0; i < LOCK_SPINS; i++)
		if (!READ_ONCE(line->lock) && __sync_val_compare_and_swap(&line->lock, 0, 1) == 0)
			return true;
	return false;
}

static __always_inline void line_unlock(struct lb_conn_line *line)
{
	__sync_lock_test_and_set(&line->lock, 0);
}
