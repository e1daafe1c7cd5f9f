/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The choice of a server for a new connection: switches over the schedulers, and nothing else. */
#pragma once
#include "sched/rr.h"
#include "sched/wrr.h"
#include "sched/lc.h"
#include "sched/wlc.h"
#include "sched/dh.h"
#include "sched/sh.h"
#include "sched/mh.h"
#include "sched/sed.h"
#include "sched/nq.h"
#include "sched/fo.h"
#include "sched/ovf.h"
#include "sched/twos.h"
#include "sched/lblc.h"
#include "sched/lblcr.h"

/* The schedulers that look at the whole list; a function of its own, as those are slow anyway and rr is not. */
__noinline __u32 sched_walk(__u8 sched, struct walk *w)
{
	if (!w)
		return 0;
	switch (sched) {
	case LB_SCHED_WRR:
		return sched_wrr(w);
	case LB_SCHED_LC:
		return sched_lc(w);
	case LB_SCHED_WLC:
		return sched_wlc(w);
	case LB_SCHED_SED:
		return sched_sed(w);
	case LB_SCHED_NQ:
		return sched_nq(w);
	case LB_SCHED_FO:
		return sched_fo(w);
	case LB_SCHED_OVF:
		return sched_ovf(w);
	case LB_SCHED_TWOS:
		return sched_twos(w);
	default:
		return 0;
	}
}

static __always_inline __u32 sched_pick(__u8 sched, struct walk *w)
{
	switch (sched) {
	case LB_SCHED_RR:
		return sched_rr(w);
	case LB_SCHED_DH:
		return sched_dh(w);
	case LB_SCHED_SH:
		return sched_sh(w);
	case LB_SCHED_MH:
		return sched_mh(w);
	case LB_SCHED_LBLC:
		return sched_lblc(w);
	case LB_SCHED_LBLCR:
		return sched_lblcr(w);
	default:
		return sched_walk(sched, w);
	}
}
