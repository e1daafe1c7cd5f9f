/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The lock of a line of an index: held for a few stores, by who adds to the line or removes from it. */
#pragma once
#include "conn.h"

enum { LOCK_LOOKS = 128 }; /* some microseconds */

/* False: somebody else kept it for too long. The clock is read to let time pass: the verifier walks each round. (Not static:
 * it does so once a program.) */
__noinline int lock_take(__u32 *lock)
{
	if (!lock)
		return 0;
	for (int i = 0; i < LOCK_LOOKS; i++) {
		if (!READ_ONCE(*lock) && __sync_val_compare_and_swap(lock, 0, 1) == 0)
			return 1;
		bpf_ktime_get_ns();
	}
	return 0;
}

static __always_inline void lock_leave(__u32 *lock)
{
	__sync_lock_test_and_set(lock, 0);
}
