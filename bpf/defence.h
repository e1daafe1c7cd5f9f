/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What a packet that would begin a connection meets under drop_packet. When that is in force: flood.h. */
#pragma once
#include "transition.h"

/* Is this the one new connection in drop_rate that is not to be? As ip_vs_todrop(). */
__noinline int defence_drops(void)
{
	struct lb_defence *d = defence_get();

	if (!d || likely(!d->drop_rate))
		return 0;
	if ((__s32)--d->drop_counter > 0)
		return 0;
	d->drop_counter = d->drop_rate;
	return 1;
}
