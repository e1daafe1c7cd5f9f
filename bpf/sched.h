/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The choice of a server for a new connection: a switch over the schedulers, and nothing else. */
#pragma once
#include "sched/rr.h"
#include "sched/wrr.h"
#include "sched/lc.h"
#include "sched/wlc.h"
#include "sched/dh.h"
#include "sched/sh.h"
#include "sched/mh.h"

static __always_inline __u32 sched_pick(__u8 sched, struct walk *w)
{
	switch (sched) {
	case LB_SCHED_RR:
		return sched_rr(w);
	case LB_SCHED_WRR:
		return sched_wrr(w);
	case LB_SCHED_LC:
		return sched_lc(w);
	case LB_SCHED_WLC:
		return sched_wlc(w);
	case LB_SCHED_DH:
		return sched_dh(w);
	case LB_SCHED_SH:
		return sched_sh(w);
	case LB_SCHED_MH:
		return sched_mh(w);
	default:
		return 0;
	}
}
