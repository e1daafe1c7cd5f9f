/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Destination hashing (ip_vs_dh.c): the server of the virtual address's bucket, or none. */
#pragma once
#include "table.h"

static __always_inline __u32 sched_dh(struct walk *w)
{
	if (w->table)
		table_take(w, hash_bucket(addr_fold(&w->flow.daddr)));
	return w->best;
}
