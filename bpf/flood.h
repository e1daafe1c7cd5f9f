/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Defences against floods of connections: drop_entry, drop_packet and secure_tcp, as ip_vs_ctl.c and ip_vs_conn.c have them.
 * The kernel's modes 1 and 2 (one becomes the other and back) act while free memory is low. What a flood uses up here is the
 * connection table: memory is what is left of that.
 */
#pragma once
#include "conn_edit.h"

enum {
	DEFENCE_ALWAYS = 3,
	CONNS_IN_PAGE = 4096 / sizeof(struct lb_conn),
	DROP_PART = 32,   /* of the table is looked at in a second, at random */
	DROP_IDLE_S = 60, /* a connection with a packet since then is spared */
};

static __always_inline bool defence_on(__u32 mode, const struct lb_defence *d)
{
	return mode == DEFENCE_ALWAYS || (mode && d->low);
}

/* ip_vs_ctl.c, update_defense_level(). */
static __always_inline void defence_update(struct lb_defence *d)
{
	struct lb_config *cfg = config_get();
	__u32 left, rate = 0;

	if (!cfg)
		return;
	left = d->used < lb_conn_max ? (lb_conn_max - d->used) / CONNS_IN_PAGE : 0;
	d->low = left < cfg->amemthresh;
	d->drop_entry = defence_on(cfg->drop_entry, d);
	d->secure_tcp = defence_on(cfg->secure_tcp, d);
	if (cfg->drop_packet == DEFENCE_ALWAYS) {
		rate = cfg->am_droprate;
	} else if (cfg->drop_packet && d->low) {
		rate = cfg->amemthresh / (cfg->amemthresh - left);
		if (rate != d->drop_rate)
			d->drop_counter = rate;
	}
	d->drop_rate = rate;
}

/* ip_vs_conn.c, todrop_entry(): of idle connections with n packets one in n. Without its counters, by chance. */
static __always_inline bool idle_droppable(const struct lb_conn *c, __u32 now)
{
	__u32 last = c->expires - state_timeout_ticks(c->state);

	if (!c->packets || c->packets >= LB_CONN_PACKETS ||
	    now - last < (DROP_IDLE_S * lb_hz) >> lb_tick_shift)
		return false;
	return bpf_get_prandom_u32() % c->packets == 0;
}

/* ip_vs_conn.c, ip_vs_random_dropentry(): half-open ones at once, established ones and those of UDP if they are idle. */
static __always_inline bool conn_droppable(const struct lb_conn *c, __u32 now)
{
	if (c->proto == IPPROTO_UDP)
		return idle_droppable(c, now);
	if (c->proto != IPPROTO_TCP && c->proto != IPPROTO_SCTP)
		return false;
	if (c->state == LB_TCP_SYN_RECV || c->state == LB_TCP_SYNACK || c->state == LB_SCTP_INIT1 ||
	    c->state == LB_SCTP_INIT)
		return true;
	if (c->state != LB_TCP_ESTABLISHED && c->state != LB_SCTP_ESTABLISHED)
		return false;
	return idle_droppable(c, now);
}

static long drop_step(__u32 i, void *ctx)
{
	__u32 *high = ctx, at = bpf_get_prandom_u32() % (*high ? *high : 1);
	__u32 now = clock_tick(), control;
	struct lb_conn *c = conn_at(at);

	(void)i;
	if (!c || !c->af || !conn_droppable(c, now))
		return 0;
	control = c->control;
	if (!conn_end(at, c->expires, now))
		return 0;
	count_verdict(LB_EXPIRED_EARLY);
	c = control ? conn_at(control - 1) : NULL;
	if (c) /* its template, unless that has other connections */
		conn_end(control - 1, c->expires, now);
	return 0;
}

/* Once a second: what the tunables come to, and a part of the table. `high`: entries ever used. */
static __noinline int defence_tick(__u32 high)
{
	struct lb_defence *d = defence_get();
	__u32 now = clock_tick(), some = high / DROP_PART;

	if (!d || now - d->updated < lb_hz >> lb_tick_shift)
		return 0;
	d->updated = now;
	defence_update(d);
	if (!d->drop_entry)
		return 0;
	if (bpf_get_prandom_u32() % DROP_PART < high % DROP_PART)
		some++;
	bpf_loop(some, drop_step, &high, 0);
	return 0;
}
